"""What Wan's transformers are told beside the noisy latent, as diffusers' WanImageToVideoPipeline tells it them.

A14B: [z_tau (C), which frames are given (4), latent of the first frame followed by gray frames (C)] stacked along
channels, and tau. TI2V-5B: z_tau with its first latent frame replaced by the given one, and the noise level of every
token: 0 where it is given, tau elsewhere. Levels go in thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generators.chord.priors.wan.config import LEVELS, WanConfig
from generators.chord.priors.wan.encoder import Encoder


@dataclass(frozen=True, eq=False)
class WanCondition:
    """What `WanPrior.velocity` needs of a sentence and of B first frames.

    Attributes:
        text: (1, 512, D) the sentence, zero after its end.
        negative: (1, 512, D) what guidance leads away from.
        given: A14B: (B, 4 + C, k, h, w) mask and latent; TI2V-5B: (B, C, 1, h, w) latent of the first frame.
    """

    text: Tensor
    negative: Tensor
    given: Tensor


@torch.no_grad()
def given(config: WanConfig, encoder: Encoder, first: Tensor, frames: int) -> Tensor:
    """`WanCondition.given` of first frames (B, H, W, 3) in [0, 1], for videos of so many frames."""
    if config.token_levels:
        return encoder(first[:, None])
    video = first.new_full(
        (len(first), frames, *first.shape[1:]), 0.5
    )  # 0 where pixels are in [-1, 1]
    video[:, 0] = first
    latent = encoder(video)
    mask = torch.zeros_like(latent[:, : config.stride[0]])
    mask[:, :, 0] = 1
    return torch.cat([mask, latent], 1)


def network_input(
    config: WanConfig, z_tau: Tensor, tau: float, given: Tensor
) -> tuple[Tensor, Tensor]:
    """What a transformer sees: channels (B, in, k, h, w), and levels (B,), or (B, tokens) where it is told each."""
    level = LEVELS * tau
    if not config.token_levels:
        return torch.cat([z_tau, given], 1), z_tau.new_full((len(z_tau),), level)
    _, rows, columns = config.patch
    levels = torch.full_like(z_tau[:, 0, :, ::rows, ::columns], level)
    levels[:, 0] = 0
    return torch.cat([given, z_tau[:, :, 1:]], 2), levels.flatten(1)


def first_frame_known(v: Tensor, z_tau: Tensor, tau: float, given: Tensor) -> Tensor:
    """TI2V-5B's velocity (B, C, k, h, w) with that of the given first frame put in.

    It never sees that frame's noise and predicts nothing there; but eps = (z_tau - (1 - tau) z) / tau is known with z,
    so v = eps - z = (z_tau - z) / tau. CHORD's gradient v - eps + z then vanishes there, as it should.
    """
    return torch.cat([(z_tau[:, :, :1] - given) / tau, v[:, :, 1:]], 2)
