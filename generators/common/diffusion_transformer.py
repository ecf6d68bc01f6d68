"""Parts of a diffusion transformer (DiT, Peebles and Xie 2023, Scalable Diffusion Models).

A condition (noise level, sentence) modulates every block by adaLN-Zero: it shifts and scales the
inputs of attention and MLP, and gates their outputs. All gates start at zero, so a new block is the
identity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from generators.common.attention import MLP, Attention, RMSNorm


class ModulatedBlock(nn.Module):
    """Self-attention and MLP under a condition of the same width.

    Args:
        width: width of a token and of the condition.
        heads: attention heads; divides `width`.
        mlp_ratio: hidden width of the MLP over `width`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.attention = Attention(width, width, heads)
        self.mlp = MLP(width, mlp_ratio)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens (B, S, width) under conditions (B, width)."""
        modulation = self.modulation(condition)[:, None]  # (B, 1, 6 width)
        a_shift, a_scale, a_gate, m_shift, m_scale, m_gate = modulation.chunk(6, dim=-1)

        inner = self.norm(x) * (1 + a_scale) + a_shift
        x = x + a_gate * self.attention(inner, self.attention.keys_values(inner))

        inner = self.norm(x) * (1 + m_scale) + m_shift
        return x + m_gate * self.mlp(inner)


class NoiseLevelEmbedding(nn.Module):
    """Features (B, width) of noise levels (B,): sines and cosines, then an MLP."""

    frequency: Tensor

    def __init__(self, width: int, waves: int = 32) -> None:
        super().__init__()
        frequency = torch.logspace(0, math.log10(200), waves)
        self.register_buffer("frequency", frequency, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, tau: Tensor) -> Tensor:
        phase = tau[:, None] * self.frequency  # (B, waves)
        return self.mlp(torch.cat([phase.sin(), phase.cos()], dim=-1))


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weight and bias set to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
