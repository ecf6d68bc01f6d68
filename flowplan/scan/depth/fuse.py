"""From depth frames to a scene: support, objects, their closed meshes.

    frames -> trusted pixels -> support plane -> labels (masks, or clusters above the support)
           -> per object: signed distance on its own grid -> unseen cells by winding number -> marching cubes
           -> stray parts dropped, smoothed, decimated, coloured

What no camera saw is closed by the smoothest guess (`flowplan.scan.meshes.winding`); the bottom of an object on the support is
closed flat on it. Whatever lies as flat as a cloth becomes a height field (`flowplan.scan.depth.sheet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage

from flowplan.geometry import inverse, pose, transform
from flowplan.motion import Progress, silent
from flowplan.scan.depth import segment, tsdf
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.depth.segment import SUPPORT, UNKNOWN, Support
from flowplan.scan.depth.sheet import sheet_surface
from flowplan.scan.meshes import surface
from flowplan.scene import Scene, SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

FRONT, BEHIND = 4.0, 2.0
"""Truncation of the signed distance before and behind a surface, voxels."""


@dataclass(frozen=True)
class ScanOptions:
    """How depth frames become objects."""

    names: tuple[str, ...] = ()
    """Names of the objects: of mask ids 1, 2, ... where the frames have masks, else of the clusters, largest first
    (and then only as many clusters are kept). Objects beyond them are called object_0, object_1, ..."""
    voxel: float = 0.003
    """Cell of the signed distance, metres; enlarged for an object that would take more than `max_cells`."""
    max_cells: int = 3_000_000
    """Most cells that one object's grid may have."""
    faces: int = 6000
    """Meshes are decimated to about this many faces."""
    blur: float = 0.6
    """Standard deviation of the blur of the signed distance, voxels: less noise, rounder edges; 0 for none."""
    smoothing: int = 10
    """Iterations of Taubin smoothing; 0 for none."""
    support: bool = True
    """Is there a support that objects stand on? Without one, whatever is seen is an object."""
    support_height: float | None = None
    """Height of the support in the world, metres, if it is known; found in the frames if not."""
    support_tilt: float = 0.1
    """Largest angle between the found support and the horizontal, radians."""
    support_band: float = 0.008
    """What rises less than this above the support cannot be told from it, except by mask, metres."""
    sheet_height: float = 0.008
    """An object whose points stay below this height above the support is taken for a sheet, metres; 0 for never."""
    cluster_gap: float = 0.02
    """Objects nearer to each other than this are one, except by mask, metres."""
    min_size: float = 0.015
    """Objects whose largest side is smaller than this are dropped, metres."""
    edge_jump: float = 0.02
    """Depth difference between neighbouring pixels that is taken for an edge, metres."""
    lower: tuple[float, float, float] = (-np.inf, -np.inf, -np.inf)
    """Lower corner of the box that is scanned, world frame, metres."""
    upper: tuple[float, float, float] = (np.inf, np.inf, np.inf)
    """Upper corner of the box that is scanned, world frame, metres."""

    def __post_init__(self) -> None:
        for name in (
            "voxel",
            "max_cells",
            "support_tilt",
            "support_band",
            "cluster_gap",
            "edge_jump",
        ):
            checks.positive(f"ScanOptions.{name}", getattr(self, name))
        for name in ("blur", "smoothing", "sheet_height", "min_size"):
            checks.positive(f"ScanOptions.{name}", getattr(self, name), zero=True)
        for name in ("voxel", "support_band", "cluster_gap"):
            if getattr(self, name) < 1e-4:
                raise ValueError(
                    f"ScanOptions.{name}: expected metres, at least 0.0001, got {getattr(self, name):g}"
                )
        if self.faces < 20:
            raise ValueError(f"ScanOptions.faces: expected at least 20, got {self.faces}")
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
    """The objects that depth frames show, and the support they stand on.

    Where every frame has a mask, each positive id is an object, even if it touches another or lies flush with the
    support; else objects are what stands apart from each other above the support.

    Returns:
        Scene of named objects, largest first (by mask id where there are masks). An object's frame has the world's
        axes and lies at the centre of its bounding box. Meshes are watertight, except for sheets; vertices carry
        colours where the frames do.

    Raises:
        ValueError: one line, when there is no support or object to be found, or a named one was not seen.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("frames: expected at least one DepthFrame, got none")
    masks = [frame.mask for frame in frames if frame.mask is not None]
    if masks and len(masks) < len(frames):
        raise ValueError(f"frames: {len(masks)} of {len(frames)} have a mask; expected all or none")

    progress(0.0, "finding the support")
    points = [frame.points_world for frame in frames]
    trusted = [
        _in_box(p, options) & segment.trusted_pixels(f, options.edge_jump)
        for f, p in zip(frames, points, strict=True)
    ]
    if not any(t.any() for t in trusted):
        raise ValueError(
            "frames: no depth in any of them within the scanned box; check depth_scale, lower and upper"
        )
    support = _support(points, trusted, masks, options, seed)
    labels, ids = _labels(points, trusted, masks, support, options)

    views = [
        tsdf.view(frame, label, options.edge_jump)
        for frame, label in zip(frames, labels, strict=True)
    ]
    objects = []
    for i, (label, name) in enumerate(_named(ids, bool(masks), options).items()):
        progress(0.2 + 0.8 * i / len(ids), f"meshing {name}")
        mesh = _object_mesh(views, points, labels, label, support, bool(masks), options)
        if len(mesh.faces) == 0:
            if name in options.names:
                raise ValueError(
                    f"ScanOptions.names: {name!r} left no surface; add views of it, or make voxel smaller"
                )
            continue
        objects.append(_scene_object(name, mesh, frames))
    if not objects:
        raise ValueError(
            "frames: no object above the support; check support_height, or lower min_size or support_band, or add masks"
        )
    progress(1.0, "scanned")
    return Scene(tuple(objects), None if support is None else float(support.center[2]))


def _in_box(points: FloatArray, options: ScanOptions) -> NDArray[np.bool_]:
    return np.all((points >= options.lower) & (points <= options.upper), axis=-1)


def _support(
    points: Sequence[FloatArray],
    trusted: Sequence[NDArray[np.bool_]],
    masks: Sequence[NDArray[np.int32]],
    options: ScanOptions,
    seed: int,
) -> Support | None:
    if not options.support:
        return None
    if options.support_height is not None:
        return Support(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, options.support_height]))
    cloud = np.concatenate([p[t] for p, t in zip(points, trusted, strict=True)])
    if masks:  # what lies flat on the support would lift it
        cloud = cloud[
            np.concatenate([mask[t] <= SUPPORT for mask, t in zip(masks, trusted, strict=True)])
        ]
    return segment.find_support(
        cloud, thickness=options.support_band, tilt=options.support_tilt, seed=seed
    )


def _labels(
    points: Sequence[FloatArray],
    trusted: Sequence[NDArray[np.bool_]],
    masks: Sequence[NDArray[np.int32]],
    support: Support | None,
    options: ScanOptions,
) -> tuple[list[NDArray[np.int32]], list[int]]:
    """Labels (H, W) a frame, and the objects among them."""
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
    return sorted({int(i) for one in labels for i in np.unique(one) if i > SUPPORT})


def _keep_clusters(
    labels: list[NDArray[np.int32]], points: Sequence[FloatArray], label: int, options: ScanOptions
) -> None:
    """Make unknown what a mask caught beside its object: clusters with less than a tenth of the object's points."""
    _, numbers = _clustered(labels, points, label, options)
    share = np.bincount(numbers + 1, minlength=2)[1:] / max(len(numbers), 1)
    _relabel(labels, label, np.where(np.append(share >= 0.1, False)[numbers], label, UNKNOWN))


