"""A scene's meshes as 3D Gaussians: flat discs spread evenly over the surfaces, then fitted to pictures of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan import checks
from flowplan.checks import FloatArray
from flowplan.motion import Progress, silent
from flowplan.scene import Scene, SceneObject
from generators.chord.mesh_views import GREY, surface_colours, world_mesh
from generators.common.sampling import farthest_points

LEAST = 50
"""Gaussians that even the smallest object gets."""
CANDIDATES = 8
"""Points drawn for each that is kept, to spread those kept evenly."""
DISC, THICKNESS, OPACITY = 0.6, 0.1, 0.95
"""Standard deviations of a disc along the surface and across it, in distances between neighbours; opacity."""


@dataclass(frozen=True)
class GaussianOptions:
    """How many Gaussians, and what they look like."""

    count: int = 1500
    """Gaussians of all objects together, shared out by area."""
    obstacle_count: int = 300
    """Gaussians of all obstacles together, shared out by area."""
    colour: tuple[float, float, float] | None = None
    """RGB in [0, 1] of meshes without colours."""
    require_colour: bool = False
    """Refuse a mesh without colours where `colour` is not given, instead of painting it grey."""

    def __post_init__(self) -> None:
        for name in ("count", "obstacle_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"GaussianOptions.{name}: expected at least 1, got {getattr(self, name)}")
        if self.colour is not None and not all(0 <= c <= 1 for c in self.colour):
            raise ValueError(f"GaussianOptions.colour: expected three numbers in [0, 1], got {self.colour}")


@dataclass(frozen=True, eq=False)
class Gaussians:
    """G Gaussians of a scene at rest.

    Attributes:
        means: (G, 3) world frame, metres.
        quat_wxyz: (G, 4) unit quaternions, world frame.
        scales: (G, 3) standard deviations along their axes, metres.
        opacities: (G,) in (0, 1).
        colours: (G, 3) RGB in [0, 1].
        object_id: (G,) the scene's objects in their order, then its obstacles.
    """

    means: FloatArray
    quat_wxyz: FloatArray
    scales: FloatArray
    opacities: FloatArray
    colours: FloatArray
    object_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.means)
        for name, shape in (
            ("means", (3,)),
            ("quat_wxyz", (4,)),
            ("scales", (3,)),
            ("opacities", ()),
            ("colours", (3,)),
        ):
            value = checks.array(f"Gaussians.{name}", getattr(self, name), (count, *shape))
            object.__setattr__(self, name, value)
        ids = checks.array("Gaussians.object_id", self.object_id, (count,), dtype=np.int64)
        object.__setattr__(self, "object_id", ids)
        if not (np.all(self.scales > 0) and np.all((self.opacities > 0) & (self.opacities < 1))):
            raise ValueError("Gaussians.scales, opacities: expected positive scales and opacities in (0, 1)")


def gaussians(
    scene: Scene, options: GaussianOptions = GaussianOptions(), *, seed: int = 0, progress: Progress = silent
) -> Gaussians:
    """Gaussians on the surfaces of a scene's objects and obstacles.

    Raises:
        ValueError: for a mesh without colours when colours are required and none is given.
    """
    everything = scene.objects + scene.obstacles
    counts = _shares(scene.objects, options.count) + _shares(scene.obstacles, options.obstacle_count)
    parts = []
    for i, (obj, count) in enumerate(zip(everything, counts, strict=True)):
        progress(i / len(everything), f"Gaussians of {obj.name}")
        parts.append(_start(obj, i, count, options, seed))
    progress(1.0, f"{sum(counts)} Gaussians")
    return Gaussians(
        means=np.concatenate([p.means for p in parts]),
        quat_wxyz=np.concatenate([p.quat_wxyz for p in parts]),
        scales=np.concatenate([p.scales for p in parts]),
        opacities=np.concatenate([p.opacities for p in parts]),
        colours=np.concatenate([p.colours for p in parts]),
        object_id=np.concatenate([p.object_id for p in parts]),
    )


def _shares(objects: tuple[SceneObject, ...], count: int) -> list[int]:
    """How many each gets, by area."""
    areas = np.array([o.mesh.area for o in objects])
    return [max(LEAST, round(count * area / areas.sum())) for area in areas]


def _start(obj: SceneObject, index: int, count: int, options: GaussianOptions, seed: int) -> Gaussians:
    """Discs spread evenly over a surface, wide enough to leave no gaps."""
    mesh = world_mesh(obj)
    points, face = trimesh.sample.sample_surface(mesh, CANDIDATES * count, seed=seed)
    chosen = farthest_points(np.asarray(points, float), count)
    points, face = np.asarray(points, float)[chosen], np.asarray(face)[chosen]
    barycentric = trimesh.triangles.points_to_barycentric(np.asarray(mesh.triangles)[face], points)
    colours = surface_colours(mesh, face, barycentric)
    if colours is None:
        if options.colour is None and options.require_colour:
            raise ValueError(
                f"SceneObject[{obj.name}].mesh: has no colours; give it vertex colours or a texture, "
                "or set GaussianOptions.colour"
            )
        colours = np.tile(GREY if options.colour is None else options.colour, (count, 1))
    spacing = np.sqrt(mesh.area / count)
    return Gaussians(
        means=points,
        quat_wxyz=_facing(np.asarray(mesh.face_normals)[face]),
        scales=np.tile(spacing * np.array([DISC, DISC, THICKNESS]), (count, 1)),
        opacities=np.full(count, OPACITY),
        colours=colours,
        object_id=np.full(count, index),
    )


def _facing(normals: FloatArray) -> FloatArray:
    """Quaternions (N, 4) that turn z to the normals (N, 3), the shorter way (about x where they point down)."""
    down = normals[:, 2] < -1 + 1e-9
    quat = np.stack([1 + normals[:, 2], -normals[:, 1], normals[:, 0], 0 * normals[:, 0]], axis=-1)
    quat[down] = [0.0, 1.0, 0.0, 0.0]
    return quat / np.linalg.norm(quat, axis=-1, keepdims=True)
