"""The compositor for processors: what `generators.chord.render.compositor` says, compiled, with derivatives by hand.

One Gaussian at a time is drawn into the pixels of its ellipse, nearest first, while every pixel remembers how much
light still comes through: no tiles, and no pixel outside the ellipse is looked at. Backward goes through the Gaussians
in the same order. With T_i the light that reaches Gaussian i, g the gradient of the pixel and S_i what the Gaussians
behind i add to g . image,

    dL/dalpha_i = T_i g . f_i - S_i / (1 - alpha_i)

and S_i is what is left of g . image after the Gaussians up to i, so nothing needs to be stored by pixel and Gaussian.
Frames are shared out among torch's threads. All sums run in double precision and in one order, whatever the number of
threads: the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil, exp, floor, log, sqrt
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from generators.chord.render.compositor import (
    ALPHA_LEAST,
    ALPHA_MOST,
    OFF_VIEW,
    THROUGH_LEAST,
    Rasterize,
    Splats,
    rotations,
)

Array = NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code: compiled at its first call, then kept in a cache.

    The cache lies beside this file, or where that cannot be written to, in the user's cache folder. It is as new as
    this file: constants imported from elsewhere are part of it, and do not renew it.
    """
    compiler = njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}
    )
    return cast(Function, compiler(function))


HAIR = 1e-3
"""Pixels by which an ellipse is taken to be larger, so that rounding leaves no pixel out."""


class _Inputs(NamedTuple):
    """What is drawn, or the gradients by it."""

    means: Array
    """(T, G, 3)"""
    axes: Array
    """(T, G, 3, 3) a Gaussian's axes as columns, as long as its standard deviations."""
    opacities: Array
    """(G,), or (T, G) of gradients."""
    features: Array
    """(V or 1, T or 1, G, D); of gradients (V or 1, T, G, D), empty where not wanted."""


class _Seen(NamedTuple):
    """What each of V cameras sees at each of T times."""

    ellipses: Array
    """(V, T, G, 5) center x y, inverse covariance xx xy yy."""
    depths: Array
    """(V, T, G) infinite where nothing is seen."""
    order: Array
    """(V, T, G) nearest first."""
    images: Array
    """(V, T, H, W, D)"""
    alphas: Array
    """(V, T, H, W)"""


def _draw_all(splats: Splats) -> tuple[Tensor, Tensor]:
    axes = rotations(splats.quats) * splats.scales[:, None, :]
    images, alphas = _Compositor.apply(splats.means, axes, *splats[3:])
    return images, alphas


rasterize = Rasterize(_draw_all)
"""By compiled kernels, on a processor."""


class _Compositor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        axes: Tensor,
        opacities: Tensor,
        features: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        eps2d: float,
        near: float,
    ) -> tuple[Tensor, Tensor]:
        given = _Inputs(*map(_array, (means, axes, opacities, features)))
        cameras = _array(viewmats).astype(np.float64), _array(Ks).astype(np.float64)
        times, count, views, dtype = *means.shape[:2], len(viewmats), given.means.dtype
        seen = _Seen(
            ellipses=np.empty((views, times, count, 5), dtype),
            depths=np.empty((views, times, count), dtype),
            order=np.empty((views, times, count), np.int64),
            images=np.zeros((views, times, height, width, features.shape[-1]), dtype),
            alphas=np.empty((views, times, height, width), dtype),
        )

        def draw(first: int, last: int) -> None:
            _project(first, last, given, *cameras, width, height, eps2d, near, seen)
            seen.order[:, first:last] = seen.depths[:, first:last].argsort(axis=-1, kind="stable")
            _draw(first, last, given, seen)

        _share_out(draw, times)
        outputs = torch.from_numpy(seen.images), torch.from_numpy(seen.alphas)
        # What others could write to goes through torch, which notices.
        ctx.save_for_backward(means, axes, opacities, features, *outputs)
        ctx.cameras, ctx.projected = cameras, seen[:3]
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_images: Tensor, to_alphas: Tensor) -> tuple[Tensor | None, ...]:
        saved = tuple(map(_array, ctx.saved_tensors))
        given, seen = _Inputs(*saved[:4]), _Seen(*ctx.projected, *saved[4:])
        views, _, count, channels = given.features.shape
        times, dtype, wanted = len(given.means), given.means.dtype, ctx.needs_input_grad[3]
        to = _Inputs(
            means=np.zeros_like(given.means),
            axes=np.zeros_like(given.axes),
            opacities=np.zeros((times, count), dtype),
            features=np.zeros((views, times, count, channels) if wanted else (0, 0, 0, 0), dtype),
        )
        viewmats, Ks = ctx.cameras
        above = _array(to_images), _array(to_alphas)

        def draw_back(first: int, last: int) -> None:
            _draw_back(first, last, given, viewmats, Ks, seen, above[0], above[1], to)

        _share_out(draw_back, times)
        means, axes, opacities, features = map(torch.from_numpy, to)
        if given.features.shape[1] == 1:
            features = features.sum(1, keepdim=True)
        return (means, axes, opacities.sum(0), features if wanted else None, *(None,) * 6)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _share_out(work: Callable[[int, int], None], times: int) -> None:
    """Do all frames, in as many threads as torch may use; no two threads write to one place."""
    threads = min(torch.get_num_threads(), times)
    if threads == 1:
        work(0, times)
        return
    ends = np.linspace(0, times, threads + 1).round().astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, ends[:-1], ends[1:]))


