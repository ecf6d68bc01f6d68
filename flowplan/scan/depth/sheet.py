"""A cloth, a towel, a sheet of paper: something so flat on its support that only its upper side can be seen.

Depth noise is as large as the thing is thick, so a signed distance cannot hold it. Its mesh is a height field over the
support instead, one layer and open: every cell holds the median height of the points that fell in it, and the border
lies where the points of the sheet and those of its surroundings are equally many.
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
        points: (P, 3) on the sheet, in the support's frame (z is the height), metres.
        others: (Q, 3) what was seen beside it, which decides where it ends.
        cell: side of a grid cell, metres.

    Returns:
        A mesh in the support's frame, without faces if the sheet fills no cell.
    """
    lower = points[:, :2].min(0) - 3 * cell
    size = np.ceil((points[:, :2].max(0) - lower) / cell).astype(int) + 3
    shape = (int(size[0]), int(size[1]))
    share = _share(points, others, lower, cell, shape)
    label, count = ndimage.label(ndimage.binary_fill_holes(share >= 0.5))
    if count == 0:
        return trimesh.Trimesh()
    filled = label == 1 + np.argmax(np.bincount(label.ravel())[1:])
    heights = _heights(points, filled, lower, cell)
    return _mesh(heights, filled, np.where(filled, np.maximum(share, 0.5), share), lower, cell)


def _share(
    points: FloatArray, others: FloatArray, lower: FloatArray, cell: float, shape: tuple[int, int]
) -> FloatArray:
    """(nx, ny) share of a cell's points that belong to the sheet, blurred by one cell; 0 where nothing was seen."""
    counts = []
    for cloud in (points, others):
        index = np.floor((cloud[:, :2] - lower) / cell).astype(int)
        index = index[((index >= 0) & (index < shape)).all(1)]
        flat = np.bincount(index[:, 0] * shape[1] + index[:, 1], minlength=shape[0] * shape[1])
        counts.append(ndimage.gaussian_filter(flat.reshape(shape).astype(float), 0.7))
    return counts[0] / np.maximum(counts[0] + counts[1], 1e-3)


def _heights(
    points: FloatArray, filled: NDArray[np.bool_], lower: FloatArray, cell: float
) -> FloatArray:
    """(nx, ny) median height a cell, blurred over the filled cells by one and a half; holes take their neighbours'."""
    index = np.floor((points[:, :2] - lower) / cell).astype(int)
    flat = index[:, 0] * filled.shape[1] + index[:, 1]
    order = np.lexsort((points[:, 2], flat))
    cells, first, count = np.unique(flat[order], return_index=True, return_counts=True)
    z = points[order, 2]
    median = 0.5 * (z[first + (count - 1) // 2] + z[first + count // 2])
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
    """Two triangles a filled cell; corners on the border are moved to where the share is one half."""
    i, j = np.nonzero(filled)
    columns = filled.shape[1] + 1
    a, b = i * columns + j, (i + 1) * columns + j
    # Alternating diagonals, so that the mesh bends alike in both directions.
    even = ((i + j) % 2 == 0)[:, None]
    first = np.where(even, np.stack([a, b, b + 1], 1), np.stack([a, b, a + 1], 1))
    second = np.where(even, np.stack([a, b + 1, a + 1], 1), np.stack([b, b + 1, a + 1], 1))
    corner_share = _corner_mean(share, np.ones_like(share))
    corner_filled = _corner_mean(filled.astype(float), np.ones_like(share))
    corner_height = _corner_mean(heights, filled.astype(float))
    slope = np.stack(
        [np.gradient(corner_share, axis=0), np.gradient(corner_share, axis=1)], axis=-1
    )
    step = (
        (0.5 - corner_share)[..., None]
        * slope
        / np.maximum((slope**2).sum(-1, keepdims=True), 0.01)
    )
    length = np.linalg.norm(step, axis=-1, keepdims=True)
    step *= (
        np.minimum(1, 0.7 / np.maximum(length, 1e-9))
        * ((corner_filled > 0) & (corner_filled < 1))[..., None]
    )
    faces = np.concatenate([first, second])
    corners = np.moveaxis(np.indices(corner_share.shape), 0, -1).reshape(-1, 2)
    moved = _without_flips(corners.astype(float), step.reshape(-1, 2), faces)
    vertices = np.column_stack([lower + cell * moved, corner_height.ravel()])
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return submesh(mesh, np.ones(len(mesh.faces), bool))


def _without_flips(corners: FloatArray, step: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """Corners (C, 2) moved by their steps, halved until no triangle is left with less than a tenth of its area."""
    for _ in range(10):
        a, b, c = np.moveaxis((corners + step)[faces], 1, 0)
        area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        if area.min() > 0.1:
            break
        step[faces[area <= 0.1]] *= 0.5
    return corners + step


def _corner_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of the four cells around each corner (nx + 1, ny + 1)."""
    total, weight = (np.pad(a, 1) for a in (values * weights, weights))
    total, weight = (a[:-1, :-1] + a[1:, :-1] + a[:-1, 1:] + a[1:, 1:] for a in (total, weight))
    return total / np.maximum(weight, 1e-12)
