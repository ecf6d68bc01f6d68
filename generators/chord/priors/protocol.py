"""What CHORD asks of a video model: to encode a video, and the velocity of its rectified flow.

A rectified flow carries noise to data along z_tau = (1 - tau) z + tau eps; the model predicts v = eps - z from z_tau,
a sentence and the first frame (CHORD, section 3.2). Nothing else of a video model is needed to distil motion from it.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

Paint = Literal["color", "scene_flow"]
"""What a prior sees. "color": RGB in [0, 1]. "scene_flow": how far the matter that the first frame shows at a pixel has
gone, in the camera's heading frame (`generators.chord.render.paint`); its first frame is a picture of rest positions and alpha."""


class VideoPrior(Protocol):
    """A video model that can be distilled.

    Attributes:
        frames: T of its videos.
        height, width: pixels of its videos.
        sharpness: pixels of its first frames along a pixel of its videos; 1 where videos are of colors.
        paint: what its videos show.
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
        """What `velocity` needs of the sentence and of the first frames (B, h, w, C'), one a camera.

        Raises:
            ValueError: when the model cannot make anything of the sentence.
        """
        ...

    def encode(self, video: Tensor) -> Tensor:
        """Latent z (B, ...) of videos (B, T, H, W, C), differentiable by the video."""
        ...

    def velocity(self, z_tau: Tensor, tau: float, condition: Any, *, guidance: float) -> Tensor:
        """v_hat (B, ...), guided, without gradient; `condition` is of the same B cameras."""
        ...
