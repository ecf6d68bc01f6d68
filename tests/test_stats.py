"""Intervals of shares and means against published values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from flowplan.utils.stats import bootstrap, wilson


def test_wilson_interval() -> None:
    """Values from Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="k: expected"):
        wilson(3, 2)


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap(values)
    assert low == pytest.approx(values.mean() - 1.96 * 2 / 20, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * 2 / 20, abs=0.03)
    assert bootstrap(np.array([0.3])) == (0.3, 0.3)
