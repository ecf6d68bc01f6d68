"""A rectified-flow transformer over small videos of scene flow, told what should happen by a sentence and a picture.

A pixel of such a video says how far the matter that the first frame shows there has gone (`generators.chord.render.paint`);
the first frame is a picture of rest positions, finer than the video. Noise is carried to data along
z_tau = (1 - tau) z_0 + tau eps. A token is a patch of z_tau through all frames, for motion is smooth in time, to which
the same patch of the first frame is added; all tokens attend to each other, and noise level and sentence modulate every
layer (adaLN-Zero, Peebles and Xie 2023, Scalable Diffusion Models with Transformers).

The network predicts the clean video, and the velocity follows from it, v_hat = (z_tau - z0_hat) / tau. A patch has more
numbers than a token is wide: so many can hold clean patches, which lie near a surface of few dimensions, but not noise
(Li and He 2025, Back to Basics: Let Denoising Generative Models Denoise). The loss is the velocity's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowplan.utils import checks
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.common.attention import MLP, Attention, RMSNorm

LEAST_TAU = 0.05
"""Where tau is less than this a velocity is computed as if it were this, for it would be noise over nothing."""
RELIEF, SOLID = 20.0, 0.9
"""What slopes of a first frame are multiplied by, and the alpha from which a pixel has one."""
FIRST_CHANNELS, CHANNELS = 4, 3
"""Of a first frame, rest positions and alpha; and of a video, displacements."""


class VideoTransformer(nn.Module):
    """From a noisy video, its noise level, its first frame and a sentence to the clean video.

    Latents are videos (B, T, H, W, 3) in units of `config.scale`, see `encode`.
    """

    def __init__(self, config: ChoreographerConfig) -> None:
        super().__init__()
        self.config = config
        width, numbers = config.width, config.frames * config.patch**2 * CHANNELS
        self.noisy = nn.Linear(numbers, width)
        seen = (config.patch * config.sharpness) ** 2 * (FIRST_CHANNELS + 6)
        self.first = nn.Sequential(nn.Linear(seen, width), nn.GELU(), nn.Linear(width, width))
        self.place = nn.Parameter(_waves(config.side, width))
        self.level = NoiseLevel(width)
        self.sentence = nn.Sequential(
            nn.Linear(config.text_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.nothing_said = nn.Parameter(torch.zeros(config.text_width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = RMSNorm()
        self.modulation = _zeroed(nn.Linear(width, 2 * width))
        self.out = _zeroed(nn.Linear(width, numbers))

    def encode(self, video: Tensor) -> Tensor:
        """Latents of videos (..., 3), of about unit variance."""
        return video / self.config.scale

    def forward(
        self, z_tau: Tensor, tau: Tensor, first: Tensor, text: Tensor, said: Tensor
    ) -> Tensor:
        """The clean latents z0_hat (B, T, H, W, 3).

        Args:
            z_tau: (B, T, H, W, 3) noisy latents.
            tau: (B,) noise levels in [0, 1].
            first: (B, h, w, 4) first frames, `sharpness` times as many pixels along a side.
            text: (B, E) sentences' embeddings.
            said: (B,) False where the sentence is to be ignored.
        """
        config = self.config
        text = torch.where(said[:, None], text, self.nothing_said)
        condition = nn.functional.silu(
            self.norm(self.level(tau)) + self.norm(self.sentence(text))
        )  # (B, width)
        seen = (
            self.first(_patches(_relief(first)[:, None], config.patch * config.sharpness))
            + self.place
        )
        x = self.noisy(_patches(z_tau, config.patch)) + seen  # (B, S, width)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        clean = _video(self.out(self.norm(x) * (1 + scale) + shift).float(), config)
        return torch.cat(
            [torch.zeros_like(clean[:, :1]), clean[:, 1:]], dim=1
        )  # nothing has moved at frame 0


class Block(nn.Module):
    """Attention and MLP, each on inputs that the condition shifts and scales, and let in by gates that begin at 0."""

    def __init__(self, config: ChoreographerConfig) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.modulation = _zeroed(nn.Linear(config.width, 6 * config.width))
        self.attention = Attention(config.width, config.width, config.heads)
        self.mlp = MLP(config.width, config.mlp_ratio)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, S, width) under conditions (B, width)."""
        a_shift, a_scale, a_gate, m_shift, m_scale, m_gate = self.modulation(condition)[
            :, None
        ].chunk(6, dim=-1)
        inner = self.norm(x) * (1 + a_scale) + a_shift
        x = x + a_gate * self.attention(inner, self.attention.keys_values(inner))
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

    shift: float = 80.0
    """Noise levels are drawn as shift u / (1 + (shift - 1) u) of uniform u: the more, the noisier. Half of them are
    above 0.98, as in distillation: with less noise it is easy to see where things go."""
    unsaid: float = 0.1
    """Share of the videos whose sentence is ignored, for classifier-free guidance."""
    weight_max: float = 4.0
    """Bound of the velocity's weight 1 / tau^2."""
    moving_weight: float = 1.0
    """How much more than the others count the pixels of what moves."""
    floor: float = 0.05
    """A video counts for its errors over its motion's mean square plus this, in squared units of a latent: little things
    are learned too."""

    def __post_init__(self) -> None:
        for name in ("shift", "weight_max", "floor"):
            checks.positive(f"LossOptions.{name}", getattr(self, name))
        checks.positive("LossOptions.moving_weight", self.moving_weight, zero=True)
        if not 0 <= self.unsaid < 1:
            raise ValueError(f"LossOptions.unsaid: expected a share in [0, 1), got {self.unsaid!r}")


