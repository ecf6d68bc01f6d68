"""A solid as points at most a millimeter apart, and its exact signed distance.

Points are grouped into cells of three sizes. A cell whose center is farther outside another solid
than the cell's radius holds no point inside it, so that most points are never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from experiments.certify.oracle.recording import Floats

SPACING = 1e-3
"""Meters between neighboring points of a surface."""
_CELLS = (0.048, 0.012, 0.004)
"""Edges of the cells in meters, nested."""
_PACKING = np.array([1 << 42, 1 << 21, 1])
"""Three indices as one."""
_MOST_PLANES = 80
"""Faces of a convex body beyond which a tree of triangles is faster than its planes."""
_BLOCK = 400_000
"""Points whose distance is asked for at once."""


class Cells(NamedTuple):
    """Groups of points of one size.

    Attributes:
        center: (C, 3) meters.
        radius: (C,) meters.
        first, last: (C,) range of the next smaller cells, or of the points, that each contains.
    """

    center: Floats
    radius: Floats
    first: NDArray[np.int64]
    last: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Solid:
    """A triangle mesh in its own frame."""

    mesh: trimesh.Trimesh

    @cached_property
    def closed(self) -> bool:
        """True if the surface has an inside."""
        return bool(self.mesh.is_watertight)

    @cached_property
    def thickness(self) -> float:
        """Mean thickness 2 V / A in meters; infinite for an open surface, which has none."""
        if not self.closed:
            return np.inf
        return 2 * abs(float(self.mesh.volume)) / float(self.mesh.area)

    @cached_property
    def hull(self) -> Floats:
        """(H, 3) vertices of the convex hull."""
        vertices = np.asarray(self.mesh.vertices, float)
        try:
            return vertices[ConvexHull(vertices).vertices]
        except QhullError:  # flat
            return vertices

    @cached_property
    def box(self) -> Floats:
        """(2, 3) corners of the bounding box."""
        return np.array([self.hull.min(0), self.hull.max(0)])

    @cached_property
    def radius(self) -> float:
        """Meters from the center of the bounding box to the farthest vertex."""
        return float(np.linalg.norm(self.hull - self.box.mean(axis=0), axis=1).max())

    @cached_property
    def corners(self) -> Floats:
        """(8, 3) corners of the bounding box."""
        x, y, z = self.box.T
        return np.array([[a, b, c] for a in x for b in y for c in z])

    @cached_property
    def levels(self) -> tuple[Cells, ...]:
        """Cells from large to small; the smallest contain ranges of `points`."""
        return self._grouped[1]

    @cached_property
    def points(self) -> Floats:
        """(M, 3) points of the surface, at most SPACING apart, ordered by cell."""
        return self._grouped[0]

    @cached_property
    def _grouped(self) -> tuple[Floats, tuple[Cells, ...]]:
        points = surface_points(self.mesh)
        # Nested cells: the order of the smallest refines that of the largest.
        grid = np.floor((points - points.min(axis=0)) / _CELLS[-1]).astype(np.int64)
        ratios = [round(edge / _CELLS[-1]) for edge in _CELLS]
        keys = [(grid // ratio) @ _PACKING for ratio in ratios]
        order = np.lexsort(keys[::-1])
        points = points[order]
        labels = [_runs(np.stack(keys[: i + 1], axis=1)[order]) for i in range(3)]
        levels = []
        for i, label in enumerate(labels):
            count = label[-1] + 1
            start = np.searchsorted(label, np.arange(count))
            end = np.append(start[1:], len(label))
            total = np.add.reduceat(points, start)
            center = total / (end - start)[:, None]
            away = np.linalg.norm(points - center[label], axis=1)
            radius = np.maximum.reduceat(away, start)
            if i < 2:  # ranges of the next smaller cells
                inner = labels[i + 1]
                start, end = inner[start], inner[end - 1] + 1
            levels.append(Cells(center, radius, start, end))
        return points, tuple(levels)

    @cached_property
    def _scene(self) -> Any:
        o3d = _open3d()

        scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        vertices = o3d.core.Tensor(np.asarray(self.mesh.vertices, np.float32))
        scene.add_triangles(vertices, o3d.core.Tensor(np.asarray(self.mesh.faces, np.uint32)))
        return scene

    @cached_property
    def planes(self) -> Floats | None:
        """(F, 4) outward planes of a convex body with few faces, else None."""
        if not self.closed or len(self.hull) > 4 * _MOST_PLANES:
            return None
        hull = ConvexHull(self.hull)
        if abs(hull.volume - abs(self.mesh.volume)) > 1e-6 * hull.volume:
            return None
        planes = np.unique(np.round(hull.equations, 9), axis=0)
        return planes if len(planes) <= _MOST_PLANES else None

    def signed_distance(self, points: Floats) -> Floats:
        """(M,) distances of points (M, 3) to the triangles, negative inside a closed surface.

        Outside a convex body, the distance to the farthest plane, which is not larger.
        """
        o3d = _open3d()

        out = np.empty(len(points))
        planes = self.planes
        for i in range(0, len(points), _BLOCK):
            if planes is not None:
                at = points[i : i + _BLOCK]
                out[i : i + _BLOCK] = (at @ planes[:, :3].T + planes[:, 3]).max(axis=1)
                continue
            block = o3d.core.Tensor(np.asarray(points[i : i + _BLOCK], np.float32))
            if self.closed:
                found = self._scene.compute_signed_distance(block, nthreads=1, nsamples=3)
            else:
                found = self._scene.compute_distance(block, nthreads=1)
            out[i : i + _BLOCK] = found.numpy()
        return out


def surface_points(mesh: trimesh.Trimesh) -> Floats:
    """(M, 3) points that cover a surface: none of its points is SPACING away from all of them.

    Triangles are filled with lattices whose steps along two edges are at most SPACING.
    """
    triangles = np.asarray(mesh.triangles, float)
    # The lattice along the two shorter edges of each triangle.
    edges = triangles[:, [1, 2, 0]] - triangles
    longest = np.argmax(np.linalg.norm(edges, axis=-1), axis=1)
    turn = (longest[:, None] + [2, 0, 1]) % 3  # the corner opposite the longest edge comes first
    a, b, c = np.moveaxis(np.take_along_axis(triangles, turn[..., None], 1), 1, 0)
    steps_u = np.ceil(np.linalg.norm(b - a, axis=1) / SPACING).astype(int).clip(1)
    steps_v = np.ceil(np.linalg.norm(c - a, axis=1) / SPACING).astype(int).clip(1)
    out = [np.asarray(mesh.vertices, float)[np.unique(mesh.faces)]]
    small = (steps_u == 1) & (steps_v == 1)
    out.append(triangles[small].mean(axis=1))
    for i in np.flatnonzero(~small):
        u, v = np.arange(steps_u[i] + 1) / steps_u[i], np.arange(steps_v[i] + 1) / steps_v[i]
        u, v = (g.ravel() for g in np.meshgrid(u, v, indexing="ij"))
        inside = u + v <= 1 + 1e-12
        u, v = u[inside, None], v[inside, None]
        out.append(a[i] + u * (b[i] - a[i]) + v * (c[i] - a[i]))
        # The long edge cuts across the lattice: points of its own.
        count = int(np.ceil(np.linalg.norm(c[i] - b[i]) / SPACING)) + 1
        out.append(b[i] + np.linspace(0, 1, count)[:, None] * (c[i] - b[i]))
    return np.concatenate(out)


def _runs(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the run of equal rows that each row (n, k) belongs to."""
    new = np.any(keys[1:] != keys[:-1], axis=1)
    return np.concatenate([[0], np.cumsum(new)])


def _open3d() -> Any:
    """The open3d package, loaded when it is needed."""
    return import_module("open3d")
