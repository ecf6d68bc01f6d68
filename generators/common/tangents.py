"""Derivatives of the blocks of `generators.common.attention`, for few directions and many points.

Forward, by hand: a value x (..., N, width) goes with its tangents dx (k, ..., N, width) in k directions. torch.func's
jvp under vmap gives the same at twice the price: a block is a handful of small products, and what surrounds them counts.

Backward, for queries that read a set: keys and values enter a block through its logits and what it reads, so with the
derivatives of the result by those two (`Reading`), for each query by itself, the tangents of any number of directions
are two products (`Reading.along`). A result of three numbers costs three passes back, however many directions there are.
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
    """RMSNorm."""
    return _scaled_along(x, dx, x.shape[-1] ** 0.5)


def perceiver_along(block: PerceiverBlock, x: Tensor, dx: Tensor) -> Along:
    """A block whose tokens read each other alone."""
    layer = block.self_attention
    normed, d_normed = normed_along(x, dx)
    keys_values, d_keys_values = keys_values_along(layer, normed, d_normed)
    y, dy = _attention_along(layer, normed, d_normed, keys_values, d_keys_values)
    x, dx = x + y, dx + dy
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
    """What queries (..., N, width) read of a set of M; all but `queries` on the tape, where that is recorded.

    Attributes:
        queries: (..., heads, N, width / heads).
        logits, weights: (..., heads, N, M) before and after softmax.
        read: (..., heads, N, width / heads) the values in these parts.
    """

    queries: Tensor
    logits: Tensor
    weights: Tensor
    read: Tensor

    def along(self, by_logits: Tensor, by_read: Tensor, d_keys_values: KeysValues) -> Tensor:
        """Tangents (c, k, ..., N) of c results, of each query by itself, in k directions of the set.

        Args:
            by_logits, by_read: (c, ..., as above) derivatives of the results.
            d_keys_values: tangents (k, ..., heads, M, width / heads).
        """
        d_keys, d_values = d_keys_values
        d_logits = self.queries.detach() @ d_keys.mT
        d_read = self.weights.detach() @ d_values
        return torch.einsum(
            "c...hnm,k...hnm->ck...n", by_logits, d_logits.to(by_logits)
        ) + torch.einsum("c...hnd,k...hnd->ck...n", by_read, d_read.to(by_read))


def query_recorded(block: QueryBlock, x: Tensor, keys_values: KeysValues) -> tuple[Tensor, Reading]:
    """The block, and what its queries read."""
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
    (keys, values), (d_keys, d_values) = keys_values, d_keys_values
    queries, d_queries = (
        layer.split(layer.query(x)),
        layer.split(functional.linear(dx, layer.query.weight)),
    )
    queries, d_queries = _scaled_along(queries, d_queries, layer.gain * queries.shape[-1] ** 0.5)
    weights = (queries @ keys.mT).softmax(-1)
    part = weights * (d_queries @ keys.mT + queries @ d_keys.mT)
    d_weights = part - weights * part.sum(-1, keepdim=True)
    return layer.joined(weights @ values), layer.joined(d_weights @ values + weights @ d_values)


def _mlp_along(mlp: MLP, x: Tensor, dx: Tensor) -> Along:
    first, last = cast(nn.Linear, mlp.layers[0]), cast(nn.Linear, mlp.layers[2])
    hidden = first(x)
    slope = torch.ops.aten.gelu_backward(torch.ones_like(hidden), hidden)
    return last(functional.gelu(hidden)), functional.linear(
        functional.linear(dx, first.weight) * slope, last.weight
    )


def _scaled_along(x: Tensor, dx: Tensor, length: float | Tensor) -> Along:
    """Vectors (..., n) brought to `length`."""
    inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-6).reciprocal()
    unit = x * inverse.to(x.dtype)
    across = dx - unit * (unit * dx).sum(-1, keepdim=True)
    return unit * length, across * (inverse * length).to(x.dtype)
