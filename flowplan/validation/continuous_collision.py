"""Continuous collision checking along a path that is linear in the joints between samples.

Let d_a and d_b be the distances of a pair of bodies at two instants, and L an upper bound on the
motion of any of their points relative to each other in between. The pair is then never nearer than
(d_a + d_b - L) / 2. Intervals for which this bound does not exceed the threshold are bisected
(Schwarzer, Saha and Latombe, "Adaptive dynamic collision checking for single and multiple
articulated robots in complex environments", T-RO 2005). No wall is thin enough to be missed between
two instants, and pairs far apart cost a single bound. With r_j the largest distance of a body's
points from the axis of joint j, and s_j the travel of that joint in the interval,

    L = sum_j u_j s_j,
    u_j = (r_j(a) + r_j(b) + sum_{m after j} u_m s_m) / 2  >=  r_j(anywhere in between),

as only joints after j move the body relative to that axis. Joints that carry both bodies of a pair
do not count. A body with a path of its own adds the way of its center, and the angle that it turns
times its radius.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import coal
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body, contained, signed_distance

_AT_WORLD = coal.Transform3s()


class ClosestPair(NamedTuple):
    """Smallest distance of any pair (m), with its fractional sample x on the path and the names."""

    distance: float
    x: float
    names: tuple[str, ...]


class Violation(NamedTuple):
    """Smallest distance of a pair (m) at or below its threshold (m), with sample x and names."""

    distance: float
    x: float
    names: tuple[str, str]
    threshold: float


@dataclass(frozen=True, eq=False)
class MovingBodies:
    """Bodies fixed to joints of a robot.

    Attributes:
        names: B link names; a link may have several bodies.
        bodies: B bodies.
        joint: (B,) index of the joint that carries each; 0 is the world.
        X_joint_body: (B, 4, 4) poses.
    """

    names: tuple[str, ...]
    bodies: tuple[Body, ...]
    joint: NDArray[np.int64]
    X_joint_body: FloatArray


class KinematicTree(Protocol):
    """A robot's n joints, parents before children; joint 0 is the world.

    Attributes:
        supports: (n, n) True at [j, m] if joint m carries what is fixed to joint j.
        axis: (n, 3) unit axes in the joints' frames.
        revolute: (n,) True if a joint turns, False if it slides.
        length: (n,) meters from the parent joint to each joint.
    """

    supports: NDArray[np.bool_]
    axis: FloatArray
    revolute: NDArray[np.bool_]
    length: FloatArray

    def joint_poses(self, positions: FloatArray) -> FloatArray:
        """X_world_joint (m, n, 4, 4) at positions (m, n)."""


@dataclass(frozen=True, eq=False)
class JointPath:
    """Joint motion over the sample index.

    Attributes:
        positions: (S, n) positions of all joints, rad or m.
        travel: (S, n) accumulated absolute travel of each joint.
    """

    positions: FloatArray
    travel: FloatArray

    def at(self, values: FloatArray, x: FloatArray) -> FloatArray:
        """Rows of `values` (S, n) at fractional samples x (m,), linear in between."""
        low = np.clip(x.astype(int), 0, max(len(values) - 2, 0))
        high = np.minimum(low + 1, len(values) - 1)
        f = (x - low)[:, None]
        return values[low] * (1 - f) + values[high] * f


class BodyPath:
    """Motion of a rigid body over the sample index: its center on lines, its turns by slerp.

    Args:
        X_world_body: (S, 4, 4) poses at the samples.
        body: The body, in its own frame.
    """

    def __init__(self, X_world_body: FloatArray, body: Body) -> None:
        self.own_center = 0.5 * (body.points.min(0) + body.points.max(0))
        self.radius = float(np.linalg.norm(body.points - self.own_center, axis=1).max())
        R, t = X_world_body[:, :3, :3], X_world_body[:, :3, 3]
        self.index = np.arange(len(X_world_body), dtype=float)
        self.center = R @ self.own_center + t  # (S, 3)
        rotation = Rotation.from_matrix(R)
        self.turns = Slerp(self.index, rotation)
        # No point moves farther than the center, and the angle times the radius about it.
        way = np.linalg.norm(np.diff(self.center, axis=0), axis=1)
        angle = (rotation[:-1].inv() * rotation[1:]).magnitude()
        self.travel = np.concatenate([[0.0], np.cumsum(way + angle * self.radius)])  # (S,)

    def poses(self, x: FloatArray) -> FloatArray:
        """X_world_body (m, 4, 4) at fractional samples x (m,)."""
        X = np.tile(np.eye(4), (len(x), 1, 1))
        X[:, :3, :3] = self.turns(x).as_matrix()
        center = np.stack([np.interp(x, self.index, c) for c in self.center.T], axis=1)
        X[:, :3, 3] = center - X[:, :3, :3] @ self.own_center
        return X

    def travel_at(self, x: FloatArray) -> FloatArray:
        """Bound (m,) in meters of the motion of any point up to fractional samples x (m,)."""
        return np.interp(x, self.index, self.travel)


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of bodies to keep apart.

    Attributes:
        a: (P,) index of a moving body.
        b: (P,) index of another moving body, or B + index of an obstacle.
        threshold: (P,) meters that the distance must exceed.
        counts: (P,) True if the pair's distance is part of the clearance.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    threshold: FloatArray
    counts: NDArray[np.bool_]


class Sweep:
    """Continuous check of one stretch of a path among the obstacles of one phase.

    Bodies are placed at instants (fractional samples) added as needed. For each instant and pair,
    `bound` is a lower bound of the distance, and `exact` tells whether it is the distance itself.

    Args:
        tree: The robot's joints.
        path: Its motion.
        moving: B bodies that move, with the joints or on paths of their own.
        paths: Paths of the last of them, which the joints do not move.
        obstacles: (name, body) of what stands in the world.
        pairs: Pairs to keep apart.
        resolution: Meters of relative motion below which an interval is not bisected if the pair
            is apart at both ends.
    """

    def __init__(
        self,
        tree: KinematicTree,
        path: JointPath,
        moving: MovingBodies,
        obstacles: tuple[tuple[str, Body], ...],
        pairs: Pairs,
        resolution: float,
        paths: tuple[BodyPath, ...] = (),
    ) -> None:
        self.tree = tree
        self.paths = paths
        self.path = path
        self.moving = moving
        self.pairs = pairs
        self.resolution = resolution
        self.bodies = (*moving.bodies, *(body for _, body in obstacles))
        self.names = (*moving.names, *(name for name, _ in obstacles))
        self.count = len(moving.bodies)

        # Boxes of all bodies, and spheres about the boxes' centers of the moving ones.
        corners = [[b.points.min(0), b.points.max(0)] for b in self.bodies]
        boxes = np.array(corners).reshape(-1, 2, 3)
        own = boxes[: self.count]
        self.center, self.half = own.mean(1), 0.5 * np.ptp(own, axis=1)
        radii = [
            np.linalg.norm(body.points - center, axis=1).max()
            for body, center in zip(moving.bodies, self.center, strict=True)
        ]
        self.radius = np.array(radii)
        self.fixed_boxes = boxes[self.count :]

        # Joints that move one of two moving bodies relative to the other carry only that one.
        self.support = tree.supports[moving.joint]  # (B, n)
        self.within = np.flatnonzero(pairs.b < self.count)
        of_a = self.support[pairs.a[self.within]]
        of_b = self.support[pairs.b[self.within]]
        self.only_a, self.only_b = of_a & ~of_b, of_b & ~of_a

        # Instants, the bodies' poses and distances from joint axes there, and distances of pairs.
        self.x = np.zeros(0)
        self.pose = np.zeros((0, self.count, 4, 4))
        self.reach = np.zeros((0, self.count, len(tree.revolute)))
        self.bound = np.zeros((0, len(pairs.a)))
        self.exact = np.zeros((0, len(pairs.a)), bool)
        self.transforms: dict[tuple[int, int], coal.Transform3s] = {}
        self.violations: dict[int, Violation] = {}
        self.checked = 0

    def run(self, start: float, end: float, spacing: float) -> None:
        """Check fractional samples `start` to `end`.

        Args:
            start, end: Fractional samples.
            spacing: Meters that no body moves farther than between the first instants.
        """
        first = self._add(self._first_instants(start, end, spacing))
        if not len(self.pairs.a):
            return
        self._check_containment(int(first[0]))

        # Intervals [a, b] with the pairs that are not settled in them, bisected until none is left.
        a, b = first[:-1], first[1:]
        active = np.ones((len(a), len(self.pairs.a)), bool)
        while len(a):
            motion = self._motion(a, b)
            needed = motion + 2 * self.pairs.threshold
            unsettled = active & ~(self.bound[a] + self.bound[b] > needed)
            for i, p in np.argwhere(unsettled):
                sufficient = 0.5 * needed[i, p] + 1e-9
                self._check(a[i], p, sufficient)
                self._check(b[i], p, sufficient)
            unsettled &= ~(self.bound[a] + self.bound[b] > needed) & (motion > self.resolution)
            unsettled[:, list(self.violations)] = False
            split = np.flatnonzero(unsettled.any(axis=1))
            middle = self._add(0.5 * (self.x[a[split]] + self.x[b[split]]))
            a, b = np.concatenate([a[split], middle]), np.concatenate([middle, b[split]])
            active = unsettled[np.concatenate([split, split])]

        # The worst of the first instants for each violation.
        for p in list(self.violations):
            for instant in first:
                worst = self.violations[p].distance
                if self._measure(instant, p, worst) < worst:
                    self._record_violation(p, instant)

    def nearest(self, horizon: float) -> ClosestPair:
        """Closest pair at the instants so far; the horizon and no names if nothing is closer."""
        best = ClosestPair(horizon, float(self.x[0]), ())
        bound = np.where(self.pairs.counts, self.bound, np.inf)
        known = np.where(self.exact, bound, np.inf)
        if known.size and known.min() < horizon:
            best = self._pair_at(*np.unravel_index(np.argmin(known), known.shape))
        # Bounds below it, the lowest first, until they exceed the best distance.
        candidates = np.argwhere((bound < best.distance) & ~self.exact)
        for instant, p in candidates[np.argsort(bound[tuple(candidates.T)])]:
            if bound[instant, p] >= best.distance:
                break
            if self._measure(instant, p, best.distance) < best.distance:
                best = self._pair_at(instant, p)
        return best

    def _pair_at(self, instant: int | np.intp, p: int | np.intp) -> ClosestPair:
        distance = float(self.bound[instant, p])
        return ClosestPair(distance, float(self.x[instant]), self._pair_names(p))

    def _pair_names(self, p: int | np.intp) -> tuple[str, str]:
        return self.names[self.pairs.a[p]], self.names[self.pairs.b[p]]

    def _check_containment(self, instant: int) -> None:
        """Record pairs one of which lies inside the other's surface.

        Checked at the first instant only: later, it would have to pass through the surface.
        """
        concave = np.array([body.surface is not None for body in self.bodies])
        boxes_overlap = np.isneginf(self.bound[instant])
        suspect = (concave[self.pairs.a] | concave[self.pairs.b]) & boxes_overlap
        for p in np.flatnonzero(suspect).tolist():
            i, j = self.pairs.a[p], self.pairs.b[p]
            a, X_a = self.bodies[i], self._transform(instant, i)
            b, X_b = self.bodies[j], self._transform(instant, j)
            if not contained(a, X_a, b, X_b):
                continue
            self.bound[instant, p] = -abs(signed_distance(a, X_a, b, X_b, np.inf))
            self.exact[instant, p] = True
            if not self.bound[instant, p] > self.pairs.threshold[p]:
                self._record_violation(p, instant)

    def _first_instants(self, start: float, end: float, spacing: float) -> FloatArray:
        """Fractional samples between which no body moves more than `spacing` meters."""
        # A bound on motion without kinematics: the travel of each joint times the longest arm that
        # may hang on it, the sum of all lengths from that joint to the body's farthest point.
        support = self.support  # (B, n)
        lengths = support * self.tree.length
        beyond = np.cumsum(lengths[:, ::-1], axis=1)[:, ::-1] - lengths
        offset = np.linalg.norm(self.moving.X_joint_body[:, :3, 3], axis=1)
        extent = offset + np.linalg.norm(self.center, axis=1)
        arms = np.where(support, (extent + self.radius)[:, None] + beyond, 0.0)
        arm = arms.max(axis=0, initial=0.0)  # (n,)
        total = self.path.travel @ np.where(self.tree.revolute, arm, 1.0)  # (S,)
        total = sum((own.travel for own in self.paths), total)

        # Equal steps of that bound. Any sample of a stretch at rest will do for its total.
        index = np.arange(len(total), dtype=float)
        low, high = np.interp([start, end], index, total)
        steps = np.linspace(low, high, 2 + int((high - low) / spacing))[1:-1]
        inner = np.clip(np.interp(steps, total, index), start, end)
        return np.concatenate([[start], inner, [end]])

    def _add(self, x: FloatArray) -> NDArray[np.int64]:
        """Place every body at fractional samples x (m,).

        Returns:
            Indices (m,) of the new instants.
        """
        joints = self.tree.joint_poses(self.path.at(self.path.positions, x))  # (m, n, 4, 4)
        pose = joints[:, self.moving.joint] @ self.moving.X_joint_body  # (m, B, 4, 4)
        first_own = self.count - len(self.paths)
        for body, own in enumerate(self.paths, first_own):
            pose[:, body] = own.poses(x)

        # World-aligned boxes of all bodies; their distance is a first bound.
        R = pose[..., :3, :3]
        center = (R @ self.center[..., None])[..., 0] + pose[..., :3, 3]  # (m, B, 3)
        half = (np.abs(R) @ self.half[..., None])[..., 0]
        fixed = np.broadcast_to(self.fixed_boxes, (len(x), *self.fixed_boxes.shape))
        low = np.concatenate([center - half, fixed[:, :, 0]], axis=1)
        high = np.concatenate([center + half, fixed[:, :, 1]], axis=1)
        a, b = self.pairs.a, self.pairs.b
        apart = np.maximum(np.maximum(low[:, a] - high[:, b], low[:, b] - high[:, a]), 0.0)
        bound = np.sqrt(np.einsum("mpc,mpc->mp", apart, apart))
        bound[bound == 0] = -np.inf  # boxes that overlap give no bound

        # Largest distance of each body's points from each joint's axis.
        offset = center[:, :, None] - joints[:, None, :, :3, 3]  # (m, B, n, 3)
        axis = (joints[..., :3, :3] @ self.tree.axis[..., None])[..., 0]  # (m, n, 3)
        along = np.einsum("mbjc,mjc->mbj", offset, axis)
        square = np.einsum("mbjc,mbjc->mbj", offset, offset) - along**2
        reach = np.sqrt(np.maximum(square, 0.0)) + self.radius[:, None]

        first = len(self.x)
        self.x = np.concatenate([self.x, x])
        self.pose = np.concatenate([self.pose, pose])
        self.reach = np.concatenate([self.reach, reach])
        self.bound = np.concatenate([self.bound, bound])
        self.exact = np.concatenate([self.exact, np.zeros(bound.shape, bool)])
        return np.arange(first, len(self.x))

    def _motion(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> FloatArray:
        """Upper bound L (m, P) of the pairs' relative motion between instants a and b (m,)."""
        before = self.path.at(self.path.travel, self.x[a])
        travel = self.path.at(self.path.travel, self.x[b]) - before  # (m, n)
        mean_reach = 0.5 * (self.reach[a] + self.reach[b])  # (m, B, n)

        # Motion of each body due to each joint, from the last joint to the first, as joints further
        # out change the distance from this one's axis.
        total = np.zeros((len(a), self.count))
        each = np.zeros((len(a), self.count, travel.shape[1]))
        for j in np.flatnonzero(travel.max(axis=0) > 0)[::-1]:
            u = mean_reach[:, :, j] + 0.5 * total if self.tree.revolute[j] else 1.0
            each[:, :, j] = self.support[:, j] * u * travel[:, j, None]
            total += each[:, :, j]

        # Pairs: body against obstacle, or two bodies, each by the joints that carry only it.
        L = total[:, self.pairs.a]
        p = self.within
        L[:, p] = np.einsum("mpj,pj->mp", each[:, self.pairs.a[p]], self.only_a[p])
        L[:, p] += np.einsum("mpj,pj->mp", each[:, self.pairs.b[p]], self.only_b[p])
        # Bodies with paths of their own, against anything.
        for body, own in enumerate(self.paths, self.count - len(self.paths)):
            way = own.travel_at(self.x[b]) - own.travel_at(self.x[a])  # (m,)
            involved = (self.pairs.a == body) | (self.pairs.b == body)
            L[:, involved] += way[:, None]
        return L

    def only(self, pairs: NDArray[np.int64], threshold: float | None = None) -> Sweep:
        """A new sweep of some of the pairs alone, with their thresholds or with one for all."""
        kept = self.pairs
        thresholds = kept.threshold[pairs] if threshold is None else np.full(len(pairs), threshold)
        some = Pairs(kept.a[pairs], kept.b[pairs], thresholds, kept.counts[pairs])
        obstacles = tuple(zip(self.names[self.count :], self.bodies[self.count :], strict=True))
        return Sweep(
            self.tree, self.path, self.moving, obstacles, some, self.resolution, self.paths
        )

    def poses(self, body: int, x: FloatArray) -> FloatArray:
        """X_world_body (m, 4, 4) of a moving body at fractional samples x (m,)."""
        first_own = self.count - len(self.paths)
        if body >= first_own:
            return self.paths[body - first_own].poses(x)
        joints = self.tree.joint_poses(self.path.at(self.path.positions, x))
        return joints[:, self.moving.joint[body]] @ self.moving.X_joint_body[body]

    def distances(self, x: float, pairs: NDArray[np.int64], sufficient: float) -> FloatArray:
        """Distances of some pairs at a fractional sample, each cut off at `sufficient` meters."""
        (instant,) = self._add(np.array([x]))
        self._check_containment(int(instant))
        found = [self._measure(int(instant), p, sufficient) for p in pairs]
        return np.minimum(np.array(found, float), sufficient)

    def _check(self, instant: int, p: int, sufficient: float) -> None:
        """Measure a pair that has not failed yet, and record a violation."""
        if p in self.violations:
            return
        if not self._measure(instant, p, sufficient) > self.pairs.threshold[p]:
            self._record_violation(p, instant)

    def _measure(self, instant: int, p: int, sufficient: float) -> float:
        """Distance of a pair at an instant, or a lower bound of at least `sufficient`."""
        if self.exact[instant, p] or self.bound[instant, p] >= sufficient:
            return float(self.bound[instant, p])
        i, j = self.pairs.a[p], self.pairs.b[p]
        a, X_a = self.bodies[i], self._transform(instant, i)
        b, X_b = self.bodies[j], self._transform(instant, j)
        found = signed_distance(a, X_a, b, X_b, sufficient, self.pairs.threshold[p])
        both_convex = a.surface is None and b.surface is None
        self.checked += 1
        self.bound[instant, p] = found
        self.exact[instant, p] = found < sufficient or both_convex
        return found

    def _transform(self, instant: int, body: int) -> coal.Transform3s:
        """Pose of a body at an instant, cached."""
        if body >= self.count:
            return _AT_WORLD
        key = (instant, body)
        if key not in self.transforms:
            X = self.pose[instant, body]
            self.transforms[key] = coal.Transform3s(X[:3, :3], X[:3, 3])
        return self.transforms[key]

    def _record_violation(self, p: int, instant: int) -> None:
        distance, x = float(self.bound[instant, p]), float(self.x[instant])
        threshold = float(self.pairs.threshold[p])
        self.violations[p] = Violation(distance, x, self._pair_names(p), threshold)
