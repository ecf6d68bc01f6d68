"""Getting to a contact and away from it: a free path, and the last centimetres straight along the tool's z axis.

The last centimetres are followed by inverse kinematics in small steps, fingers open, with the target left out of the
world (touching it is the purpose). The rest is a straight line in joint space where that is free, and otherwise the
sampling planner RRT-Connect (Kuffner and LaValle, ICRA 2000; OMPL), then shortcut. Corners are rounded: densely placed
waypoints become the control points of a uniform cubic B-spline,

    q(u) = (P[i-1] (1-u)^3 + P[i] (3 u^3 - 6 u^2 + 4) + P[i+1] (-3 u^3 + 3 u^2 + 3 u + 1) + P[i+2] u^3) / 6,

which is C2, stays in their convex hull (so within joint limits), keeps straight lines straight and leaves a corner by no
more than a third of their spacing. Robot spheres stand for the arm and a voxel distance field for the world, as in the
optimizer; the independent validator has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flowplan.collision.distance_field import DistanceField
from flowplan.geometry import log_so3
from flowplan.robot import Robot
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_STEP = 0.01  # metres of tool travel between waypoints of the straight part
_JOINT_STEP = 0.03  # rad between collision checks on the free part
_EDGE = 0.7  # rad (over all joints) that the sampling planner goes at once
_ROUNDING = 0.12  # rad between the control points that round the corners
_STAND_OUT = 0.01  # metres that spheres may stand out from the links that they cover


@dataclass(frozen=True)
class ApproachOptions:
    """How a contact is reached and left."""

    distance: float = 0.10
    """Metres of straight motion along the tool's z axis before contact, and after it."""
    shortest: float = 0.02
    """Metres of it that must be possible where the full distance is not (a shelf above, the arm's reach)."""
    margin: float = 0.008
    """Metres that the robot keeps from the world on the free part (less where it starts nearer)."""
    near_margin: float = 0.0
    """Metres it keeps on the straight part, the target left out (less where the contact itself is nearer)."""
    edges: int = 2000
    """Straight pieces that the sampling planner may try before it gives up."""
    shortcuts: int = 60
    """Tries at shortening a sampled path."""

    def __post_init__(self) -> None:
        for name in ("distance", "edges"):
            checks.positive(f"ApproachOptions.{name}", getattr(self, name))
        for name in ("shortest", "margin", "near_margin", "shortcuts"):
            checks.positive(f"ApproachOptions.{name}", getattr(self, name), zero=True)


