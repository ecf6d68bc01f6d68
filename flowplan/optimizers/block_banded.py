"""Symmetric block-banded systems of a trajectory: T blocks of J unknowns, each coupled to the three that follow.

Costs of a joint trajectory q (T, J) touch neighbouring times only: a pose one, a swept collision check two, an
acceleration three, a jerk four. Their normal equations, unknowns in the order t J + j, have 3 J subdiagonals, and a
banded Cholesky factorisation solves them in time linear in T.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpbsv

from flowplan.utils.checks import FloatArray

COUPLED = 3
"""Blocks after its own that a block is coupled to."""


class Layout:
    """Where the blocks of S systems go in LAPACK's lower banded storage ab[i - j, j] = A[i, j].

    Args:
        T: blocks.
        J: unknowns per block.
    """

    def __init__(self, T: int, J: int) -> None:
        self.T, self.J = T, J
        self.rows = COUPLED * J + 1
        t, a, b = np.arange(T)[:, None], *np.tril_indices(J)
        self._own = ((a - b) * T * J + t * J + b).ravel()
        self._own_ab = (a, b)
        a, b = (i.ravel() for i in np.indices((J, J)))
        self._next = ((J + a - b) * T * J + t[:-1] * J + b).ravel()

    def pack(self, own: FloatArray, following: FloatArray, bands: FloatArray) -> FloatArray:
        """Banded matrices (S, 3 J + 1, T J).

        Args:
            own: (S, T, J, J) symmetric diagonal blocks.
            following: (S, T - 1, J, J) blocks in the rows of time t + 1 and the columns of time t.
            bands: (S, 4, T, J) entries that couple a joint to itself at times t and t + offset, at column t.
        """
        S, T, J = len(own), self.T, self.J
        ab = np.zeros((S, self.rows, T * J))
        ab[:, ::J] = bands.reshape(S, COUPLED + 1, T * J)
        flat = ab.reshape(S, -1)
        a, b = self._own_ab
        flat[:, self._own] += own[:, :, a, b].reshape(S, -1)
        flat[:, self._next] += following.reshape(S, -1)
        return ab

    def multiply(self, ab: FloatArray, x: FloatArray) -> FloatArray:
        """Products (S, T, J) of packed matrices with x (S, T, J)."""
        S, n = len(ab), self.T * self.J
        v = x.reshape(S, n)
        out = ab[:, 0] * v
        for k in range(1, min(self.rows, n)):
            out[:, k:] += ab[:, k, : n - k] * v[:, : n - k]
            out[:, : n - k] += ab[:, k, : n - k] * v[:, k:]
        return out.reshape(x.shape)

    def solve(self, ab: FloatArray, rhs: FloatArray) -> FloatArray:
        """Solutions (S, T, J) for right-hand sides (S, T, J); NaN where a system is not positive definite."""
        out = np.empty_like(rhs)
        n = self.T * self.J
        for s in range(len(rhs)):
            # Rows beyond the size of a short trajectory hold nothing.
            _, x, info = dpbsv(ab[s, : min(self.rows, n)], rhs[s].reshape(-1), lower=1)
            out[s] = x.reshape(self.T, self.J) if info == 0 else np.nan
        return out
