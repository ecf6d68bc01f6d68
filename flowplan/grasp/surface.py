"""A mesh as an even cloud of surface points: what fingers can touch, and what they must not hit.

Points are drawn by systematic sampling over the cumulated face areas: one point in each of M equal slices of the
total area. Every point then stands for the same area, and the cloud has fewer holes and clumps than independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.geometry import transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray

_SPACING = 0.008
"""Metres between the points that stand for what must not be hit."""
_STILL = 2e-3
"""Metres: what moves less than this does not move."""


@dataclass(frozen=True, eq=False)
class Surface:
    """M points that each stand for the same share of a surface.

    Attributes:
        points: (M, 3) metres, in the frame of the mesh they came from.
        normals: (M, 3) unit, outward where the mesh is oriented.
        face: (M,) face that each point lies on.
        area: square metres that one point stands for.
    """

    points: FloatArray
    normals: FloatArray
    face: NDArray[np.int64]
    area: float

    def __len__(self) -> int:
        return len(self.face)


EMPTY = Surface(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64), 0.0)


def sample_surface(
    mesh: trimesh.Trimesh,
    count: int,
    rng: np.random.Generator,
    *,
    faces: NDArray[np.bool_] | None = None,
) -> Surface:
    """`count` points spread evenly by area over `mesh`, or over its `faces` (F,) only.

    Faces without area get no points; a mesh without any gives EMPTY. The normals of a closed mesh whose faces are wound
    inside out are turned to point outward.
    """
    corners = np.asarray(mesh.vertices)[mesh.faces]  # (F, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.linalg.norm(normal, axis=1)
    weight = double_area if faces is None else np.where(faces, double_area, 0.0)
    total = weight.sum()
    if not np.isfinite(total) or total <= 1e-12:
        return EMPTY
    slices = (np.arange(count) + rng.random(count)) / count
    cumulated = np.cumsum(weight) / total
    face = np.minimum(
        np.searchsorted(cumulated, slices * cumulated[-1], side="right"), len(weight) - 1
    )
    u, v = rng.random((2, count))
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    barycentric = np.stack([1 - root, root * (1 - v), root * v], axis=-1)
    points = np.einsum("mk,mkc->mc", barycentric, corners[face])
    return Surface(
        points, _outward(mesh) * normal[face] / double_area[face, None], face, 0.5 * total / count
    )


def _outward(mesh: trimesh.Trimesh) -> float:
    """-1 for a closed mesh wound inside out, else 1 (an open mesh has no inside)."""
    return -1.0 if mesh.is_watertight and mesh.volume < 0 else 1.0


@dataclass(frozen=True, eq=False)
class Tracks:
    """M material points of a moving surface, world frame.

    Attributes:
        points: (T, M, 3) metres.
        normals: (T, M, 3) unit, outward where the mesh is oriented.
        area: square metres that one point stands for at the start.
    """

    points: FloatArray
    normals: FloatArray
    area: float

    def __len__(self) -> int:
        return self.points.shape[1]


def track_surface(
    obj: SceneObject,
    motion: SceneMotion,
    index: int,
    frames: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> Tracks:
    """`count` points on the faces of `obj` (number `index` of the scene) that move, at some frames of the motion."""
    vertices = motion.vertices[index]
    faces = obj.mesh.faces
    moving = np.all(motion.moving(_STILL)[index][faces], axis=1)
    start = trimesh.Trimesh(vertices[0], faces, process=False)
    surface = sample_surface(start, count, rng, faces=moving)
    if not len(surface):
        return Tracks(np.zeros((len(frames), 0, 3)), np.zeros((len(frames), 0, 3)), 0.0)
    corner = faces[surface.face]  # (M, 3)
    barycentric = trimesh.triangles.points_to_barycentric(vertices[0][corner], surface.points)
    triangles = vertices[frames][:, corner]  # (T, M, 3, 3)
    points = np.einsum("mk,tmkc->tmc", barycentric, triangles)
    normals = np.cross(
        triangles[:, :, 1] - triangles[:, :, 0], triangles[:, :, 2] - triangles[:, :, 0]
    )
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-18)
    flip = np.sign(
        np.sum(normals[0] * surface.normals, axis=-1)
    )  # a mesh wound inside out was turned
    return Tracks(points, flip[:, None] * normals, surface.area)


def still_points(
    scene: Scene, motion: SceneMotion, index: int, rng: np.random.Generator
) -> FloatArray:
    """(M, 3) surface points, world frame, of the faces of object `index` that stay where they are."""
    obj = scene.objects[index]
    still = np.all(~motion.moving(_STILL)[index][obj.mesh.faces], axis=1)
    area = float(obj.mesh.area_faces[still].sum())
    count = int(np.clip(area / _SPACING**2, 200, 6000))
    return transform(obj.X_world_object, sample_surface(obj.mesh, count, rng, faces=still).points)


def neighbours(
    obj: SceneObject, scene: Scene, reach: float, rng: np.random.Generator
) -> FloatArray:
    """(M, 3) surface points, world frame, of all other objects and obstacles within `reach` metres of `obj`."""
    low, high = obj.vertices_world.min(0) - reach, obj.vertices_world.max(0) + reach
    clouds = []
    for other in scene.objects + scene.obstacles:
        if other.name == obj.name:
            continue
        corners = other.vertices_world[other.mesh.faces]
        close = np.all((corners.min(1) < high) & (corners.max(1) > low), axis=1)
        area = float(other.mesh.area_faces[close].sum())
        count = int(np.clip(area / _SPACING**2, 200, 6000))
        points = transform(
            other.X_world_object, sample_surface(other.mesh, count, rng, faces=close).points
        )
        clouds.append(points[np.all((points > low) & (points < high), axis=1)])
    return np.concatenate([np.zeros((0, 3)), *clouds])
