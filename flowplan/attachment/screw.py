"""One degree of freedom: the screw motion (hinge, slide or helix) that a rigid patch follows.

Every displacement of a link on one joint is an exponential of one twist (Chasles 1830; Murray, Li & Sastry 1994, 2.3),

    D(t) = exp(amount(t) xi),   xi = (p x a + h a, a)  for a hinge (h = 0) or helix,   xi = (a, 0)  for a slide,

with axis direction a, axis point p and pitch h. The fit minimises the exact alignment energy of flowplan.attachment.moments over
the axis and all amounts at once, so it costs the same for any number of points, and frames in which the patch is seen
badly count for less. The simplest kind that fits about as well as the best one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment.moments import Moments, RigidFit, alignment_residual, symmetric_root
from flowplan.geometry import exp_se3, log_so3, quat_wxyz_from_matrix, skew, transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

Kind = Literal["slide", "hinge", "helix"]
_PARAMETERS: dict[Kind, int] = {"slide": 2, "hinge": 4, "helix": 5}
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(10)


@dataclass(frozen=True)
class ScrewOptions:
    """When a screw is good enough to replace the poses of every frame."""

    tolerance: float = 3e-3
    """Metres RMS that the screw may add to the slip and still count as an explanation."""
    prefer_simple: float = 1.2
    """A simpler kind is kept while its misfit is below this many times the best one's."""
    iterations: int = 30
    """Levenberg-Marquardt steps at most."""

    def __post_init__(self) -> None:
        checks.positive("ScrewOptions.tolerance", self.tolerance)
        if self.prefer_simple < 1:
            raise ValueError(
                f"ScrewOptions.prefer_simple: expected at least 1, got {self.prefer_simple:g}"
            )
        if self.iterations < 1:
            raise ValueError(f"ScrewOptions.iterations: expected at least 1, got {self.iterations}")


@dataclass(frozen=True, eq=False)
class Screw:
    """A motion about, along, or about and along one axis.

    Attributes:
        kind: "slide", "hinge" or "helix".
        direction: (3,) unit vector of the axis, world frame; the largest amount is positive.
        point: (3,) point of the axis nearest to the patch at the first frame, metres (the patch itself for a slide).
        pitch: metres per radian along the axis (0 for a hinge, and for a slide, whose amount is metres already).
        amount: (T,) radians (metres for a slide), the first 0.
        displacement: (T, 4, 4) rigid motion of the patch since the first frame, world frame.
        misfit: metres RMS that the screw adds to the slip of the free rigid motion.
        explains: is the misfit within ScrewOptions.tolerance?
        normals: (2, 3) unit vectors across the axis, in which the deviations are counted.
        covariance: (5, 5) of (direction along the normals, rad; point along the normals, m; pitch, m/rad), from the
            spread of the tracks, taken as independent; zeros for what the kind does not have.
        amount_std: (T,) standard deviation of the amounts.
    """

    kind: Kind
    direction: FloatArray
    point: FloatArray
    pitch: float
    amount: FloatArray
    displacement: FloatArray
    misfit: float
    explains: bool
    normals: FloatArray
    covariance: FloatArray
    amount_std: FloatArray


@dataclass(frozen=True, eq=False)
class _Axis:
    kind: Kind
    a: FloatArray
    p: FloatArray
    h: float
    amount: FloatArray

    def twist(self) -> FloatArray:
        if self.kind == "slide":
            return np.concatenate([self.a, np.zeros(3)])
        return np.concatenate([np.cross(self.p, self.a) + self.h * self.a, self.a])

    def normals(self) -> FloatArray:
        u = np.cross(self.a, np.eye(3)[np.argmin(np.abs(self.a))])
        u /= np.linalg.norm(u)
        return np.stack([u, np.cross(self.a, u)])

    def moved(self, step: FloatArray) -> _Axis:
        n = _PARAMETERS[self.kind]
        u, w = self.normals()
        a = self.a + step[0] * u + step[1] * w
        a /= np.linalg.norm(a)
        p = self.p + (step[2] * u + step[3] * w if n >= 4 else 0.0)
        h = self.h + (step[4] if n == 5 else 0.0)
        return _Axis(
            self.kind, a, p - a * (a @ p), h, self.amount + np.concatenate([[0.0], step[n:]])
        )


