"""Procedural objects in motion, as their own mesh or as a scan, with the true part of each face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import look_at, transform
from flowplan.scan import NoiseOptions, ScanOptions, noisy_depth, render_frame, scan_frames
from flowplan.scan.depth.frames import DepthFrame, intrinsics_from_fov
from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import make

Input = Literal["mesh", "scan"]
VIEWS = 8
"""Depth images of a scan."""
_FIELD_OF_VIEW = 0.9
"""Radians, of the depth camera."""
_WAVES = 4
"""Number of waves that a bent motion is made of."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One joint of one object, and the part that moves on it.

    Attributes:
        name: family, seed and joint.
        mesh: the mesh that moves, object frame, meters.
        carried: (V,) True for vertices of the moving part.
        moving: (F,) True for its faces.
        X: (T, 4, 4) true motion of the part from t = 0.
        kind: "revolute" or "prismatic".
        axis: (3,) direction of the joint, signed so that the amount is positive.
        point: (3,) point on its axis.
        amount: how far it moves, rad or m.
    """

    name: str
    mesh: trimesh.Trimesh
    carried: NDArray[np.bool_]
    moving: NDArray[np.bool_]
    X: FloatArray
    kind: str
    axis: FloatArray
    point: FloatArray
    amount: float


@dataclass(frozen=True)
class Fault:
    """Faults of a generated motion."""

    bend: float = 0.0
    """Share of its mean way by which the moving part leaves its rigid motion, RMS."""
    drag: float = 0.0
    """Share of that way by which what should stand still moves, RMS."""
    band: float = 0.0
    """Radius in which the motions of both sides of a border blend, as a share of the size."""


def subject(
    family: str, seed: int, shown: Input, *, frames: int = 13, most: float = 0.6
) -> Subject | None:
    """A joint of an object that opens or closes; None if one rigid part does not show it.

    Half of them begin shut, or at their joint's zero, the others anywhere; they move through 60
    to 100 % of the larger rest of their range.

    Args:
        family: of the procedural objects.
        seed: of the object, its joint and its motion.
        shown: as its own mesh, or as a scan fused from noisy depth images.
        frames: number of times.
        most: largest side that objects are scaled down to, meters.
    """
    obj = make(family, seed)
    if not obj.free:
        return None
    rng = np.random.default_rng(seed + 1)
    number = int(rng.integers(len(obj.free)))
    joint = obj.free[number]
    start, end = _range(joint.lower, joint.upper, rng)
    q = np.repeat(np.clip(0.0, obj.lower, obj.upper)[None], frames, axis=0)
    q[:, number] = np.linspace(start, end, frames)
    X_object_link = obj.link_poses(q)  # (T, L, 4, 4)
    D = X_object_link @ np.linalg.inv(X_object_link[0])
    moves = np.abs(D[-1] - np.eye(4)).max(axis=(1, 2)) > 1e-6  # (L,)
    posed = obj.posed(q[0])
    share = posed.area_faces[moves[obj.link_of_face]].sum() / posed.area
    # The truth is one part on one joint.
    link = list(obj.links).index(joint.child)
    alike = all(np.abs(D[-1, k] - D[-1, link]).max() < 1e-6 for k in np.flatnonzero(moves))
    if not (alike and moves[link] and 0.01 < share < 0.99):
        return None
    scale = min(1.0, most / float(posed.extents.max()))
    posed.apply_scale(scale)
    X, X_first = D[:, link].copy(), X_object_link[0, link]
    X[:, :3, 3] *= scale
    mesh = posed if shown == "mesh" else scanned(posed, seed)
    of_vertex, of_face = _links(mesh, posed, obj, shown)
    return Subject(
        f"{family}-{seed}-{joint.name}",
        mesh,
        moves[of_vertex],
        moves[of_face],
        X,
        joint.kind,
        X_first[:3, :3] @ joint.axis * np.sign(end - start),
        scale * X_first[:3, 3],
        abs(end - start) * (scale if joint.kind == "prismatic" else 1.0),
    )


def _range(low: float, high: float, rng: np.random.Generator) -> tuple[float, float]:
    """Position of a joint at the start and at the end."""
    start = float(np.clip(0.0, low, high)) if rng.random() < 0.5 else rng.uniform(low, high)
    far = high if high - start >= start - low else low
    return start, start + rng.uniform(0.6, 1.0) * (far - start)


def scanned(mesh: trimesh.Trimesh, seed: int) -> trimesh.Trimesh:
    """The mesh fused from noisy depth images from all around and above: one skin."""
    rng = np.random.default_rng(seed)
    middle, size = mesh.bounds.mean(axis=0), float(np.linalg.norm(mesh.extents))
    intrinsics = intrinsics_from_fov(320, 240, _FIELD_OF_VIEW)
    frames = []
    for k in range(VIEWS):
        turn, height = 2 * np.pi * (k + rng.random()) / VIEWS, rng.uniform(0.15, 0.9)
        away = np.array(
            [np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)]
        )
        ideal = render_frame(
            [mesh], intrinsics, look_at(middle + max(1.25 * size, 0.35) * away, middle)
        )
        depth = noisy_depth(ideal.depth, rng, NoiseOptions())
        mask = (depth > 0).astype(np.int32)
        frames.append(DepthFrame(depth, ideal.intrinsics, ideal.X_world_camera, mask=mask))
    options = ScanOptions(support_height=float(mesh.bounds[0, 2]), max_cells=700_000)
    obj = scan_frames(frames, options).objects[0]
    return trimesh.Trimesh(obj.vertices_world, obj.mesh.faces, process=False)


def _links(
    mesh: trimesh.Trimesh, truth: trimesh.Trimesh, obj: ArticulatedObject, shown: Input
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Link of each vertex (V,) and face (F,): its own, or that of the nearest true surface."""
    if shown == "mesh":
        link = np.zeros(len(mesh.vertices), np.int64)
        link[mesh.faces] = obj.link_of_face[:, None]
        return link, obj.link_of_face
    on, face = trimesh.sample.sample_surface(truth, 60_000, seed=0)
    tree, link = cKDTree(on), obj.link_of_face[face]
    return link[tree.query(mesh.vertices)[1]], link[tree.query(mesh.triangles_center)[1]]


