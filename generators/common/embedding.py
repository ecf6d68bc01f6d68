"""Fourier embedding of points, after 3DShape2VecSet (arXiv 2301.11445).

Every coordinate x becomes x, sin(2^j pi x), cos(2^j pi x) for j = 0 .. frequencies - 1, and an MLP
mixes them. The frequencies are fixed: in a frame in which objects fit [-1, 1]^3 the longest wave
spans the object and the shortest is 2^(1 - frequencies) of its half-width, about the finest gap
between two parts that a field over these features can resolve.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PointEmbedding(nn.Module):
    """Points (..., N, inputs), about [-1, 1], to features (..., N, outputs).

    Args:
        inputs: numbers of a point: 3, or more if something (a deformation) is concatenated to it.
        frequencies: sines and cosines of each coordinate.
        outputs: width of the features and of the MLP's hidden layer.
    """

    scale: Tensor

    def __init__(self, inputs: int, frequencies: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("scale", math.pi * 2.0 ** torch.arange(frequencies), persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(inputs * (1 + 2 * frequencies), outputs),
            nn.GELU(),
            nn.Linear(outputs, outputs),
        )

    def forward(self, points: Tensor) -> Tensor:
        # A product, not a matmul: under autocast a matmul would round the phases to bfloat16.
        phase = (points[..., None] * self.scale).flatten(-2)
        features = torch.cat([points, phase.sin(), phase.cos()], dim=-1)
        return self.mlp(features)
