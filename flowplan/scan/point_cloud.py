"""Point clouds to scene objects: normals, then a surface through the points.

A normal is the axis of least spread of a point's neighbors. Normals are oriented alike along a
minimum spanning tree of the neighborhood graph (Hoppe et al., SIGGRAPH 1992), whose edges cost more
if they leave the tangent planes, so that the two sides of a thin wall are not joined through it.

The surface is Poisson's (Kazhdan et al., SGP 2006): each point spreads its share of the area, times
its normal, over the grid around it; `flowplan.scan.meshes.winding` gives the indicator chi with
that gradient; the surface is the level of chi at the points. It closes gaps with a bulge where
there are no points, and is cut at the cloud's bounding box. Ball pivoting (Bernardini et al. 1999)
only joins points and leaves gaps open, which suits sheets.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree
from trimesh.exchange.ply import load_ply

from flowplan.geometry import pose
from flowplan.scan.meshes import repair, requirements
from flowplan.scan.meshes.mesh_file import METERS, Unit, first_line, warn_of_unit
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
from flowplan.utils import bounds, checks, numpy_files, text_files
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

SUFFIXES = (".ply", ".pcd", ".xyz", ".npy")
STRAYS = 0.02
"""Parts of less than this share of the largest part's volume are dropped."""
FAR = 8
"""A point and a surface are far apart beyond this many times the usual distance between points."""


@dataclass(frozen=True)
class PointOptions:
    """Conversion of a point cloud to a surface."""

    method: Literal["poisson", "ball_pivoting"] = "poisson"
    """poisson closes the surface; ball_pivoting leaves it open where there are no points."""
    points: Annotated[int, Interval(100, 10**6)] = 30_000
    """Clouds are thinned to about this many points."""
    neighbors: Annotated[int, Interval(4, 200)] = 12
    """Points that a normal is estimated from if the file has none."""
    outlier_ratio: Annotated[float, Interval(0, 1000)] = 3.0
    """Points are dropped if their neighbors are this many standard deviations further away than
    usual; 0 turns it off."""
    faces: Annotated[int, Interval(20, 10**7)] = 20_000
    """The surface is decimated to about this many faces."""
    cells: Annotated[int, Interval(8, 256)] = 96
    """Cells of Poisson's grid along the longest side."""

    def __post_init__(self) -> None:
        bounds.check(self)


