"""The score of a video under a prior: W-RFSDS (CHORD, eq. 2-3).

With z the latent of a rendered video, z_tau = (1 - tau) z + tau eps its noisy version and v_hat the
velocity that the prior predicts there, the gradient with respect to z is

    g = v_hat - eps + z = (z - z_0) / tau,    z_0 = z_tau - tau v_hat,

where z_0 is the clean video that the prior predicts. The gradient vanishes where prediction and
video agree.

A single prediction at high noise is the mean of all possible outcomes: of the four corners that a
cloth can be folded by, none. Predicted in several steps along straight lines, as in sampling (Liu
et al. 2023, Flow Straight and Fast), z_0 is one of the outcomes. The choice is made at high noise
levels, so that is where the steps are (`generators.common.rectified_flow.shifted`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.chord.priors.protocol import VideoPrior
from generators.common import rectified_flow


@torch.no_grad()
def score(
    prior: VideoPrior,
    z: Tensor,
    tau: float,
    condition: Any,
    *,
    guidance: float,
    generator: torch.Generator,
    steps: int = 1,
    shift: float = 1.0,
) -> Tensor:
    """The gradient g of latents (B, ...).

    Args:
        prior: the video model.
        z: (B, ...) latents of the rendered videos.
        tau: noise level.
        condition: from `prior.condition`.
        guidance: scale of classifier-free guidance.
        generator: source of the noise, on the CPU, so that it is the same on every device.
        steps: steps from noise to the clean video; 1 in the paper.
        shift: shift toward noise of the levels between several steps.
    """
    eps = torch.randn(z.shape, generator=generator).to(z)
    clean = rectified_flow.noisy(z, eps, tau)
    # Euler steps from level tau down to 0.
    for level, next_level in pairwise(_levels(tau, steps, shift)):
        v = prior.velocity(clean, level, condition, guidance=guidance)
        clean = clean - (level - next_level) * v
    return (z - clean) / tau


def _levels(tau: float, steps: int, shift: float) -> list[float]:
    """Noise levels from tau to 0, steps + 1 of them: evenly spaced, then shifted toward noise."""
    u = rectified_flow.unshifted(tau, shift) * np.linspace(1.0, 0.0, steps + 1)
    return rectified_flow.shifted(u, shift).tolist()
