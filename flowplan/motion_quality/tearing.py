"""Distance by which parts of one object come apart.

Parts of one object touch along a seam at the start. A joint keeps some of it together: a hinge the
points near its axis, a slide the faces that glide along each other. In a torn object none of it
stays. The seam is that of the surface, sampled evenly whatever its triangles, where a triangle
across two parts is cut halfway; triangles that share no vertices touch if they are near.

A drawer that is shut in its scan has no sides there: its front leaves the cabinet. What comes out
must have been inside, so a straight slide is no tear if the seam, swept back along its way, lies
within the object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError, cKDTree

from flowplan.geometry import inverse, log_so3, transform
from flowplan.motion_quality.grouping import RigidParts
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene

_SPACING = 4e-3
"""Meters between the points of a surface, on objects of common size."""
_MOST_POINTS = 25_000
"""Number of such points, beyond which they are spaced further apart."""
_FRAMES = 9
"""Frames at which seams are measured, the last one among them."""
_SMALLEST = 0.01
"""Share of the surface below which a part is a stray of the grouping."""
_HOLDS = 0.1
"""Share of a seam that a joint keeps together at least, where the surface is one piece."""
_HOLDS_APART = 0.02
"""The same of parts that are pieces of their own, whose faces touch along an area."""
_HOLDS_SLIDING = 2.5
"""Multiple of these shares that a part keeps together that slides without turning: walls that
cross touch too."""
_STRAIGHT = np.deg2rad(5.0)
"""Radians that a straight slide may turn."""
_WITHIN = 0.6
"""Share of the seam that has room behind it, if a drawer slides out."""
_FRONT = 0.02
"""Meters by which a drawer's front may stand out, or a quarter of its way."""
_WALL = 2e-3
"""Meters below the surface at which a point is inside an object."""
_CONVEX = 0.995
"""Share of its convex hull's volume that a convex body fills at least."""


@dataclass(frozen=True)
class Opening:
    """Largest distance by which a part leaves the rest of its object.

    Attributes:
        distance: Meters; 0 if nothing comes off.
        frame: Index of the frame.
    """

    distance: float = 0.0
    frame: int = 0


@dataclass(frozen=True, eq=False)
class _Surface:
    """Points (N, 3) of a surface at t = 0, their parts (N,), and their pieces of surface (N,)."""

    points: FloatArray
    part: NDArray[np.int64]
    piece: NDArray[np.int64]
    spacing: float


def largest_opening(mesh: trimesh.Trimesh, start: FloatArray, parts: RigidParts) -> Opening:
    """Largest opening between a part and the rest of its object, over time.

    Args:
        mesh: The object's mesh, whose faces are used.
        start: (V, 3) its vertices at t = 0, meters.
        parts: Its rigid parts.
    """
    if len(parts.X_world) < 2:
        return Opening()
    faces = np.asarray(mesh.faces)
    surface = _sampled(start, faces, parts.label)
    last = parts.X_world.shape[1] - 1
    frames = np.unique(np.linspace(0, last, _FRAMES).round().astype(int))[1:]
    convex = _is_convex(start, faces)
    worst = Opening()
    for part in np.unique(surface.part):
        own = surface.part == part
        if _SMALLEST <= own.mean() <= 1 - _SMALLEST:
            found = _part_opening(surface, parts, int(part), frames, convex)
            if found.distance > worst.distance and not _slides_out(
                start, faces, surface, parts, int(part)
            ):
                worst = found
    return worst


def _part_opening(
    surface: _Surface, parts: RigidParts, part: int, frames: NDArray[np.int64], convex: bool
) -> Opening:
    """Opening between one part and the rest."""
    own = np.flatnonzero(surface.part == part)
    rest = np.flatnonzero(surface.part != part)
    distance, nearest = cKDTree(surface.points[rest]).query(surface.points[own])
    on_seam = distance <= max(2 * surface.spacing, distance.min() + surface.spacing)
    seam, across = own[on_seam], rest[nearest[on_seam]]
    before = distance[on_seam]

    # A seam within one piece of the surface is a line, and one between two pieces an area.
    within = surface.piece[seam] == surface.piece[across]
    holds = _HOLDS if within.any() else _HOLDS_APART
    neighbor = int(np.bincount(surface.part[across]).argmax())
    X = inverse(parts.X_world[neighbor]) @ parts.X_world[part]  # (T, 4, 4)
    if np.linalg.norm(log_so3(X[:, :3, :3]), axis=-1).max() <= _STRAIGHT:
        holds *= _HOLDS_SLIDING
    if within.any():
        seam, across, before = seam[within], across[within], before[within]

    worst = Opening()
    for frame in frames:
        moved = transform(parts.X_world[part, frame], surface.points[seam])
        if convex:
            # Nothing slides along a face inside a solid: each point stays where it was.
            there = surface.part[across]
            held = _moved(parts, frame, surface.points[seam], there)
            growth = np.linalg.norm(moved - held, axis=-1)
        else:
            others = _moved(parts, frame, surface.points[rest], surface.part[rest])
            growth = cKDTree(others).query(moved)[0] - before
        opened = float(np.quantile(growth, holds))
        if opened > worst.distance:
            worst = Opening(opened, int(frame))
    return worst


