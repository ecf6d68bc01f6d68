"""How fast, and how surely, a flow becomes a certified trajectory: `flowplan bench plan`.

Random problems are reachable by construction. A witness, a joint path drawn at random (rigid) or followed by
continuation along a random hinge or slide, is kept when it stays within limits and clear of itself and of the support;
the object's flow is that of its tool; and obstacles are strewn only where they leave the witness a little room. The
planner sees the flow, the grasp and the obstacles, never the witness.

A plan is timed from the flow and the grasp to the certificate: attachment, optimisation, timing, validation. The
distance field belongs to the scene, serves every contact that is tried there, and is timed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import trimesh

from flowplan import optimizers
from flowplan.attachment import attach
from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.phase_geometry import SUPPORT
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.geometry import exp_se3, exp_so3, inverse, log_so3, pose, transform
from flowplan.motion import ObjectFlow, Progress, silent
from flowplan.optimizers import Optimizer, TrackOptions, TrackProblem
from flowplan.optimizers.clearance import carried_spheres, self_clearance
from flowplan.paths.time_parameterization import TimingOptions, follow
from flowplan.robot import Robot, load_robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record
from flowplan.validation.validator import PhaseWorld, validate

MotionKind = Literal["rigid", "hinge", "slide"]
KINDS: tuple[MotionKind, ...] = ("rigid", "hinge", "slide")
DURATION = 4.0
"""Seconds."""
OBSTACLES = 20
SIZES = ((41, 100), (41, 1000), (41, 10_000), (41, 100_000), (81, 10_000), (161, 10_000))
"""(times, points) of the flows that are timed."""
_ROOM = 0.03
"""Metres that obstacles leave the witness."""
_ABOVE = 0.02
"""Metres that it keeps above the support."""
_APART = 0.01
"""Metres that its links keep from each other: some are hardly farther apart in any configuration."""
_OBJECT = 0.03, 0.1
"""Metres along each side of the held object, at least and at most."""
_OBJECT_RADIUS = 0.5 * np.sqrt(3) * _OBJECT[1]
_HELD_SPHERES = 12
_GRID = np.array([[-1.1, -1.1, -0.1], [1.1, 1.1, 1.4]])
"""Corners of the distance field about the robot's base, metres."""


