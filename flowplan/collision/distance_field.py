"""How far every point is from what must not be touched: a voxel distance field, and spheres that stand for a body.

A field is sampled once per scene and read millions of times: trilinear interpolation of eight voxels, whose gradient
is exact for the interpolant. A body covered by spheres then has the clearance min_k d(c_k) - r_k. Distances are

    boxes             analytic (their corners stay sharp),
    closed meshes     signed, negative inside (Open3D ray casting),
    open meshes       to the surface, less half a voxel: a thin shell, since their inside is not known,
    support plane     z - height, added outside the grid as well as inside,

computed on a grid four times as coarse first, and at full resolution only where that shows something near.
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
from flowplan.utils.open3d_loader import open3d

_COARSE = 4
_MOST_VOXELS = 30_000_000
_SURFACE_SAMPLES, _BODY_SAMPLES = 2000, 500
"""Points that spheres must cover, and points on and within the bounds of a body that their centres are chosen by."""
_Distance = Callable[[FloatArray], FloatArray]
"""Points (M, 3) in the world to signed distances (M,), metres."""


@dataclass(frozen=True, eq=False)
class DistanceField:
    """Distance to the obstacles on a regular grid.

    Attributes:
        origin: (3,) world position of voxel (0, 0, 0)'s sample, metres.
        voxel: spacing, metres.
        values: (nx, ny, nz) float32 signed distance, metres, never more than the reach the field was built with.
        support_height: z of a support plane that extends beyond the grid, or None.
    """

    origin: FloatArray
    voxel: float
    values: NDArray[np.float32]
    support_height: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", checks.array("DistanceField.origin", self.origin, (3,)))
        checks.positive("DistanceField.voxel", self.voxel)
        values = checks.array(
            "DistanceField.values", self.values, ("nx", "ny", "nz"), dtype=np.float32
        )
        if min(values.shape) < 2:
            raise ValueError(
                f"DistanceField.values: expected at least 2 voxels along every axis, got {values.shape}"
            )
        object.__setattr__(self, "values", values)

    @cached_property
    def _flat(self) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp], FloatArray]:
        _, ny, nz = self.values.shape
        strides = np.array([ny * nz, nz, 1])
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ strides
        return self.values.ravel(), strides, corners, np.array(self.values.shape) - 1.0

    def query(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Distance (...,) in metres at points (..., 3), world frame, and its gradient (..., 3).

        Outside the grid the nearest point of the grid answers, with no gradient along the way out.
        """
        points = np.asarray(points, float)
        flat, strides, corners, last = self._flat
        u = (points.reshape(-1, 3) - self.origin) * (1.0 / self.voxel)
        clipped = np.clip(u, 0.0, last)
        cell = np.minimum(clipped, last - 0.5).astype(np.intp)
        f = clipped - cell
        v = flat.take((cell @ strides) + corners[:, None]).reshape(2, 2, 2, -1)
        fx, fy, fz = f.T
        dx = v[1] - v[0]
        vx = v[0] + fx * dx
        dy = vx[1] - vx[0]
        vy = vx[0] + fy * dy
        dz = vy[1] - vy[0]
        distance = vy[0] + fz * dz
        gradient = np.empty((len(u), 3))
        gy = dx[0] + fy * (dx[1] - dx[0])
        gradient[:, 0] = gy[0] + fz * (gy[1] - gy[0])
        gradient[:, 1] = dy[0] + fz * (dy[1] - dy[0])
        gradient[:, 2] = dz
        gradient *= 1.0 / self.voxel
        gradient[clipped != u] = 0.0
        if self.support_height is not None:
            height = points.reshape(-1, 3)[:, 2] - self.support_height
            lower = height < distance
            distance = np.where(lower, height, distance)
            gradient[lower] = [0.0, 0.0, 1.0]
        return distance.reshape(points.shape[:-1]), gradient.reshape(points.shape)

    def distance(self, points: FloatArray) -> FloatArray:
        """Distance (...,) in metres at points (..., 3), without the gradient."""
        points = np.asarray(points, float)
        flat, strides, corners, last = self._flat
        u = (points.reshape(-1, 3) - self.origin) * (1.0 / self.voxel)
        np.clip(u, 0.0, last, out=u)
        cell = np.minimum(u, last - 0.5).astype(np.intp)
        fx, fy, fz = (u - cell).T
        v = flat.take((cell @ strides) + corners[:, None]).reshape(2, 2, 2, -1)
        v = v[0] + fx * (v[1] - v[0])
        v = v[0] + fy * (v[1] - v[0])
        out = (v[0] + fz * (v[1] - v[0])).reshape(points.shape[:-1])
        return (
            out
            if self.support_height is None
            else np.minimum(out, points[..., 2] - self.support_height)
        )

    def lower_bound(self, points: FloatArray) -> FloatArray:
        """A bound (...,) that `distance` at points (..., 3) never falls below, for one read instead of eight.

        The interpolant's slope along each axis is at most one, so it is within the taxicab distance of the nearest
        sample: never more than one and a half voxels.
        """
        points = np.asarray(points, float)
        flat, strides, _, last = self._flat
        u = points.reshape(-1, 3) * (1.0 / self.voxel)
        u += 0.5 - self.origin / self.voxel
        np.clip(u, 0.0, last + 0.5, out=u)
        samples = flat.take(u.astype(np.intp) @ strides).astype(float)
        out = (samples - 1.5 * self.voxel).reshape(points.shape[:-1])
        return (
            out
            if self.support_height is None
            else np.minimum(out, points[..., 2] - self.support_height)
        )


