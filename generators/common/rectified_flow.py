"""Rectified flow: a straight line from data z to noise eps over noise levels tau in [0, 1].

    z_tau = (1 - tau) z + tau eps,    v = d z_tau / d tau = eps - z = (z_tau - z) / tau

Liu et al. 2023, Flow Straight and Fast. Noise levels are shifted toward noise as in Esser et al.
2024, Scaling Rectified Flow Transformers (eq. 23): a uniform u in [0, 1] becomes

    tau = s u / (1 + (s - 1) u),    of density s / (s - (s - 1) tau)^2.

Arguments are numbers, numpy arrays or torch tensors alike.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from flowplan.utils.checks import FloatArray

Number = TypeVar("Number", float, FloatArray, Tensor)
"""A float, an array or a tensor."""


def noisy(z: Tensor, eps: Tensor, tau: float | Tensor) -> Tensor:
    """z_tau, the data z mixed with noise eps at level tau."""
    return (1 - tau) * z + tau * eps


def velocity(z_tau: Tensor, z: Tensor, tau: float) -> Tensor:
    """v = (z_tau - z) / tau at a level tau > 0."""
    return (z_tau - z) / tau


def shifted(u: Number, shift: float) -> Number:
    """Noise levels tau of u in [0, 1]; `shift` > 1 moves them toward noise."""
    return shift * u / (1 + (shift - 1) * u)


def unshifted(tau: Number, shift: float) -> Number:
    """The inverse of `shifted`."""
    return tau / (shift - (shift - 1) * tau)


def shifted_density(tau: Number, shift: float) -> Number:
    """Probability density of `shifted` levels of a uniform u."""
    return shift / (shift - (shift - 1) * tau) ** 2
