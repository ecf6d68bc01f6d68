"""Scene flow of surface points, and their rest positions at the first frame, as the choreographer sees a scene.

Points are projected where they rest, the nearest of a pixel wins, and it is spread over the pixels around it, at twice
the resolution, so that points stand for the surface between them. What is drawn is kept as the index of a point for every
pixel, by a scatter that keeps the smallest of (depth, index) packed in one integer; all frames are then looked up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.chord.options import CAMERAS
from generators.chord.render.cameras import Cameras, Framing, around

MAX_POINTS = 1 << 14
"""Points of a scene that an index has room for beside a depth."""
_DEPTH_STEPS = 1 << 12  # in a radius; depths are below 16 radii, so that a key has 30 bits
_SUPERSAMPLE = 2
_SPREAD = 2  # pixels of the finest grid, all around
_EMPTY = torch.iinfo(torch.int32).max
_UNIT = Framing(np.zeros(3), 1.0)


@dataclass(frozen=True, eq=False)
class MovingPoints:
    """B scenes in units of their framed balls: radii, from its center.

    Attributes:
        points: (B, 1, P, 3) at frame 0, or (B, T, P, 3) where something bends.
        body: (B, P) index of each point's body, in [0, bodies).
        X: (B, T, bodies, 4, 4) motion of each body since frame 0.
    """

    points: Tensor
    body: Tensor
    X: Tensor

    def displaced(self, R: Tensor) -> Tensor:
        """(B, P, T, 3) how far each point has gone since frame 0, in frames R_world_frame (B, 3, 3)."""
        rest = self.points[:, 0]
        if self.points.shape[1] > 1:
            return ((self.points - self.points[:, :1]) @ R[:, None]).transpose(1, 2)
        change = (self.X - torch.eye(4, device=rest.device))[..., :3, :]  # (B, T, bodies, 3, 4)
        change = R.mT[:, None, None] @ change
        bodies, T = change.shape[2], change.shape[1]
        mine = self.body[..., None] == torch.arange(bodies, device=rest.device)  # (B, P, bodies)
        homogeneous = torch.cat([rest, torch.ones_like(rest[..., :1])], dim=-1)
        places = (mine[..., None] * homogeneous[:, :, None]).flatten(2)  # (B, P, bodies 4)
        way = places @ change.permute(0, 2, 4, 1, 3).reshape(len(rest), bodies * 4, T * 3)
        return way.unflatten(-1, (T, 3))


@dataclass(frozen=True, eq=False)
class Rendered:
    """What cameras see of B scenes.

    Attributes:
        video: (B, T, H, W, 3) scene flow: how far the matter that the first frame shows at a pixel has gone, in the
            camera's heading frame, premultiplied.
        first: (B, h, w, 4) the first frame, finer: rest positions, premultiplied, and alpha.
    """

    video: Tensor
    first: Tensor


def random_cameras(count: int, size: int, generator: torch.Generator) -> Cameras:
    """One camera for each of `count` scenes, as in distillation; all are independent."""
    low, high = np.radians(CAMERAS.elevation)
    chance = (
        torch.rand(2, count, generator=generator, device=generator.device).double().cpu().numpy()
    )
    return around(_UNIT, 2 * np.pi * chance[0], low + (high - low) * chance[1], size, size, CAMERAS)


def render(scenes: MovingPoints, cameras: Cameras, sharpness: int) -> Rendered:
    """Videos from one camera of each scene, and first frames of `sharpness` times as many pixels along a side."""
    B, P, T = *scenes.points[:, 0].shape[:2], scenes.X.shape[1]
    if P >= MAX_POINTS:
        raise ValueError(
            f"MovingPoints.points: expected fewer than {MAX_POINTS} of a scene, got {P}; thin them out"
        )
    device = scenes.points.device
    size = sharpness * cameras.width
    side = _SUPERSAMPLE * size
    viewmats = torch.as_tensor(cameras.viewmats, dtype=torch.float32, device=device)
    seen = scenes.points[:, 0] @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
    index = _nearest(seen, float(cameras.Ks[0, 0, 0]) * side / cameras.width, side)
    heading = torch.as_tensor(cameras.X_world_heading, dtype=torch.float32, device=device)
    paint = torch.cat(
        [scenes.points[:, 0] @ heading / CAMERAS.margin, torch.ones(B, P, 1, device=device)], -1
    )
    first = _mean(_shown(paint, index), _SUPERSAMPLE)
    # A quarter of the samples is enough for displacements, of which there are T times as many.
    way = scenes.displaced(heading).flatten(2) / CAMERAS.margin
    coarse = index[:, _SUPERSAMPLE - 1 :: _SUPERSAMPLE, _SUPERSAMPLE - 1 :: _SUPERSAMPLE]
    video = _mean(_shown(way, coarse), sharpness).unflatten(-1, (T, 3)).permute(0, 3, 1, 2, 4)
    return Rendered(video, first)


def _shown(values: Tensor, index: Tensor) -> Tensor:
    """(B, H, W, C) the values (B, P, C) of the points shown, zero where there is none."""
    B, P, C = values.shape
    table = torch.cat([values, values.new_zeros(B, 1, C)], dim=1).flatten(0, 1)
    rows = index + (P + 1) * torch.arange(B, device=index.device, dtype=torch.int32)[:, None, None]
    return table.index_select(0, rows.flatten()).unflatten(0, index.shape)


def _mean(image: Tensor, side: int) -> Tensor:
    """Means over squares of pixels."""
    corners = [image[:, i::side, j::side] for i, j in np.ndindex(side, side)]
    return (
        torch.stack(corners).sum(0).div(len(corners))
    )  # so much faster than a mean over two short axes


def _nearest(seen: Tensor, focal: float, side: int) -> Tensor:
    """(B, side, side) int32 which of the points (B, P, 3) in cameras' frames a pixel shows; P where none."""
    B, P, _ = seen.shape
    x, y, z = seen.unbind(-1)
    scale = focal / z.clamp(min=0.01)
    column, row = (x * scale + side / 2).floor(), (y * scale + side / 2).floor()
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (z > 0.01) & (z < 15.9)
    image = (side * side) * torch.arange(B, device=seen.device)[:, None]
    pixel = torch.where(inside, image + (row * side + column).long(), B * side * side)
    key = (z * _DEPTH_STEPS).int() * MAX_POINTS + torch.arange(
        P, device=seen.device, dtype=torch.int32
    )
    nearest = torch.full((B * side * side + 1,), _EMPTY, dtype=torch.int32, device=seen.device)
    nearest.scatter_reduce_(0, pixel.flatten(), key.flatten(), "amin")
    nearest = nearest[:-1].view(B, side, side)
    for _ in range(_SPREAD):
        nearest = _spread(nearest)
    return torch.where(nearest == _EMPTY, P, nearest % MAX_POINTS)


def _spread(keys: Tensor) -> Tensor:
    """The smallest of every pixel and its eight neighbors."""
    for axis in (-2, -1):
        n = keys.shape[axis]
        wide = keys.clone()
        for one, other in ((0, 1), (1, 0)):
            mine = wide.narrow(axis, one, n - 1)
            mine.copy_(torch.minimum(mine, keys.narrow(axis, other, n - 1)))
        keys = wide
    return keys
