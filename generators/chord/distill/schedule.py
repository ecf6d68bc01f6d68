"""Schedules over the iterations: the noise level, and values that fall along with it.

The prior decides where things go while much noise hides them, and where exactly while little does.
So the noise level tau falls from 1 to 0, passing every level at the speed at which sampling from a
density w(tau) would have visited it (CHORD, eq. 3-4): after iteration i of I,

    h(tau_i) = 1 - i / (I + 1),    h the cumulative distribution function of w.

The paper does not print w. Wan's public training recipe shifts uniform levels toward noise with
s = 5 ("shift", `generators.common.rectified_flow.shifted_density`) and weighs the loss by
exp(-2 (tau - 1/2)^2) - exp(-1/2) ("bell").
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.chord.options import Density
from generators.common import rectified_flow


def density(tau: FloatArray, kind: Density, shift: float = 5.0) -> FloatArray:
    """w(tau) at noise levels in [0, 1], not normalized."""
    checks.choice("density", kind, get_args(Density))
    bell = np.exp(-2 * (tau - 0.5) ** 2) - np.exp(-0.5)
    shifted = rectified_flow.shifted_density(tau, shift)
    return {
        "uniform": np.ones_like(tau),
        "bell": bell,
        "shift": shifted,
        "shift_bell": shifted * bell,
    }[kind]


def anneal(iterations: int, kind: Density = "shift_bell", shift: float = 5.0) -> FloatArray:
    """Noise levels (I,), falling, strictly between 1 and 0 (eq. 4)."""
    from scipy.integrate import cumulative_simpson

    tau = np.linspace(0.0, 1.0, 20001)
    h = cumulative_simpson(density(tau, kind, shift), x=tau, initial=0)
    # Invert the normalized distribution function by interpolation.
    wanted = 1 - np.arange(1, iterations + 1) / (iterations + 1)
    return np.interp(wanted, h / h[-1], tau)


def linear(ends: tuple[float, float], iterations: int) -> FloatArray:
    """Values (I,) evenly spaced from the first end to the last."""
    return np.linspace(ends[0], ends[1], iterations)


def log_linear(ends: tuple[float, float], iterations: int) -> FloatArray:
    """Values (I,) with evenly spaced logarithms, as is usual for learning rates; ends > 0."""
    first, last = float(np.log(ends[0])), float(np.log(ends[1]))
    return np.exp(linear((first, last), iterations))
