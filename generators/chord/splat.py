"""Gaussian splatting by the fastest path there is for where the tensors are: gsplat on CUDA, else a processor's.

All paths answer the same call alike (`generators.chord.compositor` is the one to read), up to rounding.
"""

from __future__ import annotations

from torch import Tensor

from generators.chord.compositor import before, check_shapes, full_rank


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    eps2d: float = 0.3,
    near: float = 0.01,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Images (V, T, H, W, D) and alphas (V, T, H, W); arguments and conventions as `compositor.rasterize`.

    Raises:
        ImportError: when the package that draws on this device is not installed.
    """
    if means.is_cuda:
        draw = _on_cuda
    else:
        from generators.chord.compositor_numba import rasterize as draw
    images, alphas = draw(
        means, quats, scales, opacities, features, viewmats, Ks, width, height, eps2d=eps2d, near=near
    )
    return before(background, images, alphas)


def _on_cuda(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    eps2d: float,
    near: float,
) -> tuple[Tensor, Tensor]:
    """The call in gsplat's terms: times are a batch of scenes, which all have the same cameras."""
    try:
        from gsplat import rasterization
    except ImportError:
        raise ImportError("gsplat: draws Gaussians on CUDA; run `pip install 'gsplat>=1.5,<2'`") from None
    check_shapes(means, quats, scales, opacities, viewmats, Ks)
    features = full_rank(features, means, viewmats)
    times, views = len(means), len(viewmats)
    images, alphas, _ = rasterization(
        means,
        quats,
        scales.expand(times, -1, -1),
        opacities.expand(times, -1),
        features.expand(views, times, -1, -1).transpose(0, 1),
        viewmats.expand(times, -1, -1, -1).to(means.dtype),
        Ks.expand(times, -1, -1, -1).to(means.dtype),
        width,
        height,
        eps2d=eps2d,
        near_plane=near,
        packed=False,
    )
    return images.transpose(0, 1), alphas[..., 0].transpose(0, 1)
