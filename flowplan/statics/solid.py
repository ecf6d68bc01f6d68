"""A body with its center of mass and the points of its surface that may touch something below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene

_SPACING = 0.004
"""Meters between points of a surface."""
_MOST_POINTS = 15_000
"""Number of such points, beyond which they are spaced further apart."""
SHELL = 0.003
"""Thickness in meters of an open surface, which encloses no volume."""
_LEAST_FILL = 0.02
"""Share of its bounding box that a closed body fills at least; thinner ones are shells."""
_DOWNWARD = 0.2
"""Largest z of the normal of a face that faces down, if the body may be tilted a little."""


class Solid:
    """A body of even density.

    Args:
        vertices: (V, 3) world frame, meters.
        faces: (F, 3).

    Attributes:
        mesh: The surface, its faces turned outwards if it is closed.
        center: (3,) center of mass; of the surface, if that is open.
        volume: m^3; of a shell, if the surface is open.
    """

    def __init__(self, vertices: FloatArray, faces: NDArray[np.int64]) -> None:
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        mesh.merge_vertices()
        mesh.remove_unreferenced_vertices()
        self.closed = bool(mesh.is_watertight) and _encloses(mesh)
        if self.closed and mesh.volume < 0:
            mesh.invert()
        self.mesh = mesh
        if self.closed:
            self.center, self.volume = np.asarray(mesh.center_mass, float), float(mesh.volume)
        else:
            area = mesh.area_faces
            total = float(area.sum())
            self.center = (area @ mesh.triangles_center) / max(total, 1e-12)
            self.volume = total * SHELL

    @cached_property
    def lower(self) -> tuple[FloatArray, NDArray[np.int64]]:
        """Vertices and faces that something below may touch."""
        keep = self.mesh.face_normals[:, 2] < _DOWNWARD if self.closed else slice(None)
        return np.asarray(self.mesh.vertices), np.asarray(self.mesh.faces[keep])

    @cached_property
    def points(self) -> FloatArray:
        """Points (N, 3) of that surface, evenly spaced, its vertices included."""
        return surface_points(*self.lower)

    @cached_property
    def rays(self) -> Any:
        """That surface, for rays."""
        return surface_scene(self.lower)


def _encloses(mesh: trimesh.Trimesh) -> bool:
    """True if a watertight mesh has an inside with a center of mass.

    Not so where parts of it are turned inside out, as by a motion that distorts it: their volumes
    cancel.
    """
    low, high = mesh.bounds
    if not abs(mesh.volume) > _LEAST_FILL * np.prod(high - low):
        return False
    return bool(((mesh.center_mass >= low) & (mesh.center_mass <= high)).all())


def joined(solids: list[Solid]) -> Solid:
    """Several bodies as one, with their common center of mass."""
    meshes = [solid.mesh for solid in solids]
    one = Solid(*concatenated([(np.asarray(m.vertices), np.asarray(m.faces)) for m in meshes]))
    volume = np.array([solid.volume for solid in solids])
    one.center = volume @ np.array([solid.center for solid in solids]) / volume.sum()
    one.volume = float(volume.sum())
    return one


def concatenated(
    surfaces: Sequence[tuple[FloatArray, NDArray[np.int64]]],
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Several surfaces, vertices (V, 3) and faces (F, 3), as one."""
    first = np.cumsum([0, *(len(vertices) for vertices, _ in surfaces[:-1])])
    faces = [faces + start for (_, faces), start in zip(surfaces, first, strict=True)]
    return np.concatenate([vertices for vertices, _ in surfaces]), np.concatenate(faces)


def surface_points(vertices: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """Points (N, 3) of a surface, evenly spaced, its vertices included."""
    if not len(faces):
        return np.zeros((0, 3))
    area = float(trimesh.triangles.area(vertices[faces]).sum())
    edge = max(_SPACING, float(np.sqrt(4 * area / _MOST_POINTS)))
    points, _ = trimesh.remesh.subdivide_to_size(vertices, faces, edge, max_iter=20)
    return np.asarray(points, float)


def cast(scene: Any, origins: FloatArray, directions: FloatArray) -> FloatArray:
    """Length (N,) of rays in units of their directions (N, 3) or (3,); infinite without a hit."""
    o3d = open3d()
    rays = np.concatenate([origins, np.broadcast_to(directions, origins.shape)], axis=1)
    hits = scene.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))["t_hit"]
    return np.asarray(hits.numpy(), float)
