"""Soft contacts: one-sided potentials that push particles apart or out of an obstacle (NeuROK, appendix B.7).

    half-space       V = sum_i m_i k max(0, h + eps - n . x_i)^2             (eq. 46)
    any obstacle     V = sum_i m_i k max(0, eps - d(x_i))^2                  (d a signed distance)
    the object       V = 1/2 sum_P m_ij k max(0, d_hat - |x_i - x_j|)^2      (eqs. 44-45)

P are the pairs farther apart than d_fit in the rest shape: what is close there is expected to stay close. Stiffnesses
are per kilogram (see `generators.neurok.dynamics.potentials`): a step h is stable below 2 / h^2, and 0.2 / h^2 is what a contact
has unless told otherwise, so that longer steps sink in deeper rather than fly off. The pair's m_ij, 2 m_i m_j / (m_i + m_j),
is m where all masses are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowplan.collision.distance_field import DistanceField
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.neurok.dynamics.potentials import Potential

SignedDistance = Callable[[Tensor], Tensor]
"""Positions (n, 3) to signed distances (n,), negative inside; differentiable by torch."""


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """Everything below a plane is solid: particles are kept where normal . x >= height.

    Attributes:
        height: of the plane along the normal.
        normal: (3,) out of the solid; made a unit vector.
        margin: distance from the plane at which the push begins.
        stiffness: 1/s^2; None is as stiff as the step bears.
    """

    height: float
    normal: FloatArray = (0.0, 0.0, 1.0)  # type: ignore[assignment]
    margin: float = 0.0
    stiffness: float | None = None

    def __post_init__(self) -> None:
        normal = checks.array("HalfSpace.normal", self.normal, (3,))
        length = float(np.linalg.norm(normal))
        if length < 1e-9:
            raise ValueError(
                "HalfSpace.normal: expected a direction, got a vector of length 0; give a non-zero one"
            )
        object.__setattr__(self, "normal", checks.array("HalfSpace.normal", normal / length, (3,)))
        checks.positive("HalfSpace.margin", self.margin, zero=True)
        _stiffness("HalfSpace.stiffness", self.stiffness, 1.0)

    def potential(self, masses: Tensor, step: float) -> Potential:
        """The push on particles of `masses` (n,) kilograms, where time goes by `step` seconds."""
        stiffness = _stiffness("stiffness", self.stiffness, step)
        normal = torch.as_tensor(np.array(self.normal)).to(masses)

        def potential(x: Tensor) -> tuple[Tensor, Tensor]:
            depth = (self.height + self.margin - x @ normal).clamp_min(0.0)
            push = stiffness * masses * depth
            return (push * depth).sum(), torch.outer(-2 * push, normal)

        return potential


@dataclass(frozen=True, eq=False)
class Obstacle:
    """A solid known by its signed distance.

    Attributes:
        distance: a voxel field in the frame of the positions, or a function of them.
        margin: distance from the surface at which the push begins.
        stiffness: 1/s^2; None is as stiff as the step bears.
    """

    distance: DistanceField | SignedDistance
    margin: float = 0.0
    stiffness: float | None = None

    def __post_init__(self) -> None:
        checks.positive("Obstacle.margin", self.margin, zero=True)
        _stiffness("Obstacle.stiffness", self.stiffness, 1.0)

    def potential(self, masses: Tensor, step: float) -> Potential:
        """The push on particles of `masses` (n,) kilograms, where time goes by `step` seconds."""
        stiffness = _stiffness("stiffness", self.stiffness, step)

        def potential(x: Tensor) -> tuple[Tensor, Tensor]:
            distance, slope = self._query(x)
            depth = (self.margin - distance).clamp_min(0.0)
            push = stiffness * masses * depth
            return (push * depth).sum(), -2 * push[:, None] * slope

        return potential

    def _query(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.distance, DistanceField):
            distance, slope = self.distance.query(x.detach().cpu().numpy())
            return x.new_tensor(distance), x.new_tensor(slope)
        with torch.enable_grad():
            points = x.detach().requires_grad_()
            values = self.distance(points)
            if values.shape != x.shape[:1]:
                raise ValueError(
                    f"Obstacle.distance: expected {len(x)} distances for {len(x)} points, got {tuple(values.shape)}"
                )
            (slope_,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), slope_


@dataclass(frozen=True)
class SelfCollision:
    """The object's own particles keep a distance, where the rest shape has them apart."""

    reach: float
    """Distance at which two particles begin to push: d_hat."""
    apart: float
    """Pairs closer than this in the rest shape never push: d_fit, at least `reach`."""
    stiffness: float | None = None
    """1/s^2; None is as stiff as the step bears, for a few pairs at a time."""

    def __post_init__(self) -> None:
        checks.positive("SelfCollision.reach", self.reach)
        _stiffness("SelfCollision.stiffness", self.stiffness, 1.0)
        if not self.apart >= self.reach:
            raise ValueError(
                f"SelfCollision.apart: expected at least reach = {self.reach:g}, got {self.apart:g}; "
                "pairs in between would push in the rest shape"
            )

    def pairs(self, rest: Tensor) -> Tensor:
        """(n, n) bool: the set P of the rest shape (n, 3), each pair once."""
        return torch.triu(torch.cdist(rest, rest) > self.apart, diagonal=1)

    def potential(self, rest: Tensor, masses: Tensor, step: float) -> Potential:
        """The push between particles of `masses` (n,) kilograms that the rest shape (n, 3) has apart."""
        both = 2 * masses[:, None] * masses / (masses[:, None] + masses)
        # A particle is pushed by several others at once.
        weight = _stiffness("stiffness", self.stiffness, 2 * step) * torch.where(
            self.pairs(rest), both, torch.zeros_like(both)
        )

        def potential(x: Tensor) -> tuple[Tensor, Tensor]:
            gap = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
            depth = (self.reach - gap).clamp_min(0.0)
            push = weight * depth
            # Per pair -push (x_i - x_j) / gap on i and the opposite on j.
            coefficient = push / gap.clamp_min(1e-12)
            coefficient = coefficient + coefficient.T
            gradient = coefficient @ x - coefficient.sum(1)[:, None] * x
            return 0.5 * (push * depth).sum(), gradient

        return potential


def _stiffness(field: str, given: float | None, step: float) -> float:
    return 0.2 / step**2 if given is None else checks.positive(field, given)
