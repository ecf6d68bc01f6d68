"""One degree of freedom: the screw motion (hinge, slide or helix) that a rigid patch follows.

Every displacement of a link on one joint is the exponential of one twist (Chasles 1830; Murray, Li
and Sastry 1994, section 2.3),

    D(t) = exp(amount(t) xi),   xi = (p x a + h a, a)  for a hinge (h = 0) or a helix,
                                xi = (a, 0)            for a slide,

with axis direction a, axis point p and pitch h. The fit minimizes the exact alignment energy of
flowplan.attachment.moments over the axis and all amounts at once. Its cost does not depend on the
number of points, and frames with few visible points carry little weight. The simplest kind that
fits about as well as the best one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment.moments import Moments, RigidFit, alignment_residual, symmetric_root
from flowplan.geometry import exp_se3, log_so3, quat_wxyz_from_matrix, skew, transform
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

Kind = Literal["slide", "hinge", "helix"]
_PARAMETERS: dict[Kind, int] = {"slide": 2, "hinge": 4, "helix": 5}
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(10)
_NEGLIGIBLE_MISFIT = 1e-4
"""Meters RMS below which the simpler kind is kept whatever the ratio: no scan resolves them."""


@dataclass(frozen=True)
class ScrewOptions:
    """Criteria for replacing the poses of all frames by one screw motion."""

    tolerance: Annotated[float, Interval(1e-5, 0.1)] = 3e-3
    """Meters RMS that the screw may add to the slip."""
    prefer_simple: Annotated[float, Interval(1, 100)] = 1.2
    """A simpler kind is kept while its misfit is below this multiple of the best one's."""
    iterations: Annotated[int, Interval(1, 1000)] = 30
    """Maximum number of Levenberg-Marquardt steps."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class Screw:
    """Motion about an axis, along it, or both.

    Attributes:
        kind: "slide", "hinge" or "helix".
        direction: (3,) unit vector of the axis, world frame, signed so that the largest amount is
            positive.
        point: (3,) point of the axis nearest to the patch at the first frame, meters (for a slide,
            the patch itself).
        pitch: Meters per radian along the axis (0 for a hinge and for a slide).
        amount: (T,) radians (meters for a slide), the first 0.
        displacement: (T, 4, 4) rigid motion of the patch since the first frame, world frame.
        misfit: Meters RMS that the screw adds to the slip of the free rigid motion.
        explains: True if the misfit is within ScrewOptions.tolerance.
        normals: (2, 3) unit vectors across the axis, the coordinates of the covariance.
        covariance: (5, 5) of (direction along the normals, rad; point along the normals, m; pitch,
            m/rad), from the spread of the tracks, assumed independent. Zeros for parameters that
            the kind does not have.
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
    """Parameters of a screw in coordinates about the patch.

    Attributes:
        kind: "slide", "hinge" or "helix".
        a: (3,) unit direction.
        p: (3,) axis point, perpendicular to a, meters.
        h: Pitch, m/rad.
        amount: (T,) radians, or meters for a slide.
    """

    kind: Kind
    a: FloatArray
    p: FloatArray
    h: float
    amount: FloatArray

    def twist(self) -> FloatArray:
        """Twist xi (6,) of one unit of the amount."""
        if self.kind == "slide":
            return np.concatenate([self.a, np.zeros(3)])
        linear = np.cross(self.p, self.a) + self.h * self.a
        return np.concatenate([linear, self.a])

    def normals(self) -> FloatArray:
        """Two unit vectors (2, 3) perpendicular to the axis and to each other."""
        least_aligned = np.eye(3)[np.argmin(np.abs(self.a))]
        u = np.cross(self.a, least_aligned)
        u /= np.linalg.norm(u)
        return np.stack([u, np.cross(self.a, u)])

    def moved(self, step: FloatArray) -> _Axis:
        """The axis after a step of the parameters and of the amounts but the first."""
        n = _PARAMETERS[self.kind]
        u, w = self.normals()
        a = self.a + step[0] * u + step[1] * w
        a /= np.linalg.norm(a)
        p = self.p + (step[2] * u + step[3] * w if n >= 4 else 0.0)
        p = p - a * (a @ p)  # back to the point nearest to the origin
        h = self.h + (step[4] if n == 5 else 0.0)
        amount = self.amount + np.concatenate([[0.0], step[n:]])
        return _Axis(self.kind, a, p, h, amount)

    def reversed(self) -> _Axis:
        """The same motion with direction and amounts negated."""
        return _Axis(self.kind, -self.a, self.p, self.h, -self.amount)


