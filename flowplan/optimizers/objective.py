"""Cost of a joint trajectory, and its Gauss-Newton model.

    cost(q) =  sum_t w_t/w_max E_t(q_t) / tolerance^2     exact flow alignment
             + smoothness, shortness                      of accelerations and velocities
             + hinges: joint ranges, obstacles, self-collision, singularities; velocity,
             acceleration and jerk limits

Each term is in units of its tolerance, so one unit is about one millimeter off the flow. All S
seeds are evaluated at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment.moments import alignment_residual, symmetric_root
from flowplan.geometry import cross
from flowplan.optimizers.block_banded import BandedLayout
from flowplan.optimizers.clearance import ArmState, CollisionModel, ResidualRows
from flowplan.optimizers.finite_differences import Rates
from flowplan.optimizers.protocol import TrackOptions, TrackProblem
from flowplan.optimizers.tracking_error import observed_rotations
from flowplan.utils.checks import FloatArray

_GRASP_LEVER = 0.05
"""Lever arm in meters that holds all rotations of the first pose, the grasp."""
_UNSEEN_WEIGHT = 1e-2
"""Relative weight of the interpolated poses of frames without a visible point."""
_RANGE_TOLERANCE = 0.01
"""Radians (meters) that cost one unit within twice this distance of a joint's range limit."""
_SINGULAR_TOLERANCE = 2.0
"""Relative shortfall of manipulability that costs one unit: enough to select among self-motions,
too little to leave the flow."""
_CORRECTION_RIDGE = 100.0
"""Added to (residual per radian)^2: keeps corrections small near singularities."""
_MAX_CORRECTION = 0.2
"""Largest joint motion of a correction in radians (meters)."""


