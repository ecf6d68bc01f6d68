"""Distance of an object from whatever could carry it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene

_SPACING = 0.01
"""Meters between the points of a surface whose distances are measured."""
_MOST_POINTS = 50_000
"""Number of such points, beyond which they are spaced further apart."""

Surface = tuple[FloatArray, NDArray[np.int64]]
"""Vertices (V, 3) in the world frame, meters, and faces (F, 3)."""


def gap_to_others(own: Surface, others: Sequence[Surface], support_height: float | None) -> float:
    """Distance in meters of a surface from the nearest of others and the support plane.

    Distances are those of points, spaced by 1 cm, to triangles, both ways. Infinite without any.
    """
    gap = np.inf
    if support_height is not None:
        gap = max(float(own[0][:, 2].min()) - support_height, 0.0)
    for other in others:
        gap = min(gap, _point_distance(own, other), _point_distance(other, own))
    return float(gap)


def _point_distance(points_of: Surface, surface: Surface) -> float:
    """Smallest distance in meters of one surface's points from another surface."""
    query = open3d().core.Tensor(_spaced(*points_of).astype(np.float32))
    return float(surface_scene(surface).compute_distance(query).numpy().min())


def _spaced(vertices: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """Points (M, 3) of a surface, evenly spaced."""
    area = trimesh.triangles.area(vertices[faces]).sum()
    edge = max(_SPACING, float(np.sqrt(4 * area / _MOST_POINTS)))
    points, _ = trimesh.remesh.subdivide_to_size(vertices, faces, edge, max_iter=20)
    return np.asarray(points, float)
