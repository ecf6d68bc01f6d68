"""Closed mesh pieces swept along paths, and paths for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.utils.checks import FloatArray
from generators.data.objects.primitives import circle, direction, skin


def arc(
    center: ArrayLike,
    radius: float,
    start: float,
    stop: float,
    plane: tuple[str, str] = ("x", "z"),
    segments: int = 8,
) -> FloatArray:
    """(segments + 1, 3) points on a circle from angle `start` to `stop` (rad), 0 along the first
    axis of `plane`."""
    a = np.linspace(start, stop, segments + 1)[:, None]
    return np.asarray(center, float) + radius * (
        np.cos(a) * direction(plane[0]) + np.sin(a) * direction(plane[1])
    )


def sweep(
    path: ArrayLike,
    outline: ArrayLike,
    *,
    up: str | ArrayLike = "z",
    closed: bool = False,
    scale: ArrayLike = 1.0,
) -> trimesh.Trimesh:
    """The outline (m, 2) drawn along path (n, 3), mitered at its corners; `scale` (n,) or one
    number sizes it.

    The outline's second axis is `up` as nearly as it can be at the start, its first one lies to the
    right of the path.
    """
    p = np.asarray(path, float)
    n = len(p)
    size = np.broadcast_to(np.asarray(scale, float), n)
    steps = np.roll(p, -1, 0) - p if closed else np.diff(p, axis=0)
    d = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    before, after = (
        (np.roll(d, 1, 0), d)
        if closed
        else (np.concatenate([d[:1], d]), np.concatenate([d, d[-1:]]))
    )
    normal = before + after  # of the miter plane
    right = np.cross(d[0], direction(up))
    if np.linalg.norm(right) < 1e-3:
        right = np.cross(d[0], np.roll(direction(up), 1))
    right /= np.linalg.norm(right)
    o = np.asarray(outline, float)
    offsets = o[:, :1] * right + o[:, 1:] * np.cross(right, d[0])
    loops = []
    for i in range(n):
        # Slide along the segment that arrives here (at the start: the one that leaves) into the
        # miter plane.
        along = d[0] if i == 0 else before[i]
        offsets = offsets - (offsets @ normal[i] / (along @ normal[i]))[:, None] * along
        loops.append(p[i] + size[i] * offsets)
    return skin(np.stack(loops), closed=closed)


def tube(
    path: ArrayLike, radius: float | ArrayLike, sections: int = 10, *, closed: bool = False
) -> trimesh.Trimesh:
    """A round bar along path (n, 3), mitered at its corners; `radius` (m), one or (n,), may vary
    along it."""
    return sweep(path, circle(1.0, sections), closed=closed, scale=radius)


def rounded_path(points: Sequence[ArrayLike], radius: float, segments: int = 4) -> FloatArray:
    """(N, 3) points of the polygon through `points` with its inner corners rounded by about
    `radius` (m)."""
    p = np.asarray(points, float)
    out = [p[0]]
    for a, b, c in zip(p[:-2], p[1:-1], p[2:], strict=True):
        cut = min(radius, 0.45 * float(np.linalg.norm(a - b)), 0.45 * float(np.linalg.norm(c - b)))
        start, stop = b + cut * direction(a - b), b + cut * direction(c - b)
        t = np.linspace(0, 1, segments + 1)[:, None]
        out.extend(
            (1 - t) ** 2 * start + 2 * t * (1 - t) * b + t**2 * stop
        )  # a quadratic Bezier curve
    return np.array([*out, p[-1]])
