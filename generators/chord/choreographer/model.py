"""A rectified-flow transformer over small videos, told what should happen by a sentence and the first frame.

Noise is carried to data along z_tau = (1 - tau) z_0 + tau eps. Patches of z_tau are tokens, to which the same patch of
the first frame is added; noise level and sentence modulate every layer (adaLN-Zero, Peebles and Xie 2023, Scalable
Diffusion Models with Transformers). A frame's tokens attend to each other, and in every third block all tokens do.

The network predicts the clean video, as a change of the first frame, and the velocity follows from it,
v_hat = (z_tau - z0_hat) / tau. A patch has more numbers than a token is wide: so many can hold clean patches, which lie
near a surface of few dimensions, but not noise (Li and He 2025, Back to Basics: Let Denoising Generative Models
Denoise). The loss is the velocity's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from flowplan import checks
from generators.chord.choreographer.config import ChoreographerConfig
from generators.common.attention import MLP, Attention, RMSNorm

LEAST_TAU = 0.05
"""Where tau is less than this a velocity is computed as if it were this, for it would be noise over nothing."""
FULL_EVERY = 3
"""Every so many blocks all tokens of a video attend to each other, and not a frame's alone."""


class VideoTransformer(nn.Module):
    """From a noisy video, its noise level, its first frame and a sentence to the clean video.

    Latents are standardised videos (B, T, H, W, C), see `encode`.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, config: ChoreographerConfig) -> None:
        super().__init__()
        self.config = config
        width, (frames, side) = config.width, config.grid
        self.register_buffer("centre", torch.tensor(config.centre), persistent=False)
        self.register_buffer("scale", torch.tensor(config.scale), persistent=False)
        pixels = config.patch**2 * config.channels
        self.noisy = nn.Linear(config.patch_frames * pixels, width)
        self.first = nn.Linear(pixels, width)
        self.place = nn.Parameter(_waves(torch.cartesian_prod(torch.arange(side), torch.arange(side)), width))
        self.time = nn.Parameter(_waves(torch.arange(frames)[:, None], width)[:, None])
        self.level = NoiseLevel(width)
        self.sentence = nn.Sequential(nn.Linear(config.text_width, width), nn.SiLU(), nn.Linear(width, width))
        self.nothing_said = nn.Parameter(torch.zeros(config.text_width))
        self.blocks = nn.ModuleList(
            Block(config, "video" if index % FULL_EVERY == FULL_EVERY - 1 else "frame")
            for index in range(config.blocks)
        )
        self.norm = RMSNorm()
        self.modulation = _zeroed(nn.Linear(width, 2 * width))
        self.out = _zeroed(nn.Linear(width, config.patch_frames * pixels))

    def encode(self, video: Tensor) -> Tensor:
        """Latents of videos or frames (..., C): every channel centred and of about unit variance. It is affine."""
        return (video - self.centre) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Videos or frames (..., C) of latents."""
        return z * self.scale + self.centre

    def forward(self, z_tau: Tensor, tau: Tensor, first: Tensor, text: Tensor, said: Tensor) -> Tensor:
        """The clean latents z0_hat (B, T, H, W, C).

        Args:
            z_tau: (B, T, H, W, C) noisy latents.
            tau: (B,) noise levels in [0, 1].
            first: (B, H, W, C) latents of the first frames.
            text: (B, E) sentences' embeddings.
            said: (B,) False where the sentence is to be ignored.
        """
        config = self.config
        text = torch.where(said[:, None], text, self.nothing_said)
        condition = nn.functional.silu(self.norm(self.level(tau)) + self.norm(self.sentence(text)))  # (B, width)
        seen = self.first(_patches(first[:, None], 1, config.patch)) + self.place  # (B, 1, S, width)
        x = self.noisy(_patches(z_tau, config.patch_frames, config.patch)) + seen + self.time  # (B, T', S, width)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition)[:, None, None].chunk(2, dim=-1)
        change = self.out(self.norm(x) * (1 + scale) + shift)
        change = _video(change.float(), config)
        return torch.cat([first[:, None], first[:, None] + change[:, 1:]], dim=1)  # frame 0 is given


