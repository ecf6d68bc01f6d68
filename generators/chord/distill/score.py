"""What a prior would change in a video: the gradient of W-RFSDS (CHORD, eq. 2-3).

With z the latent of a rendered video, z_tau = (1 - tau) z + tau eps its noisy version and v_hat the velocity that the
prior expects there, the gradient with respect to z is

    g = v_hat - eps + z = (z - z_0) / tau,    z_0 = z_tau - tau v_hat,

z_0 being the clean video that the prior sees in the noise. It vanishes where the prior sees what is there.

One look at much noise shows a mean of all that might be: of the four corners that a cloth can be folded by, none. Looked at
in several steps, on a straight line each, as when sampling (Liu et al. 2023, Flow Straight and Fast), z_0 is one of the
things that might be. What is smooth shows through a lot of noise, so that this is settled at high levels, and that is where
the steps are (Esser et al. 2024, Scaling Rectified Flow Transformers).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.chord.priors.protocol import VideoPrior


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
    """g of latents (B, ...).

    Args:
        generator: on the CPU, makes the noise, so that it is the same on every device.
        steps: from noise to the clean video; 1 in the paper.
        shift: of the levels between the steps toward noise, where there are several.
    """
    eps = torch.randn(z.shape, generator=generator).to(z)
    clean = (1 - tau) * z + tau * eps
    for level, less in pairwise(_levels(tau, steps, shift)):
        clean = clean - (level - less) * prior.velocity(clean, level, condition, guidance=guidance)
    return (z - clean) / tau


def _levels(tau: float, steps: int, shift: float) -> list[float]:
    """steps + 1 noise levels from tau to 0: even ones u, moved toward noise as shift u / (1 + (shift - 1) u)."""
    u = tau / (shift - (shift - 1) * tau) * np.linspace(1.0, 0.0, steps + 1)
    return (shift * u / (1 + (shift - 1) * u)).tolist()
