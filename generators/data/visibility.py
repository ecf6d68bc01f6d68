"""Which points of a surface cameras around and above an object see: what is left of it in a scan.

A camera far away along `view` sees a point when nothing lies between them and the surface there is not seen edge-on.
Insides of closed boxes and undersides are never seen, as in a mesh fused from depth images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray


def random_views(rng: np.random.Generator, count: int) -> FloatArray:
    """Unit vectors (count, 3) towards cameras spread around the object, 10 to 80 degrees above it."""
    azimuth = (
        rng.uniform(0, 2 * np.pi)
        + 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count
    )
    height = np.deg2rad(rng.uniform(10, 80, count))
    return np.stack(
        [np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth), np.sin(height)], -1
    )


def seen(
    triangles: FloatArray,
    points: FloatArray,
    normals: FloatArray,
    views: FloatArray,
    *,
    grazing: float = 0.1,
) -> NDArray[np.bool_]:
    """(N,) is the point seen from at least one view?

    Args:
        triangles: (F, 3, 3) corners of everything that can hide a point.
        points: (N, 3) on those triangles.
        normals: (N, 3) unit normals there, of either sign (winding is not trusted).
        views: (W, 3) unit vectors towards the cameras.
        grazing: a surface whose normal has a smaller cosine with the view is not seen.
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(triangles, np.float32))
    # Leave the surface by more than float32 resolves, by less than a plate is thick.
    start = 1e-3 * float(np.ptp(triangles.reshape(-1, 3), axis=0).max())
    out = np.zeros(len(points), bool)
    for view in views:
        ask = np.flatnonzero(~out & (np.abs(normals @ view) > grazing))
        if len(ask):
            origins = (points[ask] + start * view).astype(np.float32)
            rays = np.broadcast_to(view.astype(np.float32), origins.shape).copy()
            out[ask] = scene.run(origins, rays, query="OCCLUDED") < 0
    return out
