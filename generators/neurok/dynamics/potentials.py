"""Potential energies of particles, each with its gradient (NeuROK, eqs. 13 and 41).

    gravity            V = -sum_i m_i g . x_i            (g the acceleration of a falling body)
    uniform force      V = -F . sum_i m_i x_i / M        (eq. 41, the force F distributed by mass)
    springs            V = 1/2 sum_i sum_{j in N(i)} m_i k (|x_i - x_j| - |x0_i - x0_j|)^2

Stiffnesses here and in `generators.neurok.dynamics.contact` are per kilogram, 1/s^2: the paper's
k_e is k m. So neither the frequencies nor the longest stable step (of order 2 / sqrt(k)) change
with the number or the mass of the particles. The gradients are written out: they are taken at
positions, and the decoder's Jacobian pulls them back to latents.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.spatial import cKDTree
from torch import Tensor

Potential = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions (n, 3) to the energy () in joules and its gradient (n, 3) in newtons."""


def uniform(force: Tensor) -> Potential:
    """Constant forces (n, 3) on the particles: gravity m_i g, or a force F as m_i F / M."""

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        return -(force * x).sum(), -force

    return potential


def springs(rest: Tensor, masses: Tensor, stiffness: float, neighbors: int) -> Potential:
    """Springs from every particle to its nearest ones in the rest shape, at rest there.

    Args:
        rest: (n, 3) rest shape.
        masses: (n,) kilograms.
        stiffness: 1/s^2, per kilogram of the particle that owns the spring.
        neighbors: springs per particle; all other particles if there are fewer.
    """
    n, k = len(rest), min(neighbors, len(rest) - 1)
    if k < 1:
        return uniform(torch.zeros_like(rest))
    cloud = rest.detach().cpu().numpy()
    near = torch.as_tensor(cKDTree(cloud).query(cloud, k + 1)[1], device=rest.device)  # (n, k + 1)
    # The particle itself is among its nearest, though not always first if two coincide: moved to
    # the end, and cut off.
    own = torch.arange(n, device=rest.device)[:, None]
    others = torch.where(near == own, n, near).sort(1).values[:, :k]
    i, j = own.expand(n, k).reshape(-1), others.reshape(-1)
    length = (rest[i] - rest[j]).norm(dim=-1)
    weight = stiffness * masses[i]

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        d = x[i] - x[j]
        norm = d.norm(dim=-1)
        stretch = norm - length
        pull = (weight * stretch / norm.clamp_min(1e-12))[:, None] * d
        gradient = torch.zeros_like(x).index_add_(0, i, pull).index_add_(0, j, -pull)
        return 0.5 * (weight * stretch**2).sum(), gradient

    return potential
