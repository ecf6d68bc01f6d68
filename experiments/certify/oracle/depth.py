"""Depth of overlap of two solids at every step of a relative motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.certify.oracle.recording import Floats
from experiments.certify.oracle.solid import Solid

_STRIDES = (64, 16, 4)
"""Steps that one look at the solids may settle, if nothing moves far enough in between."""
_STILL = 2e-5
"""Meters below which nothing has moved."""
_EXACT = 1e-3
"""Meters; for a coarser question, small cells decide for their points."""


def overlap(a: Solid, X_a: Floats, b: Solid, X_b: Floats, least: float) -> Floats:
    """Depths (n,) in meters of the overlap of two solids; those not above `least` may be 0.

    Args:
        a, b: The solids.
        X_a, X_b: (n, 4, 4) their poses in one frame.
        least: Meters above which a depth matters.
    """
    # Steps at which the spheres about both bodies meet.
    apart = np.linalg.norm(_centers(a, X_a) - _centers(b, X_b), axis=1)
    near = np.flatnonzero(apart < a.radius + b.radius)
    out = np.zeros(len(X_a))
    if not len(near):
        return out
    X = _inverse(X_b[near]) @ X_a[near]  # from a to b
    # Of steps between which nothing moves, one.
    corners = a.corners @ np.swapaxes(X[:, :3, :3], 1, 2) + X[:, None, :3, 3]
    place = np.round(corners / _STILL).reshape(len(X), -1)
    new = np.append(True, (place[1:] != place[:-1]).any(axis=1))
    X = X[new]
    depth = np.zeros(len(X))
    if b.closed:
        depth = _one_way(a, b, X, least)
    if a.closed:
        depth = np.maximum(depth, _one_way(b, a, _inverse(X), least))
    depth = depth[np.cumsum(new) - 1]
    out[near] = depth
    return out


def _centers(solid: Solid, X: Floats) -> Floats:
    """(n, 3) centers of a solid's box at poses (n, 4, 4)."""
    return X[:, :3, :3] @ solid.box.mean(axis=0) + X[:, :3, 3]


def _one_way(points: Solid, inside: Solid, X: Floats, least: float) -> Floats:
    """Largest depth (n,) of the points of one solid below the surface of the other.

    Args:
        points, inside: The solids.
        X: (n, 4, 4) poses of the first in the frame of the second.
        least: See `overlap`.
    """
    depth = np.zeros(len(X))
    corners = points.corners @ np.swapaxes(X[:, :3, :3], 1, 2) + X[:, None, :3, 3]  # (n, 8, 3)
    active = np.arange(len(X))
    for stride in _STRIDES:
        # One look a group of steps. No point moves farther than a corner of the box about all.
        group = active // stride
        first = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        look = active[first]
        count = np.diff(np.append(first, len(active)))
        moved = corners[active] - corners[np.repeat(look, count)]
        reach = np.maximum.reduceat(np.linalg.norm(moved, axis=-1).max(axis=1), first) - least
        # Groups in which some point may come to lie deep enough.
        near = np.flatnonzero(_near_boxes(corners[look], inside.box, reach))
        suspect = np.zeros(len(look), bool)
        if len(near):
            where, _ = _search(points, inside, X, look[near], reach[near])
            suspect[np.isin(look, where)] = True
        active = active[np.repeat(suspect, count)]
        if not len(active):
            return depth
    active = active[_near_boxes(corners[active], inside.box, np.full(len(active), -least))]
    if len(active):
        where, found = _search(points, inside, X, active, np.full(len(active), -least))
        np.maximum.at(depth, where, -found)
    return depth


def _near_boxes(corners: Floats, box: Floats, reach: Floats) -> NDArray[np.bool_]:
    """(n,) True if the box about corners (n, 8, 3) comes within `reach` (n,) of another box."""
    gap = np.maximum(corners.min(axis=1) - box[1], box[0] - corners.max(axis=1))
    return gap.max(axis=1) <= reach


def _search(
    points: Solid, inside: Solid, X: Floats, steps: NDArray[np.int64], reach: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Steps at which a point is nearer to a surface than `reach` (m,), and the signed distances.

    Args:
        points, inside, X: See `_one_way`.
        steps: (m,) steps to look at.
        reach: (m,) signed distances below which a point matters. Above a millimeter, cells decide
            for their points.
    """
    settled = []
    row = np.repeat(np.arange(len(steps)), len(points.levels[0].center))
    cell = np.tile(np.arange(len(points.levels[0].center)), len(steps))
    for level in points.levels:
        d = _distances(inside, X[steps], row, level.center[cell], reach[row] + level.radius[cell])
        keep = d - level.radius[cell] < reach[row]
        row, cell = row[keep], cell[keep]
        # A cell whose center is near enough settles its step if it need not be exact.
        done = np.unique(row[(d[keep] < reach[row]) & (reach[row] > 0)])
        settled.append(done)
        left = ~np.isin(row, done)
        row, cell = row[left], cell[left]
        # What the cells contain.
        count = level.last[cell] - level.first[cell]
        if level is points.levels[-1]:
            coarse = reach[row] > _EXACT
            settled.append(np.unique(row[coarse]))
            row, cell, count = row[~coarse], cell[~coarse], count[~coarse]
        begin = np.repeat(level.first[cell] - np.cumsum(count) + count, count)
        row, cell = np.repeat(row, count), np.arange(count.sum()) + begin
    d = _distances(inside, X[steps], row, points.points[cell], reach[row])
    keep = d < reach[row]
    rough = np.concatenate(settled)
    found = np.concatenate([row[keep], rough])
    return steps[found], np.concatenate([d[keep], np.zeros(len(rough))])


def _distances(
    inside: Solid, X: Floats, row: NDArray[np.int64], points: Floats, within: Floats
) -> Floats:
    """Signed distances (k,) of points (k, 3) at poses X[row]; infinite where outside `within`."""
    at = np.einsum("kij,kj->ki", X[row, :3, :3], points) + X[row, :3, 3]
    gap = np.maximum(inside.box[0] - at, at - inside.box[1]).max(axis=1)
    out = np.full(len(at), np.inf)
    near = np.flatnonzero(gap < np.maximum(within, 0.0))
    if len(near):
        out[near] = inside.signed_distance(at[near])
    return out


def below(solid: Solid, X: Floats, height: float) -> Floats:
    """Depth (n,) in meters of a solid at poses X (n, 4, 4) below a horizontal plane."""
    lowest = (X[:, 2, :3] @ solid.hull.T).min(axis=1) + X[:, 2, 3]
    return np.maximum(height - lowest, 0.0)


def _inverse(X: Floats) -> Floats:
    out = np.tile(np.eye(4), (len(X), 1, 1))
    R = np.swapaxes(X[:, :3, :3], 1, 2)
    out[:, :3, :3] = R
    out[:, :3, 3] = -(R @ X[:, :3, 3:])[..., 0]
    return out
