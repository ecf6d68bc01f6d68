"""A two-finger gripper with parallel pads: its joint positions and its volume at every opening."""

from __future__ import annotations

from collections.abc import Mapping
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
        max_width: largest distance between the pads, meters.
        force: largest force between the pads that is asked for, newtons.
        joints: names of its n joints.
        table_width: (W,) ascending openings from 0 to max_width, meters.
        table_joints: (W, n) joint positions at each of them.
        table_pad_z: (W,) z of the pads' center in the tool frame, meters; it varies if the fingers
            swing.
        finger_links: links that carry the pads, the one on the tool's +y side first.
        hand_links: the other links of the gripper.
        finger_depth: largest reach of the fingertips past the tool origin along z at any opening,
            meters.
        pad_size: (2,) size of a pad along the tool's x and z, meters.
        box_link, X_link_box, box_size: (n) links, (n, 4, 4) poses and (n, 3) sizes of the boxes
            that approximate the gripper.
        tree: the URDF's joints below the tool link.
        tool_link, X_link_tool: the link that the tool frame is fixed to, and its pose there.
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
        """Positions (rad or m) of the gripper joints at an opening (m), clamped to the table."""
        return {
            name: float(np.interp(width, self.table_width, self.table_joints[:, i]))
            for i, name in enumerate(self.joints)
        }

    def width_at(self, positions: Mapping[str, float]) -> float | None:
        """Opening (m) at joint positions (rad or m) by name, by the first of the gripper's joints
        among them; None if there is none with a finite position. Other joints are ignored."""
        for i, name in enumerate(self.joints):
            position, table = positions.get(name, np.nan), self.table_joints[:, i]
            if not np.isfinite(position) or np.ptp(table) == 0:
                continue
            # `interp` wants rising positions; some grippers close with rising ones.
            order = np.argsort(table)
            return float(np.interp(position, table[order], self.table_width[order]))
        return None

    def pad_z(self, width: float) -> float:
        """z of the pads' center in the tool frame at an opening, both in meters."""
        return float(np.interp(width, self.table_width, self.table_pad_z))

    def boxes(self, width: float) -> tuple[FloatArray, FloatArray]:
        """Boxes that approximate palm and fingers at an opening.

        Args:
            width: distance between the pads, meters.

        Returns:
            Poses (n, 4, 4) in the tool frame, and sizes (n, 3) in meters.
        """
        # Links at this opening, relative to the tool's link, then to the tool.
        X_hand_link = tree_poses(self.tree, self.tool_link, self.joint_positions(width))
        X_tool_hand = inverse(self.X_link_tool)
        X_tool_link = np.stack([X_tool_hand @ X_hand_link[n] for n in self.box_link])  # (n, 4, 4)
        return X_tool_link @ self.X_link_box, self.box_size.copy()
