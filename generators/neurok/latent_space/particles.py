"""Points of an object as mechanics sees them: a decoder of one state at a time, in the world frame and metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.neurok.latent_space.space import Frame, KinematicSpace
from generators.neurok.latent_space.tracked_points import Followed


@dataclass(frozen=True, eq=False)
class Particles:
    """A decoder, as `generators.neurok.dynamics.dynamics` takes it, whose Jacobian is that of the space.

    Attributes:
        followed: n points, normalised frame.
        turn, shift: (3, 3), (3,) from there to the world.
    """

    followed: Followed
    turn: Tensor
    shift: Tensor

    @classmethod
    def of(cls, space: KinematicSpace, points: Tensor, frame: Frame) -> Particles:
        """Points (n, 3) of a space's object, normalised frame, where the object stands."""
        turn, shift = (torch.as_tensor(np.array(a)).to(points) for a in frame.affine)
        return cls(space.followed(points), turn, shift)

    def __call__(self, z: Tensor) -> Tensor:
        """(n, 3) at z (k,)."""
        return self.followed(z[None])[0] @ self.turn.T + self.shift

    def linearise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its Jacobian (n, 3, k)."""
        x, J = self.followed.linearise(z[None])
        return x[0] @ self.turn.T + self.shift, self.turn @ J[0]
