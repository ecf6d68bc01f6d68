"""Polygons of mesh files in triangles, where a fan from the first corner would be wrong.

Readers cut a polygon into a fan, which covers area outside of it if it is not convex (the end of a
U-shaped bracket). Such polygons are cut by ear clipping (Meisters 1975): a corner is cut off if it
is convex and no other corner lies in its triangle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray

MOST_CORNERS = 2000
"""Polygons of more corners that are not convex are refused: ear clipping takes cubic time."""
_VERTEX = re.compile(rb"^[ \t]*v[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", re.MULTILINE)
_POLYGON = re.compile(rb"^[ \t]*f((?:[ \t]+[^\s#]+){4,})[ \t]*(?:#.*)?\r?$", re.MULTILINE)


def triangulated_obj(path: Path) -> bytes | None:
    """The contents of an .obj file with its non-convex polygons in triangles; None without any.

    Raises:
        ValueError: as `triangles_of`.
    """
    data = path.read_bytes().replace(b"\\\r\n", b"").replace(b"\\\n", b"")
    found = list(_POLYGON.finditer(data))
    if not found:
        return None
    # Vertices, and how many precede each polygon, for indices that count backward.
    starts = [m.start() for m in _VERTEX.finditer(data)]
    before = np.searchsorted(starts, [m.start() for m in found])
    try:
        vertices = np.array([m.group(1, 2, 3) for m in _VERTEX.finditer(data)], float)
        numbers = [[int(c.split(b"/", 1)[0]) for c in m[1].split()] for m in found]
    except ValueError:  # no numbers: the reader of the file says so
        return None
    polygons = [
        [n - 1 if n > 0 else int(first) + n for n in corners]
        for corners, first in zip(numbers, before, strict=True)
    ]
    # The file with each polygon in question replaced by its triangles.
    pieces, end = [], 0
    for i, triangles in _triangulated(vertices, polygons).items():
        corner = found[i][1].split()
        pieces.append(data[end : found[i].start()])
        pieces.append(b"\n".join(b"f " + b" ".join(corner[j] for j in t) for t in triangles))
        end = found[i].end()
    return b"".join([*pieces, data[end:]]) if pieces else None


def triangulated_ply(raw: Any) -> trimesh.Trimesh | None:
    """The mesh of a .ply file with its non-convex polygons in triangles; None without any.

    Args:
        raw: the file's elements as trimesh keeps them.
    """
    polygons = _ply_polygons(raw)
    if len(polygons) == 0 or (isinstance(polygons, np.ndarray) and polygons.shape[1:] == (3,)):
        return None
    table = raw["vertex"]["data"]
    vertices = np.stack([np.ravel(table[axis]).astype(float) for axis in "xyz"], axis=-1)
    indices = [np.asarray(p, np.int64).tolist() for p in polygons]
    cut = _triangulated(vertices, indices)
    if not cut:
        return None
    faces = []
    for i, index in enumerate(indices):
        fan = [(0, k, k + 1) for k in range(1, len(index) - 1)]
        faces += [[index[k] for k in t] for t in cut.get(i, fan)]
    return trimesh.Trimesh(vertices, np.array(faces), process=False)


def _ply_polygons(raw: Any) -> Any:
    """Corner indices of every face in the elements of a .ply file."""
    data = raw.get("face", {}).get("data") if isinstance(raw, dict) else None
    names = ("vertex_indices", "vertex_index")
    if isinstance(data, dict):
        return next((data[n] for n in names if n in data), [])
    if isinstance(data, np.ndarray) and data.dtype.names:
        name = next((n for n in names if n in data.dtype.names), data.dtype.names[0])
        return data[name]["f1"] if data[name].dtype.names else []
    return data if isinstance(data, np.ndarray) and data.ndim == 2 else []


def _triangulated(
    vertices: FloatArray, polygons: Sequence[Sequence[int]]
) -> dict[int, list[tuple[int, int, int]]]:
    """Triangles, as places in the polygon, of each polygon that a fan would misread."""
    by_corners: dict[int, list[int]] = {}
    for i, polygon in enumerate(polygons):
        if len(polygon) > 3 and min(polygon) >= 0 and max(polygon) < len(vertices):
            by_corners.setdefault(len(polygon), []).append(i)
    wrong: list[int] = []
    for members in by_corners.values():
        corners = vertices[[polygons[i] for i in members]]  # (n, K, 3)
        wrong += [members[k] for k in np.flatnonzero(~_is_fan(corners))]
    return {i: triangles_of(vertices[polygons[i]]) for i in sorted(wrong)}


def _is_fan(corners: FloatArray) -> NDArray[np.bool_]:
    """True for polygons (n, K, 3) whose triangles from the first corner all face one way."""
    offsets = corners - corners[:, :1]
    fan = np.cross(offsets[:, 1:-1], offsets[:, 2:])  # (n, K - 2, 3) twice each triangle's area
    normal = fan.sum(1, keepdims=True)
    square = (normal**2).sum(-1)  # (n, 1)
    return ((fan * normal).sum(-1) >= -1e-9 * square).all(-1)


def triangles_of(corners: FloatArray) -> list[tuple[int, int, int]]:
    """Triangles of a polygon of corners (K, 3) that does not cross itself.

    Raises:
        ValueError: for a polygon of very many corners.
    """
    if len(corners) > MOST_CORNERS:
        raise ValueError(
            f"a face of {len(corners)} corners is not convex; triangulate it before exporting"
        )
    # Corners in the plane of the polygon.
    offsets = corners - corners[0]
    normal = np.cross(offsets[1:-1], offsets[2:]).sum(0)
    z = normal / np.linalg.norm(normal)
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x /= np.linalg.norm(x)
    return _clipped(np.stack([offsets @ x, offsets @ np.cross(z, x)], axis=-1))


def _clipped(points: FloatArray) -> list[tuple[int, int, int]]:
    """Triangles of a simple counterclockwise polygon (K, 2), by ear clipping."""
    left = list(range(len(points)))
    triangles = []
    while len(left) > 3:
        i = next((i for i in range(len(left)) if _is_ear(points, left, i)), None)
        if i is None:  # it crosses itself: the rest is cut as a fan
            break
        triangles.append((left[i - 1], left[i], left[(i + 1) % len(left)]))
        del left[i]
    return triangles + [(left[0], left[i], left[i + 1]) for i in range(1, len(left) - 1)]


def _is_ear(points: FloatArray, left: list[int], i: int) -> bool:
    """True if the i-th corner that is left is convex and no other lies in its triangle."""
    a, b, c = (points[left[k]] for k in (i - 1, i, (i + 1) % len(left)))
    if _area(a, b, c) <= 0:
        return False
    p = points[left]
    at_corner = (p[:, None] == np.stack([a, b, c])).all(-1).any(-1)
    within = (_area(a, b, p) >= 0) & (_area(b, c, p) >= 0) & (_area(c, a, p) >= 0)
    return not (within & ~at_corner).any()


def _area(a: FloatArray, b: FloatArray, c: FloatArray) -> Any:
    """Twice the signed area of triangles with corners (..., 2)."""
    u, v = b - a, c - a
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
