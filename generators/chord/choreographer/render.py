"""Videos of moving surface points, painted with their rest positions, as the choreographer sees a scene.

Points are projected, the nearest of a pixel wins, and it is spread over the pixels around it, at twice the resolution,
so that points stand for the surface between them. All frames of all videos are drawn at once: one product with the
motions of all bodies, and a scatter that keeps the smallest of (depth, index) packed in one integer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.chord.cameras import CameraOptions, Cameras, Framing, around

MAX_POINTS = 1 << 14
"""Points of a scene that an index has room for beside a depth."""
_DEPTH_STEPS = 1 << 12  # in a radius; depths are below 16 radii, so that a key has 30 bits
_SUPERSAMPLE = 2
_EMPTY = torch.iinfo(torch.int32).max
_UNIT = Framing(np.zeros(3), 1.0)


@dataclass(frozen=True, eq=False)
class MovingPoints:
    """B scenes in units of their framed balls: radii, from its centre.

    Attributes:
        points: (B, 1, P, 3) at frame 0, or (B, T, P, 3) where something bends.
        body: (B, P) index of each point's body, in [0, bodies).
        X: (B, T, bodies, 4, 4) motion of each body since frame 0.
    """

    points: Tensor
    body: Tensor
    X: Tensor

    def seen(self, viewmats: Tensor) -> Tensor:
        """Points (B, T, 3, P) in the frames of cameras X_camera_world (B, 4, 4)."""
        B, T, bodies = self.X.shape[:3]
        P = self.points.shape[2]
        M = (viewmats[:, None, None] @ self.X)[:, :, :, :3]  # (B, T, bodies, 3, 4)
        M = M.permute(0, 1, 3, 2, 4)  # (B, T, 3, bodies, 4)
        mine = self.body[:, None, :] == torch.arange(bodies, device=self.body.device)[:, None]  # (B, bodies, P)
        homogeneous = torch.cat([self.points, torch.ones_like(self.points[..., :1])], dim=-1).mT  # (B, 1 or T, 4, P)
        places = mine[:, None, :, None] * homogeneous[:, :, None]  # (B, 1 or T, bodies, 4, P)
        if self.points.shape[1] == 1:
            return (M.reshape(B, T * 3, bodies * 4) @ places.reshape(B, bodies * 4, P)).view(B, T, 3, P)
        return M.reshape(B, T, 3, bodies * 4) @ places.reshape(B, T, bodies * 4, P)


def random_cameras(count: int, size: int, generator: torch.Generator) -> Cameras:
    """One camera for each of `count` scenes, as in distillation; all are independent."""
    low, high = np.radians(CameraOptions.elevation)
    chance = torch.rand(2, count, generator=generator, device=generator.device).double().cpu().numpy()
    return around(_UNIT, 2 * np.pi * chance[0], low + (high - low) * chance[1], size, size)


def render(scenes: MovingPoints, cameras: Cameras) -> Tensor:
    """Videos (B, T, H, W, 4) from one camera of each scene: premultiplied rest positions, and alpha."""
    B, T = scenes.X.shape[:2]
    P = scenes.points.shape[2]
    if P >= MAX_POINTS:
        raise ValueError(f"MovingPoints.points: expected fewer than {MAX_POINTS} of a scene, got {P}; thin them out")
    device = scenes.points.device
    side = _SUPERSAMPLE * cameras.width
    seen = scenes.seen(torch.as_tensor(cameras.viewmats, dtype=torch.float32, device=device))
    index = _nearest(seen, float(cameras.Ks[0, 0, 0]) * side / cameras.width, side)
    heading = torch.as_tensor(cameras.X_world_heading, dtype=torch.float32, device=device)
    paint = torch.zeros(B, P + 1, 4, device=device)  # the last row is of pixels that show nothing
    paint[:, :P, :3] = scenes.points[:, 0] @ heading / CameraOptions.margin
    paint[:, :P, 3] = 1.0
    rows = index + (P + 1) * torch.arange(B, device=device, dtype=torch.int32)[:, None, None, None]
    fine = paint.view(-1, 4).index_select(0, rows.flatten())
    fine = fine.view(B, T, cameras.height, _SUPERSAMPLE, cameras.width, _SUPERSAMPLE, 4)
    corners = [fine[:, :, :, i, :, j] for i, j in np.ndindex(_SUPERSAMPLE, _SUPERSAMPLE)]
    return torch.stack(corners).sum(0).div(len(corners))  # so much faster than a mean over two short axes


def _nearest(seen: Tensor, focal: float, side: int) -> Tensor:
    """(B, T, side, side) int32 which of the points (B, T, 3, P) in cameras' frames a pixel shows; P where none."""
    B, T, _, P = seen.shape
    x, y, z = seen.unbind(2)
    scale = focal / z.clamp(min=0.01)
    column, row = (x * scale + side / 2).floor(), (y * scale + side / 2).floor()
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (z > 0.01) & (z < 15.9)
    frame = (side * side) * torch.arange(B * T, device=seen.device).view(B, T, 1)
    pixel = torch.where(inside, frame + (row * side + column).long(), B * T * side * side)
    key = (z * _DEPTH_STEPS).int() * MAX_POINTS + torch.arange(P, device=seen.device, dtype=torch.int32)
    nearest = torch.full((B * T * side * side + 1,), _EMPTY, dtype=torch.int32, device=seen.device)
    nearest.scatter_reduce_(0, pixel.flatten(), key.flatten(), "amin")
    nearest = _spread(nearest[:-1].view(B, T, side, side))
    return torch.where(nearest == _EMPTY, P, nearest % MAX_POINTS)


def _spread(keys: Tensor) -> Tensor:
    """The smallest of every pixel and its eight neighbours."""
    for axis in (-2, -1):
        n = keys.shape[axis]
        wide = keys.clone()
        for one, other in ((0, 1), (1, 0)):
            mine = wide.narrow(axis, one, n - 1)
            mine.copy_(torch.minimum(mine, keys.narrow(axis, other, n - 1)))
        keys = wide
    return keys
