"""Points of an object as particles: a decoder of one state at a time, in world frame and meters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.neurok.latent_space.space import Frame, KinematicSpace
from generators.neurok.latent_space.tracked_points import TrackedPoints


@dataclass(frozen=True, eq=False)
class Particles:
    """A decoder for `generators.neurok.dynamics`, whose Jacobian is that of the space.

    Attributes:
        tracked: n points, normalized frame.
        linear, offset: (3, 3), (3,) of the map to the world frame, x_world = linear x + offset.
    """

    tracked: TrackedPoints
    linear: Tensor
    offset: Tensor

    @classmethod
    def from_space(cls, space: KinematicSpace, points: Tensor, frame: Frame) -> Particles:
        """Points (n, 3) of a space's object, normalized frame, at the object's place."""
        linear, offset = (torch.as_tensor(np.array(a)).to(points) for a in frame.affine)
        return cls(space.tracked(points), linear, offset)

    def __call__(self, z: Tensor) -> Tensor:
        """Positions (n, 3) at z (k,)."""
        return self.tracked(z[None])[0] @ self.linear.T + self.offset

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (n, 3) at z (k,), and their Jacobian (n, 3, k)."""
        x, J = self.tracked.linearize(z[None])
        return x[0] @ self.linear.T + self.offset, self.linear @ J[0]
