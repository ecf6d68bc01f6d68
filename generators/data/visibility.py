"""Visibility of surface points from cameras around and above an object, as in a scan.

A distant camera along `view` sees a point if nothing lies between them and the surface there is not
seen edge-on. Insides of closed boxes and undersides are never seen, as in a mesh fused from depth
images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray


def random_views(rng: np.random.Generator, count: int) -> FloatArray:
    """Unit vectors (count, 3) toward cameras spread around the object, 10 to 80 degrees above
    it."""
    first = rng.uniform(0, 2 * np.pi)
    spread = np.arange(count) + rng.uniform(-0.3, 0.3, count)
    azimuth = first + 2 * np.pi * spread / count
    height = np.deg2rad(rng.uniform(10, 80, count))
    x, y = np.cos(height) * np.cos(azimuth), np.cos(height) * np.sin(azimuth)
    return np.stack([x, y, np.sin(height)], -1)


def seen(
    triangles: FloatArray,
    points: FloatArray,
    normals: FloatArray,
    views: FloatArray,
    *,
    grazing: float = 0.1,
) -> NDArray[np.bool_]:
    """Mask (N,) of the points that are seen from at least one view.

    Args:
        triangles: (F, 3, 3) corners of everything that can occlude a point.
        points: (N, 3) on those triangles.
        normals: (N, 3) unit normals there, of either sign (winding is not trusted).
        views: (W, 3) unit vectors toward the cameras.
        grazing: least cosine of a visible surface's normal with the view.
    """
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(triangles, np.float32))
    # Rays start off the surface by more than float32 resolves, and less than a plate's thickness.
    start = 1e-3 * float(np.ptp(triangles.reshape(-1, 3), axis=0).max())
    out = np.zeros(len(points), bool)
    for view in views:
        # Points that no earlier view has seen, and that face this one.
        open_ = np.flatnonzero(~out & (np.abs(normals @ view) > grazing))
        if len(open_):
            origins = (points[open_] + start * view).astype(np.float32)
            rays = np.broadcast_to(view.astype(np.float32), origins.shape).copy()
            out[open_] = scene.run(origins, rays, query="OCCLUDED") < 0
    return out
