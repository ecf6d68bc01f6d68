"""Forces on an object: constant or ramped, on a region, for a while (NeuROK, B.5-B.6).

A force field gives every particle a force F(x, x', t); its pullback on the latent coordinates is
Q = J^T F (eq. 39), taken with the Jacobian that the simulation has anyway. `Force` is the field
that people describe in words ("10 N upwards on the rim for half a second"); any other is a
function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from generators.kinematic import minimum_jerk

ForceField = Callable[[Tensor, Tensor, float], Tensor]
"""Positions (n, 3), velocities (n, 3) and time in seconds to forces on the particles (n, 3)."""


@dataclass(frozen=True, eq=False)
class Region:
    """The particles within an axis-aligned box.

    Attributes:
        lower, upper: (3,) corners of the box.
        frame: "rest" to select particles once, by their place in the rest shape; "world" to select
            those in the box at the moment.
    """

    lower: FloatArray
    upper: FloatArray
    frame: Literal["rest", "world"] = "rest"

    def __post_init__(self) -> None:
        lower, upper = (
            checks.array(f"Region.{n}", getattr(self, n), (3,)) for n in ("lower", "upper")
        )
        if not (upper > lower).all():
            raise ValueError(
                f"Region.upper: expected a corner above lower {lower.tolist()}, got "
                f"{upper.tolist()}"
            )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        bounds.check(self)

    def contains(self, points: Tensor) -> Tensor:
        """Mask (n,) of the points (n, 3) in the box."""
        lower, upper = (
            torch.as_tensor(np.array(corner)).to(points) for corner in (self.lower, self.upper)
        )
        return ((points >= lower) & (points <= upper)).all(-1)


@dataclass(frozen=True, eq=False)
class Force:
    """A force in one direction, distributed by mass over the particles that it acts on.

    Attributes:
        vector: (3,) the whole force, newtons, in the frame of the positions.
        region: particles that it acts on; None for all of them.
        points: (H,) indices of the particles that it acts on, instead of a region; or None.
        start, end: seconds between which it acts.
        ramp: seconds over which it grows smoothly from zero after `start`, and decays before `end`
            if that is finite.
    """

    vector: FloatArray
    region: Region | None = None
    points: NDArray[np.int64] | None = None
    start: float = 0.0
    end: float = np.inf
    ramp: Annotated[float, Interval(0, 1e6)] = 0.0

    def __post_init__(self) -> None:
        bounds.check(self)
        object.__setattr__(self, "vector", checks.array("Force.vector", self.vector, (3,)))
        if self.points is not None:
            if self.region is not None:
                raise ValueError("Force.points: got a region as well; give one of the two")
            points = checks.array("Force.points", self.points, ("H",), dtype=np.int64)
            object.__setattr__(self, "points", points)
        if not self.end > self.start:
            raise ValueError(
                f"Force.end: expected a time after start {self.start:g} s, got {self.end:g} s"
            )
        # Growth and decay must both fit.
        if np.isfinite(self.end) and 2 * self.ramp > self.end - self.start:
            raise ValueError(
                f"Force.ramp: growing and decaying over {self.ramp:g} s each does not fit between "
                f"{self.start:g} s and {self.end:g} s; shorten it"
            )

    def strength(self, time: float) -> float:
        """Fraction of the force, in [0, 1], at `time` seconds."""
        if not self.start <= time < self.end:
            return 0.0
        if self.ramp == 0:
            return 1.0
        return float(minimum_jerk(np.array(min(time - self.start, self.end - time) / self.ramp)))

    def field(self, rest: Tensor, masses: Tensor) -> ForceField:
        """The force on every particle of an object.

        Args:
            rest: (n, 3) particles in the rest shape.
            masses: (n,) kilograms.

        Raises:
            ValueError: for points that the object does not have, or an empty region of the rest
                shape.
        """
        # What does not depend on time.
        vector = torch.as_tensor(np.array(self.vector)).to(masses)
        chosen = self._chosen(rest)

        def field(x: Tensor, velocity: Tensor, time: float) -> Tensor:
            strength = self.strength(time)
            if strength == 0.0:
                return torch.zeros_like(x)
            # Shares by mass of the chosen particles.
            on = masses * chosen(x)
            total = on.sum()
            if not total > 0:  # a box in the world may be empty for now
                return torch.zeros_like(x)
            return torch.outer(on / total, strength * vector)

        return field

    def _chosen(self, rest: Tensor) -> Callable[[Tensor], Tensor]:
        """Function from positions (n, 3) to the mask (n,) of particles that the force acts on."""
        if self.region is not None and self.region.frame == "world":
            return self.region.contains
        # Mask (n,) that stays: all particles, listed ones, or those of the rest shape in the box.
        fixed = torch.ones(len(rest), dtype=torch.bool, device=rest.device)
        if self.points is not None:
            if self.points.min() < 0 or self.points.max() >= len(rest):
                raise ValueError(
                    f"Force.points: expected indices below {len(rest)}, got {self.points.min()} to "
                    f"{self.points.max()}"
                )
            fixed[:] = False
            fixed[torch.as_tensor(np.array(self.points), device=rest.device)] = True
        elif self.region is not None:
            fixed = self.region.contains(rest)
            if not fixed.any():
                low, high = (_show(end.values.tolist()) for end in (rest.min(0), rest.max(0)))
                raise ValueError(
                    "Force.region: no particle of the rest shape lies in the box; the shape spans "
                    f"{low} to {high}, move or widen the box"
                )
        return lambda x: fixed


def _show(point: list[float]) -> str:
    return "(" + ", ".join(f"{c:.3g}" for c in point) + ")"
