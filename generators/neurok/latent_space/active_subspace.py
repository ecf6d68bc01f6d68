"""Active subspace: the latent directions that change an object's shape most.

Section 4.3; Constantine, Dow & Wang 2014. With z drawn from the prior, the eigenvectors of
C = E[g g^T] with the largest eigenvalues span the directions along which the shape changes. The
paper takes g = grad ||delta(z)||, the deformation's norm: one backward pass per sample, but a
direction that rotates the deformation without growing it is missed. With g = J^T w, w white noise
over the deformation's entries, C = E[J^T J] at the same cost, and no direction is missed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generators.neurok.options import Measure


def active_subspace(
    deformation: Callable[[Tensor], Tensor],
    latents: Tensor,
    dimension: int,
    measure: Measure = "norm",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The directions of latent space along which a deformation changes most.

    Args:
        deformation: from latents (S, k) to deformations less the identity (S, M, d),
            differentiable.
        latents: (S, k) samples of the prior.
        dimension: number of directions, k_q <= min(S, k).
        measure: see ReduceOptions.
        generator: random numbers of the noise; only "jacobian" draws any.

    Returns:
        basis (k, k_q) with orthonormal columns, the most active first, and the square roots (k_q,)
        of C's eigenvalues.

    Raises:
        ValueError: for more directions than latents or latent dimensions.
    """
    most = min(latents.shape)
    if not 1 <= dimension <= most:
        raise ValueError(
            f"dimension: expected 1 to {most}, for {len(latents)} samples of {latents.shape[1]} "
            f"latent dimensions, got {dimension}; draw more samples or keep fewer directions"
        )
    z = latents.detach().requires_grad_(True)
    with torch.enable_grad():
        delta = deformation(z).flatten(1)  # (S, M d)
        if measure == "norm":
            projected = torch.linalg.vector_norm(delta, dim=1)
        else:
            noise = torch.randn(delta.shape, generator=generator, dtype=delta.dtype)
            projected = (delta * noise.to(delta.device)).sum(1) / delta.shape[1] ** 0.5
        (gradients,) = torch.autograd.grad(projected.sum(), z)  # (S, k)
    # The right singular vectors of the gradients are the eigenvectors of C.
    _, spread, directions = torch.linalg.svd(gradients / len(z) ** 0.5, full_matrices=False)
    return directions[:dimension].T.contiguous(), spread[:dimension]
