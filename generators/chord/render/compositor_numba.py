"""The compositor for CPUs: `generators.chord.render.compositor` compiled, with derivatives by hand.

Frames are distributed over torch's threads. All sums run in double precision and in one order,
whatever the number of threads: the same input gives the same bits. The kernels are in
`generators.chord.render.numba_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generators.chord.render import numba_kernels as kernels
from generators.chord.render.compositor import Rasterize, Splats, rotations
from generators.chord.render.numba_kernels import Array, Cameras, Inputs, Seen


def _draw_all(splats: Splats) -> tuple[Tensor, Tensor]:
    axes = rotations(splats.quats) * splats.scales[:, None, :]
    given = splats.means, axes, splats.opacities, splats.features
    cameras = Cameras(
        _array(splats.viewmats).astype(np.float64),
        _array(splats.Ks).astype(np.float64),
        splats.width,
        splats.height,
        splats.eps2d,
        splats.near,
    )
    images, alphas = _Compositor.apply(*given, cameras)
    return images, alphas


rasterize = Rasterize(_draw_all)
"""Gaussian splatting by compiled kernels, on a CPU."""


class _Compositor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        axes: Tensor,
        opacities: Tensor,
        features: Tensor,
        cameras: Cameras,
    ) -> tuple[Tensor, Tensor]:
        given = Inputs(*map(_array, (means, axes, opacities, features)))
        times, count = means.shape[:2]
        views, dtype = len(cameras.viewmats), given.means.dtype
        size = cameras.height, cameras.width
        # Arrays that the kernels fill.
        seen = Seen(
            ellipses=np.empty((views, times, count, 5), dtype),
            depths=np.empty((views, times, count), dtype),
            order=np.empty((views, times, count), np.int64),
            images=np.zeros((views, times, *size, features.shape[-1]), dtype),
            alphas=np.empty((views, times, *size), dtype),
        )

        def draw(first: int, last: int) -> None:
            kernels.project(first, last, given, cameras, seen)
            seen.order[:, first:last] = seen.depths[:, first:last].argsort(axis=-1, kind="stable")
            kernels.draw(first, last, given, seen)

        _distribute(draw, times)
        outputs = torch.from_numpy(seen.images), torch.from_numpy(seen.alphas)
        # Tensors that a caller could modify are saved by torch, which notices.
        ctx.save_for_backward(means, axes, opacities, features, *outputs)
        ctx.cameras, ctx.projected = cameras, seen[:3]
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_images: Tensor, to_alphas: Tensor) -> tuple[Tensor | None, ...]:
        saved = tuple(map(_array, ctx.saved_tensors))
        given, seen = Inputs(*saved[:4]), Seen(*ctx.projected, *saved[4:])
        views, _, count, channels = given.features.shape
        times, dtype, wanted = len(given.means), given.means.dtype, ctx.needs_input_grad[3]
        # Gradients of the inputs, of each frame by itself.
        to = Inputs(
            means=np.zeros_like(given.means),
            axes=np.zeros_like(given.axes),
            opacities=np.zeros((times, count), dtype),
            features=np.zeros((views, times, count, channels) if wanted else (0, 0, 0, 0), dtype),
        )
        above = _array(to_images), _array(to_alphas)

        def draw_back(first: int, last: int) -> None:
            kernels.draw_back(first, last, given, ctx.cameras, seen, above[0], above[1], to)

        _distribute(draw_back, times)
        # All frames share the opacities, and may share the features: their gradients add up.
        means, axes, opacities, features = map(torch.from_numpy, to)
        if given.features.shape[1] == 1:
            features = features.sum(1, keepdim=True)
        return means, axes, opacities.sum(0), features if wanted else None, None


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _distribute(work: Callable[[int, int], None], times: int) -> None:
    """Process all frames in as many threads as torch may use; no two threads share an output."""
    threads = min(torch.get_num_threads(), times)
    if threads == 1:
        work(0, times)
        return
    ends = np.linspace(0, times, threads + 1).round().astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, ends[:-1], ends[1:]))
