"""Gaussian splatting written to be read: the reference that the faster paths are held to.

A Gaussian of covariance S projects to an ellipse through the Jacobian of the perspective at its center (EWA, Zwicker et
al. 2001): S' = J W S W^T J^T + eps2d I, where eps2d keeps what is smaller than a pixel visible. A pixel at x takes
from it alpha = min(0.999, o exp(-(x - m)^T S'^-1 (x - m) / 2)), front to back (Kerbl et al. 2023, eq. 3):

    image = sum_i f_i alpha_i prod_{j < i} (1 - alpha_j)

What is less than 1/255 opaque is left out, and a pixel is done before the Gaussian that would let less than 1e-4
through. These numbers, and how far off the view the Jacobian is taken, are gsplat's, so that a scene looks the same on
a GPU. `generators.chord.render.splat.rasterize` is the same call by the fastest path there is for the tensors given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ALPHA_LEAST, ALPHA_MOST, THROUGH_LEAST = 1 / 255, 0.999, 1e-4
OFF_VIEW = 0.15
"""How far beyond the image the Jacobian follows a Gaussian, in the image's size."""
TILE = 16
"""Pixels of a tile's side; Gaussians are sorted into tiles so that a pixel asks only those nearby."""


class Projected(NamedTuple):
    """Gaussians as V cameras see them at T times."""

    means: Tensor
    """(V, T, G, 2) pixels."""
    conics: Tensor
    """(V, T, G, 3) inverse covariance: xx, xy, yy."""
    depths: Tensor
    """(V, T, G) meters along the camera's z; infinite where the camera does not see it."""
    extents: Tensor
    """(V, T, G, 2) half sides of the box around what is at least 1/255 opaque, pixels."""


class Splats(NamedTuple):
    """What a path has to draw: the arguments of `Rasterize`, checked, features of full rank."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    eps2d: float
    near: float


@dataclass(frozen=True)
class Rasterize:
    """The call that all paths answer; `draw` is what differs: images and alphas of splats before nothing."""

    draw: Callable[[Splats], tuple[Tensor, Tensor]]

    def __call__(
        self,
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
        """Render G moving Gaussians at T times from V cameras; derivatives reach everything but the cameras.

        Args:
            means: (T, G, 3) world frame, meters.
            quats: (T, G, 4) quaternions w x y z, of any length but zero.
            scales: (G, 3) standard deviations along the Gaussian's axes, meters.
            opacities: (G,) in [0, 1].
            features: what to composite, broadcast to (V, T, G, D): (G, D) for all, (T, G, D) by time, (V, 1, G, D) by
                camera, or in full.
            viewmats: (V, 4, 4) X_camera_world, OpenCV's convention.
            Ks: (V, 3, 3) intrinsics, pixels; the center of the first pixel is at (0.5, 0.5).
            width, height: pixels.
            eps2d: added to the variance on the image, pixels squared.
            near: Gaussians whose center is closer are left out, meters.
            background: (D,) features behind everything; zeros if not given.

        Returns:
            Images (V, T, H, W, D) and alphas (V, T, H, W).
        """
        check_shapes(means, quats, scales, opacities, viewmats, Ks)
        features = full_rank(features, means, viewmats)
        images, alphas = self.draw(
            Splats(
                means, quats, scales, opacities, features, viewmats, Ks, width, height, eps2d, near
            )
        )
        return before(background, images, alphas)


def _draw(splats: Splats) -> tuple[Tensor, Tensor]:
    seen = project(
        *splats[:4],
        splats.viewmats,
        splats.Ks,
        splats.width,
        splats.height,
        eps2d=splats.eps2d,
        near=splats.near,
    )
    nearest_first = seen.depths.argsort(dim=-1, stable=True)
    images, alphas = [], []
    for top in range(0, splats.height, TILE):
        high = min(splats.height - top, TILE)
        tiles = [
            _tile(
                seen,
                nearest_first,
                splats.opacities,
                splats.features,
                left,
                top,
                min(splats.width - left, TILE),
                high,
            )
            for left in range(0, splats.width, TILE)
        ]
        images.append(torch.cat([image for image, _ in tiles], dim=3))
        alphas.append(torch.cat([alpha for _, alpha in tiles], dim=3))
    return torch.cat(images, dim=2), torch.cat(alphas, dim=2)


rasterize = Rasterize(_draw)
"""In torch, tile by tile."""


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    eps2d: float,
    near: float,
) -> Projected:
    """The ellipses of Gaussians on the images; arguments as those of `rasterize`."""
    viewmats, Ks = viewmats.to(means.dtype), Ks.to(means.dtype)
    axes = rotations(quats) * scales[:, None, :]  # (T, G, 3, 3), columns scaled
    W, t = viewmats[:, None, None, :3, :3], viewmats[:, None, None, :3, 3]
    local = (W @ means[..., None])[..., 0] + t  # (V, T, G, 3)
    visible = (local[..., 2] >= near) & (opacities >= ALPHA_LEAST)
    x, y = local[..., 0], local[..., 1]
    z = torch.where(visible, local[..., 2], 1.0)
    fx, fy, cx, cy = (Ks[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))

    # Far off the view the linearized perspective runs wild; its Jacobian is taken at most a little outside.
    u = (x / z).clamp(-cx / fx - OFF_VIEW * width / fx, (width - cx) / fx + OFF_VIEW * width / fx)
    v = (y / z).clamp(
        -cy / fy - OFF_VIEW * height / fy, (height - cy) / fy + OFF_VIEW * height / fy
    )
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1).unflatten(
        -1, (2, 3)
    )
    spread = J @ (W @ axes)  # (V, T, G, 2, 3), S' = spread spread^T + eps2d I
    xx = spread[..., 0, :].square().sum(-1) + eps2d
    yy = spread[..., 1, :].square().sum(-1) + eps2d
    xy = (spread[..., 0, :] * spread[..., 1, :]).sum(-1)
    determinant = xx * yy - xy * xy
    visible = visible & (determinant > 0)
    determinant = torch.where(visible, determinant, 1.0)

    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([yy, -xy, xx], -1) / determinant[..., None]
    with torch.no_grad():
        reach = (2 * torch.log(opacities / ALPHA_LEAST).clamp(min=0)).sqrt()[:, None]
        extents = torch.where(
            visible[..., None], reach * torch.stack([xx, yy], -1).sqrt(), -torch.inf
        )
        depths = torch.where(visible, z, torch.inf)
    return Projected(centers, conics, depths, extents)


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions w x y z (..., 4), normalized first."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _tile(
    seen: Projected,
    nearest_first: Tensor,
    opacities: Tensor,
    features: Tensor,
    left: int,
    top: int,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Image (V, T, height, width, D) and alpha of the pixels right of and below (left, top)."""
    first = torch.tensor([left + 0.5, top + 0.5], dtype=seen.means.dtype, device=seen.means.device)
    last = first + first.new_tensor([width - 1, height - 1])
    touches = ((seen.means + seen.extents >= first) & (seen.means - seen.extents <= last)).all(
        -1
    )  # (V, T, G)
    touches = touches.gather(-1, nearest_first)
    count = int(touches.sum(-1).max())
    listed = (
        (~touches).byte().argsort(dim=-1, stable=True)[..., :count]
    )  # those that touch, nearest first
    touches, listed = touches.gather(-1, listed), nearest_first.gather(-1, listed)  # (V, T, L)

    down, right = torch.meshgrid(
        *(torch.arange(n, device=first.device) for n in (height, width)), indexing="ij"
    )
    pixels = first + torch.stack([right, down], -1).flatten(0, 1)  # (P, 2)
    d = pixels[:, None] - _pick(seen.means, listed)[..., None, :, :]  # (V, T, P, L, 2)
    a, b, c = _pick(seen.conics, listed)[..., None, :, :].unbind(-1)
    sigma = 0.5 * (a * d[..., 0].square() + c * d[..., 1].square()) + b * d[..., 0] * d[..., 1]
    alpha = (opacities[listed][..., None, :] * torch.exp(-sigma)).clamp(max=ALPHA_MOST)
    alpha = torch.where(touches[..., None, :] & (sigma >= 0) & (alpha >= ALPHA_LEAST), alpha, 0.0)
    through = torch.cumprod(1 - alpha, dim=-1)  # (V, T, P, L) behind each
    ahead = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)[
        ..., : through.shape[-1]
    ]
    weight = torch.where(through > THROUGH_LEAST, alpha * ahead, 0.0)
    image = weight @ _pick(features.expand(*listed.shape[:2], *features.shape[2:]), listed)
    return image.unflatten(2, (height, width)), weight.sum(-1).unflatten(2, (height, width))


