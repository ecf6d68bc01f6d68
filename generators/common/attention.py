"""Transformer blocks over sets: learned tokens read points (Perceiver), points read tokens.

All blocks are residual with RMSNorm before each layer, and queries and keys are normed per head, which bounds the
attention's logits and keeps bfloat16 training stable. Nothing depends on the order of a set. Shapes are (..., N, width);
any leading axes are batch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

KeysValues = tuple[Tensor, Tensor]
"""Keys and values (..., heads, M, width / heads) of a set that others read."""


def forward_mode() -> AbstractContextManager[None]:
    """Inside it, attention on a GPU too supports forward-mode derivatives (jvp, jacfwd): the fused kernels do not."""
    return sdpa_kernel(SDPBackend.MATH)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2)) over the last axis. It has no gain of its own: the linear layer that follows absorbs one."""

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(x, x.shape[-1] ** 0.5)


class Attention(nn.Module):
    """Multi-head attention of (..., N, width) to a set (..., M, source).

    Keys and values are made in a call of their own, so that a set that many queries read is projected once. The logits
    are gain * sqrt(width of a head) * cos(query, key) with a learned gain for each head.
    """

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(source, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.ones(heads, 1, 1))

    def keys_values(self, source: Tensor) -> KeysValues:
        keys, values = self.key_value(source).chunk(2, dim=-1)
        return _scaled(self.split(keys), 1.0), self.split(values)

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        return self.joined(_read(self.queries(x), *keys_values))

    def queries(self, x: Tensor) -> Tensor:
        """(..., heads, N, width / heads) of x (..., N, width)."""
        queries = self.split(self.query(x))
        return _scaled(queries, self.gain * queries.shape[-1] ** 0.5)

    def split(self, x: Tensor) -> Tensor:
        """(..., N, width) by heads: (..., heads, N, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def joined(self, read: Tensor) -> Tensor:
        """What the heads read (..., heads, N, width / heads), brought together: (..., N, width)."""
        return self.out(read.transpose(-3, -2).flatten(-2))


def _scaled(x: Tensor, length: float | Tensor) -> Tensor:
    """Vectors (..., n) brought to `length`; one too short to have a direction stays short."""
    inverse = length / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-6)
    return x * inverse.to(x.dtype)


def _read(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    if queries.is_cuda:
        return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    # On a processor, for sets as short as these, torch's fused kernel is 2 to 7 times slower backwards than these three
    # operations, and has no forward-mode derivative.
    return (queries @ keys.transpose(-2, -1)).softmax(-1) @ values


class MLP(nn.Module):
    """Two layers on every element by itself, `ratio` times as wide in the middle."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = round(width * ratio)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PerceiverBlock(nn.Module):
    """Tokens (..., K, width) read a set (where `source` is its width), then each other, then an MLP."""

    def __init__(self, width: int, heads: int, ratio: float, source: int | None = None) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.cross = Attention(width, source, heads) if source else None
        self.self_attention = Attention(width, width, heads)
        self.mlp = MLP(width, ratio)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        if self.cross is not None and source is not None:
            x = x + self.cross(self.norm(x), self.cross.keys_values(source))
        normed = self.norm(x)
        x = x + self.self_attention(normed, self.self_attention.keys_values(normed))
        return x + self.mlp(self.norm(x))


class QueryBlock(nn.Module):
    """Queries (..., N, width) read tokens (..., K, width), then an MLP; they do not see each other."""

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.cross = Attention(width, width, heads)
        self.mlp = MLP(width, ratio)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        return self.cross.keys_values(self.norm(tokens))

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        x = x + self.cross(self.norm(x), keys_values)
        return x + self.mlp(self.norm(x))
