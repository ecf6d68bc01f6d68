"""Velocities, accelerations and jerks of a sampled joint trajectory: their cost, their limits, their derivatives.

Over uneven times these are divided differences, scaled: v = dq/dt, a = 2 [q0, q1, q2], j = 6 [q0, q1, q2, q3]. Each is
linear in up to four neighbouring samples of its own joint, so all second derivatives lie in the bands of
`flowplan.optimizers.block_banded`, and the smoothness cost's are constant.
"""

from __future__ import annotations

import numpy as np

from flowplan.optimizers.block_banded import COUPLED
from flowplan.utils.checks import FloatArray

_OVER = 0.05
"""Share of a limit by which exceeding it costs one unit."""


def difference_rows(times: FloatArray) -> list[FloatArray]:
    """Coefficients (T - k, k + 1) of the k-th derivative, k = 1..3: row r acts on samples r..r + k."""
    rows = [np.ones((len(times), 1))]
    factorial = 1
    for k in range(1, COUPLED + 1):
        factorial *= k
        shorter = rows[-1]
        n = max(len(times) - k, 0)
        longer = np.zeros((n, k + 1))
        if n:
            span = (times[k:] - times[:-k])[:, None]
            longer[:, 1:] += shorter[1:] / span
            longer[:, :-1] -= shorter[:-1] / span
        rows.append(longer)
    return [rows[1], 2 * rows[2], factorial * rows[3]]


class Rates:
    """Smoothness and rate limits over the times of one problem.

    Args:
        times: (T,) seconds.
        limits: (3, J) velocity, acceleration and jerk limits.
        costs: cost, per time, of velocity, acceleration and jerk at their limits.
    """

    def __init__(
        self, times: FloatArray, limits: FloatArray, costs: tuple[float, float, float]
    ) -> None:
        self.rows = difference_rows(times)
        self.limits = limits
        T, J = len(times), limits.shape[1]
        self.bands = np.zeros((COUPLED + 1, T, J))
        for rows, limit, cost in zip(self.rows, limits, costs, strict=True):
            if len(rows) and cost > 0:
                weight = np.broadcast_to(cost / limit**2, (len(rows), J))
                _add_bands(self.bands, rows, weight)

    def values(self, q: FloatArray) -> list[FloatArray]:
        """Derivatives (..., T - k, J), k = 1..3, of trajectories q (..., T, J)."""
        out = []
        for rows in self.rows:
            n, width = rows.shape
            out.append(
                sum(
                    (rows[:, i, None] * q[..., i : i + n, :] for i in range(width)),
                    np.zeros((n, q.shape[-1])),
                )
            )
        return out

    def smoothness(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Cost (S,) of trajectories q (S, T, J), and half its gradient; its half second derivative is `bands`."""
        T = q.shape[1]
        gradient = self.bands[0] * q
        for o in range(1, min(COUPLED + 1, T)):
            gradient[:, o:] += self.bands[o, : T - o] * q[:, : T - o]
            gradient[:, : T - o] += self.bands[o, : T - o] * q[:, o:]
        return np.maximum(np.einsum("stj,stj->s", gradient, q), 0.0), gradient

    def excess(self, q: FloatArray, share: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Cost (S,) of exceeding a share of the limits, half its gradient and half its second derivative.

        Args:
            q: (S, T, J).
            share: of the limits to stay within.

        Returns:
            (S,), (S, T, J) and, in the form of `bands`, (S, 4, T, J).
        """
        S, T, J = q.shape
        cost, gradient, bands = np.zeros(S), np.zeros(q.shape), np.zeros((S, COUPLED + 1, T, J))
        for k, (rows, value, limit) in enumerate(
            zip(self.rows, self.values(q), self.limits, strict=True), start=1
        ):
            over = np.abs(value) / limit - share
            if not len(rows) or not (over > 0).any():
                continue
            residual = np.maximum(over, 0.0) / _OVER
            cost += np.einsum("srj,srj->s", residual, residual)
            slope = np.sign(value) / (_OVER * limit)
            for i in range(k + 1):
                gradient[:, i : i + len(rows)] += rows[:, i, None] * residual * slope
            _add_bands(bands, rows, np.where(over > 0, slope**2, 0.0))
        return cost, gradient, bands

    def fastest(self, q: FloatArray) -> float:
        """Factor by which slowing the clock brings q (T, J) just within every limit; below 1 there is time to spare."""
        return max(
            float((np.abs(value) / limit).max(initial=0.0)) ** (1 / k)
            for k, (value, limit) in enumerate(
                zip(self.values(q), self.limits, strict=True), start=1
            )
        )

    def demanded(self, q: FloatArray, share: float) -> FloatArray:
        """Factor (S,), at least 1, by which the clock of q (S, T, J) must be slowed for nine times in ten.

        The tenth is left to the optimizer to smooth: a flow's jitter should not slow a whole motion.
        """
        factor = np.ones(len(q))
        for k, (value, limit) in enumerate(zip(self.values(q), self.limits, strict=True), start=1):
            if value.size:
                ratio = (np.abs(value) / (share * limit)).max(axis=-1)
                factor = np.maximum(factor, np.quantile(ratio, 0.9, axis=-1) ** (1 / k))
        return factor


def _add_bands(bands: FloatArray, rows: FloatArray, weight: FloatArray) -> None:
    # sum_r weight_r (rows_r rows_r^T), its entry for samples r + i and r + i + o stored at offset o, sample r + i.
    n, width = rows.shape
    for i in range(width):
        for o in range(width - i):
            bands[..., o, i : i + n, :] += (rows[:, i] * rows[:, i + o])[:, None] * weight
