"""Gaussian splatting by the fastest path there is for where the tensors are: gsplat on CUDA, else a processor's.

All paths answer the same call alike (`generators.chord.render.compositor` is the one to read), up to rounding.
"""

from __future__ import annotations

from torch import Tensor

from generators.chord.render.compositor import Rasterize, Splats


def _draw(splats: Splats) -> tuple[Tensor, Tensor]:
    if splats.means.is_cuda:
        return _draw_on_cuda(splats)
    from generators.chord.render.compositor_numba import rasterize as compiled

    return compiled.draw(splats)


def _draw_on_cuda(splats: Splats) -> tuple[Tensor, Tensor]:
    """The call in gsplat's terms: times are a batch of scenes, which all have the same cameras."""
    try:
        from gsplat import rasterization
    except ImportError:
        raise ImportError(
            "gsplat: draws Gaussians on CUDA; run `pip install 'gsplat>=1.5,<2'`"
        ) from None
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
"""By the path for the device of the tensors. Raises ImportError when what draws on it is not installed."""