@dataclass(frozen=True)
class CostWeights:
    """Weights of the hinge costs in one stage of the optimization.

    Attributes:
        collision: factor on the cost of collisions.
        limits: True to enforce velocity, acceleration and jerk limits.
    """

    collision: float = 1.0
    limits: bool = False


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Cost and Gauss-Newton model of S trajectories.

    Attributes:
        cost: (S,).
        gradient: (S, T, J), half the derivative.
        matrix: (S, 3 J + 1, T J), half the second derivative, banded.
        residual: (S, T, 6) of the flow alignment.
        rows: (S, T, 6, J) derivative of the residual.
    """

    cost: FloatArray
    gradient: FloatArray
    matrix: FloatArray
    residual: FloatArray
    rows: FloatArray

    def where(self, better: NDArray[np.bool_], old: Quadratic) -> Quadratic:
        """This model for the seeds (S,) that are `better`, the old one for the others."""
        if better.all():
            return self

        def pick(new: FloatArray, old: FloatArray) -> FloatArray:
            return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return Quadratic(*(pick(getattr(self, f.name), getattr(old, f.name)) for f in fields(self)))

    def select(self, seeds: NDArray[np.int64]) -> Quadratic:
        """The model of some seeds."""
        return Quadratic(*(getattr(self, f.name)[seeds] for f in fields(self)))


class _Normal:
    """Accumulated normal equations of S trajectories: cost, half the gradient, and blocks of half
    the Hessian.

    Attributes:
        cost: (S,).
        gradient: (S, T, J).
        bands: (S, 4, T, J) couplings of a joint with itself at up to three later times.
        own: (S, T, J, J) couplings within a time.
        following: (S, T - 1, J, J) couplings of a time with the next.
    """

    def __init__(self, cost: FloatArray, gradient: FloatArray, bands: FloatArray) -> None:
        S, T, J = gradient.shape
        self.cost, self.gradient, self.bands = cost, gradient, bands
        self.own = np.zeros((S, T, J, J))
        self.following = np.zeros((S, T - 1, J, J))

    def add(self, rows: ResidualRows, weight: float) -> None:
        """Add the squares of sparse residuals."""
        if not len(rows.at):
            return
        S, T = self.gradient.shape[:2]
        at, row, following = rows.at, rows.row, rows.following
        scaled = weight * rows.residual
        self.cost += np.bincount(at // T, scaled * rows.residual, S)
        _scatter(self.gradient, at, scaled[:, None] * row)
        _scatter(self.own, at, weight * row[:, :, None] * row[:, None, :])
        if following is not None:  # residuals of the motion between two times
            _scatter(self.gradient, at + 1, scaled[:, None] * following)
            _scatter(self.own, at + 1, weight * following[:, :, None] * following[:, None, :])
            s, t = np.divmod(at, T)
            coupling = weight * following[:, :, None] * row[:, None, :]
            _scatter(self.following, s * (T - 1) + t, coupling)


class Objective:
    """Cost of one problem, with everything constant computed once.

    Args:
        problem: the problem.
        options: tolerances and weights.
    """

    def __init__(self, problem: TrackProblem, options: TrackOptions) -> None:
        robot, attachment = problem.robot, problem.attachment
        T, J = len(problem.times), len(robot.joint_names)
        self.problem, self.options = problem, options
        self.collision = CollisionModel(problem, options)
        self.layout = BandedLayout(T, J)
        self.slowdown = 0.0
        self.slow_down(1.0)
        self.root_weight, self.root_K = flow_weights(problem, options)
        self.X_star = attachment.X_world_tool
        self.source_mean = attachment.moments.source_mean
        self.observed = observed_rotations(attachment.K)
        self.lower = robot.lower + 2 * _RANGE_TOLERANCE
        self.upper = robot.upper - 2 * _RANGE_TOLERANCE

    def slow_down(self, factor: float) -> None:
        """Evaluate smoothness and limits with all times stretched by a factor.

        A flow that is too fast for the arm will be followed more slowly; its speed is no reason to
        deviate from it.
        """
        if factor == self.slowdown:
            return
        robot, options = self.problem.robot, self.options
        limits = np.stack([robot.velocity, robot.acceleration, robot.jerk])
        costs = (options.shortness, options.smoothness, 0.0)
        self.slowdown = factor
        self.rates = Rates(self.problem.times * factor, limits, costs)

    def evaluate(self, q: FloatArray, weights: CostWeights) -> Quadratic:
        """Cost and model at trajectories q (S, T, J)."""
        arm = self.collision.arm_state(q)

        # Smoothness, and rate limits if they are enforced.
        cost, gradient = self.rates.smoothness(q)
        bands = np.repeat(self.rates.bands[None], len(q), axis=0)
        normal = _Normal(cost, gradient, bands)
        if weights.limits:
            excess = self.rates.excess(q, self.options.limit_share)
            for total, part in zip((cost, gradient, bands), excess, strict=True):
                total += part

        # Flow alignment at each time.
        residual, rows = self._alignment(arm.X, arm.J)  # (S, T, 6), (S, T, 6, J)
        normal.cost += np.einsum("sti,sti->s", residual, residual)
        normal.gradient += (residual[..., None, :] @ rows)[..., 0, :]
        normal.own += np.swapaxes(rows, -1, -2) @ rows

        # Hinges: joint ranges, obstacles, self-collision, singularities.
        self._add_ranges(q, normal)
        for near in self.collision.obstacle_rows(arm):
            normal.add(near, weights.collision)
        normal.add(self.collision.self_rows(arm), weights.collision)
        singular = self._singularities(arm)
        if singular is not None:
            normal.add(singular, 1.0)

        matrix = self.layout.pack(normal.own, normal.following, normal.bands)
        return Quadratic(normal.cost, normal.gradient, matrix, residual, rows)

    def _alignment(self, X: FloatArray, J: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Alignment residuals (S, T, 6) of tool poses X, and their derivatives (S, T, 6, J)."""
        residual, G = alignment_residual(
            X, self.X_star, self.source_mean, self.root_weight, self.root_K
        )
        return residual, G @ J

    def onto_path(self, q: FloatArray, wanted: FloatArray) -> FloatArray:
        """Trajectories near q (S, T, J) whose alignment residuals are closer to `wanted` (S, T, 6).

        One least-norm Newton step at each time on its own. It corrects for the curvature along an
        arm's self-motion, which a linear model misses and which would otherwise force tiny steps.
        """
        S, T, n = q.shape
        X, J = self.problem.robot.tool_jacobian(q.reshape(-1, n))
        residual, A = self._alignment(X.reshape(S, T, 4, 4), J.reshape(S, T, 6, -1))
        AT = np.swapaxes(A, -1, -2)
        gram = A @ AT  # (S, T, 6, 6)
        gram[..., range(6), range(6)] += _CORRECTION_RIDGE
        step = (AT @ np.linalg.solve(gram, (wanted - residual)[..., None]))[..., 0]
        return q + np.clip(step, -_MAX_CORRECTION, _MAX_CORRECTION)

    def _add_ranges(self, q: FloatArray, normal: _Normal) -> None:
        """Add the cost of joints near the ends of their ranges."""
        over = np.maximum(q - self.upper, 0.0) - np.maximum(self.lower - q, 0.0)  # (S, T, J)
        active = over != 0
        if not active.any():
            return
        weight = 1 / _RANGE_TOLERANCE**2
        normal.cost += weight * np.einsum("stj,stj->s", over, over)
        normal.gradient += weight * over
        normal.bands[:, 0] += weight * active

    def _singularities(self, arm: ArmState) -> ResidualRows | None:
        """Residuals where Yoshikawa's measure m falls short: d log m / dq_j = tr(J^+ dJ/dq_j)."""
        least = self.options.min_manipulability
        if least == 0:
            return None
        J = arm.J.reshape(-1, *arm.J.shape[2:])  # (S T, 6, J)
        measure = np.sqrt(np.maximum(np.linalg.det(J @ np.swapaxes(J, 1, 2)), 0.0))
        at = np.flatnonzero(measure < least)
        if not len(at):
            return None
        residual = (1 - measure[at] / least) / _SINGULAR_TOLERANCE
        slope = -measure[at] / (least * _SINGULAR_TOLERANCE)
        return ResidualRows(at, residual, slope[:, None] * log_manipulability_gradient(J[at]))


