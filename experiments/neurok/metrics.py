"""How far one posed shape is from another: Chamfer distances and the overlap of what they enclose (NeuROK, 6.1, E.1).

Both are taken in the normalised frame of the object, [-1, 1]^3 in the pose that the method was given. With d(x, B) the
distance from a point of surface A, drawn evenly by area, to the nearest point of surface B,

    L1 = 1/2 (mean_A d(x, B) + mean_B d(y, A))
    L2 = sqrt(1/2 (mean_A d(x, B)^2 + mean_B d(y, A)^2))

The paper says neither whether directions are added or averaged, nor whether its L2 is squared. Table 1 has L1 and L2 of
one size (0.028, 0.028) and E.4 writes a squared one as L2^2, so L2 is a root here. E.4 itself (L1 0.021, L2^2 2.7e-4)
could not come from averaged directions, where L2 >= L1: the paper's L1 adds them or sums coordinates, which makes it up
to twice ours. d is the exact distance to the other's triangles; between two samples of n points it would never fall
below about 1/2 sqrt(area / n), even for equal surfaces.

The overlap (IoU) is that of volumes. The paper first runs a manifold algorithm, since meshes need not be watertight; we
ask rays along the three axes, from both ends: going in and out is counted, and a cell is inside where more than three
of the six say so (ray stabbing, Nooruddin & Turk 2003). For closed pieces, which may cross each other, all six agree,
and cavities stay empty; across a hole the others decide. A sheet without thickness encloses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.common.sampling import surface_points


@dataclass(frozen=True)
class MetricOptions:
    """How finely two shapes are compared."""

    points: int = 20_000
    """Points drawn on each surface."""
    cells: int = 160
    """Grid cells along the longest side of the box around both shapes."""

    def __post_init__(self) -> None:
        for name in ("points", "cells"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"MetricOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True)
class ShapeError:
    """Distance of one shape from another, in the unit of their frame.

    Attributes:
        cd_l1, cd_l2: Chamfer distances, see the module.
        iou: volume in both over volume in either; 0 where neither encloses a cell.
    """

    cd_l1: float
    cd_l2: float
    iou: float


def shape_error(
    mesh: trimesh.Trimesh,
    target: trimesh.Trimesh,
    options: MetricOptions = MetricOptions(),
    *,
    seed: int = 0,
) -> ShapeError:
    """Compare two meshes in one frame; the same seed draws the same points."""
    cd_l1, cd_l2 = chamfer(mesh, target, options.points, seed=seed)
    return ShapeError(cd_l1, cd_l2, volume_overlap(mesh, target, options.cells))


def chamfer(
    a: trimesh.Trimesh, b: trimesh.Trimesh, points: int, *, seed: int = 0
) -> tuple[float, float]:
    """L1 and L2 between two surfaces, from `points` points on each."""
    there = _distance(surface_points(a, points, seed=seed)[0], b)
    back = _distance(surface_points(b, points, seed=seed)[0], a)
    return float((there.mean() + back.mean()) / 2), float(
        np.sqrt(((there**2).mean() + (back**2).mean()) / 2)
    )


def volume_overlap(a: trimesh.Trimesh, b: trimesh.Trimesh, cells: int) -> float:
    """Volume in both over volume in either; 0 where neither encloses a cell."""
    corners = np.concatenate([a.bounds, b.bounds])
    lower, size = corners.min(0), np.ptp(corners, axis=0)
    voxel = float(size.max()) / cells
    shape = np.ceil(size / voxel).astype(int) + 1
    # Off the meshes' own corners, so that no ray runs along an edge or a wall of an axis-aligned box.
    lower = lower + voxel * (0.5 - 1e-3 * np.array([37.0, 59.0, 83.0]))
    in_a, in_b = (occupancy(m, lower, voxel, shape) for m in (a, b))
    either = np.count_nonzero(in_a | in_b)
    return np.count_nonzero(in_a & in_b) / either if either else 0.0


def occupancy(
    mesh: trimesh.Trimesh, lower: ArrayLike, voxel: float, shape: ArrayLike
) -> NDArray[np.bool_]:
    """Which cells (nx, ny, nz) a mesh encloses; cell (0, 0, 0) is centred at `lower` (3,)."""
    corner, size = checks.array("lower", lower, (3,)), np.asarray(shape, int)
    scene = raycasting_scene(mesh)
    votes = np.zeros(size, np.int8)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        index = np.indices(tuple(size[others])).reshape(2, -1)
        start = float(min(corner[axis], mesh.bounds[0, axis])) - voxel
        rays = np.zeros((index.shape[1], 6), np.float32)
        rays[:, others] = corner[others] + index.T * voxel
        rays[:, axis], rays[:, 3 + axis] = start, 1
        hits = scene.list_intersections(open3d().core.Tensor(rays))
        line, face = (
            hits["ray_ids"].numpy().astype(np.int64),
            hits["primitive_ids"].numpy().astype(np.int64),
        )
        # Cell i is past a hit where its centre is: the jump counts from the first such cell on.
        first = np.ceil((hits["t_hit"].numpy() + start - corner[axis]) / voxel).astype(np.int64)
        jumps = np.zeros((index.shape[1], size[axis] + 1), np.int16)
        into = -np.sign(mesh.face_normals[face, axis]).astype(np.int16)
        np.add.at(jumps, (line, np.clip(first, 0, size[axis])), into)
        depth = np.cumsum(jumps, axis=1, dtype=np.int16)
        for inside in (
            depth[:, :-1] != 0,
            depth[:, :-1] != depth[:, -1:],
        ):  # from below, and from above
            votes += np.moveaxis(inside.reshape(*size[others], size[axis]), -1, axis).astype(
                np.int8
            )
    return votes > 3


def _distance(points: FloatArray, mesh: trimesh.Trimesh) -> FloatArray:
    distance = raycasting_scene(mesh).compute_distance(
        open3d().core.Tensor(points.astype(np.float32))
    )
    return distance.numpy().astype(float)