def in_motion(subject: Subject, fault: Fault, seed: int = 0) -> FloatArray:
    """Motion (T, V, 3) of a subject's mesh with faults of a generator."""
    rng = np.random.default_rng(seed)
    start, carried = np.asarray(subject.mesh.vertices), subject.carried
    size = float(np.ptp(start, axis=0).max())
    share = carried.astype(float)
    # Near a border the motion is a mean of the neighbors'.
    if fault.band > 0:
        near = cKDTree(start).query_ball_point(start, fault.band * size)
        share = np.array([carried[n].mean() for n in near])
    motion = start + share[:, None] * (transform(subject.X, start) - start)
    way = np.linalg.norm(motion - start, axis=-1)[:, carried].mean(axis=1)  # (T,)
    part = float(np.ptp(start[carried], axis=0).max())
    bend, drag = _waves(start, part, carried, rng), _waves(start, size, ~carried, rng)
    error = np.where(carried[:, None], fault.bend * bend, fault.drag * drag)
    return motion + way[:, None, None] * error


def _waves(
    points: FloatArray, size: float, where: NDArray[np.bool_], rng: np.random.Generator
) -> FloatArray:
    """Smooth random vectors (V, 3) of RMS length 1 at some points: waves as long as their part."""
    field = np.zeros(points.shape)
    for _ in range(_WAVES):
        k = rng.standard_normal(3) * 1.5 * np.pi / size
        field += np.cos(points @ k + rng.uniform(0, 2 * np.pi))[:, None] * rng.standard_normal(3)
    return field / np.sqrt((field[where] ** 2).sum(axis=-1).mean())
