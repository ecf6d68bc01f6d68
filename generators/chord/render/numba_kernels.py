"""Compiled kernels of Gaussian splatting on a CPU, forward and backward.

Gaussians are drawn one at a time, nearest first, into the pixels of their ellipses, while every
pixel keeps the light that still comes through: no tiles, and no pixel outside the ellipse is
visited. Backward passes through the Gaussians in the same order. With T_i the light that reaches
Gaussian i, g the gradient of the pixel and S_i the part of g . image that the Gaussians behind i
contribute,

    dL/dalpha_i = T_i g . f_i - S_i / (1 - alpha_i)

and S_i is the rest of g . image after the Gaussians up to i, so nothing needs to be stored for each
pair of pixel and Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, exp, floor, log, sqrt
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from generators.chord.render.compositor import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    OFF_VIEW,
)

Array = NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code: compiled at its first call, then kept in a cache.

    The cache lies beside this file, or, if that is not writable, in the user's cache folder. It is
    renewed with this file, but not with constants imported from elsewhere.
    """
    compiler = njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp"}
    )
    return cast(Function, compiler(function))


MARGIN = 1e-3
"""Pixels added to the size of an ellipse, so that rounding leaves no pixel out."""


class Inputs(NamedTuple):
    """The drawn Gaussians, or the gradients with respect to them."""

    means: Array
    """(T, G, 3)"""
    axes: Array
    """(T, G, 3, 3) a Gaussian's axes as columns, as long as its standard deviations."""
    opacities: Array
    """(G,), or (T, G) of gradients."""
    features: Array
    """(V or 1, T or 1, G, D); of gradients (V or 1, T, G, D), empty if not needed."""


class Cameras(NamedTuple):
    """V cameras with images of one size."""

    viewmats: Array
    """(V, 4, 4)"""
    Ks: Array
    """(V, 3, 3)"""
    width: int
    height: int
    eps2d: float
    near: float


class Camera(NamedTuple):
    """One of the cameras."""

    X: Array
    """(4, 4) X_camera_world."""
    K: Array
    """(3, 3)"""
    width: int
    height: int


class Seen(NamedTuple):
    """Projections of Gaussians, and images, of V cameras at T times."""

    ellipses: Array
    """(V, T, G, 5) center x y, inverse covariance xx xy yy."""
    depths: Array
    """(V, T, G) infinite for invisible ones."""
    order: Array
    """(V, T, G) nearest first."""
    images: Array
    """(V, T, H, W, D)"""
    alphas: Array
    """(V, T, H, W)"""


class Scratch(NamedTuple):
    """Memory of (2, 3) matrices that is used again for every Gaussian."""

    U: Array
    """P M, of which U U^T is the covariance on the image."""
    P: Array
    """J W, Jacobian of the perspective times rotation of the camera."""
    to_U: Array
    to_P: Array


@compiled
def project(first: int, last: int, given: Inputs, cameras: Cameras, seen: Seen) -> None:
    """Fill in ellipses and depths of frames `first` to `last`."""
    U, P = np.empty((2, 3)), np.empty((2, 3))
    for t in range(first, last):
        for view in range(len(cameras.viewmats)):
            camera = Camera(cameras.viewmats[view], cameras.Ks[view], cameras.width, cameras.height)
            X, K = camera.X, camera.K
            for g in range(len(given.opacities)):
                seen.depths[view, t, g] = np.inf
                x, y, z = _local(given.means[t, g], X)
                if not z >= cameras.near or given.opacities[g] < MIN_ALPHA:
                    continue

                # Covariance on the image, U U^T + eps2d I.
                u, v, _, _ = _slopes(x, y, z, camera)
                _spread(given.axes[t, g], X, K[0, 0] / z, K[1, 1] / z, u, v, U, P)
                xx = U[0, 0] * U[0, 0] + U[0, 1] * U[0, 1] + U[0, 2] * U[0, 2] + cameras.eps2d
                yy = U[1, 0] * U[1, 0] + U[1, 1] * U[1, 1] + U[1, 2] * U[1, 2] + cameras.eps2d
                xy = U[0, 0] * U[1, 0] + U[0, 1] * U[1, 1] + U[0, 2] * U[1, 2]
                determinant = xx * yy - xy * xy
                if not determinant > 0:
                    continue

                seen.depths[view, t, g] = z
                ellipse = seen.ellipses[view, t, g]
                ellipse[0], ellipse[1] = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
                ellipse[2] = yy / determinant
                ellipse[3] = -xy / determinant
                ellipse[4] = xx / determinant