@compiled
def _project(
    first: int,
    last: int,
    given: _Inputs,
    viewmats: Array,
    Ks: Array,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    seen: _Seen,
) -> None:
    """Fill in ellipses and depths of frames `first` to `last`."""
    U, P = np.empty((2, 3)), np.empty((2, 3))
    for t in range(first, last):
        for view in range(len(viewmats)):
            X, K = viewmats[view], Ks[view]
            for g in range(len(given.opacities)):
                seen.depths[view, t, g] = np.inf
                x, y, z = _local(given.means[t, g], X)
                if not z >= near or given.opacities[g] < ALPHA_LEAST:
                    continue
                u, v, _, _ = _slopes(x, y, z, K, width, height)
                _spread(given.axes[t, g], X, K[0, 0] / z, K[1, 1] / z, u, v, U, P)
                xx = U[0, 0] * U[0, 0] + U[0, 1] * U[0, 1] + U[0, 2] * U[0, 2] + eps2d
                yy = U[1, 0] * U[1, 0] + U[1, 1] * U[1, 1] + U[1, 2] * U[1, 2] + eps2d
                xy = U[0, 0] * U[1, 0] + U[0, 1] * U[1, 1] + U[0, 2] * U[1, 2]
                determinant = xx * yy - xy * xy
                if not determinant > 0:
                    continue
                seen.depths[view, t, g] = z
                ellipse = seen.ellipses[view, t, g]
                ellipse[0], ellipse[1] = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
                ellipse[2], ellipse[3], ellipse[4] = (
                    yy / determinant,
                    -xy / determinant,
                    xx / determinant,
                )


@compiled
def _local(mean: Array, X: Array) -> tuple[float, float, float]:
    """A point of the world in the camera's frame X (4, 4)."""
    px, py, pz = float(mean[0]), float(mean[1]), float(mean[2])
    x = X[0, 0] * px + X[0, 1] * py + X[0, 2] * pz + X[0, 3]
    y = X[1, 0] * px + X[1, 1] * py + X[1, 2] * pz + X[1, 3]
    z = X[2, 0] * px + X[2, 1] * py + X[2, 2] * pz + X[2, 3]
    return x, y, z


@compiled
def _slopes(
    x: float, y: float, z: float, K: Array, width: int, height: int
) -> tuple[float, float, bool, bool]:
    """Slopes u, v at which the perspective is linearized, and whether they are the point's own, x / z and y / z."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    u, v = x / z, y / z
    left, right = -(cx + OFF_VIEW * width) / fx, (width - cx + OFF_VIEW * width) / fx
    top, bottom = -(cy + OFF_VIEW * height) / fy, (height - cy + OFF_VIEW * height) / fy
    return (
        min(max(u, left), right),
        min(max(v, top), bottom),
        left <= u <= right,
        top <= v <= bottom,
    )


@compiled
def _spread(
    M: Array, X: Array, fx_z: float, fy_z: float, u: float, v: float, U: Array, P: Array
) -> None:
    """U (2, 3) = P M and P (2, 3) = J W, where M (3, 3) are a Gaussian's axes: U U^T is its covariance on the image."""
    for j in range(3):
        P[0, j] = fx_z * (X[0, j] - u * X[2, j])
        P[1, j] = fy_z * (X[1, j] - v * X[2, j])
    for r in range(2):
        for j in range(3):
            U[r, j] = P[r, 0] * M[0, j] + P[r, 1] * M[1, j] + P[r, 2] * M[2, j]


@compiled
def _rows(ellipse: Array, opacity: float, height: int) -> tuple[int, int, float]:
    """First and last row with a pixel of at least ALPHA_LEAST, and twice the sigma where alpha is ALPHA_LEAST."""
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    reach = max(2 * log(opacity / ALPHA_LEAST), 0.0)
    half = sqrt(reach * a / (a * c - b * b)) + HAIR
    return (
        max(0, ceil(ellipse[1] - half - 0.5)),
        min(height - 1, floor(ellipse[1] + half - 0.5)),
        reach,
    )


