"""How fast, and how surely, a flow becomes a certified trajectory: `flowplan bench plan`.

Random problems are reachable by construction. A witness, a joint path drawn at random (rigid) or followed by continuation
along a random hinge or slide, is kept when it stays within limits and clear of itself and of the support; the object's flow
is that of its tool; and obstacles are strewn only where they leave the witness a little room. The planner sees the
flow, the grasp and the obstacles, never the witness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh

from flowplan.checks import FloatArray
from flowplan.collision import DistanceField, distance_field
from flowplan.geometry import exp_se3, exp_so3, inverse, log_so3, pose, transform
from flowplan.motion import ObjectFlow
from flowplan.robot import Robot

MotionKind = Literal["rigid", "hinge", "slide"]
KINDS: tuple[MotionKind, ...] = ("rigid", "hinge", "slide")
DURATION = 4.0
"""Seconds."""
_ROOM = 0.03
"""Metres that obstacles leave the witness."""
_CLEAR = 0.02
"""Metres the witness keeps from itself and from the support."""


@dataclass(frozen=True, eq=False)
class RandomProblem:
    """A flow that the robot can follow, among obstacles.

    Attributes:
        kind: of motion.
        flow: of the held object.
        X_world_tool: (4, 4) grasp at the first frame.
        obstacles: world frame.
        field: their distance field, with the support.
        witness: (T, J) a joint path that does it.
    """

    kind: MotionKind
    flow: ObjectFlow
    X_world_tool: FloatArray
    obstacles: tuple[trimesh.Trimesh, ...]
    field: DistanceField
    witness: FloatArray


def random_problem(
    robot: Robot, kind: MotionKind, *, frames: int, points: int, obstacles: int, seed: int
) -> RandomProblem:
    """One problem, the same for the same arguments."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    while True:
        witness = _witness(robot, kind, frames, rng)
        if witness is not None:
            break
    X = robot.tool_pose(witness)
    body = rng.uniform(-0.5, 0.5, (points, 3)) * rng.uniform(0.04, 0.12, 3)
    carried = transform(X, body)
    confidence = np.ones(carried.shape[:2])
    flow = ObjectFlow(np.linspace(0, DURATION, frames), carried, confidence, np.zeros(points, np.int64))
    meshes = _strew(robot, witness, obstacles, rng)
    base = robot.X_world_base[:3, 3]
    lower, upper = base + [-1.1, -1.1, -0.1], base + [1.1, 1.1, 1.4]
    field = distance_field(meshes, lower=lower, upper=upper, voxel=0.02, support_height=base[2])
    return RandomProblem(kind, flow, X[0], meshes, field, witness)


def _witness(robot: Robot, kind: MotionKind, frames: int, rng: np.random.Generator) -> FloatArray | None:
    half = np.minimum((robot.upper - robot.lower) / 2, np.pi) * 0.9
    start = (robot.lower + robot.upper) / 2 + rng.uniform(-half, half)
    s = np.linspace(0, 1, frames)[:, None]
    ease = s * s * (3 - 2 * s)
    if kind == "rigid":
        bend = rng.normal(size=(2, len(start)))
        q = start + ease * 0.5 * bend[0] + np.sin(np.pi * s) ** 2 * 0.2 * bend[1]
    else:
        X = robot.tool_pose(start[None])[0]
        followed = _follow(robot, start, _one_joint_path(X, kind, ease, rng))
        if followed is None:
            return None
        q = followed
    inside = (q > robot.lower + 0.05).all() and (q < robot.upper - 0.05).all()
    calm = np.abs(np.diff(q, axis=0)).max() / (DURATION / (frames - 1)) < 0.8 * robot.velocity.min()
    return q if inside and calm and _clear_of_itself(robot, q) else None


def _one_joint_path(X: FloatArray, kind: MotionKind, ease: FloatArray, rng: np.random.Generator) -> FloatArray:
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    if kind == "slide":
        return exp_se3(ease * rng.uniform(0.1, 0.35) * np.concatenate([axis, np.zeros(3)])) @ X
    across = np.cross(axis, rng.normal(size=3))
    point = X[:3, 3] + rng.uniform(0.1, 0.35) * across / np.linalg.norm(across)
    return exp_se3(ease * rng.uniform(0.4, 1.4) * np.concatenate([np.cross(point, axis), axis])) @ X


def _follow(robot: Robot, q: FloatArray, X: FloatArray) -> FloatArray | None:
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


def _clear_of_itself(robot: Robot, q: FloatArray) -> bool:
    centers = robot.spheres(q)
    if (centers[..., 2] - robot.sphere_radius)[:, _above_base(robot)].min() < robot.X_world_base[2, 3] + _CLEAR:
        return False
    a, b = robot.self_pairs.T
    gap = np.linalg.norm(centers[:, a] - centers[:, b], axis=-1) - robot.sphere_radius[a] - robot.sphere_radius[b]
    return bool(gap.min() > _CLEAR)


def _above_base(robot: Robot) -> FloatArray:
    """(K,) spheres that move: the base itself stands on the support."""
    _, J = robot.sphere_jacobian(robot.home[None] + 0.1)
    return np.abs(J[0]).max(axis=(1, 2)) > 1e-9


def _strew(robot: Robot, witness: FloatArray, count: int, rng: np.random.Generator) -> tuple[trimesh.Trimesh, ...]:
    fine = np.concatenate([witness, 0.5 * (witness[1:] + witness[:-1])])
    centers, radius = robot.spheres(fine).reshape(-1, 3), np.tile(robot.sphere_radius, len(fine))
    tool = robot.tool_pose(fine)[:, :3, 3]
    centers, radius = np.concatenate([centers, tool]), np.concatenate([radius, np.full(len(tool), 0.08)])
    base = robot.X_world_base[:3, 3]
    out: list[trimesh.Trimesh] = []
    while len(out) < count:
        half = rng.uniform(0.02, 0.12, 3)
        R = exp_so3([0.0, 0.0, rng.uniform(0, np.pi)]) if rng.random() < 0.5 else exp_so3(rng.normal(size=3))
        X = pose(R, base + rng.uniform([-0.7, -0.7, 0.0], [0.8, 0.7, 0.9]))
        local = np.abs(transform(inverse(X), centers)) - half
        gap = np.linalg.norm(np.maximum(local, 0.0), axis=1) - radius
        if gap.min() > _ROOM:
            out.append(trimesh.creation.box(2 * half, transform=X))
    return tuple(out)
