"""The kinematic states of one object (4.1, 4.3): a reduced latent space Q, and the map F from it.

A latent is z = z_rest + A q with A the active subspace's basis
(`generators.neurok.latent_space.active_subspace`), so q = 0 is the object at rest. z_rest is the
deformation encoder's mean for "nothing moves", refined until the decoder agrees; the little that it
still moves is undone point by point, phi_q(x) = d(q, x) o d(0, x)^-1, so F(0) is the identity
exactly.

Everything happens in a normalized frame (`Frame`): the bounding box centered at the origin, its
longest side 2.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
import trimesh
from numpy.typing import ArrayLike
from scipy.spatial import QhullError
from torch import Tensor
from torch.nn import functional

from flowplan.geometry import exp_so3
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.common import dual_quaternion
from generators.common.sampling import surface_points
from generators.data.pose_pairs import PosePairs
from generators.neurok.latent_space.active_subspace import active_subspace
from generators.neurok.latent_space.tracked_points import (
    ForwardModePoints,
    NetworkPoints,
    TrackedPoints,
)
from generators.neurok.network.model import Neurok, Shape, moved, target
from generators.neurok.options import ReduceOptions, SpaceOptions


@dataclass(frozen=True, eq=False)
class Frame:
    """Transform between the world and an object's normalized frame.

    x_world = Rz(yaw) (scale x + center).

    Attributes:
        center: (3,) center of the bounding box, along the box's axes, meters.
        scale: meters per unit: half the box's longest side.
        yaw: rad, of the box about the world's z axis.
    """

    center: FloatArray
    scale: float
    yaw: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", checks.array("Frame.center", self.center, (3,)))
        object.__setattr__(self, "scale", checks.positive("Frame.scale", self.scale))

    @classmethod
    def around(cls, points: ArrayLike, yaw: float = 0.0) -> Frame:
        """The frame of the box at `yaw` around points (N, 3), world frame, meters."""
        along = checks.array("points", points, ("N", 3)) @ _about_z(yaw)
        lower, upper = along.min(0), along.max(0)
        return cls((lower + upper) / 2, float((upper - lower).max()) / 2, yaw)

    def normalized(self, points: ArrayLike) -> FloatArray:
        """World points (..., 3) in meters, in the normalized frame."""
        along = np.asarray(points, float) @ _about_z(self.yaw)
        return (along - self.center) / self.scale

    def world(self, points: ArrayLike) -> FloatArray:
        """Normalized points (..., 3), in the world frame, meters."""
        along = self.scale * np.asarray(points, float) + self.center
        return along @ _about_z(self.yaw).T

    @property
    def affine(self) -> tuple[FloatArray, FloatArray]:
        """A (3, 3) and b (3,) of x_world = A x + b."""
        R = _about_z(self.yaw)
        return self.scale * R, R @ self.center


def box_yaw(points: ArrayLike) -> float:
    """Yaw in [-45, 45) degrees, in rad, of the upright box of least area around points (N, 3)."""
    flat = np.asarray(points, float)[:, :2]
    try:
        along = trimesh.bounds.oriented_bounds_2D(flat)[0][0, :2]
    except QhullError:  # seen from above, all lie on a line
        along = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][0]
    # Rounded, so that the yaw of an axis-aligned box is 0: -45 and 45 degrees are the same to it,
    # and so are -1e-17 and 0.
    angle = np.round(np.arctan2(along[1], along[0]), 9)
    quarter = np.pi / 2
    return float((angle + quarter / 2) % quarter - quarter / 2)


def _about_z(yaw: float) -> FloatArray:
    return exp_so3([0.0, 0.0, yaw])


class KinematicSpace(Protocol):
    """Space of an object's states, for inverse kinematics and dynamics; normalized frame."""

    rest: Tensor
    """(k,) state in which nothing is moved."""
    mean: Tensor
    """(k,) mean of the prior, whose covariance is the identity."""

    @abstractmethod
    def field(self, q: Tensor, points: Tensor) -> Tensor:
        """Deformations of points (M, 3) at states q (B, k).

        Dual quaternions (B, M, 8), or displacements (B, M, 3).
        """

    @property
    def dim(self) -> int:
        """Number k of coordinates of a state."""
        return len(self.rest)

    def positions(self, q: Tensor, points: Tensor) -> Tensor:
        """Positions (B, M, 3) of points (M, 3) at states q (B, k)."""
        return self.tracked(points)(q)

    def tracked(self, points: Tensor) -> TrackedPoints:
        """Points (M, 3), prepared for queries at many states."""
        return ForwardModePoints(lambda q: moved(points, self.field(q, points)))


