"""Symmetric block-banded systems of a trajectory: T blocks of J unknowns, coupled to
the next three.

Costs of a joint trajectory q (T, J) couple neighboring times only: a pose one, a swept collision
check two, an acceleration three, a jerk four. With unknowns in the order t J + j, their normal
equations have 3 J subdiagonals, and a banded Cholesky factorization solves them in time linear in
T.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import dpbsv

from flowplan.utils.checks import FloatArray

COUPLED = 3
"""Number of following blocks that a block is coupled to."""


class BandedLayout:
    """Positions of the blocks of S systems in LAPACK's lower banded storage ab[i - j, j] = A[i, j].

    Args:
        T: number of blocks.
        J: unknowns per block.
    """

    def __init__(self, T: int, J: int) -> None:
        self.T, self.J = T, J
        self.rows = COUPLED * J + 1

        # Flat positions of the lower triangle of each diagonal block.
        t = np.arange(T)[:, None]
        a, b = np.tril_indices(J)
        self._lower = (a, b)
        self._diagonal = ((a - b) * T * J + t * J + b).ravel()

        # Flat positions of each block below the diagonal.
        a, b = (i.ravel() for i in np.indices((J, J)))
        self._subdiagonal = ((J + a - b) * T * J + t[:-1] * J + b).ravel()

    def pack(self, own: FloatArray, following: FloatArray, bands: FloatArray) -> FloatArray:
        """Banded matrices (S, 3 J + 1, T J).

        Args:
            own: (S, T, J, J) symmetric diagonal blocks.
            following: (S, T - 1, J, J) blocks in the rows of time t + 1 and the columns of time t.
            bands: (S, 4, T, J) entries that couple a joint to itself at times t and t + offset, at
                column t.
        """
        S, T, J = len(own), self.T, self.J
        ab = np.zeros((S, self.rows, T * J))
        ab[:, ::J] = bands.reshape(S, COUPLED + 1, T * J)
        flat = ab.reshape(S, -1)
        a, b = self._lower
        flat[:, self._diagonal] += own[:, :, a, b].reshape(S, -1)
        flat[:, self._subdiagonal] += following.reshape(S, -1)
        return ab

    def solve(self, ab: FloatArray, rhs: FloatArray) -> FloatArray:
        """Solutions (S, T, J) for right-hand sides (S, T, J); NaN if a system is indefinite."""
        out = np.empty_like(rhs)
        n = self.T * self.J
        rows = min(self.rows, n)  # the further rows of a short trajectory are empty
        for s in range(len(rhs)):
            _, x, info = dpbsv(ab[s, :rows], rhs[s].reshape(-1), lower=1)
            out[s] = x.reshape(self.T, self.J) if info == 0 else np.nan
        return out
