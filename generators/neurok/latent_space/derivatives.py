"""First and second derivatives of a decoder from latent coordinates z (k,) to particles (n, 3), forward mode.

    J = dF/dz               k tangents side by side through one pass; F(z) comes with it
    D^2F[v, v]              a tangent of a tangent: about four evaluations of F, whatever k is

Forward mode because k is small and 3n is not, unless the decoder knows better (`Linearised`). The fused kernels of
attention have no forward derivative, so attention
is done in elementary operations while these run (`forward_attention`).
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
"""A decoder: latent coordinates (k,) to particles (n, 3), by torch operations that have forward derivatives."""


@runtime_checkable
class Linearised(Protocol):
    """A decoder that knows a shorter way to its Jacobian."""

    def __call__(self, z: Tensor) -> Tensor:
        """Particles (n, 3) at z (k,)."""

    def linearise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and their Jacobian (n, 3, k)."""


@dataclass(frozen=True, eq=False)
class Derivatives:
    """A decoder's derivatives, in double precision whatever the decoder computes in."""

    dtype: torch.dtype
    positions: Positions
    first: Callable[[Tensor], tuple[Tensor, Tensor]]
    second: Callable[[Tensor, Tensor], Tensor]

    def decode(self, z: Tensor) -> Tensor:
        """Particles (n, 3) at z (k,)."""
        return self.positions(z.to(self.dtype)).detach().double()

    def linearise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Particles (n, 3) at z (k,), and their Jacobian (3n, k)."""
        x, J = self.first(z.to(self.dtype))
        return x.detach().double(), J.detach().double().reshape(-1, len(z))

    def along(self, z: Tensor, v: Tensor) -> Tensor:
        """D^2F[v, v] (n, 3): the particles' acceleration where z moves by v (k,) per second and does not speed up."""
        return self.second(z.to(self.dtype), v.to(self.dtype)).detach().double()


def derivatives(positions: Positions, z: Tensor, *, trace: bool = False) -> Derivatives:
    """The derivatives of a decoder.

    Args:
        positions: the decoder, called with z's dtype on z's device.
        z: (k,) an example.
        trace: record the operations at z once and replay them, duplicates removed. Python and functorch are most of the
            time where the decoder is small; the decoder must do the same operations at every z.
    """
    both = jacfwd(lambda s: (positions(s),) * 2, has_aux=True)

    def first(s: Tensor) -> tuple[Tensor, Tensor]:
        J, x = both(s)
        return x, J

    def second(s: Tensor, v: Tensor) -> Tensor:
        return jvp(lambda r: jvp(positions, (r,), (v,))[1], (s,), (v,))[1]

    if trace:
        return Derivatives(
            z.dtype,
            _recorded(lambda s: positions(s), z),
            _recorded(first, z),
            _recorded(second, z, torch.ones_like(z)),
        )
    linearise = positions.linearise if isinstance(positions, Linearised) else first
    return Derivatives(z.dtype, positions, linearise, second)


@contextmanager
def forward_attention() -> Iterator[None]:
    """Attention in operations that have forward derivatives, and no tape for reverse mode."""
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        yield


def decoded(positions: Positions, z: Tensor) -> Tensor:
    """Particles (n, 3) at z, double precision.

    Raises:
        ValueError: where z or what the decoder makes of it is not what it should be.
    """
    if not isinstance(z, Tensor) or z.ndim != 1 or len(z) == 0 or not z.is_floating_point():
        came = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"z: expected a floating-point tensor (k,), got {came}; one object's coordinates at a time"
        )
    if not torch.isfinite(z).all():
        raise ValueError(
            "z: expected finite coordinates, got NaN or infinity; choose another start"
        )
    with torch.no_grad():
        x = positions(z)
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != 3 or len(x) == 0:
        came = str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"positions: expected particles (n, 3) for coordinates of shape {tuple(z.shape)}, got {came}"
        )
    if not torch.isfinite(x).all():
        raise ValueError(
            "positions: particles at the start are not finite; choose another start, or mend the decoder"
        )
    return x.double()


def _recorded(function: Callable, *example: Tensor) -> Callable:
    from torch._functorch.compile_utils import fx_graph_cse
    from torch.fx import GraphModule
    from torch.fx.experimental.proxy_tensor import make_fx

    recorded = make_fx(function)(*example)
    recorded.graph.eliminate_dead_code()
    return GraphModule(recorded, fx_graph_cse(recorded.graph))
