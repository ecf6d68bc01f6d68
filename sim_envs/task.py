"""Simulated tasks: objects in a world, an instruction, and success measured on the physical end
state.

A task draws its variation from one random generator, so a seed is an episode. Objects are placed
within reach of an arm at the world's origin that faces +x, a Panda or a UR5e.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from flowplan.geometry import exp_so3, inverse, pose, rotation_about, transform
from flowplan.laws import Law
from flowplan.scene import Action, Prompt
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from sim_envs.assets import surface_points, urdf_path

if TYPE_CHECKING:
    from sim_envs.world import World

Measures = dict[str, float]
"""Named measures of the end state, SI units."""

MAX_LEAK = 0.05
"""Meters that anything may move that should stand still, in a success."""


def _never(measures: Measures) -> bool:
    return False


@dataclass(frozen=True, eq=False)
class TaskSetup:
    """Start of an episode, its instruction, and the measures of its end.

    Attributes:
        objects: body ids of movable objects by the names that instruction and laws use.
        obstacles: body ids of fixed objects by name.
        instruction: handles of one object with their targets, world frame.
        laws: law of motion of each object, for the kinematic generator.
        measure: measures of the current world, called after release and settling, or while the
            object is held if the plan ends so. A measure `leak` is how far, in meters, anything
            has moved that should stand still.
        success: success, decided on the measures of the end state.
        overshoot: True if a failed end state went farther than was asked.
        randomized: values drawn for this episode: x, y (m), yaw (rad), friction, mass_scale,
            joint_friction_scale, scan_noise (factor on the depth noise), and the task's own.
    """

    objects: dict[str, int]
    obstacles: dict[str, int]
    instruction: Action
    laws: tuple[Law, ...]
    measure: Callable[[World], Measures]
    success: Callable[[Measures], bool]
    randomized: dict[str, float]
    overshoot: Callable[[Measures], bool] = _never

    def __post_init__(self) -> None:
        for name in (self.instruction.object, *(law.object for law in self.laws)):
            checks.choice("TaskSetup.objects", name, list(self.objects))

    def verdict(self, measures: Measures) -> str:
        """One of flowplan.rollout.OUTCOMES: success, or what is wrong with the end state."""
        leaks = not measures.get("leak", 0.0) <= MAX_LEAK
        if self.success(measures) and not leaks:
            return "success"
        if self.overshoot(measures):
            return "overshoot"
        return "leak" if leaks else "wrong_end_state"

    @property
    def scan_ids(self) -> dict[str, int]:
        """Body ids by name in the camera's segmentation image."""
        return self.objects | self.obstacles

    @property
    def movable_ids(self) -> tuple[int, ...]:
        """Body ids of the movable objects."""
        return tuple(self.objects.values())


@dataclass(frozen=True)
class Task:
    """A task with one variation per seed.

    Attributes:
        name: unique name among TASKS.
        prompt: the instruction in words.
        setup: places objects into a new world, lets them settle, and states the task.
        deformable: requires WorldOptions(deformable=True).
        release: whether the robot lets go at the end (PlanOptions.release).
    """

    name: str
    prompt: Prompt
    setup: Callable[[World, np.random.Generator], TaskSetup]
    deformable: bool = False
    release: Literal["auto", "always", "never"] = "auto"


def draw(
    rng: np.random.Generator, *, x: float, y: float, yaw: float, turn: float = 0.26
) -> dict[str, float]:
    """Random pose (within 4 cm and `turn` rad of x, y, yaw), friction, mass and scan noise."""
    ranges = {
        "x": (x - 0.04, x + 0.04),
        "y": (y - 0.04, y + 0.04),
        "yaw": (yaw - turn, yaw + turn),
        "friction": (0.6, 0.9),
        "mass_scale": (0.8, 1.2),
        "joint_friction_scale": (0.85, 1.15),
        "scan_noise": (0.5, 1.5),
    }
    return {name: float(rng.uniform(*bounds)) for name, bounds in ranges.items()}


def stand(
    world: World,
    name: str,
    drawn: Mapping[str, float],
    *,
    fixed: bool = False,
    joints: Mapping[str, float] | None = None,
) -> int:
    """Body id of the vendored model `name`, loaded with the drawn pose and physics.

    Joints default to position 0.
    """
    X = on_table(drawn["x"], drawn["y"], drawn["yaw"])
    body = world.load(
        urdf_path(name),
        X,
        name=name,
        fixed=fixed,
        friction=drawn["friction"],
        mass_scale=drawn["mass_scale"],
    )
    # Scale the joints' Coulomb friction.
    for joint in world.joint_positions(body):
        index = world.joint_index(body, joint)
        friction = drawn["joint_friction_scale"] * world.bullet.getJointInfo(body, index)[7]
        world.bullet.setJointMotorControl2(
            body, index, world.bullet.VELOCITY_CONTROL, targetVelocity=0, force=friction
        )
    world.set_joint_positions(body, joints or {})
    return body


