"""Gaussian splatting written to be read: the reference that the faster paths are held to.

A Gaussian of covariance S projects to an ellipse through the Jacobian of the perspective at its
center (EWA, Zwicker et al. 2001): S' = J W S W^T J^T + eps2d I, where eps2d keeps what is smaller
than a pixel visible. A pixel at x takes from it alpha = min(0.999, o exp(-(x - m)^T S'^-1 (x - m) /
2)), front to back (Kerbl et al. 2023, eq. 3):

    image = sum_i f_i alpha_i prod_{j < i} (1 - alpha_j)

A Gaussian is skipped at pixels where it is less than 1/255 opaque, and a pixel is complete before
the Gaussian that would let less than 1e-4 through. These numbers, and the limit at which the
Jacobian is taken off the view, are gsplat's, so that a scene looks the same on a GPU.
`generators.chord.render.splat.rasterize` is the same call by the fastest path for the given
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 1 / 255, 0.999, 1e-4
OFF_VIEW = 0.15
"""Distance beyond the image up to which the Jacobian follows a Gaussian, in the image's size."""
TILE = 16
"""Pixels of a tile's side; a pixel tests only the Gaussians of its tile."""


class Splats(NamedTuple):
    """G moving Gaussians at T times, and V cameras to render them from."""

    means: Tensor
    """(T, G, 3) world frame, meters."""
    quats: Tensor
    """(T, G, 4) quaternions w x y z, of any length but zero."""
    scales: Tensor
    """(G, 3) standard deviations along the Gaussian's axes, meters."""
    opacities: Tensor
    """(G,) in [0, 1]."""
    features: Tensor
    """Composited values, broadcast to (V, T, G, D): (G, D) for all, (T, G, D) by time, (V, 1, G, D)
    by camera, or in full."""
    viewmats: Tensor
    """(V, 4, 4) X_camera_world, OpenCV's convention."""
    Ks: Tensor
    """(V, 3, 3) intrinsics, pixels; the center of the first pixel is at (0.5, 0.5)."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    eps2d: float = 0.3
    """Added to the variance on the image, pixels squared."""
    near: float = 0.01
    """Gaussians whose center is closer are left out, meters."""


class Projected(NamedTuple):
    """Gaussians as V cameras see them at T times."""

    means: Tensor
    """(V, T, G, 2) pixels."""
    conics: Tensor
    """(V, T, G, 3) inverse covariance: xx, xy, yy."""
    depths: Tensor
    """(V, T, G) meters along the camera's z; infinite if the camera does not see it."""
    extents: Tensor
    """(V, T, G, 2) half sides of the box around the part at least 1/255 opaque, pixels."""


