"""Memory planning before anything is loaded: one iteration on tensors without storage.

torch's "meta" device runs every line of the real code without computing. Counting the tensors alive
meanwhile gives the peak, for any resolution, number of cameras and choice of recomputation. It does
not include the memory of GPU libraries and of other processes on the device: `WanOptions.spare`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from generators.chord.priors.wan.config import WanConfig
from generators.chord.priors.wan.encoder import Forget
from generators.chord.priors.wan.options import WanOptions
from generators.chord.priors.wan.parts import BlankParts
from generators.chord.priors.wan.prior import WanPrior, size

GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a distillation on its device, GiB.

    Attributes:
        weights: of each network by name; not all are there at once.
        reading: peak while a sentence is read.
        iterating: peak of an iteration: encoding, velocity, gradient.
        spare: left free, `WanOptions.spare`.
    """

    weights: Mapping[str, float]
    reading: float
    iterating: float
    spare: float

    @property
    def needed(self) -> float:
        """GiB that must be free."""
        return max(self.reading, self.iterating) + self.spare


def plan(config: WanConfig, options: WanOptions, forget: Forget) -> MemoryPlan:
    """The memory plan of a distillation with a model."""
    options = replace(options, device="meta")
    height, width = size(config, options)
    video = options.cameras, options.frames, height, width, 3
    # Tensors on "meta" have sizes but no memory: a dry run of one iteration.
    with LiveStorage("meta") as live, _fused_attention():
        parts = _Weighed(config, options)
        prior = WanPrior(config, parts, options, forget=forget)
        condition = prior.condition("a sentence", torch.empty(video[:1] + video[2:], device="meta"))
        # The sentence has been read: count the iteration by itself.
        reading, live.peak = live.peak, live.now
        z = prior.encode(torch.empty(video, device="meta", requires_grad=True))
        g = prior.velocity(z.detach(), 1.0, condition, guidance=2.0)
        (z * g).sum().backward()
    return MemoryPlan(parts.weights, reading / GIB, live.peak / GIB, options.spare)


def settle(config: WanConfig, options: WanOptions, free: float) -> Forget:
    """The least recomputation with which `free` GiB are enough.

    Raises:
        ValueError: with the missing memory, and what to change.
    """
    # From the least recomputation to the most; a linear gradient needs only the last.
    ways: Sequence[Forget] = get_args(Forget) if options.forget == "auto" else (options.forget,)
    for forget in ways[-1:] if options.gradient == "linear" else ways:
        need = plan(config, options, forget)
        if need.needed <= free:
            return forget
    # The last way was the most frugal: its needs are what is missing.
    weights = ", ".join(f"{name} {gib:.1f}" for name, gib in need.weights.items())
    height, width = size(config, options)
    raise ValueError(
        f"{options.device}: {config.name} at {width} x {height}, {options.frames} frames and "
        f"{options.cameras} cameras needs {need.needed:.1f} GiB ({need.reading:.1f} to read a "
        f"sentence, {need.iterating:.1f} to iterate, {need.spare:.1f} spare; weights: {weights}), "
        f"{free:.1f} are free, {need.needed - free:.1f} are missing; "
        + _advice(config, options, free)
    )


def free_memory(device: str) -> float:
    """GiB free on a device.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(
            f"WanOptions.device: got {device!r}, expected cuda, cuda:1, ... or cpu"
        ) from None
    if kind == "cpu":
        return psutil.virtual_memory().available / GIB
    try:
        return torch.cuda.mem_get_info(torch.device(device))[0] / GIB
    except (RuntimeError, AssertionError, ValueError):
        raise ValueError(
            f"WanOptions.device: no {device} on this machine (torch {torch.__version__}); "
            "Wan needs an NVIDIA GPU and a torch that is built for it: run it there, "
            "or take the choreographer, which runs anywhere"
        ) from None


class LiveStorage(TorchDispatchMode):
    """Counts the bytes of live tensors of one kind of device that were made inside this context.

    Attributes:
        now: bytes alive.
        peak: maximum so far.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.now, self.peak = device, 0, 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.device.type == self.device:
                self._note(t.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        # Storages are counted once, and until they are freed.
        self._known[storage] = weakref.finalize(storage, self._died, storage.nbytes())
        self._known[storage].atexit = False
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _died(self, size: int) -> None:
        self.now -= size


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention without storing its matrix, as on GPUs; torch's own on "meta" would store it."""
    real = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Fused.apply(
        query, key, value
    )
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])


class _Weighed(BlankParts):
    """Blank parts that record their sizes."""

    def __init__(self, config: WanConfig, options: WanOptions) -> None:
        super().__init__(config, options)
        self.weights: dict[str, float] = {}

    def encoder(self) -> Any:
        return self._weigh("VAE encoder", super().encoder())

    def expert(self, name: str) -> nn.Module:
        return self._weigh("transformer", super().expert(name))

    def text_encoder(self) -> nn.Module:
        return self._weigh("text encoder", super().text_encoder())

    def _weigh(self, name: str, network: Any) -> Any:
        self.weights[name] = sum(p.nbytes for p in network.parameters()) / GIB
        return network


def _advice(config: WanConfig, options: WanOptions, free: float) -> str:
    """Changes of options with which it fits, each alone if that is enough."""
    height, width = size(config, options)
    half = {
        name: max(value // 2 // config.multiple, 1) * config.multiple
        for name, value in (("height", height), ("width", width))
    }
    # Each change alone, then all together, with the most frugal recomputation.
    changes: list[dict[str, Any]] = [{"gradient": "linear"}, {"cameras": 1}, half]
    fits = [
        _show(c) for c in changes if plan(config, replace(options, **c), "videos").needed <= free
    ]
    if fits:
        return f"take {', or '.join(fits)}"
    together = changes[0] | changes[1] | half
    least = plan(config, replace(options, **together), "videos").needed
    if least <= free:
        return f"take {_show(together)}"
    return (
        f"even {_show(together)} needs {least:.1f}: free some, or take a larger GPU, "
        "a smaller model or the choreographer"
    )


def _show(change: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in change.items())
