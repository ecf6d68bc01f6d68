"""The features that Gaussians are rendered with for a prior.

A model of natural videos wants colors. A small one learns motion sooner if it need not learn
appearance, nor what comes into view as things move: it sees the scene's shape once, in an image of
rest positions, and then, for every pixel of that image, the displacement of its matter. Such a
video of scene flow is as smooth as the motion, and the score of a prior at a pixel tells of a piece
of matter where it should be, however far away that is.

Both features are expressed in the camera's heading frame (`generators.chord.render.cameras`), in
radii of the ball that fills the view, so they do not depend on the scene's place and size, nor on
the side that it is seen from. This is ours and not the paper's.
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
    """Rest positions as features (V, G, 3), about [-1, 1], for each camera.

    Args:
        points: (G, 3) at rest, world frame, meters.
        cameras: V cameras.
        framed: the ball that the cameras look at.
        margin: radius of the ball that fills the view, in radii of `framed`.
    """
    centered = (points - framed.center) / (margin * framed.radius)
    # Coordinates along the columns right, forward, up.
    return centered @ cameras.X_world_heading


def scene_flow(
    displacements: Tensor, cameras: Cameras, margin: float = CameraOptions.margin
) -> Tensor:
    """Video (V, T, H, W, 3) of scene flow.

    Args:
        displacements: (V, H, W, T, 3) since frame 0, rendered at frame 0, unit frame.
        cameras: V cameras.
        margin: radius of the ball that fills the view, in the unit frame.
    """
    R = torch.as_tensor(
        cameras.X_world_heading, dtype=displacements.dtype, device=displacements.device
    )
    return (displacements @ R[:, None, None] / margin).permute(0, 3, 1, 2, 4)
