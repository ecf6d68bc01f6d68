"""A robot arm with a two-finger gripper, as optimizer, validator and simulator share it.

`flowplan.robot.load_robot` makes a `Robot` from a robot file. Its kinematics are batched over B
configurations of the arm's J joints. The gripper's joints are held at an opening `width`, the
distance between the pads in meters; it defaults to the widest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.robot import inverse_kinematics
from flowplan.robot.gripper import Gripper
from flowplan.robot.kinematics import ArmState, Chain
from flowplan.robot.link_bodies import LinkBodies, OpeningConstants
from flowplan.robot.urdf import Joint
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

CACHED_OPENINGS = 64
"""Gripper openings whose constants are kept; a sweep over openings must not grow without bound."""


@dataclass(frozen=True, eq=False)
class Robot:
    """An arm of J joints, L links and K collision spheres, standing at X_world_base.

    Use `dataclasses.replace(robot, X_world_base=...)` to place it elsewhere.

    Attributes:
        name: the robot's name.
        urdf_path: file that a simulator or pinocchio can load.
        base_link: root link of the URDF.
        joint_names: J arm joints, base to tip.
        lower, upper: (J,) position limits, rad (m for prismatic joints).
        velocity, acceleration, jerk: (J,) limits of the derivatives, symmetric.
        home: (J,) default configuration.
        link_names: L links, base first.
        tool_link, X_link_tool: link of the tool frame and its (4, 4) pose there. The tool frame has
            its origin between the pads; z approaches, y closes.
        X_world_base: (4, 4) pose of the base.
        gripper: the gripper at its end.
        sphere_link: (K,) indices in link_names.
        sphere_center: (K, 3) link frame, meters.
        sphere_radius: (K,) meters.
        self_pairs: (P, 2) indices of the sphere pairs that self-collision checks compare.
        collision_meshes: convex hull of each link, link frame; links without collision geometry are
            absent.
        ignored_link_pairs: link pairs that self-collision checks leave out: those that the file
            lists, and those with no arm joint between them.
        joints: the URDF's tree, parents before children.
        file: robot file that it was read from; None if it was made in another way.
    """

    name: str
    urdf_path: Path
    base_link: str
    joint_names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray
    home: FloatArray
    link_names: tuple[str, ...]
    tool_link: str
    X_link_tool: FloatArray
    X_world_base: FloatArray
    gripper: Gripper
    sphere_link: NDArray[np.int64]
    sphere_center: FloatArray
    sphere_radius: FloatArray
    self_pairs: NDArray[np.int64]
    collision_meshes: dict[str, trimesh.Trimesh]
    ignored_link_pairs: frozenset[frozenset[str]]
    joints: tuple[Joint, ...]
    file: Path | None = None
    _openings: dict[float, OpeningConstants] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        X = checks.poses("Robot.X_world_base", self.X_world_base)
        object.__setattr__(self, "X_world_base", X)
        for name in ("lower", "upper", "velocity", "acceleration", "jerk", "home"):
            value = checks.array(f"Robot.{name}", getattr(self, name), (len(self.joint_names),))
            object.__setattr__(self, name, value)

    @cached_property
    def chain(self) -> Chain:
        """The arm's kinematic constants."""
        return Chain(self.joints, self.joint_names, np.asarray(self.X_world_base), self.base_link)

    def fk(self, q: ArrayLike, width: float | None = None) -> FloatArray:
        """World poses (B, L, 4, 4) of all links, in the order of `link_names`, at q (B, J)."""
        X = self.chain.bodies(self._configurations(q))
        # x, y and z rows of all links at once; the fourth row of a pose is constant.
        rows = self.chain.place(X, self._constants(width).links)  # (B, 3, 4 L)
        B, L = X.shape[1], len(self.link_names)
        out = np.zeros((B, L, 4, 4))
        out[:, :, :3] = rows.reshape(B, 3, L, 4).transpose(0, 2, 1, 3)
        out[:, :, 3, 3] = 1.0
        return out

    def tool_pose(self, q: ArrayLike) -> FloatArray:
        """X_world_tool (B, 4, 4) at q (B, J)."""
        return self.chain.bodies(self._configurations(q))[-1] @ self._X_tip_tool

    def tool_jacobian(self, q: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Tool poses and their Jacobians at q (B, J).

        Returns:
            X_world_tool (B, 4, 4), and J (B, 6, J) in world axes: velocity of the tool origin in
            rows 0 to 2, angular velocity in rows 3 to 5.
        """
        X = self.chain.bodies(self._configurations(q))
        X_world_tool = X[-1] @ self._X_tip_tool
        screws = self.chain.screws(X)
        return X_world_tool, self.chain.tool_jacobian(screws, X_world_tool[:, :3, 3])

    def spheres(self, q: ArrayLike, width: float | None = None) -> FloatArray:
        """Collision sphere centers (B, K, 3) at q (B, J), world frame, meters."""
        X = self.chain.bodies(self._configurations(q))
        return np.swapaxes(self.chain.place(X, self._constants(width).spheres), -1, -2)

    def sphere_jacobian(
        self, q: ArrayLike, width: float | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Collision sphere centers (B, K, 3) and their Jacobians (B, K, 3, J) at q (B, J)."""
        state = self.state(q, width)
        return state.centers, state.sphere_jacobian

    def state(self, q: ArrayLike, width: float | None = None) -> ArmState:
        """Tool poses, sphere centers and both Jacobians at q (B, J) from one pass."""
        X = self.chain.bodies(self._configurations(q))
        X_world_tool = X[-1] @ self._X_tip_tool
        screws = self.chain.screws(X)
        centers = np.swapaxes(self.chain.place(X, self._constants(width).spheres), -1, -2)
        return ArmState(
            X_world_tool,
            self.chain.tool_jacobian(screws, X_world_tool[:, :3, 3]),
            centers,
            self.chain.point_jacobian(screws, centers, self._carried),
        )

    def inverse_kinematics(
        self,
        X_world_tool: ArrayLike,
        *,
        seed: int = 0,
        attempts: int = 40,
        q_near: ArrayLike | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Configurations within limits that reach each of G tool poses; collisions are ignored.

        Args:
            X_world_tool: (G, 4, 4).
            seed: random seed of the restarts.
            attempts: maximum number of starts per pose.
            q_near: (J,) or (G, J) first start; solutions near it are preferred. Defaults to `home`.

        Returns:
            q (G, J), and ok (G,): the tool is within 1e-6 m and 1e-5 rad of the pose.
        """
        goal = np.asarray(X_world_tool, float)
        J = len(self.joint_names)
        if not goal.size:
            return np.zeros((0, J)), np.zeros(0, bool)
        goal = checks.poses("inverse_kinematics.X_world_tool", goal, ("G", 4, 4))
        # One start for all poses, or one each.
        near = np.asarray(self.home if q_near is None else q_near, float)
        if near.shape not in ((J,), (len(goal), J)):
            raise ValueError(
                f"inverse_kinematics.q_near: expected shape {(J,)} or {(len(goal), J)}, "
                f"got {near.shape}"
            )
        near = np.broadcast_to(near, (len(goal), J))
        near = checks.array("inverse_kinematics.q_near", near, ("G", "J"))
        return inverse_kinematics.solve(
            self.tool_jacobian,
            goal,
            near,
            inverse_kinematics.JointRange(self.lower, self.upper, self.chain.revolute),
            seed=seed,
            attempts=attempts,
        )

    def _configurations(self, q: ArrayLike) -> FloatArray:
        out = np.asarray(q, float)
        if out.ndim != 2 or out.shape[1] != len(self.joint_names):
            raise ValueError(
                f"q: expected shape (B, {len(self.joint_names)}), got {out.shape}; add a batch axis"
            )
        return out

    @cached_property
    def _bodies(self) -> LinkBodies:
        return LinkBodies(self.joints, self.joint_names, self.base_link)

    @cached_property
    def _X_tip_tool(self) -> FloatArray:
        """Tool frame (4, 4) in the last body."""
        # The tool frame is fixed to its body, so any opening gives the same pose.
        positions = self.gripper.joint_positions(self.gripper.max_width)
        return self._bodies.link_poses(positions)[self.tool_link] @ self.X_link_tool

    @cached_property
    def _carried(self) -> FloatArray:
        """(K, 3 J): 1 if joint j moves sphere k, else 0."""
        # Body j + 1 is moved by arm joint j and all before it.
        body = np.array([self._bodies.index[self.link_names[i]] for i in self.sphere_link])
        moved = np.arange(len(self.joint_names)) < body[:, None]  # (K, J)
        return np.tile(moved, (1, 3)).astype(float)

    def _constants(self, width: float | None) -> OpeningConstants:
        width = self.gripper.max_width if width is None else float(width)
        if width not in self._openings:
            if len(self._openings) >= CACHED_OPENINGS:
                self._openings.clear()
            positions = self.gripper.joint_positions(width)
            self._openings[width] = self._bodies.constants(
                self.link_names, positions, self.sphere_link, self.sphere_center
            )
        return self._openings[width]