@dataclass(frozen=True)
class Rasterize:
    """The call that all paths answer.

    Attributes:
        draw: images and alphas of splats with features of full rank, before an empty background.
    """

    draw: Callable[[Splats], tuple[Tensor, Tensor]]

    def __call__(self, splats: Splats, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Render Gaussians; derivatives reach everything but the cameras.

        Args:
            splats: Gaussians and cameras.
            background: (D,) features behind everything. Defaults to zeros.

        Returns:
            Images (V, T, H, W, D) and alphas (V, T, H, W).

        Raises:
            ValueError: for a shape or type that does not match the others.
        """
        check_shapes(splats)
        images, alphas = self.draw(splats._replace(features=full_rank(splats)))
        if background is not None:
            images = images + (1 - alphas)[..., None] * background
        return images, alphas


def _draw(splats: Splats) -> tuple[Tensor, Tensor]:
    seen = project(splats)
    nearest_first = seen.depths.argsort(dim=-1, stable=True)  # (V, T, G)
    images, alphas = [], []
    # Rows of tiles, each from left to right.
    for top in range(0, splats.height, TILE):
        row = [
            _tile(splats, seen, nearest_first, left, top) for left in range(0, splats.width, TILE)
        ]
        images.append(torch.cat([image for image, _ in row], dim=3))
        alphas.append(torch.cat([alpha for _, alpha in row], dim=3))
    return torch.cat(images, dim=2), torch.cat(alphas, dim=2)


rasterize = Rasterize(_draw)
"""Gaussian splatting in torch, tile by tile."""


def project(splats: Splats) -> Projected:
    """The ellipses of Gaussians on the images."""
    means, quats, scales, opacities, _, viewmats, Ks, width, height, eps2d, near = splats
    viewmats, Ks = viewmats.to(means.dtype), Ks.to(means.dtype)
    axes = rotations(quats) * scales[:, None, :]  # (T, G, 3, 3), columns scaled

    # Centers in the cameras' frames.
    W, t = viewmats[:, None, None, :3, :3], viewmats[:, None, None, :3, 3]
    local = (W @ means[..., None])[..., 0] + t  # (V, T, G, 3)
    visible = (local[..., 2] >= near) & (opacities >= MIN_ALPHA)
    x, y = local[..., 0], local[..., 1]
    z = torch.where(visible, local[..., 2], 1.0)
    fx, fy, cx, cy = (Ks[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))

    # Far off the view the linearized perspective diverges: limit where its Jacobian is taken.
    margin_x, margin_y = OFF_VIEW * width / fx, OFF_VIEW * height / fy
    u = (x / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    v = (y / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], -1)
    J = J.unflatten(-1, (2, 3))  # (V, T, G, 2, 3)

    # Covariance on the image, S' = spread spread^T + eps2d I.
    spread = J @ (W @ axes)  # (V, T, G, 2, 3)
    xx = spread[..., 0, :].square().sum(-1) + eps2d
    yy = spread[..., 1, :].square().sum(-1) + eps2d
    xy = (spread[..., 0, :] * spread[..., 1, :]).sum(-1)
    determinant = xx * yy - xy * xy
    visible = visible & (determinant > 0)
    determinant = torch.where(visible, determinant, 1.0)

    centers = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    conics = torch.stack([yy, -xy, xx], -1) / determinant[..., None]
    with torch.no_grad():
        # Standard deviations from the center to where alpha falls to its minimum.
        reach = (2 * torch.log(opacities / MIN_ALPHA).clamp(min=0)).sqrt()[:, None]  # (G, 1)
        sides = reach * torch.stack([xx, yy], -1).sqrt()
        extents = torch.where(visible[..., None], sides, -torch.inf)
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
    splats: Splats, seen: Projected, nearest_first: Tensor, left: int, top: int
) -> tuple[Tensor, Tensor]:
    """Image (V, T, h, w, D) and alpha of the tile with its corner at (left, top)."""
    width, height = min(splats.width - left, TILE), min(splats.height - top, TILE)
    first = torch.tensor([left + 0.5, top + 0.5], dtype=seen.means.dtype, device=seen.means.device)
    last = first + first.new_tensor([width - 1, height - 1])

    # The Gaussians that reach into the tile, nearest first.
    after_first = seen.means + seen.extents >= first
    before_last = seen.means - seen.extents <= last
    touches = (after_first & before_last).all(-1)  # (V, T, G)
    touches = touches.gather(-1, nearest_first)
    count = int(touches.sum(-1).max())
    listed = (~touches).byte().argsort(dim=-1, stable=True)[..., :count]
    touches, listed = touches.gather(-1, listed), nearest_first.gather(-1, listed)  # (V, T, L)

    # Opacity of every listed Gaussian at every pixel.
    rows, columns = (torch.arange(n, device=first.device) for n in (height, width))
    down, right = torch.meshgrid(rows, columns, indexing="ij")
    pixels = first + torch.stack([right, down], -1).flatten(0, 1)  # (P, 2)
    d = pixels[:, None] - _pick(seen.means, listed)[..., None, :, :]  # (V, T, P, L, 2)
    a, b, c = _pick(seen.conics, listed)[..., None, :, :].unbind(-1)
    sigma = 0.5 * (a * d[..., 0].square() + c * d[..., 1].square()) + b * d[..., 0] * d[..., 1]
    alpha = (splats.opacities[listed][..., None, :] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    drawn = touches[..., None, :] & (sigma >= 0) & (alpha >= MIN_ALPHA)
    alpha = torch.where(drawn, alpha, 0.0)

    # Transmittance behind and ahead of each, and the weight of its features.
    behind = torch.cumprod(1 - alpha, dim=-1)  # (V, T, P, L)
    ahead = torch.cat([torch.ones_like(behind[..., :1]), behind[..., :-1]], dim=-1)
    ahead = ahead[..., : behind.shape[-1]]
    weight = torch.where(behind > MIN_TRANSMITTANCE, alpha * ahead, 0.0)

    features = splats.features.expand(*listed.shape[:2], *splats.features.shape[2:])
    image = weight @ _pick(features, listed)
    return image.unflatten(2, (height, width)), weight.sum(-1).unflatten(2, (height, width))


def _pick(values: Tensor, listed: Tensor) -> Tensor:
    """Rows (V, T, L, C) of values (V, T, G, C)."""
    return values.gather(2, listed[..., None].expand(*listed.shape, values.shape[-1]))


def full_rank(splats: Splats) -> Tensor:
    """Features (V or 1, T or 1, G, D), without a copy.

    Raises:
        ValueError: if they do not broadcast to (V, T, G, D).
    """
    features, means = splats.features, splats.means
    (times, count), views = means.shape[:2], len(splats.viewmats)
    full = features[(None,) * (4 - features.ndim)] if 2 <= features.ndim <= 4 else features
    if (
        full.ndim != 4
        or full.shape[0] not in (1, views)
        or full.shape[1] not in (1, times)
        or full.shape[2] != count
    ):
        raise ValueError(
            "features: expected a shape that broadcasts to (V, T, G, D) = "
            f"({views}, {times}, {count}, D), got {tuple(features.shape)}; "
            "features by camera are (V, 1, G, D)"
        )
    if features.dtype != means.dtype:
        raise ValueError(f"features: expected {means.dtype}, as means are, got {features.dtype}")
    return full


def check_shapes(splats: Splats) -> None:
    """Refuse splats whose shapes or types do not match.

    Raises:
        ValueError: naming the first field that does not match.
    """
    means = splats.means
    if means.ndim != 3 or means.shape[2] != 3 or 0 in means.shape:
        raise ValueError(f"means: expected shape (T, G, 3), got {tuple(means.shape)}")
    times, count = means.shape[:2]
    views = len(splats.viewmats)
    expected = {
        "quats": (times, count, 4),
        "scales": (count, 3),
        "opacities": (count,),
        "viewmats": (views, 4, 4),
        "Ks": (views, 3, 3),
    }
    for name, shape in expected.items():
        found = tuple(getattr(splats, name).shape)
        if found != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {found}")
    for name in ("quats", "scales", "opacities"):
        dtype = getattr(splats, name).dtype
        if dtype != means.dtype:
            raise ValueError(f"{name}: expected {means.dtype}, as means are, got {dtype}")
