"""The few rigid parts that explain the motion of an object best.

A greedy grouping by random sampling (Fischler and Bolles, "Random sample consensus", CACM 1981):
the motion of a small patch is fitted, and the vertices that follow it form a part; the largest part
is taken, and the search goes on among the rest. A motion that bends is followed within a few
millimeters or centimeters, so the search is repeated with wider tolerances, and the fewest parts
are kept that leave little more than the most parts would.
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
_PATCH = (24, 4)
"""Vertices of a patch, large and small."""
_FRAMES = 7
"""Frames that the search looks at; the result is fitted to all of them."""
_VERTICES = 4000
"""Vertices that the search looks at."""
_FEWEST = 4
"""Vertices of the smallest part."""
_WIDER = (1.0, 2.5, 5.0, 10.0)
"""Multiples of the tolerance that the search is repeated with."""
_SHARE_OF_BEST = 2.0
"""Fewer parts are kept as long as they leave at most this multiple of the least residual."""


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
        tolerance: Meters by which a vertex of a part may leave its motion, in the first search.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    frames = np.unique(np.linspace(0, len(vertices) - 1, _FRAMES).round().astype(int))
    count = vertices.shape[1]
    chosen = np.arange(count)
    if count > _VERTICES:
        chosen = np.sort(rng.choice(count, _VERTICES, replace=False))
    seen = vertices[frames][:, chosen]  # (T', V', 3)

    # Parts of several searches, and what the first 1, 2, ... of each leave.
    searches, left = [], []
    for wider in _WIDER:
        parts = _search(seen, most, wider * tolerance, rng)
        motions = [fit_rigid(seen[0, p], seen[:, p]) for p in parts]
        distance = np.stack([_residual(X, seen) for X in motions])  # (P, V')
        nearest = np.minimum.accumulate(distance, axis=0)
        searches.append(parts)
        left.append(np.sqrt((nearest**2).mean(axis=1)))
        if left[-1][-1] <= 0.25 * tolerance:  # rigid parts indeed: wider ones find no better
            break
    bar = max(_SHARE_OF_BEST * min(rms.min() for rms in left), 0.25 * tolerance)
    options = [
        (number, rms[number - 1], search)
        for search, rms in enumerate(left)
        for number in range(1, len(rms) + 1)
        if rms[number - 1] <= bar
    ]
    number, _, search = min(options)
    parts = searches[search][:number]

    # Every vertex belongs to the part that it follows best.
    members = [chosen[p] for p in parts]
    X_world = np.stack([fit_rigid(vertices[0, p], vertices[:, p]) for p in members])
    distance = np.stack([_residual(X, vertices) for X in X_world])  # (P, V)
    return RigidParts(distance.argmin(axis=0), X_world, distance.min(axis=0))


def _search(
    vertices: FloatArray, most: int, tolerance: float, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Indices of the vertices (T, V, 3) of up to `most` parts, the largest first; at least one."""
    free = np.arange(vertices.shape[1])
    parts: list[NDArray[np.int64]] = []
    while len(parts) < most and len(free) >= _FEWEST:
        members = _largest_part(vertices[:, free], tolerance, rng)
        if len(members) < _FEWEST:
            break
        parts.append(free[members])
        free = np.delete(free, members)
    return parts or [np.arange(vertices.shape[1])]


def _largest_part(
    vertices: FloatArray, tolerance: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of the vertices (T, V, 3) that follow the motion of one of several patches."""
    start = vertices[0]
    # The whole, and random patches of neighbors.
    patches = [np.arange(len(start))]
    seeds = rng.choice(len(start), min(_PATCHES, len(start)), replace=False)
    near = cKDTree(start).query(start[seeds], min(max(_PATCH), len(start)))[1]
    near = near.reshape(len(seeds), -1)
    patches += [row[:size] for size in _PATCH for row in near]

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