@dataclass(frozen=True, eq=False)
class LatentSpace(KinematicSpace):
    """The states of one object according to a network.

    Attributes:
        model: the network, in evaluation mode.
        points: (N, 3) surface points that were encoded.
        shape: their encoding.
        z_rest: (K, C) latent in which nothing moves.
        basis: (K * C, k) orthonormal columns, the most active first; None for the whole latent
            space.
        rest: (k,) zeros.
        mean: (k,) mean of the prior.
    """

    model: Neurok
    points: Tensor
    shape: Shape
    z_rest: Tensor
    basis: Tensor | None
    rest: Tensor
    mean: Tensor

    @classmethod
    @torch.no_grad()
    def encode(
        cls,
        mesh: trimesh.Trimesh,
        model: Neurok,
        options: SpaceOptions = SpaceOptions(),
        *,
        seed: int = 0,
    ) -> LatentSpace:
        """The space of one object, on the network's device.

        Args:
            mesh: the object in its normalized frame.
            model: a trained network.
            options: see SpaceOptions.
            seed: random seed of the surface points and of the directions.
        """
        model = model.eval()
        device = next(model.parameters()).device
        drawn, _ = surface_points(mesh, options.points, seed=seed)
        points = torch.tensor(drawn, dtype=torch.float32, device=device)
        shape = model.encode_shape(points[None])
        z_rest = _rest_latent(model, shape, points, options.refinements)
        mean = (shape.mean - z_rest).flatten()
        whole = cls(model, points, shape, z_rest[0], None, torch.zeros_like(mean), mean)
        return whole.reduced(options.reduce, seed=seed)

    def reduced(self, options: ReduceOptions, *, seed: int = 0) -> LatentSpace:
        """The same object's active subspace.

        Args:
            options: see ReduceOptions.
            seed: random seed of the latents from which the directions are found.
        """
        if options.dimension is None:
            return self.unreduced()
        return self._spanned(_active(self.model, self.shape, self.points, options, seed))

    def unreduced(self) -> LatentSpace:
        """The same object's whole latent space: states are latents less the rest's, flattened."""
        return self._spanned(None)

    def latent(self, q: Tensor) -> Tensor:
        """Latents (B, K, C) of states q (B, k)."""
        along = q if self.basis is None else q @ self.basis.T
        return self.z_rest + along.unflatten(-1, self.z_rest.shape)

    def posterior(self, pairs: PosePairs) -> Tensor:
        """Means (B, K, C) of the posterior of latents, given pairs (B, N) of the object's
        points."""
        return self.model.posterior(pairs.points, target(self.model.config, pairs))[0]

    def coordinates(self, latents: Tensor) -> Tensor:
        """The states (B, k) nearest to latents (B, K, C)."""
        along = (latents - self.z_rest).flatten(1)
        return along if self.basis is None else along @ self.basis

    def widened(self, latents: Tensor) -> LatentSpace:
        """The same space with directions added, so that it contains latents (B, K, C)."""
        if self.basis is None:
            return self
        count = self.basis.shape[1]
        towards = functional.normalize((latents - self.z_rest).flatten(1), dim=1).T
        basis, triangle = torch.linalg.qr(torch.cat([self.basis, towards], dim=1))
        # QR may flip columns; those that were there keep their sign.
        basis = basis * triangle.diagonal().sign()[None]
        # Keep the old directions, and new ones that are independent of them.
        new = triangle.diagonal().abs() > 1e-3
        old = torch.arange(len(new), device=new.device) < count
        return self._spanned(basis[:, new | old])

    def _spanned(self, basis: Tensor | None) -> LatentSpace:
        """The same space with another basis."""
        mean = (self.shape.mean - self.z_rest).flatten()
        mean = mean if basis is None else mean @ basis
        return replace(self, basis=basis, rest=torch.zeros_like(mean), mean=mean)

    def field(self, q: Tensor, points: Tensor) -> Tensor:
        """See KinematicSpace; displacements if the network predicts those."""
        at_rest = self.model.decode(self.z_rest[None], points, self.shape)
        return _relative(at_rest, self.model.decode(self.latent(q), points, self.shape))

    @torch.no_grad()
    def tracked(self, points: Tensor) -> NetworkPoints:
        """See KinematicSpace."""
        return NetworkPoints(self.model, self.shape, self.z_rest, self.basis, points)


def _rest_latent(model: Neurok, shape: Shape, points: Tensor, refinements: int) -> Tensor:
    """Latent (1, K, C) in which the decoder leaves points (N, 3) of the shape at rest."""
    z, _ = model.posterior(points[None], model.rest.expand(1, len(points), -1))
    z = z.detach().requires_grad_(True)
    search = torch.optim.LBFGS([z], max_iter=refinements, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        with torch.enable_grad():
            displacement = moved(points, model.decode(z, points, shape)) - points
            loss = displacement.square().sum(-1).mean()
            (z.grad,) = torch.autograd.grad(loss, z)
        return loss

    search.step(closure)
    return z.detach()


def _active(
    model: Neurok, shape: Shape, points: Tensor, options: ReduceOptions, seed: int
) -> Tensor:
    """Basis (K * C, k) of the active subspace of a shape with surface points (N, 3)."""
    assert options.dimension is not None  # the caller asked for a reduction
    # Samples of the prior, drawn on the CPU: the same on every device.
    generator = torch.Generator().manual_seed(seed)
    count = max(options.samples, options.dimension)
    noise = torch.randn(count, *shape.mean.shape[1:], generator=generator)
    draws = shape.mean + noise.to(shape.mean)  # (S, K, C)
    seen = points[: options.points]

    def displacements(flat: Tensor) -> Tensor:
        return moved(seen, model.decode(flat.unflatten(1, draws.shape[1:]), seen, shape)) - seen

    # In bfloat16, half the time: directions that are right to a percent span the same motions.
    with torch.autocast(points.device.type, torch.bfloat16, enabled=points.dtype == torch.float32):
        basis, _ = active_subspace(
            displacements, draws.flatten(1), options.dimension, options.measure, generator
        )
    return basis


def _relative(first: Tensor, then: Tensor) -> Tensor:
    """Deformations that take each point's image under `first` to its image under `then`."""
    if first.shape[-1] == 3:
        return then - first
    r_first, t_first = dual_quaternion.to_motion(first)
    r_then, t_then = dual_quaternion.to_motion(then)
    turn = dual_quaternion.multiply(r_then, dual_quaternion.conjugate(r_first).expand_as(r_then))
    shift = t_then - dual_quaternion.rotate(turn, t_first.expand_as(t_then))
    return dual_quaternion.from_motion(turn, shift)
