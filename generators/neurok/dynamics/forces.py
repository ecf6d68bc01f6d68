"""Forces that an action puts on an object: constant or ramped, on a region, for a while (NeuROK, appendices B.5-B.6).

A force field gives every particle a force F(x, x', t); the latent coordinates feel its pullback Q = J^T F (eq. 39),
which `generators.neurok.dynamics.dynamics` takes with the Jacobian that it has anyway. `Force` is the field that people
describe in words ("10 N upwards on the rim for half a second"); any other is a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.kinematic import minimum_jerk

ForceField = Callable[[Tensor, Tensor, float], Tensor]
"""Positions (n, 3), velocities (n, 3) and the time in seconds to the force on every particle (n, 3)."""


@dataclass(frozen=True, eq=False)
class Region:
    """The particles within an axis-aligned box.

    Attributes:
        lower, upper: (3,) corners of the box.
        frame: "rest", the box picks particles by where they are in the rest shape, once; "world", whoever is in the
            box at the moment.
    """

    lower: FloatArray
    upper: FloatArray
    frame: str = "rest"

    def __post_init__(self) -> None:
        lower, upper = (
            checks.array(f"Region.{n}", getattr(self, n), (3,)) for n in ("lower", "upper")
        )
        if not (upper > lower).all():
            raise ValueError(
                f"Region.upper: expected a corner above lower {lower.tolist()}, got {upper.tolist()}"
            )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)
        checks.choice("Region.frame", self.frame, ("rest", "world"))

    def contains(self, points: Tensor) -> Tensor:
        """(n,) bool: which of the points (n, 3) lie in the box?"""
        lower, upper = (
            torch.as_tensor(np.array(corner)).to(points) for corner in (self.lower, self.upper)
        )
        return ((points >= lower) & (points <= upper)).all(-1)


@dataclass(frozen=True, eq=False)
class Force:
    """A force of one direction, shared by mass among the particles on which it acts.

    Attributes:
        vector: (3,) the whole force, newtons, in the frame of the positions.
        region: on which particles; None is all of them.
        points: (H,) indices of the particles on which it acts, instead of a region; or None.
        start, end: seconds between which it acts.
        ramp: seconds over which it grows smoothly from nothing after `start`, and fades before `end` where that is
            finite.
    """

    vector: FloatArray
    region: Region | None = None
    points: NDArray[np.int64] | None = None
    start: float = 0.0
    end: float = np.inf
    ramp: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", checks.array("Force.vector", self.vector, (3,)))
        if self.points is not None:
            if self.region is not None:
                raise ValueError("Force.points: got a region as well; choose the particles one way")
            object.__setattr__(
                self, "points", checks.array("Force.points", self.points, ("H",), dtype=np.int64)
            )
        if not self.end > self.start:
            raise ValueError(
                f"Force.end: expected a time after start {self.start:g} s, got {self.end:g} s"
            )
        checks.positive("Force.ramp", self.ramp, zero=True)
        if np.isfinite(self.end) and 2 * self.ramp > self.end - self.start:
            raise ValueError(
                f"Force.ramp: rising and fading over {self.ramp:g} s each does not fit between {self.start:g} s and "
                f"{self.end:g} s; shorten it"
            )

    def strength(self, time: float) -> float:
        """The part of the force, in [0, 1], that acts at `time` seconds."""
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
            ValueError: for points that the object does not have, or a region of the rest shape without any.
        """
        vector = torch.as_tensor(np.array(self.vector)).to(masses)
        chosen = self._chosen(rest)

        def field(x: Tensor, velocity: Tensor, time: float) -> Tensor:
            strength = self.strength(time)
            if strength == 0.0:
                return torch.zeros_like(x)
            on = masses * chosen(x)
            total = on.sum()
            # A box in the world may be empty for now: then nothing is pushed.
            return torch.outer(on / total, strength * vector) if total > 0 else torch.zeros_like(x)

        return field

    def _chosen(self, rest: Tensor) -> Callable[[Tensor], Tensor]:
        """Positions (n, 3) to (n,) bool: the particles on which it acts there."""
        if self.region is not None and self.region.frame == "world":
            return self.region.contains
        fixed = torch.ones(len(rest), dtype=torch.bool, device=rest.device)
        if self.points is not None:
            if self.points.min() < 0 or self.points.max() >= len(rest):
                raise ValueError(
                    f"Force.points: expected indices below {len(rest)}, got {self.points.min()} to {self.points.max()}"
                )
            fixed[:] = False
            fixed[torch.as_tensor(np.array(self.points), device=rest.device)] = True
        elif self.region is not None:
            fixed = self.region.contains(rest)
            if not fixed.any():
                low, high = rest.min(0).values.tolist(), rest.max(0).values.tolist()
                raise ValueError(
                    f"Force.region: no particle of the rest shape lies in the box; the shape spans {_show(low)} to "
                    f"{_show(high)}, move or widen the box"
                )
        return lambda x: fixed


def _show(point: list[float]) -> str:
    return "(" + ", ".join(f"{c:.3g}" for c in point) + ")"
