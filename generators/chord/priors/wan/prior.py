"""Wan 2.2 as a video prior: one expert at a time on the device, the text encoder only while a
sentence is read."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn

from generators.chord.priors.protocol import Paint
from generators.chord.priors.wan.conditioning import (
    WanCondition,
    first_frame_known,
    given,
    network_input,
)
from generators.chord.priors.wan.config import WanConfig
from generators.chord.priors.wan.encoder import Forget
from generators.chord.priors.wan.linear import encode_linear
from generators.chord.priors.wan.options import WanOptions
from generators.chord.priors.wan.parts import EXPERTS, Parts

PAPER_HEIGHT = 464
"""Pixels of a video's height in the paper (A.1)."""


class WanPrior:
    """A `VideoPrior` of RGB videos in [0, 1]; latents are float32.

    A distillation uses both experts, one after the other: when tau falls below the boundary, the
    first is freed and the second is read, once. A new sentence frees the expert, to make room for
    the text encoder; embeddings of sentences are kept.

    Args:
        config: structure of the model.
        parts: source of its networks.
        options: see WanOptions.
        forget: activations that an exact gradient recomputes.
    """

    paint: Paint = "color"
    sharpness = 1

    def __init__(
        self, config: WanConfig, parts: Parts, options: WanOptions, *, forget: Forget = "videos"
    ) -> None:
        self.config, self.parts, self.options, self.forget = config, parts, options, forget
        self.frames, self.guidance = options.frames, options.guidance
        self.height, self.width = size(config, options)
        self.device = torch.device(options.device)
        self._texts: dict[str, Tensor] = {}
        self._expert: tuple[str, nn.Module] | None = None
        self.encoder = parts.encoder()

    def condition(self, text: str, first: Tensor, *, seed: int = 0) -> WanCondition:
        """The condition of `velocity`, from the sentence and first frames (B, H, W, 3).

        Raises:
            ValueError: for an empty sentence, or one of more than 512 tokens.
        """
        self._expect("first", first, (self.height, self.width, 3))
        if not text.strip():
            raise ValueError("text: expected a sentence on what should move, got an empty one")
        # Latents of the first frames, and embeddings of the sentence.
        known = given(self.config, self.encoder, first.to(self.options.device), self.frames)
        return WanCondition(*self._read(text), known)

    def encode(self, video: Tensor) -> Tensor:
        """Differentiable latents (B, C, 1 + (T - 1) / 4, h, w) of videos (B, T, H, W, 3)."""
        self._expect("video", video, (self.frames, self.height, self.width, 3))
        video = video.to(self.options.device)
        # Without a gradient there is nothing to recompute.
        if not (torch.is_grad_enabled() and video.requires_grad):
            return self.encoder(video, "nothing")
        if self.options.gradient == "linear":
            return encode_linear(self.encoder, video)
        return self.encoder(video, self.forget)

    @torch.no_grad()
    def velocity(
        self, z_tau: Tensor, tau: float, condition: WanCondition, *, guidance: float
    ) -> Tensor:
        """v_hat = v(negative) + guidance (v(text) - v(negative)), of shape (B, C, k, h, w)."""
        tau = float(tau)
        if not 0 < tau <= 1:
            raise ValueError(f"tau: expected a noise level in (0, 1], got {tau:g}")
        if len(z_tau) != len(condition.given):
            raise ValueError(
                f"z_tau: got {len(z_tau)} latents and a condition of {len(condition.given)} "
                "first frames"
            )
        # The expert of this noise level.
        network = self._expert_for(tau)
        out = []
        # One by one: a video has thousands of tokens, and a batch would only need more memory.
        for z, known in zip(z_tau.split(1), condition.given.split(1), strict=True):
            seen, levels = network_input(self.config, z, tau, known)
            v = self._ask(network, seen, levels, condition.text)
            if guidance != 1:
                without = self._ask(network, seen, levels, condition.negative)
                v = without + guidance * (v - without)
            out.append(first_frame_known(v, z, tau, known) if self.config.token_levels else v)
        return torch.cat(out)

    def _ask(self, network: nn.Module, seen: Tensor, levels: Tensor, text: Tensor) -> Tensor:
        seen = seen.to(text.dtype)
        return network(
            hidden_states=seen, timestep=levels, encoder_hidden_states=text, return_dict=False
        )[0].float()

    def _expert_for(self, tau: float) -> nn.Module:
        # One expert at a time: the other is freed first.
        low = self.config.boundary is not None and tau < self.config.boundary
        name = EXPERTS[low]
        if self._expert is None or self._expert[0] != name:
            self._free()
            self._expert = name, self.parts.expert(name)
        return self._expert[1]

    def _read(self, text: str) -> tuple[Tensor, Tensor]:
        wanted = [t for t in (text, self.options.negative) if t not in self._texts]
        if wanted:
            self._free()
            self._texts.update(zip(wanted, self.parts.sentences(wanted).split(1), strict=True))
            release()
        return self._texts[text], self._texts[self.options.negative]

    def _free(self) -> None:
        self._expert = None
        release()

    @staticmethod
    def _expect(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if value.ndim != len(shape) + 1 or tuple(value.shape[1:]) != shape:
            raise ValueError(
                f"{name}: expected shape (B, {', '.join(map(str, shape))}), "
                f"got {tuple(value.shape)}"
            )


def size(config: WanConfig, options: WanOptions) -> tuple[int, int]:
    """(height, width) of videos, pixels.

    Raises:
        ValueError: if the model cannot make videos of this size or length.
    """
    height = options.height
    if height is None:
        height = PAPER_HEIGHT // config.multiple * config.multiple
    config.check_size(options.frames, height, options.width)
    return height, options.width


def release() -> None:
    """Free the memory of unreferenced networks, some of which are held by reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
