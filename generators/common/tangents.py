"""Derivatives of the blocks of `generators.common.attention`, for few directions and many points.

Forward mode, written out: a value x (..., N, width) is propagated with its tangents
dx (k, ..., N, width) in k directions. torch.func's jvp under vmap gives the same at twice the
price: a block is a handful of small products, so the overhead around them counts.

Reverse mode, for queries that read a set: keys and values enter a block through its logits and the
values that it reads. Given the derivatives of the result by those two (`Reading`), separately for
each query, the tangents in any number of directions are two products (`Reading.along`). A result of
three numbers costs three backward passes, however many directions there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from generators.common.attention import MLP, Attention, KeysValues, PerceiverBlock, QueryBlock

Along = tuple[Tensor, Tensor]
"""A value (...) and its tangents (k, ...)."""


def normed_along(x: Tensor, dx: Tensor) -> Along:
    """RMSNorm and its tangents."""
    return _scaled_along(x, dx, x.shape[-1] ** 0.5)


def perceiver_along(block: PerceiverBlock, x: Tensor, dx: Tensor) -> Along:
    """A block without cross-attention, and its tangents."""
    layer = block.self_attention
    # Self-attention, residual.
    normed, d_normed = normed_along(x, dx)
    keys_values, d_keys_values = keys_values_along(layer, normed, d_normed)
    y, dy = _attention_along(layer, normed, d_normed, keys_values, d_keys_values)
    x, dx = x + y, dx + dy
    # MLP, residual.
    y, dy = _mlp_along(block.mlp, *normed_along(x, dx))
    return x + y, dx + dy


def keys_values_along(
    layer: Attention, source: Tensor, d_source: Tensor
) -> tuple[KeysValues, KeysValues]:
    """`Attention.keys_values` and its tangents."""
    keys, values = layer.key_value(source).chunk(2, dim=-1)
    d_keys, d_values = functional.linear(d_source, layer.key_value.weight).chunk(2, dim=-1)
    keys, d_keys = _scaled_along(layer.split(keys), layer.split(d_keys), 1.0)
    return (keys, layer.split(values)), (d_keys, layer.split(d_values))


@dataclass(frozen=True, eq=False)
class Reading:
    """Cross-attention of queries (..., N, width) to a set of M; recorded for autograd, if enabled.

    Attributes:
        queries: (..., heads, N, width / heads); constants in `along`.
        logits, weights: (..., heads, N, M) before and after softmax.
        read: (..., heads, N, width / heads) values averaged with these weights.
    """

    queries: Tensor
    logits: Tensor
    weights: Tensor
    read: Tensor

    def along(self, by_logits: Tensor, by_read: Tensor, d_keys_values: KeysValues) -> Tensor:
        """Tangents (c, k, ..., N) of c results in k directions of the set, separately by query.

        Args:
            by_logits: (c, ..., heads, N, M) derivatives of the results by `logits`.
            by_read: (c, ..., heads, N, width / heads) derivatives of the results by `read`.
            d_keys_values: tangents (k, ..., heads, M, width / heads).
        """
        d_keys, d_values = d_keys_values
        d_logits = self.queries.detach() @ d_keys.mT  # (k, ..., heads, N, M)
        d_read = self.weights.detach() @ d_values  # (k, ..., heads, N, width / heads)
        through_logits = torch.einsum("c...hnm,k...hnm->ck...n", by_logits, d_logits.to(by_logits))
        through_read = torch.einsum("c...hnd,k...hnd->ck...n", by_read, d_read.to(by_read))
        return through_logits + through_read


def query_recorded(block: QueryBlock, x: Tensor, keys_values: KeysValues) -> tuple[Tensor, Reading]:
    """Output of the block, and the reading of its queries."""
    keys, values = keys_values
    queries = block.cross.queries(block.norm(x))
    logits = queries @ keys.mT
    weights = logits.softmax(-1)
    read = weights @ values
    x = x + block.cross.joined(read)
    return x + block.mlp(block.norm(x)), Reading(queries, logits, weights, read)


def _attention_along(
    layer: Attention, x: Tensor, dx: Tensor, keys_values: KeysValues, d_keys_values: KeysValues
) -> Along:
    """`Attention.forward` and its tangents."""
    keys, values = keys_values
    d_keys, d_values = d_keys_values
    # Queries.
    queries = layer.split(layer.query(x))
    d_queries = layer.split(functional.linear(dx, layer.query.weight))
    queries, d_queries = _scaled_along(queries, d_queries, layer.gain * queries.shape[-1] ** 0.5)
    # Softmax: d w = w * (d l - sum(w * d l)).
    weights = (queries @ keys.mT).softmax(-1)  # (..., heads, N, M)
    part = weights * (d_queries @ keys.mT + queries @ d_keys.mT)
    d_weights = part - weights * part.sum(-1, keepdim=True)
    # Values.
    out = layer.joined(weights @ values)
    d_out = layer.joined(d_weights @ values + weights @ d_values)
    return out, d_out


def _mlp_along(mlp: MLP, x: Tensor, dx: Tensor) -> Along:
    """`MLP.forward` and its tangents."""
    first, last = cast(nn.Linear, mlp.layers[0]), cast(nn.Linear, mlp.layers[2])
    hidden = first(x)
    slope = torch.ops.aten.gelu_backward(torch.ones_like(hidden), hidden)
    d_hidden = functional.linear(dx, first.weight) * slope
    return last(functional.gelu(hidden)), functional.linear(d_hidden, last.weight)


def _scaled_along(x: Tensor, dx: Tensor, length: float | Tensor) -> Along:
    """Vectors (..., n) scaled to `length`, and the tangents."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = norm.clamp_min(1e-6).reciprocal()
    unit = x * inverse.to(x.dtype)
    # The derivative of a direction has no component along it.
    across = dx - unit * (unit * dx).sum(-1, keepdim=True)
    return unit * length, across * (inverse * length).to(x.dtype)
