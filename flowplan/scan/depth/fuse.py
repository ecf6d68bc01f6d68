"""Depth frames to a scene: the support, the objects on it, and their closed meshes.

    frames -> trusted pixels -> support plane -> labels (masks, or clusters above the support)
           -> per object: signed distance on its own grid -> unseen cells by winding number
           -> marching cubes -> stray parts dropped, smoothed, decimated, colored

Surfaces that no camera saw are closed smoothly (`flowplan.scan.meshes.winding`); the bottom of an
object on the support is closed flat on it. An object as flat as a cloth becomes a height field
(`flowplan.scan.depth.sheet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from flowplan.geometry import inverse, pose, transform
from flowplan.motion import Progress, silent
from flowplan.scan.depth import segment, tsdf
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.depth.segment import SUPPORT, UNKNOWN, Support
from flowplan.scan.depth.sheet import sheet_surface
from flowplan.scan.meshes import surface
from flowplan.scene import Scene, SceneObject
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

FRONT, BEHIND = 4.0, 2.0
"""Truncation of the signed distance before and behind a surface, voxels."""
STRAYS = 0.02
"""Parts of less than this share of the largest part's volume are dropped, unless they were seen."""
SEEN_SHARE = 0.3
"""Share of a small part's surface that points must cover for it to be kept."""
SEEN_WITHIN = 0.01
"""A pixel gives a vertex its color if its depth is this close to the vertex's, meters."""


@dataclass(frozen=True)
class ScanOptions:
    """Conversion of depth frames to objects."""

    names: tuple[str, ...] = ()
    """Names of the objects: of mask ids 1, 2, ... if the frames have masks, else of the clusters,
    largest first (and then only as many clusters are kept). Further objects are called object_0,
    object_1, ..."""
    voxel: Annotated[float, Interval(1e-4, 0.1)] = 0.003
    """Cell of the signed distance, meters; enlarged for an object of more than `max_cells`."""
    max_cells: Annotated[int, Interval(1000, 100_000_000)] = 3_000_000
    """Maximum number of cells of one object's grid."""
    faces: Annotated[int, Interval(20, 1_000_000)] = 6000
    """Meshes are decimated to about this many faces."""
    blur: Annotated[float, Interval(0, 10)] = 0.6
    """Standard deviation of the blur of the signed distance, voxels. More gives less noise and
    rounder edges; 0 turns it off."""
    smoothing: Annotated[int, Interval(0, 1000)] = 10
    """Iterations of Taubin smoothing; 0 turns it off."""
    support: bool = True
    """Objects stand on a support. If false, everything that is seen is an object."""
    support_height: float | None = None
    """Known height of the support in the world, meters. Defaults to the plane in the frames."""
    support_tilt: Annotated[float, Interval(1e-3, 1.6)] = 0.1
    """Largest angle between the found support and the horizontal, radians."""
    support_band: Annotated[float, Interval(1e-4, 0.1)] = 0.008
    """Height above the support below which only masks tell an object from it, meters."""
    sheet_height: Annotated[float, Interval(0, 0.1)] = 0.008
    """An object whose points stay below this height above the support is meshed as a sheet, meters;
    0 turns it off."""
    cluster_gap: Annotated[float, Interval(1e-4, 1)] = 0.02
    """Objects nearer to each other than this are one, except by mask, meters."""
    min_size: Annotated[float, Interval(0, 1)] = 0.015
    """Objects whose largest side is smaller than this are dropped, meters."""
    edge_jump: Annotated[float, Interval(1e-4, 1)] = 0.02
    """Depth difference between neighboring pixels that counts as an edge, meters."""
    lower: tuple[float, float, float] = (-np.inf, -np.inf, -np.inf)
    """Lower corner of the scanned box, world frame, meters."""
    upper: tuple[float, float, float] = (np.inf, np.inf, np.inf)
    """Upper corner of the scanned box, world frame, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"ScanOptions.names: expected different names, got {self.names}")
        if not self.support and self.support_height is not None:
            raise ValueError(
                "ScanOptions.support_height: given although support is False; leave one of them out"
            )
        if not np.all(np.asarray(self.lower) < np.asarray(self.upper)):
            raise ValueError(
                f"ScanOptions.lower: expected to lie below upper {self.upper}, got {self.lower}"
            )


def scan_frames(
    frames: Sequence[DepthFrame],
    options: ScanOptions = ScanOptions(),
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Scene:
    """The objects in depth frames, and the support that they stand on.

    If the frames have masks, each positive id is an object, even if it touches another or lies
    flush with the support. Otherwise the objects are the clusters of points above the support.

    Args:
        frames: all with a mask, or none.
        options: see there.
        seed: random seed of the search for the support.
        progress: receives the fraction done and the step.

    Returns:
        Scene of named objects, by mask id if there are masks, else largest first. An object's frame
        has the world's axes and lies at the center of its bounding box. Meshes are watertight,
        except for sheets; vertices are colored if the frames are.

    Raises:
        ValueError: one line, if no support or no object is found, or a named one was not seen.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("frames: expected at least one DepthFrame, got none")
    masks = _masks(frames)

    # Trusted pixels and their points in the world.
    progress(0.0, "finding the support")
    points = [frame.points_world for frame in frames]
    trusted = [
        _in_box(p, options) & segment.trusted_pixels(f, options.edge_jump)
        for f, p in zip(frames, points, strict=True)
    ]
    if not any(t.any() for t in trusted):
        raise ValueError(
            "frames: no depth in any of them within the scanned box; "
            "check depth_scale, lower and upper"
        )
    # The support, and which pixel shows which object.
    X_world_camera = np.stack([frame.X_world_camera for frame in frames])  # (C, 4, 4)
    support = _support(points, X_world_camera, trusted, masks, options, seed)
    labels, ids = _labels(points, trusted, masks, support, options)

    # A mesh for each object.
    views = [
        tsdf.view(frame, label, options.edge_jump)
        for frame, label in zip(frames, labels, strict=True)
    ]
    objects = []
    for i, (label, name) in enumerate(_named(ids, bool(masks), options).items()):
        progress(0.2 + 0.8 * i / len(ids), f"meshing {name}")
        mesh = _object_mesh(views, points, labels, label, support, bool(masks), options)
        # Scattered points reach far, and what is left of them is a shard.
        if len(mesh.faces) == 0 or mesh.extents.max() < options.min_size:
            if name in options.names:
                raise ValueError(
                    f"ScanOptions.names: {name!r} left no surface; "
                    "add views of it, or make voxel smaller"
                )
        else:
            objects.append(_scene_object(name, mesh, frames))
    if not objects:
        raise ValueError(
            "frames: no object above the support; check support_height, "
            "or lower min_size or support_band, or add masks"
        )
    progress(1.0, "scanned")
    return Scene(tuple(objects), None if support is None else float(support.center[2]))


