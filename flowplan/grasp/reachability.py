"""Inverse kinematics and clearance of many contacts carried along a motion.

All candidates are followed at once, at a few times of the motion: each time starts from the joints
of the one before, and a jump to another branch of the inverse kinematics ends the path.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import angle_between, exp_so3, log_so3, pose, transform
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.collision.distance_field import DistanceField
    from flowplan.robot import Robot
    from flowplan.robot.gripper import Gripper

_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Rotation by 180 degrees about the approach axis: the same contact with another arm posture."""
_WIDTH_STEP = 0.005
"""Step that openings are rounded to for the gripper's surface, meters."""
_SURFACE_SPACING = 0.025
"""Distance between points on the gripper's surface, meters."""
_MISS_POSITION = 0.01
"""Position error of an inverse kinematics solution that the optimizer will correct, meters."""
_MISS_ROTATION = 0.2
"""Rotation error that it will correct, radians."""


@dataclass(frozen=True)
class RankOptions:
    """Requirements on a contact along the motion, and effort to meet them."""

    times: Annotated[int, Interval(2, 1000)] = 9
    """Number of times of the motion that are checked, including the first and the last."""
    slip_factor: Annotated[float, Interval(0.1, 100)] = 1.5
    """A contact is rejected if its slip exceeds this many times AttachmentOptions.max_slip. Above
    1, because the slip is estimated from few points here."""
    jump: Annotated[float, Interval(1e-3, 6.3)] = 1.5
    """Largest joint motion between consecutive times, radians."""
    restarts: Annotated[int, Interval(0, 100)] = 2
    """Further attempts for contacts that fail: first with the hand turned by 180 degrees, then from
    a random configuration, and so on."""
    enough: Annotated[int, Interval(1, 10_000)] = 30
    """Number of passing contacts from which the others get no further attempts."""
    penetration: Annotated[float, Interval(0, 0.1)] = 0.005
    """Tolerated depth inside an obstacle, meters: half a voxel of the distance field."""
    comfortable: Annotated[float, Interval(1e-4, 1)] = 0.03
    """Clearance above which more does not raise the score, meters."""
    limit_margin: Annotated[float, Interval(1e-3, 6.3)] = 0.3
    """Distance to the nearest joint limit above which more does not raise the score, radians."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class Followed:
    """G candidates followed along T' times.

    Attributes:
        X: (G, T', 4, 4) tool poses.
        q: (G, T', J) joint positions.
        ok: (G, T') True while inverse kinematics has tracked the path up to this time.
        clearance: (G, T') distance to the obstacles, meters; inf if not ok.
    """

    X: FloatArray
    q: FloatArray
    ok: NDArray[np.bool_]
    clearance: FloatArray

    def passes(self, options: RankOptions) -> NDArray[np.bool_]:
        """(G,) True if followed to the end without penetration."""
        return self.ok.all(1) & (self.clearance.min(1) > -options.penetration)

    def improved(self, rows: NDArray[np.int64], other: Followed) -> Followed:
        """With `rows` replaced by those of `other` that get farther, or as far with more room."""
        better = other._progress() > self._progress()[rows]
        out = {f.name: getattr(self, f.name).copy() for f in fields(self)}
        for name, value in out.items():
            value[rows[better]] = getattr(other, name)[better]
        return Followed(**out)

    def _progress(self) -> FloatArray:
        """(G,) number of times reached, plus less than one for the smallest clearance."""
        return self.ok.sum(-1) + 0.5 * np.tanh(self.clearance.min(-1))

    def limit_margin(self, robot: Robot) -> FloatArray:
        """(G,) smallest distance to a joint limit along the followed path, rad or m; else 0."""
        margin = np.minimum(self.q - robot.lower, robot.upper - self.q).min(-1)
        margin = np.where(self.ok, margin, np.inf).min(1)
        return np.where(np.isfinite(margin), margin, 0.0)


def follow(
    robot: Robot,
    carried: FloatArray,
    widths: FloatArray,
    free_rotation: NDArray[np.bool_],
    field: DistanceField,
    options: RankOptions,
    seed: int,
) -> Followed:
    """Follow the carried poses (G, T', 4, 4) of all candidates.

    A contact with free rotation keeps its first orientation, or turns with the patch by half or
    fully. The first of these that reaches everything without penetration counts, else the one
    that gets the farthest.

    Args:
        robot: The robot.
        carried: (G, T', 4, 4) tool poses that move rigidly with the patch.
        widths: (G,) finger openings, meters.
        free_rotation: (G,) True if the hand may turn relative to the patch.
        field: Distances to the obstacles.
        options: See RankOptions.
        seed: Random seed.
    """
    steady = _partly_turned(carried, 0.0)
    first = np.where(free_rotation[:, None, None, None], steady, carried)
    best = _follow_from_home(robot, first, widths, field, options, seed)
    for share in (0.5, 1.0):
        passed = best.passes(options)
        # The first pose is the same however the hand turns: without it, turning cannot help.
        again = np.flatnonzero(free_rotation & ~passed & best.ok[:, 0])
        if len(again) and passed.sum() < options.enough:
            once = replace(options, restarts=0)
            X = _partly_turned(carried[again], share)
            other = _follow_from_home(robot, X, widths[again], field, once, seed)
            best = best.improved(again, other)
    return best


def _partly_turned(X: FloatArray, share: float) -> FloatArray:
    """Poses X (G, T', 4, 4) with a share of their rotation since the first, about the same axis."""
    first = X[:, :1, :3, :3]
    turn = log_so3(X[..., :3, :3] @ np.swapaxes(first, -1, -2))
    return pose(exp_so3(share * turn) @ first, X[..., :3, 3])


def _follow_from_home(
    robot: Robot,
    X: FloatArray,
    widths: FloatArray,
    field: DistanceField,
    options: RankOptions,
    seed: int,
) -> Followed:
    """Follow X (G, T', 4, 4) from home, then with the hand turned, then from other joints."""
    rng = np.random.default_rng(seed)
    home = np.broadcast_to(robot.home, (len(X), len(robot.home)))
    q, ok = _track(robot, X, home, options.jump, seed)
    best = Followed(X, q, ok, _clearance(robot, widths, X, q, ok, field))
    for attempt in range(options.restarts):
        turned = attempt % 2 == 0
        passed = best.passes(options)
        # Only turning the hand can make a first pose reachable: random joints were tried already.
        again = np.flatnonzero(~passed & (turned | best.ok[:, 0]))
        if not len(again) or passed.sum() >= options.enough:
            break
        if turned:
            X_again, start = X[again] @ _HALF_TURN, home[again]
        else:
            size = (len(again), home.shape[1])
            X_again, start = X[again], rng.uniform(robot.lower, robot.upper, size)
        q, ok = _track(robot, X_again, start, options.jump, seed)
        clearance = _clearance(robot, widths[again], X_again, q, ok, field)
        best = best.improved(again, Followed(X_again, q, ok, clearance))
    return best


def _track(
    robot: Robot, X: FloatArray, start: FloatArray, jump: float, seed: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Inverse kinematics along X (G, T', 4, 4), each time near the joints of the one before.

    Returns:
        Joint positions (G, T', J), and ok (G, T'): True while the path has been tracked so far.
    """
    q = np.zeros((*X.shape[:2], start.shape[1]))
    ok = np.zeros(X.shape[:2], bool)
    q[:, 0], ok[:, 0] = robot.inverse_kinematics(X[:, 0], seed=seed, attempts=8, q_near=start)
    for t in range(1, X.shape[1]):
        q[:, t] = q[:, t - 1]
        alive = np.flatnonzero(ok[:, t - 1])  # a lost path stays lost: it needs another start
        if not len(alive):
            break
        before, target = q[alive, t - 1], X[alive, t]
        solved, exact = robot.inverse_kinematics(target, seed=seed, attempts=1, q_near=before)
        # A small miss counts as reached, a jump to another branch does not.
        reached = exact.copy()
        miss = np.flatnonzero(~exact)
        if len(miss):
            reached[miss] = _nearly_reached(robot, solved[miss], target[miss])
        reached &= np.abs(solved - before).max(1) < jump
        q[alive[reached], t], ok[alive, t] = solved[reached], reached
    return q, ok


def _nearly_reached(robot: Robot, q: FloatArray, X: FloatArray) -> NDArray[np.bool_]:
    """(n,) True if the tool at joints q (n, J) misses X (n, 4, 4) by little."""
    X_tool = robot.tool_pose(q)
    near = np.linalg.norm(X_tool[:, :3, 3] - X[:, :3, 3], axis=1) < _MISS_POSITION
    near &= angle_between(X_tool[:, :3, :3], X[:, :3, :3]) < _MISS_ROTATION
    return near


def _clearance(
    robot: Robot,
    widths: FloatArray,
    X: FloatArray,
    q: FloatArray,
    ok: NDArray[np.bool_],
    field: DistanceField,
) -> FloatArray:
    """(G, T') distance between obstacles and robot, meters; inf if not ok.

    The gripper is represented by points on its surface, the moving links by their spheres.
    """
    out = np.full(ok.shape, np.inf)
    # The gripper's surface, for all contacts of one opening at once.
    steps = (widths / _WIDTH_STEP).round()
    for step in np.unique(steps):
        surface = _gripper_surface(robot.gripper, float(step * _WIDTH_STEP))  # (P, 3)
        g, t = np.nonzero(ok & (steps == step)[:, None])
        out[g, t] = field.query(transform(X[g, t], surface))[0].min(-1)
    # The arm's spheres.
    arm = _arm_spheres(robot)
    g, t = np.nonzero(ok)
    if len(g) and len(arm):
        centers = robot.spheres(q[g, t])[:, arm]
        distance = field.query(centers)[0] - robot.sphere_radius[arm]
        out[g, t] = np.minimum(out[g, t], distance.min(-1))
    return out


def _arm_spheres(robot: Robot) -> NDArray[np.int64]:
    """Indices of spheres on links that move, without the gripper: its boxes fit more tightly."""
    gripper = set(robot.gripper.finger_links) | set(robot.gripper.hand_links)
    on_gripper = np.array([robot.link_names[i] in gripper for i in robot.sphere_link])
    two = robot.spheres(np.stack([robot.home, robot.home + 0.1]))
    moves = np.linalg.norm(two[1] - two[0], axis=-1) > 1e-9
    return np.flatnonzero(moves & ~on_gripper)


def _gripper_surface(gripper: Gripper, width: float) -> FloatArray:
    """(P, 3) points on the gripper's boxes at an opening, tool frame, meters."""
    X, extents = gripper.boxes(width)
    out = []
    for X_box, size in zip(X, extents, strict=True):
        axes = [np.linspace(-0.5, 0.5, int(np.ceil(s / _SURFACE_SPACING)) + 1) for s in size]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        shell = grid[np.abs(grid).max(1) > 0.5 - 1e-9]
        out.append(transform(X_box, shell * size))
    return np.concatenate(out)
