"""Gaussian splatting by the fastest path there is for where the tensors are: gsplat on CUDA, else a processor's."""

from __future__ import annotations

from torch import Tensor

from generators.chord import compositor


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
    """Images (V, T, H, W, D) and alphas (V, T, H, W); arguments and conventions as `compositor.rasterize`."""
    return compositor.rasterize(
        means, quats, scales, opacities, features, viewmats, Ks, width, height,
        eps2d=eps2d, near=near, background=background,
    )  # fmt: skip
