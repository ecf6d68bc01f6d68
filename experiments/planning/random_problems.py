"""Random planning problems that are solvable by construction.

A witness is a random joint path: drawn directly (rigid), or tracked by continuation along a random
hinge or slide. It is kept if it stays within joint limits and clear of itself and of the support.
The object's flow is that of the witness's tool, and obstacles are placed only where they leave the
witness some room. A planner gets the flow, the grasp and the obstacles, never the witness.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import trimesh

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.geometry import exp_se3, exp_so3, inverse, log_so3, pose, transform
from flowplan.motion import ObjectFlow
from flowplan.optimizers.clearance import carried_spheres, self_clearance
from flowplan.robot import Robot
from flowplan.utils.checks import FloatArray

MotionKind = Literal["rigid", "hinge", "slide"]
KINDS: tuple[MotionKind, ...] = get_args(MotionKind)
DURATION = 4.0
"""Duration of the motions in seconds."""
_VOXEL = 0.02
"""Edge length in meters of the distance field's voxels."""
_ROOM = 0.03
"""Clearance in meters of the obstacles from the witness."""
_ABOVE_SUPPORT = 0.02
"""Clearance in meters of the witness from the support."""
_SELF_CLEARANCE = 0.01
"""Clearance in meters between the witness's links; some are always close to each other."""
_OBJECT_SIZE = 0.03, 0.1
"""Smallest and largest side of the held object in meters."""
_OBJECT_RADIUS = 0.5 * np.sqrt(3) * _OBJECT_SIZE[1]
_FIELD_BOUNDS = np.array([[-1.1, -1.1, -0.1], [1.1, 1.1, 1.4]])
"""Corners of the distance field relative to the robot's base, meters."""
_OBSTACLE_BOUNDS = [-0.7, -0.7, 0.0], [0.8, 0.7, 0.9]
"""Corners of the box of obstacle centers relative to the robot's base, meters."""
_RANGE_MARGIN = 0.05
"""Distance in radians of the witness from its joint limits."""


@dataclass(frozen=True, eq=False)
class RandomProblem:
    """A flow that the robot can follow among obstacles.

    Attributes:
        kind: kind of motion.
        flow: flow of the held object.
        X_world_tool: (4, 4) grasp at the first frame.
        held: mesh of the object, tool frame.
        obstacles: meshes, world frame.
        field: distance to the obstacles and the support.
        field_seconds: time to compute the field.
        witness: (T, J) a joint path that solves the problem.
    """

    kind: MotionKind
    flow: ObjectFlow
    X_world_tool: FloatArray
    held: trimesh.Trimesh
    obstacles: tuple[trimesh.Trimesh, ...]
    field: DistanceField
    field_seconds: float
    witness: FloatArray


def random_problem(
    robot: Robot, kind: MotionKind, *, frames: int, points: int, obstacles: int, seed: int
) -> RandomProblem:
    """One problem; the same arguments give the same problem."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    while True:
        witness = _witness(robot, kind, frames, rng)
        if witness is not None:
            break

    # Flow of a box of random size, carried by the witness's tool.
    X = robot.tool_pose(witness)
    extents = rng.uniform(*_OBJECT_SIZE, 3)
    carried = transform(X, rng.uniform(-0.5, 0.5, (points, 3)) * extents)
    confidence = np.ones(carried.shape[:2])
    times = np.linspace(0, DURATION, frames)
    flow = ObjectFlow(times, carried, confidence, np.zeros(points, np.int64))

    # Obstacles and their distance field.
    meshes = _place_obstacles(robot, witness, obstacles, rng)
    base = robot.X_world_base[:3, 3]
    lower, upper = base + _FIELD_BOUNDS[0], base + _FIELD_BOUNDS[1]
    start = time.perf_counter()
    field = distance_field(meshes, lower=lower, upper=upper, voxel=_VOXEL, support_height=base[2])
    seconds = time.perf_counter() - start
    held = trimesh.creation.box(extents)
    return RandomProblem(kind, flow, X[0], held, meshes, field, seconds, witness)


def support_slab(robot: Robot) -> trimesh.Trimesh:
    """The support as a slab below the robot's base, world frame."""
    slab = trimesh.creation.box([4.0, 4.0, 0.2])
    slab.apply_translation(robot.X_world_base[:3, 3] - [0.0, 0.0, 0.1])
    return slab


