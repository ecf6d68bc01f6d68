"""Which latent directions matter to an object's shape: its active subspace (4.3; Constantine, Dow & Wang 2014).

With z drawn from the prior, the eigenvectors of C = E[g g^T] with the largest eigenvalues span the directions along
which the shape changes. The paper takes g = grad ||delta(z)||, the deformation's norm: one backward pass a sample,
but a direction that turns the deformation without growing it goes unseen. With g = J^T w, w white noise over the
deformation's entries, C = E[J^T J] at the same price, and none does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from flowplan.utils import checks

Measure = Literal["norm", "jacobian"]


@dataclass(frozen=True)
class ReduceOptions:
    """How many directions are kept, and how they are found."""

    dimension: int | None = 25
    """Latent directions kept (k_q); None keeps the whole latent space."""
    samples: int = 64
    """Latents drawn from the prior; no more directions than gradients are found, so at least `dimension` are drawn."""
    points: int = 128
    """Surface points whose deformation is looked at."""
    measure: Measure = "norm"
    """Whose gradients count: of the norm of the deformation (the paper), or of white-noise projections of it."""

    def __post_init__(self) -> None:
        checks.choice("ReduceOptions.measure", self.measure, ("norm", "jacobian"))
        for field in ("dimension", "samples", "points"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"ReduceOptions.{field}: expected at least 1, got {value}")


SEARCHED = ReduceOptions(dimension=64, samples=128, points=64, measure="jacobian")
"""For a search among states. More directions than the paper's 25: on scans of the tasks (seeds 900 to 902) a drag through
64, found by the whole deformation's derivatives, left two thirds of the error."""
SIMULATED = replace(SEARCHED, dimension=25, points=128)
"""For a simulation, which differentiates along every direction in every step: the paper's number of them."""


def active_subspace(
    deformation: Callable[[Tensor], Tensor],
    latents: Tensor,
    dimension: int,
    measure: Measure = "norm",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The directions of latent space along which a deformation changes most.

    Args:
        deformation: from latents (S, k) to deformations less the identity (S, M, d), differentiable.
        latents: (S, k) draws from the prior.
        dimension: directions wanted, k_q <= min(S, k).
        measure: see ReduceOptions.
        generator: of the noise; only "jacobian" draws any.

    Returns:
        basis (k, k_q) with orthonormal columns, the most active first, and the square roots (k_q,) of C's eigenvalues.

    Raises:
        ValueError: for more directions than latents or latent dimensions.
    """
    most = min(latents.shape)
    if not 1 <= dimension <= most:
        raise ValueError(
            f"dimension: expected 1 to {most}, for {len(latents)} samples of {latents.shape[1]} latent dimensions, "
            f"got {dimension}; draw more samples or keep fewer directions"
        )
    z = latents.detach().requires_grad_(True)
    with torch.enable_grad():
        delta = deformation(z).flatten(1)
        if measure == "norm":
            seen = torch.linalg.vector_norm(delta, dim=1)
        else:
            noise = torch.randn(delta.shape, generator=generator, dtype=delta.dtype)
            seen = (delta * noise.to(delta.device)).sum(1) / delta.shape[1] ** 0.5
        (gradients,) = torch.autograd.grad(seen.sum(), z)
    _, spread, directions = torch.linalg.svd(gradients / len(z) ** 0.5, full_matrices=False)
    return directions[:dimension].T.contiguous(), spread[:dimension]