def on_table(x: float, y: float, yaw: float, z: float = 0.0) -> FloatArray:
    """Pose (4, 4) with a rotation by `yaw` about the vertical and its origin at x, y, z."""
    return pose(exp_so3([0.0, 0.0, yaw]), [x, y, z])


@dataclass(frozen=True, eq=False)
class MovingPart:
    """Part of an articulated body beyond one of its joints, in its current pose.

    Attributes:
        axis_point: (3,) point on the joint's axis, world frame, meters.
        axis: (3,) unit vector of positive joint motion, world frame.
        part: (P, 3) surface points beyond the joint, world frame, meters.
        rest: (R, 3) surface points of all other links, world frame, meters.
    """

    axis_point: FloatArray
    axis: FloatArray
    part: FloatArray
    rest: FloatArray

    def handles(self, count: int = 12) -> FloatArray:
        """`count` points (count, 3) spread over all links of the part, world frame."""
        return self.part[np.linspace(0, len(self.part) - 1, count).astype(int)]


def moving_part(world: World, body: int, name: str, joint: str, *, count: int = 1500) -> MovingPart:
    """The part of the vendored model `name`, loaded as `body`, that its joint `joint` moves."""
    from flowplan.robot.urdf import read_urdf

    urdf = read_urdf(urdf_path(name))
    hinge = next(j for j in urdf.joints if j.name == joint)
    beyond = links_beyond(name, joint)
    # Surface points of the links beyond the joint, and of all others.
    part: list[FloatArray] = []
    rest: list[FloatArray] = []
    for link, points in surface_points(urdf.path, count).items():
        (part if link in beyond else rest).append(transform(world.link_pose(body, link), points))
    X_world_child = world.link_pose(body, hinge.child)
    axis = X_world_child[:3, :3] @ hinge.axis
    return MovingPart(X_world_child[:3, 3], axis, np.concatenate(part), np.concatenate(rest))


def body_points(world: World, body: int, name: str, count: int) -> FloatArray:
    """`count` points on each link of the vendored model `name`, loaded as `body`: (L * count, 3),
    world frame."""
    points = surface_points(urdf_path(name), count)
    return np.concatenate([transform(world.link_pose(body, link), p) for link, p in points.items()])


def turned(moving: MovingPart, points: FloatArray, angle: float) -> FloatArray:
    """Points (P, 3) turned about the part's axis by `angle` rad."""
    return transform(rotation_about(moving.axis_point, moving.axis, angle), points)


def leak(world: World, links: Iterable[tuple[int, str]]) -> Callable[[], float]:
    """Largest way in meters, from now on, of links (body, name) that should stand still.

    The way is that of the corners of the boxes around the links.
    """
    corners = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
    start: list[tuple[int, str, FloatArray]] = []
    for body, link in links:
        low, high = np.array(world.bullet.getAABB(body, world.link_index(body, link)))
        start.append((body, link, low + corners * (high - low)))
    frames = [inverse(world.link_pose(body, link)) for body, link, _ in start]

    def way() -> float:
        moved = [
            transform(world.link_pose(body, link) @ X_link_world, points) - points
            for (body, link, points), X_link_world in zip(start, frames, strict=True)
        ]
        return float(np.linalg.norm(np.concatenate(moved), axis=1).max()) if moved else 0.0

    return way


def links_not_beyond(world: World, body: int, name: str, joint: str) -> list[tuple[int, str]]:
    """Links (body, name) of the vendored model `name` that its joint `joint` does not move."""
    beyond = links_beyond(name, joint)
    return [(body, link) for link in world.link_poses(body) if link not in beyond]


def links_beyond(name: str, joint: str) -> set[str]:
    """Links of the vendored model `name` that its joint `joint` moves."""
    from flowplan.robot.urdf import read_urdf

    urdf = read_urdf(urdf_path(name))
    beyond = {next(j.child for j in urdf.joints if j.name == joint)}
    for j in urdf.joints:  # parents come before children
        if j.parent in beyond:
            beyond.add(j.child)
    return beyond


def tilt(X: FloatArray) -> float:
    """Angle in rad between the z axis of a pose (4, 4) and the vertical."""
    return float(np.arccos(np.clip(X[2, 2], -1.0, 1.0)))