def _masks(frames: Sequence[DepthFrame]) -> list[NDArray[np.int32]]:
    """The masks of all frames, or none."""
    masks = [frame.mask for frame in frames if frame.mask is not None]
    if masks and len(masks) < len(frames):
        raise ValueError(f"frames: {len(masks)} of {len(frames)} have a mask; expected all or none")
    return masks


def _in_box(points: FloatArray, options: ScanOptions) -> NDArray[np.bool_]:
    """Points (H, W, 3) inside the scanned box (H, W)."""
    return np.all((points >= options.lower) & (points <= options.upper), axis=-1)


def _support(
    points: Sequence[FloatArray],
    X_world_camera: FloatArray,
    trusted: Sequence[NDArray[np.bool_]],
    masks: Sequence[NDArray[np.int32]],
    options: ScanOptions,
    seed: int,
) -> Support | None:
    """The known support, or the plane found in the trusted points (H, W, 3) of the frames."""
    if not options.support:
        return None
    if options.support_height is not None:
        return Support(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, options.support_height]))
    cloud = np.concatenate([p[t] for p, t in zip(points, trusted, strict=True)])
    if masks:
        # Without the objects: one that lies flat on the support would lift the plane.
        background = [mask[t] <= SUPPORT for mask, t in zip(masks, trusted, strict=True)]
        cloud = cloud[np.concatenate(background)]
    return segment.find_support(
        cloud,
        X_world_camera[:, :3, 3],
        thickness=options.support_band,
        tilt=options.support_tilt,
        seed=seed,
        upward=-X_world_camera[:, :3, 1],
    )


def _labels(
    points: Sequence[FloatArray],
    trusted: Sequence[NDArray[np.bool_]],
    masks: Sequence[NDArray[np.int32]],
    support: Support | None,
    options: ScanOptions,
) -> tuple[list[NDArray[np.int32]], list[int]]:
    """Labels (H, W) of each frame, and the object labels among them."""
    heights = [
        np.full(p.shape[:2], np.inf) if support is None else support.height_of(p) for p in points
    ]
    if masks:
        labels = segment.label_by_mask(masks, trusted, heights, options.support_band)
        for label in _objects(labels):
            _keep_clusters(labels, points, label, options)
    else:
        labels = segment.label_by_height(trusted, heights, options.support_band)
        _split_clusters(labels, points, options)
    return labels, _objects(labels)


