"""Fast rendering of surface points for training: scene flow, and rest positions of the first frame.

Points are projected at rest, the nearest of each pixel is kept and spread over the pixels around
it, at twice the resolution, so that points cover the surface between them. The result is the index
of a point for every pixel, by a scatter that keeps the smallest of (depth, index) packed in one
integer. The displacements of all frames are then looked up by this index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generators.chord.options import CAMERAS
from generators.chord.render.cameras import Cameras, Framing, around

MAX_POINTS = 1 << 14
"""Maximum number of points of a scene: an index has 14 bits beside the depth."""
_DEPTH_STEPS = 1 << 12
"""Depth steps in a radius. Depths are below 16 radii, so a key has 30 bits."""
_SUPERSAMPLE = 2
"""Samples along a side of a pixel."""
_SPREAD = 2
"""Samples around a point that it covers."""
_EMPTY = torch.iinfo(torch.int32).max
_UNIT = Framing(np.zeros(3), 1.0)


@dataclass(frozen=True, eq=False)
class MovingPoints:
    """B scenes, each relative to the center of its framed ball, in radii.

    Attributes:
        points: (B, 1, P, 3) at frame 0, or (B, T, P, 3) for deforming bodies.
        body: (B, P) index of each point's body, in [0, bodies).
        X: (B, T, bodies, 4, 4) motion of each body since frame 0.
    """

    points: Tensor
    body: Tensor
    X: Tensor

    def displaced(self, R: Tensor) -> Tensor:
        """Displacements (B, P, T, 3) since frame 0, in frames of rotation R (B, 3, 3)."""
        rest = self.points[:, 0]
        if self.points.shape[1] > 1:
            return ((self.points - self.points[:, :1]) @ R[:, None]).transpose(1, 2)

        # Change of the poses since frame 0, in the wanted frames.
        change = (self.X - torch.eye(4, device=rest.device))[..., :3, :]  # (B, T, bodies, 3, 4)
        change = R.mT[:, None, None] @ change
        bodies, T = change.shape[2], change.shape[1]

        # One product for all bodies: a point's coordinates stand in its own body's block.
        own = self.body[..., None] == torch.arange(bodies, device=rest.device)  # (B, P, bodies)
        homogeneous = torch.cat([rest, torch.ones_like(rest[..., :1])], dim=-1)  # (B, P, 4)
        blocks = (own[..., None] * homogeneous[:, :, None]).flatten(2)  # (B, P, bodies 4)
        matrices = change.permute(0, 2, 4, 1, 3).reshape(len(rest), bodies * 4, T * 3)
        return (blocks @ matrices).unflatten(-1, (T, 3))


@dataclass(frozen=True, eq=False)
class Rendered:
    """Images of B scenes.

    Attributes:
        video: (B, T, H, W, 3) scene flow: displacement of the matter that the first frame shows at
            a pixel, in the camera's heading frame, premultiplied by alpha.
        first: (B, h, w, 4) the first frame, finer: rest positions, premultiplied, and alpha.
    """

    video: Tensor
    first: Tensor


def random_cameras(count: int, size: int, generator: torch.Generator) -> Cameras:
    """Independent random cameras, one for each of `count` scenes, as in distillation."""
    low, high = np.radians(CAMERAS.elevation)
    u = torch.rand(2, count, generator=generator, device=generator.device).double().cpu().numpy()
    return around(_UNIT, 2 * np.pi * u[0], low + (high - low) * u[1], size, size, CAMERAS)


def render(scenes: MovingPoints, cameras: Cameras, sharpness: int) -> Rendered:
    """Videos of each scene from one camera.

    Args:
        scenes: B scenes.
        cameras: B cameras.
        sharpness: pixels of a first frame along a pixel of a video.
    """
    B, P, T = *scenes.points[:, 0].shape[:2], scenes.X.shape[1]
    if P >= MAX_POINTS:
        raise ValueError(
            f"MovingPoints.points: expected fewer than {MAX_POINTS} of a scene, got {P}; "
            "sample fewer"
        )
    device = scenes.points.device
    size = sharpness * cameras.width
    side = _SUPERSAMPLE * size

    # The nearest point at every sample.
    viewmats = torch.as_tensor(cameras.viewmats, dtype=torch.float32, device=device)
    seen = scenes.points[:, 0] @ viewmats[:, :3, :3].mT + viewmats[:, None, :3, 3]
    index = _nearest(seen, float(cameras.Ks[0, 0, 0]) * side / cameras.width, side)

    # The first frame: rest positions and alpha.
    heading = torch.as_tensor(cameras.X_world_heading, dtype=torch.float32, device=device)
    rest = scenes.points[:, 0] @ heading / CAMERAS.margin  # (B, P, 3)
    paint = torch.cat([rest, torch.ones(B, P, 1, device=device)], -1)
    first = _mean(_shown(paint, index), _SUPERSAMPLE)

    # The video, from a quarter of the samples: there are T times as many displacements.
    way = scenes.displaced(heading).flatten(2) / CAMERAS.margin  # (B, P, 3 T)
    coarse = index[:, _SUPERSAMPLE - 1 :: _SUPERSAMPLE, _SUPERSAMPLE - 1 :: _SUPERSAMPLE]
    video = _mean(_shown(way, coarse), sharpness).unflatten(-1, (T, 3)).permute(0, 3, 1, 2, 4)
    return Rendered(video, first)


def _shown(values: Tensor, index: Tensor) -> Tensor:
    """Values (B, H, W, C) of the points shown, from all points' (B, P, C); zero for none."""
    B, P, C = values.shape
    table = torch.cat([values, values.new_zeros(B, 1, C)], dim=1).flatten(0, 1)
    rows = index + (P + 1) * torch.arange(B, device=index.device, dtype=torch.int32)[:, None, None]
    return table.index_select(0, rows.flatten()).unflatten(0, index.shape)


