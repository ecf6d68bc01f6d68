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

Embed = Callable[[Sequence[str]], Tensor]
"""From S sentences to their embeddings (S, E)."""


@dataclass(frozen=True, eq=False)
class Condition:
    """What is known of the videos of B cameras.

    Attributes:
        text: (B, E) embedding of the sentence, the same for all.
        first: (B, h, w, 4) first frames.
    """

    text: Tensor
    first: Tensor


class Choreographer:
    """See `generators.chord.priors.protocol.VideoPrior`. Videos are of scene flow, and latents are their pixels in another unit, so
    that a gradient of a latent needs no network to become one of a video."""

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
        self._embed = embed

    @classmethod
    def load(cls, name_or_path: Path | str = "choreographer-small") -> Choreographer:
        """With the weights of a file, or of a name among those that ship."""
        return cls(weights.load(name_or_path))

    def condition(self, text: str, first: Tensor, *, seed: int = 0) -> Condition:
        """What `velocity` needs; nothing in it is left to chance.

        Raises:
            ValueError: for a sentence without a word, or first frames of another size.
        """
        size = self.model.config.first_size
        if first.ndim != 4 or first.shape[1:] != (size, size, FIRST_CHANNELS):
            raise ValueError(
                f"first: expected frames (B, {size}, {size}, {FIRST_CHANNELS}) of rest positions and alpha, "
                f"got {tuple(first.shape)}"
            )
        sentence = self._embed([text]).to(first.device).expand(len(first), -1)
        return Condition(sentence, first.detach())

    def encode(self, video: Tensor) -> Tensor:
        """Latents of videos: linear in the pixels."""
        return self.model.encode(video)

    @torch.no_grad()
    def velocity(
        self, z_tau: Tensor, tau: float, condition: Condition, *, guidance: float
    ) -> Tensor:
        """v_hat, guided away from what the network expects where nothing is said."""
        z_tau = z_tau.detach()
        said = torch.ones(len(z_tau), dtype=torch.bool, device=z_tau.device)
        if guidance == 1.0:
            return velocity(
                z_tau, self._clean(z_tau, tau, condition.first, condition.text, said), tau
            )
        z, first, words = (torch.cat([x, x]) for x in (z_tau, condition.first, condition.text))
        both = self._clean(z, tau, first, words, torch.cat([said, ~said]))
        asked, unasked = both.chunk(2)
        return velocity(z_tau, unasked + guidance * (asked - unasked), tau)

    def _clean(
        self, z_tau: Tensor, tau: float, first: Tensor, text: Tensor, said: Tensor
    ) -> Tensor:
        level = torch.full((len(z_tau),), tau, device=z_tau.device)
        with torch.autocast(z_tau.device.type, torch.bfloat16):
            return self.model(z_tau, level, first, text, said).float()
