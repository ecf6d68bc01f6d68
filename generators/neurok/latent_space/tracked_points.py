"""Points of an object followed through its states: where they are, and how they move with each coordinate of a state.

What the states do not enter is done once. `Differentiated` follows anything, its derivatives by forward mode;
`NetworkPoints` follows what a decoder of latents makes of points, at less than half the price. Its latents are few and
become tokens, so tangents go forward through those; the points are many, and each gives three numbers, so derivatives
come back from these to what a point read of the tokens (`generators.common.tangents`).
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
    keys_values_along,
    normed_along,
    perceiver_along,
    query_recorded,
)
from generators.neurok.network.model import Context, Neurok, Shape, moved


class Followed(Protocol):
    """M points of an object."""

    @abstractmethod
    def __call__(self, q: Tensor) -> Tensor:
        """Where they are at states q (B, k): (B, M, 3)."""

    @abstractmethod
    def linearise(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its derivatives (B, M, 3, k), off the tape."""


@dataclass(frozen=True, eq=False)
class Differentiated(Followed):
    """Points by any function from states (B, k) to positions (B, M, 3)."""

    positions: Callable[[Tensor], Tensor]

    def __call__(self, q: Tensor) -> Tensor:
        return self.positions(q)

    def linearise(self, q: Tensor) -> tuple[Tensor, Tensor]:
        directions = torch.eye(q.shape[1]).to(q)[:, None].expand(-1, len(q), -1)

        def along(direction: Tensor) -> Tensor:
            return torch.func.jvp(self.positions, (q,), (direction,))[1]

        with torch.no_grad(), forward_mode():
            return self.positions(q), torch.func.vmap(along, out_dims=-1)(directions)


class NetworkPoints(Followed):
    """Points (M, 3) by a network: its latents are z_rest (K, C) + basis (K * C, k) q, and z_rest leaves them alone."""

    def __init__(
        self, model: Neurok, shape: Shape, z_rest: Tensor, basis: Tensor | None, points: Tensor
    ) -> None:
        self._model, self._shape, self._z_rest, self._basis = model, shape, z_rest, basis
        self._embedded = model.embed(points)
        self._origin = _before(
            model.field_of(model.context(z_rest[None], shape), self._embedded), points
        )

    def __call__(self, q: Tensor) -> Tensor:
        return moved(
            self._origin,
            self._model.field_of(self._model.context(self._latent(q), self._shape), self._embedded),
        )

    def linearise(self, q: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self._model.decoder
        with torch.no_grad():
            context, tangents = self._context_along(q)
        x, readings = self._embedded.detach().expand(len(q), -1, -1).requires_grad_(), []
        with torch.enable_grad():
            for block, keys_values in zip(decoder.queries, context, strict=True):
                x, reading = query_recorded(cast(QueryBlock, block), x, keys_values)
                readings.append(reading)
            at = moved(self._origin, self._model.deformation(x))
        each = torch.eye(3).to(at)[:, None, None].expand(-1, *at.shape)
        entered = [t for reading in readings for t in (reading.logits, reading.read)]
        back = torch.autograd.grad(at, entered, each, is_grads_batched=True)
        J = sum(
            (
                r.along(*b, d)
                for r, b, d in zip(
                    readings, zip(back[::2], back[1::2], strict=True), tangents, strict=True
                )
            ),
            at.new_zeros(()),
        )
        return at.detach().to(q), J.to(q).permute(2, 3, 0, 1)

    def _latent(self, q: Tensor) -> Tensor:
        return self._z_rest + (q if self._basis is None else q @ self._basis.T).unflatten(
            -1, self._z_rest.shape
        )

    def _context_along(self, q: Tensor) -> tuple[Context, Context]:
        """The decoder's context at states q (B, k), and its tangents in each coordinate (k, B, ...)."""
        decoder = self._model.decoder
        x = decoder.tokens(self._latent(q), self._shape)
        basis = torch.eye(q.shape[1]).to(q) if self._basis is None else self._basis
        dx = functional.linear(basis.T.unflatten(1, self._z_rest.shape), decoder.latent.weight)[
            :, None
        ]
        dx = dx.expand(-1, len(q), -1, -1)
        context: list[KeysValues] = []
        tangents: list[KeysValues] = []
        silent = len(decoder.blocks) - len(decoder.queries)
        for index, block in enumerate(decoder.blocks):
            x, dx = perceiver_along(cast(PerceiverBlock, block), x, dx)
            if index >= silent:
                reader = cast(QueryBlock, decoder.queries[index - silent]).cross
                keys_values, along = keys_values_along(reader, *normed_along(x, dx))
                context.append(keys_values)
                tangents.append(along)
        return tuple(context), tuple(tangents)


def _before(deformation: Tensor, points: Tensor) -> Tensor:
    """What the deformation of points takes to where they are."""
    if deformation.shape[-1] == 3:
        return points - deformation
    turn, shift = dual_quaternion.to_motion(deformation)
    return dual_quaternion.rotate(dual_quaternion.conjugate(turn), points - shift)