def _pick(values: Tensor, listed: Tensor) -> Tensor:
    """Rows (V, T, L, C) of values (V, T, G, C)."""
    return values.gather(2, listed[..., None].expand(*listed.shape, values.shape[-1]))


def before(background: Tensor | None, images: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Images in front of a background (D,), and the alphas as they are."""
    return (images if background is None else images + (1 - alphas)[..., None] * background), alphas


def full_rank(features: Tensor, means: Tensor, viewmats: Tensor) -> Tensor:
    """Features (V or 1, T or 1, G, D), without a copy.

    Raises:
        ValueError: when they do not broadcast to (V, T, G, D).
    """
    (times, count), views = means.shape[:2], len(viewmats)
    full = features[(None,) * (4 - features.ndim)] if 2 <= features.ndim <= 4 else features
    if (
        full.ndim != 4
        or full.shape[0] not in (1, views)
        or full.shape[1] not in (1, times)
        or full.shape[2] != count
    ):
        raise ValueError(
            f"features: expected a shape that broadcasts to (V, T, G, D) = ({views}, {times}, {count}, D), got "
            f"{tuple(features.shape)}; features by camera are (V, 1, G, D)"
        )
    if features.dtype != means.dtype:
        raise ValueError(f"features: expected {means.dtype}, as means are, got {features.dtype}")
    return full


def check_shapes(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, Ks: Tensor
) -> None:
    """Raise a ValueError that names the first argument of `rasterize` whose shape does not fit the others."""
    if means.ndim != 3 or means.shape[2] != 3 or 0 in means.shape:
        raise ValueError(f"means: expected shape (T, G, 3), got {tuple(means.shape)}")
    times, count = means.shape[:2]
    views = len(viewmats)
    expected = {
        "quats": (quats, (times, count, 4)),
        "scales": (scales, (count, 3)),
        "opacities": (opacities, (count,)),
        "viewmats": (viewmats, (views, 4, 4)),
        "Ks": (Ks, (views, 3, 3)),
    }
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}")
    for name, (value, _) in list(expected.items())[:3]:
        if value.dtype != means.dtype:
            raise ValueError(f"{name}: expected {means.dtype}, as means are, got {value.dtype}")