def screw_fit(
    moments: Moments,
    fit: RigidFit,
    options: ScrewOptions,
    *,
    negligible: float = _NEGLIGIBLE_MISFIT,
    kinds: tuple[Kind, ...] = ("slide", "hinge", "helix"),
) -> Screw:
    """Best-fitting screw motion of a patch.

    Args:
        moments: Moments of the patch.
        fit: Its free rigid motion.
        options: Criteria of the fit.
        negligible: Meters RMS of misfit below which the simpler kind is kept whatever the ratio.
        kinds: Kinds to choose from. A patch that does not turn slides.
    """
    # Coordinates about the patch's first position keep the fit well conditioned.
    origin = transform(fit.X_world_tool[0], moments.source_mean[:1])[0]
    problem = _Problem(moments, fit, origin)

    # All kinds, the simplest first; the first one that fits about as well as the best is kept.
    starts = _initial_axes(problem)
    starts = [axis for axis in starts if axis.kind in kinds] or starts[:1]
    found = [problem.solve(axis, options.iterations) for axis in starts]
    best = min(misfit for _, misfit in found)
    acceptable = max(options.prefer_simple * best, negligible)
    axis, misfit = next((a, m) for a, m in found if m <= acceptable)
    if axis.amount[np.argmax(np.abs(axis.amount))] < 0:
        axis = axis.reversed()

    covariance, amount_std = problem.covariance(axis)
    amount = problem.interpolate_unseen(axis.amount)
    # Displacements back in world coordinates: D(x) = origin + D_local(x - origin).
    displacement = exp_se3(amount[:, None] * axis.twist())
    displacement[:, :3, 3] += origin - displacement[:, :3, :3] @ origin
    return Screw(
        kind=axis.kind,
        direction=axis.a,
        point=axis.p + origin,
        pitch=axis.h,
        amount=amount,
        displacement=displacement,
        misfit=misfit,
        explains=misfit <= options.tolerance,
        normals=axis.normals(),
        covariance=covariance,
        amount_std=amount_std,
    )


class _Problem:
    """Alignment energy as a function of a screw, in coordinates about the patch."""

    def __init__(self, moments: Moments, fit: RigidFit, origin: FloatArray) -> None:
        self.moments = moments
        self.seen: NDArray[np.bool_] = moments.weight > 0
        # Normalized so that the cost is a mean squared distance (m^2).
        self.scale = 1.0 / moments.weight.sum()
        self.root_weight = np.sqrt(moments.weight * self.scale)
        self.root_K = symmetric_root(fit.K * self.scale)
        self.X_star = fit.X_world_tool.copy()
        self.X_star[:, :3, 3] -= origin
        self.noise = float(np.sum(moments.weight * fit.slip**2))

    def residual(self, axis: _Axis) -> tuple[FloatArray, FloatArray]:
        """Residuals (T, 6) and their derivatives G (T, 6, 6) along spatial twists."""
        D = exp_se3(axis.amount[:, None] * axis.twist())
        X = D @ self.X_star[0]
        r, G = alignment_residual(
            X, self.X_star, self.moments.source_mean, self.root_weight, self.root_K
        )
        # From the velocity of the tool origin to that of the world origin: v_tool = v + w x t.
        G[..., 3:] -= G[..., :3] @ skew(X[:, :3, 3])
        return r, G

    def jacobian(self, axis: _Axis, G: FloatArray) -> FloatArray:
        """Jacobian (6 T, n + T - 1) of the residuals along axis parameters and later amounts."""
        T, n = len(axis.amount), _PARAMETERS[axis.kind]
        J = np.zeros((T, 6, n + T - 1))
        J[:, :, :n] = G @ _integrated_adjoint(axis) @ _twist_derivative(axis)
        # Each amount moves its own frame only, along the twist.
        along = G @ axis.twist()  # (T, 6)
        later = np.arange(1, T)
        J[later, :, n + np.arange(T - 1)] = along[1:]
        return J.reshape(6 * T, -1)

    def solve(self, axis: _Axis, iterations: int) -> tuple[_Axis, float]:
        """Levenberg-Marquardt from a starting axis; the axis found and its misfit (m RMS)."""
        damping = 1e-4
        r, G = self.residual(axis)
        cost = float((r**2).sum())
        for _ in range(iterations):
            # Damped Gauss-Newton step.
            J = self.jacobian(axis, G)
            H = J.T @ J
            diagonal = np.diag(H) * damping + 1e-12
            step = np.asarray(-np.linalg.solve(H + np.diag(diagonal), J.T @ r.ravel()), float)
            candidate = axis.moved(step)
            r_new, G_new = self.residual(candidate)
            cost_new = float((r_new**2).sum())

            # Uphill: try a shorter step.
            if cost_new >= cost:
                damping *= 10
                if damping > 1e6:
                    break
                continue

            # Downhill: accept, and stop once the gain is negligible.
            converged = cost - cost_new < 1e-8 * cost + 1e-18
            axis, r, G, cost = candidate, r_new, G_new, cost_new
            damping = max(damping / 10, 1e-10)
            if converged:
                break
        return axis, float(np.sqrt(cost))

    def covariance(self, axis: _Axis) -> tuple[FloatArray, FloatArray]:
        """Covariance (5, 5) of the axis parameters and standard deviations (T,) of the amounts."""
        n = _PARAMETERS[axis.kind]
        r, G = self.residual(axis)
        J = self.jacobian(axis, G)
        # Variance of one coordinate of one track, from slip and misfit together. A track of weight
        # w adds w noise to its sums, hence cov = H^-1 variance sum(w^2) / sum(w).
        points = self.moments.count[self.seen].sum()
        energy = self.noise + float((r**2).sum()) / self.scale
        variance = energy * self.scale / 3 / points
        H = J.T @ J
        # Amounts of frames without visible points have no curvature of their own.
        H[np.diag_indices_from(H)] += 1e-12 * np.trace(H) / len(H) + 1e-300
        full = np.linalg.inv(H) * variance
        covariance = np.zeros((5, 5))
        covariance[:n, :n] = full[:n, :n]
        amount_variance = np.concatenate([[0.0], np.diag(full)[n:]])
        amount_std = np.sqrt(np.maximum(amount_variance, 0.0))
        return covariance, self.interpolate_unseen(amount_std)

    def interpolate_unseen(self, amount: FloatArray) -> FloatArray:
        """Values (T,) with frames without visible points interpolated from their neighbors."""
        index = np.arange(len(amount))
        return np.interp(index, index[self.seen], amount[self.seen])