def _split_clusters(
    labels: list[NDArray[np.int32]], points: Sequence[FloatArray], options: ScanOptions
) -> None:
    """Number what rises above the support by cluster, 1 the largest; small ones are unknown."""
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
    cloud = np.concatenate([p[one == label] for p, one in zip(points, labels, strict=True)])
    return cloud, segment.cluster(cloud, gap=options.cluster_gap, cell=options.cluster_gap / 4)


def _relabel(labels: Sequence[NDArray[np.int32]], label: int, values: NDArray) -> None:
    """Give the pixels of a label new values, in the order in which they were gathered."""
    start = 0
    for one in labels:
        here = one == label
        count = int(here.sum())
        one[here] = values[start : start + count]
        start += count


def _named(ids: Sequence[int], masked: bool, options: ScanOptions) -> dict[int, str]:
    """Label -> name, of the objects to be meshed."""
    missing = [n for i, n in enumerate(options.names) if i + 1 not in ids]
    if missing:
        what = "mask id" if masked else "cluster"
        raise ValueError(
            f"ScanOptions.names: {missing[0]!r} ({what} {options.names.index(missing[0]) + 1}) is seen in no frame; "
            f"found {what}s {list(ids) or 'none'}"
        )
    names = {i + 1: n for i, n in enumerate(options.names)}
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
    """One object's mesh in the world frame."""
    X_world_grid = pose() if support is None else support.X_world_support
    cloud = transform(
        inverse(X_world_grid),
        np.concatenate([p[one == label] for p, one in zip(points, labels, strict=True)]),
    )
    if len(cloud) < 10 or np.ptp(cloud, axis=0).max() < options.min_size:
        return trimesh.Trimesh()
    if support is not None and np.percentile(cloud[:, 2], 98) < options.sheet_height:
        others = np.concatenate(
            [p[(one != label) & (one != UNKNOWN)] for p, one in zip(points, labels, strict=True)]
        )
        cell = max(1.5 * options.voxel, float(np.ptp(cloud, axis=0).max()) / 300)
        mesh = sheet_surface(cloud, transform(inverse(X_world_grid), others), cell)
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
    """Watertight mesh in the grid frame of the object whose seen points (P, 3) are `cloud`."""
    grid = _grid_around(cloud, X_world_grid, on_support, options)
    front, behind = FRONT * grid.voxel, BEHIND * grid.voxel
    union = on_support and not masked
    f, seen = tsdf.fuse(views, grid, label, front=front, behind=behind, union_with_support=union)
    if union:
        layers = min(int(np.ceil(options.support_band / grid.voxel)), grid.shape[2] - 1)
        f = tsdf.close_to_support(f, seen, layers=layers, behind=behind)
    else:
        f = tsdf.complete(f, seen, behind=behind, on_support=on_support)
    if options.blur > 0:  # clipped alike on both sides, or a plane would move
        f = ndimage.gaussian_filter(np.clip(f, -behind, behind), options.blur, mode="nearest")
    mesh = surface.closed_surface(f, grid.voxel, grid.lower, flat_bottom=on_support)
    return surface.smoothed(surface.without_strays(mesh, 0.02), options.smoothing)