@compiled
def _local(mean: Array, X: Array) -> tuple[float, float, float]:
    """A point of the world in the camera's frame X (4, 4)."""
    px, py, pz = float(mean[0]), float(mean[1]), float(mean[2])
    x = X[0, 0] * px + X[0, 1] * py + X[0, 2] * pz + X[0, 3]
    y = X[1, 0] * px + X[1, 1] * py + X[1, 2] * pz + X[1, 3]
    z = X[2, 0] * px + X[2, 1] * py + X[2, 2] * pz + X[2, 3]
    return x, y, z


@compiled
def _slopes(x: float, y: float, z: float, camera: Camera) -> tuple[float, float, bool, bool]:
    """Slopes u, v at which the perspective is linearized.

    The two flags are true if they are the point's own, x / z and y / z.
    """
    K, width, height = camera.K, camera.width, camera.height
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
    """Fill in P = J W and U = P M, where M (3, 3) are a Gaussian's axes."""
    for j in range(3):
        P[0, j] = fx_z * (X[0, j] - u * X[2, j])
        P[1, j] = fy_z * (X[1, j] - v * X[2, j])
    for r in range(2):
        for j in range(3):
            U[r, j] = P[r, 0] * M[0, j] + P[r, 1] * M[1, j] + P[r, 2] * M[2, j]


@compiled
def _rows(ellipse: Array, opacity: float, height: int) -> tuple[int, int, float]:
    """First and last row with a pixel of at least MIN_ALPHA, and twice the sigma at MIN_ALPHA."""
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    reach = max(2 * log(opacity / MIN_ALPHA), 0.0)
    half = sqrt(reach * a / (a * c - b * b)) + MARGIN
    return (
        max(0, ceil(ellipse[1] - half - 0.5)),
        min(height - 1, floor(ellipse[1] + half - 0.5)),
        reach,
    )


@compiled
def _columns(ellipse: Array, dy: float, reach: float, width: int) -> tuple[int, int]:
    """First and last column with a pixel of at least MIN_ALPHA in the row dy below the center."""
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    half = sqrt(max(a * reach - (a * c - b * b) * dy * dy, 0.0)) / a + MARGIN
    middle = ellipse[0] - b * dy / a - 0.5
    return max(0, ceil(middle - half)), min(width - 1, floor(middle + half))


@compiled
def draw(first: int, last: int, given: Inputs, seen: Seen) -> None:
    """Fill in images and alphas of frames `first` to `last`."""
    views, _, height, width, channels = seen.images.shape
    through, final = np.empty((height, width)), np.empty((height, width))
    for t in range(first, last):
        for view in range(views):
            through[:] = 1.0  # light that reaches the next Gaussian; 0 for a complete pixel
            final[:] = -1.0  # light left at a complete pixel; negative before
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
                        alpha = min(MAX_ALPHA, opacity * exp(-sigma))
                        if sigma < 0 or alpha < MIN_ALPHA:
                            continue
                        behind = through[y, x] * (1 - alpha)
                        if behind <= MIN_TRANSMITTANCE:
                            final[y, x], through[y, x] = through[y, x], 0.0
                            continue
                        weight = alpha * through[y, x]
                        through[y, x] = behind
                        for d in range(channels):
                            image[y, x, d] += weight * features[g, d]
            for y in range(height):
                for x in range(width):
                    left_over = final[y, x] if final[y, x] >= 0 else through[y, x]
                    seen.alphas[view, t, y, x] = 1 - left_over