def screw_fit(moments: Moments, fit: RigidFit, options: ScrewOptions) -> Screw:
    """The screw that a patch follows.

    Args:
        moments: of the patch.
        fit: its free rigid motion.
        options: see ScrewOptions.
    """
    origin = transform(fit.X_world_tool[0], moments.source_mean[:1])[
        0
    ]  # distances from here keep the fit conditioned
    problem = _Problem(moments, fit, origin)
    found = [problem.solve(axis, options.iterations) for axis in _starts(problem)]
    best = min(rms for _, rms in found)
    # A tenth of a millimetre is beyond any scan: below it the simpler kind wins whatever the ratio.
    axis, rms = next(f for f in found if f[1] <= max(options.prefer_simple * best, 1e-4))
    if axis.amount[np.argmax(np.abs(axis.amount))] < 0:
        axis = _Axis(axis.kind, -axis.a, axis.p, axis.h, -axis.amount)
    covariance, amount_std = problem.covariance(axis)
    amount = problem.bridge(axis.amount)
    displacement = exp_se3(amount[:, None] * axis.twist())
    displacement[:, :3, 3] += origin - displacement[:, :3, :3] @ origin
    return Screw(
        axis.kind, axis.a, axis.p + origin, axis.h, amount, displacement,
        rms, rms <= options.tolerance, axis.normals(), covariance, amount_std,
    )  # fmt: skip


class _Problem:
    """The alignment energy as a function of a screw, in coordinates about the patch."""

    def __init__(self, moments: Moments, fit: RigidFit, origin: FloatArray) -> None:
        self.moments = moments
        self.seen: NDArray[np.bool_] = moments.weight > 0
        self.scale = 1.0 / moments.weight.sum()
        self.root_weight = np.sqrt(moments.weight * self.scale)
        self.root_K = symmetric_root(fit.K * self.scale)
        self.X_star = fit.X_world_tool.copy()
        self.X_star[:, :3, 3] -= origin
        self.noise = float(np.sum(moments.weight * fit.slip**2))

    def residual(self, axis: _Axis) -> tuple[FloatArray, FloatArray]:
        D = exp_se3(axis.amount[:, None] * axis.twist())
        X = D @ self.X_star[0]
        r, G = alignment_residual(
            X, self.X_star, self.moments.source_mean, self.root_weight, self.root_K
        )
        # The twist there is that of the tool origin; ours turn about the world's: v_tool = v + w x t.
        G[..., 3:] -= G[..., :3] @ skew(X[:, :3, 3])
        return r, G

    def jacobian(self, axis: _Axis, G: FloatArray) -> FloatArray:
        T, n = len(axis.amount), _PARAMETERS[axis.kind]
        J = np.zeros((T, 6, n + T - 1))
        J[:, :, :n] = G @ _integrated_adjoint(axis) @ _twist_derivative(axis)
        along = G @ axis.twist()
        J[np.arange(1, T), :, n + np.arange(T - 1)] = along[1:]
        return J.reshape(6 * T, -1)

    def solve(self, axis: _Axis, iterations: int) -> tuple[_Axis, float]:
        damping = 1e-4
        r, G = self.residual(axis)
        cost = float((r**2).sum())
        for _ in range(iterations):
            J = self.jacobian(axis, G)
            H = J.T @ J
            diagonal = np.diag(H) * damping + 1e-12
            step = np.asarray(-np.linalg.solve(H + np.diag(diagonal), J.T @ r.ravel()), float)
            candidate = axis.moved(step)
            r_new, G_new = self.residual(candidate)
            cost_new = float((r_new**2).sum())
            if cost_new >= cost:
                damping *= 10
                if damping > 1e6:
                    break
                continue
            done = cost - cost_new < 1e-8 * cost + 1e-18
            axis, r, G, cost, damping = candidate, r_new, G_new, cost_new, max(damping / 10, 1e-10)
            if done:
                break
        return axis, float(np.sqrt(cost))

    def covariance(self, axis: _Axis) -> tuple[FloatArray, FloatArray]:
        n = _PARAMETERS[axis.kind]
        r, G = self.residual(axis)
        J = self.jacobian(axis, G)
        # A track of weight w moves its sums by w noise: cov = H^-1 variance sum(w^2) / sum(w), each coordinate alike.
        points = self.moments.count[self.seen].sum()
        energy = self.noise + float((r**2).sum()) / self.scale
        variance = energy * self.scale / 3 / points
        H = J.T @ J
        H[np.diag_indices_from(H)] += (
            1e-12 * np.trace(H) / len(H) + 1e-300
        )  # amounts of frames that nobody saw
        full = np.linalg.inv(H) * variance
        covariance = np.zeros((5, 5))
        covariance[:n, :n] = full[:n, :n]
        amount_var = np.concatenate([[0.0], np.diag(full)[n:]])
        return covariance, self.bridge(np.sqrt(np.maximum(amount_var, 0.0)))

    def bridge(self, amount: FloatArray) -> FloatArray:
        index = np.arange(len(amount))
        return np.interp(index, index[self.seen], amount[self.seen])


