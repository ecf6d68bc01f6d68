"""Report on a motion before it is planned for, and the motion as it will be planned.

An object that is not deformable moves as a few rigid parts; what remains of its motion beside them
is bending, and it is projected onto them (flowplan.motion_quality.projection). In a torn object no
part of a seam stays together (tearing). No object passes through the support, an obstacle or
another object (penetration), and one that moves by itself ends where something carries it
(floating).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowplan.collision.phase_geometry import is_deformable
from flowplan.motion import SceneMotion
from flowplan.motion_quality.floating import gap_to_others
from flowplan.motion_quality.options import MotionOptions
from flowplan.motion_quality.penetration import penetrations
from flowplan.motion_quality.projection import QUANTILE, Projection, project
from flowplan.motion_quality.smoothness import jitter, speed, tool_speed_limit
from flowplan.motion_quality.tearing import largest_opening
from flowplan.robot import Robot
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from flowplan.validation.options import ValidationOptions

_SMALL = 3e-3
"""Meters of bending that are the noise of a scan, however short the way."""


@dataclass(frozen=True)
class ObjectQuality:
    """Measurements on one object's motion.

    Attributes:
        name: The object's.
        deformable: It may bend: strain and edges stand for parts and tears.
        moves: Some vertex of it moves.
        parts: Number of rigid parts found; 0 for a deformable object.
        way: Meters, largest displacement of a vertex.
        residual: Meters that its vertices leave the motion of their parts (all but 1 %).
        projected: Meters that the projection moves a vertex at most; 0 without one.
        stretch: Meters, largest growth of an edge, of the motion as it was given.
        strain: Share by which its edges grow (all but 1 %), of the motion as it was given.
        tear: Meters by which a part comes off; growth of an edge of a deformable object.
        penetration: Meters of its deepest overlap beyond what is allowed; 0 if there is none.
        penetration_allowed: Meters that would be allowed there.
        penetration_time: Seconds.
        penetration_with: Name of what it overlaps; empty if there is nothing.
        gap: Meters at the end from whatever could carry it; 0 if it never moves.
        speed: Largest speed of a vertex in m/s.
        jitter: Meters, standard deviation of the noise of its vertices, an axis (smoothness).
        reason: Reason for which it is beyond the limits; empty if it is not.
    """

    name: str
    deformable: bool = False
    moves: bool = False
    parts: int = 0
    way: float = 0.0
    residual: float = 0.0
    projected: float = 0.0
    stretch: float = 0.0
    strain: float = 0.0
    tear: float = 0.0
    penetration: float = 0.0
    penetration_allowed: float = 0.0
    penetration_time: float = 0.0
    penetration_with: str = ""
    gap: float = 0.0
    speed: float = 0.0
    jitter: float = 0.0
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
        target: Name of the object that moves farthest, which the robot moves.
        tool_speed: Largest speed in m/s of a point of it, where the robot may hold it.
        tool_speed_limit: Speed in m/s that the arm's tool reaches in every direction, at home; 0 if
            there is no arm. A faster motion is slowed down, or timed anew with timing="fast".
    """

    objects: tuple[ObjectQuality, ...]
    target: str = ""
    tool_speed: float = 0.0
    tool_speed_limit: float = 0.0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons for which the motion is beyond the limits, one line for each object."""
        return tuple(quality.reason for quality in self.objects if quality.reason)


def motion_report(
    scene: Scene,
    motion: SceneMotion,
    options: MotionOptions | None = None,
    *,
    robot: Robot | None = None,
    contact: ValidationOptions | None = None,
) -> MotionReport:
    """Report on a motion.

    Args:
        scene: Its objects, obstacles and support.
        motion: Their motion.
        options: Limits, and whether the motion is projected onto rigid parts. Defaults to
            MotionOptions().
        robot: The arm, for the speed that it reaches.
        contact: Depths of contact that are allowed. Defaults to ValidationOptions().
    """
    return prepare(scene, motion, options, robot=robot, contact=contact)[1]


def prepare(
    scene: Scene,
    motion: SceneMotion,
    options: MotionOptions | None = None,
    *,
    robot: Robot | None = None,
    contact: ValidationOptions | None = None,
) -> tuple[SceneMotion, MotionReport]:
    """The motion to plan for, projected onto rigid parts if `options` ask for it, and its report.

    Arguments as for `motion_report`. Tears and overlaps are those of the motion to plan for.
    """
    options, contact = options or MotionOptions(), contact or ValidationOptions()
    bends = [is_deformable(scene, motion, i) for i in range(len(scene.objects))]
    projection = project(scene, motion, bends, most=options.parts)
    planned = projection.motion if options.project == "auto" else motion
    moved = projection.moved if options.project == "auto" else np.zeros(len(bends))
    found = [
        _bending(scene.objects[i], motion.vertices[i], projection, i) for i in range(len(bends))
    ]

    # The motion to plan for: tears, overlaps, what floats, speed and jitter.
    farthest = int(np.argmax([quality.way for quality in found]))
    overlaps = penetrations(scene, planned, projection.parts, contact)
    objects = []
    for index, quality in enumerate(found):
        obj, vertices, overlap = scene.objects[index], planned.vertices[index], overlaps[index]
        parts = projection.parts[index]
        torn = quality.stretch
        if parts is not None:
            torn = largest_opening(obj.mesh, vertices[0], parts).distance
        quality = replace(
            quality,
            projected=float(moved[index]),
            tear=torn,
            penetration=overlap.depth,
            penetration_allowed=overlap.allowed,
            penetration_time=overlap.time,
            penetration_with=overlap.other,
            gap=_gap(scene, planned, index) if quality.moves else 0.0,
            speed=speed(planned.times, vertices),
            jitter=jitter(vertices),
        )
        objects.append(replace(quality, reason=_reason(quality, index == farthest, options)))
    limit = 0.0 if robot is None else tool_speed_limit(robot)
    target = objects[farthest]
    return planned, MotionReport(tuple(objects), target.name, target.speed, limit)


def _bending(
    obj: SceneObject, vertices: FloatArray, projection: Projection, index: int
) -> ObjectQuality:
    """Way, parts and stretch of an object's motion as it was given."""
    parts = projection.parts[index]
    way = np.linalg.norm(vertices - vertices[0], axis=-1).max()
    edge = obj.mesh.edges_unique
    length = np.linalg.norm(vertices[:, edge[:, 0]] - vertices[:, edge[:, 1]], axis=-1)  # (T, E)
    growth = (length - length[0]).max(axis=0)  # (E,)
    strain = growth / np.maximum(length[0], 1e-9)
    return ObjectQuality(
        obj.name,
        deformable=parts is None,
        moves=bool(way > 0),
        parts=0 if parts is None else len(parts.X_world),
        way=float(way),
        residual=float(projection.bending[index]),
        stretch=float(growth.max()),
        strain=float(np.quantile(strain, QUANTILE)),
    )


