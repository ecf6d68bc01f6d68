"""Point clouds to scene objects: normals, then a surface through them.

Normals are the least axis of each point's neighbours, made to agree along a minimum spanning tree of the neighbourhood
graph (Hoppe et al., SIGGRAPH 1992), whose edges cost more where they leave the tangent planes, so that the two sides of
a thin wall are not joined through it. The surface is Poisson's (Kazhdan et al., SGP 2006): each point spreads its share
of the area, times its normal, over the grid around it; the indicator chi whose gradient that is comes from
`flowplan.scan.meshes.winding`; the surface is where chi has the value that it has at the points. It closes gaps by bulging
where there are no points, and is cut at the cloud's bounding box. Ball pivoting (Bernardini et al. 1999) only joins
points, and leaves gaps open: right for a sheet.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree
from trimesh.exchange.ply import load_ply

from flowplan.geometry import pose
from flowplan.scan.meshes import repair
from flowplan.scan.meshes.mesh_file import METRES, Unit, first_line, warn_of_unit
from flowplan.scan.meshes.surface import (
    closed_surface,
    decimated,
    from_open3d,
    raycasting_scene,
    without_strays,
)
from flowplan.scan.meshes.winding import winding_field
from flowplan.scan.pcd import read_pcd
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

SUFFIXES = (".ply", ".pcd", ".xyz", ".npy")


@dataclass(frozen=True)
class PointOptions:
    """How a point cloud becomes a surface."""

    method: Literal["poisson", "ball_pivoting"] = "poisson"
    """poisson closes the surface; ball_pivoting leaves it open where there are no points."""
    points: int = 30_000
    """Clouds are thinned to about this many points."""
    neighbors: int = 12
    """Points that a normal is estimated from, where the file has none."""
    outlier_ratio: float = 3.0
    """Points whose neighbours are this many standard deviations farther away than usual are dropped; 0 for none."""
    faces: int = 20_000
    """The surface is decimated to about this many faces."""
    cells: int = 96
    """Poisson's grid has this many cells along the longest side."""

    def __post_init__(self) -> None:
        checks.choice("PointOptions.method", self.method, ("poisson", "ball_pivoting"))
        checks.positive("PointOptions.outlier_ratio", self.outlier_ratio, zero=True)
        ranges = (
            ("points", 100, 10**6),
            ("neighbors", 4, 200),
            ("faces", 20, 10**7),
            ("cells", 8, 256),
        )
        for name, least, most in ranges:
            if not least <= getattr(self, name) <= most:
                raise ValueError(
                    f"PointOptions.{name}: expected {least} to {most}, got {getattr(self, name)}"
                )


