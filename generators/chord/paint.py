"""What Gaussians are painted with before they are rendered for a prior.

A model of natural videos wants colours. A small one learns motion sooner when it need not learn looks: painted with its
rest position, every pixel says which piece of matter it shows, so that where that piece has gone can be read off. Rest
positions are written in the camera's heading frame (`generators.chord.cameras`), in radii of the framed ball, so that
neither the scene's place, nor its size, nor the side that it is seen from plays a part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowplan.checks import FloatArray
from generators.chord.cameras import CameraOptions, Cameras, Framing
from generators.chord.prior import Paint

CHANNELS: dict[Paint, int] = {"colour": 3, "rest_position": 4}
"""Channels of a video in each paint."""


def rest_position(
    points: FloatArray, cameras: Cameras, framed: Framing, margin: float = CameraOptions.margin
) -> FloatArray:
    """Paint (V, G, 3) of material points that rest at (G, 3), world frame, metres: about [-1, 1] for each camera."""
    centred = (points - framed.centre) / (margin * framed.radius)
    return centred @ cameras.X_world_heading  # the rows' coordinates along the columns right, forward, up


def video(paint: Paint, images: Tensor, alphas: Tensor, background: float = 1.0) -> Tensor:
    """Video (..., H, W, C) of Gaussians rendered before nothing.

    Args:
        paint: "colour" puts them before an even grey; "rest_position" leaves them premultiplied and appends alpha,
            without which matter at the centre would look like nothing.
        images: (..., H, W, 3) rendered features, premultiplied.
        alphas: (..., H, W).
        background: brightness in [0, 1] behind colours.
    """
    if paint == "colour":
        return images + (1 - alphas)[..., None] * background
    return torch.cat([images, alphas[..., None]], dim=-1)
