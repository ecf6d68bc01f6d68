"""Convex parts of a mesh, for collision checking.

Most objects on a table are close to their convex hull, which then suffices and takes milliseconds.
Others are cut by CoACD (Wei et al., SIGGRAPH 2022), which searches for cuts that keep concavities
free, such as the inside of a bowl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trimesh

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d


@dataclass(frozen=True)
class ConvexOptions:
    """Accuracy and size of a convex decomposition."""

    tolerance: Annotated[float, Interval(0, 10)] = 0.003
    """The convex hull alone is taken if it is nowhere further than this from the mesh, meters."""
    concavity: Annotated[float, Interval(0.01, 1)] = 0.05
    """CoACD's threshold of a part's concavity, from 0.01 (fine) to 1 (coarse)."""
    max_parts: Annotated[int, Interval(1, 10_000)] = 16
    """Maximum number of parts."""
    max_vertices: Annotated[int, Interval(8, 100_000)] = 128
    """Maximum number of vertices of a part. Dropping some cuts round sides by about three
    hundredths of their radius."""
    thickness: Annotated[float, Interval(1e-9, 1)] = 0.001
    """Least thickness of a part, meters; flat ones are thickened to it."""

    def __post_init__(self) -> None:
        bounds.check(self)


def convex_parts(
    mesh: trimesh.Trimesh, options: ConvexOptions = ConvexOptions(), *, seed: int = 0
) -> tuple[trimesh.Trimesh, ...]:
    """Watertight convex meshes, in the mesh's own frame, whose union approximates the mesh.

    Args:
        mesh: may be open; CoACD closes it on a grid first.
        options: accuracy and size.
        seed: random seed.

    Raises:
        ValueError: if the mesh has no faces.
    """
    if len(mesh.faces) == 0:
        raise ValueError("mesh: has no faces; there is nothing to cut into convex parts")
    hull = _hull(np.asarray(mesh.vertices), options)
    if options.max_parts == 1 or _largest_gap(hull, mesh, seed) <= options.tolerance:
        return (hull,)
    import coacd

    coacd.set_log_level("off")
    parts = coacd.run_coacd(
        coacd.Mesh(mesh.vertices, mesh.faces),
        threshold=options.concavity,
        max_convex_hull=options.max_parts,
        # A third of the default search finds nearly equal cuts in a fifth of the time.
        preprocess_resolution=30,
        resolution=1000,
        mcts_nodes=10,
        mcts_iterations=60,
        mcts_max_depth=2,
        seed=seed,
    )
    return tuple(_hull(vertices, options) for vertices, _ in parts) or (hull,)


def _hull(vertices: FloatArray, options: ConvexOptions) -> trimesh.Trimesh:
    """Convex hull of points (V, 3) with few enough vertices, thickened along its normal if flat."""
    # Height along the direction of least spread.
    centered = vertices - vertices.mean(0)
    normal = np.linalg.svd(centered.T @ centered)[0][:, 2]
    height = np.ptp(centered @ normal)
    if height < options.thickness:
        lift = 0.5 * (options.thickness - height) * normal
        vertices = np.concatenate([vertices - lift, vertices + lift])
    hull = trimesh.convex.convex_hull(vertices)
    if len(hull.vertices) <= options.max_vertices:
        return hull
    return _coarser(hull, options.max_vertices)


def _coarser(hull: trimesh.Trimesh, count: int) -> trimesh.Trimesh:
    """The hull of at most `count` of a hull's vertices: the outermost in evenly spread directions.

    The directions lie on a Fibonacci spiral.
    """
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + np.sqrt(5)) * k
    radius = np.sqrt(1 - z**2)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), z])  # (3, count)
    chosen = np.unique(np.argmax(hull.vertices @ directions, axis=0))
    return trimesh.convex.convex_hull(hull.vertices[chosen])


def _largest_gap(hull: trimesh.Trimesh, mesh: trimesh.Trimesh, seed: int) -> float:
    """Largest distance of 2000 points on the hull's surface from the mesh, meters."""
    points, _ = trimesh.sample.sample_surface(hull, 2000, seed=seed)
    queries = open3d().core.Tensor(points.astype(np.float32))
    distance = raycasting_scene(mesh).compute_distance(queries)
    return float(distance.numpy().max())
