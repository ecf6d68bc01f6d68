"""What a video of rest positions says outright: which piece of matter is seen where.

The score compares pixels. A thing that should be elsewhere, and does not yet overlap with itself there, gets nothing
from them but the wish to vanish; the paper's video models help out by being vague at first. Painted with rest positions
(`generators.chord.paint`), a pixel of the prior's clean video z_0 names the matter that it shows, so that this matter
can be pulled there from anywhere: the reprojection error of bundle adjustment, of points that are known by their colour.
This is ours and not the paper's; priors of natural videos have no such colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from flowplan import checks
from flowplan.checks import FloatArray
from generators.chord.cameras import CameraOptions, Cameras
from generators.chord.deformation import turn_less_identity


@dataclass(frozen=True)
class CorrespondenceOptions:
    """Which pixels are believed. Lengths are in radii of the framed scene."""

    count: int = 4096
    """Pixels looked at in an iteration, drawn anew from all that show something."""
    alpha: float = 0.6
    """Coverage of a pixel below which it is not believed: the prior does not know what is there."""
    reach: float = 0.08
    """How far from all matter a pixel's rest position may be: a mean of several things is none of them."""
    scale: float = 0.02
    """Distance in heights of the image from which on a pixel's pull grows no more: some are wrong."""

    def __post_init__(self) -> None:
        for name in ("count", "reach", "scale"):
            checks.positive(f"CorrespondenceOptions.{name}", getattr(self, name))
        if not 0 < self.alpha < 1:
            raise ValueError(f"CorrespondenceOptions.alpha: expected a share in (0, 1), got {self.alpha}")


@dataclass(frozen=True, eq=False)
class Sightings:
    """M pixels, and what they show.

    Attributes:
        view, frame: (M,) index of the camera, and of the frame.
        pixel: (M, 2) x and y of the pixel's middle, pixels.
        point: (M,) index of the nearest point of those that were given.
        rest: (M, 3) where the matter was at frame 0, unit frame.
    """

    view: NDArray[np.int64]
    frame: NDArray[np.int64]
    pixel: FloatArray
    point: NDArray[np.int64]
    rest: FloatArray


class Matter:
    """Points (G, 3) at rest, unit frame, of which the first `movable` can move; the others are known and stay."""

    def __init__(self, points: FloatArray, movable: int) -> None:
        self._tree, self._movable = cKDTree(points), movable

    def sightings(
        self,
        video: FloatArray,
        cameras: Cameras,
        margin: float = CameraOptions.margin,
        options: CorrespondenceOptions = CorrespondenceOptions(),
        *,
        generator: np.random.Generator,
    ) -> Sightings:
        """Pixels after frame 0 of a video (V, T, H, W, 4) of rest positions and alpha that show matter that can move."""
        view, frame, row, column = np.nonzero(video[:, 1:, ..., 3] > options.alpha)
        if len(view) > options.count:
            drawn = generator.choice(len(view), options.count, replace=False, shuffle=False)
            view, frame, row, column = (x[drawn] for x in (view, frame, row, column))
        seen = video[view, frame + 1, row, column]
        rest = margin * np.einsum("mij,mj->mi", cameras.X_world_heading[view], seen[:, :3] / seen[:, 3:])
        distance, point = self._tree.query(rest, distance_upper_bound=options.reach)
        kept = np.isfinite(distance) & (point < self._movable)
        pixel = np.stack([column, row], axis=-1) + 0.5
        return Sightings(view[kept], frame[kept] + 1, pixel[kept], point[kept], rest[kept])


def pull(
    sightings: Sightings,
    cameras: Cameras,
    rest: Tensor,
    positions: Tensor,
    quats: Tensor,
    options: CorrespondenceOptions = CorrespondenceOptions(),
) -> Tensor:
    """The mean pseudo-Huber distance, in heights of the image, of matter from the pixels that it was sighted in.

    Args:
        rest: (N, 3) the points that can move, at frame 0, unit frame.
        positions: (T, N, 3) where they are.
        quats: (T, N, 4) unit quat_wxyz of how they have turned; a sighting keeps its offset from the nearest point.
    """
    if not len(sightings.view):
        return 0.0 * positions.sum()

    def tensor(values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=positions.dtype, device=positions.device)

    index = (torch.as_tensor(x, device=positions.device) for x in (sightings.view, sightings.frame, sightings.point))
    view, frame, point = index
    offset = (tensor(sightings.rest) - rest[point])[..., None]
    now = positions[frame, point] + (offset + turn_less_identity(quats[frame, point]) @ offset)[..., 0]
    X_camera_unit, K = tensor(cameras.viewmats)[view], tensor(cameras.Ks)[view]
    seen = X_camera_unit[:, :3, :3] @ now[..., None] + X_camera_unit[:, :3, 3:]
    image = (K @ seen)[..., 0]
    missed = (image[:, :2] / image[:, 2:].clamp(min=1e-3) - tensor(sightings.pixel)) / cameras.height
    return ((missed.square().sum(-1) + options.scale**2).sqrt() - options.scale).mean()