def _mean(image: Tensor, side: int) -> Tensor:
    """Means over squares of pixels."""
    # A sum of strided views is much faster than a mean over two short axes.
    corners = [image[:, i::side, j::side] for i, j in np.ndindex(side, side)]
    return torch.stack(corners).sum(0).div(len(corners))


def _nearest(seen: Tensor, focal: float, side: int) -> Tensor:
    """Index (B, side, side) of the nearest point at every sample; P for none.

    Args:
        seen: (B, P, 3) points in the cameras' frames.
        focal: focal length, samples.
        side: samples along a side of the image.
    """
    # Samples that the points fall on; those outside go to one place beyond the image.
    B, P, _ = seen.shape
    x, y, z = seen.unbind(-1)
    scale = focal / z.clamp(min=0.01)
    column, row = (x * scale + side / 2).floor(), (y * scale + side / 2).floor()
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side) & (z > 0.01) & (z < 15.9)
    image = (side * side) * torch.arange(B, device=seen.device)[:, None]
    pixel = torch.where(inside, image + (row * side + column).long(), B * side * side)

    # Keep the smallest key of depth and index at each sample.
    numbers = torch.arange(P, device=seen.device, dtype=torch.int32)
    key = (z * _DEPTH_STEPS).int() * MAX_POINTS + numbers
    nearest = torch.full((B * side * side + 1,), _EMPTY, dtype=torch.int32, device=seen.device)
    nearest.scatter_reduce_(0, pixel.flatten(), key.flatten(), "amin")
    nearest = nearest[:-1].view(B, side, side)
    for _ in range(_SPREAD):
        nearest = _spread(nearest)
    return torch.where(nearest == _EMPTY, P, nearest % MAX_POINTS)


def _spread(keys: Tensor) -> Tensor:
    """The smallest key of every pixel and its eight neighbors."""
    for axis in (-2, -1):
        n = keys.shape[axis]
        wide = keys.clone()
        for one, other in ((0, 1), (1, 0)):
            mine = wide.narrow(axis, one, n - 1)
            mine.copy_(torch.minimum(mine, keys.narrow(axis, other, n - 1)))
        keys = wide
    return keys