def _grid_around(
    cloud: FloatArray, X_world_grid: FloatArray, on_support: bool, options: ScanOptions
) -> tsdf.Grid:
    margin = (FRONT + 1) * options.voxel
    lower, upper = cloud.min(0) - margin, cloud.max(0) + margin
    if on_support:
        lower[2] = 0.0
    voxel = max(options.voxel, float(np.prod(upper - lower) / options.max_cells) ** (1 / 3))
    shape = np.maximum(np.ceil((upper - lower) / voxel).astype(int), 2)
    return tsdf.Grid(
        X_world_grid, lower + 0.5 * voxel, (int(shape[0]), int(shape[1]), int(shape[2])), voxel
    )


def _scene_object(name: str, mesh: trimesh.Trimesh, frames: Sequence[DepthFrame]) -> SceneObject:
    center = mesh.bounds.mean(0)
    colors = (
        _vertex_colors(mesh, frames) if any(frame.color is not None for frame in frames) else None
    )
    local = trimesh.Trimesh(mesh.vertices - center, mesh.faces, vertex_colors=colors, process=False)
    return SceneObject(name, local, pose(translation=center))


def _vertex_colors(mesh: trimesh.Trimesh, frames: Sequence[DepthFrame]) -> NDArray[np.uint8]:
    """(V, 3) mean colour of the pixels that see a vertex within a centimetre of their depth; grey where none does."""
    total = np.zeros((len(mesh.vertices), 3))
    count = np.zeros(len(mesh.vertices))
    for frame in frames:
        if frame.color is None:
            continue
        local = transform(inverse(frame.X_world_camera), mesh.vertices)
        image = local @ frame.intrinsics.T
        u, v = np.round(image[:, :2] / np.maximum(image[:, 2:], 1e-6)).astype(int).T
        height, width = frame.depth.shape
        inside = (local[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        u, v = np.where(inside, u, 0), np.where(inside, v, 0)
        sees = inside & (np.abs(frame.depth[v, u] - local[:, 2]) < 0.01)
        total[sees] += frame.color[v[sees], u[sees]]
        count += sees
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], 128).astype(np.uint8)
