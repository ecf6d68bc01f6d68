"""Gaussian splatting by the fastest path for the device of the tensors.

gsplat draws on a GPU, compiled kernels draw on a CPU. All paths answer the same call up to
rounding; `generators.chord.render.compositor` is the one to read.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from generators.chord.render.compositor import Rasterize, Splats


def _draw(splats: Splats) -> tuple[Tensor, Tensor]:
    if not splats.means.is_cuda:
        return _draw_on_cpu(splats)
    if _gsplat_installed():
        return _draw_with_gsplat(splats)
    device = splats.means.device
    on_cpu: dict[str, Any] = {
        k: x.cpu() for k, x in splats._asdict().items() if isinstance(x, Tensor)
    }
    images, alphas = _draw_on_cpu(splats._replace(**on_cpu))
    return images.to(device), alphas.to(device)


def _draw_on_cpu(splats: Splats) -> tuple[Tensor, Tensor]:
    from generators.chord.render.compositor_numba import rasterize as compiled

    return compiled.draw(splats)


@cache
def _gsplat_installed() -> bool:
    """True if gsplat can be imported. Warns once if not."""
    found = find_spec("gsplat") is not None
    if not found:
        warnings.warn(
            "gsplat is not installed, so Gaussians are drawn on the CPU; "
            "run `pip install 'gsplat>=1.5,<2'`",
            stacklevel=2,
        )
    return found


def _draw_with_gsplat(splats: Splats) -> tuple[Tensor, Tensor]:
    """The call in gsplat's terms: times are a batch of scenes that share their cameras."""
    from gsplat import rasterization

    means, times, views = splats.means, len(splats.means), len(splats.viewmats)
    images, alphas, _ = rasterization(
        means,
        splats.quats,
        splats.scales.expand(times, -1, -1),
        splats.opacities.expand(times, -1),
        splats.features.expand(views, times, -1, -1).transpose(0, 1),
        splats.viewmats.expand(times, -1, -1, -1).to(means.dtype),
        splats.Ks.expand(times, -1, -1, -1).to(means.dtype),
        splats.width,
        splats.height,
        eps2d=splats.eps2d,
        near_plane=splats.near,
        packed=False,
    )
    return images.transpose(0, 1), alphas[..., 0].transpose(0, 1)


rasterize = Rasterize(_draw)
"""Gaussian splatting by the path for the device of the tensors."""
