"""Two poses of one object as matching points: training data of the conditional VAE, and
augmentation.

Point n of `points` lies on the object in pose A, the same material point in pose B is `moved[n]`,
and `quat_wxyz[n]` is the rotation of the material around it. With t = moved - R points that is one
rigid motion x -> R x + t for every point (section 4.2). Augmentation is Table 7: a scale, a
rotation about z and a shift in the plane, common to both poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from generators.common.dual_quaternion import rotate

Factor = Annotated[float, Interval(1e-3, 1000)]
Degrees = Annotated[float, Interval(-360, 360)]


@dataclass(frozen=True, eq=False)
class PosePairs:
    """A batch of pose pairs, float32, in the normalized frame of pose A.

    Attributes:
        points: (B, N, 3) surface points in pose A.
        moved: (B, N, 3) the same material points in pose B.
        quat_wxyz: (B, N, 4) unit quaternion, w >= 0, of the material's rotation from A to B.
    """

    points: Tensor
    moved: Tensor
    quat_wxyz: Tensor

    def to(self, device: torch.device | str) -> PosePairs:
        """The same pairs on another device."""
        return PosePairs(self.points.to(device), self.moved.to(device), self.quat_wxyz.to(device))


class Store(Protocol):
    """Source of random pose pairs."""

    def sample(self, batch: int, points: int, generator: torch.Generator) -> PosePairs:
        """`batch` pairs of `points` points; all random numbers come from `generator`."""
        ...


class Mixture:
    """Several stores, each drawn from with its own probability."""

    def __init__(self, stores: Sequence[Store], weights: Sequence[float]) -> None:
        if not stores or len(stores) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"weights: got {list(weights)} for {len(stores)} stores, expected one non-negative "
                "weight per store"
            )
        self.stores = tuple(stores)
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def sample(self, batch: int, points: int, generator: torch.Generator) -> PosePairs:
        """`batch` pairs, those of one store side by side."""
        weights = self.weights.to(generator.device)
        chosen = torch.multinomial(weights, batch, replacement=True, generator=generator)
        counts = torch.bincount(chosen, minlength=len(self.stores)).tolist()
        parts = [
            store.sample(count, points, generator)
            for store, count in zip(self.stores, counts, strict=True)
            if count
        ]
        return PosePairs(
            torch.cat([p.points for p in parts]),
            torch.cat([p.moved for p in parts]),
            torch.cat([p.quat_wxyz for p in parts]),
        )


@dataclass(frozen=True)
class AugmentOptions:
    """Random variation of a pair; the defaults are Table 7's."""

    scale: tuple[Factor, Factor] = (0.5, 1.5)
    """Range of the factor on the object's size."""
    yaw: tuple[Degrees, Degrees] = (0.0, 360.0)
    """Range of the rotation about z, degrees."""
    quarter_turns: bool = False
    """Adds a random number of quarter turns: the yaws that an object can have once its box is
    aligned."""
    translation: Annotated[float, Interval(0, 10)] = 0.1
    """Largest shift along x and along y, normalized units."""
    jitter: Annotated[float, Interval(0, 1)] = 0.0
    """Largest standard deviation of the points' noise, normalized units; each pair draws its own
    below it. A noisy point moves with the material it was measured on, so the noise rotates with
    it."""

    def __post_init__(self) -> None:
        bounds.check(self)


def augment(
    pairs: PosePairs, generator: torch.Generator, options: AugmentOptions | None = None
) -> PosePairs:
    """Scale, rotate about z and shift both poses of each pair alike; then jitter its points."""
    options = options or AugmentOptions()
    p, m, q = pairs.points, pairs.moved, pairs.quat_wxyz
    B = len(p)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(B, 1, 1, generator=generator, device=p.device)

    # Random scale, yaw and shift of each pair, (B, 1, 1) and (B, 1, 3).
    scale = uniform(*options.scale)
    yaw = uniform(*options.yaw)
    if options.quarter_turns:
        yaw = yaw + 90 * torch.randint(4, yaw.shape, generator=generator, device=p.device)
    half_yaw = torch.deg2rad(yaw) / 2
    in_plane = [uniform(-options.translation, options.translation) for _ in "xy"]
    shift = torch.cat([*in_plane, torch.zeros_like(scale)], 2)

    # Transposed rotation matrices (B, 3, 3).
    c, s = torch.cos(2 * half_yaw), torch.sin(2 * half_yaw)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rows = ([c, s, zero], [-s, c, zero], [zero, zero, one])
    R_T = torch.cat([torch.cat(row, 2) for row in rows], 1)

    p, m = scale * p @ R_T + shift, scale * m @ R_T + shift
    # q_z q q_z^-1 keeps the angle and rotates the axis about z.
    q = torch.cat([q[..., :1], q[..., 1:] @ R_T], -1)
    if options.jitter:
        sigma = uniform(0.0, options.jitter)
        noise = sigma * torch.randn(p.shape, generator=generator, device=p.device)
        p, m = p + noise, m + rotate(q, noise)
    return PosePairs(p, m, q)


def quat_from_matrix(R: Tensor) -> Tensor:
    """Unit quaternions (..., 4), w first and >= 0, of rotation matrices (..., 3, 3)."""
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    # Differences and sums of the entries across the diagonal: 4 w x, ..., 4 x y, ...
    wx = R[..., 2, 1] - R[..., 1, 2]
    wy = R[..., 0, 2] - R[..., 2, 0]
    wz = R[..., 1, 0] - R[..., 0, 1]
    xy = R[..., 1, 0] + R[..., 0, 1]
    xz = R[..., 0, 2] + R[..., 2, 0]
    yz = R[..., 2, 1] + R[..., 1, 2]
    # Four multiples of the same quaternion, each by one of its components; the longest is the best
    # conditioned.
    multiples = (
        [1 + xx + yy + zz, wx, wy, wz],
        [wx, 1 + xx - yy - zz, xy, xz],
        [wy, xy, 1 - xx + yy - zz, yz],
        [wz, xz, yz, 1 - xx - yy + zz],
    )
    rows = torch.stack([torch.stack(row, -1) for row in multiples], -2)  # (..., 4, 4)
    best = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None].expand(*R.shape[:-2], 1, 4)
    q = torch.nn.functional.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)
    return torch.where(q[..., :1] < 0, -q, q)
