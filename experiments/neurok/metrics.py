"""Distance of one posed shape from another: Chamfer distances and volume overlap.

NeuROK, 6.1, E.1. Both are taken in the normalized frame of the object, [-1, 1]^3 in the pose that
the method was given. With d(x, B) the distance from a point of surface A, drawn evenly by area, to
the nearest point of surface B,

    L1 = 1/2 (mean_A d(x, B) + mean_B d(y, A))
    L2 = sqrt(1/2 (mean_A d(x, B)^2 + mean_B d(y, A)^2))

The paper says neither whether directions are added or averaged, nor whether its L2 is squared.
Table 1 has L1 and L2 of one size (0.028, 0.028) and E.4 writes a squared one as L2^2, so L2 is a
root here. E.4 itself (L1 0.021, L2^2 2.7e-4) could not come from averaged directions, where L2 >=
L1: the paper's L1 adds them or sums coordinates, which makes it up to twice ours. d is the exact
distance to the other's triangles; between two samples of n points it would never fall below about
1/2 sqrt(area / n), even for equal surfaces.

The overlap (IoU) is that of volumes. The paper first runs a manifold algorithm, since meshes need
not be watertight; here rays along the three axes are cast from both ends, entries and exits are
counted, and a cell is inside if more than three of the six agree (ray stabbing, Nooruddin & Turk
2003). For closed pieces, which may intersect each other, all six agree, and cavities stay empty;
across a hole the others decide. A sheet without thickness encloses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.common.sampling import surface_points

_MAJORITY = 3  # of six rays; a cell is inside if more agree


@dataclass(frozen=True)
class MetricOptions:
    """Resolution of the comparison of two shapes."""

    points: Annotated[int, Interval(1, 10**8)] = 20_000
    """Points drawn on each surface."""
    cells: Annotated[int, Interval(1, 2000)] = 160
    """Grid cells along the longest side of the box around both shapes."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class ShapeError:
    """Distance of one shape from another, in the unit of their frame.

    Attributes:
        cd_l1, cd_l2: Chamfer distances, see the module.
        iou: volume of the intersection over that of the union; 0 if both are empty.
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
    """Distance of two meshes in one frame; the same seed draws the same points."""
    cd_l1, cd_l2 = chamfer(mesh, target, options.points, seed=seed)
    return ShapeError(cd_l1, cd_l2, volume_overlap(mesh, target, options.cells))


def chamfer(
    a: trimesh.Trimesh, b: trimesh.Trimesh, points: int, *, seed: int = 0
) -> tuple[float, float]:
    """Chamfer distances L1 and L2 of two surfaces, from `points` points on each."""
    forth = _distance(surface_points(a, points, seed=seed)[0], b)
    back = _distance(surface_points(b, points, seed=seed)[0], a)
    l1 = (forth.mean() + back.mean()) / 2
    l2 = np.sqrt(((forth**2).mean() + (back**2).mean()) / 2)
    return float(l1), float(l2)


def volume_overlap(a: trimesh.Trimesh, b: trimesh.Trimesh, cells: int) -> float:
    """Volume of the intersection over that of the union; 0 if both are empty.

    Args:
        a: a mesh.
        b: a mesh in the same frame.
        cells: see MetricOptions.
    """
    corners = np.concatenate([a.bounds, b.bounds])
    lower, size = corners.min(0), np.ptp(corners, axis=0)
    voxel = float(size.max()) / cells
    shape = np.ceil(size / voxel).astype(int) + 1
    # Off the meshes' own corners, so that no ray runs along an edge or a wall of an axis-aligned
    # box.
    lower = lower + voxel * (0.5 - 1e-3 * np.array([37.0, 59.0, 83.0]))
    in_a, in_b = (occupancy(m, lower, voxel, shape) for m in (a, b))
    union = np.count_nonzero(in_a | in_b)
    return np.count_nonzero(in_a & in_b) / union if union else 0.0


def occupancy(
    mesh: trimesh.Trimesh, lower: ArrayLike, voxel: float, shape: ArrayLike
) -> NDArray[np.bool_]:
    """Cells (nx, ny, nz) inside a mesh.

    Args:
        mesh: the mesh.
        lower: (3,) center of cell (0, 0, 0).
        voxel: side of a cell.
        shape: nx, ny, nz.
    """
    corner, size = checks.array("lower", lower, (3,)), np.asarray(shape, int)
    scene = raycasting_scene(mesh)
    votes = np.zeros(size, np.int8)
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        columns = tuple(size[others])
        depth = _crossings(mesh, scene, axis, corner, voxel, size)  # (columns, cells + 1)
        # From below, a cell is inside if the depth is not zero; from above, if it is not that of
        # the end.
        for inside in (depth[:, :-1] != 0, depth[:, :-1] != depth[:, -1:]):
            grid = np.moveaxis(inside.reshape(*columns, size[axis]), -1, axis)
            votes += grid.astype(np.int8)
    return votes > _MAJORITY


def _crossings(
    mesh: trimesh.Trimesh,
    scene: Any,
    axis: int,
    corner: FloatArray,
    voxel: float,
    size: NDArray[np.int64],
) -> NDArray[np.int16]:
    """Entries less exits before each cell, along the rays of an axis: (rays, cells + 1)."""
    others = [a for a in range(3) if a != axis]
    index = np.indices(tuple(size[others])).reshape(2, -1)  # (2, rays)

    # One ray per column of cells, from below the mesh.
    start = float(min(corner[axis], mesh.bounds[0, axis])) - voxel
    rays = np.zeros((index.shape[1], 6), np.float32)
    rays[:, others] = corner[others] + index.T * voxel
    rays[:, axis], rays[:, 3 + axis] = start, 1
    hits = scene.list_intersections(open3d().core.Tensor(rays))
    ray = hits["ray_ids"].numpy().astype(np.int64)
    face = hits["primitive_ids"].numpy().astype(np.int64)

    # A cell is past a hit if its center is: the depth changes at the first such cell.
    first = np.ceil((hits["t_hit"].numpy() + start - corner[axis]) / voxel).astype(np.int64)
    jumps = np.zeros((index.shape[1], size[axis] + 1), np.int16)
    entry = -np.sign(mesh.face_normals[face, axis]).astype(np.int16)
    np.add.at(jumps, (ray, np.clip(first, 0, size[axis])), entry)
    return np.cumsum(jumps, axis=1, dtype=np.int16)


def _distance(points: FloatArray, mesh: trimesh.Trimesh) -> FloatArray:
    """Distances (P,) of points (P, 3) from a mesh."""
    query = open3d().core.Tensor(points.astype(np.float32))
    return raycasting_scene(mesh).compute_distance(query).numpy().astype(float)
