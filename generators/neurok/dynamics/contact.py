"""Soft contacts: one-sided potentials that push particles apart or out of an obstacle (B.7).

    half-space       V = sum_i m_i k max(0, h + eps - n . x_i)^2             (eq. 46)
    any obstacle     V = sum_i m_i k max(0, eps - d(x_i))^2                  (d a signed distance)
    the object       V = 1/2 sum_P m_ij k max(0, d_hat - |x_i - x_j|)^2      (eqs. 44-45)

P are the pairs farther apart than d_fit in the rest shape: what is close there is expected to stay
close. Stiffnesses are per kilogram (see `generators.neurok.dynamics.potentials`): a step h is
stable below 2 / h^2, and the default of a contact is 0.2 / h^2, so that longer steps sink in deeper
instead of diverging. The pair's m_ij, 2 m_i m_j / (m_i + m_j), is m if all masses are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from flowplan.collision.distance_field import DistanceField
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from generators.neurok.dynamics.potentials import Potential
from generators.neurok.options import SelfCollision

SignedDistance = Callable[[Tensor], Tensor]
"""Positions (n, 3) to signed distances (n,), negative inside; differentiable by torch."""

Margin = Annotated[float, Interval(0, 1e6)]
Stiffness = Annotated[float, Interval(1e-9, 1e12)]


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """Solid below a plane: particles are kept at normal . x >= height.

    Attributes:
        height: of the plane along the normal.
        normal: (3,) out of the solid; scaled to length 1.
        margin: distance from the plane at which the repulsion begins.
        stiffness: 1/s^2; None for the stiffest that the time step allows.
    """

    height: float
    normal: FloatArray = (0.0, 0.0, 1.0)  # type: ignore[assignment]
    margin: Margin = 0.0
    stiffness: Stiffness | None = None

    def __post_init__(self) -> None:
        bounds.check(self)
        normal = checks.array("HalfSpace.normal", self.normal, (3,))
        length = float(np.linalg.norm(normal))
        if length < 1e-9:
            raise ValueError(
                "HalfSpace.normal: expected a direction, got a vector of length 0; give a non-zero "
                "one"
            )
        object.__setattr__(self, "normal", checks.array("HalfSpace.normal", normal / length, (3,)))

    def potential(self, masses: Tensor, step: float) -> Potential:
        """Repulsion of particles of `masses` (n,) kilograms, for a time step of `step` seconds."""
        stiffness = _stiffness(self.stiffness, step)
        normal = torch.as_tensor(np.array(self.normal)).to(masses)

        def potential(x: Tensor) -> tuple[Tensor, Tensor]:
            depth = (self.height + self.margin - x @ normal).clamp_min(0.0)
            push = stiffness * masses * depth
            return (push * depth).sum(), torch.outer(-2 * push, normal)

        return potential


@dataclass(frozen=True, eq=False)
class Obstacle:
    """A solid given by its signed distance.

    Attributes:
        distance: a voxel field in the frame of the positions, or a function of them.
        margin: distance from the surface at which the repulsion begins.
        stiffness: 1/s^2; None for the stiffest that the time step allows.
    """

    distance: DistanceField | SignedDistance
    margin: Margin = 0.0
    stiffness: Stiffness | None = None

    def __post_init__(self) -> None:
        bounds.check(self)

    def potential(self, masses: Tensor, step: float) -> Potential:
        """Repulsion of particles of `masses` (n,) kilograms, for a time step of `step` seconds."""
        stiffness = _stiffness(self.stiffness, step)

        def potential(x: Tensor) -> tuple[Tensor, Tensor]:
            distance, slope = self._query(x)
            depth = (self.margin - distance).clamp_min(0.0)
            push = stiffness * masses * depth
            return (push * depth).sum(), -2 * push[:, None] * slope

        return potential

    def _query(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distances (n,) of positions (n, 3), and their gradients (n, 3)."""
        if isinstance(self.distance, DistanceField):
            distance, slope = self.distance.query(x.detach().cpu().numpy())
            return x.new_tensor(distance), x.new_tensor(slope)
        with torch.enable_grad():
            points = x.detach().requires_grad_()
            values = self.distance(points)
            if values.shape != x.shape[:1]:
                raise ValueError(
                    f"Obstacle.distance: expected {len(x)} distances for {len(x)} points, got "
                    f"{tuple(values.shape)}"
                )
            (gradient,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradient


def separated_pairs(contact: SelfCollision, rest: Tensor) -> Tensor:
    """The set P of the rest shape (n, 3) as an (n, n) mask, each pair once."""
    return torch.triu(torch.cdist(rest, rest) > contact.apart, diagonal=1)


def self_repulsion(contact: SelfCollision, rest: Tensor, masses: Tensor, step: float) -> Potential:
    """Repulsion between particles that are apart in the rest shape.

    Args:
        contact: see SelfCollision.
        rest: (n, 3) rest shape.
        masses: (n,) kilograms.
        step: time step, seconds.
    """
    both = 2 * masses[:, None] * masses / (masses[:, None] + masses)  # m_ij (n, n)
    # Softer than other contacts: a particle is pushed by several others at once.
    stiffness = _stiffness(contact.stiffness, 2 * step)
    weight = stiffness * torch.where(separated_pairs(contact, rest), both, torch.zeros_like(both))

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        depth = (contact.reach - distance).clamp_min(0.0)
        push = weight * depth
        # For each pair, -push (x_i - x_j) / distance on i and the opposite on j.
        coefficient = push / distance.clamp_min(1e-12)
        coefficient = coefficient + coefficient.T
        gradient = coefficient @ x - coefficient.sum(1)[:, None] * x
        return 0.5 * (push * depth).sum(), gradient

    return potential


def _stiffness(given: float | None, step: float) -> float:
    """The given stiffness, or the default for a time step."""
    return 0.2 / step**2 if given is None else given
