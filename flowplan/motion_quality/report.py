"""Report on a motion before it is planned for: its rigid parts, tears, and what floats.

An object that is not deformable moves as a few rigid parts. What remains of its motion beside the
best few (flowplan.motion_quality.grouping) is bending. Parts that come off tear the surface
between them: its edges stretch. A hinge, and a drawer that a scan has fused with its cabinet,
stretch edges too, by less than the object's size; in a convex body nothing can slide or turn. An
object that moves by itself ends where something carries it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import trimesh
from scipy.spatial import ConvexHull, QhullError

from flowplan.motion import SceneMotion
from flowplan.motion_quality.floating import gap_to_others
from flowplan.motion_quality.grouping import rigid_parts
from flowplan.motion_quality.options import MotionOptions
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray

_QUANTILE = 0.99
"""Share of the vertices that a residual covers: a scan has strays."""
_CONVEX = 0.98
"""Share of its convex hull's volume that a convex body fills at least."""


@dataclass(frozen=True)
class ObjectQuality:
    """Measurements on one object's motion.

    Attributes:
        name: The object's.
        deformable: It may bend and stretch, and nothing is measured.
        parts: Number of rigid parts found.
        way: Meters, largest displacement of a vertex.
        residual: Meters that its vertices leave the motion of their parts (all but 1 %).
        stretch: Meters, largest growth of an edge.
        gap: Meters at the end from whatever could carry it; 0 if it never moves, or the robot moves
            it.
        reason: Why it is beyond the limits; empty if it is not.
    """

    name: str
    deformable: bool
    parts: int
    way: float
    residual: float
    stretch: float
    gap: float = 0.0
    reason: str = ""

    @property
    def residual_share(self) -> float:
        """Residual over the way."""
        return self.residual / self.way if self.way > 0 else 0.0


@dataclass(frozen=True)
class MotionReport:
    """Quality of a scene's motion.

    Attributes:
        objects: One record for each object of the scene.
    """

    objects: tuple[ObjectQuality, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons for which the motion is beyond the limits, one line for each object."""
        return tuple(quality.reason for quality in self.objects if quality.reason)


def motion_report(
    scene: Scene,
    motion: SceneMotion,
    deformable: Sequence[bool],
    limits: MotionOptions,
    target: int | None = None,
) -> MotionReport:
    """Measure a motion against limits.

    Args:
        scene: Its objects.
        motion: Their motion.
        deformable: For each object, True if it may bend.
        limits: Requirements.
        target: Index of the object that the robot moves, which may end in the air: the robot may
            hold it.
    """
    found = []
    moves = [bool(moving.any()) for moving in motion.moving()]
    triples = zip(scene.objects, motion.vertices, deformable, strict=True)
    for index, (obj, vertices, bends) in enumerate(triples):
        quality = _quality(obj.name, obj.mesh, vertices, bends, limits)
        if moves[index] and index != target:
            quality = replace(quality, gap=_gap(scene, motion, index))
        found.append(replace(quality, reason=_reason(quality, obj.mesh, limits)))
    return MotionReport(tuple(found))


def _quality(
    name: str, mesh: trimesh.Trimesh, vertices: FloatArray, bends: bool, limits: MotionOptions
) -> ObjectQuality:
    way = float(np.linalg.norm(vertices - vertices[0], axis=-1).max())
    if bends:
        return ObjectQuality(name, True, 0, way, 0.0, 0.0)
    found = rigid_parts(vertices, most=limits.parts)
    residual = float(np.quantile(found.residual, _QUANTILE))
    return ObjectQuality(name, False, len(found.X_world), way, residual, _stretch(mesh, vertices))


def _gap(scene: Scene, motion: SceneMotion, index: int) -> float:
    """Distance in meters, at the end, of an object from all others, obstacles and the support."""
    ends = [
        (vertices[-1], obj.mesh.faces)
        for obj, vertices in zip(scene.objects, motion.vertices, strict=True)
    ]
    own = ends.pop(index)
    others = ends + [(o.vertices_world, o.mesh.faces) for o in scene.obstacles]
    return gap_to_others(own, others, scene.support_height)


def _reason(quality: ObjectQuality, mesh: trimesh.Trimesh, limits: MotionOptions) -> str:
    """Reason for which an object with this mesh is beyond the limits; empty if it is not."""
    if not quality.residual <= limits.max_residual:
        return (
            f"{quality.name} bends: it leaves the motion of {quality.parts} rigid parts by "
            f"{1e3 * quality.residual:.0f} mm, {100 * quality.residual_share:.0f} % of its way "
            f"(limit {1e3 * limits.max_residual:g} mm)"
        )
    allowed = limits.max_stretch * float(np.ptp(mesh.vertices, axis=0).max())
    if not quality.stretch <= limits.max_stretch_convex and _is_convex(mesh):
        allowed = min(allowed, limits.max_stretch_convex)
    if not quality.stretch <= allowed:
        return (
            f"{quality.name} tears: an edge of its mesh stretches by "
            f"{1e3 * quality.stretch:.0f} mm (limit {1e3 * allowed:.0f} mm)"
        )
    if not quality.gap <= limits.max_gap:
        return (
            f"{quality.name} floats: at the end it is {1e3 * quality.gap:.0f} mm from everything "
            f"that could carry it (limit {1e3 * limits.max_gap:g} mm)"
        )
    return ""


def _stretch(mesh: trimesh.Trimesh, vertices: FloatArray) -> float:
    """Largest growth in meters of an edge whose corners are at vertices (T, V, 3)."""
    edge = mesh.edges_unique
    length = np.linalg.norm(vertices[:, edge[:, 0]] - vertices[:, edge[:, 1]], axis=-1)  # (T, E)
    return float((length - length[0]).max())


def _is_convex(mesh: trimesh.Trimesh) -> bool:
    """True if a closed mesh fills its convex hull."""
    if not mesh.is_watertight:
        return False
    try:
        hull = ConvexHull(mesh.vertices)
    except QhullError:
        return False
    return bool(abs(mesh.volume) >= _CONVEX * hull.volume)