@compiled
def draw_back(
    first: int,
    last: int,
    given: Inputs,
    cameras: Cameras,
    seen: Seen,
    to_images: Array,
    to_alphas: Array,
    to: Inputs,
) -> None:
    """Add the gradients of frames `first` to `last` to `to`."""
    views, _, height, width, channels = seen.images.shape
    through, left_over = np.empty((height, width)), np.empty((height, width))
    to_ellipse, to_feature = np.empty(6), np.empty(channels)
    scratch = Scratch(np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3)))
    for t in range(first, last):
        for view in range(views):
            camera = Camera(cameras.viewmats[view], cameras.Ks[view], width, height)

            # The whole of g . image, from which the Gaussians' parts are subtracted in turn.
            through[:] = 1.0
            for y in range(height):
                for x in range(width):
                    clear = 1 - float(seen.alphas[view, t, y, x])
                    total = -float(to_alphas[view, t, y, x]) * clear
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
                    ellipse,
                    to_ellipse,
                    given.means[t, g],
                    given.axes[t, g],
                    camera,
                    scratch,
                    to.means[t, g],
                    to.axes[t, g],
                )


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
    """Gradients by one ellipse (5) with its opacity, and by its feature (D).

    Args:
        ellipse: (5,) center and inverse covariance.
        opacity: of the Gaussian.
        feature: (D,) of the Gaussian.
        to_image: (H, W, D) gradients by the image.
        through: (H, W) light that reaches this Gaussian, and afterwards the next; 0 for a complete
            pixel.
        left_over: (H, W) S of the module's docstring, less the gradient by alpha times (1 - alpha)
            of the whole pixel; becomes the part behind this Gaussian.
        to_ellipse: (6,) filled in: gradients by the ellipse and the opacity.
        to_feature: (D,) filled in.
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
            # The same decisions as when the Gaussian was drawn.
            if through[y, x] == 0.0:
                continue
            dx = x + 0.5 - ellipse[0]
            sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
            share = exp(-sigma)
            alpha = min(MAX_ALPHA, opacity * share)
            if sigma < 0 or alpha < MIN_ALPHA:
                continue
            behind = through[y, x] * (1 - alpha)
            if behind <= MIN_TRANSMITTANCE:
                through[y, x] = 0.0
                continue

            # Gradients by feature and alpha.
            weight = alpha * through[y, x]
            shown = 0.0
            for d in range(channels):
                gradient = float(to_image[y, x, d])
                shown += gradient * feature[d]
                to_feature[d] += weight * gradient
            left_over[y, x] -= weight * shown
            to_alpha = through[y, x] * shown - left_over[y, x] / (1 - alpha)
            through[y, x] = behind

            # Alpha is constant where it is limited.
            if opacity * share > MAX_ALPHA:
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
    camera: Camera,
    scratch: Scratch,
    to_mean: Array,
    to_M: Array,
) -> None:
    """Add the gradients by one Gaussian's mean (3,) and axes M (3, 3)."""
    X, K = camera.X, camera.K
    U, P, to_U, to_P = scratch.U, scratch.P, scratch.to_U, scratch.to_P

    # Q = S'^-1, so dS' = -Q dQ Q; all symmetric: xx, xy, yy.
    a, b, c = float(ellipse[2]), float(ellipse[3]), float(ellipse[4])
    to_a, half_b, to_c = to_ellipse[2], 0.5 * to_ellipse[3], to_ellipse[4]
    to_xx = -(a * (a * to_a + b * half_b) + b * (a * half_b + b * to_c))
    to_xy = -(a * (b * to_a + c * half_b) + b * (b * half_b + c * to_c))
    to_yy = -(b * (b * to_a + c * half_b) + c * (b * half_b + c * to_c))

    # S' = U U^T and U = P M.
    x, y, z = _local(mean, X)
    u, v, u_own, v_own = _slopes(x, y, z, camera)
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

    # P[0] = fx / z (X[0] - u X[2]) and P[1] = fy / z (X[1] - v X[2]); within the view u = x / z and
    # v = y / z.
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