def _witness(
    robot: Robot, kind: MotionKind, frames: int, rng: np.random.Generator
) -> FloatArray | None:
    """A random joint path (T, J), or None if the drawn one violates a requirement."""
    # A random start away from the limits, and a smooth step over time.
    half = np.minimum((robot.upper - robot.lower) / 2, np.pi) * 0.9
    start = (robot.lower + robot.upper) / 2 + rng.uniform(-half, half)
    s = np.linspace(0, 1, frames)[:, None]  # (T, 1)
    ease = s * s * (3 - 2 * s)
    if kind == "rigid":
        bend = rng.normal(size=(2, len(start)))
        q = start + ease * 0.5 * bend[0] + np.sin(np.pi * s) ** 2 * 0.2 * bend[1]
    else:
        X = _one_joint_path(robot.tool_pose(start[None])[0], kind, ease, rng)
        tracked = _track(robot, start, X)
        if tracked is None:
            return None
        q = tracked
    # Within limits, slow enough, and clear.
    inside = (q > robot.lower + _RANGE_MARGIN).all() and (q < robot.upper - _RANGE_MARGIN).all()
    speed = np.abs(np.diff(q, axis=0)).max() / (DURATION / (frames - 1))
    slow = speed < 0.8 * robot.velocity.min()
    return q if inside and slow and _is_clear(robot, q) else None


def _one_joint_path(
    X: FloatArray, kind: MotionKind, ease: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Poses (T, 4, 4) from X along a random slide or hinge."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    if kind == "slide":
        twist = np.concatenate([axis, np.zeros(3)])
        return exp_se3(ease * rng.uniform(0.1, 0.35) * twist) @ X
    across = np.cross(axis, rng.normal(size=3))
    point = X[:3, 3] + rng.uniform(0.1, 0.35) * across / np.linalg.norm(across)
    twist = np.concatenate([np.cross(point, axis), axis])
    return exp_se3(ease * rng.uniform(0.4, 1.4) * twist) @ X


def _track(robot: Robot, q: FloatArray, X: FloatArray) -> FloatArray | None:
    """Joint path (T, J) from q along poses X (T, 4, 4) by Newton steps, or None if lost."""
    path = [q]
    for goal in X[1:]:
        for _ in range(4):
            here, J = robot.tool_jacobian(q[None])
            turn = log_so3(goal[:3, :3] @ here[0, :3, :3].T)
            error = np.concatenate([goal[:3, 3] - here[0, :3, 3], turn])
            q = q + J[0].T @ np.linalg.solve(J[0] @ J[0].T + 1e-8 * np.eye(6), error)
        if np.linalg.norm(error) > 1e-6 or np.abs(q - path[-1]).max() > 0.2:
            return None
        path.append(q)
    return np.array(path)


def _is_clear(robot: Robot, q: FloatArray) -> bool:
    """True if arm and object keep clear of the support and of each other along q (T, J)."""
    centers, floor = robot.spheres(q), robot.X_world_base[2, 3] + _ABOVE_SUPPORT
    carried = carried_spheres(robot)

    # The support; the base stands on it.
    lowest = (centers[..., 2] - robot.sphere_radius)[:, carried.any(axis=1)].min()
    if lowest < floor:
        return False
    tool = robot.tool_pose(q)[:, :3, 3]
    if tool[:, 2].min() - _OBJECT_RADIUS < floor:
        return False

    # The object and the links that are not fixed to the tool; the links and each other.
    distance = np.linalg.norm(centers - tool[:, None], axis=-1)
    to_object = distance - robot.sphere_radius - _OBJECT_RADIUS
    if to_object[:, ~carried.all(axis=1)].min() < _SELF_CLEARANCE:
        return False
    return bool(self_clearance(robot, q).min() > _SELF_CLEARANCE)


def _place_obstacles(
    robot: Robot, witness: FloatArray, count: int, rng: np.random.Generator
) -> tuple[trimesh.Trimesh, ...]:
    """Random boxes that keep clear of the witness and its object."""
    # Spheres of arm and object, at the frames and halfway between them.
    fine = np.concatenate([witness, 0.5 * (witness[1:] + witness[:-1])])
    tool = robot.tool_pose(fine)[:, :3, 3]
    centers = np.concatenate([robot.spheres(fine).reshape(-1, 3), tool])
    arm_radius = np.tile(robot.sphere_radius, len(fine))
    radius = np.concatenate([arm_radius, np.full(len(tool), _OBJECT_RADIUS)])

    base = robot.X_world_base[:3, 3]
    out: list[trimesh.Trimesh] = []
    while len(out) < count:
        # A box, upright or turned at random.
        half = rng.uniform(0.02, 0.12, 3)
        upright = rng.random() < 0.5
        turn = [0.0, 0.0, rng.uniform(0, np.pi)] if upright else rng.normal(size=3)
        X = pose(exp_so3(turn), base + rng.uniform(*_OBSTACLE_BOUNDS))
        # Distance from the box to the nearest sphere.
        outside = np.maximum(np.abs(transform(inverse(X), centers)) - half, 0.0)
        gap = np.linalg.norm(outside, axis=1) - radius
        if gap.min() > _ROOM:
            out.append(trimesh.creation.box(2 * half, transform=X))
    return tuple(out)
