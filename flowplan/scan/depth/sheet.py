"""Sheets: a cloth, a towel, paper, so flat on the support that only the upper side can be seen.

Depth noise is as large as a sheet is thick, so a signed distance cannot represent it. Its mesh is
an open height field over the support instead: each cell holds the median height of its points, and
the border lies where points of the sheet and points of its surroundings are equally many.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage

from flowplan.scan.meshes.surface import submesh
from flowplan.utils.checks import FloatArray


def sheet_surface(points: FloatArray, others: FloatArray, cell: float) -> trimesh.Trimesh:
    """The height field of a sheet, facing up.

    Args:
        points: (P, 3) on the sheet, support frame (z is the height), meters.
        others: (Q, 3) points beside it, support frame; they determine its border.
        cell: side of a grid cell, meters.

    Returns:
        A mesh in the support's frame, without faces if the sheet fills no cell.
    """
    # A grid over the sheet with a margin of three cells.
    lower = points[:, :2].min(0) - 3 * cell
    size = np.ceil((points[:, :2].max(0) - lower) / cell).astype(int) + 3
    shape = (int(size[0]), int(size[1]))
    # The sheet is the largest connected region of cells that are mostly its own.
    share = _share(points, others, lower, cell, shape)
    label, count = ndimage.label(ndimage.binary_fill_holes(share >= 0.5))
    if count == 0:
        return trimesh.Trimesh()
    filled = label == 1 + np.argmax(np.bincount(label.ravel())[1:])
    heights = _heights(points, filled, lower, cell)
    # Holes that were filled count as the sheet's own.
    share = np.where(filled, np.maximum(share, 0.5), share)
    return _mesh(heights, filled, share, lower, cell)


def _share(
    points: FloatArray, others: FloatArray, lower: FloatArray, cell: float, shape: tuple[int, int]
) -> FloatArray:
    """Share (nx, ny) of each cell's points that belong to the sheet; 0 in cells without points.

    Counts are blurred by about one cell.
    """
    counts = []
    for cloud in (points, others):
        index = np.floor((cloud[:, :2] - lower) / cell).astype(int)
        index = index[((index >= 0) & (index < shape)).all(1)]  # inside the grid
        flat = np.bincount(index[:, 0] * shape[1] + index[:, 1], minlength=shape[0] * shape[1])
        counts.append(ndimage.gaussian_filter(flat.reshape(shape).astype(float), 0.7))
    return counts[0] / np.maximum(counts[0] + counts[1], 1e-3)


def _heights(
    points: FloatArray, filled: NDArray[np.bool_], lower: FloatArray, cell: float
) -> FloatArray:
    """Median height (nx, ny) of each cell's points, blurred over the filled cells.

    The blur has a standard deviation of 1.5 cells; holes take their neighbors' heights.
    """
    index = np.floor((points[:, :2] - lower) / cell).astype(int)
    flat = index[:, 0] * filled.shape[1] + index[:, 1]
    # Sort points by cell and then by height: the median is amid each cell's points.
    order = np.lexsort((points[:, 2], flat))
    cells, first, count = np.unique(flat[order], return_index=True, return_counts=True)
    z = points[order, 2]
    median = 0.5 * (z[first + (count - 1) // 2] + z[first + count // 2])
    # Blur heights weighted by the number of points, and divide by the blurred weights.
    total, weight = np.zeros(filled.size), np.zeros(filled.size)
    total[cells], weight[cells] = count * median, count
    inside = filled.ravel()
    total, weight = (
        ndimage.gaussian_filter((a * inside).reshape(filled.shape), 1.5, truncate=6)
        for a in (total, weight)
    )
    return total / np.maximum(weight, 1e-12)


def _mesh(
    heights: FloatArray,
    filled: NDArray[np.bool_],
    share: FloatArray,
    lower: FloatArray,
    cell: float,
) -> trimesh.Trimesh:
    """Two triangles per filled cell, corners on the border moved to a share of one half."""
    i, j = np.nonzero(filled)
    columns = filled.shape[1] + 1
    a, b = i * columns + j, (i + 1) * columns + j
    # Diagonals alternate, so that the mesh bends alike in both directions.
    even = ((i + j) % 2 == 0)[:, None]
    first = np.where(even, np.stack([a, b, b + 1], 1), np.stack([a, b, a + 1], 1))
    second = np.where(even, np.stack([a, b + 1, a + 1], 1), np.stack([b, b + 1, a + 1], 1))
    faces = np.concatenate([first, second])
    # Share, fill and height at the corners of the cells (nx + 1, ny + 1).
    corner_share = _corner_mean(share, np.ones_like(share))
    corner_filled = _corner_mean(filled.astype(float), np.ones_like(share))
    corner_height = _corner_mean(heights, filled.astype(float))
    # A Newton step along the gradient of the share to where it is one half, at most 0.7 cells, at
    # corners on the border only.
    gradient = (np.gradient(corner_share, axis=0), np.gradient(corner_share, axis=1))
    slope = np.stack(gradient, axis=-1)
    steepness = np.maximum((slope**2).sum(-1, keepdims=True), 0.01)
    step = (0.5 - corner_share)[..., None] * slope / steepness
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    on_border = ((corner_filled > 0) & (corner_filled < 1))[..., None]
    step *= np.minimum(1, 0.7 / np.maximum(length, 1e-9)) * on_border
    corners = np.moveaxis(np.indices(corner_share.shape), 0, -1).reshape(-1, 2)
    moved = _without_flips(corners.astype(float), step.reshape(-1, 2), faces)
    vertices = np.column_stack([lower + cell * moved, corner_height.ravel()])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return submesh(mesh, np.ones(len(mesh.faces), bool))


def _without_flips(corners: FloatArray, step: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """Corners (C, 2) moved by their steps, which are halved while a triangle flips or collapses.

    Corners are in cells; a triangle must keep a doubled area of 0.1.
    """
    for _ in range(10):
        a, b, c = np.moveaxis((corners + step)[faces], 1, 0)
        area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        if area.min() > 0.1:
            break
        step[faces[area <= 0.1]] *= 0.5
    return corners + step


def _corner_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted means (nx + 1, ny + 1) of the four cells (nx, ny) around each corner."""
    total, weight = (np.pad(a, 1) for a in (values * weights, weights))
    total, weight = (a[:-1, :-1] + a[1:, :-1] + a[:-1, 1:] + a[1:, 1:] for a in (total, weight))
    return total / np.maximum(weight, 1e-12)
