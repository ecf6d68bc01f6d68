"""The few rigid parts that explain the motion of an object best.

A greedy grouping by random sampling (Fischler and Bolles, "Random sample consensus", CACM 1981):
the motion of a small patch is fitted, and the vertices that follow it form a part; the largest part
is taken, and the search goes on among the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import fit_rigid, transform
from flowplan.utils.checks import FloatArray

_PATCHES = 24
"""Patches that are tried for each part."""
_PATCH = 24
"""Vertices of a patch."""
_FRAMES = 7
"""Frames that the search looks at; the result is fitted to all of them."""
_FEWEST = 4
"""Vertices of the smallest part."""


@dataclass(frozen=True, eq=False)
class RigidParts:
    """Parts of one object, the largest first.

    Attributes:
        label: (V,) part of each vertex.
        X_world: (P, T, 4, 4) motion of each part from its place at t = 0.
        residual: (V,) largest distance of a vertex from the motion of its part, meters.
    """

    label: NDArray[np.int64]
    X_world: FloatArray
    residual: FloatArray


def rigid_parts(
    vertices: FloatArray, *, most: int = 4, tolerance: float = 2e-3, seed: int = 0
) -> RigidParts:
    """Group the vertices of an object by rigid motion.

    Args:
        vertices: (T, V, 3) meters.
        most: Largest number of parts.
        tolerance: Meters by which a vertex of a part may leave its motion during the search.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    start = vertices[0]
    frames = np.unique(np.linspace(0, len(vertices) - 1, _FRAMES).round().astype(int))
    seen = vertices[frames]  # (T', V, 3)
    free = np.arange(len(start))
    parts: list[NDArray[np.int64]] = []
    while len(parts) < most and len(free) >= _FEWEST:
        members = _largest_part(seen[:, free], tolerance, rng)
        if len(members) < _FEWEST:
            break
        parts.append(free[members])
        free = np.delete(free, members)
    if not parts:
        parts = [np.arange(len(start))]

    # Every vertex belongs to the part that it follows best.
    X_world = np.stack([fit_rigid(start[p], vertices[:, p]) for p in parts])  # (P, T, 4, 4)
    distance = np.stack([_residual(X, vertices) for X in X_world])  # (P, V)
    label = distance.argmin(axis=0)
    return RigidParts(label, X_world, distance.min(axis=0))


def _largest_part(
    vertices: FloatArray, tolerance: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of the vertices (T, V, 3) that follow the motion of one of several patches."""
    start = vertices[0]
    # The whole, and random patches of neighbors.
    patches = [np.arange(len(start))]
    seeds = rng.choice(len(start), min(_PATCHES, len(start)), replace=False)
    near = cKDTree(start).query(start[seeds], min(_PATCH, len(start)))[1]
    patches += list(near.reshape(len(seeds), -1))

    best = np.zeros(0, np.int64)
    for patch in patches:
        X = fit_rigid(start[patch], vertices[:, patch])
        members = np.flatnonzero(_residual(X, vertices) <= tolerance)
        if len(members) > len(best):
            best = members
        if len(best) == len(start):
            break
    if len(best) < 3:
        return best
    # Fit once more to all members.
    X = fit_rigid(start[best], vertices[:, best])
    members = np.flatnonzero(_residual(X, vertices) <= tolerance)
    return members if len(members) > len(best) else best


def _residual(X: FloatArray, vertices: FloatArray) -> FloatArray:
    """Largest distance (V,) over time of vertices (T, V, 3) from motions X (T, 4, 4)."""
    return np.linalg.norm(transform(X, vertices[0]) - vertices, axis=-1).max(axis=0)
