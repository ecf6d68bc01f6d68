"""A mesh as an even cloud of surface points: what fingers can touch, and what they must not hit.

Points are drawn by systematic sampling over the cumulated face areas: one point in each of M equal slices of the
total area. Every point then stands for the same area, and the cloud has fewer holes and clumps than independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Surface:
    """M points that each stand for the same share of a surface.

    Attributes:
        points: (M, 3) metres, in the frame of the mesh they came from.
        normals: (M, 3) unit, outward where the mesh is oriented.
        face: (M,) face that each point lies on.
        area: square metres that one point stands for.
    """

    points: FloatArray
    normals: FloatArray
    face: NDArray[np.int64]
    area: float

    def __len__(self) -> int:
        return len(self.face)


EMPTY = Surface(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64), 0.0)


def sample_surface(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator, *, faces: NDArray[np.bool_] | None = None
) -> Surface:
    """`count` points spread evenly by area over `mesh`, or over its `faces` (F,) only.

    Faces without area get no points; a mesh without any gives EMPTY. The normals of a closed mesh whose faces are wound
    inside out are turned to point outward.
    """
    corners = np.asarray(mesh.vertices)[mesh.faces]  # (F, 3, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.linalg.norm(normal, axis=1)
    weight = double_area if faces is None else np.where(faces, double_area, 0.0)
    total = weight.sum()
    if not np.isfinite(total) or total <= 1e-12:
        return EMPTY
    slices = (np.arange(count) + rng.random(count)) / count
    cumulated = np.cumsum(weight) / total
    face = np.minimum(np.searchsorted(cumulated, slices * cumulated[-1], side="right"), len(weight) - 1)
    u, v = rng.random((2, count))
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    barycentric = np.stack([1 - root, root * (1 - v), root * v], axis=-1)
    points = np.einsum("mk,mkc->mc", barycentric, corners[face])
    return Surface(points, _outward(mesh) * normal[face] / double_area[face, None], face, 0.5 * total / count)


def _outward(mesh: trimesh.Trimesh) -> float:
    """-1 for a closed mesh wound inside out, else 1 (an open mesh has no inside)."""
    return -1.0 if mesh.is_watertight and mesh.volume < 0 else 1.0