def flow_loss(
    model: VideoTransformer, video: Tensor, first: Tensor, text: Tensor, options: LossOptions
) -> tuple[Tensor, Tensor]:
    """The loss to differentiate, and the mean squared error of z0_hat over that of "nothing moves".

    Args:
        video: (B, T, H, W, 3) displacements.
        first: (B, h, w, 4) first frames.
        text: (B, E) embeddings of the videos' sentences.
        options: see LossOptions. Chance is torch's own.
    """
    z = model.encode(video)
    u = torch.rand(len(z), device=z.device)
    tau = options.shift * u / (1 + (options.shift - 1) * u)
    said = torch.rand(len(z), device=z.device) >= options.unsaid
    level = tau[:, None, None, None, None]
    guess = model((1 - level) * z + level * torch.randn_like(z), tau, first, text, said)
    error, change = ((x.square().mean(-1))[:, 1:] for x in (guess - z, z))  # (B, T - 1, H, W)
    moving = (change > 0.01).any(
        1, keepdim=True
    )  # at any time: the weight then tells little of where things go
    weighed = ((1 + options.moving_weight * moving) * error).mean((1, 2, 3))
    motion = change.mean((1, 2, 3))
    weight = 1 / (tau.square().clamp(min=1 / options.weight_max) * (motion + options.floor))
    return (weight * weighed).mean(), error.detach().mean() / motion.mean().clamp(min=1e-6)


def velocity(z_tau: Tensor, z0_hat: Tensor, tau: float) -> Tensor:
    """v_hat = (z_tau - z0_hat) / tau of a rectified flow."""
    return (z_tau - z0_hat) / max(tau, LEAST_TAU)


def _relief(first: Tensor) -> Tensor:
    """First frames (B, h, w, 4) with six more channels: how rest positions change from pixel to pixel.

    Handles and gaps are a hundredth of a scene; raw positions would tell of them too, but far too low to be heard.
    """
    inside = first[..., 3:] > SOLID
    steps = []
    for axis in (1, 2):
        before, after = (
            first.narrow(axis, 0, first.shape[axis] - 1),
            first.narrow(axis, 1, first.shape[axis] - 1),
        )
        both = inside.narrow(axis, 0, before.shape[axis]) & inside.narrow(
            axis, 1, after.shape[axis]
        )
        step = (RELIEF * (after - before)[..., :3]).clamp(-1, 1) * both
        steps.append(
            torch.cat([torch.zeros_like(first.narrow(axis, 0, 1)[..., :3]), step], dim=axis)
        )
    return torch.cat([first, *steps], dim=-1)


def _patches(video: Tensor, side: int) -> Tensor:
    """(B, T, H, W, C) to tokens (B, H W / side^2, T side side C)."""
    B, T, H, W, C = video.shape
    parts = video.reshape(B, T, H // side, side, W // side, side, C).permute(0, 2, 4, 1, 3, 5, 6)
    return parts.reshape(B, H * W // side**2, T * side * side * C)


def _video(tokens: Tensor, config: ChoreographerConfig) -> Tensor:
    """The inverse of `_patches`, (B, T, H, W, 3)."""
    n, p = config.side, config.patch
    parts = tokens.reshape(len(tokens), n, n, config.frames, p, p, CHANNELS).permute(
        0, 3, 1, 4, 2, 5, 6
    )
    return parts.reshape(len(tokens), config.frames, config.size, config.size, CHANNELS)


def _waves(side: int, width: int) -> Tensor:
    """(side^2, width) cosines at the places of a square, as strong as what they are added to and at first of any pitch."""
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    return (places @ (0.7 * torch.randn(2, width)) + 2 * math.pi * torch.rand(width)).cos()


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
