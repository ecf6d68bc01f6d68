"""Time per certified plan, and share of random problems that are solved: `flowplan bench plan`.

A plan is timed from the flow and the grasp to the certificate: attachment, optimization, timing,
validation. The distance field belongs to the scene, serves every contact that is tried there, and
is timed separately.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.planning.random_problems import (
    KINDS,
    RandomProblem,
    random_problem,
    support_slab,
)
from flowplan import optimizers
from flowplan.attachment import attach
from flowplan.collision.phase_geometry import SUPPORT
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.motion import Progress, silent
from flowplan.optimizers import Optimizer, TrackOptions, TrackProblem, TrackSolution
from flowplan.paths.time_parameterization import TimedPath, TimingOptions, follow
from flowplan.robot import Robot, load_robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.records import record
from flowplan.validation.validator import PhaseWorld, validate

OBSTACLES = 20
"""Number of obstacles in each random problem."""
SIZES = ((41, 100), (41, 1000), (41, 10_000), (41, 100_000), (81, 10_000), (161, 10_000))
"""Numbers of times and points of the flows that are timed."""
_HELD_SPHERES = 12
_STAGES = ("attach", "track", "timing", "validate")


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one problem.

    Attributes:
        certified: True if the validator certified the plan and it follows the flow within the
            optimizer's tolerances.
        reason: reason of a failure; empty if there is none.
        seconds: time of each stage: attach, track, timing, validate.
    """

    certified: bool
    reason: str
    seconds: dict[str, float]


def solve(
    robot: Robot,
    problem: RandomProblem,
    options: TrackOptions,
    optimizer: str | Optimizer = optimizers.DEFAULT,
    *,
    seed: int = 0,
) -> Outcome:
    """Plan one problem and validate the plan."""
    optimize, obstacles = optimizers.get(optimizer), (*problem.obstacles, support_slab(robot))
    # Attachment of the tool to the flow.
    marks = [time.perf_counter()]
    attachment = attach(problem.flow, problem.X_world_tool)
    marks.append(time.perf_counter())
    # Optimization, with the held object as spheres.
    held = sphere_cover(problem.held, _HELD_SPHERES)
    task = TrackProblem(
        robot, attachment.times, attachment, problem.field, held, obstacles=obstacles
    )
    solution = optimize(task, options, seed=seed)
    marks.append(time.perf_counter())
    # Timing on the flow's clock.
    timed = follow(attachment.times, solution.q, robot, TimingOptions())
    marks.append(time.perf_counter())
    # Independent validation, which sees the trajectory and the meshes alone.
    trajectory = _trajectory(robot, timed, solution)
    certificate = validate(robot, trajectory, {Phase.MANIPULATE: _world(robot, problem)})
    marks.append(time.perf_counter())

    # Certified, and within the optimizer's tolerances of the flow.
    reason = "" if certificate.ok else certificate.reasons[0]
    position, rotation = solution.position_error.max(), solution.rotation_error.max()
    follows = (
        position <= options.converged_position_error
        and rotation <= options.converged_rotation_error
    )
    if not follows:
        reason = f"off the flow by {1e3 * position:.1f} mm, {rotation:.3f} rad"
    seconds = dict(zip(_STAGES, np.diff(marks).tolist(), strict=True))
    return Outcome(not reason, reason, seconds)


def _trajectory(robot: Robot, timed: TimedPath, solution: TrackSolution) -> Trajectory:
    """The timed motion as a manipulation with an open gripper."""
    # Errors at the waypoints, interpolated to the clock's samples.
    frames, samples = np.arange(len(solution.q)), len(timed.times)
    return Trajectory(
        robot.joint_names,
        timed.times,
        timed.q,
        timed.qd,
        timed.qdd,
        grip=np.full(samples, robot.gripper.max_width),
        phase=np.full(samples, Phase.MANIPULATE),
        position_error=np.interp(timed.waypoint, frames, solution.position_error),
        rotation_error=np.interp(timed.waypoint, frames, solution.rotation_error),
        clearance=np.interp(timed.waypoint, frames, solution.clearance),
    )


def _world(robot: Robot, problem: RandomProblem) -> PhaseWorld:
    """Obstacles, support and held object, for the validator."""
    obstacles = [(f"obstacle {i}", mesh) for i, mesh in enumerate(problem.obstacles)]
    touch = frozenset({(robot.base_link, SUPPORT)})
    return PhaseWorld(((SUPPORT, support_slab(robot)), *obstacles), problem.held, touch)


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
    """Records of the time per certified plan, and of the share of random problems that are solved.

    Args:
        robot: name of a robot configuration.
        seed: Random seed of the problems.
        problems: number of random problems for the share.
        timed: number of problems for each median time.
        sizes: numbers of times and points of the flows that are timed.
        optimizer: name of the trajectory optimizer.
        progress: called with the fraction done and a short message.
    """
    arm = load_robot(robot)
    options = TrackOptions()
    records: list[dict[str, Any]] = []
    # Median times by size of the flow.
    for i, (frames, points) in enumerate(sizes):
        progress(0.5 * i / len(sizes), f"{frames} times, {points} points")
        records += _time(arm, frames, points, timed, seed, options, optimizer)
    # Share of random problems that are solved.
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
        solve(robot, problem, options, optimizer)  # fill caches, such as the obstacles' hulls
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
