"""The surface as a graph of patches: neighbors, lengths of their borders, and creases on them.

Borders between parts follow creases, seams and gaps (Hoffman and Richards, "Parts of recognition",
Cognition 1984), so these cost less to cut. Large meshes are grouped into patches that do not cross
creases: cells of a Voronoi diagram under a distance that creases lengthen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from flowplan.utils.checks import FloatArray

Ints = NDArray[np.int64]
_WELD = 1e-6
"""Share of the object's size below which two vertices are the same."""
_FLAT = 0.05
"""Cost of a border at a seam or the sharpest crease; on a flat surface it is 1."""
_CREASE_DETOUR = 20.0
"""Times by which the distance across a sharp crease is longer."""


@dataclass(frozen=True, eq=False)
class SurfaceGraph:
    """Patches of a surface and their neighbors.

    Attributes:
        patch: (F,) patch of each face.
        area: (F,) area of each face, m^2.
        edges: (E, 2) neighboring patches.
        length: (E,) length of their common border, meters.
        cost: (E,) cost per length of a border between parts there, at most 1.
    """

    patch: Ints
    area: FloatArray
    edges: Ints
    length: FloatArray
    cost: FloatArray


def surface_graph(vertices: FloatArray, faces: Ints, most: int, crease: float) -> SurfaceGraph:
    """Group the faces of a mesh into patches.

    Args:
        vertices: (V, 3) meters.
        faces: (F, 3).
        most: Number of patches; a mesh of fewer faces has one for each.
        crease: Angle in radians at which a border costs a third.
    """
    number = welded(vertices)
    corners = number[faces]
    normal, area = _normals(vertices[faces])
    pairs, ends = _neighbors(corners)
    # Any vertex of a welded number lies at its place.
    place = np.zeros((number.max() + 1, 3))
    place[number] = vertices
    length = np.linalg.norm(place[ends[:, 0]] - place[ends[:, 1]], axis=-1)
    cost = _border_cost(vertices[faces].mean(axis=1), normal, pairs, crease)
    if len(faces) <= most:
        return SurfaceGraph(np.arange(len(faces)), area, pairs, length, cost)
    patch = _patches(vertices[faces].mean(axis=1), pairs, cost, most)
    return _grouped(patch, area, pairs, length, cost)


def welded(vertices: FloatArray) -> Ints:
    """Number (V,) of each vertex, the same for vertices in one place."""
    size = float(np.ptp(vertices, axis=0).max())
    cell = np.round(vertices / max(_WELD * size, 1e-300)).astype(np.int64)
    return np.unique(cell, axis=0, return_inverse=True)[1].reshape(-1)


def _normals(triangles: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit normals (F, 3) and areas (F,) of triangles (F, 3, 3)."""
    a, b, c = np.moveaxis(triangles, 1, 0)
    cross = np.cross(b - a, c - a)
    twice = np.linalg.norm(cross, axis=-1)
    return cross / np.maximum(twice, 1e-300)[:, None], twice / 2


def _neighbors(corners: Ints) -> tuple[Ints, Ints]:
    """Pairs (E, 2) of faces with a common edge, and welded vertices (E, 2) at that edge's ends.

    Edges of more than two faces are seams and connect none.
    """
    edge = np.sort(corners[:, [[0, 1], [1, 2], [2, 0]]], axis=-1).reshape(-1, 2)
    key = edge[:, 0] * np.int64(corners.max() + 1) + edge[:, 1]
    order = np.argsort(key, kind="stable")
    _, start, number = np.unique(key[order], return_index=True, return_counts=True)
    first = start[number == 2]
    pairs = np.stack([order[first] // 3, order[first + 1] // 3], axis=1)
    return pairs, edge[order[first]]


def _border_cost(center: FloatArray, normal: FloatArray, pairs: Ints, crease: float) -> FloatArray:
    """Cost (E,) of a border between neighboring faces: 1 where flat, less at creases.

    A concave crease counts one and a half times: parts meet in grooves.
    """
    a, b = pairs.T
    cosine = np.clip(np.einsum("ei,ei->e", normal[a], normal[b]), -1, 1)
    angle = np.arccos(cosine)
    concave = np.einsum("ei,ei->e", normal[a], center[b] - center[a]) > 0
    angle = np.where(concave, 1.5 * angle, angle)
    falloff: FloatArray = np.exp(-1.1 * (angle / crease) ** 2)
    return _FLAT + (1 - _FLAT) * falloff


def _patches(center: FloatArray, pairs: Ints, cost: FloatArray, most: int) -> Ints:
    """Patch (F,) of each face: the nearest of evenly spread seeds along the surface."""
    count = len(center)
    far = np.linalg.norm(center[pairs[:, 0]] - center[pairs[:, 1]], axis=-1)
    far = far * (1 + _CREASE_DETOUR * (1 - cost)) + 1e-12
    graph = sparse.csr_matrix((far, pairs.T), shape=(count, count))
    _, piece = csgraph.connected_components(graph, directed=False)
    # A seed for every piece, the others evenly in the order of faces along a space-filling grid.
    seeds = np.unique(piece, return_index=True)[1]
    rest = max(most - len(seeds), 0)
    order = _along_grid(center)
    seeds = np.union1d(seeds, order[np.linspace(0, count - 1, max(rest, 1)).astype(int)])
    _, _, source = csgraph.dijkstra(
        graph, directed=False, indices=seeds, min_only=True, return_predecessors=True
    )
    return np.searchsorted(seeds, source)


def _along_grid(center: FloatArray) -> Ints:
    """Faces (F,) in Morton order, so that faces far apart in it are far apart in space."""
    low, size = center.min(axis=0), max(float(np.ptp(center, axis=0).max()), 1e-12)
    cell = ((center - low) / size * 1023).astype(np.int64)  # (F, 3)
    code = np.zeros(len(center), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable")


def _grouped(
    patch: Ints, area: FloatArray, pairs: Ints, length: FloatArray, cost: FloatArray
) -> SurfaceGraph:
    """The graph of patches of the graph of faces."""
    ends = np.sort(patch[pairs], axis=-1)
    across = ends[:, 0] != ends[:, 1]
    edges, where = np.unique(ends[across], axis=0, return_inverse=True)
    where = where.reshape(-1)
    total = np.bincount(where, length[across], len(edges)).astype(float)
    weighted = np.bincount(where, (length * cost)[across], len(edges))
    return SurfaceGraph(patch, area, edges, total, weighted / np.maximum(total, 1e-300))
