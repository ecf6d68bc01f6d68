"""Rates of a sampled joint trajectory (velocity, acceleration, jerk): cost, limits, derivatives.

Over uneven times these are scaled divided differences, v = dq/dt, a = 2 [q0, q1, q2], j = 6 [q0,
q1, q2, q3]. Each is linear in up to four neighboring samples of its own joint, so all second
derivatives lie in the bands of `flowplan.optimizers.block_banded`, and those of the smoothness cost
are constant.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowplan.optimizers.block_banded import COUPLED
from flowplan.utils.checks import FloatArray

_LIMIT_TOLERANCE = 0.05
"""Excess over a rate limit that costs one unit, as a share of the limit."""


def difference_rows(times: FloatArray) -> list[FloatArray]:
    """Coefficients (T - k, k + 1) of derivative k = 1..3; row r acts on samples r..r + k."""
    rows = [np.ones((len(times), 1))]
    factorial = 1
    for k in range(1, COUPLED + 1):
        factorial *= k
        shorter = rows[-1]  # divided differences of order k - 1
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
        costs: cost per time of velocity, acceleration and jerk at their limits.
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
            terms = (rows[:, i, None] * q[..., i : i + n, :] for i in range(width))
            out.append(sum(terms, np.zeros((n, q.shape[-1]))))
        return out

    def smoothness(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Cost (S,) of q (S, T, J) and half its gradient; half its Hessian is `bands`."""
        T = q.shape[1]
        gradient = self.bands[0] * q
        for o in range(1, min(COUPLED + 1, T)):
            band = self.bands[o, : T - o]
            gradient[:, o:] += band * q[:, : T - o]
            gradient[:, : T - o] += band * q[:, o:]
        cost = np.einsum("stj,stj->s", gradient, q)
        return np.maximum(cost, 0.0), gradient

    def excess(self, q: FloatArray, share: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Cost of exceeding a share of the limits, with half its gradient and half its Hessian.

        Args:
            q: (S, T, J) trajectories.
            share: share of the limits to stay within.

        Returns:
            (S,), (S, T, J) and, in the form of `bands`, (S, 4, T, J).
        """
        S, T, J = q.shape
        cost, gradient, bands = np.zeros(S), np.zeros(q.shape), np.zeros((S, COUPLED + 1, T, J))
        for k, value, limit in self._orders(q):
            rows = self.rows[k - 1]
            over = np.abs(value) / limit - share  # (S, T - k, J)
            if not len(rows) or not (over > 0).any():
                continue
            residual = np.maximum(over, 0.0) / _LIMIT_TOLERANCE
            cost += np.einsum("srj,srj->s", residual, residual)
            slope = np.sign(value) / (_LIMIT_TOLERANCE * limit)
            for i in range(k + 1):
                gradient[:, i : i + len(rows)] += rows[:, i, None] * residual * slope
            _add_bands(bands, rows, np.where(over > 0, slope**2, 0.0))
        return cost, gradient, bands

    def fastest(self, q: FloatArray) -> float:
        """Factor on the times of q (T, J) that just meets all limits; below 1 if there is slack."""
        factors = []
        for k, value, limit in self._orders(q):
            worst = float((np.abs(value) / limit).max(initial=0.0))
            factors.append(worst ** (1 / k))
        return max(factors)

    def demanded(self, q: FloatArray, share: float) -> FloatArray:
        """Factor (S,) >= 1 on the times of q (S, T, J) at which 90 % of samples meet the limits.

        The optimizer smooths the other 10 %: a flow's jitter should not slow down the motion.
        """
        factor = np.ones(len(q))
        for k, value, limit in self._orders(q):
            if value.size:
                ratio = (np.abs(value) / (share * limit)).max(axis=-1)  # (S, T - k)
                factor = np.maximum(factor, np.quantile(ratio, 0.9, axis=-1) ** (1 / k))
        return factor

    def _orders(self, q: FloatArray) -> Iterator[tuple[int, FloatArray, FloatArray]]:
        """Order k = 1..3, derivative (..., T - k, J) and limit (J,)."""
        for k, (value, limit) in enumerate(zip(self.values(q), self.limits, strict=True), start=1):
            yield k, value, limit


def _add_bands(bands: FloatArray, rows: FloatArray, weight: FloatArray) -> None:
    """Add sum_r weight_r (rows_r rows_r^T) to bands, entry (r + i, r + i + o) at [o, r + i]."""
    n, width = rows.shape
    for i in range(width):
        for o in range(width - i):
            product = rows[:, i] * rows[:, i + o]
            bands[..., o, i : i + n, :] += product[:, None] * weight
