"""Place of the least clearance: the closest points of the two bodies that the certificate names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from flowplan.collision.phase_geometry import mesh_of_faces
from flowplan.motion import SceneMotion
from flowplan.scene import SceneObject
from flowplan.utils.checks import FloatArray
from flowplan.validation.phase_world import HELD
from flowplan.viz.nodes import value_at
from flowplan.viz.run import Run

COLOR = (225, 30, 140)
_BALL = 0.006
"""Radius of the balls at the closest points, meters."""
_SLAB = 3.0
"""Half of the side of the support, as far as a robot reaches, meters."""


@dataclass(frozen=True, eq=False)
class Closest:
    """Closest points of two bodies.

    Attributes:
        points: (2, 3) one on each body, world frame, meters.
        distance: meters between them.
    """

    points: FloatArray
    distance: float


def add_clearance(scene: viser.SceneApi, run: Run) -> None:
    """Mark the place of the least clearance: a line between two points, with its length.

    Nothing is added if the certificate names no pair, or a body that is not shown.
    """
    found = closest(run)
    if found is None or run.certificate is None:
        return
    for name, point in zip(("a", "b"), found.points, strict=True):
        scene.add_icosphere(f"/least clearance/{name}", _BALL, COLOR, position=point)
    scene.add_line_segments(
        "/least clearance/line", found.points[None], COLOR, thickness=3.0, thickness_units="screen"
    )
    middle = found.points.mean(axis=0) + np.array([0.0, 0.0, 2 * _BALL])
    amount = f"{1e3 * run.certificate.clearance:.1f} mm"
    scene.add_label("/least clearance/label", amount, position=middle, anchor="bottom-center")


def label(run: Run) -> str:
    """One line on the least clearance: amount, pair and time; empty without a certificate."""
    found = run.certificate
    if found is None or not found.closest:
        return ""
    pair = " and ".join(found.closest)
    return f"{1e3 * found.clearance:.1f} mm at {found.worst_time:.2f} s, {pair}"


def closest(run: Run) -> Closest | None:
    """Closest points of the certificate's pair at its time; None if a body is not known."""
    if run.certificate is None or len(run.certificate.closest) != 2:
        return None
    meshes = [body(run, name, run.certificate.worst_time) for name in run.certificate.closest]
    if meshes[0] is None or meshes[1] is None:
        return None
    return closest_points(meshes[0], meshes[1])


def body(run: Run, name: str, t: float) -> trimesh.Trimesh | None:
    """Mesh of a body by its name in the certificate, at time t of the robot, world frame."""
    # A link, as the hull that is checked.
    robot = run.robot
    if robot is not None and run.trajectory is not None and name in robot.collision_meshes:
        width = float(np.interp(t, run.trajectory.times, run.trajectory.grip))
        X = robot.fk(run.trajectory.at(t)[None], width)[0, robot.link_names.index(name)]
        return robot.collision_meshes[name].copy().apply_transform(X)
    for obstacle in run.scene.obstacles:
        if obstacle.name == name:
            return obstacle.mesh_world
    # An object, or one part of it.
    if run.motion is not None:
        for index, obj in enumerate(run.scene.objects):
            if name == obj.name or name.startswith(f"{obj.name}, "):
                return _object(run, run.motion, index, name, t)
        if name == HELD:
            return _object(run, run.motion, _target(run.motion), name, t)
    if name.startswith("support") and run.scene.support_height is not None:
        slab = trimesh.creation.box([2 * _SLAB, 2 * _SLAB, 0.1])
        slab.apply_translation([0, 0, run.scene.support_height - 0.05])
        return slab
    return None


def closest_points(a: trimesh.Trimesh, b: trimesh.Trimesh) -> Closest:
    """Closest points of two meshes, as surfaces."""
    import coal

    shapes = [_surface(mesh) for mesh in (a, b)]
    request, result = coal.DistanceRequest(), coal.DistanceResult()
    at = coal.Transform3s()
    coal.distance(shapes[0], at, shapes[1], at, request, result)
    points = np.array([result.getNearestPoint1(), result.getNearestPoint2()], float)
    return Closest(points.reshape(2, 3), float(result.min_distance))


def _surface(mesh: trimesh.Trimesh) -> object:
    """Triangles of a mesh, as coal takes them."""
    import coal

    model = coal.BVHModelOBBRSS()
    model.beginModel(len(mesh.faces), len(mesh.vertices))
    vertices = coal.StdVec_Vec3s()
    for vertex in np.asarray(mesh.vertices, float):
        vertices.append(vertex)
    triangles = coal.StdVec_Triangle()
    for i, j, k in np.asarray(mesh.faces).tolist():
        triangles.append(coal.Triangle(i, j, k))
    model.addSubModel(vertices, triangles)
    model.endModel()
    return model


def _target(motion: SceneMotion) -> int:
    """Index of the object that moves farthest, which the robot holds."""
    farthest = [np.linalg.norm(v - v[0], axis=-1).max() for v in motion.vertices]
    return int(np.argmax(farthest))


def _object(run: Run, motion: SceneMotion, index: int, name: str, t: float) -> trimesh.Trimesh:
    """Mesh of an object at time t: all of it, or the part that moves or stands."""
    obj: SceneObject = run.scene.objects[index]
    vertices = value_at(motion.times, motion.vertices[index], run.flow_time(t))
    faces: NDArray[np.int64] = np.asarray(obj.mesh.faces)
    moves = motion.moving()[index][faces].any(axis=1)  # (F,)
    if index == _target(motion) and moves.any() and not moves.all():
        faces = faces[~moves] if name == obj.name else faces[moves]
    return mesh_of_faces(vertices, faces)
