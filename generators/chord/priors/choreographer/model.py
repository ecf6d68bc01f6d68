"""A rectified-flow transformer over small videos of scene flow, conditioned on a sentence and an
image.

A pixel of such a video holds the displacement of the matter that the first frame shows there
(`generators.chord.render.paint`). The first frame is an image of rest positions, finer than the
video. A token is a patch of z_tau through all frames, because motion is smooth in time, plus the
same patch of the first frame. All tokens attend to each other, and noise level and sentence
modulate every layer (`generators.common.diffusion_transformer`).

The network predicts the clean video, and the velocity follows from it, v_hat = (z_tau - z0_hat) /
tau (`generators.common.rectified_flow`). A patch has more numbers than a token is wide: enough for
clean patches, which lie near a manifold of few dimensions, but not for noise (Li and He 2025, Back
to Basics: Let Denoising Generative Models Denoise). The loss is the velocity's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.train_options import LossOptions
from generators.common import rectified_flow
from generators.common.attention import RMSNorm
from generators.common.diffusion_transformer import ModulatedBlock, NoiseLevelEmbedding, zeroed

MIN_TAU = 0.05
"""Velocities below this noise level are computed at it, to bound the division by tau."""
SLOPE_GAIN, SOLID_ALPHA = 20.0, 0.9
"""Gain of the slopes of a first frame, and the least alpha of pixels that have slopes."""
FIRST_CHANNELS, CHANNELS = 4, 3
"""Channels of a first frame (rest position, alpha) and of a video (displacement)."""
SLOPE_CHANNELS = 6
"""Channels of the slopes: change of the rest position down and to the right."""
NULL_TEXT = "null_text_embedding"
STORED_NULL_TEXT = "nothing_said"
"""Name of the null text embedding in weights files of version 1."""


class VideoTransformer(nn.Module):
    """From a noisy video, its noise level, its first frame and a sentence to the clean video.

    Latents are videos (B, T, H, W, 3) in units of `config.scale`, see `encode`.
    """

    def __init__(self, config: ChoreographerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        numbers = config.frames * config.patch**2 * CHANNELS
        first_side = config.patch * config.sharpness
        first_numbers = first_side**2 * (FIRST_CHANNELS + SLOPE_CHANNELS)

        # Embeddings of patches and of their places.
        self.noisy = nn.Linear(numbers, width)
        self.first = nn.Sequential(
            nn.Linear(first_numbers, width), nn.GELU(), nn.Linear(width, width)
        )
        self.place = nn.Parameter(_random_waves(config.side, width))

        # Embeddings of the condition.
        self.level = NoiseLevelEmbedding(width)
        self.sentence = nn.Sequential(
            nn.Linear(config.text_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.null_text_embedding = nn.Parameter(torch.zeros(config.text_width))

        self.blocks = nn.ModuleList(
            ModulatedBlock(width, config.heads, config.mlp_ratio) for _ in range(config.blocks)
        )
        self.norm = RMSNorm()
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, numbers))

    def encode(self, video: Tensor) -> Tensor:
        """Latents of videos (..., 3), of about unit variance."""
        return video / self.config.scale

    def forward(
        self, z_tau: Tensor, tau: Tensor, first: Tensor, text: Tensor, text_mask: Tensor
    ) -> Tensor:
        """The clean latents z0_hat (B, T, H, W, 3).

        Args:
            z_tau: (B, T, H, W, 3) noisy latents.
            tau: (B,) noise levels in [0, 1].
            first: (B, h, w, 4) first frames, `sharpness` times as many pixels along a side.
            text: (B, E) sentence embeddings.
            text_mask: (B,) False to ignore the sentence.
        """
        config = self.config

        # Condition of all layers: noise level plus sentence.
        text = torch.where(text_mask[:, None], text, self.null_text_embedding)
        level = self.norm(self.level(tau))
        condition = nn.functional.silu(level + self.norm(self.sentence(text)))  # (B, width)

        # Tokens: a patch of the first frame, its place, and the noisy patch through all frames.
        still = _patches(_with_slopes(first)[:, None], config.patch * config.sharpness)
        seen = self.first(still) + self.place
        x = self.noisy(_patches(z_tau, config.patch)) + seen  # (B, S, width)

        for block in self.blocks:
            x = block(x, condition)

        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        clean = _video(self.out(self.norm(x) * (1 + scale) + shift).float(), config)
        # Nothing has moved at frame 0.
        return torch.cat([torch.zeros_like(clean[:, :1]), clean[:, 1:]], dim=1)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._save_to_state_dict(destination, prefix, *args)
        destination[prefix + STORED_NULL_TEXT] = destination.pop(prefix + NULL_TEXT)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if prefix + STORED_NULL_TEXT in state_dict:
            state_dict[prefix + NULL_TEXT] = state_dict.pop(prefix + STORED_NULL_TEXT)
        super()._load_from_state_dict(state_dict, prefix, *args)


def flow_loss(
    model: VideoTransformer, video: Tensor, first: Tensor, text: Tensor, options: LossOptions
) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and the error of z0_hat relative to that of "nothing moves".

    Random numbers are drawn from torch's global generator.

    Args:
        model: the network.
        video: (B, T, H, W, 3) displacements.
        first: (B, h, w, 4) first frames.
        text: (B, E) embeddings of the videos' sentences.
        options: see LossOptions.
    """
    z = model.encode(video)

    # A noise level and a kept or ignored sentence for each video.
    u = torch.rand(len(z), device=z.device)
    tau = rectified_flow.shifted(u, options.shift)
    text_mask = torch.rand(len(z), device=z.device) >= options.text_dropout

    level = tau[:, None, None, None, None]
    z_tau = rectified_flow.noisy(z, torch.randn_like(z), level)
    guess = model(z_tau, tau, first, text, text_mask)

    # Squared errors and squared displacements of all frames but the first.
    error, change = ((x.square().mean(-1))[:, 1:] for x in (guess - z, z))  # (B, T - 1, H, W)
    # A pixel counts as moving in all frames if it moves in any, so the weight hardly tells where.
    moving = (change > 0.01).any(1, keepdim=True)  # (B, 1, H, W)
    weighed = ((1 + options.moving_weight * moving) * error).mean((1, 2, 3))  # (B,)

    motion = change.mean((1, 2, 3))  # (B,)
    weight = 1 / (tau.square().clamp(min=1 / options.weight_max) * (motion + options.floor))
    return (weight * weighed).mean(), error.detach().mean() / motion.mean().clamp(min=1e-6)


