"""Depth frames fused into a truncated signed distance on a grid around one object.

Curless and Levoy (SIGGRAPH 1996): every cell near an observed surface averages its distances to it,
positive in front,

    f = sum_i w_i clip(s_i, -b, +t) / sum_i w_i,      s_i = (d_i - z_i) |n_i . r_i|

where d_i is the depth that frame i saw along the cell's ray r_i, z_i the cell's own depth and n_i
the normal of the surface seen, so that s_i is the distance to the tangent plane. Weights fall with
the sensor's error, w ~ |n . r| / z^4, and with depth behind the surface, where the back of a thin
wall begins (Bylow et al., RSS 2013). Cells that were seen through are outside.

The grid is dense, unlike Open3D's hashed one, because the unseen cells matter as much: the winding
number of the seen surface decides whether they are solid. The tangent plane and the interpolation
of depths between pixels reduce the median error on a box, seen by six views of 320 x 240 without
noise, from Open3D's 1.0 mm to 0.1 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flowplan.geometry import inverse, transform
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.depth.segment import SUPPORT, UNKNOWN
from flowplan.scan.meshes.winding import observed_jumps, winding_field
from flowplan.utils.checks import FloatArray

FINE = 3
"""Enlargement of the depth images, so that a lookup of the nearest pixel nearly interpolates."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells in a box.

    Attributes:
        X_world_grid: (4, 4); the grid frame's z is the support's normal, z = 0 the support.
        lower: (3,) center of cell (0, 0, 0) in the grid frame, meters.
        shape: cells along each axis.
        voxel: cell size, meters.
    """

    X_world_grid: FloatArray
    lower: FloatArray
    shape: tuple[int, int, int]
    voxel: float


@dataclass(frozen=True, eq=False)
class View:
    """One frame, enlarged for lookups.

    Attributes:
        depth: (H', W') meters; 0 if unknown.
        slope: (H', W') |n . r|, from the seen normal n and the ray r = K^-1 [u, v, 1].
        weight: (H', W') weight of the pixel.
        label: (H', W') label of the object seen.
        intrinsics: (3, 3) of the enlarged image.
        X_world_camera: (4, 4).
    """

    depth: NDArray[np.float32]
    slope: NDArray[np.float32]
    weight: NDArray[np.float32]
    label: NDArray[np.int32]
    intrinsics: FloatArray
    X_world_camera: FloatArray


def view(frame: DepthFrame, label: NDArray[np.int32], edge_jump: float) -> View:
    """A frame enlarged for lookups.

    Away from depth edges the inverse depth is interpolated: it is linear in the image of a plane.

    Args:
        frame: the frame.
        label: (H, W) label of each pixel.
        edge_jump: depth difference between neighboring pixels that counts as an edge, meters.
    """
    depth = np.where(label == UNKNOWN, 0, frame.depth).astype(np.float32)
    slope = _slopes(frame, depth, edge_jump)
    # The sensor's error grows with the depth and at grazing angles.
    confidence = 1.0 if frame.confidence is None else frame.confidence
    weight = np.minimum(slope, 1) * confidence / np.maximum(depth, 0.1) ** 4
    weight = weight.astype(np.float32)
    # The first pixel's center lies amid its FINE x FINE copies.
    K = frame.intrinsics.copy()
    K[:2] *= FINE
    K[:2, 2] += 0.5 * (FINE - 1)
    fine = np.ones((FINE, FINE), np.int8)
    return View(
        _enlarge(depth, np.kron(depth, fine), edge_jump),
        np.kron(slope, fine),
        np.kron(weight, fine),
        np.kron(label, fine),
        K,
        frame.X_world_camera,
    )


def _enlarge(
    depth: NDArray[np.float32], nearest: NDArray[np.float32], edge_jump: float
) -> NDArray[np.float32]:
    """Depth (H', W') interpolated bilinearly in the inverse depth, within one surface.

    If the four pixels around differ by a jump or one has no return, the nearest pixel is taken.
    """
    height, width = depth.shape
    # Position of the fine pixels in the coarse image: integer part and fraction.
    row, a = _coarse_position(height)
    column, b = _coarse_position(width)
    a = a[:, None]
    # The four pixels around see one surface (H - 1, W - 1).
    upper, lower = depth[:-1], depth[1:]
    corners = np.stack([upper[:, :-1], upper[:, 1:], lower[:, :-1], lower[:, 1:]])
    together = _one_surface(corners, edge_jump)
    # Interpolation between rows, then between columns.
    inverse_depth = 1 / np.where(depth > 0, depth, np.float32(1e-3))
    rows = (1 - a) * inverse_depth[row] + a * inverse_depth[row + 1]  # (H', W)
    smooth = 1 / ((1 - b) * rows[:, column] + b * rows[:, column + 1])  # (H', W')
    return np.where(together[row][:, column], smooth, nearest)


def _one_surface(depths: NDArray[np.float32], jump: float) -> NDArray[np.bool_]:
    """Pixels (...,) whose depths (N, ...) all returned and differ by less than `jump`."""
    return (depths.min(0) > 0) & (np.ptp(depths, axis=0) < jump)


def _coarse_position(size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Position of the FINE * size fine pixels along an axis of `size` coarse ones.

    Returns:
        The coarse pixel before each, and the fraction of the way to the next one.
    """
    at = np.clip((np.arange(size * FINE) - 0.5 * (FINE - 1)) / FINE, 0, size - 1)
    before = np.minimum(at.astype(int), size - 2)
    return before, (at - before).astype(np.float32)


