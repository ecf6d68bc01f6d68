"""Collision costs of sphere-covered bodies: hinges on the distance to obstacles and between links, swept over time.

A sphere k with centre c and radius r that should keep a margin m costs max(0, m - (d(c) - r))^2, with d the distance
field, and likewise a pair of spheres with their mutual distance (CHOMP's and cuRobo's model). Since d changes by no
more than a point moves, a sphere at distances d_0, d_1 at two neighbouring times that moves by L between them cannot
come nearer than (d_0 + d_1 - L) / 2: only where that is below the margin is the way between looked at too.

The derivative of a distance with normal n at a point c of a link is a wrench on the tool Jacobian,
n . dc/dq_j = [n, (c - x) x n] . J_j for every joint j that carries the link, x the tool origin: no Jacobian of any
sphere is ever formed, and only those few that are near something are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import cross, transform
from flowplan.optimizers.protocol import TrackOptions, TrackProblem
from flowplan.robot import Robot
from flowplan.utils.checks import FloatArray

_SWEPT_STEP, _LONG_STEP = 0.01, 0.04
"""Metres between neighbouring times below which the two ends, or they and the midpoint, speak for the way between."""


@dataclass(frozen=True, eq=False)
class Arm:
    """Where S x T configurations put what matters.

    Attributes:
        X: (S, T, 4, 4) tool poses.
        J: (S, T, 6, J) tool Jacobians, world-aligned.
        centers: (S, T, K, 3) spheres of robot and held object, world frame, metres.
    """

    X: FloatArray
    J: FloatArray
    centers: FloatArray


@dataclass(frozen=True, eq=False)
class Rows:
    """M scalar residuals, each with a derivative at one time, or at two neighbouring ones.

    Attributes:
        at: (M,) flat index s T + t of the first.
        residual: (M,).
        row: (M, J) derivative with respect to q[s, t].
        following: (M, J) derivative with respect to q[s, t + 1], or None.
    """

    at: NDArray[np.int64]
    residual: FloatArray
    row: FloatArray
    following: FloatArray | None = None


class Body:
    """The spheres of robot and held object, which joints carry them, and how far they must keep from what."""

    def __init__(self, problem: TrackProblem, options: TrackOptions) -> None:
        robot, held = problem.robot, problem.held_spheres
        self.robot, self.field, self.width = robot, problem.field, problem.width
        self.held = held[:, :3]
        self.count = len(robot.sphere_radius)
        self.radius = np.concatenate([robot.sphere_radius, held[:, 3]])
        self.carried = np.concatenate(
            [carried_spheres(robot), np.ones((len(held), len(robot.joint_names)), bool)]
        )
        self.first, self.second, self.reach = _pair_table(robot)
        self._add_held(held[:, 3])
        self.pair_limit = np.where(
            self.reach > 0, (self.reach + options.self_margin) ** 2, -1
        ).astype(np.float32)
        self.self_margin = options.self_margin
        self.tolerance = options.clearance_tolerance
        self.margin = self._margins(problem, options.margin)

    def _add_held(self, radius: FloatArray) -> None:
        # The held object's spheres join the second ones; they may not touch what is not fixed to the tool.
        arm = np.logical_not(self.carried[self.first].all(axis=1))
        reach = np.where(arm[:, None], self.radius[self.first][:, None] + radius, -np.inf).astype(
            np.float32
        )
        self.second = np.concatenate([self.second, self.count + np.arange(len(radius))])
        self.reach = np.concatenate([self.reach, reach], axis=1)

    def arm(self, q: FloatArray) -> Arm:
        """The state of trajectories q (S, T, J)."""
        S, T, J = q.shape
        flat = q.reshape(-1, J)
        X, jacobian = self.robot.tool_jacobian(flat)
        centers = self.robot.spheres(flat, self.width)
        if len(self.held):
            centers = np.concatenate([centers, transform(X, self.held)], axis=1)
        return Arm(
            X.reshape(S, T, 4, 4), jacobian.reshape(S, T, 6, J), centers.reshape(S, T, -1, 3)
        )

    def _margins(self, problem: TrackProblem, margin: float) -> FloatArray:
        """(T, K) margins; what rides with the tool goes where the flow takes it and is not asked to come less near."""
        attachment, robot = problem.attachment, problem.robot
        # What no joint moves (the base on its support) has nothing to avoid.
        out = np.where(self.carried.any(axis=1), margin, -np.inf) * np.ones((len(problem.times), 1))
        fixed = self.carried.all(axis=1)
        some = robot.home[None]
        X = robot.tool_pose(some)
        local = np.concatenate(
            [transform(np.linalg.inv(X[0]), robot.spheres(some, self.width)[0]), self.held]
        )[fixed]
        distance = (
            self.field.distance(transform(attachment.X_world_tool, local)) - self.radius[fixed]
        )
        # Where the flow leaves a rotation free the hand may turn out of the way; the grasp itself is given, though.
        given = np.linalg.eigvalsh(attachment.K)[:, 0] > 0
        given[0] = True
        out[:, fixed] = np.where(given[:, None], np.minimum(margin, distance - 1e-3), margin)
        return out

    def obstacle_rows(self, arm: Arm) -> list[Rows]:
        """Residuals of spheres near obstacles, at the times and on the straight way between them."""
        T = arm.centers.shape[1]
        bound = self.field.lower_bound(arm.centers) - self.radius
        s, t, k = np.nonzero(bound < self.margin)
        out = [self._obstacle(arm, s * T + t, k, arm.centers[s, t, k], self.margin[t, k])]
        step = arm.centers[:, 1:] - arm.centers[:, :-1]
        length = np.sqrt(np.einsum("stkc,stkc->stk", step, step))
        margin = np.minimum(self.margin[1:], self.margin[:-1])
        swept = (0.5 * (bound[:, 1:] + bound[:, :-1] - length) < margin) & (length > _SWEPT_STEP)
        s, t, k = np.nonzero(swept)
        if len(s):
            for share in (0.5,) if length[swept].max() < _LONG_STEP else (0.25, 0.5, 0.75):
                points = arm.centers[s, t, k] + share * step[s, t, k]
                out.append(self._obstacle(arm, s * T + t, k, points, margin[t, k], share))
        return out

    def _obstacle(
        self,
        arm: Arm,
        at: NDArray[np.int64],
        k: NDArray[np.int64],
        points: FloatArray,
        margin: FloatArray,
        share: float = 0.0,
    ) -> Rows:
        distance, normal = self.field.query(points)
        residual = (margin - (distance - self.radius[k])) / self.tolerance
        active = residual > 0
        at, k, normal = at[active], k[active], normal[active] * (-1 / self.tolerance)
        row = (1 - share) * self._row(arm, at, k, normal)
        return Rows(
            at, residual[active], row, share * self._row(arm, at + 1, k, normal) if share else None
        )

    def self_rows(self, arm: Arm) -> Rows:
        """Residuals of pairs of spheres near each other."""
        centers = arm.centers.reshape(-1, *arm.centers.shape[2:])
        # Sought along one axis, which is several times faster than along three.
        near = np.flatnonzero(_squares(centers, self.first, self.second) < self.pair_limit)
        at, pair = np.divmod(near, self.reach.size)
        a, b = self.first[pair // len(self.second)], self.second[pair % len(self.second)]
        gap = centers[at, a] - centers[at, b]
        length = np.sqrt(np.einsum("mc,mc->m", gap, gap))
        residual = (self.self_margin + self.radius[a] + self.radius[b] - length) / self.tolerance
        active = residual > 0
        at, a, b = at[active], a[active], b[active]
        normal = gap[active] / (-self.tolerance * np.maximum(length[active], 1e-9))[:, None]
        return Rows(
            at, residual[active], self._row(arm, at, a, normal) - self._row(arm, at, b, normal)
        )

    def _row(
        self, arm: Arm, at: NDArray[np.int64], k: NDArray[np.int64], normal: FloatArray
    ) -> FloatArray:
        J = arm.J.reshape(-1, *arm.J.shape[2:])
        X = arm.X.reshape(-1, 4, 4)
        centers = arm.centers.reshape(-1, *arm.centers.shape[2:])
        wrench = np.concatenate([normal, cross(centers[at, k] - X[at, :3, 3], normal)], axis=1)
        row: FloatArray = (wrench[:, None] @ J[at])[:, 0]
        row *= self.carried[k]
        return row

    def clearance(self, q: FloatArray, margins: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distances (B,) of the robot, and of what it holds, from obstacles and from itself at q (B, J), metres.

        Args:
            q: configurations.
            margins: (B, K) that are asked for there; where one is negative, the flow itself brings that sphere so near
                that it overlaps, and it is measured from there.
        """
        centers = self.arm(q[None]).centers[0]
        moving = self.carried.any(axis=1)
        distance = np.where(
            moving, self.field.distance(centers) - self.radius - np.minimum(margins, 0.0), np.inf
        )
        gap = _gaps(centers, self.first, self.second, self.reach)
        own, n = len(self.second) - len(self.held), self.count
        robot = np.minimum(_least(distance[:, :n]), _least(gap[:, :, :own]))
        return robot, np.minimum(_least(distance[:, n:]), _least(gap[:, :, own:]))


