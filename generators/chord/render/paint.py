"""What Gaussians are painted with before they are rendered for a prior.

A model of natural videos wants colors. A small one learns motion sooner when it need not learn looks, nor what comes to
light as things move: it sees the scene's shape once, in a picture painted with rest positions, and then, for every pixel
of that picture, how far its matter has gone. Such a video of scene flow is as smooth as the motion is, and what a prior
would change in it says of each piece of matter where it should be, however far away that is. Both are written in the
camera's heading frame (`generators.chord.render.cameras`), in radii of the ball that fills the view, so that neither the scene's
place, nor its size, nor the side that it is seen from plays a part. This is ours and not the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowplan.utils.checks import FloatArray
from generators.chord.options import CameraOptions
from generators.chord.render.cameras import Cameras, Framing


def rest_position(
    points: FloatArray, cameras: Cameras, framed: Framing, margin: float = CameraOptions.margin
) -> FloatArray:
    """Paint (V, G, 3) of material points that rest at (G, 3), world frame, meters: about [-1, 1] for each camera."""
    centered = (points - framed.center) / (margin * framed.radius)
    return (
        centered @ cameras.X_world_heading
    )  # the rows' coordinates along the columns right, forward, up


def scene_flow(
    displacements: Tensor, cameras: Cameras, margin: float = CameraOptions.margin
) -> Tensor:
    """Video (V, T, H, W, 3) of displacements (V, H, W, T, 3) since frame 0 rendered at frame 0, unit frame."""
    R = torch.as_tensor(
        cameras.X_world_heading, dtype=displacements.dtype, device=displacements.device
    )
    return (displacements @ R[:, None, None] / margin).permute(0, 3, 1, 2, 4)