@dataclass(frozen=True, eq=False)
class RandomProblem:
    """A flow that the robot can follow, among obstacles.

    Attributes:
        kind: of motion.
        flow: of the held object.
        X_world_tool: (4, 4) grasp at the first frame.
        held: the object, tool frame.
        obstacles: world frame.
        field: distance to them and to the support.
        field_seconds: that it took to compute.
        witness: (T, J) a joint path that does it.
    """

    kind: MotionKind
    flow: ObjectFlow
    X_world_tool: FloatArray
    held: trimesh.Trimesh
    obstacles: tuple[trimesh.Trimesh, ...]
    field: DistanceField
    field_seconds: float
    witness: FloatArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one problem.

    Attributes:
        certified: by the validator, and on the flow within the optimizer's tolerances.
        reason: why not.
        seconds: of each stage: attach, track, timing, validate.
    """

    certified: bool
    reason: str
    seconds: dict[str, float]


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
    extents = rng.uniform(*_OBJECT, 3)
    carried = transform(X, rng.uniform(-0.5, 0.5, (points, 3)) * extents)
    confidence = np.ones(carried.shape[:2])
    flow = ObjectFlow(
        np.linspace(0, DURATION, frames), carried, confidence, np.zeros(points, np.int64)
    )
    meshes = _strew(robot, witness, obstacles, rng)
    base = robot.X_world_base[:3, 3]
    lower, upper = base + _GRID[0], base + _GRID[1]
    start = time.perf_counter()
    field = distance_field(meshes, lower=lower, upper=upper, voxel=0.02, support_height=base[2])
    seconds = time.perf_counter() - start
    return RandomProblem(
        kind, flow, X[0], trimesh.creation.box(extents), meshes, field, seconds, witness
    )


def solve(
    robot: Robot,
    problem: RandomProblem,
    options: TrackOptions,
    optimizer: str | Optimizer = optimizers.DEFAULT,
    *,
    seed: int = 0,
) -> Outcome:
    """Plan one problem and certify the plan."""
    marks = [time.perf_counter()]
    attachment = attach(problem.flow, problem.X_world_tool)
    marks.append(time.perf_counter())
    held = sphere_cover(problem.held, _HELD_SPHERES)
    task = TrackProblem(
        robot, attachment.times, attachment, problem.field, held, obstacles=problem.obstacles
    )
    solution = optimizers.get(optimizer)(task, options, seed=seed)
    marks.append(time.perf_counter())
    timed = follow(attachment.times, solution.q, robot, TimingOptions())
    marks.append(time.perf_counter())
    trajectory = Trajectory(
        robot.joint_names, timed.times, timed.q, timed.qd, timed.qdd,
        grip=np.full(len(timed.times), robot.gripper.max_width),
        phase=np.full(len(timed.times), Phase.MANIPULATE),
        position_error=np.interp(timed.waypoint, np.arange(len(solution.q)), solution.position_error),
        rotation_error=np.interp(timed.waypoint, np.arange(len(solution.q)), solution.rotation_error),
        clearance=np.interp(timed.waypoint, np.arange(len(solution.q)), solution.clearance),
    )  # fmt: skip
    certificate = validate(robot, trajectory, {Phase.MANIPULATE: _world(robot, problem)})
    marks.append(time.perf_counter())
    reason = "" if certificate.ok else certificate.reasons[0]
    worst = solution.position_error.max(), solution.rotation_error.max()
    if worst[0] > options.converged_position_error or worst[1] > options.converged_rotation_error:
        reason = f"off the flow by {1e3 * worst[0]:.1f} mm, {worst[1]:.3f} rad"
    stages = ("attach", "track", "timing", "validate")
    return Outcome(not reason, reason, dict(zip(stages, np.diff(marks).tolist(), strict=True)))


def _world(robot: Robot, problem: RandomProblem) -> PhaseWorld:
    slab = trimesh.creation.box([4.0, 4.0, 0.2])
    slab.apply_translation(robot.X_world_base[:3, 3] - [0.0, 0.0, 0.1])
    obstacles = [(f"obstacle {i}", mesh) for i, mesh in enumerate(problem.obstacles)]
    return PhaseWorld(
        ((SUPPORT, slab), *obstacles), problem.held, frozenset({(robot.base_link, SUPPORT)})
    )


def _witness(
    robot: Robot, kind: MotionKind, frames: int, rng: np.random.Generator
) -> FloatArray | None:
    half = np.minimum((robot.upper - robot.lower) / 2, np.pi) * 0.9
    start = (robot.lower + robot.upper) / 2 + rng.uniform(-half, half)
    s = np.linspace(0, 1, frames)[:, None]
    ease = s * s * (3 - 2 * s)
    if kind == "rigid":
        bend = rng.normal(size=(2, len(start)))
        q = start + ease * 0.5 * bend[0] + np.sin(np.pi * s) ** 2 * 0.2 * bend[1]
    else:
        followed = _follow(
            robot, start, _one_joint_path(robot.tool_pose(start[None])[0], kind, ease, rng)
        )
        if followed is None:
            return None
        q = followed
    inside = (q > robot.lower + 0.05).all() and (q < robot.upper - 0.05).all()
    calm = np.abs(np.diff(q, axis=0)).max() / (DURATION / (frames - 1)) < 0.8 * robot.velocity.min()
    return q if inside and calm and _clear_of_itself(robot, q) else None


def _one_joint_path(
    X: FloatArray, kind: MotionKind, ease: FloatArray, rng: np.random.Generator
) -> FloatArray:
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
    centers, floor = robot.spheres(q), robot.X_world_base[2, 3] + _ABOVE
    carried = carried_spheres(robot)
    if (centers[..., 2] - robot.sphere_radius)[
        :, carried.any(axis=1)
    ].min() < floor:  # the base stands on it
        return False
    tool = robot.tool_pose(q)[:, :3, 3]
    if tool[:, 2].min() - _OBJECT_RADIUS < floor:
        return False
    to_object = (
        np.linalg.norm(centers - tool[:, None], axis=-1) - robot.sphere_radius - _OBJECT_RADIUS
    )
    if to_object[:, ~carried.all(axis=1)].min() < _APART:
        return False
    return bool(self_clearance(robot, q).min() > _APART)


def _strew(
    robot: Robot, witness: FloatArray, count: int, rng: np.random.Generator
) -> tuple[trimesh.Trimesh, ...]:
    fine = np.concatenate([witness, 0.5 * (witness[1:] + witness[:-1])])
    centers, radius = robot.spheres(fine).reshape(-1, 3), np.tile(robot.sphere_radius, len(fine))
    tool = robot.tool_pose(fine)[:, :3, 3]
    centers, radius = (
        np.concatenate([centers, tool]),
        np.concatenate([radius, np.full(len(tool), _OBJECT_RADIUS)]),
    )
    base = robot.X_world_base[:3, 3]
    out: list[trimesh.Trimesh] = []
    while len(out) < count:
        half = rng.uniform(0.02, 0.12, 3)
        R = (
            exp_so3([0.0, 0.0, rng.uniform(0, np.pi)])
            if rng.random() < 0.5
            else exp_so3(rng.normal(size=3))
        )
        X = pose(R, base + rng.uniform([-0.7, -0.7, 0.0], [0.8, 0.7, 0.9]))
        local = np.abs(transform(inverse(X), centers)) - half
        gap = np.linalg.norm(np.maximum(local, 0.0), axis=1) - radius
        if gap.min() > _ROOM:
            out.append(trimesh.creation.box(2 * half, transform=X))
    return tuple(out)


def bench_plan(
    *,
    robot: str = "panda",
    seed: int = 0,
    problems: int = 200,
    timed: int = 15,
    sizes: Sequence[tuple[int, int]] = SIZES,
    optimizer: str = optimizers.DEFAULT,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Time per certified plan, and the share of random problems that are solved, as records.

    Args:
        robot: name of a robot configuration.
        seed: of the problems.
        problems: random ones for the share.
        timed: problems for each median time.
        sizes: (times, points) of the flows that are timed.
        optimizer: name of the trajectory optimizer.
        progress: called with the fraction done and a word.
    """
    arm = load_robot(robot)
    options = TrackOptions()
    records: list[dict[str, Any]] = []
    for i, (frames, points) in enumerate(sizes):
        progress(0.5 * i / len(sizes), f"{frames} times, {points} points")
        records += _time(arm, frames, points, timed, seed, options, optimizer)
    certified = 0
    for i, problem in enumerate(_problems(arm, problems, seed)):
        progress(0.5 + 0.5 * i / problems, f"random problem {i + 1} of {problems}")
        certified += solve(arm, problem, options, optimizer, seed=seed).certified
    records.append(
        record(
            "plan/random/certified_share", certified / problems, "share", "up", problems, decimals=4
        )
    )
    return [r | {"optimizer": optimizer} for r in records]


