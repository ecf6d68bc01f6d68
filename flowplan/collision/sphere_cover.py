"""Covers of a body by spheres: its clearance is then min_k d(c_k) - r_k in a distance field d.

Centers are the k-means centers (Lloyd 1982) of points on and in the body; each sphere reaches to
the farthest surface sample that is nearest to its center.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.collision.distance_field import mesh_distance
from flowplan.utils.checks import FloatArray

_SURFACE_SAMPLES = 2000
"""Surface points that the spheres must contain, beside the vertices."""
_BODY_SAMPLES = 500
"""Points on the surface, and as many within the bounds, that the centers are fitted to."""
_LLOYD_ROUNDS = 6


def sphere_cover(mesh: trimesh.Trimesh, count: int, *, seed: int = 0) -> FloatArray:
    """Spheres (K, 4), K <= count, that together contain a body's surface.

    The more spheres, the less they protrude.

    Args:
        mesh: The body, closed or open.
        count: Maximum number of spheres.
        seed: Random seed of the samples.

    Returns:
        Rows (x, y, z, radius) in the mesh's frame.

    Raises:
        ValueError: If `count` is below one, or the mesh is empty or not finite.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 sphere, got {count}")
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise ValueError(
            f"mesh: expected a finite mesh with faces, got {len(mesh.faces)} faces; repair it first"
        )
    rng = np.random.default_rng(seed)

    # Points to contain, and points to fit the centers to.
    samples = _surface_samples(mesh, rng)
    surface = np.concatenate([samples, mesh.vertices])
    inside = _points_inside(mesh, _BODY_SAMPLES, rng)
    body = np.concatenate([samples[:_BODY_SAMPLES], inside])
    distinct = len(np.unique(body, axis=0))
    centers = _k_means(body, min(count, distinct), rng)

    # One sphere a center, large enough for the surface points nearest to it.
    nearest = _nearest(surface, centers)
    used = np.unique(nearest)
    spheres = np.zeros((len(used), 4))
    for i, k in enumerate(used):
        offset = surface[nearest == k] - centers[k]
        spheres[i, :3] = centers[k]
        spheres[i, 3] = np.linalg.norm(offset, axis=1).max()
    return spheres


def _surface_samples(mesh: trimesh.Trimesh, rng: np.random.Generator) -> FloatArray:
    """Random points (_SURFACE_SAMPLES, 3), uniform by area."""
    area = mesh.area_faces
    if area.sum() > 0:
        face = rng.choice(len(area), size=_SURFACE_SAMPLES, p=area / area.sum())
    else:
        face = np.zeros(_SURFACE_SAMPLES, int)
    u, v = rng.random((2, _SURFACE_SAMPLES, 1))
    a, b, c = mesh.triangles[face].transpose(1, 0, 2)
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    return (1 - root) * a + root * (1 - v) * b + root * v * c


def _points_inside(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> FloatArray:
    """Those of `count` random points in the bounds that are inside a closed mesh."""
    if not mesh.is_watertight:
        return np.zeros((0, 3))
    points = rng.uniform(mesh.bounds[0], mesh.bounds[1], (count, 3))
    return points[mesh_distance(mesh)(points) < 0]


def _k_means(points: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Centers (count, 3) of clusters of points (N, 3)."""
    # Farthest points first, from a random one.
    centers = points[[int(rng.integers(len(points)))]]
    distance = np.linalg.norm(points - centers[0], axis=1)
    while len(centers) < count:
        farthest = int(np.argmax(distance))
        centers = np.concatenate([centers, points[[farthest]]])
        distance = np.minimum(distance, np.linalg.norm(points - centers[-1], axis=1))
    # Lloyd's rounds; a center without points stays.
    for _ in range(_LLOYD_ROUNDS):
        nearest = _nearest(points, centers)
        sums = [np.bincount(nearest, points[:, c], len(centers)) for c in range(3)]
        counts = np.bincount(nearest, minlength=len(centers))[:, None]
        means = np.stack(sums, axis=1) / np.maximum(counts, 1)
        centers = np.where(counts > 0, means, centers)
    return centers


def _nearest(points: FloatArray, centers: FloatArray) -> NDArray[np.int64]:
    """Index (N,) of the center nearest to each point."""
    # |x - c|^2 less |x|^2, which is the same for all centers.
    square = (centers**2).sum(1) - 2 * points @ centers.T  # (N, K)
    return square.argmin(axis=1)
