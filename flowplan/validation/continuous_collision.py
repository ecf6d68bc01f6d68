"""Do moving bodies ever touch? Continuous collision checking along a path that is linear in the joints between samples.

A pair of bodies whose gap is d_a at one time and d_b at a later one, and of which no point moves more than L relative
to the other in between, never comes nearer than (d_a + d_b - L) / 2. Where that settles nothing the interval is
halved (Schwarzer, Saha and Latombe, "Adaptive dynamic collision checking for single and multiple articulated robots in
complex environments", T-RO 2005). Nothing slips through a thin wall between two looks, and pairs far apart cost one.
With r_j the largest distance of a body's points from the axis of joint j, and s_j that joint's travel in the interval,

    L = sum_j u_j s_j,    u_j = (r_j(a) + r_j(b) + sum_{m after j} u_m s_m) / 2  >=  r_j(anywhere in between),

since only joints after j move the body relative to that axis. Joints that carry both bodies of a pair count for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import coal
import numpy as np
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body, contained, gap

_AT_WORLD = coal.Transform3s()


class Nearest(NamedTuple):
    """Smallest gap (m) of all pairs looked at, where on the path (fractional sample), and between whom."""

    gap: float
    x: float
    names: tuple[str, ...]


class Failure(NamedTuple):
    """A pair that came to its threshold (m) or nearer: the smallest gap found, where on the path, and who."""

    gap: float
    x: float
    names: tuple[str, str]
    threshold: float


@dataclass(frozen=True, eq=False)
class Carried:
    """Bodies fixed to joints of a robot.

    Attributes:
        names: B link names; a link may have several bodies.
        bodies: B.
        joint: (B,) index of the joint that carries each; 0 is the world.
        X_joint_body: (B, 4, 4).
    """

    names: tuple[str, ...]
    bodies: tuple[Body, ...]
    joint: NDArray[np.int64]
    X_joint_body: FloatArray


class Tree(Protocol):
    """A robot's n joints, parents before children, number 0 the world.

    supports (n, n): does joint m carry what is fixed to joint j? axis (n, 3): unit, in the joint's frame. turns (n,):
    or does it slide? length (n,): metres from the parent joint to this one.
    """

    supports: NDArray[np.bool_]
    axis: FloatArray
    turns: NDArray[np.bool_]
    length: FloatArray

    def joint_poses(self, positions: FloatArray) -> FloatArray:
        """X_world_joint (m, n, 4, 4) at positions (m, n)."""


@dataclass(frozen=True, eq=False)
class Path:
    """The motion over sample index: positions (S, n) of all joints, and the distance each has travelled until then."""

    positions: FloatArray
    travel: FloatArray

    def at(self, values: FloatArray, x: FloatArray) -> FloatArray:
        """Rows of `values` (S, n) at fractional samples x (m,), linear in between."""
        low = np.clip(x.astype(int), 0, max(len(values) - 2, 0))
        high = np.minimum(low + 1, len(values) - 1)
        f = (x - low)[:, None]
        return values[low] * (1 - f) + values[high] * f


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs to keep apart.

    Attributes:
        a: (P,) index of a carried body.
        b: (P,) index of another carried body, or B + index of an obstacle.
        threshold: (P,) metres: the gap must stay above this.
        counts: (P,) whether the pair's gap is part of the clearance.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    threshold: FloatArray
    counts: NDArray[np.bool_]


class Sweep:
    """One stretch of path against one world.

    Args:
        tree: the robot's joints.
        path: its motion.
        carried: B bodies that move with the joints.
        obstacles: bodies that stand in the world, by name.
        pairs: which to keep apart.
        resolution: metres of relative motion below which two looks that found the pair apart are enough.
    """

    def __init__(
        self,
        tree: Tree,
        path: Path,
        carried: Carried,
        obstacles: tuple[tuple[str, Body], ...],
        pairs: Pairs,
        resolution: float,
    ) -> None:
        self.tree, self.path, self.carried, self.pairs, self.resolution = (
            tree,
            path,
            carried,
            pairs,
            resolution,
        )
        self.bodies = (*carried.bodies, *(body for _, body in obstacles))
        self.names = (*carried.names, *(name for name, _ in obstacles))
        self.count = len(carried.bodies)
        boxes = np.array([[b.points.min(0), b.points.max(0)] for b in self.bodies]).reshape(
            -1, 2, 3
        )
        own = boxes[: self.count]
        self.center, self.half = own.mean(1), 0.5 * np.ptp(own, axis=1)
        self.radius = np.array(
            [
                np.linalg.norm(b.points - c, axis=1).max()
                for b, c in zip(carried.bodies, self.center, strict=True)
            ]
        )
        self.fixed_boxes = boxes[self.count :]
        self.support = tree.supports[carried.joint]
        # Of two carried bodies, the joints that carry only one of them move it relative to the other.
        self.within = np.flatnonzero(pairs.b < self.count)
        of_a, of_b = self.support[pairs.a[self.within]], self.support[pairs.b[self.within]]
        self.only_a, self.only_b = of_a & ~of_b, of_b & ~of_a
        self.x = np.zeros(0)
        self.pose = np.zeros((0, self.count, 4, 4))
        self.reach = np.zeros((0, self.count, len(tree.turns)))
        self.bound = np.zeros((0, len(pairs.a)))  # no pair is nearer than this
        self.exact = np.zeros((0, len(pairs.a)), bool)  # and looking closer tells no more
        self.transforms: dict[tuple[int, int], coal.Transform3s] = {}
        self.failed: dict[int, Failure] = {}
        self.checked = 0

    def run(self, start: float, end: float, spacing: float) -> None:
        """Check fractional samples `start` to `end`, first at looks between which no body moves more than `spacing`."""
        looks = self._add(self._first_looks(start, end, spacing))
        if not len(self.pairs.a):
            return
        self._look_inside(int(looks[0]))
        a, b = looks[:-1], looks[1:]
        active = np.ones((len(a), len(self.pairs.a)), bool)
        while len(a):
            motion = self._motion(a, b)
            need = motion + 2 * self.pairs.threshold
            unsettled = active & ~(self.bound[a] + self.bound[b] > need)
            for i, p in np.argwhere(unsettled):
                enough = 0.5 * need[i, p] + 1e-9
                for look in (a[i], b[i]):
                    if (
                        p not in self.failed
                        and self._measure(look, p, enough) <= self.pairs.threshold[p]
                    ):
                        self._fail(p, look)
            unsettled &= ~(self.bound[a] + self.bound[b] > need) & (motion > self.resolution)
            unsettled[:, list(self.failed)] = False
            split = np.flatnonzero(unsettled.any(axis=1))
            middle = self._add(0.5 * (self.x[a[split]] + self.x[b[split]]))
            a, b = np.concatenate([a[split], middle]), np.concatenate([middle, b[split]])
            active = unsettled[np.concatenate([split, split])]
        for p in list(self.failed):
            for look in looks:
                if self._measure(look, p, self.failed[p].gap) < self.failed[p].gap:
                    self._fail(p, look)

    def _look_inside(self, look: int) -> None:
        """Fail the pairs of which one body lies inside the other's surface; later it would have to pass through it."""
        concave = np.array([body.surface is not None for body in self.bodies])
        for p in np.flatnonzero(
            (concave[self.pairs.a] | concave[self.pairs.b]) & np.isneginf(self.bound[look])
        ).tolist():
            a, b = self.pairs.a[p], self.pairs.b[p]
            X_a, X_b = self._transform(look, a), self._transform(look, b)
            if contained(self.bodies[a], X_a, self.bodies[b], X_b):
                self.bound[look, p] = -abs(gap(self.bodies[a], X_a, self.bodies[b], X_b, np.inf))
                self.exact[look, p] = True
                if self.bound[look, p] <= self.pairs.threshold[p]:
                    self._fail(p, look)

    def nearest(self, horizon: float) -> Nearest:
        """The smallest gap below `horizon` at the looks taken so far; the horizon, of nobody, where there is none."""
        best = Nearest(horizon, float(self.x[0]), ())
        bound = np.where(self.pairs.counts, self.bound, np.inf)
        known = np.where(self.exact, bound, np.inf)
        if known.size and known.min() < horizon:
            best = self._nearest_at(*np.unravel_index(np.argmin(known), known.shape))
        candidates = np.argwhere((bound < best.gap) & ~self.exact)
        for look, p in candidates[np.argsort(bound[tuple(candidates.T)])]:
            if bound[look, p] >= best.gap:
                break
            if self._measure(look, p, best.gap) < best.gap:
                best = self._nearest_at(look, p)
        return best

    def _nearest_at(self, look: int | np.intp, p: int | np.intp) -> Nearest:
        return Nearest(float(self.bound[look, p]), float(self.x[look]), self._names(p))

    def _names(self, p: int | np.intp) -> tuple[str, str]:
        return self.names[self.pairs.a[p]], self.names[self.pairs.b[p]]

    def _first_looks(self, start: float, end: float, spacing: float) -> FloatArray:
        # A bound on motion that needs no kinematics: every joint at the longest arm that may hang on it.
        support = self.support
        extent = np.linalg.norm(self.carried.X_joint_body[:, :3, 3], axis=1) + np.linalg.norm(
            self.center, axis=1
        )
        after = (
            np.cumsum((support * self.tree.length)[:, ::-1], axis=1)[:, ::-1]
            - support * self.tree.length
        )
        arm = np.where(support, (extent + self.radius)[:, None] + after, 0.0).max(
            axis=0, initial=0.0
        )
        total = self.path.travel @ np.where(self.tree.turns, arm, 1.0)
        index = np.arange(len(total), dtype=float)
        low, high = np.interp([start, end], index, total)
        inner = np.linspace(low, high, 2 + int((high - low) / spacing))[1:-1]
        # Motion that stands still has many samples at one total; interp picks one of them, which is what is wanted.
        return np.concatenate([[start], np.clip(np.interp(inner, total, index), start, end), [end]])

    def _add(self, x: FloatArray) -> NDArray[np.int64]:
        """Place every body at fractional samples x (m,); their numbers among the looks."""
        joints = self.tree.joint_poses(self.path.at(self.path.positions, x))
        pose = joints[:, self.carried.joint] @ self.carried.X_joint_body
        R = pose[..., :3, :3]
        center = (R @ self.center[..., None])[..., 0] + pose[..., :3, 3]
        half = (np.abs(R) @ self.half[..., None])[..., 0]
        fixed = np.broadcast_to(self.fixed_boxes, (len(x), *self.fixed_boxes.shape))
        low = np.concatenate([center - half, fixed[:, :, 0]], axis=1)
        high = np.concatenate([center + half, fixed[:, :, 1]], axis=1)
        a, b = self.pairs.a, self.pairs.b
        apart = np.maximum(np.maximum(low[:, a] - high[:, b], low[:, b] - high[:, a]), 0.0)
        bound = np.sqrt(np.einsum("mpc,mpc->mp", apart, apart))
        bound[bound == 0] = -np.inf  # boxes that overlap tell nothing
        offset = center[:, :, None] - joints[:, None, :, :3, 3]
        axis = (joints[..., :3, :3] @ self.tree.axis[..., None])[..., 0]
        along = np.einsum("mbjc,mjc->mbj", offset, axis)
        square = np.einsum("mbjc,mbjc->mbj", offset, offset) - along**2
        first = len(self.x)
        self.x = np.concatenate([self.x, x])
        self.pose = np.concatenate([self.pose, pose])
        self.reach = np.concatenate(
            [self.reach, np.sqrt(np.maximum(square, 0.0)) + self.radius[:, None]]
        )
        self.bound = np.concatenate([self.bound, bound])
        self.exact = np.concatenate([self.exact, np.zeros(bound.shape, bool)])
        return np.arange(first, len(self.x))

    def _motion(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> FloatArray:
        """L (m, P): how far the pairs' points move relative to each other between looks a and b (m,), at most."""
        travel = self.path.at(self.path.travel, self.x[b]) - self.path.at(
            self.path.travel, self.x[a]
        )
        total = np.zeros((len(a), self.count))
        each = np.zeros((len(a), self.count, travel.shape[1]))
        mean = 0.5 * (self.reach[a] + self.reach[b])
        for j in np.flatnonzero(travel.max(axis=0) > 0)[::-1]:  # children come after their parents
            u = mean[:, :, j] + 0.5 * total if self.tree.turns[j] else 1.0
            each[:, :, j] = self.support[:, j] * u * travel[:, j, None]
            total += each[:, :, j]
        L = total[:, self.pairs.a]
        p = self.within
        L[:, p] = np.einsum("mpj,pj->mp", each[:, self.pairs.a[p]], self.only_a[p])
        L[:, p] += np.einsum("mpj,pj->mp", each[:, self.pairs.b[p]], self.only_b[p])
        return L

    def _measure(self, look: int, p: int, enough: float) -> float:
        """The pair's gap at a look, or a bound on it that is at least `enough`."""
        if self.exact[look, p] or self.bound[look, p] >= enough:
            return float(self.bound[look, p])
        a, b = self.bodies[self.pairs.a[p]], self.bodies[self.pairs.b[p]]
        X_a, X_b = self._transform(look, self.pairs.a[p]), self._transform(look, self.pairs.b[p])
        found = gap(a, X_a, b, X_b, enough, self.pairs.threshold[p])
        self.checked += 1
        self.bound[look, p] = found
        self.exact[look, p] = found < enough or (a.surface is None and b.surface is None)
        return found

    def _transform(self, look: int, body: int) -> coal.Transform3s:
        if body >= self.count:
            return _AT_WORLD
        key = (look, body)
        if key not in self.transforms:
            X = self.pose[look, body]
            self.transforms[key] = coal.Transform3s(X[:3, :3], X[:3, 3])
        return self.transforms[key]

    def _fail(self, p: int, look: int) -> None:
        found = float(self.bound[look, p])
        self.failed[p] = Failure(
            found, float(self.x[look]), self._names(p), float(self.pairs.threshold[p])
        )
