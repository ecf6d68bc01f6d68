"""Signed distance to obstacles on a voxel grid.

A field is sampled once per scene and queried millions of times: by trilinear interpolation of eight
voxels, whose gradient is exact for the interpolant. The distances are

    boxes             analytic (their corners stay sharp),
    closed meshes     signed, negative inside (Open3D ray casting),
    open meshes       to the surface, less half a voxel: a thin shell, as the inside is undefined,
    support plane     z - height, valid outside the grid too,

computed on a grid four times as coarse first, and at full resolution only near the obstacles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene

_COARSE = 4
"""Voxels per cell of the coarse grid, along each axis."""
_MOST_VOXELS = 30_000_000
_AXIS_ALIGNED = 1e-6
"""Largest deviation of a cosine from 0 or 1 among the face normals of a box."""

Distance = Callable[[FloatArray], FloatArray]
"""Signed distances (M,) in meters at points (M, 3), world frame."""


@dataclass(frozen=True, eq=False)
class DistanceField:
    """Distance to the obstacles on a regular grid.

    Attributes:
        origin: (3,) world position of the sample of voxel (0, 0, 0), meters.
        voxel: Grid spacing, meters.
        values: (nx, ny, nz) float32 signed distance, meters, truncated at the field's reach.
        support_height: z of a support plane that extends beyond the grid, or None.
    """

    origin: FloatArray
    voxel: float
    values: NDArray[np.float32]
    support_height: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", checks.array("DistanceField.origin", self.origin, (3,)))
        checks.positive("DistanceField.voxel", self.voxel)
        shape = ("nx", "ny", "nz")
        values = checks.array("DistanceField.values", self.values, shape, dtype=np.float32)
        if min(values.shape) < 2:
            raise ValueError(
                "DistanceField.values: expected at least 2 voxels along every axis, "
                f"got {values.shape}"
            )
        object.__setattr__(self, "values", values)

    @cached_property
    def _flat(self) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp], FloatArray]:
        """Flattened values, strides (3,), offsets (8,) of a cell's corners, last index (3,)."""
        _, ny, nz = self.values.shape
        strides = np.array([ny * nz, nz, 1])
        steps = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        last = np.array(self.values.shape) - 1.0
        return self.values.ravel(), strides, steps @ strides, last

    def query(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distance and its gradient.

        Outside the grid both are those of the grid's nearest point, with no gradient along the
        clamped axes.

        Args:
            points: (..., 3) world frame, meters.

        Returns:
            Distance (...,) in meters and gradient (..., 3).
        """
        points = np.asarray(points, float)
        flat, strides, corners, last = self._flat

        # Cell and fractions within it.
        u = (points.reshape(-1, 3) - self.origin) * (1.0 / self.voxel)  # (M, 3)
        clipped = np.clip(u, 0.0, last)
        cell = np.minimum(clipped, last - 0.5).astype(np.intp)
        fx, fy, fz = (clipped - cell).T

        # Trilinear interpolation, one axis after another.
        v = flat.take((cell @ strides) + corners[:, None]).reshape(2, 2, 2, -1)
        dx = v[1] - v[0]
        vx = v[0] + fx * dx  # (2, 2, M)
        dy = vx[1] - vx[0]
        vy = vx[0] + fy * dy  # (2, M)
        dz = vy[1] - vy[0]
        distance = vy[0] + fz * dz  # (M,)

        # Its derivative, per voxel and then per meter.
        gradient = np.empty((len(u), 3))
        gy = dx[0] + fy * (dx[1] - dx[0])
        gradient[:, 0] = gy[0] + fz * (gy[1] - gy[0])
        gradient[:, 1] = dy[0] + fz * (dy[1] - dy[0])
        gradient[:, 2] = dz
        gradient *= 1.0 / self.voxel
        gradient[clipped != u] = 0.0

        # The support plane where it is nearer.
        if self.support_height is not None:
            height = points.reshape(-1, 3)[:, 2] - self.support_height
            lower = height < distance
            distance = np.where(lower, height, distance)
            gradient[lower] = [0.0, 0.0, 1.0]
        return distance.reshape(points.shape[:-1]), gradient.reshape(points.shape)

    def distance(self, points: FloatArray) -> FloatArray:
        """Distance (...,) in meters at points (..., 3), without the gradient."""
        points = np.asarray(points, float)
        flat, strides, corners, last = self._flat
        # Cell and fractions within it, then one axis after another, as in `query`.
        u = (points.reshape(-1, 3) - self.origin) * (1.0 / self.voxel)
        np.clip(u, 0.0, last, out=u)
        cell = np.minimum(u, last - 0.5).astype(np.intp)
        fx, fy, fz = (u - cell).T
        v = flat.take((cell @ strides) + corners[:, None]).reshape(2, 2, 2, -1)
        v = v[0] + fx * (v[1] - v[0])
        v = v[0] + fy * (v[1] - v[0])
        v = v[0] + fz * (v[1] - v[0])
        return self._above_support(v.reshape(points.shape[:-1]), points)

    def lower_bound(self, points: FloatArray) -> FloatArray:
        """Lower bound (...,) of `distance` at points (..., 3), for one read instead of eight.

        The slope of the interpolant along each axis is at most one, so it differs from the nearest
        sample by at most the taxicab distance to it: one and a half voxels.
        """
        points = np.asarray(points, float)
        flat, strides, _, last = self._flat
        # Index of the nearest sample.
        u = points.reshape(-1, 3) * (1.0 / self.voxel)
        u += 0.5 - self.origin / self.voxel
        np.clip(u, 0.0, last + 0.5, out=u)
        samples = flat.take(u.astype(np.intp) @ strides).astype(float)
        bound = (samples - 1.5 * self.voxel).reshape(points.shape[:-1])
        return self._above_support(bound, points)

    def _above_support(self, distance: FloatArray, points: FloatArray) -> FloatArray:
        """Distances (...,), or the height above the support plane where it is less."""
        if self.support_height is None:
            return distance
        return np.minimum(distance, points[..., 2] - self.support_height)


def distance_field(
    meshes: Sequence[trimesh.Trimesh],
    *,
    lower: FloatArray,
    upper: FloatArray,
    voxel: float,
    support_height: float | None = None,
    reach: float = 0.3,
    others: DistanceField | None = None,
) -> DistanceField:
    """Distance field of the union of meshes.

    Args:
        meshes: Obstacles, world frame, meters; may be empty.
        lower, upper: (3,) corners of the grid, meters; obstacles outside are ignored.
        voxel: Grid spacing, meters.
        support_height: z of the support plane, or None.
        reach: Meters at which distances are truncated; a larger reach costs time and does not help
            an optimizer.
        others: Field of further obstacles, of the same corners, spacing and reach.

    Raises:
        ValueError: For an empty or non-finite mesh, or a grid of more than 30 million voxels.
    """
    lower, upper = checks.array("lower", lower, (3,)), checks.array("upper", upper, (3,))
    checks.positive("voxel", voxel)
    checks.positive("reach", reach)
    if not (upper > lower).all():
        raise ValueError(
            f"upper: expected a corner above lower {lower.tolist()}, got {upper.tolist()}"
        )
    # A multiple of the coarse grid, so that both share their outermost samples.
    cells = np.maximum(np.ceil((upper - lower) / (_COARSE * voxel)).astype(int), 1)
    shape = cells * _COARSE + 1
    if np.prod(shape.astype(float)) > _MOST_VOXELS:
        size = "x".join(map(str, shape))
        raise ValueError(
            f"voxel: {voxel:g} m makes a grid of {size}, more than {_MOST_VOXELS:,} voxels; "
            "take larger voxels or a smaller box"
        )
    values = np.full(shape, reach, np.float32) if others is None else others.values.copy()
    if values.shape != tuple(shape):
        raise ValueError(
            f"others: expected a field of shape {tuple(shape)}, got {values.shape}; "
            "make it with the same corners and voxels"
        )
    for index, mesh in enumerate(meshes):
        for part, bounds in _parts(mesh, f"meshes[{index}]", 0.5 * voxel):
            _add_part(values, part, bounds, lower, voxel, reach)
    return DistanceField(lower, voxel, values, support_height)


def _add_part(
    values: NDArray[np.float32],
    part: Distance,
    bounds: FloatArray,
    lower: FloatArray,
    voxel: float,
    reach: float,
) -> None:
    """Lower the values (nx, ny, nz) to the distance of one part with bounds (2, 3)."""
    # The window of coarse samples within reach of the part's bounds.
    spacing = _COARSE * voxel
    last = (np.array(values.shape) - 1) // _COARSE
    low = np.clip(np.floor((bounds[0] - reach - lower) / spacing), 0, last).astype(int)
    high = np.clip(np.ceil((bounds[1] + reach - lower) / spacing), 0, last).astype(int)
    if (high <= low).any():
        return
    coarse = part(_grid(low, high + 1, lower, spacing)).reshape(high - low + 1)
    window = tuple(slice(a * _COARSE, b * _COARSE + 1) for a, b in zip(low, high, strict=True))

    # Interpolated distances, replaced by exact ones in the coarse cells that may be near.
    near = _any_corner(np.abs(coarse) < min(reach, 3 * _COARSE * voxel))
    fine = _upsample(coarse)
    near_samples = np.kron(near, np.ones((_COARSE,) * 3, bool))
    # The last sample along an axis begins no coarse cell and goes with the one before it.
    index = np.argwhere(np.pad(near_samples, (0, 1), mode="edge"))  # (M, 3)
    fine[tuple(index.T)] = part(lower + (low * _COARSE + index) * voxel)
    np.minimum(values[window], fine, out=values[window], casting="same_kind")


def _grid(
    low: NDArray[np.int64], high: NDArray[np.int64], lower: FloatArray, spacing: float
) -> FloatArray:
    """World points (M, 3) of the grid samples low <= index < high."""
    axes = [lower[c] + spacing * np.arange(low[c], high[c]) for c in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _any_corner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells (nx - 1, ny - 1, nz - 1) of which any corner is in the mask (nx, ny, nz)."""
    for axis in range(3):
        cells = mask.shape[axis] - 1
        first = np.take(mask, range(cells), axis=axis)
        second = np.take(mask, range(1, cells + 1), axis=axis)
        mask = first | second
    return mask


def _upsample(coarse: FloatArray) -> FloatArray:
    """Linear interpolation of coarse samples at the fine grid, one axis after another."""
    fine = coarse
    for axis in range(3):
        n = fine.shape[axis]
        position = np.arange((n - 1) * _COARSE + 1) / _COARSE
        cell = np.minimum(position.astype(int), n - 2)
        f = (position - cell).reshape([-1 if a == axis else 1 for a in range(3)])
        first = np.take(fine, cell, axis=axis)
        second = np.take(fine, cell + 1, axis=axis)
        fine = first * (1 - f) + second * f
    return fine


def _parts(mesh: trimesh.Trimesh, name: str, shell: float) -> list[tuple[Distance, FloatArray]]:
    """Distance functions whose minimum is the mesh's, each with its bounds (2, 3).

    Args:
        mesh: The obstacle, world frame.
        name: Name of the mesh in errors.
        shell: Half thickness of open surfaces, meters.
    """
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise ValueError(
            f"{name}: expected a finite mesh with faces, got {len(mesh.faces)} faces; "
            "repair it first"
        )
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    box = _as_box(mesh)
    if box is not None:
        return [(_box_distance(*box), mesh.bounds)]
    # Closed parts one by one: a ray through two that overlap would count their inside as outside.
    parts = mesh.split(only_watertight=False)
    open_parts = [p for p in parts if not p.is_watertight]
    out = [(mesh_distance(p), p.bounds) for p in parts if p.is_watertight]
    if open_parts:
        rest = trimesh.util.concatenate(open_parts)
        assert isinstance(rest, trimesh.Trimesh)
        out.append((mesh_distance(rest, shell=shell), rest.bounds))
    return out


def _as_box(mesh: trimesh.Trimesh) -> tuple[FloatArray, FloatArray] | None:
    """Pose X_world_box (4, 4) and half extents (3,) if the mesh is a box, of any orientation."""
    if len(mesh.vertices) != 8 or len(mesh.faces) != 12 or not mesh.is_watertight:
        return None
    # The first normal and any perpendicular one span the axes.
    normals = mesh.face_normals
    x = normals[0]
    across = np.abs(normals @ x)
    if not _all_zero_or_one(across):
        return None
    y = normals[np.argmin(across)]
    R = np.stack([x, y, np.cross(x, y)], axis=1)
    if not _all_zero_or_one(np.abs(normals @ R)):
        return None
    # Bounds along the axes.
    local = mesh.vertices @ R
    low, high = local.min(0), local.max(0)
    X = np.eye(4)
    X[:3, :3] = R
    X[:3, 3] = R @ (0.5 * (low + high))
    return X, 0.5 * (high - low)


def _all_zero_or_one(cosines: FloatArray) -> bool:
    """True if all cosines are those of parallel or perpendicular directions."""
    perpendicular = cosines < _AXIS_ALIGNED
    parallel = cosines > 1 - _AXIS_ALIGNED
    return bool(np.all(perpendicular | parallel))


def _box_distance(X_world_box: FloatArray, half: FloatArray) -> Distance:
    """Exact signed distance of a box with half extents (3,)."""
    R, t = X_world_box[:3, :3], X_world_box[:3, 3]

    def distance(points: FloatArray) -> FloatArray:
        d = np.abs((points - t) @ R) - half
        outside = np.maximum(d, 0.0)
        inside = np.minimum(d.max(axis=1), 0.0)
        return np.sqrt(np.einsum("mc,mc->m", outside, outside)) + inside

    return distance


def mesh_distance(mesh: trimesh.Trimesh, *, shell: float | None = None) -> Distance:
    """Distance function of a mesh.

    Args:
        mesh: Closed, unless `shell` is given; meters.
        shell: Half thickness of an open surface, meters. Defaults to signed distances, negative
            inside.
    """
    o3d = open3d()
    scene = surface_scene((mesh.vertices, mesh.faces))

    def distance(points: FloatArray) -> FloatArray:
        query = o3d.core.Tensor(np.asarray(points, np.float32))
        if shell is None:  # three rays vote, as one may graze an edge
            return scene.compute_signed_distance(query, nsamples=3).numpy().astype(float)
        return scene.compute_distance(query).numpy().astype(float) - shell

    return distance
