"""Transformer blocks over sets: learned tokens read points (Perceiver), points read tokens.

All blocks are residual with RMSNorm before each layer. Queries and keys are normalized per head,
which bounds the attention logits and keeps bfloat16 training stable. The order of a set has no
effect. Shapes are (..., N, width); leading axes are batch axes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

KeysValues = tuple[Tensor, Tensor]
"""Keys and values (..., heads, M, width / heads) of a set that others read."""

_SHORTEST = 1e-6  # norm below which a vector counts as having no direction


def forward_mode() -> AbstractContextManager[None]:
    """Context in which attention supports forward-mode derivatives (jvp, jacfwd) on a GPU too.

    The fused kernels do not.
    """
    return sdpa_kernel(SDPBackend.MATH)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2)) over the last axis, without a gain: the next linear layer absorbs one."""

    def forward(self, x: Tensor) -> Tensor:
        return _scaled(x, x.shape[-1] ** 0.5)


class Attention(nn.Module):
    """Multi-head attention of (..., N, width) to a set (..., M, source).

    Keys and values are computed in a call of their own, so that a set read by many queries is
    projected once. The logits are gain * sqrt(width of a head) * cos(query, key) with a learned
    gain for each head.
    """

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(source, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gain = nn.Parameter(torch.ones(heads, 1, 1))

    def keys_values(self, source: Tensor) -> KeysValues:
        """Keys and values of a set (..., M, source)."""
        keys, values = self.key_value(source).chunk(2, dim=-1)
        return _scaled(self.split(keys), 1.0), self.split(values)

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        read = _attend(self.queries(x), *keys_values)
        return self.joined(read)

    def queries(self, x: Tensor) -> Tensor:
        """(..., heads, N, width / heads) of x (..., N, width)."""
        queries = self.split(self.query(x))
        return _scaled(queries, self.gain * queries.shape[-1] ** 0.5)

    def split(self, x: Tensor) -> Tensor:
        """(..., N, width) by heads: (..., heads, N, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def joined(self, read: Tensor) -> Tensor:
        """Output (..., N, width) of the values read by the heads (..., heads, N, width / heads)."""
        return self.out(read.transpose(-3, -2).flatten(-2))


def _scaled(x: Tensor, length: float | Tensor) -> Tensor:
    """Vectors (..., n) scaled to `length`; a vector too short to have a direction stays short."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = length / norm.clamp_min(_SHORTEST)
    return x * inverse.to(x.dtype)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Values read by each query: (..., heads, N, width / heads)."""
    if queries.is_cuda:
        return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    # On a CPU, for sets as short as these, torch's fused kernel is 2 to 7 times slower in the
    # backward pass than these three operations, and it has no forward-mode derivative.
    logits = queries @ keys.transpose(-2, -1)
    return logits.softmax(-1) @ values


class MLP(nn.Module):
    """Two layers on every element by itself, with a hidden layer `ratio` times as wide."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = round(width * ratio)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PerceiverBlock(nn.Module):
    """Cross-attention of tokens (..., K, width) to a set, self-attention, MLP.

    Args:
        width: of the tokens.
        heads: attention heads.
        ratio: hidden width of the MLP over `width`.
        source: width of the set; None for a block without cross-attention.
    """

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
    """Cross-attention of queries (..., N, width) to tokens (..., K, width), MLP.

    Queries do not see each other.
    """

    def __init__(self, width: int, heads: int, ratio: float) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.cross = Attention(width, width, heads)
        self.mlp = MLP(width, ratio)

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Keys and values of the tokens."""
        return self.cross.keys_values(self.norm(tokens))

    def forward(self, x: Tensor, keys_values: KeysValues) -> Tensor:
        x = x + self.cross(self.norm(x), keys_values)
        return x + self.mlp(self.norm(x))
