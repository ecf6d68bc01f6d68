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
"""Waves that a bent motion is made of."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One joint of one object in motion.

    Attributes:
        name: family, seed, joint and direction.
        mesh: the mesh that moves, object frame, meters.
        vertices: (T, V, 3) its motion.
        moving: (F,) True for faces of the moving part.
        kind: "revolute" or "prismatic".
        axis: (3,) direction of the joint, signed so that the amount is positive.
        point: (3,) point on its axis.
        amount: how far it moves, rad or m.
    """

    name: str
    mesh: trimesh.Trimesh
    vertices: FloatArray
    moving: NDArray[np.bool_]
    kind: str
    axis: FloatArray
    point: FloatArray
    amount: float


@dataclass(frozen=True)
class Fault:
    """Faults of a generated motion, as shares of the moving part's mean way."""

    bend: float = 0.0
    """Share of the way by which the moving part leaves its rigid motion, RMS."""
    drag: float = 0.0
    """Share of the way by which what should stand still moves, RMS."""
    band: float = 0.0
    """Width of the band at the border in which the two motions blend, as a share of the size."""


def sample(
    family: str,
    seed: int,
    shown: Input,
    fault: Fault = Fault(),
    *,
    frames: int = 13,
    most: float = 0.6,
) -> Sample | None:
    """A joint of an object, opened from near shut or closed; None if it moves nothing visible.

    Args:
        family: of the procedural objects.
        seed: of the object, its joint and its motion.
        shown: as its own mesh, or as a scan fused from noisy depth images.
        fault: how the motion errs.
        frames: number of times.
        most: largest side that objects are scaled to, meters.
    """
    obj = make(family, seed)
    rng = np.random.default_rng(seed + 1)
    if not obj.free:
        return None
    joint = int(rng.integers(len(obj.free)))
    # The others stay; this one opens from shut half of the time.
    rest = np.where(
        rng.random(len(obj.free)) < 0.7,
        np.clip(0, obj.lower, obj.upper),
        0.5 * (obj.lower + obj.upper),
    )
    low, high = obj.lower[joint], obj.upper[joint]
    start = np.clip(0, low, high) if rng.random() < 0.5 else rng.uniform(low, high)
    ends = np.array([low, high])
    end = ends[np.argmax(np.abs(ends - start))]
    end = start + rng.uniform(0.6, 1.0) * (end - start)
    q = np.repeat(rest[None], frames, axis=0)
    q[:, joint] = start + (end - start) * np.linspace(0, 1, frames)
    X = obj.link_poses(q)  # (T, L, 4, 4)
    D = X @ np.linalg.inv(X[0])  # (T, L, 4, 4) since t = 0
    moves = np.abs(D[-1] - np.eye(4)).max(axis=(1, 2)) > 1e-6  # (L,)
    posed = obj.posed(q[0])
    area = posed.area_faces
    if not 0.005 < area[moves[obj.link_of_face]].sum() / area.sum() < 0.995:
        return None
    # One motion for all moving links, or the truth would need more parts than two.
    if any(np.abs(D[-1, k] - D[-1, np.argmax(moves)]).max() > 1e-6 for k in np.flatnonzero(moves)):
        return None
    scale = min(1.0, most / float(posed.extents.max()))
    posed.apply_scale(scale)
    D[:, :, :3, 3] *= scale
    mesh = posed if shown == "mesh" else scanned(posed, seed)
    link = nearest_link(mesh, posed, obj, shown)
    vertices = moved(mesh.vertices, link, D, moves, fault, rng)
    moving = nearest_face_link(mesh, posed, obj, shown)
    child = obj.free[joint]
    i = list(obj.links).index(child.child)
    frame = X[0, i]
    axis = frame[:3, :3] @ child.axis * np.sign(end - start)
    return Sample(
        f"{family}-{seed}-{child.name}",
        mesh,
        vertices,
        moves[moving],
        child.kind,
        axis,
        scale * frame[:3, 3],
        abs(end - start) * (scale if child.kind == "prismatic" else 1.0),
    )


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


def nearest_link(
    mesh: trimesh.Trimesh, truth: trimesh.Trimesh, obj: ArticulatedObject, shown: Input
) -> NDArray[np.int64]:
    """Link (V,) of each vertex: its own, or that of the nearest true surface point."""
    if shown == "mesh":
        link = np.zeros(len(mesh.vertices), np.int64)
        link[mesh.faces] = obj.link_of_face[:, None]
        return link
    return _nearest(mesh.vertices, truth, obj)


def nearest_face_link(
    mesh: trimesh.Trimesh, truth: trimesh.Trimesh, obj: ArticulatedObject, shown: Input
) -> NDArray[np.int64]:
    """Link (F,) of each face."""
    if shown == "mesh":
        return obj.link_of_face
    return _nearest(mesh.triangles_center, truth, obj)


def _nearest(
    points: FloatArray, truth: trimesh.Trimesh, obj: ArticulatedObject
) -> NDArray[np.int64]:
    """Link of the nearest of many points on the true surface."""
    on, face = trimesh.sample.sample_surface(truth, 60_000, seed=0)
    return obj.link_of_face[face][cKDTree(on).query(points)[1]]


def moved(
    start: FloatArray,
    link: NDArray[np.int64],
    D: FloatArray,
    moves: NDArray[np.bool_],
    fault: Fault,
    rng: np.random.Generator,
) -> FloatArray:
    """Motion (T, V, 3) of vertices on links with motions D (T, L, 4, 4), with its faults."""
    true = np.einsum("tvij,vj->tvi", D[:, link][..., :3, :3], start) + D[:, link][..., :3, 3]
    if fault == Fault():
        return true
    size = float(np.ptp(start, axis=0).max())
    carried = moves[link]
    # In a band at the border the motion is a mean of the neighbors'.
    if fault.band > 0:
        near = cKDTree(start).query_ball_point(start, fault.band * size)
        share = np.array([carried[n].mean() for n in near])
        k = int(np.argmax(moves))
        whole = transform(D[:, k], start)
        true = start + share[:, None] * (whole - start)
    way = np.linalg.norm(true - true[0], axis=-1)[:, carried].mean(axis=1)  # (T,)
    part = float(np.ptp(start[carried], axis=0).max())
    bend, drag = _waves(start, part, carried, rng), _waves(start, size, ~carried, rng)
    error = np.where(carried[:, None], fault.bend * bend, fault.drag * drag)
    return true + way[:, None, None] * error


def _waves(
    points: FloatArray, size: float, where: NDArray[np.bool_], rng: np.random.Generator
) -> FloatArray:
    """Smooth random vectors (V, 3) of RMS length 1 at some points: waves as long as their part."""
    field = np.zeros(points.shape)
    for _ in range(_WAVES):
        k = rng.standard_normal(3) * 1.5 * np.pi / size
        field += np.cos(points @ k + rng.uniform(0, 2 * np.pi))[:, None] * rng.standard_normal(3)
    return field / np.sqrt((field[where] ** 2).sum(axis=-1).mean())
