"""First and second derivatives of a decoder from latent coordinates z (k,) to particles (n, 3).

    J = dF/dz               k tangents side by side through one pass; F(z) comes with it
    D^2F[v, v]              a tangent of a tangent: about four evaluations of F, whatever k is

Forward mode, because k is small and 3n is not, unless the decoder has a faster way
(`Linearizable`). The fused kernels of attention have no forward-mode derivative, so attention runs
in elementary operations meanwhile (`forward_attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.func import jacfwd, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

Positions = Callable[[Tensor], Tensor]
"""A decoder: latent coordinates (k,) to particles (n, 3), by torch operations that have
forward-mode derivatives."""


@runtime_checkable
class Linearizable(Protocol):
    """A decoder with a Jacobian of its own."""

    def __call__(self, z: Tensor) -> Tensor:
        """Particles (n, 3) at z (k,)."""

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles (n, 3) at z (k,), and their Jacobian (n, 3, k)."""


@dataclass(frozen=True, eq=False)
class Derivatives:
    """A decoder's derivatives, returned in double precision.

    Attributes:
        dtype: precision in which the decoder computes.
        positions: z (k,) to particles (n, 3).
        first: z (k,) to particles (n, 3) and their Jacobian (n, 3, k).
        second: z (k,), v (k,) to D^2F[v, v] (n, 3).
    """

    dtype: torch.dtype
    positions: Positions
    first: Callable[[Tensor], tuple[Tensor, Tensor]]
    second: Callable[[Tensor, Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """Particles (n, 3) at z (k,)."""
        return self.positions(z.to(self.dtype)).detach().double()

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles (n, 3) at z (k,), and their Jacobian (3n, k)."""
        x, J = self.first(z.to(self.dtype))
        return x.detach().double(), J.detach().double().reshape(-1, len(z))

    def along(self, z: Tensor, v: Tensor) -> Tensor:
        """D^2F[v, v] (n, 3): the particles' acceleration at constant latent velocity v (k,)."""
        return self.second(z.to(self.dtype), v.to(self.dtype)).detach().double()


def derivatives(positions: Positions, z: Tensor, *, trace: bool = False) -> Derivatives:
    """The derivatives of a decoder.

    Args:
        positions: the decoder, called with z's dtype on z's device.
        z: (k,) an example.
        trace: trace the operations at z once and replay them without duplicates. For small
            decoders, Python and functorch take most of the time. The decoder must do the same
            operations at every z.
    """
    # The decoder's value comes along as auxiliary output of the Jacobian.
    both = jacfwd(lambda s: (positions(s),) * 2, has_aux=True)

    def first(s: Tensor) -> tuple[Tensor, Tensor]:
        J, x = both(s)
        return x, J

    def second(s: Tensor, v: Tensor) -> Tensor:
        return jvp(lambda r: jvp(positions, (r,), (v,))[1], (s,), (v,))[1]

    # Replayed operations, or the decoder's own Jacobian if it has one.
    if trace:
        return Derivatives(
            z.dtype,
            _traced(lambda s: positions(s), z),
            _traced(first, z),
            _traced(second, z, torch.ones_like(z)),
        )
    linearize = positions.linearize if isinstance(positions, Linearizable) else first
    return Derivatives(z.dtype, positions, linearize, second)


@contextmanager
def forward_attention() -> Iterator[None]:
    """Context with forward-mode derivatives of attention, and without reverse mode."""
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        yield


def decoded(positions: Positions, z: Tensor) -> Tensor:
    """Particles (n, 3) at z, double precision.

    Raises:
        ValueError: if z or the particles have a wrong shape or are not finite.
    """
    if not isinstance(z, Tensor) or z.ndim != 1 or len(z) == 0 or not z.is_floating_point():
        got = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"z: expected a floating-point tensor (k,), got {got}; one object's coordinates at a "
            "time"
        )
    if not torch.isfinite(z).all():
        raise ValueError(
            "z: expected finite coordinates, got NaN or infinity; choose another start"
        )
    with torch.no_grad():
        # The decoder's answer, checked once here and not at every step.
        x = positions(z)
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != 3 or len(x) == 0:
        got = str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"positions: expected particles (n, 3) for coordinates of shape {tuple(z.shape)}, "
            f"got {got}"
        )
    if not torch.isfinite(x).all():
        raise ValueError(
            "positions: particles at the start are not finite; choose another start, or repair the "
            "decoder"
        )
    return x.double()


def _traced(function: Callable, *example: Tensor) -> Callable:
    """The function's operations at an example, without dead code and duplicates."""
    from torch._functorch.compile_utils import fx_graph_cse
    from torch.fx import GraphModule
    from torch.fx.experimental.proxy_tensor import make_fx

    # Operations as a graph, then common subexpressions merged.
    traced = make_fx(function)(*example)
    traced.graph.eliminate_dead_code()
    return GraphModule(traced, fx_graph_cse(traced.graph))
