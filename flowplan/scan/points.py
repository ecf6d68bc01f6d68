"""Point clouds to scene objects: normals, then a surface through them.

Poisson (Kazhdan and Hoppe 2013) makes a closed surface and bridges gaps; it also bulges where there are no points, so
the result is cut at the cloud's bounding box. Ball pivoting (Bernardini et al. 1999) only joins points, and leaves gaps
open: right for a sheet.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from flowplan import checks
from flowplan._open3d import open3d
from flowplan.checks import FloatArray
from flowplan.geometry import pose
from flowplan.scan import repair
from flowplan.scan.load import METRES, Unit, warn_of_unit
from flowplan.scan.surface import decimated, from_open3d
from flowplan.scene import SceneObject

SUFFIXES = (".ply", ".pcd", ".xyz", ".npy")


@dataclass(frozen=True)
class PointOptions:
    """How a point cloud becomes a surface."""

    method: Literal["poisson", "ball_pivoting"] = "poisson"
    """poisson closes the surface; ball_pivoting leaves it open where there are no points."""
    points: int = 30_000
    """Clouds are thinned to about this many points."""
    depth: int = 8
    """Poisson's octree has 2^depth cells a side."""
    neighbors: int = 12
    """Points that a normal is estimated from, where the file has none."""
    outlier_ratio: float = 3.0
    """Points whose neighbours are this many standard deviations farther away than usual are dropped; 0 for none."""
    faces: int = 20_000
    """The surface is decimated to about this many faces."""
    cells: int = 128
    """Grid cells along the longest side when Poisson's surface is cut at the bounding box."""

    def __post_init__(self) -> None:
        checks.choice("PointOptions.method", self.method, ("poisson", "ball_pivoting"))
        checks.positive("PointOptions.outlier_ratio", self.outlier_ratio, zero=True)
        ranges = (
            ("points", 100, 10**6),
            ("depth", 3, 11),
            ("neighbors", 4, 200),
            ("faces", 20, 10**7),
            ("cells", 8, 256),
        )
        for name, least, most in ranges:
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"PointOptions.{name}: expected {least} to {most}, got {getattr(self, name)}")


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
    pose_given = pose() if X_world_object is None else checks.poses("X_world_object", X_world_object)
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
    extents = np.sort(np.ptp(points, axis=0))
    if extents[1] <= 1e-6 * extents[2]:
        raise ValueError("points: all lie in one point or on one line; there is no surface through them")
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.copy()))
    if normals is not None:
        cloud.normals = o3d.utility.Vector3dVector(checks.array("normals", normals, points.shape).copy())
    cloud = _thinned(cloud, options)
    if not cloud.has_normals():
        cloud.estimate_normals(o3d.geometry.KDTreeSearchParamKNN(options.neighbors))
        # The penalty on jumping straight across keeps the two sides of a thin wall apart.
        cloud.orient_normals_consistent_tangent_plane(options.neighbors, 10.0, 0.5)
        places, facing = np.asarray(cloud.points), np.asarray(cloud.normals)
        if np.sum(facing * (places - places.mean(0))) < 0:  # three times the volume: positive if they face outwards
            cloud.normals = o3d.utility.Vector3dVector(-facing)
    mesh = _poisson(cloud, options) if options.method == "poisson" else _ball_pivoting(cloud)
    if len(mesh.faces) == 0:
        raise ValueError("points: no surface found through them; try the other PointOptions.method")
    mesh = decimated(mesh, options.faces)
    _warn_if_far(mesh, np.asarray(cloud.points))
    return mesh


def _warn_if_far(mesh: trimesh.Trimesh, points: FloatArray) -> None:
    """Warn if a tenth of the surface lies where there are no points: then normals disagreed, or a side is missing."""
    tree = cKDTree(points)
    spacing = float(np.median(tree.query(points, k=2)[0][:, 1]))
    on_surface, _ = trimesh.sample.sample_surface(mesh, 2000, seed=0)
    far = float(np.mean(tree.query(on_surface)[0] > 8 * spacing))
    if far > 0.1:
        warnings.warn(
            f"points: {100 * far:.0f} % of the surface made is far from any point, as where a thin wall's normals "
            "disagree or a side was not seen; give normals, or use PointOptions(method='ball_pivoting')",
            stacklevel=3,
        )


def _thinned(cloud: Any, options: PointOptions) -> Any:
    """Without outliers, and on a grid that leaves about `points` of them."""
    if options.outlier_ratio > 0:
        cloud, _ = cloud.remove_statistical_outlier(options.neighbors, options.outlier_ratio)
    if len(cloud.points) > options.points:
        cell = float(np.mean(cloud.compute_nearest_neighbor_distance()))
        while len(cloud.points) > options.points:
            cell *= 1.3
            cloud = cloud.voxel_down_sample(cell)
        cloud.normalize_normals()
    return cloud


def _poisson(cloud: Any, options: PointOptions) -> trimesh.Trimesh:
    o3d = open3d()
    points = np.asarray(cloud.points)
    raw, _ = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=options.depth, linear_fit=True)
    mesh = repair.cleaned(from_open3d(raw))
    if len(mesh.faces) == 0:
        return mesh
    bounds = np.stack([points.min(0), points.max(0)])
    if (mesh.bounds[0] >= bounds[0] - 1e-3 * np.ptp(bounds)).all() and (mesh.bounds[1] <= bounds[1]).all():
        return mesh
    return repair.remeshed(mesh, cells=options.cells, faces=options.faces, bounds=bounds)


def _ball_pivoting(cloud: Any) -> trimesh.Trimesh:
    o3d = open3d()
    spacing = float(np.mean(cloud.compute_nearest_neighbor_distance()))
    radii = o3d.utility.DoubleVector([1.5 * spacing, 3 * spacing, 6 * spacing])
    return repair.cleaned(from_open3d(o3d.geometry.TriangleMesh.create_from_point_cloud_ball_pivoting(cloud, radii)))


def _read(path: Path) -> tuple[FloatArray, FloatArray | None]:
    """Points (P, 3) in the file's unit, and its normals (P, 3) or None."""
    checks.choice(f"{path}: file type", path.suffix.lower(), SUFFIXES)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    normals = None
    if path.suffix.lower() in (".ply", ".pcd"):
        cloud = open3d().io.read_point_cloud(str(path), remove_nan_points=False)
        points = np.asarray(cloud.points)
        normals = np.asarray(cloud.normals) if cloud.has_normals() else None
    else:
        try:
            table = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else np.loadtxt(path, ndmin=2)
        except (ValueError, OSError, EOFError) as error:
            reason = (str(error).splitlines() or ["truncated"])[0]
            raise ValueError(f"{path}: not readable as numbers ({reason[:120]})") from None
        if table.ndim != 2 or table.shape[1] not in (3, 6):
            raise ValueError(f"{path}: expected (P, 3), or (P, 6) with normals, got {table.shape}")
        points, normals = table[:, :3], table[:, 3:] if table.shape[1] == 6 else None
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points, or is damaged; export it again")
    return checks.array(f"{path}: points", points, ("P", 3), hint="drop points without a return"), normals
