"""Getting to a contact and away from it: a free path, and the last centimetres straight along the tool's z axis.

The last centimetres are followed by inverse kinematics in small steps, fingers open, with the target left out of the
world (touching it is the purpose). The rest is a straight line in joint space where that is free, and otherwise the
sampling planner RRT-Connect (Kuffner and LaValle, ICRA 2000; OMPL), then shortcut. Robot spheres stand for the arm and
a voxel distance field for the world, as in the optimizer; the independent validator has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flowplan import checks
from flowplan.checks import FloatArray
from flowplan.collision import DistanceField
from flowplan.geometry import log_so3
from flowplan.robot import Robot

_STEP = 0.004  # metres of tool travel between waypoints of the straight part
_JOINT_STEP = 0.04  # rad between collision checks on the free part


@dataclass(frozen=True)
class ApproachOptions:
    """How a contact is reached and left."""

    distance: float = 0.10
    """Metres of straight motion along the tool's z axis before contact, and after it."""
    shortest: float = 0.02
    """Metres of it that must be possible where the full distance is not (a shelf above, the arm's reach)."""
    margin: float = 0.008
    """Metres that the robot keeps from the world on the free part."""
    near_margin: float = 0.0
    """Metres it keeps on the straight part, the target left out."""
    seconds: float = 3.0
    """Time the sampling planner may take."""
    shortcuts: int = 60
    """Tries at shortening a sampled path."""

    def __post_init__(self) -> None:
        for name in ("distance", "seconds"):
            checks.positive(f"ApproachOptions.{name}", getattr(self, name))
        for name in ("shortest", "margin", "near_margin"):
            checks.positive(f"ApproachOptions.{name}", getattr(self, name), zero=True)


@dataclass(frozen=True, eq=False)
class Reach:
    """A path, or why there is none.

    Attributes:
        q: (M, J) waypoints from start to end; empty where there is no path.
        reason: empty where there is one.
    """

    q: FloatArray
    reason: str = ""


def approach(
    robot: Robot,
    q_start: FloatArray,
    q_contact: FloatArray,
    world: DistanceField,
    near: DistanceField,
    options: ApproachOptions = ApproachOptions(),
    *,
    width: float | None = None,
    seed: int = 0,
) -> Reach:
    """From a configuration to a contact.

    Args:
        q_start, q_contact: (J,) configurations, rad.
        world: distance to everything, the target included.
        near: distance to everything but the target, for the straight part.
        options: see ApproachOptions.
        width: finger opening on the way, metres; wide open where not given.
        seed: of the sampling planner.
    """
    straight = _back_off(robot, q_contact, near, options, width)
    reason = "no straight way in"
    for q_near in straight[::-1]:  # stand off as far as possible, nearer where that is not clear of the target
        if np.linalg.norm(_tool(robot, q_near) - _tool(robot, q_contact)) < options.shortest:
            break
        if not _clear(robot, q_near[None], world, options.margin, width):
            reason = "the open hand does not fit beside the object where it would stand off"
            continue
        free = _free_path(robot, np.asarray(q_start, float), q_near, world, options, width, seed)
        if free is None:
            reason = "no collision-free way from the start to where the hand would stand off"
            continue
        index = int(np.flatnonzero((straight == q_near).all(axis=1))[0])
        return Reach(np.concatenate([free, straight[:index][::-1]]))
    return Reach(np.zeros((0, len(q_contact))), reason)


def retreat(
    robot: Robot,
    q_contact: FloatArray,
    q_end: FloatArray,
    world: DistanceField,
    near: DistanceField,
    options: ApproachOptions = ApproachOptions(),
    *,
    width: float | None = None,
    seed: int = 0,
) -> Reach:
    """From a contact back out, and to `q_end` where there is a way; otherwise it stays where it backed off to."""
    back = approach(robot, q_end, q_contact, world, near, options, width=width, seed=seed)
    if not back.reason:
        return Reach(back.q[::-1])
    straight = _back_off(robot, q_contact, near, options, width)
    if np.linalg.norm(_tool(robot, straight[-1]) - _tool(robot, q_contact)) < options.shortest:
        return Reach(np.zeros((0, len(q_contact))), "no straight way out")
    return Reach(straight)


def _tool(robot: Robot, q: FloatArray) -> FloatArray:
    return robot.tool_pose(q[None])[0, :3, 3]


