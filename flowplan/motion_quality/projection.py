"""Projection of a bent motion onto the rigid parts of its objects.

A generator that knows nothing of joints bends what is rigid, drags along what should stand still,
and trembles. Each object that is not deformable is replaced by its few rigid parts
(flowplan.motion_quality.grouping), each with the rigid motion that its vertices follow best. A part
that moves less than the motion bends stands still, and a vertex that its part would carry into the
support goes with another part, if that one explains it too. Seams are where
the parts come apart least. Faces and vertices stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowplan.geometry import pose, transform
from flowplan.motion import MOTION_THRESHOLD, SceneMotion
from flowplan.motion_quality.grouping import RigidParts, rigid_parts
from flowplan.motion_quality.seams import settle_seams
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray

QUANTILE = 0.99
"""Share of the vertices that a residual covers: a scan has strays."""
ROUND_OFF = 1e-4
"""Meters; a motion that leaves its rigid parts by less is kept as it is."""
_EXPLAINED = 3.0
"""Multiple of an object's bending that a part may leave of a vertex that it explains."""
_SUNK = 5e-4
"""Meters below the support, or below its first place, at which a vertex is inside it."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A motion of rigid parts, and those parts.

    Attributes:
        motion: The projected motion.
        parts: For each object its rigid parts; None for a deformable one.
        bending: (O,) meters that all but 1 % of the vertices of each object leave the rigid parts
            that explain it best.
        moved: (O,) largest distance of a vertex of each object from where it was, meters.
    """

    motion: SceneMotion
    parts: tuple[RigidParts | None, ...]
    bending: FloatArray
    moved: FloatArray


def project(
    scene: Scene, motion: SceneMotion, deformable: Sequence[bool], *, most: int = 4
) -> Projection:
    """Replace the motion of all objects that are not deformable by that of their rigid parts.

    Args:
        scene: Its objects.
        motion: Any motion of them.
        deformable: For each object, True if it may bend: it keeps its motion.
        most: Largest number of parts of an object.
    """
    vertices: list[FloatArray] = []
    found: list[RigidParts | None] = []
    bending: list[float] = []
    objects = zip(scene.objects, motion.vertices, deformable, strict=True)
    for obj, moving, bends in objects:
        parts = None if bends else rigid_parts(moving, most=most)
        bent = 0.0 if parts is None else float(np.quantile(parts.residual, QUANTILE))
        if parts is not None and parts.residual.max() > ROUND_OFF:
            parts = settle_seams(_at_rest(parts, moving[0]), moving, obj.mesh.edges_unique)
            if scene.support_height is not None:
                parts = _above(scene.support_height, parts, moving)
            moving = _moved_as(parts, moving)
        found.append(parts)
        bending.append(bent)
        vertices.append(moving)
    moved = [
        float(np.linalg.norm(after - before, axis=-1).max())
        for before, after in zip(motion.vertices, vertices, strict=True)
    ]
    return Projection(
        SceneMotion(motion.times, tuple(vertices)), tuple(found), np.array(bending), np.array(moved)
    )


def _at_rest(parts: RigidParts, start: FloatArray) -> RigidParts:
    """Parts with those standing still that move less than the motion bends.

    Args:
        parts: Rigid parts of an object.
        start: (V, 3) its vertices at t = 0, meters.
    """
    noise = max(float(np.quantile(parts.residual, QUANTILE)), MOTION_THRESHOLD)
    X_world, residual = np.array(parts.X_world), np.array(parts.residual)
    for index, X in enumerate(parts.X_world):
        members = parts.label == index
        way = np.linalg.norm(transform(X, start[members]) - start[members], axis=-1)  # (T, V')
        if way.max(initial=0.0) <= noise:
            X_world[index] = pose()
            residual[members] += way.max(axis=0)
    return RigidParts(parts.label, X_world, residual)


def _above(support_height: float, parts: RigidParts, vertices: FloatArray) -> RigidParts:
    """Parts whose vertices (T, V, 3) are not carried into the support, where another part explains
    them too."""
    noise = max(float(np.quantile(parts.residual, QUANTILE)), MOTION_THRESHOLD)
    start = vertices[0]
    floor = np.minimum(start[:, 2], support_height) - _SUNK
    # Vertices (V,) that their own part carries below the floor.
    own = _moved_as(parts, vertices)
    sunk = (own[..., 2] < floor).any(axis=0)

    label, residual = np.array(parts.label), np.array(parts.residual)
    best = np.where(sunk, _EXPLAINED * noise, -np.inf)
    for index, X in enumerate(parts.X_world):
        moved = transform(X, start)  # (T, V, 3)
        left = np.linalg.norm(moved - vertices, axis=-1).max(axis=0)  # (V,)
        better = sunk & ~(moved[..., 2] < floor).any(axis=0) & (left < best)
        label[better], residual[better] = index, left[better]
        best = np.where(better, left, best)
    return RigidParts(label, parts.X_world, residual)


def _moved_as(parts: RigidParts, vertices: FloatArray) -> FloatArray:
    """Vertices (T, V, 3) moved with their parts, from where they are at t = 0."""
    moved = np.empty_like(vertices)
    for index, X in enumerate(parts.X_world):
        members = parts.label == index
        moved[:, members] = transform(X, vertices[0, members])
    moved[0] = vertices[0]
    return moved