def load_points(
    path: str | Path,
    *,
    unit: Unit | None = None,
    name: str | None = None,
    X_world_object: ArrayLike | None = None,
    options: PointOptions = PointOptions(),
) -> SceneObject:
    """An object from a point cloud.

    Args:
        path: .ply, .pcd, .xyz (text of 3 or 6 columns) or .npy ((P, 3), or (P, 6) with normals).
        unit: unit of the coordinates. Defaults to meters, with a warning if the size is unlikely.
        name: defaults to the file's name without its suffix.
        X_world_object: (4, 4) pose. Defaults to the identity.
        options: surface reconstruction.

    Raises:
        ValueError: one line that names the file, the fault and the remedy.
    """
    path = Path(path)
    points, normals = _read(path)
    if unit is None:
        warn_of_unit(path, float(np.ptp(points, axis=0).max()))
    else:
        checks.choice("unit", unit, tuple(METERS))
        points = points * METERS[unit]
    try:
        mesh = surface_of_points(points, normals, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    X = pose() if X_world_object is None else checks.poses("X_world_object", X_world_object)
    return SceneObject(name or path.stem, mesh, X)


def surface_of_points(
    points: ArrayLike, normals: ArrayLike | None = None, options: PointOptions = PointOptions()
) -> trimesh.Trimesh:
    """A mesh through points.

    Args:
        points: (P, 3) meters.
        normals: (P, 3) outward. Estimated and oriented alike if omitted.
        options: surface reconstruction.

    Raises:
        ValueError: if there are too few points, or no surface through them.
    """
    points = checks.array("points", points, ("P", 3))
    if len(points) < 50:
        raise ValueError(f"points: expected at least 50, got {len(points)}; a surface needs more")
    # Singular values of the centered points: two are 0 on a line, one is 0 in a plane.
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    if spread[1] <= 1e-6 * spread[0]:
        raise ValueError(
            "points: all lie in one point or on one line; there is no surface through them"
        )
    if spread[2] <= 1e-6 * spread[0]:
        raise ValueError(
            "points: all lie in one plane, which closes no surface; "
            "load a mesh of the sheet instead"
        )
    given = None if normals is None else checks.array("normals", normals, points.shape)
    keep = _kept(points, options)
    points = points[keep]
    facing = _normals(points, options.neighbors) if given is None else _unit(given[keep])
    reconstruct = _poisson if options.method == "poisson" else _ball_pivoting
    mesh = reconstruct(points, facing, options)
    if len(mesh.faces) == 0:
        raise ValueError("points: no surface found through them; try the other PointOptions.method")
    mesh = decimated(mesh, options.faces)
    _warn_if_far(mesh, points)
    return mesh


def _kept(points: FloatArray, options: PointOptions) -> NDArray[np.int64]:
    """Indices of the points to use: no outliers, and one per cell of a coarse enough grid."""
    keep = np.arange(len(points))
    if options.outlier_ratio > 0:
        distance, _ = _nearest(points, options.neighbors)
        distance = distance.mean(-1)
        keep = keep[distance <= distance.mean() + options.outlier_ratio * distance.std()]
    # Grow the cells until few enough points are left.
    cell = float(np.ptp(points[keep], axis=0).max()) * options.points**-0.5
    while len(keep) > options.points:
        cells = np.floor((points[keep] - points[keep].min(0)) / cell).astype(np.int64)
        keep = keep[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
        cell *= 1.2
    return keep


def _nearest(points: FloatArray, neighbors: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Distances and indices (P, k + 1) of every point's nearest neighbors, itself first."""
    distance, index = cKDTree(points).query(points, k=min(neighbors + 1, len(points)))
    return distance, index


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _normals(points: FloatArray, neighbors: int) -> FloatArray:
    """Outward unit normals (P, 3)."""
    # The axis of least spread of each point's neighborhood.
    _, index = _nearest(points, neighbors)
    offsets = points[index] - points[index].mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.swapaxes(offsets, -1, -2) @ offsets)
    normals = axes[..., 0]

    # Edges to the neighbors cost more if normals differ or the edge leaves the tangent planes.
    start = np.repeat(np.arange(len(points)), index.shape[1] - 1)
    end = index[:, 1:].ravel()
    along = _unit(points[end] - points[start])
    leaving = np.abs((along * normals[start]).sum(-1)) + np.abs((along * normals[end]).sum(-1))
    alike = np.abs((normals[start] * normals[end]).sum(-1))
    cost = 1e-6 + 1 - alike + leaving  # above zero: zero means no edge in a sparse matrix
    # Signs that agree along the minimum spanning tree of each connected part.
    graph = sparse.csr_matrix((cost, (start, end)), shape=(len(points),) * 2)
    tree = csgraph.minimum_spanning_tree(graph.maximum(graph.T))
    count, part = csgraph.connected_components(tree, directed=False)
    for number in range(count):
        members = np.flatnonzero(part == number)
        sign = _signs(normals, tree, int(members[0]))[members]
        normals[members] *= sign[:, None]
        # Outward normals: this sum is about three times the volume, by the divergence theorem.
        center = points[members].mean(0)
        if np.sum(normals[members] * (points[members] - center)) < 0:
            normals[members] *= -1
    return normals


def _signs(normals: FloatArray, tree: sparse.csr_matrix, root: int) -> FloatArray:
    """Signs (P,) by which normals agree with their parents in the tree below `root`.

    Points that the tree does not reach have the sign 0.
    """
    order, parent = csgraph.breadth_first_order(tree, root, directed=False)
    sign = np.zeros(len(normals))
    sign[root] = 1.0
    children = order[1:]
    product = (normals[children] * normals[parent[children]]).sum(-1)
    agrees = np.where(product < 0, -1.0, 1.0)
    # Breadth first: a parent's sign is known before its children's.
    for child, agreement in zip(children, agrees, strict=True):
        sign[child] = agreement * sign[parent[child]]
    return sign


def _poisson(points: FloatArray, normals: FloatArray, options: PointOptions) -> trimesh.Trimesh:
    """Closed surface at the level that chi has at the points."""
    # A grid with a margin of eight cells.
    voxel = float(np.ptp(points, axis=0).max()) / options.cells
    shape = np.ceil(np.ptp(points, axis=0) / voxel).astype(int) + 17
    lower = points.min(0) - 8 * voxel
    at = (points - lower) / voxel  # (P, 3) in cells
    # Each point's share of the area: a disk around it holds its neighbors.
    reach = _nearest(points, options.neighbors)[0]
    area = np.pi * reach[:, -1] ** 2 / (reach.shape[1] - 1)
    # Jumps of chi through the faces between cells, and chi itself.
    x, y, z = (_splat(at, -normals[:, a] * area / voxel**2, a, shape) for a in range(3))
    chi = winding_field((x, y, z), mirror_bottom=False)
    level = float(np.median(ndimage.map_coordinates(chi, at.T, order=1)))
    f = 4 * voxel * (level - chi)
    # The intersection with the points' bounding box.
    centers = np.moveaxis(np.indices(shape), 0, -1) * voxel + lower
    outside = np.maximum(points.min(0) - centers, centers - points.max(0)).max(-1)
    f = np.maximum(f, outside)
    mesh = closed_surface(f.astype(np.float32), voxel, lower, flat_bottom=False)
    return without_strays(mesh, STRAYS)


def _splat(
    at: FloatArray, values: FloatArray, axis: int, shape: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Values spread over the eight nearest faces between cells along an axis, by trilinear weights.

    Args:
        at: (P, 3) positions in cells.
        values: (P,).
        axis: 0, 1 or 2.
        shape: (3,) cells of the grid; there is one face less along the axis.
    """
    size = tuple(int(n) for n in shape - np.eye(3, dtype=int)[axis])
    place = at - 0.5 * np.eye(3)[axis]  # the first face lies half a cell after the first center
    base = np.floor(place).astype(int)
    part = place - base
    total = np.zeros(size, np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(-1)
        flat = np.ravel_multi_index((base + corner).T, size)
        added = np.bincount(flat, weight * values, minlength=total.size)
        total += added.reshape(size).astype(np.float32)
    return total


def _ball_pivoting(
    points: FloatArray, normals: FloatArray, options: PointOptions
) -> trimesh.Trimesh:
    """Surface of balls of three radii that pivot over the points."""
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.copy()))
    cloud.normals = o3d.utility.Vector3dVector(normals.copy())
    spacing = float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))
    radii = o3d.utility.DoubleVector([1.5 * spacing, 3 * spacing, 6 * spacing])
    raw = from_open3d(o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(cloud, radii))
    return repair.cleaned(raw) if len(raw.faces) else raw


def _warn_if_far(mesh: trimesh.Trimesh, points: FloatArray) -> None:
    """Warn if a tenth of the surface is far from any point, or a tenth of the points from it."""
    tree = cKDTree(points)
    spacing = float(np.median(tree.query(points, k=2)[0][:, 1]))
    on_surface, _ = trimesh.sample.sample_surface(mesh, 2000, seed=0)
    bare = float(np.mean(tree.query(on_surface)[0] > FAR * spacing))
    some = points[:: max(1, len(points) // 2000)].astype(np.float32)
    distance = raycasting_scene(mesh).compute_distance(open3d().core.Tensor(some)).numpy()
    lost = float(np.mean(distance > FAR * spacing))
    if max(bare, lost) > 0.1:
        warnings.warn(
            f"points: {100 * bare:.0f} % of the surface is far from any point and "
            f"{100 * lost:.0f} % of the points far from the surface, because the normals of a thin "
            "wall disagree or a side was not seen; give normals, or use "
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
        table = _numpy_table(path)
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] not in (3, 6):
        raise ValueError(f"{path}: expected (P, 3), or (P, 6) with normals, got {np.shape(table)}")
    points, normals = table[:, :3], table[:, 3:] if table.shape[1] == 6 else None
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points, or is damaged; export it again")
    # Sensors mark what did not return by values that are not finite.
    returned = np.isfinite(np.asarray(points, float)).all(1)
    if returned.any():
        points = points[returned]
        normals = None if normals is None else normals[returned]
    points = checks.array(f"{path}: points", points, ("P", 3), hint="drop points without a return")
    requirements.require_reach(f"{path}: points", points)
    if normals is None:
        return points, None
    named = path.suffix.lower() in (".ply", ".pcd")
    return _with_known_normals(path, points, np.asarray(normals, float), named)


def _with_known_normals(
    path: Path, points: FloatArray, normals: FloatArray, named: bool
) -> tuple[FloatArray, FloatArray | None]:
    """Points and normals (P, 3) without the points whose normal is unknown.

    Args:
        path: the file, for errors.
        points, normals: (P, 3).
        named: the file calls them normals; else they may be other columns, such as colors.

    Returns:
        The normals are None, with a warning, if fewer than half of them are known.

    Raises:
        ValueError: if columns without a name are no directions.
    """
    length = np.linalg.norm(normals, axis=1)
    known = np.isfinite(length) & (length > 1e-6)
    unit = known & (np.abs(length - 1) < 0.05)
    alike = float(np.ptp(normals[unit], axis=0).max()) < 1e-6 if unit.any() else False
    if not named and (alike or unit.sum() < 0.95 * known.sum()):
        found = "all are the same" if alike else f"their lengths are {length[known].min():.3g} to "
        found += "" if alike else f"{length[known].max():.3g}"
        raise ValueError(
            f"{path}: columns 4 to 6: expected normals of length one, {found}; "
            "if they are colors, save x, y and z alone"
        )
    if alike or known.sum() < 0.5 * len(points):
        warnings.warn(
            f"{path}: the normals of {len(points) - int(known.sum())} of {len(points)} points are "
            "zero or not finite, or all the same; normals are estimated from the points instead",
            stacklevel=4,
        )
        return points, None
    return points[known], normals[known]


def _numpy_table(path: Path) -> FloatArray:
    """The array of a .npy file, or the rows of a text file."""
    try:
        if path.suffix.lower() == ".npy":
            return numpy_files.read_npy(path)
        return np.loadtxt(text_files.read_text(path).splitlines(), ndmin=2)
    except Exception as error:  # numpy reads a damaged header with Python's own tokenizer
        raise ValueError(f"{path}: not readable as numbers ({first_line(error)})") from None


def _ply_table(path: Path) -> FloatArray:
    """Vertices (P, 3) of a .ply file, or (P, 6) with normals."""
    try:
        with path.open("rb") as file:
            fields = load_ply(file, skip_materials=True)
        points = np.asarray(fields.get("vertices", np.zeros((0, 3))), float)
        normals = fields.get("vertex_normals")
    except Exception as error:  # the readers of trimesh raise anything on damaged files
        raise ValueError(
            f"{path}: not readable as .ply ({first_line(error)}); export it again"
        ) from None
    return points if normals is None else np.concatenate([points, normals], axis=1)
