"""What a joint trajectory costs, and its Gauss-Newton model.

    cost(q) =  sum_t w_t/w_max E_t(q_t) / tolerance^2         flow alignment, exact (flowplan.attachment.moments)
             + smoothness, shortness                          of accelerations and velocities
             + hinges: joint ranges, obstacles, self-collision, singularities; and velocity, acceleration, jerk limits

Everything is in units of its tolerance, so one is about one millimetre off the flow. All S seeds are evaluated at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment.moments import alignment_residual, symmetric_root
from flowplan.geometry import cross
from flowplan.optimizers.block_banded import Layout
from flowplan.optimizers.clearance import Arm, Body, Rows
from flowplan.optimizers.finite_differences import Rates
from flowplan.optimizers.protocol import TrackOptions, TrackProblem
from flowplan.utils.checks import FloatArray

_GRASP_LEVER = 0.05
"""Metres: lever arm with which the first pose, which is given, is held in all its rotations."""
_RANGE_TOLERANCE = 0.01
"""Radians (metres) nearer to the end of a joint's range than twice this that cost one unit."""
_SINGULAR_TOLERANCE = 2.0
"""Share of the least manipulability by which falling short of it costs one unit: enough to choose among self-motions,
too little to leave the flow for."""
_CORRECTION_RIDGE = 100.0
"""Added to (residual per radian)^2: near singularities corrections stay small."""
_LONGEST_CORRECTION = 0.2
"""Radians (metres) that a correction may move any joint."""


@dataclass(frozen=True)
class Stage:
    """Which hinges count, and how much.

    Attributes:
        collision: factor on the cost of collisions.
        limits: are velocity, acceleration and jerk limits enforced?
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
        rows: (S, T, 6, J) its derivative.
    """

    cost: FloatArray
    gradient: FloatArray
    matrix: FloatArray
    residual: FloatArray
    rows: FloatArray

    def where(self, better: NDArray[np.bool_], old: Quadratic) -> Quadratic:
        """This model for the seeds (S,) that are `better`, and the old one for the others."""
        if better.all():
            return self

        def pick(new: FloatArray, old: FloatArray) -> FloatArray:
            return np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return Quadratic(*(pick(getattr(self, f.name), getattr(old, f.name)) for f in fields(self)))

    def select(self, seeds: NDArray[np.int64]) -> Quadratic:
        """The model of some seeds."""
        return Quadratic(*(getattr(self, f.name)[seeds] for f in fields(self)))