def _slopes(frame: DepthFrame, depth: NDArray[np.float32], edge_jump: float) -> NDArray[np.float32]:
    """|n . r| (H, W), with normals from differences two pixels to either side.

    The slope is 0.5 if the surface is too small for that.
    """
    rays = frame.rays
    points = depth[..., None] * rays  # (H, W, 3) camera frame
    slope = np.full(depth.shape, 0.5, np.float32)
    # Views of the pixels in the middle and of those two to the left, right, above and below.
    reach = 2
    middle = slice(reach, -reach)
    before = slice(None, -2 * reach)
    after = slice(2 * reach, None)
    left, right = (middle, before), (middle, after)
    above, below = (before, middle), (after, middle)
    # Normals, and the cosine between them and the rays.
    du = points[right] - points[left]
    dv = points[below] - points[above]
    normal = np.cross(du, dv)  # not unit
    length = np.maximum(np.linalg.norm(normal, axis=-1), 1e-12)
    cosine = np.abs((normal * rays[middle, middle]).sum(-1)) / length
    # All four pixels must see the same surface.
    around = np.stack([depth[right], depth[left], depth[below], depth[above]])
    sure = _one_surface(around, 2 * edge_jump)
    slope[middle, middle] = np.where(sure, np.clip(cosine, 0.15, 1.0), 0.5)
    return slope


