"""The choreographer as a prior that motion is distilled from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generators.chord.priors.choreographer import weights
from generators.chord.priors.choreographer.model import FIRST_CHANNELS, VideoTransformer, velocity
from generators.chord.priors.protocol import Paint
from generators.common import text_encoder
from generators.common.device import resolve

Embed = Callable[[Sequence[str]], Tensor]
"""From S sentences to their embeddings (S, E)."""


@dataclass(frozen=True, eq=False)
class Condition:
    """Condition of the videos of B cameras.

    Attributes:
        text: (B, E) embedding of the sentence, the same for all.
        first: (B, h, w, 4) first frames.
    """

    text: Tensor
    first: Tensor


class Choreographer:
    """A `VideoPrior` (see `generators.chord.priors.protocol`) of scene flow.

    Latents are pixels in another unit, so that a gradient of a latent becomes one of a video
    without passing a network.
    """

    paint: Paint = "scene_flow"

    def __init__(
        self,
        model: VideoTransformer,
        *,
        embed: Embed = text_encoder.embed,
        guidance: tuple[float, float] = (2.5, 1.5),
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.frames = model.config.frames
        self.height = self.width = model.config.size
        self.sharpness = model.config.sharpness
        self.guidance = guidance
        self.device = next(model.parameters()).device
        self._embed = embed

    @classmethod
    def load(
        cls, name_or_path: Path | str = "choreographer-small", device: str = "auto"
    ) -> Choreographer:
        """The choreographer with the weights of a file, or of a name among those that ship.

        Args:
            name_or_path: name of shipped weights, or path of a safetensors file.
            device: see `generators.common.device.resolve`.
        """
        return cls(weights.load(name_or_path).to(resolve(device)))

    def condition(self, text: str, first: Tensor, *, seed: int = 0) -> Condition:
        """The condition of `velocity`. It is deterministic: the seed is ignored.

        Raises:
            ValueError: for a sentence without words, or first frames of another size.
        """
        size = self.model.config.first_size
        if first.ndim != 4 or first.shape[1:] != (size, size, FIRST_CHANNELS):
            raise ValueError(
                f"first: expected frames (B, {size}, {size}, {FIRST_CHANNELS}) of rest positions "
                f"and alpha, got {tuple(first.shape)}"
            )
        sentence = self._embed([text]).to(first.device).expand(len(first), -1)
        return Condition(sentence, first.detach())

    def encode(self, video: Tensor) -> Tensor:
        """Latents of videos, linear in the pixels."""
        return self.model.encode(video)

    @torch.no_grad()
    def velocity(
        self, z_tau: Tensor, tau: float, condition: Condition, *, guidance: float
    ) -> Tensor:
        """v_hat, guided away from the prediction without a sentence."""
        z_tau = z_tau.detach()
        first, text = condition.first, condition.text
        told = torch.ones(len(z_tau), dtype=torch.bool, device=z_tau.device)
        if guidance == 1.0:
            return velocity(z_tau, self._clean(z_tau, tau, first, text, told), tau)

        # Both predictions in one batch: with the sentence, then without.
        z, first, text = (torch.cat([x, x]) for x in (z_tau, first, text))
        both = self._clean(z, tau, first, text, torch.cat([told, ~told]))
        with_text, without_text = both.chunk(2)
        guided = without_text + guidance * (with_text - without_text)
        return velocity(z_tau, guided, tau)

    def _clean(
        self, z_tau: Tensor, tau: float, first: Tensor, text: Tensor, text_mask: Tensor
    ) -> Tensor:
        """The clean latents that the network predicts at one noise level."""
        level = torch.full((len(z_tau),), tau, device=z_tau.device)
        with torch.autocast(z_tau.device.type, torch.bfloat16):
            return self.model(z_tau, level, first, text, text_mask).float()