class Block(nn.Module):
    """Attention and MLP, each on inputs that the condition shifts and scales, and let in by gates that begin at 0."""

    def __init__(self, config: ChoreographerConfig, reach: Literal["frame", "video"]) -> None:
        super().__init__()
        self.reach = reach
        self.norm = RMSNorm()
        self.modulation = _zeroed(nn.Linear(config.width, 6 * config.width))
        self.attention = Attention(config.width, config.width, config.heads)
        self.mlp = MLP(config.width, config.mlp_ratio)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, T', S, width) under conditions (B, width)."""
        a_shift, a_scale, a_gate, m_shift, m_scale, m_gate = self.modulation(condition)[:, None, None].chunk(6, dim=-1)
        inner = self.norm(x) * (1 + a_scale) + a_shift
        tokens = inner.flatten(1, 2) if self.reach == "video" else inner
        read = self.attention(tokens, self.attention.keys_values(tokens)).view_as(x)
        x = x + a_gate * read
        return x + m_gate * self.mlp(self.norm(x) * (1 + m_scale) + m_shift)


class NoiseLevel(nn.Module):
    """Features (B, width) of noise levels (B,)."""

    frequency: Tensor

    def __init__(self, width: int, waves: int = 32) -> None:
        super().__init__()
        frequency = torch.logspace(0, math.log10(200), waves)
        self.register_buffer("frequency", frequency, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, tau: Tensor) -> Tensor:
        phase = tau[:, None] * self.frequency
        return self.mlp(torch.cat([phase.sin(), phase.cos()], dim=-1))


@dataclass(frozen=True)
class LossOptions:
    """What is asked of the network in training."""

    shift: float = 10.0
    """Noise levels are drawn as shift u / (1 + (shift - 1) u) of uniform u: the more, the noisier. Half of them are above 0.9,
    as in distillation: with less noise it is easy to see where things go."""
    unsaid: float = 0.1
    """Share of the videos whose sentence is ignored, for classifier-free guidance."""
    weight_max: float = 4.0
    """Bound of the velocity's weight 1 / tau^2."""
    moving_weight: float = 2.0
    """How much more than the others count the pixels that ever differ from the first frame."""

    def __post_init__(self) -> None:
        for name in ("shift", "weight_max"):
            checks.positive(f"LossOptions.{name}", getattr(self, name))
        checks.positive("LossOptions.moving_weight", self.moving_weight, zero=True)
        if not 0 <= self.unsaid < 1:
            raise ValueError(f"LossOptions.unsaid: expected a share in [0, 1), got {self.unsaid!r}")


def flow_loss(model: VideoTransformer, video: Tensor, text: Tensor, options: LossOptions) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and the mean squared error of z0_hat over that of "nothing moves".

    Args:
        video: (B, T, H, W, C).
        text: (B, E) embeddings of the videos' sentences.
        options: see LossOptions. Chance is torch's own.
    """
    z = model.encode(video)
    first = z[:, 0]
    u = torch.rand(len(z), device=z.device)
    tau = options.shift * u / (1 + (options.shift - 1) * u)
    said = torch.rand(len(z), device=z.device) >= options.unsaid
    level = tau[:, None, None, None, None]
    guess = model((1 - level) * z + level * torch.randn_like(z), tau, first, text, said)
    error = (guess - z)[:, 1:].square().mean(-1)  # (B, T - 1, H, W)
    change = (z - first[:, None])[:, 1:].square().mean(-1)
    moving = (change > 0.01).any(1, keepdim=True)  # at any time: the weight then tells little of where things go
    weight = (1 + options.moving_weight * moving) / tau.square().clamp(min=1 / options.weight_max)[:, None, None, None]
    return (weight * error).mean(), error.detach().mean() / change.mean().clamp(min=1e-6)


def velocity(z_tau: Tensor, z0_hat: Tensor, tau: float) -> Tensor:
    """v_hat = (z_tau - z0_hat) / tau of a rectified flow."""
    return (z_tau - z0_hat) / max(tau, LEAST_TAU)


def _patches(video: Tensor, frames: int, side: int) -> Tensor:
    """(B, T, H, W, C) to tokens (B, T / frames, H W / side^2, frames side side C)."""
    B, T, H, W, C = video.shape
    parts = video.reshape(B, T // frames, frames, H // side, side, W // side, side, C)
    return parts.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(B, T // frames, H * W // side**2, frames * side * side * C)


def _video(tokens: Tensor, config: ChoreographerConfig) -> Tensor:
    """The inverse of `_patches`, (B, T, H, W, C)."""
    (frames, side), n, p = config.grid, config.patch_frames, config.patch
    parts = tokens.reshape(len(tokens), frames, side, side, n, p, p, config.channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return parts.reshape(len(tokens), config.frames, config.size, config.size, config.channels)


def _waves(places: Tensor, width: int) -> Tensor:
    """(N, width) cosines at places (N, D), as strong as the noise that they are added to and at first of any pitch."""
    frequency = 0.7 * torch.randn(places.shape[1], width)
    return (places.float() @ frequency + 2 * math.pi * torch.rand(width)).cos()


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