def _back_off(
    robot: Robot, q_contact: FloatArray, near: DistanceField, options: ApproachOptions, width: float | None
) -> FloatArray:
    """(M, J) from the contact backwards along the tool's z axis, as far as limits and world allow."""
    X = robot.tool_pose(q_contact[None])[0]
    path = [np.asarray(q_contact, float)]
    for distance in np.arange(_STEP, options.distance + 1e-9, _STEP):
        goal = X[:3, 3] - distance * X[:3, 2]
        q = path[-1]
        for _ in range(5):
            here, J = robot.tool_jacobian(q[None])
            error = np.concatenate([goal - here[0, :3, 3], log_so3(X[:3, :3] @ here[0, :3, :3].T)])
            if np.linalg.norm(error) < 1e-5:
                break
            q = q + J[0].T @ np.linalg.solve(J[0] @ J[0].T + 1e-6 * np.eye(6), error)
        reached = np.linalg.norm(error) < 1e-3 and np.all((q >= robot.lower) & (q <= robot.upper))
        if not reached or not _clear(robot, q[None], near, options.near_margin, width):
            break
        path.append(q)
    return np.array(path)


def _clear(robot: Robot, q: FloatArray, world: DistanceField, margin: float, width: float | None) -> bool:
    """Are all configurations q (B, J) at least `margin` from the world and clear of the robot itself?"""
    centers = robot.spheres(q, width)
    moving = _moving_spheres(robot)
    gap = world.distance(centers[:, moving]) - robot.sphere_radius[moving]
    if gap.min() < margin:
        return False
    a, b = robot.self_pairs.T
    apart = np.linalg.norm(centers[:, a] - centers[:, b], axis=-1) - robot.sphere_radius[a] - robot.sphere_radius[b]
    return bool(apart.min(initial=np.inf) > 0)


def _moving_spheres(robot: Robot) -> FloatArray:
    """(K,) which spheres the arm moves: its base stands on the support for good."""
    return np.array([robot.link_names[i] != robot.base_link for i in robot.sphere_link])


def _line(a: FloatArray, b: FloatArray) -> FloatArray:
    count = 2 + int(np.abs(b - a).max() / _JOINT_STEP)
    return a + np.linspace(0, 1, count)[:, None] * (b - a)


def _free_path(
    robot: Robot,
    q_start: FloatArray,
    q_goal: FloatArray,
    world: DistanceField,
    options: ApproachOptions,
    width: float | None,
    seed: int,
) -> FloatArray | None:
    if _clear(robot, _line(q_start, q_goal), world, options.margin, width):
        return _line(q_start, q_goal)
    if not _clear(robot, q_start[None], world, options.margin, width):
        return None
    sampled = _sampled_path(robot, q_start, q_goal, world, options, width, seed)
    if sampled is None:
        return None
    corners = _shortcut(robot, sampled, world, options, width, np.random.default_rng(seed))
    return np.concatenate([corners[:1], *[_line(a, b)[1:] for a, b in pairwise(corners)]])


def _sampled_path(
    robot: Robot,
    q_start: FloatArray,
    q_goal: FloatArray,
    world: DistanceField,
    options: ApproachOptions,
    width: float | None,
    seed: int,
) -> FloatArray | None:
    from ompl import base, geometric, util

    util.setLogLevel(util.LogLevel.LOG_NONE)
    util.RNG.setSeed(seed + 1)
    J = len(q_start)
    space = base.RealVectorStateSpace(J)
    bounds = base.RealVectorBounds(J)
    for j in range(J):
        bounds.setLow(j, float(robot.lower[j]))
        bounds.setHigh(j, float(robot.upper[j]))
    space.setBounds(bounds)
    space.setLongestValidSegmentFraction(_JOINT_STEP / space.getMaximumExtent())
    setup = geometric.SimpleSetup(space)

    def valid(state: base.State) -> bool:
        return _clear(robot, np.array([[state[j] for j in range(J)]]), world, options.margin, width)

    setup.setStateValidityChecker(valid)
    start, goal = space.allocState(), space.allocState()
    for j in range(J):
        start[j], goal[j] = float(q_start[j]), float(q_goal[j])
    setup.setStartAndGoalStates(start, goal)
    setup.setPlanner(geometric.RRTConnect(setup.getSpaceInformation()))
    if not setup.solve(options.seconds) or not setup.haveExactSolutionPath():
        return None
    return np.array([[state[j] for j in range(J)] for state in setup.getSolutionPath().getStates()])


def _shortcut(
    robot: Robot,
    path: FloatArray,
    world: DistanceField,
    options: ApproachOptions,
    width: float | None,
    rng: np.random.Generator,
) -> FloatArray:
    """Replace stretches of a path by straight lines where those are free."""
    path = np.concatenate([path[:1], *[_line(a, b)[1:] for a, b in pairwise(path)]])
    for _ in range(options.shortcuts):
        if len(path) < 3:
            break
        i, j = np.sort(rng.choice(len(path), 2, replace=False))
        if j - i > 1 and _clear(robot, _line(path[i], path[j]), world, options.margin, width):
            path = np.concatenate([path[: i + 1], path[j:]])
    return path
