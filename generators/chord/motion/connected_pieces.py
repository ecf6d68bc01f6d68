"""The connected pieces of objects' meshes, each of which gets control points of its own.

A point that follows its nearest control points follows those across a gap too: a drawer would drag
its cabinet along. If a mesh consists of connected pieces, no point follows another piece's control
points. Pieces that touch are held together by ARAP alone, loosely enough to come apart; pieces that
do not touch are independent. A scan is one piece, and everything is as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

Labels = NDArray[np.int64]
_TOUCH = 0.003
"""Largest distance of pieces that touch, over the mesh's diagonal."""
_SAMPLES = 2000
"""Points of a piece, to measure its distance from others."""
_WELD = 1e-5
"""Largest distance of vertices that are merged, over the mesh's diagonal."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """One object in pieces.

    Attributes:
        mesh: of the object.
        face: (F,) piece of every face.
        vertex: (V,) piece of every vertex; 0 for one without faces.
        count: number of pieces.
    """

    mesh: trimesh.Trimesh
    face: Labels
    vertex: Labels
    count: int

    @cached_property
    def meshes(self) -> list[trimesh.Trimesh]:
        """The meshes of the pieces."""
        out = []
        for b in range(self.count):
            faces = self.mesh.faces[self.face == b]
            used, corners = np.unique(faces, return_inverse=True)
            out.append(
                trimesh.Trimesh(self.mesh.vertices[used], corners.reshape(-1, 3), process=False)
            )
        return out

    @cached_property
    def touching(self) -> NDArray[np.bool_]:
        """(count, count) true for pieces that touch or intersect; each touches itself."""
        limit = _TOUCH * float(np.linalg.norm(self.mesh.extents))
        out = np.eye(self.count, dtype=bool)
        for b, piece in enumerate(self.meshes if self.count > 1 else ()):
            scene = raycasting_scene(piece)
            for c, other in enumerate(self.meshes):
                samples = trimesh.sample.sample_surface(other, _SAMPLES, seed=0)[0]
                points = np.concatenate([other.vertices, samples]).astype(np.float32)
                distance = scene.compute_distance(open3d().core.Tensor(points)).numpy()
                out[b, c] |= bool((distance < limit).any())
        return out | out.T

    def of(self, points: FloatArray) -> Labels:
        """The nearest pieces (N,) of points (N, 3) on or near the mesh."""
        if self.count == 1:
            return np.zeros(len(points), np.int64)
        found = raycasting_scene(self.mesh).compute_closest_points(
            open3d().core.Tensor(points.astype(np.float32))
        )
        return self.face[found["primitive_ids"].numpy().astype(np.int64)]


def bodies(mesh: trimesh.Trimesh, most: int = 12, least: float = 0.02) -> Bodies:
    """The pieces of a mesh.

    Args:
        mesh: the mesh of an object.
        most: maximum number of pieces; smaller ones join the piece that they are nearest to.
        least: minimum share of a piece in the mesh's area.
    """
    # Connected components over the edges, after merging vertices at the same place.
    extent = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    _, weld = np.unique(np.round(mesh.vertices / (_WELD * extent)), axis=0, return_inverse=True)
    corners = weld.reshape(-1)[mesh.faces]
    edges = np.concatenate([corners[:, :2], corners[:, 1:]])
    size = int(weld.max()) + 1
    _, piece = connected_components(
        coo_matrix((np.ones(len(edges)), edges.T), (size, size)), directed=False
    )

    # The largest components are pieces.
    names, face = np.unique(piece[corners[:, 0]], return_inverse=True)
    area = np.bincount(face, mesh.area_faces, len(names))
    count = max(1, min(most, int((area >= least * area.sum()).sum())))
    large = np.sort(np.argsort(-area)[:count])
    home = np.searchsorted(large, np.arange(len(names)))
    is_large = np.isin(np.arange(len(names)), large)
    if not is_large.all():
        # The faces of a small component vote for the piece of the nearest face.
        known = is_large[face]
        _, near = cKDTree(mesh.triangles_center[known]).query(mesh.triangles_center[~known])
        votes = np.zeros((len(names), len(large)))
        np.add.at(votes, (face[~known], home[face[known][near]]), 1)
        home = np.where(is_large, home, votes.argmax(1))
    face = home[face]
    vertex = np.zeros(len(mesh.vertices), np.int64)
    vertex[mesh.faces] = face[:, None]
    return Bodies(mesh, face, vertex, len(large))
