"""Parts that damped Gauss-Newton searches among states share."""

from __future__ import annotations

import torch
from torch import Tensor

from generators.neurok.latent_space.tracked_points import TrackedPoints

_DAMPING = (1e-8, 1e8)


def jacobian(points: TrackedPoints, q: Tensor) -> Tensor:
    """Derivatives (B, M, 3, k) of the positions of tracked points at q (B, k).

    A network in float32 runs in bfloat16: half the time, and a Jacobian right to a percent gives
    steps as good.
    """
    with torch.autocast(q.device.type, torch.bfloat16, enabled=q.dtype == torch.float32):
        return points.linearize(q)[1]


def solve_damped(H: Tensor, g: Tensor, damping: Tensor) -> Tensor:
    """Levenberg-Marquardt steps (B, k).

    Args:
        H: (B, k, k) curvatures.
        g: (B, k) gradients.
        damping: (B, 1), relative to the diagonal of H.
    """
    scale = H.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * scale.amax(-1, keepdim=True) + 1e-30
    return torch.linalg.solve(H + torch.diag_embed(damping * scale + floor), g)


def next_damping(damping: Tensor, better: Tensor) -> Tensor:
    """Damping (B, 1) after steps that were better (B,), or not."""
    return torch.where(better[:, None], damping / 10, damping * 30).clamp(*_DAMPING)


def robust_weight(distance: Tensor, kernel: float) -> Tensor:
    """Weight of a residual under the Geman-McClure penalty d^2 / (1 + d^2 / kernel^2)."""
    return (1 + (distance / kernel).square()).reciprocal().square()
