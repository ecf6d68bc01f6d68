"""A two-finger gripper whose pads stay parallel: what its joints do, and what space it takes, at every opening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.geometry import inverse
from flowplan.robot.kinematics import tree_poses
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Gripper:
    """A parallel gripper. Tool frame: origin between the pads, z approaches, y closes.

    Attributes:
        max_width: metres between the pads when wide open.
        force: newtons between the pads, the most the gripper is asked for.
        joints: names of its n joints.
        table_width: (W,) ascending openings, metres, from 0 to max_width.
        table_joints: (W, n) joint positions at each of them.
        table_pad_z: (W,) z of the pads' centre in the tool frame, metres: where the fingers swing, it moves.
        finger_links: links that carry the pads, the one on the tool's +y side first.
        hand_links: the other links of the gripper.
        finger_depth: the most, metres, that the fingertips reach past the tool origin along z at any opening.
        pad_size: (2,) metres of a pad along the tool's x and z.
        box_link, X_link_box, box_size: (n) links, (n, 4, 4) poses and (n, 3) sizes of boxes that stand for the gripper.
        tree: the URDF's joints below the tool link.
        tool_link, X_link_tool: the link the tool frame is fixed to, and its pose there.
    """

    max_width: float
    force: float
    joints: tuple[str, ...]
    table_width: FloatArray
    table_joints: FloatArray
    table_pad_z: FloatArray
    finger_links: tuple[str, ...]
    hand_links: tuple[str, ...]
    finger_depth: float
    pad_size: FloatArray
    box_link: tuple[str, ...]
    X_link_box: FloatArray
    box_size: FloatArray
    tree: tuple[Joint, ...]
    tool_link: str
    X_link_tool: FloatArray

    def joint_positions(self, width: float) -> dict[str, float]:
        """Position (rad or m) of every gripper joint when the pads are `width` metres apart, clamped to the table."""
        return {
            name: float(np.interp(width, self.table_width, self.table_joints[:, i]))
            for i, name in enumerate(self.joints)
        }

    def pad_z(self, width: float) -> float:
        """z of the pads' centre in the tool frame, metres, when they are `width` metres apart."""
        return float(np.interp(width, self.table_width, self.table_pad_z))

    def boxes(self, width: float) -> tuple[FloatArray, FloatArray]:
        """Boxes that stand for palm and fingers at an opening: poses (n, 4, 4) in the tool frame, sizes (n, 3) m."""
        X_link = tree_poses(self.tree, self.tool_link, self.joint_positions(width))
        X_tool_link = inverse(self.X_link_tool)
        return np.stack(
            [X_tool_link @ X_link[n] for n in self.box_link]
        ) @ self.X_link_box, self.box_size.copy()