def self_clearance(robot: Robot, q: FloatArray) -> FloatArray:
    """Least distance (B,) in metres between the robot's own links at q (B, J), hand wide open."""
    return _least(_gaps(robot.spheres(q), *_pair_table(robot)))


def _squares(
    centers: FloatArray, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Squared distances (B, P1, P2) of the spheres `first` from those of `second` at centres (B, K, 3).

    One product: [-2 a, |a|^2, 1] . [b, 1, |b|^2]. 32 bits tell a hundredth of a millimetre at arm's length.
    """
    c = (centers - centers[0, 0]).astype(np.float32)
    square = np.einsum("bkc,bkc->bk", c, c)[..., None]
    one = np.ones_like(square)
    a = np.concatenate([-2 * c, square, one], axis=2)[:, first]
    b = np.concatenate([c, one, square], axis=2)[:, second]
    return a @ b.transpose(0, 2, 1)


def _gaps(
    centers: FloatArray,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    reach: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Distances (B, P1, P2) between surfaces; infinite for pairs that are not checked."""
    gap = _squares(centers, first, second)
    np.maximum(gap, 0.0, out=gap)
    np.sqrt(gap, out=gap)
    gap -= reach
    return gap


def _least(values: NDArray[np.floating]) -> FloatArray:
    return values.min(axis=tuple(range(1, values.ndim)), initial=np.inf).astype(float)


@lru_cache(maxsize=16)
def carried_spheres(robot: Robot) -> NDArray[np.bool_]:
    """(K, J): does joint j move sphere k?"""
    above = {joint.child: joint for joint in robot.joints}
    out = np.zeros((len(robot.sphere_link), len(robot.joint_names)), bool)
    for k, index in enumerate(robot.sphere_link):
        link = robot.link_names[index]
        while link in above:
            joint = above[link]
            if joint.name in robot.joint_names:
                out[k, robot.joint_names.index(joint.name)] = True
            link = joint.parent
    return out


@lru_cache(maxsize=16)
def _pair_table(robot: Robot) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The robot's spheres (P1,) and (P2,) to check against each other, and their centres' distance (P1, P2) at contact.

    The distance is -inf where a pair is not checked. All spheres that are not fixed to the tool are among the first.
    """
    carried = carried_spheres(robot)
    # The one nearer to the base first: then each sphere is on one side mostly, and the table is small.
    pairs = robot.self_pairs.reshape(-1, 2)
    outer = carried.sum(axis=1)[pairs]
    pairs = np.where((outer[:, 0] > outer[:, 1])[:, None], pairs[:, ::-1], pairs)
    first = np.union1d(pairs[:, 0], np.flatnonzero(~carried.all(axis=1)))
    second = np.unique(pairs[:, 1])
    reach = np.full((len(first), len(second)), -np.inf, np.float32)
    row, column = np.searchsorted(first, pairs[:, 0]), np.searchsorted(second, pairs[:, 1])
    reach[row, column] = robot.sphere_radius[pairs].sum(axis=1)
    return first, second, reach