@dataclass(frozen=True, eq=False)
class Reach:
    """A path, or why there is none.

    Attributes:
        q: (M, J) waypoints from start to end, dense enough for a spline through them; empty where there is no path.
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
        robot: the arm.
        q_start, q_contact: (J,) configurations, rad.
        world: distance to everything, the target included.
        near: distance to everything but the target, for the straight part.
        options: see ApproachOptions.
        width: finger opening on the way, metres; wide open where not given.
        seed: of the sampling planner; one seed gives one path.
    """
    q_start = checks.array("q_start", q_start, (len(robot.joint_names),))
    q_contact = checks.array("q_contact", q_contact, (len(robot.joint_names),))
    straight, stopped = _back_off(robot, q_contact, near, options, width)
    deepest = int(np.ceil(options.shortest / _STEP - 1e-9))
    if len(straight) <= deepest:
        way = 1e3 * _STEP * (len(straight) - 1)
        return _none(
            robot,
            f"straight way to the contact: {way:.0f} of {1e3 * options.shortest:.0f} mm, then {stopped}",
        )
    space = _Space(robot, world, options.margin, width)
    start = space.gap(q_start[None])[0]
    if start <= 0:
        return _none(
            robot, f"at the start the robot overlaps the world or itself by {-1e3 * start:.0f} mm"
        )
    # Stand off as far as possible, nearer where the open hand is not clear of the target there.
    gaps = space.gap(straight)
    clear = deepest + np.flatnonzero(gaps[deepest:] >= options.margin)
    if not len(clear):
        best = 1e3 * gaps[deepest:].max()
        return _none(
            robot,
            f"standing off, the open hand is {best:.0f} mm from the world (needs {1e3 * options.margin:.0f})",
        )
    space = _Space(robot, world, min(options.margin, start), width)
    for k in clear[[-1, len(clear) // 2, 0]]:
        if space.free(_line(q_start, straight[k])):
            return Reach(_rounded(space, np.stack([q_start, straight[k]]), straight[k::-1]))
    k = int(clear[-1])
    corners = _sampled_path(space, q_start, straight[k], options.edges, seed)
    if corners is None:
        return _none(
            robot,
            f"no free way found from the start to where the hand stands off ({options.edges} edges tried)",
        )
    corners = _shortcut(space, corners, options.shortcuts, np.random.default_rng(seed))
    return Reach(_rounded(space, corners, straight[k::-1]))


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
    """From a contact back out, and to `q_end` where there is a way; otherwise it stays where it backed off to.

    Takes what `approach` takes: it is an approach from `q_end`, run backwards.
    """
    back = approach(robot, q_end, q_contact, world, near, options, width=width, seed=seed)
    if not back.reason:
        return Reach(back.q[::-1])
    straight, _ = _back_off(
        robot, checks.array("q_contact", q_contact, (len(robot.joint_names),)), near, options, width
    )
    if _STEP * (len(straight) - 1) < max(options.shortest, _STEP):
        return back
    return Reach(straight)


def _none(robot: Robot, reason: str) -> Reach:
    return Reach(np.zeros((0, len(robot.joint_names))), reason)


class _Space:
    """Which configurations are free: robot spheres at least `margin` metres from the world, and apart from each other."""

    def __init__(
        self, robot: Robot, world: DistanceField, margin: float, width: float | None
    ) -> None:
        self.robot, self.world, self.margin, self.width = robot, world, margin, width
        # The base stands on the support for good.
        self.moving = np.array([robot.link_names[i] != robot.base_link for i in robot.sphere_link])
        self.a, self.b = robot.self_pairs.reshape(-1, 2).T
        self.touching = (robot.sphere_radius[self.a] + robot.sphere_radius[self.b]) ** 2

    def gap(self, q: FloatArray) -> FloatArray:
        """(B,) metres from the world at q (B, J), or the overlap with itself (negative) where the robot has one."""
        centers = self.robot.spheres(q, self.width)
        gap = (
            self.world.distance(centers[:, self.moving]) - self.robot.sphere_radius[self.moving]
        ).min(axis=1)
        apart = np.linalg.norm(centers[:, self.a] - centers[:, self.b], axis=-1) - np.sqrt(
            self.touching
        )
        own = apart.min(axis=1, initial=0.0)
        return np.where(own < 0, np.minimum(gap, own), gap)

    def free(self, q: FloatArray) -> bool:
        """Are all configurations q (B, J) free?"""
        centers = self.robot.spheres(q, self.width)
        moving, needed = (
            centers[:, self.moving],
            self.robot.sphere_radius[self.moving] + self.margin,
        )
        near = np.nonzero(self.world.lower_bound(moving) < needed)
        if len(near[0]) and (self.world.distance(moving[near]) < needed[near[1]]).any():
            return False
        offset = centers[:, self.a] - centers[:, self.b]
        return not (np.einsum("bpc,bpc->bp", offset, offset) < self.touching).any()


def _back_off(
    robot: Robot,
    q_contact: FloatArray,
    near: DistanceField,
    options: ApproachOptions,
    width: float | None,
) -> tuple[FloatArray, str]:
    """(M, J) from the contact backwards along the tool's z axis, as far as limits and world allow; and what stopped it."""
    space = _Space(robot, near, 0.0, width)
    X = robot.tool_pose(q_contact[None])[0]
    path = [q_contact]
    middle, half = 0.5 * (robot.lower + robot.upper), 0.5 * (robot.upper - robot.lower)
    for distance in np.arange(_STEP, options.distance + 1e-9, _STEP):
        goal = X[:3, 3] - distance * X[:3, 2]
        q = path[-1]
        for _ in range(8):
            here, J = robot.tool_jacobian(q[None])
            error = np.concatenate([goal - here[0, :3, 3], log_so3(X[:3, :3] @ here[0, :3, :3].T)])
            if np.linalg.norm(error) < 1e-5:
                break
            inverse = J[0].T @ np.linalg.inv(J[0] @ J[0].T + 1e-6 * np.eye(6))
            # What the tool does not ask for keeps joints off their limits, and nothing else: the push is a fifth power.
            away = -0.1 * np.clip((q - middle) / half, -1, 1) ** 5
            q = q + inverse @ error + away - inverse @ (J[0] @ away)
        beyond = np.flatnonzero((q < robot.lower) | (q > robot.upper))
        if len(beyond):
            return np.array(path), f"{robot.joint_names[beyond[0]]} at its limit"
        if np.linalg.norm(error) > 1e-3:
            return np.array(path), "out of the arm's reach"
        path.append(q)
    # The contact may be nearer than the margin (fingertips at a table): backing off must not come nearer still.
    gaps = space.gap(np.array(path))
    if gaps[0] < -_STAND_OUT:
        return np.array(
            path[:1]
        ), f"the robot overlaps the world or itself by {-1e3 * gaps[0]:.0f} mm at the contact"
    blocked = np.flatnonzero(gaps < min(options.near_margin, gaps[0]) - 1e-3)
    if len(blocked):
        return np.array(
            path[: blocked[0]]
        ), f"{1e3 * gaps[blocked[0]]:.0f} mm from the world or itself"
    return np.array(path), ""


def _line(a: FloatArray, b: FloatArray, step: float = _JOINT_STEP) -> FloatArray:
    count = 2 + int(np.abs(b - a).max() / step)
    return a + np.linspace(0, 1, count)[:, None] * (b - a)


def _dense(corners: FloatArray, step: float = _JOINT_STEP) -> FloatArray:
    return np.concatenate([corners[:1], *[_line(a, b, step)[1:] for a, b in pairwise(corners)]])


def _sampled_path(
    space: _Space, q_start: FloatArray, q_goal: FloatArray, edges: int, seed: int
) -> FloatArray | None:
    from ompl import base, geometric, util

    util.setLogLevel(util.LogLevel.LOG_NONE)
    util.RNG.setSeed(seed + 1)
    J, robot = len(q_start), space.robot
    states = base.RealVectorStateSpace(J)
    bounds = base.RealVectorBounds(J)
    # Half a turn to either side is as far as any joint has reason to go, where its limits allow several turns.
    low, high = np.minimum(q_start, q_goal), np.maximum(q_start, q_goal)
    low, high = (
        np.minimum(low, np.maximum(robot.lower, low - np.pi)),
        np.maximum(high, np.minimum(robot.upper, high + np.pi)),
    )
    for j in range(J):
        bounds.setLow(j, float(low[j]))
        bounds.setHigh(j, float(high[j]))
    states.setBounds(bounds)
    info = base.SpaceInformation(states)
    tried = 0

    class Edges(base.MotionValidator):
        """All states of an edge at once: a call from C++ costs as much as thirty configurations."""

        def checkMotion(self, a: base.State, b: base.State) -> bool:
            nonlocal tried
            tried += 1
            return space.free(_line(np.array(a[0:J]), np.array(b[0:J])))

    validator = Edges(info)
    info.setMotionValidator(validator)
    info.setStateValidityChecker(
        lambda _: True
    )  # no state is kept that does not end a checked edge
    info.setup()
    start, goal = states.allocState(), states.allocState()
    start[0:J], goal[0:J] = q_start.tolist(), q_goal.tolist()
    problem = base.ProblemDefinition(info)
    problem.setStartAndGoalStates(start, goal)
    planner = geometric.RRTConnect(info)
    planner.setProblemDefinition(problem)
    planner.setRange(_EDGE)
    planner.setup()
    planner.solve(base.PlannerTerminationCondition(lambda: tried >= edges))
    if not problem.hasExactSolution():
        return None
    return np.array([state[0:J] for state in problem.getSolutionPath().getStates()])


def _shortcut(
    space: _Space, corners: FloatArray, tries: int, rng: np.random.Generator
) -> FloatArray:
    """Corners of a path some of whose stretches are replaced by straight lines, where those are free."""
    path = _dense(corners)
    kept = np.zeros(len(path), bool)  # which points are corners
    kept[[0, -1]] = True
    kept[np.cumsum([0, *[len(_line(a, b)) - 1 for a, b in pairwise(corners)]])] = True
    for _ in range(tries):
        if kept.sum() < 3:
            break
        i, j = np.sort(rng.choice(len(path), 2, replace=False))
        if not kept[i + 1 : j].any() or not space.free(line := _line(path[i], path[j])):
            continue
        inside = np.zeros(len(line), bool)
        inside[[0, -1]] = True
        path = np.concatenate([path[:i], line, path[j + 1 :]])
        kept = np.concatenate([kept[:i], inside, kept[j + 1 :]])
    return path[kept]


def _rounded(space: _Space, corners: FloatArray, straight: FloatArray) -> FloatArray:
    """One smooth path along free corners (C, J) and then the straight part (M, J), which begins at the last corner."""
    step = _ROUNDING
    while step >= _JOINT_STEP:
        path = _b_spline(np.concatenate([_dense(corners, step), straight[1:]]))
        # The straight part was checked without the target; what comes before its second waypoint was not yet.
        free = path[: 2 * (len(_dense(corners, step)) - 1)]
        if (
            space.free(_dense(free))
            and ((path >= space.robot.lower) & (path <= space.robot.upper)).all()
        ):
            return path
        step /= 2
    return np.concatenate([_dense(corners), straight[1:]])


def _b_spline(control: FloatArray) -> FloatArray:
    """Points (2 M - 1, J), two a piece, of the uniform cubic B-spline of `control` (M, J); it keeps both ends."""
    P = np.concatenate([[2 * control[0] - control[1]], control, [2 * control[-1] - control[-2]]])
    at = (P[:-2] + 4 * P[1:-1] + P[2:]) / 6
    between = (P[:-3] + 23 * (P[1:-2] + P[2:-1]) + P[3:]) / 48
    out = np.empty((2 * len(control) - 1, control.shape[1]))
    out[::2], out[1::2] = at, between
    return out