@compiled
def _columns(ellipse: Array, dy: float, reach: float, width: int) -> tuple[int, int]:
    """First and last column with a pixel of at least ALPHA_LEAST in the row dy below the center."""
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    half = sqrt(max(a * reach - (a * c - b * b) * dy * dy, 0.0)) / a + HAIR
    middle = ellipse[0] - b * dy / a - 0.5
    return max(0, ceil(middle - half)), min(width - 1, floor(middle + half))


@compiled
def _draw(first: int, last: int, given: _Inputs, seen: _Seen) -> None:
    """Fill in images and alphas of frames `first` to `last`."""
    views, _, height, width, channels = seen.images.shape
    through, final = np.empty((height, width)), np.empty((height, width))
    for t in range(first, last):
        for view in range(views):
            through[:], final[:] = (
                1.0,
                -1.0,
            )  # light that reaches the next Gaussian, 0 when done; and what then is left
            features = given.features[view % given.features.shape[0], t % given.features.shape[1]]
            image = seen.images[view, t]
            for g in seen.order[view, t]:
                if seen.depths[view, t, g] == np.inf:
                    break
                ellipse, opacity = seen.ellipses[view, t, g], float(given.opacities[g])
                a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
                top, bottom, reach = _rows(ellipse, opacity, height)
                for y in range(top, bottom + 1):
                    dy = y + 0.5 - ellipse[1]
                    left, right = _columns(ellipse, dy, reach, width)
                    for x in range(left, right + 1):
                        if through[y, x] == 0.0:
                            continue
                        dx = x + 0.5 - ellipse[0]
                        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                        alpha = min(ALPHA_MOST, opacity * exp(-sigma))
                        if sigma < 0 or alpha < ALPHA_LEAST:
                            continue
                        behind = through[y, x] * (1 - alpha)
                        if behind <= THROUGH_LEAST:
                            final[y, x], through[y, x] = through[y, x], 0.0
                            continue
                        weight = alpha * through[y, x]
                        through[y, x] = behind
                        for d in range(channels):
                            image[y, x, d] += weight * features[g, d]
            for y in range(height):
                for x in range(width):
                    seen.alphas[view, t, y, x] = 1 - (
                        final[y, x] if final[y, x] >= 0 else through[y, x]
                    )


@compiled
def _draw_back(
    first: int,
    last: int,
    given: _Inputs,
    viewmats: Array,
    Ks: Array,
    seen: _Seen,
    to_images: Array,
    to_alphas: Array,
    to: _Inputs,
) -> None:
    """Add the gradients of frames `first` to `last` to `to`."""
    views, _, height, width, channels = seen.images.shape
    through, left_over = np.empty((height, width)), np.empty((height, width))
    to_ellipse, to_feature = np.empty(6), np.empty(channels)
    U, P, to_U, to_P = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3))
    for t in range(first, last):
        for view in range(views):
            through[:] = 1.0
            for y in range(height):
                for x in range(width):
                    total = -float(to_alphas[view, t, y, x]) * (
                        1 - float(seen.alphas[view, t, y, x])
                    )
                    for d in range(channels):
                        total += float(to_images[view, t, y, x, d]) * seen.images[view, t, y, x, d]
                    left_over[y, x] = total
            features = given.features[view % given.features.shape[0], t % given.features.shape[1]]
            for g in seen.order[view, t]:
                if seen.depths[view, t, g] == np.inf:
                    break
                ellipse, opacity = seen.ellipses[view, t, g], float(given.opacities[g])
                _erase(
                    ellipse,
                    opacity,
                    features[g],
                    to_images[view, t],
                    through,
                    left_over,
                    to_ellipse,
                    to_feature,
                )
                to.opacities[t, g] += to_ellipse[5]
                if to.features.size > 0:
                    for d in range(channels):
                        to.features[view % to.features.shape[0], t, g, d] += to_feature[d]
                _project_back(
                    ellipse, to_ellipse, given.means[t, g], given.axes[t, g], viewmats[view], Ks[view], width, height,
                    U, P, to_U, to_P, to.means[t, g], to.axes[t, g],
                )  # fmt: skip