def distance_field(
    meshes: Sequence[trimesh.Trimesh],
    *,
    lower: FloatArray,
    upper: FloatArray,
    voxel: float,
    support_height: float | None = None,
    reach: float = 0.3,
) -> DistanceField:
    """The distance field of the union of meshes.

    Args:
        meshes: obstacles, world frame, metres; none is allowed.
        lower, upper: (3,) corners of the grid, metres; what lies outside is not seen.
        voxel: spacing, metres.
        support_height: z of the support plane, or None.
        reach: metres beyond which distances are cut off; more costs time and tells an optimizer nothing.

    Raises:
        ValueError: for an empty or non-finite mesh, or a grid of more than 30 million voxels.
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
        raise ValueError(
            f"voxel: {voxel:g} m makes a grid of {'x'.join(map(str, shape))}, more than {_MOST_VOXELS:,} voxels; "
            "take larger voxels or a smaller box"
        )
    values = np.full(shape, reach, np.float32)
    for index, mesh in enumerate(meshes):
        for part, bounds in _distances(mesh, f"meshes[{index}]", 0.5 * voxel):
            _carve(values, part, bounds, lower, voxel, reach)
    return DistanceField(lower, voxel, values, support_height)


def _carve(
    values: NDArray[np.float32],
    part: _Distance,
    bounds: FloatArray,
    lower: FloatArray,
    voxel: float,
    reach: float,
) -> None:
    # The window of coarse samples around the part, then the fine ones whose coarse cell may be within reach.
    last = (np.array(values.shape) - 1) // _COARSE
    low = np.clip(np.floor((bounds[0] - reach - lower) / (_COARSE * voxel)), 0, last).astype(int)
    high = np.clip(np.ceil((bounds[1] + reach - lower) / (_COARSE * voxel)), 0, last).astype(int)
    if (high <= low).any():
        return
    coarse = part(_grid(low, high + 1, lower, _COARSE * voxel)).reshape(high - low + 1)
    window = tuple(slice(a * _COARSE, b * _COARSE + 1) for a, b in zip(low, high, strict=True))
    near = _any_corner(np.abs(coarse) < min(reach, 3 * _COARSE * voxel))
    fine = _upsample(coarse)
    # The last sample along an axis begins no coarse cell: it goes with the one before it.
    index = np.argwhere(np.pad(np.kron(near, np.ones((_COARSE,) * 3, bool)), (0, 1), mode="edge"))
    fine[tuple(index.T)] = part(lower + (low * _COARSE + index) * voxel)
    np.minimum(values[window], fine, out=values[window], casting="same_kind")


def _grid(
    low: NDArray[np.int64], high: NDArray[np.int64], lower: FloatArray, spacing: float
) -> FloatArray:
    axes = [lower[c] + spacing * np.arange(low[c], high[c]) for c in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _any_corner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for axis in range(3):
        a, b = (np.take(mask, range(s, mask.shape[axis] - 1 + s), axis=axis) for s in (0, 1))
        mask = a | b
    return mask


def _upsample(coarse: FloatArray) -> FloatArray:
    fine = coarse
    for axis in range(3):
        n = fine.shape[axis]
        position = np.arange((n - 1) * _COARSE + 1) / _COARSE
        cell = np.minimum(position.astype(int), n - 2)
        f = (position - cell).reshape([-1 if a == axis else 1 for a in range(3)])
        fine = np.take(fine, cell, axis=axis) * (1 - f) + np.take(fine, cell + 1, axis=axis) * f
    return fine


def _distances(
    mesh: trimesh.Trimesh, where: str, shell: float
) -> list[tuple[_Distance, FloatArray]]:
    """Distance functions whose minimum is the mesh's, each with its bounds (2, 3)."""
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise ValueError(
            f"{where}: expected a finite mesh with faces, got {len(mesh.faces)} faces; repair it first"
        )
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    box = _as_box(mesh)
    if box is not None:
        return [(_box_distance(*box), mesh.bounds)]
    # Closed parts one by one: where two overlap, a ray through both would count their inside as outside.
    parts = mesh.split(only_watertight=False)
    open_parts = [p for p in parts if not p.is_watertight]
    out = [(_mesh_distance(p, None), p.bounds) for p in parts if p.is_watertight]
    if open_parts:
        rest = trimesh.util.concatenate(open_parts)
        assert isinstance(rest, trimesh.Trimesh)
        out.append((_mesh_distance(rest, shell), rest.bounds))
    return out