def _problems(
    robot: Robot, count: int, seed: int, frames: int = 41, points: int = 1000
) -> Iterator[RandomProblem]:
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        yield random_problem(
            robot, kind, frames=frames, points=points, obstacles=OBSTACLES, seed=1000 * seed + i
        )


def _time(
    robot: Robot,
    frames: int,
    points: int,
    count: int,
    seed: int,
    options: TrackOptions,
    optimizer: str,
) -> list[dict[str, Any]]:
    outcomes: list[Outcome] = []
    fields: list[float] = []
    for problem in _problems(robot, count, seed, frames, points):
        fields.append(problem.field_seconds)
        solve(robot, problem, options, optimizer)  # warm: caches filled, obstacle hulls made
        outcomes.append(solve(robot, problem, options, optimizer))
    key = f"plan/T{frames}/N{points}"
    totals = [sum(o.seconds.values()) for o in outcomes]
    records = [_milliseconds(f"{key}/median_ms", totals)]
    if (frames, points) == (41, 10_000):
        records += [
            _milliseconds(f"{key}/{s}_ms", [o.seconds[s] for o in outcomes])
            for s in outcomes[0].seconds
        ]
        records.append(_milliseconds(f"{key}/field_ms", fields))
    return records


def _milliseconds(key: str, seconds: Sequence[float]) -> dict[str, Any]:
    return record(key, 1e3 * float(np.median(seconds)), "ms", "down", len(seconds), decimals=4)
