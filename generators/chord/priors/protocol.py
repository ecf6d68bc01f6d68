"""The interface of a video model that motion is distilled from.

A rectified flow carries noise to data along z_tau = (1 - tau) z + tau eps. The model predicts
v = eps - z from z_tau, a sentence and the first frame (CHORD, section 3.2). Nothing else of a video
model is needed to distill motion from it.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Paint = Literal["color", "scene_flow"]
"""Content of a prior's videos. "color": RGB in [0, 1]. "scene_flow": displacement of the matter
that the first frame shows at a pixel, in the camera's heading frame
(`generators.chord.render.paint`); the first frame is then an image of rest positions and alpha."""


class VideoPrior(Protocol):
    """A video model that motion can be distilled from.

    Attributes:
        frames: T of its videos.
        height, width: pixels of its videos.
        sharpness: pixels of its first frames along a pixel of its videos; 1 for videos of colors.
        paint: content of its videos.
        guidance: scale of classifier-free guidance at the first and the last iteration.
        device: where it runs; scenes are rendered there too.
    """

    frames: int
    height: int
    width: int
    sharpness: int
    paint: Paint
    guidance: tuple[float, float]
    device: torch.device

    def condition(self, text: str, first: Tensor, *, seed: int = 0) -> Any:
        """The condition of `velocity`, from the sentence and first frames (B, h, w, C'), one a
        camera.

        Raises:
            ValueError: for a sentence that the model cannot use.
        """
        ...

    def encode(self, video: Tensor) -> Tensor:
        """Latents z (B, ...) of videos (B, T, H, W, C), differentiable."""
        ...

    def velocity(self, z_tau: Tensor, tau: float, condition: Any, *, guidance: float) -> Tensor:
        """Guided velocities v_hat (B, ...) without gradient, under a condition of B cameras."""
        ...
