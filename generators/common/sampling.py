"""Points picked from a set, and drawn on a surface."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray


def farthest_points(points: FloatArray, count: int) -> NDArray[np.int64]:
    """Indices of `count` of the points (P, 3), or of all, each as far as can be from those before; the first is 0."""
    chosen = np.zeros(min(count, len(points)), np.int64)
    distance = np.linalg.norm(points - points[0], axis=1)
    for i in range(1, len(chosen)):
        chosen[i] = np.argmax(distance)
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[i]], axis=1))
    return chosen


def surface_points(
    mesh: trimesh.Trimesh, count: int, *, seed: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Points (count, 3) spread evenly by area over a mesh, and the face (count,) of each."""
    if len(mesh.faces) == 0 or not mesh.area > 0:
        raise ValueError("mesh: has no area to draw points from; is it empty, or all in one point?")
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points), np.asarray(faces)
