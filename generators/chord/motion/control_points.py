"""Control points of an object, and the point cloud near its surface (CHORD, 3.3, A.1).

Both come from a grid of voxels. Its resolution is chosen so that about 7500 voxel centers lie near
the surface: these are the cloud of the ARAP regularizer (eq. 13). Control points are distributed
over the voxels inside the object and near its surface by farthest-point sampling followed by
k-means, few for the coarse level, more for the fine one.

Scans have holes and overlapping parts, and cloth encloses no volume. So no watertight mesh is
needed: unsigned distance decides what is near the surface, and a majority of six oblique rays
decides what is inside, each counting signed crossings. Overlapping parts then add up, a hole is
outvoted, and a sheet has no inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.chord.options import ControlOptions
from generators.common.sampling import farthest_points

NEIGHBORS = 10
"""Nearest neighbors of a surface point (eq. 13)."""
_NEAR = 0.5 * np.sqrt(3.0)
"""Distance of a voxel center near the surface, in voxels: half a diagonal misses no voxel."""
_INTERIOR_CELLS = 30_000
"""Maximum number of cells of the bounding box that are tested for being inside."""
_LLOYD_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Anatomy:
    """An object's control points and the cloud near its surface, world frame, meters.

    Attributes:
        coarse: (Pc, 3) control points of the coarse level.
        coarse_scale: (Pc,) initial reach of each: mean distance to its three nearest neighbors.
        fine: (Pf, 3) control points of the fine level.
        fine_scale: (Pf,) likewise.
        surface: (S, 3) centers of the voxels near the surface.
        neighbors: (S, 10) indices of the nearest others of each surface point.
        voxel: edge length of a voxel.
    """

    coarse: FloatArray
    coarse_scale: FloatArray
    fine: FloatArray
    fine_scale: FloatArray
    surface: FloatArray
    neighbors: NDArray[np.int64]
    voxel: float

    def __post_init__(self) -> None:
        for level in ("coarse", "fine"):
            points = checks.array(f"Anatomy.{level}", getattr(self, level), ("P", 3))
            scale = checks.array(
                f"Anatomy.{level}_scale", getattr(self, f"{level}_scale"), (len(points),)
            )
            if scale.min() <= 0:
                raise ValueError(
                    f"Anatomy.{level}_scale: expected lengths above 0 m, got {scale.min():g}"
                )
            object.__setattr__(self, level, points)
            object.__setattr__(self, f"{level}_scale", scale)
        surface = checks.array("Anatomy.surface", self.surface, ("S", 3))
        neighbors = checks.array(
            "Anatomy.neighbors", self.neighbors, (len(surface), "n"), dtype=np.int64
        )
        if neighbors.min() < 0 or neighbors.max() >= len(surface):
            raise ValueError(
                f"Anatomy.neighbors: expected indices of the {len(surface)} surface points, "
                f"got {neighbors.min()} to {neighbors.max()}"
            )
        object.__setattr__(self, "surface", surface)
        object.__setattr__(self, "neighbors", neighbors)
        object.__setattr__(self, "voxel", checks.positive("Anatomy.voxel", self.voxel))


def anatomy(
    mesh: trimesh.Trimesh, options: ControlOptions | None = None, *, seed: int = 0
) -> Anatomy:
    """Control points and surface cloud of an object.

    Args:
        mesh: in the world frame, meters; it may be open, overlap itself, or be a sheet.
        options: see ControlOptions.
        seed: Random seed.

    Raises:
        ValueError: for a mesh without area.
    """
    options = options or ControlOptions()
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all() or not mesh.area > 0:
        raise ValueError(
            f"mesh: expected finite triangles with an area, got {len(mesh.faces)} faces; "
            "repair it first"
        )
    surface, voxel = _near_surface(mesh, options.surface_points, seed)
    inside, spacing = _inside(mesh, voxel)
    body = np.concatenate([surface, inside])
    # A cell inside may be larger than a voxel; it weighs as many voxels as it contains.
    weight = np.repeat([1.0, (spacing / voxel) ** 3], [len(surface), len(inside)])
    coarse = control_points(body, weight, options.coarse)
    fine = control_points(body, weight, options.fine)
    return Anatomy(
        coarse=coarse,
        coarse_scale=_spacing(coarse, voxel),
        fine=fine,
        fine_scale=_spacing(fine, voxel),
        surface=surface,
        neighbors=cKDTree(surface).query(surface, k=NEIGHBORS + 1)[1][:, 1:],
        voxel=voxel,
    )


def control_points(body: FloatArray, weight: FloatArray, count: int) -> FloatArray:
    """Weighted k-means centers (P, 3), P <= count, of points (B, 3), from farthest points."""
    centers = body[farthest_points(body, count)]
    for _ in range(_LLOYD_ROUNDS):
        label = cKDTree(centers).query(body)[1]
        mass = np.bincount(label, weight, len(centers))
        sums = [np.bincount(label, weight * body[:, axis], len(centers)) for axis in range(3)]
        total = np.stack(sums, axis=1)
        centers = total[mass > 0] / mass[mass > 0, None]
    return centers


def _spacing(points: FloatArray, voxel: float) -> FloatArray:
    """Mean distance (P,) of points (P, 3) to their three nearest neighbors; a voxel for none."""
    count = min(3, len(points) - 1)
    if count == 0:
        return np.full(len(points), voxel)
    distance, _ = cKDTree(points).query(points, k=count + 1)
    return np.maximum(distance[:, 1:].mean(axis=1), 1e-3 * voxel)


def _near_surface(mesh: trimesh.Trimesh, count: int, seed: int) -> tuple[FloatArray, float]:
    """About `count` voxel centers (S, 3) within 0.87 voxels of a mesh, and the voxel's size."""
    samples = np.asarray(trimesh.sample.sample_surface(mesh, 10 * count, seed=seed)[0])
    scene = raycasting_scene(mesh)
    voxel = float(np.sqrt(2 * _NEAR * mesh.area / count))
    best: tuple[float, FloatArray, float] | None = None
    # The count scales as size^-2 on a surface and as size^-1 on a wire. The step below is exact for
    # a surface and converges for a wire.
    for _ in range(8):
        cells = _cells_around((samples - mesh.bounds[0]) / voxel)
        centers = mesh.bounds[0] + (cells + 0.5) * voxel
        near = centers[_distance(scene, centers) <= _NEAR * voxel]
        miss = abs(float(np.log(len(near) / count)))
        if best is None or miss < best[0]:
            best = miss, near, voxel
        if miss < 0.02:
            break
        voxel *= float(np.sqrt(len(near) / count))
    assert best is not None
    return best[1], best[2]