def load_points(
    path: str | Path,
    *,
    unit: Unit | None = None,
    name: str | None = None,
    X_world_object: ArrayLike | None = None,
    options: PointOptions = PointOptions(),
) -> SceneObject:
    """An object from a point cloud: .ply, .pcd, .xyz (text, 3 or 6 columns) or .npy ((P, 3), or (P, 6) with normals).

    Args:
        unit: of the file's coordinates; metres, with a warning if the size makes that unlikely, if not given.
        name: the file's name without its ending, if not given.
        X_world_object: (4, 4) where it is; the identity if not given.

    Raises:
        ValueError: one line that names the file, what is wrong with it and what to do.
    """
    path = Path(path)
    points, normals = _read(path)
    if unit is None:
        warn_of_unit(path, float(np.ptp(points, axis=0).max()))
    else:
        checks.choice("unit", unit, tuple(METRES))
        points = points * METRES[unit]
    try:
        mesh = surface_of_points(points, normals, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    pose_given = (
        pose() if X_world_object is None else checks.poses("X_world_object", X_world_object)
    )
    return SceneObject(name or path.stem, mesh, pose_given)


def surface_of_points(
    points: ArrayLike, normals: ArrayLike | None = None, options: PointOptions = PointOptions()
) -> trimesh.Trimesh:
    """A mesh through points (P, 3), metres, with outward normals (P, 3) or, without them, estimated and agreed on.

    Raises:
        ValueError: when there are too few points, or no surface through them.
    """
    points = checks.array("points", points, ("P", 3))
    if len(points) < 50:
        raise ValueError(f"points: expected at least 50, got {len(points)}; a surface needs more")
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if spread[1] <= 1e-6 * spread[0]:
        raise ValueError(
            "points: all lie in one point or on one line; there is no surface through them"
        )
    if spread[2] <= 1e-6 * spread[0]:
        raise ValueError(
            "points: all lie in one plane, which closes no surface; load a mesh of the sheet instead"
        )
    given = None if normals is None else checks.array("normals", normals, points.shape)
    keep = _kept(points, options)
    points = points[keep]
    facing = _normals(points, options.neighbors) if given is None else _unit(given[keep])
    mesh = (_poisson if options.method == "poisson" else _ball_pivoting)(points, facing, options)
    if len(mesh.faces) == 0:
        raise ValueError("points: no surface found through them; try the other PointOptions.method")
    mesh = decimated(mesh, options.faces)
    _warn_if_far(mesh, points)
    return mesh


def _kept(points: FloatArray, options: PointOptions) -> NDArray[np.int64]:
    """Which points to use: no outliers, and one a cell of a grid that leaves few enough."""
    keep = np.arange(len(points))
    if options.outlier_ratio > 0:
        distance, _ = _nearest(points, options.neighbors)
        distance = distance.mean(-1)
        keep = keep[distance <= distance.mean() + options.outlier_ratio * distance.std()]
    cell = float(np.ptp(points[keep], axis=0).max()) * options.points**-0.5
    while len(keep) > options.points:
        cells = np.floor((points[keep] - points[keep].min(0)) / cell).astype(np.int64)
        keep = keep[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
        cell *= 1.2
    return keep


def _nearest(points: FloatArray, neighbors: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Distances and indices (P, k + 1) of every point's nearest, itself first."""
    distance, index = cKDTree(points).query(points, k=min(neighbors + 1, len(points)))
    return distance, index


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _normals(points: FloatArray, neighbors: int) -> FloatArray:
    """Outward unit normals (P, 3)."""
    _, index = _nearest(points, neighbors)
    offsets = points[index] - points[index].mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.swapaxes(offsets, -1, -2) @ offsets)
    normals = axes[..., 0]

    start = np.repeat(np.arange(len(points)), index.shape[1] - 1)
    end = index[:, 1:].ravel()
    along = _unit(points[end] - points[start])
    leaving = np.abs((along * normals[start]).sum(-1)) + np.abs((along * normals[end]).sum(-1))
    cost = (
        1e-6 + 1 - np.abs((normals[start] * normals[end]).sum(-1)) + leaving
    )  # a cost of zero would be no edge
    graph = sparse.csr_matrix((cost, (start, end)), shape=(len(points),) * 2)
    tree = csgraph.minimum_spanning_tree(graph.maximum(graph.T))
    count, part = csgraph.connected_components(tree, directed=False)
    for number in range(count):
        members = np.flatnonzero(part == number)
        sign = _signs(normals, tree, int(members[0]))[members]
        normals[members] *= sign[:, None]
        center = points[members].mean(0)
        if (
            np.sum(normals[members] * (points[members] - center)) < 0
        ):  # about three times the volume
            normals[members] *= -1
    return normals


def _signs(normals: FloatArray, tree: sparse.csr_matrix, root: int) -> FloatArray:
    """+1 or -1 (P,) by which normals agree with their parents in the tree below `root`; 0 where it does not reach."""
    order, parent = csgraph.breadth_first_order(tree, root, directed=False)
    sign = np.zeros(len(normals))
    sign[root] = 1.0
    agrees = np.where((normals[order[1:]] * normals[parent[order[1:]]]).sum(-1) < 0, -1.0, 1.0)
    for child, agreement in zip(order[1:], agrees, strict=True):
        sign[child] = agreement * sign[parent[child]]
    return sign


def _poisson(points: FloatArray, normals: FloatArray, options: PointOptions) -> trimesh.Trimesh:
    voxel = float(np.ptp(points, axis=0).max()) / options.cells
    shape = np.ceil(np.ptp(points, axis=0) / voxel).astype(int) + 17
    lower = points.min(0) - 8 * voxel
    at = (points - lower) / voxel
    reach = _nearest(points, options.neighbors)[0]
    area = (
        np.pi * reach[:, -1] ** 2 / (reach.shape[1] - 1)
    )  # a disc around the point holds its neighbours
    x, y, z = (_splat(at, -normals[:, a] * area / voxel**2, a, shape) for a in range(3))
    chi = winding_field((x, y, z), mirror_bottom=False)
    level = float(np.median(ndimage.map_coordinates(chi, at.T, order=1)))
    f = 4 * voxel * (level - chi)
    centers = np.moveaxis(np.indices(shape), 0, -1) * voxel + lower
    f = np.maximum(f, np.maximum(points.min(0) - centers, centers - points.max(0)).max(-1))
    return without_strays(
        closed_surface(f.astype(np.float32), voxel, lower, flat_bottom=False), 0.02
    )


def _splat(
    at: FloatArray, values: FloatArray, axis: int, shape: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Values (P,) at places (P, 3), in cells, spread over the eight nearest faces across an axis."""
    size = tuple(int(n) for n in shape - np.eye(3, dtype=int)[axis])
    place = at - 0.5 * np.eye(3)[axis]  # the first face lies half a cell after the first centre
    base = np.floor(place).astype(int)
    part = place - base
    total = np.zeros(size, np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(-1)
        flat = np.ravel_multi_index((base + corner).T, size)
        total += (
            np.bincount(flat, weight * values, minlength=total.size)
            .reshape(size)
            .astype(np.float32)
        )
    return total


def _ball_pivoting(
    points: FloatArray, normals: FloatArray, options: PointOptions
) -> trimesh.Trimesh:
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.copy()))
    cloud.normals = o3d.utility.Vector3dVector(normals.copy())
    spacing = float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))
    radii = o3d.utility.DoubleVector([1.5 * spacing, 3 * spacing, 6 * spacing])
    raw = from_open3d(o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(cloud, radii))
    return repair.cleaned(raw) if len(raw.faces) else raw


def _warn_if_far(mesh: trimesh.Trimesh, points: FloatArray) -> None:
    """Warn if a tenth of the surface has no points near it, or a tenth of the points no surface."""
    tree = cKDTree(points)
    spacing = float(np.median(tree.query(points, k=2)[0][:, 1]))
    on_surface, _ = trimesh.sample.sample_surface(mesh, 2000, seed=0)
    bare = float(np.mean(tree.query(on_surface)[0] > 8 * spacing))
    some = points[:: max(1, len(points) // 2000)].astype(np.float32)
    distance = raycasting_scene(mesh).compute_distance(open3d().core.Tensor(some)).numpy()
    lost = float(np.mean(distance > 8 * spacing))
    if max(bare, lost) > 0.1:
        warnings.warn(
            f"points: {100 * bare:.0f} % of the surface is far from any point and {100 * lost:.0f} % of the points far "
            "from the surface, as where a thin wall's normals disagree or a side was not seen; give normals, or use "
            "PointOptions(method='ball_pivoting')",
            stacklevel=3,
        )


def _read(path: Path) -> tuple[FloatArray, FloatArray | None]:
    """Points (P, 3) in the file's unit, and its normals (P, 3) or None."""
    checks.choice(f"{path}: file type", path.suffix.lower(), SUFFIXES)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    # Not by Open3D's readers: from a damaged file they return memory that was never written.
    if path.suffix.lower() == ".ply":
        table = _ply_table(path)
    elif path.suffix.lower() == ".pcd":
        fields = read_pcd(path)
        if not {"x", "y", "z"} <= fields.keys():
            raise ValueError(f"{path}: FIELDS: expected x, y and z, got {', '.join(fields)}")
        directions = ["normal_x", "normal_y", "normal_z"]
        names = ["x", "y", "z", *(directions if set(directions) <= fields.keys() else [])]
        table = np.stack([fields[n] for n in names], axis=-1)
    else:
        try:
            table = (
                np.load(path, allow_pickle=False)
                if path.suffix.lower() == ".npy"
                else np.loadtxt(path, ndmin=2)
            )
        except (
            Exception
        ) as error:  # numpy parses the header of a damaged .npy with Python's own tokenizer
            raise ValueError(f"{path}: not readable as numbers ({first_line(error)})") from None
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] not in (3, 6):
        raise ValueError(f"{path}: expected (P, 3), or (P, 6) with normals, got {np.shape(table)}")
    points, normals = table[:, :3], table[:, 3:] if table.shape[1] == 6 else None
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points, or is damaged; export it again")
    points = checks.array(f"{path}: points", points, ("P", 3), hint="drop points without a return")
    repair.require_reach(f"{path}: points", points)
    return points, normals


def _ply_table(path: Path) -> FloatArray:
    """(P, 3), or (P, 6) with normals."""
    try:
        with path.open("rb") as file:
            fields = load_ply(file, skip_materials=True)
        points = np.asarray(fields.get("vertices", np.zeros((0, 3))), float)
        normals = fields.get("vertex_normals")
    except Exception as error:  # trimesh's readers raise whatever they meet in a damaged file
        raise ValueError(
            f"{path}: not readable as .ply ({first_line(error)}); export it again"
        ) from None
    return points if normals is None else np.concatenate([points, normals], axis=1)