def _objects(labels: Sequence[NDArray[np.int32]]) -> list[int]:
    """The labels of objects, ascending."""
    return sorted({int(i) for one in labels for i in np.unique(one) if i > SUPPORT})


def _keep_clusters(
    labels: list[NDArray[np.int32]], points: Sequence[FloatArray], label: int, options: ScanOptions
) -> None:
    """Relabel as unknown the clusters with less than a tenth of a mask's points, in place.

    They are what the mask caught beside its object.
    """
    _, numbers = _clustered(labels, points, label, options)
    share = np.bincount(numbers + 1, minlength=2)[1:] / max(len(numbers), 1)
    # Scattered points have the number -1, which picks the last entry.
    keep = np.append(share >= 0.1, False)[numbers]
    _relabel(labels, label, np.where(keep, label, UNKNOWN))


def _split_clusters(
    labels: list[NDArray[np.int32]], points: Sequence[FloatArray], options: ScanOptions
) -> None:
    """Relabel the points above the support by cluster, 1 the largest, in place.

    Clusters smaller than `min_size` become unknown.
    """
    cloud, numbers = _clustered(labels, points, 1, options)
    out = np.full(len(numbers), UNKNOWN)
    kept = 0
    for number in range(numbers.max(initial=-1) + 1):
        members = numbers == number
        if np.ptp(cloud[members], axis=0).max() >= options.min_size:
            kept += 1
            out[members] = kept
    _relabel(labels, 1, out)


def _clustered(
    labels: Sequence[NDArray[np.int32]],
    points: Sequence[FloatArray],
    label: int,
    options: ScanOptions,
) -> tuple[FloatArray, NDArray[np.int64]]:
    """All points (P, 3) of a label, and their cluster numbers (P,)."""
    cloud = np.concatenate([p[one == label] for p, one in zip(points, labels, strict=True)])
    return cloud, segment.cluster(cloud, gap=options.cluster_gap, cell=options.cluster_gap / 4)


def _relabel(labels: Sequence[NDArray[np.int32]], label: int, values: NDArray) -> None:
    """Give the pixels of a label new values (P,), in the order of `_clustered`."""
    start = 0
    for one in labels:
        here = one == label
        count = int(here.sum())
        one[here] = values[start : start + count]
        start += count


def _named(ids: Sequence[int], masked: bool, options: ScanOptions) -> dict[int, str]:
    """Names by label of the objects to be meshed, by ascending label."""
    missing = [n for i, n in enumerate(options.names) if i + 1 not in ids]
    if missing:
        what = "mask id" if masked else "cluster"
        raise ValueError(
            f"ScanOptions.names: {missing[0]!r} ({what} {options.names.index(missing[0]) + 1}) "
            f"is seen in no frame; found {what}s {list(ids) or 'none'}"
        )
    names = {i + 1: n for i, n in enumerate(options.names)}
    # Named clusters are the only ones wanted; masks name further objects.
    rest = [i for i in ids if i not in names] if masked or not names else []
    free = (n for n in (f"object_{k}" for k in range(10**9)) if n not in options.names)
    return dict(sorted((names | dict(zip(rest, free, strict=False))).items()))


def _object_mesh(
    views: Sequence[tsdf.View],
    points: Sequence[FloatArray],
    labels: Sequence[NDArray[np.int32]],
    label: int,
    support: Support | None,
    masked: bool,
    options: ScanOptions,
) -> trimesh.Trimesh:
    """One object's mesh in the world frame; without faces if too little of it was seen."""
    X_world_grid = pose() if support is None else support.X_world_support
    X_grid_world = inverse(X_world_grid)
    seen = [p[one == label] for p, one in zip(points, labels, strict=True)]
    cloud = transform(X_grid_world, np.concatenate(seen))  # (P, 3)
    if len(cloud) < 10 or np.ptp(cloud, axis=0).max() < options.min_size:
        return trimesh.Trimesh()
    flat = support is not None and np.percentile(cloud[:, 2], 98) < options.sheet_height
    if flat:
        beside = [
            p[(one != label) & (one != UNKNOWN)] for p, one in zip(points, labels, strict=True)
        ]
        others = transform(X_grid_world, np.concatenate(beside))
        cell = max(1.5 * options.voxel, float(np.ptp(cloud, axis=0).max()) / 300)
        mesh = sheet_surface(cloud, others, cell)
    else:
        mesh = _closed_mesh(views, cloud, label, X_world_grid, support is not None, masked, options)
    mesh = surface.decimated(mesh, options.faces)
    return trimesh.Trimesh(transform(X_world_grid, mesh.vertices), mesh.faces, process=False)


