"""Inputs of Wan's transformers beside the noisy latent, as in diffusers' WanImageToVideoPipeline.

A14B: [z_tau (C), mask of given frames (4), latent of the first frame followed by gray frames (C)]
stacked along channels, and tau. TI2V-5B: z_tau with its first latent frame replaced by the given
one, and the noise level of every token: 0 for the given frame, tau for the others. Levels are
passed in thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generators.chord.priors.wan.config import LEVELS, WanConfig
from generators.chord.priors.wan.encoder import Encoder


@dataclass(frozen=True, eq=False)
class WanCondition:
    """Condition of `WanPrior.velocity`: a sentence and B first frames.

    Attributes:
        text: (1, 512, D) the sentence, zero after its end.
        negative: (1, 512, D) the negative prompt.
        given: A14B: (B, 4 + C, k, h, w) mask and latent; TI2V-5B: (B, C, 1, h, w) latent of the
            first frame.
    """

    text: Tensor
    negative: Tensor
    given: Tensor


@torch.no_grad()
def given(config: WanConfig, encoder: Encoder, first: Tensor, frames: int) -> Tensor:
    """`WanCondition.given` of first frames (B, H, W, 3) in [0, 1], for videos of T frames."""
    if config.token_levels:
        return encoder(first[:, None])
    # Gray is 0.5, the zero of pixels in [-1, 1].
    video = first.new_full((len(first), frames, *first.shape[1:]), 0.5)
    video[:, 0] = first
    latent = encoder(video)
    mask = torch.zeros_like(latent[:, : config.stride[0]])
    mask[:, :, 0] = 1
    return torch.cat([mask, latent], 1)


def network_input(
    config: WanConfig, z_tau: Tensor, tau: float, given: Tensor
) -> tuple[Tensor, Tensor]:
    """Channels (B, in, k, h, w) and noise levels (B,), or (B, tokens) for TI2V-5B."""
    level = LEVELS * tau
    if not config.token_levels:
        return torch.cat([z_tau, given], 1), z_tau.new_full((len(z_tau),), level)
    _, rows, columns = config.patch
    levels = torch.full_like(z_tau[:, 0, :, ::rows, ::columns], level)
    levels[:, 0] = 0
    return torch.cat([given, z_tau[:, :, 1:]], 2), levels.flatten(1)


def first_frame_known(v: Tensor, z_tau: Tensor, tau: float, given: Tensor) -> Tensor:
    """TI2V-5B's velocity (B, C, k, h, w) with the exact velocity of the given first frame.

    The network never sees that frame's noise and predicts nothing for it. But z is known there, so
    v = eps - z = (z_tau - z) / tau, and CHORD's gradient v - eps + z vanishes, as it should.
    """
    return torch.cat([(z_tau[:, :, :1] - given) / tau, v[:, :, 1:]], 2)
