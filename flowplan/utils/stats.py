"""How sure a counted share is, or a mean."""

from __future__ import annotations

import math

import numpy as np

from flowplan.utils.checks import FloatArray


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson, JASA 1927): where the true one lies, having seen k of n.

        (p + z^2/2n  +-  z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n),    p = k/n

    Args:
        k: successes, 0 <= k <= n.
        n: trials; with none the interval is (0, 1).
        z: quantile of the normal distribution, for 95 % by default.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k: expected 0 <= k <= n = {n}, got {k}")
    if n == 0:
        return 0.0, 1.0
    p = k / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def bootstrap(values: FloatArray, resamples: int = 5000) -> tuple[float, float]:
    """Percentile 95 % interval of the mean of values (n,) (Efron 1979); the value itself where there is one alone."""
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)
