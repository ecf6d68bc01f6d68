"""Meshes as evenly sampled surface points: what fingers can touch, and what they must avoid.

Points are drawn by systematic sampling over the cumulative face areas: one point in each of M
equal slices of the total area. Every point then represents the same area, and the points have
fewer holes and clusters than independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh

    from flowplan.robot.gripper import Gripper

_SPACING = 0.008
"""Distance between points that represent obstacles, meters."""
_OBSTACLE_POINTS = (200, 6000)
"""Fewest and most points that represent one obstacle."""
_PAD_POINTS = 20
"""Number of surface points per pad area."""
_CLOUD_POINTS = (2000, 8000)
"""Fewest and most points of an object's cloud."""
_SMOOTH = 8
"""Nearest points, including itself, that a normal is averaged over."""
_SAME_SIDE = 0.5
"""Cosine between two normals from which they are averaged."""


@dataclass(frozen=True, eq=False)
class Surface:
    """M points that each represent the same share of a surface.

    Attributes:
        points: (M, 3) meters.
        normals: (M, 3) unit, outward if the mesh is oriented.
        face: (M,) face that each point lies on.
        area: Area that one point represents, square meters.
    """

    points: FloatArray
    normals: FloatArray
    face: NDArray[np.int64]
    area: float

    def __len__(self) -> int:
        return len(self.face)


_NO_POINTS = np.zeros((0, 3))
EMPTY = Surface(_NO_POINTS, _NO_POINTS, np.zeros(0, np.int64), 0.0)


def unit_vectors(vectors: FloatArray, smallest: float = 1e-12) -> FloatArray:
    """Vectors (..., n) divided by their lengths, or by `smallest` if they are shorter."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, smallest)


def even_frames(total: int, count: int) -> NDArray[np.int64]:
    """Indices of up to `count` of `total` frames, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, total - 1, count).round().astype(int))


def sample_surface(
    mesh: trimesh.Trimesh,
    count: int,
    rng: np.random.Generator,
    *,
    faces: NDArray[np.bool_] | None = None,
) -> Surface:
    """`count` points spread evenly by area over `mesh`, in the frame of the mesh.

    Faces without area get no points; a mesh without any area gives EMPTY. The normals of a closed
    mesh whose faces are wound inside out are flipped to point outward.

    Args:
        mesh: Triangle mesh.
        count: Number of points.
        rng: Random generator.
        faces: (F,) True for faces to sample. Defaults to all.
    """
    corners = np.asarray(mesh.vertices)[mesh.faces]  # (F, 3, 3)
    first_edge = corners[:, 1] - corners[:, 0]
    second_edge = corners[:, 2] - corners[:, 0]
    normal = np.cross(first_edge, second_edge)
    double_area = np.linalg.norm(normal, axis=1)
    weight = double_area if faces is None else np.where(faces, double_area, 0.0)
    total = weight.sum()
    if not np.isfinite(total) or total <= 1e-12:
        return EMPTY
    # The face of each point: one draw within each slice of the cumulative area.
    slices = (np.arange(count) + rng.random(count)) / count
    cumulative = np.cumsum(weight) / total
    face = np.searchsorted(cumulative, slices * cumulative[-1], side="right")
    face = np.minimum(face, len(weight) - 1)
    # Uniform barycentric coordinates within it (Turk, Graphics Gems 1990).
    u, v = rng.random((2, count))
    root = np.sqrt(u)
    barycentric = np.stack([1 - root, root * (1 - v), root * v], axis=-1)
    points = np.einsum("mk,mkc->mc", barycentric, corners[face])
    normals = _orientation(mesh) * normal[face] / double_area[face, None]
    return Surface(points, normals, face, 0.5 * total / count)


def _orientation(mesh: trimesh.Trimesh) -> float:
    """-1 for a closed mesh wound inside out, else 1 (an open mesh has no inside)."""
    return -1.0 if mesh.is_watertight and mesh.volume < 0 else 1.0


