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
    confidence = 1.0 if frame.confidence is None else frame.confidence
    weight = (np.minimum(slope, 1) * confidence / np.maximum(depth, 0.1) ** 4).astype(np.float32)
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
    at_row = np.clip((np.arange(height * FINE) - 0.5 * (FINE - 1)) / FINE, 0, height - 1)
    at_column = np.clip((np.arange(width * FINE) - 0.5 * (FINE - 1)) / FINE, 0, width - 1)
    row = np.minimum(at_row.astype(int), height - 2)
    column = np.minimum(at_column.astype(int), width - 2)
    a = (at_row - row).astype(np.float32)[:, None]
    b = (at_column - column).astype(np.float32)
    # Four pixels that see one surface.
    corners = np.stack([depth[:-1, :-1], depth[:-1, 1:], depth[1:, :-1], depth[1:, 1:]])
    together = (corners.min(0) > 0) & (np.ptp(corners, axis=0) < edge_jump)
    # Interpolation along the columns, then along the rows.
    inverse_depth = 1 / np.where(depth > 0, depth, np.float32(1e-3))
    rows = (1 - a) * inverse_depth[row] + a * inverse_depth[row + 1]
    smooth = 1 / ((1 - b) * rows[:, column] + b * rows[:, column + 1])
    return np.where(together[row][:, column], smooth, nearest)


def _slopes(frame: DepthFrame, depth: NDArray[np.float32], edge_jump: float) -> NDArray[np.float32]:
    """|n . r| (H, W), with normals from differences two pixels to either side.

    The slope is 0.5 if the surface is too small for that.
    """
    rays = frame.rays
    points = depth[..., None] * rays
    slope = np.full(depth.shape, 0.5, np.float32)
    reach = 2
    near, far = slice(None, -2 * reach), slice(2 * reach, None)
    middle = slice(reach, -reach)
    du = points[middle, far] - points[middle, near]
    dv = points[far, middle] - points[near, middle]
    normal = np.cross(du, dv)  # not unit
    length = np.maximum(np.linalg.norm(normal, axis=-1), 1e-12)
    cosine = np.abs((normal * rays[middle, middle]).sum(-1)) / length
    # All four pixels must see the same surface.
    around = np.stack(
        [depth[middle, far], depth[middle, near], depth[far, middle], depth[near, middle]]
    )
    sure = (around.min(0) > 0) & (np.ptp(around, axis=0) < 2 * edge_jump)
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
    i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
    uz, vz, z = (
        (start[r] + axes[r, 0] * i)[:, None, None] + (axes[r, 1] * j)[:, None] + axes[r, 2] * k
        for r in range(3)
    )
    height, width = one.depth.shape
    ahead = np.where(z > 1e-3, z, np.float32(np.inf))
    u, v = uz / ahead, vz / ahead
    inside = (z > 1e-3) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    row = np.where(inside, v, 0).astype(np.int64)
    column = np.where(inside, u, 0).astype(np.int64)
    pixel = row * width + column
    return z, pixel, inside


def complete(
    f: NDArray[np.float32], seen: NDArray[np.bool_], *, behind: float, on_support: bool
) -> NDArray[np.float32]:
    """f (nx, ny, nz) with unseen cells filled in from the winding number chi of the seen surface.

    An unseen cell gets (1 - 2 chi) times `behind`.
    """
    chi = winding_field(observed_jumps(f < 0, seen), mirror_bottom=on_support)
    return np.where(seen, f, behind * np.clip(1 - 2 * chi, -1, 1)).astype(np.float32)


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
    # Columns (nx, ny, 1) of air that the object surrounds.
    air = seen[:, :, layers] & (f[:, :, layers] > 0)
    surrounded = (ndimage.binary_fill_holes(~air) & air)[:, :, None]
    # In the low layers only air and surrounded columns are certain.
    sure = seen.copy()
    sure[:, :, :layers] &= (f[:, :, :layers] > 0) | surrounded
    out = complete(f, sure, behind=behind, on_support=True)
    # Elsewhere they repeat the layer above them.
    low, base = out[:, :, :layers], out[:, :, layers, None]
    repeated = np.where(sure[:, :, :layers], np.maximum(low, base), base)
    out[:, :, :layers] = np.where(surrounded, low, repeated)
    return out
