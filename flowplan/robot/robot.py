"""A robot arm with a two-finger gripper, read from one file that optimizer, validator and simulator share.

`robot_configs/NAME.toml` names the URDF, the arm's joints and their limits, the tool frame, the gripper's opening table
and the collision spheres; `load_robot` checks every name against the URDF. The kinematics are batched numpy over B
configurations of the arm's J joints. The gripper's joints are held at an opening `width` (metres between the pads),
wide open where none is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import pose, transform
from flowplan.robot import inverse_kinematics
from flowplan.robot.config_file import (
    read_arm,
    read_gripper,
    read_spheres,
    read_tool,
    rigid_pairs,
    self_pairs,
)
from flowplan.robot.gripper import Gripper
from flowplan.robot.kinematics import ArmState, Chain, tree_poses
from flowplan.robot.urdf import Joint, collision_hulls, read_urdf
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.toml_table import Table


class _Held(NamedTuple):
    """What one gripper opening fixes, in the moving frames: links (4 (J + 1), 4 L), sphere centres (4 (J + 1), K)."""

    links: FloatArray
    spheres: FloatArray


@dataclass(frozen=True, eq=False)
class Robot:
    """An arm of J joints, L links and K collision spheres, standing at X_world_base.

    Use `dataclasses.replace(robot, X_world_base=...)` to stand it elsewhere.

    Attributes:
        name: the file's.
        urdf_path: file that a simulator or pinocchio can load.
        base_link: the URDF's root.
        joint_names: J arm joints, base to tip.
        lower, upper: (J,) position limits, rad (m where prismatic).
        velocity, acceleration, jerk: (J,) limits of the derivatives, symmetric.
        home: (J,) a comfortable configuration.
        link_names: L links, base first.
        tool_link, X_link_tool: link and (4, 4) pose in it of the tool frame: origin between the pads, z approaches,
            y closes.
        X_world_base: (4, 4).
        gripper: what is at its end.
        sphere_link: (K,) index in link_names.
        sphere_center: (K, 3) link frame, metres.
        sphere_radius: (K,) metres.
        self_pairs: (P, 2) sphere indices whose distance self-collision checks look at.
        collision_meshes: convex hull per link, link frame; links without collision geometry are absent.
        ignored_link_pairs: pairs of links self-collision checks leave out: those the file lists, and those with no arm
            joint between them.
        joints: the URDF's tree, parents before children.
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
    _held: dict[float, _Held] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "X_world_base", checks.poses("Robot.X_world_base", self.X_world_base)
        )
        for name in ("lower", "upper", "velocity", "acceleration", "jerk", "home"):
            value = checks.array(f"Robot.{name}", getattr(self, name), (len(self.joint_names),))
            object.__setattr__(self, name, value)

    @cached_property
    def chain(self) -> Chain:
        """The arm's constants (see flowplan.robot.kinematics)."""
        return Chain(self.joints, self.joint_names, np.asarray(self.X_world_base), self.base_link)

    def fk(self, q: ArrayLike, width: float | None = None) -> FloatArray:
        """World poses (B, L, 4, 4) of all links, in the order of `link_names`, at q (B, J)."""
        X = self.chain.bodies(self._configurations(q))
        rows = self.chain.place(X, self._constants(width).links)
        out = np.zeros((X.shape[1], len(self.link_names), 4, 4))
        out[:, :, :3] = rows.reshape(len(out), 3, len(self.link_names), 4).transpose(0, 2, 1, 3)
        out[:, :, 3, 3] = 1.0
        return out

    def tool_pose(self, q: ArrayLike) -> FloatArray:
        """X_world_tool (B, 4, 4) at q (B, J)."""
        return self.chain.bodies(self._configurations(q))[-1] @ self._X_tip_tool

    def tool_jacobian(self, q: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """X_world_tool (B, 4, 4) and its Jacobian (B, 6, J), world axes: velocity of the tool origin, then angular."""
        X = self.chain.bodies(self._configurations(q))
        X_world_tool = X[-1] @ self._X_tip_tool
        return X_world_tool, self.chain.tool_jacobian(self.chain.screws(X), X_world_tool[:, :3, 3])

    def spheres(self, q: ArrayLike, width: float | None = None) -> FloatArray:
        """Collision sphere centres (B, K, 3) in the world at q (B, J), metres."""
        X = self.chain.bodies(self._configurations(q))
        return np.swapaxes(self.chain.place(X, self._constants(width).spheres), -1, -2)

    def sphere_jacobian(
        self, q: ArrayLike, width: float | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Collision sphere centres (B, K, 3) in the world and their Jacobians (B, K, 3, J) at q (B, J)."""
        state = self.state(q, width)
        return state.centers, state.sphere_jacobian

    def state(self, q: ArrayLike, width: float | None = None) -> ArmState:
        """Tool pose, spheres and both Jacobians at q (B, J) from one pass, for optimizers."""
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

    def manipulability(self, q: ArrayLike) -> FloatArray:
        """Yoshikawa's measure sqrt(det J J^T) (B,) of the tool Jacobian: 0 at a singularity."""
        _, J = self.tool_jacobian(q)
        return np.sqrt(np.maximum(np.linalg.det(J @ np.swapaxes(J, -1, -2)), 0.0))

    def inverse_kinematics(
        self,
        X_world_tool: ArrayLike,
        *,
        seed: int = 0,
        attempts: int = 40,
        q_near: ArrayLike | None = None,
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Configurations within limits that put the tool at each of G poses (collisions are not looked at).

        Args:
            X_world_tool: (G, 4, 4).
            seed: of the random restarts.
            attempts: starts per pose at most.
            q_near: (J,) or (G, J) where to start, and which of the solutions found to prefer; home where not given.

        Returns:
            q (G, J) and ok (G,): tool within 1e-6 m and 1e-5 rad of the pose.
        """
        goal = np.asarray(X_world_tool, float)
        if not goal.size:
            return np.zeros((0, len(self.joint_names))), np.zeros(0, bool)
        goal = checks.poses("inverse_kinematics.X_world_tool", goal, ("G", 4, 4))
        near = np.asarray(self.home if q_near is None else q_near, float)
        if near.shape not in ((len(self.joint_names),), (len(goal), len(self.joint_names))):
            raise ValueError(
                f"inverse_kinematics.q_near: expected shape {(len(self.joint_names),)} or "
                f"{(len(goal), len(self.joint_names))}, got {near.shape}"
            )
        near = checks.array(
            "inverse_kinematics.q_near",
            np.broadcast_to(near, (len(goal), near.shape[-1])),
            ("G", "J"),
        )
        return inverse_kinematics.solve(
            self.tool_jacobian,
            goal,
            near,
            self.lower,
            self.upper,
            self.chain.revolute,
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
    def _body_of_link(self) -> dict[str, int]:
        """Index of the moving frame every link rides on: 0 is the base, j + 1 follows arm joint j."""
        body = {self.base_link: 0}
        for joint in self.joints:
            moved = joint.name in self.joint_names
            body[joint.child] = (
                self.joint_names.index(joint.name) + 1 if moved else body[joint.parent]
            )
        return body

    def _X_body_link(self, width: float) -> dict[str, FloatArray]:
        """(4, 4) of every link in the moving frame it rides on, gripper at `width`."""
        positions = self.gripper.joint_positions(width)
        roots = [
            self.base_link,
            *(j.child for name in self.joint_names for j in self.joints if j.name == name),
        ]
        still = [j for j in self.joints if j.name not in self.joint_names]
        return {link: X for root in roots for link, X in tree_poses(still, root, positions).items()}

    @cached_property
    def _X_tip_tool(self) -> FloatArray:
        return self._X_body_link(self.gripper.max_width)[self.tool_link] @ self.X_link_tool

    @cached_property
    def _carried(self) -> FloatArray:
        """(K, 3 J): 1 where joint j moves sphere k."""
        body = np.array([self._body_of_link[self.link_names[i]] for i in self.sphere_link])
        return np.tile(np.arange(len(self.joint_names)) < body[:, None], (1, 3)).astype(float)

    def _constants(self, width: float | None) -> _Held:
        width = self.gripper.max_width if width is None else float(width)
        if width not in self._held:
            X_body_link = self._X_body_link(width)
            rows = 4 * (len(self.joint_names) + 1)
            links = np.zeros((rows, len(self.link_names), 4))
            spheres = np.zeros((rows, len(self.sphere_link)))
            for i, link in enumerate(self.link_names):
                at = slice(4 * self._body_of_link[link], 4 * self._body_of_link[link] + 4)
                links[at, i] = X_body_link[link]
                on = self.sphere_link == i
                spheres[at.start : at.start + 3, on] = transform(
                    X_body_link[link], self.sphere_center[on]
                ).T
                spheres[at.stop - 1, on] = 1.0
            if len(self._held) >= 64:  # a sweep over openings must not grow without bound
                self._held.clear()
            self._held[width] = _Held(links.reshape(rows, -1), spheres)
        return self._held[width]


def load_robot(name_or_path: str | Path, X_world_base: FloatArray | None = None) -> Robot:
    """Read a robot file and the URDF it names.

    Args:
        name_or_path: a robot of this project ("panda", "ur5e"), or the path of a .toml file.
        X_world_base: (4, 4) where its base stands; the world's origin where not given.

    Raises:
        ValueError: in one line, naming the file, the field, what came and what is valid.
    """
    folder = Path(str(resources.files("robot_configs")))
    path = Path(name_or_path)
    if path.suffix != ".toml":
        known = sorted(p.stem for p in folder.glob("*.toml"))
        checks.choice("robot", str(name_or_path), [*known, "or the path of a .toml file"])
        path = folder / f"{name_or_path}.toml"
    file = Table.read(
        path, ["name", "urdf", "base_link", "arm", "tool", "gripper", "spheres", "self_collision"]
    )
    urdf = read_urdf(path.parent / file.text("urdf"))
    if file.one_of("base_link", urdf.links) != urdf.root:
        raise file.error(
            "base_link",
            f"got {file.text('base_link')!r}, expected the root of the URDF, {urdf.root!r}",
        )
    arm = read_arm(file, urdf)
    tool_link, X_link_tool = read_tool(file, urdf, arm["joint_names"])
    gripper = read_gripper(file, urdf, arm["joint_names"], tool_link, X_link_tool)
    link, spheres = read_spheres(file, urdf)
    listed = file.table("self_collision", ["ignore"]).pairs("ignore", urdf.links)
    ignored = listed | rigid_pairs(urdf, arm["joint_names"])
    return Robot(
        name=file.text("name"),
        urdf_path=urdf.path,
        base_link=urdf.root,
        **arm,
        link_names=urdf.links,
        tool_link=tool_link,
        X_link_tool=X_link_tool,
        X_world_base=pose() if X_world_base is None else X_world_base,
        gripper=gripper,
        sphere_link=link,
        sphere_center=spheres[:, :3],
        sphere_radius=spheres[:, 3],
        self_pairs=self_pairs(urdf, link, ignored),
        collision_meshes=collision_hulls(urdf),
        ignored_link_pairs=ignored,
        joints=urdf.joints,
    )
