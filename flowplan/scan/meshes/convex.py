"""Convex parts of a mesh, for collision checking.

Most things on a table are close to their convex hull, which then is all that is needed and takes milliseconds. The
others are cut by CoACD (Wei et al., SIGGRAPH 2022), which searches for cuts that keep what is concave free, such as the
inside of a bowl.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d


@dataclass(frozen=True)
class ConvexOptions:
    """How finely a mesh is cut into convex parts."""

    tolerance: float = 0.003
    """The convex hull alone will do if it is nowhere farther than this from the mesh, metres."""
    concavity: float = 0.05
    """CoACD's threshold: how concave a part may remain, from 0.01 (fine) to 1 (coarse)."""
    max_parts: int = 16
    """Most parts that a mesh is cut into."""
    max_vertices: int = 128
    """Most vertices of a part; leaving some out cuts round sides by about three hundredths of their radius."""
    thickness: float = 0.001
    """What is flat is given this thickness, metres."""

    def __post_init__(self) -> None:
        checks.positive("ConvexOptions.tolerance", self.tolerance, zero=True)
        checks.positive("ConvexOptions.thickness", self.thickness)
        if not 0.01 <= self.concavity <= 1:
            raise ValueError(f"ConvexOptions.concavity: expected 0.01 to 1, got {self.concavity:g}")
        if self.max_parts < 1 or self.max_vertices < 8:
            raise ValueError(
                f"ConvexOptions.max_parts: expected at least 1 part of 8 vertices, got {self.max_parts} of "
                f"{self.max_vertices}"
            )


def convex_parts(
    mesh: trimesh.Trimesh, options: ConvexOptions = ConvexOptions(), *, seed: int = 0
) -> tuple[trimesh.Trimesh, ...]:
    """Watertight convex meshes, in the mesh's own frame, whose union covers the mesh about as closely as asked.

    Open meshes will do: CoACD closes them on a grid first.

    Raises:
        ValueError: when the mesh has no faces.
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
        # A third of the default search finds nearly as good cuts in a fifth of the time.
        preprocess_resolution=30,
        resolution=1000,
        mcts_nodes=10,
        mcts_iterations=60,
        mcts_max_depth=2,
        seed=seed,
    )
    return tuple(_hull(vertices, options) for vertices, _ in parts) or (hull,)


def _hull(vertices: FloatArray, options: ConvexOptions) -> trimesh.Trimesh:
    """Convex hull of points (V, 3) with few enough vertices; flat ones are thickened along their normal."""
    centered = vertices - vertices.mean(0)
    normal = np.linalg.svd(centered.T @ centered)[0][:, 2]
    height = np.ptp(centered @ normal)
    if height < options.thickness:
        lift = 0.5 * (options.thickness - height) * normal
        vertices = np.concatenate([vertices - lift, vertices + lift])
    hull = trimesh.convex.convex_hull(vertices)
    return (
        hull if len(hull.vertices) <= options.max_vertices else _coarser(hull, options.max_vertices)
    )


def _coarser(hull: trimesh.Trimesh, count: int) -> trimesh.Trimesh:
    """The hull of at most `count` of a hull's vertices: the outermost in directions spread evenly (Fibonacci)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + np.sqrt(5)) * k
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z])
    chosen = np.unique(np.argmax(hull.vertices @ directions, axis=0))
    return trimesh.convex.convex_hull(hull.vertices[chosen])


def _largest_gap(hull: trimesh.Trimesh, mesh: trimesh.Trimesh, seed: int) -> float:
    """How far the hull's surface is from the mesh at most, at 2000 points, metres."""
    points, _ = trimesh.sample.sample_surface(hull, 2000, seed=seed)
    distance = raycasting_scene(mesh).compute_distance(
        open3d().core.Tensor(points.astype(np.float32))
    )
    return float(distance.numpy().max())
