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
    ground = points[:, :2]  # (P, 2)
    lower = ground.min(0) - 3 * cell
    nx, ny = np.ceil((ground.max(0) - lower) / cell).astype(int) + 3
    shape = (int(nx), int(ny))
    # The sheet is the largest connected region of cells that are mostly its own.
    share = _share(points, others, lower, cell, shape)
    own = ndimage.binary_fill_holes(share >= 0.5)
    label, count = ndimage.label(own)
    if count == 0:
        return trimesh.Trimesh()
    cells = np.bincount(label.ravel())[1:]
    filled = label == 1 + np.argmax(cells)
    heights = _heights(points, filled, lower, cell)
    # Holes that were filled count as the sheet's own.
    share = np.where(filled, np.maximum(share, 0.5), share)
    return _mesh(heights, filled, share, lower, cell)


def _share(
    points: FloatArray, others: FloatArray, lower: FloatArray, cell: float, shape: tuple[int, int]
) -> FloatArray:
    """Share (nx, ny) of each cell's points that belong to the sheet; 0 in cells without points."""
    own = _blurred_counts(points, lower, cell, shape)
    other = _blurred_counts(others, lower, cell, shape)
    return own / np.maximum(own + other, 1e-3)


def _blurred_counts(
    points: FloatArray, lower: FloatArray, cell: float, shape: tuple[int, int]
) -> FloatArray:
    """Number (nx, ny) of points in each cell, blurred by about one cell."""
    index = np.floor((points[:, :2] - lower) / cell).astype(int)
    inside = ((index >= 0) & (index < shape)).all(1)
    i, j = index[inside].T
    counts = np.bincount(i * shape[1] + j, minlength=shape[0] * shape[1])
    return ndimage.gaussian_filter(counts.reshape(shape).astype(float), 0.7)


def _heights(
    points: FloatArray, filled: NDArray[np.bool_], lower: FloatArray, cell: float
) -> FloatArray:
    """Median height (nx, ny) of each cell's points, blurred over the filled cells.

    The blur has a standard deviation of 1.5 cells; holes take their neighbors' heights.
    """
    i, j = np.floor((points[:, :2] - lower) / cell).astype(int).T
    flat = i * filled.shape[1] + j
    # Sort points by cell and then by height: the median is amid each cell's points.
    order = np.lexsort((points[:, 2], flat))
    cells, first, count = np.unique(flat[order], return_index=True, return_counts=True)
    z = points[order, 2]
    below = z[first + (count - 1) // 2]
    above = z[first + count // 2]
    median = 0.5 * (below + above)
    # Blur heights weighted by the number of points, and divide by the blurred weights.
    total, weight = np.zeros(filled.size), np.zeros(filled.size)
    total[cells] = count * median
    weight[cells] = count
    total = _blurred_inside(total, filled)
    weight = _blurred_inside(weight, filled)
    return total / np.maximum(weight, 1e-12)


def _blurred_inside(values: FloatArray, filled: NDArray[np.bool_]) -> FloatArray:
    """Values (nx ny,) of the filled cells, blurred by one and a half cells; 0 in all others."""
    inside = (values * filled.ravel()).reshape(filled.shape)
    return ndimage.gaussian_filter(inside, 1.5, truncate=6)


def _mesh(
    heights: FloatArray,
    filled: NDArray[np.bool_],
    share: FloatArray,
    lower: FloatArray,
    cell: float,
) -> trimesh.Trimesh:
    """The mesh of the filled cells, corners on the border moved to a share of one half."""
    faces = _two_triangles(filled)
    # Share, fill and height at the corners of the cells (nx + 1, ny + 1).
    corner_share = _corner_mean(share, np.ones_like(share))
    corner_filled = _corner_mean(filled.astype(float), np.ones_like(share))
    corner_height = _corner_mean(heights, filled.astype(float))
    # Only corners on the border move.
    on_border = (corner_filled > 0) & (corner_filled < 1)
    step = _border_step(corner_share, on_border)
    corners = np.moveaxis(np.indices(corner_share.shape), 0, -1).reshape(-1, 2)
    moved = _without_flips(corners.astype(float), step.reshape(-1, 2), faces)
    vertices = np.column_stack([lower + cell * moved, corner_height.ravel()])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return submesh(mesh, np.ones(len(mesh.faces), bool))


def _two_triangles(filled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Two triangles (F, 3) per filled cell, over corners numbered by rows of ny + 1.

    Diagonals alternate, so that the mesh bends alike in both directions.
    """
    i, j = np.nonzero(filled)
    columns = filled.shape[1] + 1
    # The four corners of each cell.
    a = i * columns + j
    b = (i + 1) * columns + j
    c = b + 1
    d = a + 1
    even = ((i + j) % 2 == 0)[:, None]
    first = np.where(even, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(even, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.concatenate([first, second])


def _border_step(share: FloatArray, on_border: NDArray[np.bool_]) -> FloatArray:
    """Newton step (nx + 1, ny + 1, 2) from each corner to a share of one half, in cells.

    The step follows the gradient of the share, by at most 0.7 cells.
    """
    gradient = (np.gradient(share, axis=0), np.gradient(share, axis=1))
    slope = np.stack(gradient, axis=-1)
    steepness = np.maximum((slope**2).sum(-1, keepdims=True), 0.01)
    step = (0.5 - share)[..., None] * slope / steepness
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    shortening = np.minimum(1, 0.7 / np.maximum(length, 1e-9))
    return step * (shortening * on_border[..., None])


def _without_flips(corners: FloatArray, step: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """Corners (C, 2) moved by their steps, which are halved while a triangle flips or collapses.

    Corners are in cells; a triangle must keep a doubled area of 0.1.
    """
    for _ in range(10):
        a, b, c = np.moveaxis((corners + step)[faces], 1, 0)
        ab, ac = b - a, c - a  # (F, 2)
        area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
        if area.min() > 0.1:
            break
        step[faces[area <= 0.1]] *= 0.5
    return corners + step


def _corner_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted means (nx + 1, ny + 1) of the four cells (nx, ny) around each corner."""
    total = _corner_sum(values * weights)
    weight = _corner_sum(weights)
    return total / np.maximum(weight, 1e-12)


def _corner_sum(values: FloatArray) -> FloatArray:
    """Sums (nx + 1, ny + 1) of the four cells (nx, ny) around each corner."""
    a = np.pad(values, 1)
    return a[:-1, :-1] + a[1:, :-1] + a[:-1, 1:] + a[1:, 1:]