def _starts(problem: _Problem) -> list[_Axis]:
    X, b, W = problem.X_star, problem.moments.source_mean, problem.moments.weight
    centre = transform(X, b[0][None])[:, 0]
    shift = centre - centre[0]
    a = _principal(shift, W)
    starts = [_Axis("slide", a, np.zeros(3), 0.0, shift @ a)]
    R = X[:, :3, :3] @ X[0, :3, :3].T
    turn = log_so3(R)
    if np.linalg.norm(turn, axis=1).max() < 1e-4:
        return starts
    a = _principal(turn, W)
    q = quat_wxyz_from_matrix(R)
    amount = np.unwrap(2 * np.arctan2(q[:, 1:] @ a, q[:, 0]))
    amount -= amount[0]
    # centre = p + R (centre_0 - p) + h amount a is linear in the axis point p and the pitch h.
    rows = np.concatenate([np.eye(3) - R, (amount[:, None] * a)[..., None]], axis=2)
    rhs = centre - (R @ centre[0])
    scale = np.sqrt(W)[:, None]
    x = np.linalg.lstsq(
        (rows * scale[..., None]).reshape(-1, 4), (rhs * scale).ravel(), rcond=1e-9
    )[0]
    p = x[:3] - a * (a @ x[:3])
    return [*starts, _Axis("hinge", a, p, 0.0, amount), _Axis("helix", a, p, float(x[3]), amount)]


def _principal(vectors: FloatArray, weights: FloatArray) -> FloatArray:
    return np.linalg.eigh((vectors * weights[:, None]).T @ vectors)[1][:, -1]


def _integrated_adjoint(axis: _Axis) -> FloatArray:
    """d of exp(amount xi), as a spatial twist, along xi: the integral of Ad(exp(s xi)) over s = 0..amount (T, 6, 6)."""
    s = 0.5 * (_NODES + 1)[:, None] * axis.amount  # (Q, T)
    D = exp_se3(s[..., None] * axis.twist())
    R = D[..., :3, :3]
    Ad = np.zeros((*s.shape, 6, 6))
    Ad[..., :3, :3] = Ad[..., 3:, 3:] = R
    Ad[..., :3, 3:] = skew(D[..., :3, 3]) @ R
    return np.einsum("q,t,qtij->tij", 0.5 * _NODE_WEIGHTS, axis.amount, Ad)


def _twist_derivative(axis: _Axis) -> FloatArray:
    n = _PARAMETERS[axis.kind]
    out = np.zeros((6, n))
    for i, u in enumerate(axis.normals()):
        if axis.kind == "slide":
            out[:3, i] = u
            continue
        out[:, i] = np.concatenate([np.cross(axis.p, u) + axis.h * u, u])
        out[:3, 2 + i] = np.cross(u, axis.a)
    if n == 5:
        out[:3, 4] = axis.a
    return out