def velocity(z_tau: Tensor, z0_hat: Tensor, tau: float) -> Tensor:
    """v_hat of a predicted clean video; tau is bounded below by `MIN_TAU`."""
    return rectified_flow.velocity(z_tau, z0_hat, max(tau, MIN_TAU))


def _with_slopes(first: Tensor) -> Tensor:
    """First frames (B, h, w, 4) with six more channels: slopes of the rest position.

    Handles and gaps are a hundredth of a scene: in raw positions they would be too faint to learn
    from.
    """
    solid = first[..., 3:] > SOLID_ALPHA
    slopes = []
    for axis in (1, 2):  # down, to the right
        count = first.shape[axis] - 1
        before, after = (first.narrow(axis, start, count) for start in (0, 1))
        both = solid.narrow(axis, 0, count) & solid.narrow(axis, 1, count)
        slope = (SLOPE_GAIN * (after - before)[..., :3]).clamp(-1, 1) * both
        # The first row or column has no pixel before it.
        border = torch.zeros_like(first.narrow(axis, 0, 1)[..., :3])
        slopes.append(torch.cat([border, slope], dim=axis))
    return torch.cat([first, *slopes], dim=-1)


def _patches(video: Tensor, side: int) -> Tensor:
    """Tokens (B, H W / side^2, T side side C) of videos (B, T, H, W, C)."""
    B, T, H, W, C = video.shape
    rows, columns = H // side, W // side
    parts = video.reshape(B, T, rows, side, columns, side, C)
    parts = parts.permute(0, 2, 4, 1, 3, 5, 6)  # (B, rows, columns, T, side, side, C)
    return parts.reshape(B, H * W // side**2, T * side * side * C)


def _video(tokens: Tensor, config: ChoreographerConfig) -> Tensor:
    """The inverse of `_patches`: videos (B, T, H, W, 3)."""
    n, p = config.side, config.patch
    parts = tokens.reshape(len(tokens), n, n, config.frames, p, p, CHANNELS)
    parts = parts.permute(0, 3, 1, 4, 2, 5, 6)  # (B, T, rows, side, columns, side, C)
    return parts.reshape(len(tokens), config.frames, config.size, config.size, CHANNELS)


def _random_waves(side: int, width: int) -> Tensor:
    """Embeddings (side^2, width) of the places of a square: cosines of random frequency and phase.

    They are about as strong as the features that they are added to.
    """
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    return (places @ (0.7 * torch.randn(2, width)) + 2 * math.pi * torch.rand(width)).cos()