def _slides_out(
    start: FloatArray,
    faces: NDArray[np.int64],
    surface: _Surface,
    parts: RigidParts,
    part: int,
) -> bool:
    """True if a part slides straight out of the inside of its object."""
    own = np.flatnonzero(surface.part == part)
    rest = np.flatnonzero(surface.part != part)
    distance, nearest = cKDTree(surface.points[rest]).query(surface.points[own])
    near = (distance <= 2 * surface.spacing) & (surface.piece[own] == surface.piece[rest[nearest]])
    if not near.any():
        return False
    seam, across = own[near], surface.part[rest[nearest[near]]]
    other = int(np.bincount(across).argmax())

    # Motion relative to the part across the seam: no turn, and one direction.
    X = inverse(parts.X_world[other]) @ parts.X_world[part]  # (T, 4, 4)
    if not np.linalg.norm(log_so3(X[:, :3, :3]), axis=-1).max() <= _STRAIGHT:
        return False
    center = surface.points[seam].mean(axis=0)
    way = transform(X, center[None])[:, 0] - center  # (T, 3)
    length = np.linalg.norm(way, axis=-1)
    farthest = way[np.argmax(length)]
    travel = float(length.max())
    direction = farthest / travel
    aside = np.linalg.norm(way - np.outer(way @ direction, direction), axis=-1)
    if not aside.max() <= 0.1 * travel:
        return False

    # The seam's way back, from a little behind the surface on; seen from the cabinet, the drawer
    # slides the other way.
    steps = np.linspace(min(max(_FRONT, 0.25 * travel), travel), travel, 8)
    for back in (-direction, direction):
        swept = surface.points[seam][:, None] + steps[:, None] * back  # (S, 8, 3)
        inside = _depth(start, faces, swept.reshape(-1, 3)) > _WALL
        if inside.reshape(len(seam), -1).all(axis=1).mean() >= _WITHIN:
            return True
    return False


def _sampled(start: FloatArray, faces: NDArray[np.int64], label: NDArray[np.int64]) -> _Surface:
    """A surface as centers of small triangles, with the part of the nearest corner."""
    # Vertices at one place are one: files with separate triangles are surfaces too.
    _, merged = np.unique(np.round(start, 6), axis=0, return_inverse=True)
    pairs = merged.ravel()[faces][:, [0, 1, 1, 2]].reshape(-1, 2)
    groups = trimesh.graph.connected_component_labels(pairs, node_count=merged.max() + 1)
    piece_of_face = groups[merged.ravel()[faces[:, 0]]]

    triangles = start[faces]
    area = trimesh.triangles.area(triangles).sum()
    spacing = max(_SPACING, float(np.sqrt(2 * area / _MOST_POINTS)))
    points, small, index = trimesh.remesh.subdivide_to_size(
        start, faces, 1.5 * spacing, max_iter=20, return_index=True
    )
    centers = points[small].mean(axis=1)
    weights = trimesh.triangles.points_to_barycentric(triangles[index], centers)
    corner = np.argmax(weights, axis=1)
    part = label[faces[index, corner]]
    return _Surface(centers, part, piece_of_face[index], spacing)


def _moved(
    parts: RigidParts, frame: int, points: FloatArray, part: NDArray[np.int64]
) -> FloatArray:
    """Points (N, 3) moved with their parts (N,)."""
    X = parts.X_world[:, frame][part]  # (N, 4, 4)
    return np.asarray(np.einsum("nij,nj->ni", X[:, :3, :3], points) + X[:, :3, 3])


def _depth(start: FloatArray, faces: NDArray[np.int64], points: FloatArray) -> FloatArray:
    """Depths (M,) in meters of points below the surface, or below the hull of an open one."""
    mesh = trimesh.Trimesh(start, faces)  # equal vertices merged
    if mesh.is_watertight:
        scene = surface_scene((mesh.vertices, mesh.faces))
        query = open3d().core.Tensor(np.asarray(points, np.float32))
        return -np.asarray(scene.compute_signed_distance(query, nsamples=3).numpy(), float)
    try:
        planes = ConvexHull(start).equations  # (K, 4), outward normals
    except QhullError:
        return np.full(len(points), -np.inf)
    return np.asarray(-(points @ planes[:, :3].T + planes[:, 3]).max(axis=1))


def _is_convex(start: FloatArray, faces: NDArray[np.int64]) -> bool:
    """True if a closed mesh fills its convex hull."""
    mesh = trimesh.Trimesh(start, faces)
    if not mesh.is_watertight:
        return False
    try:
        hull = ConvexHull(mesh.vertices)
    except QhullError:
        return False
    return bool(abs(mesh.volume) >= _CONVEX * hull.volume)
