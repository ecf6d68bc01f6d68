"""Everything that can carry a body from below: the support plane and the surfaces of things.

The body falls straight down, without turning, until it touches: vertical rays from its own points
to the surfaces below, and from points of these surfaces up to it, so that neither a thin rod nor
the corner of a board is missed, whatever the triangles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from trimesh.intersections import slice_faces_plane

from flowplan.geometry import inverse, transform
from flowplan.statics.solid import Solid, cast, concatenated, surface_points
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import surface_scene

_UP = np.array([0.0, 0.0, 1.0])
_UPWARD = 0.02
"""Smallest z of the normal of a face that carries."""
_OVERLAP = 0.005
"""Meters that a body may overlap what carries it: the error of a scan."""
_AROUND = 0.05
"""Meters around a body in which surfaces may come to carry it."""


class Supports:
    """Surfaces below a body.

    Args:
        things: Surfaces, (V, 3) vertices in meters and (F, 3) faces each.
        height: z of the support plane in meters, or None.
        near: The body; what is not below or beside it is left out.
    """

    def __init__(
        self,
        things: Sequence[tuple[FloatArray, NDArray[np.int64]]],
        height: float | None,
        near: Solid,
    ) -> None:
        self.height = height
        upper = [piece for thing in things if len((piece := _upper(*thing, near))[1])]
        self.points = np.zeros((0, 3))
        self.rays = None
        if upper:
            vertices, faces = concatenated(upper)
            self.points = surface_points(vertices, faces)
            self.rays = surface_scene((vertices, faces))

    def drop(self, body: Solid, X: FloatArray) -> float:
        """Meters that a body, displaced by X (4, 4), can fall; negative by the overlap.

        Infinite if nothing is below it.
        """
        own, other = self.gaps(body, X)
        return float(min(own.min(initial=np.inf), other.min(initial=np.inf)))

    def gaps(self, body: Solid, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Vertical gaps in meters below the points of a displaced body, and above the surfaces'."""
        moved = transform(X, body.points)
        own = np.full(len(moved), np.inf)
        if self.height is not None:
            own = moved[:, 2] - self.height
        if self.rays is None:
            return own, np.zeros(0)

        # A ray begins as high as the point was before, so that it starts above what carries it.
        sunk = np.maximum(body.points[:, 2] - moved[:, 2], 0.0) + _OVERLAP
        own = np.minimum(own, cast(self.rays, moved + sunk[:, None] * _UP, -_UP) - sunk)

        # From the surfaces up to the body, in the frame of the body before it was displaced.
        X_back = inverse(X)
        before = transform(X_back, self.points)
        sunk = np.maximum(before[:, 2] - self.points[:, 2], 0.0) + _OVERLAP
        origins = transform(X_back, self.points - sunk[:, None] * _UP)
        return own, cast(body.rays, origins, X_back[:3, :3] @ _UP) - sunk


def _upper(
    vertices: FloatArray, faces: NDArray[np.int64], near: Solid
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Faces that face up, clipped to the surroundings of a body."""
    low, high = near.mesh.bounds + np.array([[-_AROUND], [_AROUND]])
    # Most things are elsewhere: no need to look at their faces.
    beside = (vertices.max(axis=0) < low)[:2].any() or (vertices.min(axis=0) > high).any()
    if beside:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    normals = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, -1]], float)
    origins = np.array([low, high, low, high, high], float)
    solid = Solid(vertices, faces)
    vertices, faces = np.asarray(solid.mesh.vertices, float), np.asarray(solid.mesh.faces)
    keep = np.abs(solid.mesh.face_normals[:, 2]) > _UPWARD
    if solid.closed:
        keep &= solid.mesh.face_normals[:, 2] > 0
    faces = faces[keep]
    for normal, origin in zip(normals, origins, strict=True):
        if len(faces):
            vertices, faces, _ = slice_faces_plane(vertices, faces, normal, origin)
    return vertices, faces