class Objective:
    """The cost of one problem, with everything that does not change computed once."""

    def __init__(self, problem: TrackProblem, options: TrackOptions) -> None:
        robot, attachment = problem.robot, problem.attachment
        T, J = len(problem.times), len(robot.joint_names)
        self.problem, self.options = problem, options
        self.body = Body(problem, options)
        self.layout = Layout(T, J)
        self.slowed = 0.0
        self.slow_down(1.0)
        self.root_weight, self.root_K = flow_weights(problem, options)
        self.X_star = attachment.X_world_tool
        self.source_mean = attachment.moments.source_mean
        self.shown = _shown(attachment.K)
        self.lower = robot.lower + 2 * _RANGE_TOLERANCE
        self.upper = robot.upper - 2 * _RANGE_TOLERANCE

    def slow_down(self, factor: float) -> None:
        """Count smoothness and limits for the problem's clock, slowed by this factor.

        A flow faster than the arm will be followed at a slower clock, and should not be left for its speed.
        """
        if factor == self.slowed:
            return
        robot, options = self.problem.robot, self.options
        limits = np.stack([robot.velocity, robot.acceleration, robot.jerk])
        self.slowed = factor
        self.rates = Rates(
            self.problem.times * factor, limits, (options.shortness, options.smoothness, 0.0)
        )

    def evaluate(self, q: FloatArray, stage: Stage) -> Quadratic:
        """The cost at trajectories q (S, T, J)."""
        S, T, J = q.shape
        arm = self.body.arm(q)
        own, following = np.zeros((S, T, J, J)), np.zeros((S, T - 1, J, J))
        cost, gradient = self.rates.smoothness(q)
        bands = np.repeat(self.rates.bands[None], S, axis=0)
        if stage.limits:
            excess = self.rates.excess(q, self.options.limit_share)
            for total, part in zip((cost, gradient, bands), excess, strict=True):
                total += part
        residual, rows = self._alignment(arm.X, arm.J)
        cost += np.einsum("sti,sti->s", residual, residual)
        gradient += (residual[..., None, :] @ rows)[..., 0, :]
        own += np.swapaxes(rows, -1, -2) @ rows
        self._ranges(q, cost, gradient, bands)
        for near in self.body.obstacle_rows(arm):
            _accumulate(near, stage.collision, cost, gradient, own, following)
        _accumulate(self.body.self_rows(arm), stage.collision, cost, gradient, own, following)
        singular = self._singularities(arm)
        if singular is not None:
            _accumulate(singular, 1.0, cost, gradient, own, following)
        return Quadratic(cost, gradient, self.layout.pack(own, following, bands), residual, rows)

    def _alignment(self, X: FloatArray, J: FloatArray) -> tuple[FloatArray, FloatArray]:
        residual, G = alignment_residual(
            X, self.X_star, self.source_mean, self.root_weight, self.root_K
        )
        return residual, G @ J

    def onto_path(self, q: FloatArray, wanted: FloatArray) -> FloatArray:
        """Trajectories near q (S, T, J) whose alignment residuals are nearer to `wanted` (S, T, 6).

        One least-change Newton step of every time by itself. It takes back what a long step along the self-motion of an
        arm loses to curvature, which a linear model cannot see and which otherwise forces tiny steps.
        """
        X, J = self.problem.robot.tool_jacobian(q.reshape(-1, q.shape[-1]))
        residual, A = self._alignment(X.reshape(*q.shape[:2], 4, 4), J.reshape(*q.shape[:2], 6, -1))
        AT = np.swapaxes(A, -1, -2)
        gram = A @ AT
        gram[..., range(6), range(6)] += _CORRECTION_RIDGE
        step = (AT @ np.linalg.solve(gram, (wanted - residual)[..., None]))[..., 0]
        return q + np.clip(step, -_LONGEST_CORRECTION, _LONGEST_CORRECTION)

    def _ranges(
        self, q: FloatArray, cost: FloatArray, gradient: FloatArray, bands: FloatArray
    ) -> None:
        over = np.maximum(q - self.upper, 0.0) - np.maximum(self.lower - q, 0.0)
        active = over != 0
        if not active.any():
            return
        weight = 1 / _RANGE_TOLERANCE**2
        cost += weight * np.einsum("stj,stj->s", over, over)
        gradient += weight * over
        bands[:, 0] += weight * active

    def _singularities(self, arm: Arm) -> Rows | None:
        """Residuals where Yoshikawa's measure m falls short: d log m / dq_j = tr(J^+ dJ/dq_j)."""
        least = self.options.min_manipulability
        if least == 0:
            return None
        J = arm.J.reshape(-1, *arm.J.shape[2:])
        measure = np.sqrt(np.maximum(np.linalg.det(J @ np.swapaxes(J, 1, 2)), 0.0))
        at = np.flatnonzero(measure < least)
        if not len(at):
            return None
        residual = (1 - measure[at] / least) / _SINGULAR_TOLERANCE
        slope = -measure[at] / (least * _SINGULAR_TOLERANCE)
        return Rows(at, residual, slope[:, None] * log_manipulability_gradient(J[at]))

    def position_error(self, X: FloatArray) -> FloatArray:
        """Metres (T,) from the middle of the patch, carried by tool poses (T, 4, 4), to the flow; 0 where unseen."""
        gap = (X[:, :3, :3] - self.X_star[:, :3, :3]) @ self.source_mean[..., None]
        error = np.linalg.norm(gap[..., 0] + X[:, :3, 3] - self.X_star[:, :3, 3], axis=-1)
        return np.where(self.problem.attachment.moments.weight > 0, error, 0.0)

    def rotation_error(self, X: FloatArray) -> FloatArray:
        """Radians (T,) off the flow of tool poses (T, 4, 4), over the rotations that it shows."""
        residual, _ = alignment_residual(
            X, self.X_star, self.source_mean, self.root_weight, self.shown
        )
        half = np.minimum(np.linalg.norm(residual[:, 3:], axis=-1) / 2, 1.0)
        return 2 * np.arcsin(half)


