"""CHORD's schedules against their closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from generators.chord.distill.schedule import anneal, density, linear, log_linear

I = 2000
LEFT = 1 - np.arange(1, I + 1) / (I + 1)  # h(tau_i)


def test_uniform_noise_falls_evenly():
    assert np.abs(anneal(I, "uniform") - LEFT).max() < 1e-12


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_shifted_noise_is_the_inverse_of_its_distribution(shift):
    assert np.abs(anneal(I, "shift", shift) - shift * LEFT / (1 + (shift - 1) * LEFT)).max() < 1e-7


def test_bell_has_the_distribution_function_of_a_gaussian_less_a_constant():
    tau = anneal(I, "bell")

    def h(t):
        return (
            np.sqrt(np.pi / 8) * (erf(np.sqrt(2) * (t - 0.5)) + erf(np.sqrt(0.5)))
            - np.exp(-0.5) * t
        )

    assert np.abs(h(tau) / h(1.0) - LEFT).max() < 1e-7


def test_product_of_both_against_quadrature():
    tau = anneal(99, "shift_bell")
    whole = quad(lambda t: density(np.array(t), "shift_bell"), 0, 1)[0]
    for i in (0, 40, 98):
        below = quad(lambda t: density(np.array(t), "shift_bell"), 0, tau[i])[0]
        assert below / whole == pytest.approx(1 - (i + 1) / 100, abs=1e-6)


def test_iterations_spent_in_much_noise():
    counts = {
        kind: int((anneal(I, kind) >= 0.9).sum())
        for kind in ("uniform", "bell", "shift", "shift_bell")
    }
    assert counts == {"uniform": 200, "bell": 48, "shift": 714, "shift_bell": 201}


@pytest.mark.parametrize("kind", ["uniform", "bell", "shift", "shift_bell"])
@pytest.mark.parametrize("iterations", [1, 7, 2000])
def test_noise_falls_and_stays_between_all_and_none(kind, iterations):
    tau = anneal(iterations, kind)
    assert tau.shape == (iterations,)
    assert 0 < tau[-1] <= tau[0] < 1
    assert np.all(np.diff(tau) < 0)


def test_unknown_density_names_the_choices():
    with pytest.raises(
        ValueError, match="density: got 'gauss', expected one of uniform, bell, shift, shift_bell"
    ):
        anneal(10, "gauss")


def test_rates_fall_by_a_constant_factor_and_weights_by_a_constant_step():
    rates = log_linear((6e-3, 6e-5), 5)
    assert rates[[0, -1]] == pytest.approx([6e-3, 6e-5])
    assert rates[1:] / rates[:-1] == pytest.approx(np.full(4, 0.01**0.25))
    assert linear((25.0, 12.0), 3) == pytest.approx([25, 18.5, 12])