def fuse(
    views: Sequence[View],
    grid: Grid,
    label: int,
    *,
    front: float,
    behind: float,
    union_with_support: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Signed distance of one object at every cell.

    Args:
        views: from `view`.
        grid: the cells.
        label: the object's.
        front, behind: truncation before and behind the surface, meters.
        union_with_support: count the support's surface as the object's too, because their border is
            not known to the pixel.

    Returns:
        f: (nx, ny, nz) meters, negative inside, in [-behind, front]; zero in unseen cells.
        seen: (nx, ny, nz) cells that were seen.
    """
    total = np.zeros(grid.shape, np.float32)
    weights = np.zeros(grid.shape, np.float32)
    for one in views:
        cell_depth, pixel, inside_image = _project(one, grid)
        # Distance s to the tangent plane of the surface seen by the cell's pixel.
        distance = one.depth.ravel()[pixel]
        s = (distance - cell_depth) * one.slope.ravel()[pixel]
        seen_label = one.label.ravel()[pixel]
        own = seen_label == label
        if union_with_support:
            own |= seen_label == SUPPORT
        # The surface of another object is outside this one, like the air in front of it.
        s = np.where(own | (s <= -behind), s, np.maximum(s, grid.voxel))
        # Weights fall to zero behind the surface.
        fade = np.clip(1 + s / behind, 0, 1)
        weight = one.weight.ravel()[pixel] * fade * (inside_image & (distance > 0))
        total += weight * np.clip(s, -behind, front)
        weights += weight
    seen = weights > 0.02 * max(float(weights.max(initial=0.0)), 1e-12)
    f = np.where(seen, total / np.where(seen, weights, 1), 0)
    return f.astype(np.float32), seen


def _project(
    one: View, grid: Grid
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Projection of every cell into a view.

    Returns:
        z: (nx, ny, nz) depth, meters.
        pixel: (nx, ny, nz) flat index of the pixel; 0 outside the image.
        inside: (nx, ny, nz) cells that project into the image.
    """
    X_camera_grid = inverse(one.X_world_camera) @ grid.X_world_grid
    K = one.intrinsics.copy()
    K[:2, 2] += 0.5  # so that truncation finds the nearest pixel
    # (u z, v z, z) is affine in the cell's index, with one column per grid axis.
    axes = (K @ X_camera_grid[:3, :3] * grid.voxel).astype(np.float32)
    start = (K @ transform(X_camera_grid, grid.lower[None])[0]).astype(np.float32)
    uz, vz, z = (_affine(start[r], axes[r], grid.shape) for r in range(3))
    height, width = one.depth.shape
    # Cells behind the camera get the depth infinity.
    ahead = np.where(z > 1e-3, z, np.float32(np.inf))
    u, v = uz / ahead, vz / ahead
    inside = (z > 1e-3) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    row = np.where(inside, v, 0).astype(np.int64)
    column = np.where(inside, u, 0).astype(np.int64)
    pixel = row * width + column
    return z, pixel, inside


def _affine(
    start: np.float32, slopes: NDArray[np.float32], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Values (nx, ny, nz) of start + slopes . (i, j, k) at every cell."""
    i, j, k = (np.arange(n, dtype=np.float32) for n in shape)
    x = (start + slopes[0] * i)[:, None, None]
    y = (slopes[1] * j)[:, None]
    z = slopes[2] * k
    return x + y + z


def complete(
    f: NDArray[np.float32], seen: NDArray[np.bool_], *, behind: float, on_support: bool
) -> NDArray[np.float32]:
    """f (nx, ny, nz) with unseen cells filled in from the winding number chi of the seen surface.

    An unseen cell gets (1 - 2 chi) times `behind`.
    """
    jumps = observed_jumps(f < 0, seen)
    chi = winding_field(jumps, mirror_bottom=on_support)
    guess = behind * np.clip(1 - 2 * chi, -1, 1)
    return np.where(seen, f, guess).astype(np.float32)


def close_to_support(
    f: NDArray[np.float32], seen: NDArray[np.bool_], *, layers: int, behind: float
) -> NDArray[np.float32]:
    """`complete` for an object whose border to the support is not known to the pixel.

    In the lowest layers, height cannot tell the object's side from the support, so they repeat the
    first layer above them, except for cells that were seen to be air. Columns of air that the
    object surrounds, such as a bowl's inside, end on whatever was seen in them: the bowl's floor,
    or the support in the middle of a ring.

    Args:
        f, seen: from `fuse`, the union with the support.
        layers: number of layers that height cannot tell apart.
        behind: truncation behind the surface, meters.
    """
    low = np.s_[:, :, :layers]
    # Columns (nx, ny, 1) of air that the object surrounds, in the first layer above the low ones.
    air = seen[:, :, layers] & (f[:, :, layers] > 0)
    surrounded = ndimage.binary_fill_holes(~air) & air
    surrounded = surrounded[:, :, None]
    # In the low layers only air and surrounded columns are certain.
    sure = seen.copy()
    sure[low] &= (f[low] > 0) | surrounded
    out = complete(f, sure, behind=behind, on_support=True)
    # Elsewhere they repeat the layer above them.
    base = out[:, :, layers, None]
    repeated = np.where(sure[low], np.maximum(out[low], base), base)
    out[low] = np.where(surrounded, out[low], repeated)
    return out
