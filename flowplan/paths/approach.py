"""Paths to a contact and away from it: a free part, and the last centimeters along the tool's z.

The last centimeters are followed by inverse kinematics in small steps, fingers open, with the
target left out of the obstacles, since the path ends in contact with it. The free part is a
straight line in joint space if that is collision-free, and otherwise found by the sampling planner
RRT-Connect (Kuffner and LaValle, ICRA 2000; OMPL) and shortcut. Corners are rounded: densely placed
waypoints become the control points of a uniform cubic B-spline,

    q(u) = (P[i-1] (1-u)^3 + P[i] (3 u^3 - 6 u^2 + 4)
            + P[i+1] (-3 u^3 + 3 u^2 + 3 u + 1) + P[i+2] u^3) / 6,

which is C2, stays in their convex hull (hence within joint limits), keeps straight lines straight
and deviates from a corner by at most a third of their spacing. The arm is modeled by the robot's
spheres and the obstacles by a voxel distance field, as in the optimizer; the independent validator
checks the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import numpy as np

from flowplan.geometry import log_so3
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.collision.distance_field import DistanceField
    from flowplan.robot import Robot

_STEP = 0.01
"""Meters of tool travel between waypoints of the straight part."""
_JOINT_STEP = 0.03
"""Radians between collision checks on the free part."""
_EDGE = 0.7
"""Radians (over all joints), the longest edge of the sampling planner."""
_ROUNDING = 0.12
"""Radians between the control points that round the corners."""
_PROTRUSION = 0.01
"""Meters by which spheres may protrude from the links that they cover."""


@dataclass(frozen=True)
class ApproachOptions:
    """Paths to a contact and away from it."""

    distance: Annotated[float, Interval(0.001, 2)] = 0.10
    """Meters of straight motion along the tool's z axis before contact, and after it."""
    shortest: Annotated[float, Interval(0, 2)] = 0.02
    """Meters of it that must be possible if the full distance is not (a shelf above, the reach)."""
    margin: Annotated[float, Interval(0, 0.2)] = 0.008
    """Clearance in meters on the free part (less if the path starts nearer)."""
    near_margin: Annotated[float, Interval(0, 0.2)] = 0.0
    """Clearance in meters on the straight part, target left out (less if the contact is nearer)."""
    edges: Annotated[int, Interval(1, 1_000_000)] = 2000
    """Maximum number of edges that the sampling planner tries."""
    shortcuts: Annotated[int, Interval(0, 10_000)] = 60
    """Attempts at shortening a sampled path."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class ApproachPath:
    """A path, or the reason why none was found.

    Attributes:
        q: (M, J) waypoints from start to end, dense enough for a spline; empty without a path.
        reason: Empty if there is a path.
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
) -> ApproachPath:
    """Path from a configuration to a contact.

    Args:
        robot: The arm.
        q_start, q_contact: (J,) configurations, rad.
        world: Distance to all obstacles, the target included.
        near: Distance to all obstacles but the target, for the straight part.
        options: Lengths, margins and effort.
        width: Gripper opening on the way, meters. Defaults to the widest.
        seed: Random seed of the sampling planner.

    Raises:
        ValueError: If a configuration does not fit the robot.
    """
    q_start = checks.array("q_start", q_start, (len(robot.joint_names),))
    q_contact = checks.array("q_contact", q_contact, (len(robot.joint_names),))
    least = int(np.ceil(options.shortest / _STEP - 1e-9))  # steps of the shortest straight part

    # Straight part, from the contact backwards.
    straight, stopped = _back_off(robot, q_contact, near, options, width)
    if len(straight) <= least:
        length = 1e3 * _STEP * (len(straight) - 1)
        return _failure(
            robot,
            f"straight way to the contact: {length:.0f} of {1e3 * options.shortest:.0f} mm, "
            f"then {stopped}",
        )
    space = _FreeSpace(robot, world, options.margin, width)
    start = space.signed_distance(q_start[None])[0]
    if start <= 0:
        return _failure(
            robot, f"at the start the robot overlaps the world or itself by {-1e3 * start:.0f} mm"
        )

    # Pre-contact configurations, at which the open hand is clear of the target too.
    distances = space.signed_distance(straight)
    clear = least + np.flatnonzero(distances[least:] >= options.margin)
    if not len(clear):
        best = 1e3 * distances[least:].max()
        return _failure(
            robot,
            f"standing off, the open hand is {best:.0f} mm from the world "
            f"(needs {1e3 * options.margin:.0f})",
        )

    # A straight line in joint space, to the farthest, a middle or the nearest of them.
    space = _FreeSpace(robot, world, min(options.margin, start), width)
    for k in clear[[-1, len(clear) // 2, 0]]:
        if space.free(_line(q_start, straight[k])):
            corners = np.stack([q_start, straight[k]])
            return ApproachPath(_rounded(space, corners, straight[k::-1]))

    # Otherwise the sampling planner, to the farthest one.
    k = int(clear[-1])
    sampled = _sampled_path(space, q_start, straight[k], options.edges, seed)
    if sampled is None:
        return _failure(
            robot,
            "no free way found from the start to where the hand stands off "
            f"({options.edges} edges tried)",
        )
    corners = _shortcut(space, sampled, options.shortcuts, np.random.default_rng(seed))
    return ApproachPath(_rounded(space, corners, straight[k::-1]))


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
) -> ApproachPath:
    """Path from a contact away from it, and on to `q_end` if possible.

    An approach from `q_end` in reverse. If there is none, the path ends once the straight part has
    backed off from the contact.

    Args:
        robot: The arm.
        q_contact, q_end: (J,) configurations, rad.
        world: Distance to all obstacles, the target included.
        near: Distance to all obstacles but the target, for the straight part.
        options: Lengths, margins and effort.
        width: Gripper opening on the way, meters. Defaults to the widest.
        seed: Random seed of the sampling planner.

    Raises:
        ValueError: If a configuration does not fit the robot.
    """
    back = approach(robot, q_end, q_contact, world, near, options, width=width, seed=seed)
    if not back.reason:
        return ApproachPath(back.q[::-1])
    q_contact = checks.array("q_contact", q_contact, (len(robot.joint_names),))
    straight, _ = _back_off(robot, q_contact, near, options, width)
    if _STEP * (len(straight) - 1) < max(options.shortest, _STEP):
        return back
    return ApproachPath(straight)


def _failure(robot: Robot, reason: str) -> ApproachPath:
    return ApproachPath(np.zeros((0, len(robot.joint_names))), reason)


class _FreeSpace:
    """Collision-free configurations: robot spheres clear of the world and of each other.

    Args:
        robot: The arm.
        world: Distance to the obstacles.
        margin: Clearance from the obstacles, meters.
        width: Gripper opening, meters. None for the widest.
    """

    def __init__(
        self, robot: Robot, world: DistanceField, margin: float, width: float | None
    ) -> None:
        self.robot, self.world, self.margin, self.width = robot, world, margin, width
        # The base stands on the support and does not move.
        link_of_sphere = (robot.link_names[i] for i in robot.sphere_link)
        self.moving = np.array([link != robot.base_link for link in link_of_sphere])
        # Pairs of spheres that must not overlap, with the square of their summed radii.
        self.a, self.b = robot.self_pairs.reshape(-1, 2).T
        self.touching = (robot.sphere_radius[self.a] + robot.sphere_radius[self.b]) ** 2

    def signed_distance(self, q: FloatArray) -> FloatArray:
        """Meters (B,) from the world at q (B, J), negative at an overlap with world or self."""
        centers = self.robot.spheres(q, self.width)  # (B, K, 3)
        radius = self.robot.sphere_radius
        to_world = self.world.distance(centers[:, self.moving]) - radius[self.moving]
        nearest = to_world.min(axis=1)
        between = np.linalg.norm(centers[:, self.a] - centers[:, self.b], axis=-1)
        overlap = (between - np.sqrt(self.touching)).min(axis=1, initial=0.0)
        return np.where(overlap < 0, np.minimum(nearest, overlap), nearest)

    def free(self, q: FloatArray) -> bool:
        """True if all configurations q (B, J) are collision-free."""
        centers = self.robot.spheres(q, self.width)
        # Obstacles: exact distances only for spheres whose lower bound is too small.
        moving = centers[:, self.moving]
        needed = self.robot.sphere_radius[self.moving] + self.margin
        suspect = np.nonzero(self.world.lower_bound(moving) < needed)
        if len(suspect[0]):
            distance = self.world.distance(moving[suspect])
            if (distance < needed[suspect[1]]).any():
                return False
        # Self-collision, by squared distances.
        offset = centers[:, self.a] - centers[:, self.b]
        square = np.einsum("bpc,bpc->bp", offset, offset)
        return not (square < self.touching).any()


def _back_off(
    robot: Robot,
    q_contact: FloatArray,
    near: DistanceField,
    options: ApproachOptions,
    width: float | None,
) -> tuple[FloatArray, str]:
    """Straight part of the path, backwards along the tool's z axis.

    Returns:
        Configurations (M, J) from the contact as far as joint limits and obstacles allow, and what
        stopped them (empty at the full distance).
    """
    X = robot.tool_pose(q_contact[None])[0]
    path = [q_contact]
    for distance in np.arange(_STEP, options.distance + 1e-9, _STEP):
        X_goal = X.copy()
        X_goal[:3, 3] = X[:3, 3] - distance * X[:3, 2]
        q, error = _solve_ik(robot, path[-1], X_goal)
        beyond = np.flatnonzero((q < robot.lower) | (q > robot.upper))
        if len(beyond):
            return np.array(path), f"{robot.joint_names[beyond[0]]} at its limit"
        if error > 1e-3:
            return np.array(path), "out of the arm's reach"
        path.append(q)

    # The contact may be nearer than the margin (fingertips at a table): backing off must not come
    # nearer still.
    space = _FreeSpace(robot, near, 0.0, width)
    distances = space.signed_distance(np.array(path))
    if distances[0] < -_PROTRUSION:
        overlap = -1e3 * distances[0]
        reason = f"the robot overlaps the world or itself by {overlap:.0f} mm at the contact"
        return np.array(path[:1]), reason
    blocked = np.flatnonzero(distances < min(options.near_margin, distances[0]) - 1e-3)
    if len(blocked):
        first = blocked[0]
        return np.array(path[:first]), f"{1e3 * distances[first]:.0f} mm from the world or itself"
    return np.array(path), ""


def _solve_ik(robot: Robot, q: FloatArray, X_goal: FloatArray) -> tuple[FloatArray, float]:
    """Configuration (J,) near q that brings the tool to X_goal, and the remaining error.

    Damped least squares; the null space keeps joints away from their limits.
    """
    middle, half = 0.5 * (robot.lower + robot.upper), 0.5 * (robot.upper - robot.lower)
    for _ in range(8):
        X, J = robot.tool_jacobian(q[None])
        shift = X_goal[:3, 3] - X[0, :3, 3]
        turn = log_so3(X_goal[:3, :3] @ X[0, :3, :3].T)
        error = np.concatenate([shift, turn])  # (6,)
        if np.linalg.norm(error) < 1e-5:
            break
        inverse = J[0].T @ np.linalg.inv(J[0] @ J[0].T + 1e-6 * np.eye(6))
        # A fifth power pushes near the limits only.
        away = -0.1 * np.clip((q - middle) / half, -1, 1) ** 5
        q = q + inverse @ error + away - inverse @ (J[0] @ away)
    return q, float(np.linalg.norm(error))


def _line(a: FloatArray, b: FloatArray, step: float = _JOINT_STEP) -> FloatArray:
    """Points (M, J) from a to b, no joint more than `step` apart."""
    count = 2 + int(np.abs(b - a).max() / step)
    return a + np.linspace(0, 1, count)[:, None] * (b - a)


def _dense(corners: FloatArray, step: float = _JOINT_STEP) -> FloatArray:
    """Points (M, J) along the straight lines between corners (C, J)."""
    lines = [_line(a, b, step)[1:] for a, b in pairwise(corners)]
    return np.concatenate([corners[:1], *lines])


def _sampled_path(
    space: _FreeSpace, q_start: FloatArray, q_goal: FloatArray, edges: int, seed: int
) -> FloatArray | None:
    """Corners (C, J) of a free path by RRT-Connect, or None after `edges` edges."""
    from ompl import base, geometric, util

    util.setLogLevel(util.LogLevel.LOG_NONE)
    util.RNG.setSeed(seed + 1)

    # State space: joint limits, at most half a turn beyond start and goal.
    J = len(q_start)
    low, high = _sampling_bounds(space.robot, q_start, q_goal)
    box = base.RealVectorBounds(J)
    for j in range(J):
        box.setLow(j, float(low[j]))
        box.setHigh(j, float(high[j]))
    states = base.RealVectorStateSpace(J)
    states.setBounds(box)

    # Collision checks: whole edges, of which every accepted state is an end.
    info = base.SpaceInformation(states)
    tried = 0

    class Edges(base.MotionValidator):
        """Checks all states of an edge at once: a call from C++ costs as much as thirty states."""

        def checkMotion(self, a: base.State, b: base.State) -> bool:
            nonlocal tried
            tried += 1
            return space.free(_line(np.array(a[0:J]), np.array(b[0:J])))

    validator = Edges(info)
    info.setMotionValidator(validator)
    info.setStateValidityChecker(lambda _: True)
    info.setup()

    # Problem and planner.
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


def _sampling_bounds(
    robot: Robot, q_start: FloatArray, q_goal: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds (J,) of the search, for joints whose limits allow several turns."""
    low, high = np.minimum(q_start, q_goal), np.maximum(q_start, q_goal)
    lower = np.minimum(low, np.maximum(robot.lower, low - np.pi))
    upper = np.maximum(high, np.minimum(robot.upper, high + np.pi))
    return lower, upper


def _shortcut(
    space: _FreeSpace, corners: FloatArray, tries: int, rng: np.random.Generator
) -> FloatArray:
    """Corners (C', J) of the path with stretches replaced by free straight lines."""
    # The path as dense points, with a mask of its corners.
    path = _dense(corners)
    lengths = [len(_line(a, b)) - 1 for a, b in pairwise(corners)]
    is_corner = np.zeros(len(path), bool)
    is_corner[[0, -1]] = True
    is_corner[np.cumsum([0, *lengths])] = True

    for _ in range(tries):
        if is_corner.sum() < 3:
            break
        # A random stretch, if it has a corner to cut and the line across is free.
        i, j = np.sort(rng.choice(len(path), 2, replace=False))
        if not is_corner[i + 1 : j].any():
            continue
        line = _line(path[i], path[j])
        if not space.free(line):
            continue
        ends = np.zeros(len(line), bool)
        ends[[0, -1]] = True
        path = np.concatenate([path[:i], line, path[j + 1 :]])
        is_corner = np.concatenate([is_corner[:i], ends, is_corner[j + 1 :]])
    return path[is_corner]


def _rounded(space: _FreeSpace, corners: FloatArray, straight: FloatArray) -> FloatArray:
    """Smooth path (M, J) along free corners (C, J) and then the straight part.

    The straight part begins at the last corner. Rounding is finer where it would not be free.
    """
    lower, upper = space.robot.lower, space.robot.upper
    step = _ROUNDING
    while step >= _JOINT_STEP:
        dense = _dense(corners, step)
        path = _b_spline(np.concatenate([dense, straight[1:]]))
        # The straight part was checked already, without the target; the rest is checked here.
        unchecked = path[: 2 * (len(dense) - 1)]
        within = (path >= lower) & (path <= upper)
        if space.free(_dense(unchecked)) and within.all():
            return path
        step /= 2
    return np.concatenate([_dense(corners), straight[1:]])


def _b_spline(control: FloatArray) -> FloatArray:
    """Points (2 M - 1, J), two a piece, of the uniform cubic B-spline of control points (M, J).

    Both ends are interpolated.
    """
    before = 2 * control[0] - control[1]
    after = 2 * control[-1] - control[-2]
    P = np.concatenate([[before], control, [after]])
    out = np.empty((2 * len(control) - 1, control.shape[1]))
    out[::2] = (P[:-2] + 4 * P[1:-1] + P[2:]) / 6
    out[1::2] = (P[:-3] + 23 * (P[1:-2] + P[2:-1]) + P[3:]) / 48
    return out
