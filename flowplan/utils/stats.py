"""Confidence intervals of shares and means."""

from __future__ import annotations

from flowplan.utils.checks import FloatArray


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson score interval (95 %) of a binomial proportion (Wilson, JASA 1927).

    Args:
        k: Successes, 0 <= k <= n.
        n: Trials; the interval of no trials is (0, 1).

    Raises:
        ValueError: If `k` is not between 0 and `n`.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k: expected 0 <= k <= n = {n}, got {k}")
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(values: FloatArray, resamples: int = 5000) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of the mean (Efron, Annals of Statistics 1979).

    The resampling is seeded: equal values give equal intervals.

    Args:
        values: Samples (n,); the interval of a single one is that value twice.
        resamples: Number of bootstrap samples.
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    import numpy as np
    from scipy import stats

    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=0.95,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