def _cells_around(points: FloatArray) -> NDArray[np.int64]:
    """Unit cells (C, 3) that contain any of the points (P, 3), and all cells that touch those."""
    cells = np.floor(points).astype(np.int64)
    lower = cells.min(0) - 1
    shape = tuple(cells.max(0) - lower + 2)
    index = np.unique(np.ravel_multi_index(tuple((cells - lower).T), shape))
    around = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    grown = np.stack(np.unravel_index(index, shape), -1)[:, None] + around  # (cells, 27, 3)
    index = np.unique(np.ravel_multi_index(tuple(grown.reshape(-1, 3).T), shape))
    return np.stack(np.unravel_index(index, shape), -1) + lower


def _inside(mesh: trimesh.Trimesh, voxel: float) -> tuple[FloatArray, float]:
    """Cell centers (I, 3) inside a mesh and not near its surface, and their spacing."""
    spacing = max(voxel, float((np.prod(mesh.extents) / _INTERIOR_CELLS) ** (1 / 3)))
    axes = [np.arange(low + 0.5 * spacing, high, spacing) for low, high in mesh.bounds.T]
    centers = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    scene = raycasting_scene(mesh)
    centers = centers[_distance(scene, centers) > _NEAR * voxel]
    if len(centers) == 0:  # Open3D does not survive an empty list of rays
        return centers, spacing

    # A ray votes for inside if it leaves the mesh more often than it enters.
    votes = np.zeros(len(centers), np.int64)
    axes_of_rays = exp_so3(np.array([0.3, 0.5, 0.7]))  # oblique to the edges of a box
    for direction in np.concatenate([axes_of_rays, -axes_of_rays]):
        rays = np.concatenate([centers, np.broadcast_to(direction, centers.shape)], axis=1)
        hits = scene.list_intersections(open3d().core.Tensor(rays.astype(np.float32)))
        outward = mesh.face_normals[hits["primitive_ids"].numpy().astype(np.int64)] @ direction > 0
        ray = hits["ray_ids"].numpy().astype(np.int64)
        votes += np.bincount(ray, np.where(outward, 1, -1), len(centers)) >= 0.5
    return centers[votes > len(axes_of_rays)], spacing


def _distance(scene: Any, points: FloatArray) -> NDArray[np.float32]:
    return np.asarray(
        scene.compute_distance(open3d().core.Tensor(points.astype(np.float32))).numpy()
    )