def object_cloud(obj: SceneObject, gripper: Gripper, rng: np.random.Generator) -> Surface:
    """The object's surface in the world frame, about 20 points per pad, with smoothed normals.

    The face normals of a scan are noisy. Their mean over neighbors on the same side of the surface
    is closer to what a pad meets.
    """
    from scipy.spatial import cKDTree

    pad_area = gripper.pad_size[0] * gripper.pad_size[1]
    count = _CLOUD_POINTS[0]
    if np.isfinite(obj.mesh.area):
        count = int(np.clip(_PAD_POINTS * obj.mesh.area / pad_area, *_CLOUD_POINTS))
    local = sample_surface(obj.mesh, count, rng)
    if not len(local):
        return EMPTY
    points = transform(obj.X_world_object, local.points)
    raw = local.normals @ obj.X_world_object[:3, :3].T
    near = cKDTree(points).query(points, k=min(_SMOOTH, len(points)))[1]
    alike = np.einsum("mkc,mc->mk", raw[near], raw) > _SAME_SIDE
    smooth = np.einsum("mk,mkc->mc", alike, raw[near])
    return Surface(points, unit_vectors(smooth), local.face, local.area)


def center_of_mass(obj: SceneObject) -> FloatArray:
    """(3,) world frame: that of the volume if the mesh is closed, else that of the surface."""
    mesh = obj.mesh
    closed = mesh.is_watertight and abs(mesh.volume) > 1e-12
    return transform(obj.X_world_object, [mesh.center_mass if closed else mesh.centroid])[0]


@dataclass(frozen=True, eq=False)
class Tracks:
    """M material points of a moving surface, world frame.

    Attributes:
        points: (T, M, 3) meters.
        normals: (T, M, 3) unit, outward if the mesh is oriented.
        area: Area that one point represents at the start, square meters.
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
    """`count` points on the moving faces of an object, at some frames of the motion.

    Args:
        obj: The object.
        motion: Motion of the scene.
        index: Index of the object in the scene.
        frames: (T,) frames of the motion.
        count: Number of points.
        rng: Random generator.
    """
    import trimesh

    vertices = motion.vertices[index]
    faces = obj.mesh.faces
    moving = np.all(motion.moving()[index][faces], axis=1)
    start = trimesh.Trimesh(vertices[0], faces, process=False)
    surface = sample_surface(start, count, rng, faces=moving)
    if not len(surface):
        none = np.zeros((len(frames), 0, 3))
        return Tracks(none, none, 0.0)
    # Points keep their barycentric coordinates.
    corner = faces[surface.face]  # (M, 3)
    barycentric = trimesh.triangles.points_to_barycentric(vertices[0][corner], surface.points)
    triangles = vertices[frames][:, corner]  # (T, M, 3, 3)
    points = np.einsum("mk,tmkc->tmc", barycentric, triangles)
    # Normals of the moving triangles, flipped as those at the start are.
    first_edge = triangles[:, :, 1] - triangles[:, :, 0]
    second_edge = triangles[:, :, 2] - triangles[:, :, 0]
    normals = unit_vectors(np.cross(first_edge, second_edge), 1e-18)
    flip = np.sign(np.sum(normals[0] * surface.normals, axis=-1))
    return Tracks(points, flip[:, None] * normals, surface.area)


def static_points(
    scene: Scene, motion: SceneMotion, index: int, rng: np.random.Generator
) -> FloatArray:
    """(M, 3) surface points, world frame, on the faces of object `index` that do not move."""
    obj = scene.objects[index]
    static = np.all(~motion.moving()[index][obj.mesh.faces], axis=1)
    return _obstacle_points(obj, static, rng)


def neighbor_points(
    obj: SceneObject, scene: Scene, reach: float, rng: np.random.Generator
) -> FloatArray:
    """(M, 3) surface points, world frame, of all else in the scene within `reach` meters of `obj`.

    They lie within the bounding box of `obj`, grown by `reach`.
    """
    lower, upper = obj.vertices_world.min(0) - reach, obj.vertices_world.max(0) + reach
    clouds = []
    for other in scene.objects + scene.obstacles:
        if other.name == obj.name:
            continue
        corners = other.vertices_world[other.mesh.faces]
        close = np.all((corners.min(1) < upper) & (corners.max(1) > lower), axis=1)
        points = _obstacle_points(other, close, rng)
        clouds.append(points[np.all((points > lower) & (points < upper), axis=1)])
    return np.concatenate([np.zeros((0, 3)), *clouds])


def _obstacle_points(
    obj: SceneObject, faces: NDArray[np.bool_], rng: np.random.Generator
) -> FloatArray:
    """(M, 3) points, world frame, that represent some faces (F,) of an obstacle."""
    area = float(obj.mesh.area_faces[faces].sum())
    count = int(np.clip(area / _SPACING**2, *_OBSTACLE_POINTS))
    return transform(obj.X_world_object, sample_surface(obj.mesh, count, rng, faces=faces).points)