def _as_box(mesh: trimesh.Trimesh) -> tuple[FloatArray, FloatArray] | None:
    """(X_world_box, half extents) when the mesh is a box, of whatever orientation."""
    if len(mesh.vertices) != 8 or len(mesh.faces) != 12 or not mesh.is_watertight:
        return None
    normals = mesh.face_normals
    x = normals[0]
    across = np.abs(normals @ x)
    if not np.all((across < 1e-6) | (across > 1 - 1e-6)):
        return None
    y = normals[np.argmin(across)]
    R = np.stack([x, y, np.cross(x, y)], axis=1)
    along = np.abs(normals @ R)
    if not np.all((along < 1e-6) | (along > 1 - 1e-6)):
        return None
    local = mesh.vertices @ R
    low, high = local.min(0), local.max(0)
    X = np.eye(4)
    X[:3, :3], X[:3, 3] = R, R @ (0.5 * (low + high))
    return X, 0.5 * (high - low)


def _box_distance(X_world_box: FloatArray, half: FloatArray) -> _Distance:
    R, t = X_world_box[:3, :3], X_world_box[:3, 3]

    def distance(points: FloatArray) -> FloatArray:
        d = np.abs((points - t) @ R) - half
        outside = np.maximum(d, 0.0)
        return np.sqrt(np.einsum("mc,mc->m", outside, outside)) + np.minimum(d.max(axis=1), 0.0)

    return distance


def _mesh_distance(mesh: trimesh.Trimesh, shell: float | None) -> _Distance:
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor(np.asarray(mesh.vertices, np.float32)),
        o3d.core.Tensor(np.asarray(mesh.faces, np.uint32)),
    )

    def distance(points: FloatArray) -> FloatArray:
        query = o3d.core.Tensor(np.asarray(points, np.float32))
        if shell is None:  # three rays vote: one may graze an edge
            return scene.compute_signed_distance(query, nsamples=3).numpy().astype(float)
        return scene.compute_distance(query).numpy().astype(float) - shell

    return distance


def sphere_cover(mesh: trimesh.Trimesh, count: int, *, seed: int = 0) -> FloatArray:
    """Spheres (K, 4), K <= count, as (x, y, z, radius) in the mesh's frame that together contain its surface.

    Centres are the k-means centres of points in and on the body, each sphere reaching to the farthest surface sample
    that is nearest to it: with more spheres they stand out less.

    Args:
        mesh: the body, closed or open.
        count: spheres at most.
        seed: of the samples.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1 sphere, got {count}")
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
        raise ValueError(
            f"mesh: expected a finite mesh with faces, got {len(mesh.faces)} faces; repair it first"
        )
    rng = np.random.default_rng(seed)
    area = mesh.area_faces
    face = (
        rng.choice(len(area), size=_SURFACE_SAMPLES, p=area / area.sum())
        if area.sum() > 0
        else np.zeros(_SURFACE_SAMPLES, int)
    )
    u, v = rng.random((2, _SURFACE_SAMPLES, 1))
    a, b, c = mesh.triangles[face].transpose(1, 0, 2)
    root = np.sqrt(u)
    samples = (1 - root) * a + root * (1 - v) * b + root * v * c
    surface = np.concatenate([samples, mesh.vertices])
    body = np.concatenate([samples[:_BODY_SAMPLES], _points_inside(mesh, _BODY_SAMPLES, rng)])
    centres = _k_means(body, min(count, len(np.unique(body, axis=0))), rng)
    nearest = _nearest(surface, centres)
    used = np.unique(nearest)
    spheres = np.zeros((len(used), 4))
    for i, k in enumerate(used):
        spheres[i, :3] = centres[k]
        spheres[i, 3] = np.linalg.norm(surface[nearest == k] - centres[k], axis=1).max()
    return spheres


def _points_inside(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> FloatArray:
    solid = mesh if mesh.is_watertight else None
    if solid is None:
        return np.zeros((0, 3))
    points = rng.uniform(solid.bounds[0], solid.bounds[1], (count, 3))
    return points[_mesh_distance(solid, None)(points) < 0]


def _k_means(points: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    centres = points[[int(rng.integers(len(points)))]]
    gap = np.linalg.norm(points - centres[0], axis=1)
    while len(centres) < count:  # farthest points first, which Lloyd's rounds then settle
        centres = np.concatenate([centres, points[[int(np.argmax(gap))]]])
        gap = np.minimum(gap, np.linalg.norm(points - centres[-1], axis=1))
    for _ in range(6):
        nearest = _nearest(points, centres)
        sums = np.stack(
            [np.bincount(nearest, points[:, c], len(centres)) for c in range(3)], axis=1
        )
        counts = np.bincount(nearest, minlength=len(centres))[:, None]
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
    return centres


def _nearest(points: FloatArray, centres: FloatArray) -> NDArray[np.int64]:
    square = (centres**2).sum(1) - 2 * points @ centres.T
    return square.argmin(axis=1)
