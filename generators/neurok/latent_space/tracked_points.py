"""Points of an object tracked through its states: positions, and derivatives by the states.

The part that is independent of the state is computed once. `ForwardModePoints` takes any function,
with derivatives by forward mode. `NetworkPoints` takes the decoder of a network, at less than half
the cost: the latents are few and become tokens, so tangents are propagated forward through those;
the points are many with three numbers each, so derivatives are propagated backward from these to
what a point read of the tokens (`generators.common.tangents`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from generators.common import dual_quaternion
from generators.common.attention import KeysValues, PerceiverBlock, QueryBlock, forward_mode
from generators.common.tangents import (
    Reading,
    keys_values_along,
    normed_along,
    perceiver_along,
    query_recorded,
)
from generators.neurok.network.model import Context, Neurok, Shape, moved


class TrackedPoints(Protocol):
    """M points of an object."""

    @abstractmethod
    def __call__(self, q: Tensor) -> Tensor:
        """Positions (B, M, 3) at states q (B, k)."""

    @abstractmethod
    def linearize(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (B, M, 3) and their derivatives (B, M, 3, k), detached."""


@dataclass(frozen=True, eq=False)
class ForwardModePoints(TrackedPoints):
    """Points by any function from states (B, k) to positions (B, M, 3)."""

    positions: Callable[[Tensor], Tensor]

    def __call__(self, q: Tensor) -> Tensor:
        return self.positions(q)

    def linearize(self, q: Tensor) -> tuple[Tensor, Tensor]:
        directions = torch.eye(q.shape[1]).to(q)[:, None].expand(-1, len(q), -1)  # (k, B, k)

        def along(direction: Tensor) -> Tensor:
            return torch.func.jvp(self.positions, (q,), (direction,))[1]

        with torch.no_grad(), forward_mode():
            return self.positions(q), torch.func.vmap(along, out_dims=-1)(directions)


class NetworkPoints(TrackedPoints):
    """Points of a network's decoder.

    Args:
        model: the network.
        shape: the object's shape.
        z_rest: (K, C) latent in which the points are at rest.
        basis: (K * C, k) with latents z_rest + basis q; None for the identity.
        points: (M, 3) at rest.
    """

    def __init__(
        self, model: Neurok, shape: Shape, z_rest: Tensor, basis: Tensor | None, points: Tensor
    ) -> None:
        self._model, self._shape, self._z_rest, self._basis = model, shape, z_rest, basis
        self._embedded = model.embed(points)
        # What little the decoder moves at rest is undone beforehand.
        at_rest = model.field_of(model.context(z_rest[None], shape), self._embedded)
        self._origin = _preimage(at_rest, points)

    def __call__(self, q: Tensor) -> Tensor:
        context = self._model.context(self._latent(q), self._shape)
        return moved(self._origin, self._model.field_of(context, self._embedded))

    def linearize(self, q: Tensor) -> tuple[Tensor, Tensor]:
        # Forward through the tokens: keys and values with their tangents.
        with torch.no_grad():
            context, tangents = self._context_along(q)

        # The points read them; logits and readings are recorded.
        x = self._embedded.detach().expand(len(q), -1, -1).requires_grad_()
        readings: list[Reading] = []
        with torch.enable_grad():
            for block, keys_values in zip(self._model.decoder.queries, context, strict=True):
                x, reading = query_recorded(cast(QueryBlock, block), x, keys_values)
                readings.append(reading)
            at = moved(self._origin, self._model.deformation(x))  # (B, M, 3)

        # Backward from each of the three coordinates to logits and readings.
        each = torch.eye(3).to(at)[:, None, None].expand(-1, *at.shape)
        entered = [t for reading in readings for t in (reading.logits, reading.read)]
        back = torch.autograd.grad(at, entered, each, is_grads_batched=True)

        # The chain rule joins the two.
        J = at.new_zeros(())
        pairs = zip(back[::2], back[1::2], strict=True)
        for reading, (by_logits, by_read), tangent in zip(readings, pairs, tangents, strict=True):
            J = J + reading.along(by_logits, by_read, tangent)  # (3, k, B, M)
        return at.detach().to(q), J.to(q).permute(2, 3, 0, 1)

    def _latent(self, q: Tensor) -> Tensor:
        """Latents (B, K, C) of states q (B, k)."""
        along = q if self._basis is None else q @ self._basis.T
        return self._z_rest + along.unflatten(-1, self._z_rest.shape)

    def _context_along(self, q: Tensor) -> tuple[Context, Context]:
        """Decoder's context at states q (B, k), and its tangents by each coordinate (k, B, ...)."""
        decoder = self._model.decoder
        x = decoder.tokens(self._latent(q), self._shape)
        # Tangents of the tokens: the basis through the first linear layer.
        basis = torch.eye(q.shape[1]).to(q) if self._basis is None else self._basis
        directions = basis.T.unflatten(1, self._z_rest.shape)  # (k, K, C)
        dx = functional.linear(directions, decoder.latent.weight)[:, None]
        dx = dx.expand(-1, len(q), -1, -1)

        context: list[KeysValues] = []
        tangents: list[KeysValues] = []
        unread = len(decoder.blocks) - len(decoder.queries)
        for index, block in enumerate(decoder.blocks):
            x, dx = perceiver_along(cast(PerceiverBlock, block), x, dx)
            if index >= unread:
                reader = cast(QueryBlock, decoder.queries[index - unread]).cross
                keys_values, along = keys_values_along(reader, *normed_along(x, dx))
                context.append(keys_values)
                tangents.append(along)
        return tuple(context), tuple(tangents)


def _preimage(deformation: Tensor, points: Tensor) -> Tensor:
    """Positions (M, 3) that the deformation of points takes to the points."""
    if deformation.shape[-1] == 3:
        return points - deformation
    turn, shift = dual_quaternion.to_motion(deformation)
    return dual_quaternion.rotate(dual_quaternion.conjugate(turn), points - shift)