def flow_weights(problem: TrackProblem, options: TrackOptions) -> tuple[FloatArray, FloatArray]:
    """Roots (T,), (T, 3, 3) of the position weight and rotation stiffness, per tolerance.

    The weights of the flow are relative to the best seen frame, so the number of points does not matter. Rotations that
    it does not show are held by the small lever arm `free_rotation`, and the first pose, the grasp, in all directions.
    """
    attachment = problem.attachment
    share = attachment.moments.weight / attachment.moments.weight.max()
    K = attachment.K / attachment.moments.weight.max() + options.free_rotation**2 * np.eye(3)
    K[0] += _GRASP_LEVER**2 * np.eye(3)
    share[0] = 1.0
    # A frame that nobody saw keeps its bridge pose by a hundredth of the weight of the others.
    share = np.maximum(share, 1e-2)
    return np.sqrt(share) / options.position_tolerance, symmetric_root(
        K
    ) / options.position_tolerance


def _shown(K: FloatArray) -> FloatArray:
    """Projections (T, 3, 3) onto the rotations that the flow shows."""
    values, vectors = np.linalg.eigh(K)
    return (vectors * (values > 1e-9 * values[:, -1:])[:, None, :]) @ np.swapaxes(vectors, 1, 2)


def log_manipulability_gradient(J: FloatArray) -> FloatArray:
    """d log sqrt(det J J^T) / dq (M, J) of world-aligned tool Jacobians (M, 6, J).

    Joint j turns every axis further out with it, and moves the tool as seen from every axis further in:
    dJ_i/dq_j = (w_j x v_i, w_j x w_i) for i >= j, and (w_i x v_j, 0) for i < j.
    """
    JT = np.swapaxes(J, 1, 2)
    # A singular Jacobian has no gradient; the ridge makes it finite and leaves the direction.
    gram = J @ JT
    gram += 1e-9 * np.eye(6)
    inverse = np.linalg.solve(gram, J)  # (M, 6, i): column i is the i-th row of J^+
    v, w = JT[..., :3], JT[..., 3:]
    pv, pw = np.swapaxes(inverse, 1, 2)[..., :3], np.swapaxes(inverse, 1, 2)[..., 3:]
    # a . (b x c) = b . (c x a): sum over i of pv_i . (w_j x v_i) is w_j . (v_i x pv_i).
    turned = cross(v, pv) + cross(w, pw)  # (M, i, 3)
    outer = np.flip(np.cumsum(np.flip(turned, axis=1), axis=1), axis=1)  # sum over i >= j
    moved = cross(pv, w)  # pv_i . (w_i x v_j) = v_j . (pv_i x w_i)
    inner = np.cumsum(moved, axis=1) - moved  # sum over i < j
    out: FloatArray = np.einsum("mjc,mjc->mj", w, outer) + np.einsum("mjc,mjc->mj", v, inner)
    return out


def _accumulate(
    rows: Rows,
    weight: float,
    cost: FloatArray,
    gradient: FloatArray,
    own: FloatArray,
    following: FloatArray,
) -> None:
    if not len(rows.at):
        return
    S, T = gradient.shape[:2]
    scaled = weight * rows.residual
    cost += np.bincount(rows.at // T, scaled * rows.residual, S)
    _scatter(gradient, rows.at, scaled[:, None] * rows.row)
    _scatter(own, rows.at, weight * rows.row[:, :, None] * rows.row[:, None, :])
    if rows.following is not None:
        _scatter(gradient, rows.at + 1, scaled[:, None] * rows.following)
        _scatter(own, rows.at + 1, weight * rows.following[:, :, None] * rows.following[:, None, :])
        s, t = np.divmod(rows.at, T)
        _scatter(
            following, s * (T - 1) + t, weight * rows.following[:, :, None] * rows.row[:, None, :]
        )


def _scatter(target: FloatArray, at: NDArray[np.int64], values: FloatArray) -> None:
    # np.add.at over whole blocks, several times faster: `at` counts the blocks of target's first two axes.
    size = int(np.prod(target.shape[2:]))
    index = at[:, None] * size + np.arange(size)
    target += np.bincount(index.ravel(), values.ravel(), target.size).reshape(target.shape)
