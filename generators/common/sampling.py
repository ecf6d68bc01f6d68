"""Sampling of points from a set and on a surface."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray


def farthest_points(points: FloatArray, count: int) -> NDArray[np.int64]:
    """Farthest point sampling: indices (count,) of points (P, 3), beginning with index 0.

    Each is as far as possible from those before it. All points are returned if there are fewer
    than `count`.
    """
    chosen = np.zeros(min(count, len(points)), np.int64)
    distance = np.linalg.norm(points - points[0], axis=1)  # to the nearest chosen point
    for i in range(1, len(chosen)):
        chosen[i] = np.argmax(distance)
        to_latest = np.linalg.norm(points - points[chosen[i]], axis=1)
        distance = np.minimum(distance, to_latest)
    return chosen


def surface_points(
    mesh: trimesh.Trimesh, count: int, *, seed: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Points (count, 3) drawn evenly by area on a mesh, and the face (count,) of each."""
    if len(mesh.faces) == 0 or not mesh.area > 0:
        raise ValueError("mesh: has no area to draw points from; is it empty, or all in one point?")
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return np.asarray(points), np.asarray(faces)