def _initial_axes(problem: _Problem) -> list[_Axis]:
    """Starting axes from the free rigid motion: slide, then hinge and helix if it rotates."""
    X, b, W = problem.X_star, problem.moments.source_mean, problem.moments.weight
    # Slide: the principal direction of the patch's center.
    center = transform(X, b[0][None])[:, 0]
    shift = center - center[0]
    a = _principal_direction(shift, W)
    starts = [_Axis("slide", a, np.zeros(3), 0.0, shift @ a)]

    # Hinge and helix: the principal direction of the rotation vectors.
    R = X[:, :3, :3] @ X[0, :3, :3].T
    rotation_vectors = log_so3(R)
    if np.linalg.norm(rotation_vectors, axis=1).max() < 1e-4:
        return starts
    a = _principal_direction(rotation_vectors, W)
    q = quat_wxyz_from_matrix(R)
    amount = np.unwrap(2 * np.arctan2(q[:, 1:] @ a, q[:, 0]))
    amount -= amount[0]

    # center = p + R (center_0 - p) + h amount a is linear in the axis point p and the pitch h.
    pitch_column = (amount[:, None] * a)[..., None]  # (T, 3, 1)
    rows = np.concatenate([np.eye(3) - R, pitch_column], axis=2)  # (T, 3, 4)
    rhs = center - (R @ center[0])  # (T, 3)
    scale = np.sqrt(W)[:, None]
    weighted_rows = (rows * scale[..., None]).reshape(-1, 4)
    x = np.linalg.lstsq(weighted_rows, (rhs * scale).ravel(), rcond=1e-9)[0]
    p = x[:3] - a * (a @ x[:3])
    hinge = _Axis("hinge", a, p, 0.0, amount)
    helix = _Axis("helix", a, p, float(x[3]), amount)
    return [*starts, hinge, helix]


def _principal_direction(vectors: FloatArray, weights: FloatArray) -> FloatArray:
    """Unit vector (3,) along which weighted vectors (T, 3) are largest."""
    scatter = (vectors * weights[:, None]).T @ vectors
    return np.linalg.eigh(scatter)[1][:, -1]


def _integrated_adjoint(axis: _Axis) -> FloatArray:
    """Derivative (T, 6, 6) of exp(amount xi), as a spatial twist, along xi.

    The integral of Ad(exp(s xi)) over s = 0..amount, by Gauss-Legendre quadrature.
    """
    s = 0.5 * (_NODES + 1)[:, None] * axis.amount  # (Q, T)
    D = exp_se3(s[..., None] * axis.twist())
    R = D[..., :3, :3]
    Ad = np.zeros((*s.shape, 6, 6))
    Ad[..., :3, :3] = R
    Ad[..., 3:, 3:] = R
    Ad[..., :3, 3:] = skew(D[..., :3, 3]) @ R
    return np.einsum("q,t,qtij->tij", 0.5 * _NODE_WEIGHTS, axis.amount, Ad)


def _twist_derivative(axis: _Axis) -> FloatArray:
    """Derivative (6, n) of the twist along the axis parameters."""
    n = _PARAMETERS[axis.kind]
    out = np.zeros((6, n))
    for i, u in enumerate(axis.normals()):
        if axis.kind == "slide":
            out[:3, i] = u
            continue
        linear = np.cross(axis.p, u) + axis.h * u
        out[:, i] = np.concatenate([linear, u])  # direction tilts along u
        out[:3, 2 + i] = np.cross(u, axis.a)  # point moves along u
    if n == 5:
        out[:3, 4] = axis.a  # pitch grows
    return out