def _gap(scene: Scene, motion: SceneMotion, index: int) -> float:
    """Distance in meters, at the end, of an object from all others, obstacles and the support."""
    ends = [
        (vertices[-1], obj.mesh.faces)
        for obj, vertices in zip(scene.objects, motion.vertices, strict=True)
    ]
    own = ends.pop(index)
    others: Sequence[tuple[FloatArray, np.ndarray]] = ends + [
        (o.vertices_world, o.mesh.faces) for o in scene.obstacles
    ]
    return gap_to_others(own, others, scene.support_height)


def _reason(quality: ObjectQuality, moved_by_robot: bool, options: MotionOptions) -> str:
    """Reason for which the motion of an object is beyond the limits; empty if it is not."""
    q, most = quality, options
    mm = 1e3
    allowed = min(most.max_residual, max(most.max_residual_share * q.way, _SMALL))
    if not q.residual <= allowed:
        return (
            f"{q.name} bends: it leaves the motion of {q.parts} rigid parts by "
            f"{mm * q.residual:.0f} mm, {100 * q.residual_share:.0f} % of its way "
            f"(limit {mm * allowed:.0f} mm)"
        )
    if q.deformable and not q.strain <= most.max_strain:
        return f"{q.name} stretches by {100 * q.strain:.0f} % (limit {100 * most.max_strain:.0f} %)"
    if not q.tear <= most.max_tear:
        what = "an edge grows" if q.deformable else "a part comes off"
        return f"{q.name} tears: {what} by {mm * q.tear:.0f} mm (limit {mm * most.max_tear:.0f} mm)"
    if most.penetration and q.penetration_with:
        return (
            f"{q.name} and {q.penetration_with} overlap by {mm * q.penetration:.1f} mm "
            f"at {q.penetration_time:.2f} s of the motion "
            f"({mm * q.penetration_allowed:.1f} mm allowed)"
        )
    # The robot may hold what it moves itself.
    if not moved_by_robot and not q.gap <= most.max_gap:
        return (
            f"{q.name} floats: at the end it is {mm * q.gap:.0f} mm from everything "
            f"that could carry it (limit {mm * most.max_gap:.0f} mm)"
        )
    return ""