def _closed_mesh(
    views: Sequence[tsdf.View],
    cloud: FloatArray,
    label: int,
    X_world_grid: FloatArray,
    on_support: bool,
    masked: bool,
    options: ScanOptions,
) -> trimesh.Trimesh:
    """Watertight mesh, grid frame, of the object that was seen at the points `cloud` (P, 3)."""
    grid = _grid_around(cloud, X_world_grid, on_support, options)
    front, behind = FRONT * grid.voxel, BEHIND * grid.voxel
    # Without a mask, the border between object and support is not known to the pixel.
    union = on_support and not masked
    f, seen = tsdf.fuse(views, grid, label, front=front, behind=behind, union_with_support=union)
    if union:
        layers = min(int(np.ceil(options.support_band / grid.voxel)), grid.shape[2] - 1)
        f = tsdf.close_to_support(f, seen, layers=layers, behind=behind)
    else:
        f = tsdf.complete(f, seen, behind=behind, on_support=on_support)
    if options.blur > 0:
        # Clipped alike on both sides: otherwise the blur would move a plane.
        f = ndimage.gaussian_filter(np.clip(f, -behind, behind), options.blur, mode="nearest")
    mesh = surface.closed_surface(f, grid.voxel, grid.lower, flat_bottom=on_support)
    seen_parts = _SeenParts(cloud, grid.voxel, options.min_size)
    return surface.smoothed(surface.without_strays(mesh, STRAYS, seen_parts), options.smoothing)


class _SeenParts:
    """Parts of a mesh that points lie on, as on a thin thing beside a large one.

    Args:
        cloud: (P, 3) points, in the mesh's frame.
        voxel: size of the grid's cells, meters.
        min_size: largest side of the smallest part that is kept, meters.
    """

    def __init__(self, cloud: FloatArray, voxel: float, min_size: float) -> None:
        self._voxel, self._min_size = voxel, min_size
        self._tree = cKDTree(cloud)

    def __call__(self, part: trimesh.Trimesh) -> bool:
        """True if the part is no smaller than an object, and seen on enough of its surface."""
        if part.extents.max() < self._min_size:
            return False
        distance, _ = self._tree.query(part.triangles_center)
        seen = distance < self._voxel
        return float(part.area_faces[seen].sum()) >= SEEN_SHARE * part.area


def _grid_around(
    cloud: FloatArray, X_world_grid: FloatArray, on_support: bool, options: ScanOptions
) -> tsdf.Grid:
    """A grid around the points (P, 3), its bottom on the support if there is one."""
    margin = (FRONT + 1) * options.voxel
    lower, upper = cloud.min(0) - margin, cloud.max(0) + margin
    if on_support:
        lower[2] = 0.0
    # Larger voxels if the grid would have too many cells.
    voxel = max(options.voxel, float(np.prod(upper - lower) / options.max_cells) ** (1 / 3))
    shape = np.maximum(np.ceil((upper - lower) / voxel).astype(int), 2)
    return tsdf.Grid(
        X_world_grid, lower + 0.5 * voxel, (int(shape[0]), int(shape[1]), int(shape[2])), voxel
    )


def _scene_object(name: str, mesh: trimesh.Trimesh, frames: Sequence[DepthFrame]) -> SceneObject:
    """An object at the center of its mesh (world frame), with the frames' colors."""
    center = mesh.bounds.mean(0)
    colored = any(frame.color is not None for frame in frames)
    colors = _vertex_colors(mesh, frames) if colored else None
    local = trimesh.Trimesh(mesh.vertices - center, mesh.faces, vertex_colors=colors, process=False)
    return SceneObject(name, local, pose(translation=center))


def _vertex_colors(mesh: trimesh.Trimesh, frames: Sequence[DepthFrame]) -> NDArray[np.uint8]:
    """Mean colors (V, 3) of the pixels that see each vertex; gray if none does."""
    total = np.zeros((len(mesh.vertices), 3))
    count = np.zeros(len(mesh.vertices))
    for frame in frames:
        if frame.color is None:
            continue
        # Project the vertices to the nearest pixels.
        local = transform(inverse(frame.X_world_camera), mesh.vertices)  # (V, 3)
        image = local @ frame.intrinsics.T
        u, v = np.round(image[:, :2] / np.maximum(image[:, 2:], 1e-6)).astype(int).T
        height, width = frame.depth.shape
        inside = (local[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        # A pixel whose depth differs sees something else.
        u, v = np.where(inside, u, 0), np.where(inside, v, 0)
        sees = inside & (np.abs(frame.depth[v, u] - local[:, 2]) < SEEN_WITHIN)
        total[sees] += frame.color[v[sees], u[sees]]
        count += sees
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], 128).astype(np.uint8)