@compiled
def _erase(
    ellipse: Array,
    opacity: float,
    feature: Array,
    to_image: Array,
    through: Array,
    left_over: Array,
    to_ellipse: Array,
    to_feature: Array,
) -> None:
    """Gradients by one ellipse (5) and its opacity, and by its feature (D); `left_over` becomes what is behind it.

    Args:
        to_image: (H, W, D) gradients by the image.
        through: (H, W) light that reaches the Gaussian, and after it the next; 0 when the pixel is done.
        left_over: (H, W) S of the module's docstring, less what alpha's gradient adds: (1 - alpha) of the whole pixel.
    """
    height, width, channels = to_image.shape
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    to_x = to_y = to_a = to_b = to_c = to_opacity = 0.0
    to_feature[:] = 0.0
    top, bottom, reach = _rows(ellipse, opacity, height)
    for y in range(top, bottom + 1):
        dy = y + 0.5 - ellipse[1]
        left, right = _columns(ellipse, dy, reach, width)
        for x in range(left, right + 1):
            if through[y, x] == 0.0:
                continue
            dx = x + 0.5 - ellipse[0]
            sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
            share = exp(-sigma)
            alpha = min(ALPHA_MOST, opacity * share)
            if sigma < 0 or alpha < ALPHA_LEAST:
                continue
            behind = through[y, x] * (1 - alpha)
            if behind <= THROUGH_LEAST:
                through[y, x] = 0.0
                continue
            weight = alpha * through[y, x]
            shown = 0.0
            for d in range(channels):
                gradient = float(to_image[y, x, d])
                shown += gradient * feature[d]
                to_feature[d] += weight * gradient
            left_over[y, x] -= weight * shown
            to_alpha = through[y, x] * shown - left_over[y, x] / (1 - alpha)
            through[y, x] = behind
            if opacity * share > ALPHA_MOST:
                continue
            to_opacity += share * to_alpha
            to_sigma = -alpha * to_alpha
            to_x -= to_sigma * (a * dx + b * dy)
            to_y -= to_sigma * (b * dx + c * dy)
            to_a += 0.5 * to_sigma * dx * dx
            to_b += to_sigma * dx * dy
            to_c += 0.5 * to_sigma * dy * dy
    to_ellipse[0], to_ellipse[1], to_ellipse[2] = to_x, to_y, to_a
    to_ellipse[3], to_ellipse[4], to_ellipse[5] = to_b, to_c, to_opacity


@compiled
def _project_back(
    ellipse: Array,
    to_ellipse: Array,
    mean: Array,
    M: Array,
    X: Array,
    K: Array,
    width: int,
    height: int,
    U: Array,
    P: Array,
    to_U: Array,
    to_P: Array,
    to_mean: Array,
    to_M: Array,
) -> None:
    """Add the gradients by one Gaussian's mean (3,) and axes M (3, 3); U, P, to_U, to_P are scratch (2, 3)."""
    # Q = S'^-1, so dS' = -Q dQ Q; all symmetric: xx, xy, yy.
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    to_a, half_b, to_c = to_ellipse[2], 0.5 * to_ellipse[3], to_ellipse[4]
    to_xx = -(a * (a * to_a + b * half_b) + b * (a * half_b + b * to_c))
    to_xy = -(a * (b * to_a + c * half_b) + b * (b * half_b + c * to_c))
    to_yy = -(b * (b * to_a + c * half_b) + c * (b * half_b + c * to_c))

    x, y, z = _local(mean, X)
    u, v, u_own, v_own = _slopes(x, y, z, K, width, height)
    fx_z, fy_z = K[0, 0] / z, K[1, 1] / z
    _spread(M, X, fx_z, fy_z, u, v, U, P)
    for j in range(3):
        to_U[0, j] = 2 * (to_xx * U[0, j] + to_xy * U[1, j])
        to_U[1, j] = 2 * (to_xy * U[0, j] + to_yy * U[1, j])
    for i in range(3):
        for j in range(3):
            to_M[i, j] += P[0, i] * to_U[0, j] + P[1, i] * to_U[1, j]
        for r in range(2):
            to_P[r, i] = to_U[r, 0] * M[i, 0] + to_U[r, 1] * M[i, 1] + to_U[r, 2] * M[i, 2]

    # P[0] = fx / z (X[0] - u X[2]) and P[1] = fy / z (X[1] - v X[2]); within the view u = x / z and v = y / z.
    to_x, to_y = fx_z * to_ellipse[0], fy_z * to_ellipse[1]
    to_z = -(to_x * x + to_y * y) / z
    to_u = to_v = 0.0
    for j in range(3):
        to_z -= (to_P[0, j] * P[0, j] + to_P[1, j] * P[1, j]) / z
        to_u -= fx_z * to_P[0, j] * X[2, j]
        to_v -= fy_z * to_P[1, j] * X[2, j]
    if u_own:
        to_x += to_u / z
        to_z -= to_u * u / z
    if v_own:
        to_y += to_v / z
        to_z -= to_v * v / z
    for j in range(3):
        to_mean[j] += X[0, j] * to_x + X[1, j] * to_y + X[2, j] * to_z
