"""Which bodies come too near to each other while the arm moves: adaptive checking of pairs over continuous time.

Between samples the arm moves linearly in its joints. A pair whose gap is d_a at one time and d_b at a later one, and of
which no point moves more than L relative to the other in between, never comes nearer than (d_a + d_b - L) / 2 (Schwarzer,
Saha and Latombe, T-RO 2005, eq. 1). Where that does not settle the matter the interval is halved, until L is below the
resolution. With r_j the distance of a body from the axis of joint j and s_j the travel of that joint in the interval,

    L = sum_j u_j s_j,    u_j = (r_j(a) + r_j(b) + sum_{m after j} u_m s_m) / 2  >=  r_j(anywhere in between):

only the joints after j move the body relative to the axis of j. Joints that carry both bodies of a pair are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import coal
import numpy as np
from numpy.typing import NDArray

from flowplan.bodies import Body, gap
from flowplan.checks import FloatArray
from flowplan.geometry import transform

Poses = Callable[[FloatArray], FloatArray]
"""X_world_joint (n, joints, 4, 4) of all joints at fractional sample indices (n,)."""


@dataclass(frozen=True, eq=False)
class Carried:
    """Bodies fixed to joints: B names, bodies, joint numbers, and poses (B, 4, 4) in their joints' frames.

    `joint` 0 is the world: obstacles are bodies that it carries.
    """

    names: tuple[str, ...]
    bodies: tuple[Body, ...]
    joint: NDArray[np.int64]
    X_joint_body: FloatArray


@dataclass(frozen=True, eq=False)
class Joints:
    """How joints move what they carry.

    Attributes:
        supports: (n, n) does joint m carry what is fixed to joint j?
        axis: (n, 3) unit, in the joint's own frame.
        turns: (n,) revolute, not prismatic.
        travel: (S, n) distance travelled since the first sample, rad or m.
        poses: see Poses.
    """

    supports: NDArray[np.bool_]
    axis: FloatArray
    turns: NDArray[np.bool_]
    travel: FloatArray
    poses: Poses


@dataclass(frozen=True)
class Near:
    """Two bodies, how far apart (m), and at which fractional sample."""

    distance: float
    x: float
    names: tuple[str, str]
    threshold: float


@dataclass
class Sweep:
    """The check of some pairs over one stretch of the trajectory.

    Attributes:
        carried: all bodies.
        pairs: (P, 2) indices of bodies that are to keep apart.
        threshold: (P,) metres: the least gap allowed (negative: overlap that is forgiven).
        joints: how they move.
        horizon: metres beyond which distances are not told apart.
        resolution: metres of motion below which nothing is looked at between two times.
        nearest: the smallest gap seen.
        failures: the deepest gap below its threshold, of each pair that has one.
        checked: exact distances computed.
    """

    carried: Carried
    pairs: NDArray[np.int64]
    threshold: FloatArray
    joints: Joints
    horizon: float
    resolution: float
    nearest: Near | None = None
    failures: dict[int, Near] = field(default_factory=dict)
    checked: int = 0

    def run(self, looks: FloatArray) -> None:
        """Check all pairs between the first and the last of the fractional samples `looks` (n,), increasing."""
        bounds = [self._look(x) for x in looks]
        for k in range(len(looks) - 1):
            self._settle(bounds[k], bounds[k + 1], np.arange(len(self.pairs)))
        for look in bounds:  # the clearance itself, exactly, where no bound rules a pair out
            for p in np.argsort(look.lower):
                if look.lower[p] >= self._best():
                    break
                self._exact(look, int(p))

    def _best(self) -> float:
        return self.horizon if self.nearest is None else min(self.nearest.distance, self.horizon)

    def _look(self, x: float) -> _Look:
        X_joint = self.joints.poses(np.array([x]))[0]
        X = X_joint[self.carried.joint] @ self.carried.X_joint_body
        points = [transform(X[i], b.points) for i, b in enumerate(self.carried.bodies)]
        low = np.array([p.min(0) for p in points])
        high = np.array([p.max(0) for p in points])
        a, b = self.pairs.T
        apart = np.maximum(np.maximum(low[a] - high[b], low[b] - high[a]), 0.0)
        lower = np.linalg.norm(apart, axis=1)
        lower[lower == 0] = -np.inf  # boxes that overlap bound nothing
        return _Look(x, X, lower, self._radii(X_joint, points), {})

    def _radii(self, X_joint: FloatArray, points: list[FloatArray]) -> FloatArray:
        """(B, joints) largest distance of a body from the axis of each turning joint that carries it; 1 for a slide."""
        r = np.zeros((len(points), len(X_joint)))
        axis = np.einsum("jab,jb->ja", X_joint[:, :3, :3], self.joints.axis)
        for i, p in enumerate(points):
            carrying = np.flatnonzero(self.joints.supports[self.carried.joint[i]])
            for j in carrying:
                if not self.joints.turns[j]:
                    r[i, j] = 1.0
                    continue
                arm = p - X_joint[j, :3, 3]
                across = arm - np.outer(arm @ axis[j], axis[j])
                r[i, j] = np.sqrt(np.einsum("pc,pc->p", across, across).max())
        return r

    def _settle(self, a: _Look, b: _Look, pairs: NDArray[np.int64]) -> None:
        """Prove the pairs apart between two looks, or find where they are not."""
        motion = self._motion(a, b, pairs)
        open_ = []
        for p, L in zip(pairs, motion, strict=True):
            need = self.threshold[p]
            # A bound on both ends may do; else the exact distances; else look in the middle.
            if (a.lower[p] + b.lower[p] - L) / 2 >= max(need, 0.0):
                continue
            d_a, d_b = self._exact(a, int(p)), self._exact(b, int(p))
            if min(d_a, d_b) < need:
                continue  # a failure already, noted
            if (d_a + d_b - L) / 2 < need and self.resolution < L:
                open_.append(p)
        if open_:
            middle = self._look((a.x + b.x) / 2)
            index = np.array(open_)
            self._settle(a, middle, index)
            self._settle(middle, b, index)

    def _motion(self, a: _Look, b: _Look, pairs: NDArray[np.int64]) -> FloatArray:
        """(P,) metres: no point of one body of a pair moves farther than this relative to the other between the looks."""
        travel = self.joints.travel
        index = np.arange(len(travel))
        s = np.array([np.interp(b.x, index, t) - np.interp(a.x, index, t) for t in travel.T])
        first, second = self.carried.joint[self.pairs[pairs]].T
        both = self.joints.supports[first] & self.joints.supports[second]
        total = np.zeros(len(pairs))
        for side in (0, 1):
            body = self.pairs[pairs, side]
            moves = self.joints.supports[self.carried.joint[body]] & ~both
            total += _displacement((a.radii + b.radii)[body], moves, s)
        return total

    def _exact(self, look: _Look, p: int) -> float:
        if p not in look.exact:
            i, j = self.pairs[p]
            X_i, X_j = look.transform(i), look.transform(j)
            enough = max(self._best(), self.threshold[p], 0.0)
            # Within a pair the bound must stay useful for the interval test, so look a little farther than needed.
            d = gap(self.carried.bodies[i], X_i, self.carried.bodies[j], X_j, max(enough, 0.05))
            self.checked += 1
            look.exact[p] = d
            look.lower[p] = max(look.lower[p], d)
            near = Near(d, look.x, (self.carried.names[i], self.carried.names[j]), float(self.threshold[p]))
            if d < self.threshold[p] and (p not in self.failures or d < self.failures[p].distance):
                self.failures[p] = near
            if self.nearest is None or d < self.nearest.distance:
                self.nearest = near
        return look.exact[p]


@dataclass(eq=False)
class _Look:
    """All bodies at one time: poses, lower bounds of the pairs' gaps (m), radii about the joints, exact gaps so far."""

    x: float
    X: FloatArray
    lower: FloatArray
    radii: FloatArray
    exact: dict[int, float]
    _transforms: dict[int, coal.Transform3s] = field(default_factory=dict)

    def transform(self, i: int) -> coal.Transform3s:
        """Pose of body i for coal."""
        if i not in self._transforms:
            self._transforms[i] = coal.Transform3s(self.X[i, :3, :3], self.X[i, :3, 3])
        return self._transforms[i]


def _displacement(r_ab: FloatArray, moves: NDArray[np.bool_], s: FloatArray) -> FloatArray:
    """L (P,) of the module's formula, from r(a) + r(b) (P, joints), which joints count (P, joints), and travel s (joints,)."""
    total = np.zeros(len(r_ab))
    for j in range(len(s) - 1, -1, -1):  # children come after their parents
        u = (r_ab[:, j] + total) / 2
        total = total + np.where(moves[:, j], u * s[j], 0.0)
    return total