def flow_weights(problem: TrackProblem, options: TrackOptions) -> tuple[FloatArray, FloatArray]:
    """Roots (T,), (T, 3, 3) of the position weight and rotation stiffness, per tolerance.

    Weights are relative to the best observed frame, so the number of points does not matter.
    Unobserved rotations are held by the small lever arm `free_rotation`, and the first pose, the
    grasp, in all directions.
    """
    attachment = problem.attachment
    largest = attachment.moments.weight.max()
    share = attachment.moments.weight / largest  # (T,)
    share[0] = 1.0
    share = np.maximum(share, _UNSEEN_WEIGHT)
    K = attachment.K / largest + options.free_rotation**2 * np.eye(3)  # (T, 3, 3)
    K[0] += _GRASP_LEVER**2 * np.eye(3)
    root_K = symmetric_root(K)
    return np.sqrt(share) / options.position_tolerance, root_K / options.position_tolerance


def log_manipulability_gradient(J: FloatArray) -> FloatArray:
    """d log sqrt(det J J^T) / dq (M, J) of world-aligned tool Jacobians (M, 6, J).

    Joint j turns every later axis, and moves the tool relative to every earlier axis:
    dJ_i/dq_j = (w_j x v_i, w_j x w_i) for i >= j, and (w_i x v_j, 0) for i < j.
    """
    # Pseudoinverse J^+ = J^T (J J^T)^-1. A ridge keeps it finite at a singularity and preserves the
    # direction.
    gram = J @ np.swapaxes(J, 1, 2)
    gram += 1e-9 * np.eye(6)
    pseudo = np.swapaxes(np.linalg.solve(gram, J), 1, 2)  # (M, i, 6), row i is the i-th row of J^+
    pv, pw = pseudo[..., :3], pseudo[..., 3:]
    JT = np.swapaxes(J, 1, 2)
    v, w = JT[..., :3], JT[..., 3:]

    # Later axes i >= j: the sum of pv_i . (w_j x v_i) is w_j . (v_i x pv_i), by a . (b x c) = b .
    # (c x a).
    turned = cross(v, pv) + cross(w, pw)  # (M, i, 3)
    later = np.flip(np.cumsum(np.flip(turned, axis=1), axis=1), axis=1)

    # Earlier axes i < j: pv_i . (w_i x v_j) = v_j . (pv_i x w_i).
    moved = cross(pv, w)  # (M, i, 3)
    earlier = np.cumsum(moved, axis=1) - moved

    out: FloatArray = np.einsum("mjc,mjc->mj", w, later) + np.einsum("mjc,mjc->mj", v, earlier)
    return out


def _scatter(target: FloatArray, at: NDArray[np.int64], values: FloatArray) -> None:
    """Add values (M, ...) to blocks of `target`, which `at` (M,) counts over its first two axes.

    The same as np.add.at, several times faster.
    """
    size = int(np.prod(target.shape[2:]))
    index = at[:, None] * size + np.arange(size)
    target += np.bincount(index.ravel(), values.ravel(), target.size).reshape(target.shape)
