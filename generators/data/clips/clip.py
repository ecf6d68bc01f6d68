"""A recorded animation of a mesh, and how every vertex turns between two of its frames.

The network learns rigid motions of surface points, x -> R x + t, but an animation only says where
points go. R is the rotation nearest to the deformation of a vertex's neighborhood, as in
As-Rigid-As-Possible modeling (Sorkine and Alexa 2007), here over the faces around the vertex:

    R_v = polar( sum_f  sum_k e'_k e_k^T + (c' c^T) / sqrt(|c'| |c|) )
    e_k edges of face f, c = e_1 x e_2

The term of the normals makes a face's covariance full rank, so that a flat neighborhood, as a cloth
has everywhere, is determined too, and since it is taken face by face it cannot cancel where a thin
part folds back on itself. Wherever the faces around a vertex move as one body the result is exact.
t then follows from the vertex itself, t = x' - R x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from flowplan.geometry import quat_wxyz_from_matrix
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

DEGENERATE = 1e-5
"""A covariance whose second and third singular values sum to less than this share of the first
leaves a turn free."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One mesh in F frames.

    Attributes:
        name: where it comes from.
        vertices: (F, V, 3), z up, any unit; the frames follow each other in time.
        faces: (f, 3) the same in every frame. Vertices that no face joins move independently.
    """

    name: str
    vertices: FloatArray
    faces: NDArray[np.int64]

    def __post_init__(self) -> None:
        where = f"Clip[{self.name}]"
        vertices = checks.array(f"{where}.vertices", self.vertices, ("F", "V", 3))
        faces = checks.array(f"{where}.faces", self.faces, ("f", 3), dtype=np.int64)
        if len(vertices) < 2:
            raise ValueError(
                f"{where}.vertices: expected at least 2 frames, got {len(vertices)}; a clip moves"
            )
        if faces.min() < 0 or faces.max() >= vertices.shape[1]:
            raise ValueError(
                f"{where}.faces: expected indices of {vertices.shape[1]} vertices, got "
                f"{faces.min()} to {faces.max()}"
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "faces", faces)

    def __len__(self) -> int:
        return len(self.vertices)

    def rotations(self, a: int, b: int) -> FloatArray:
        """quat_wxyz (V, 4), w >= 0, of every vertex from frame a to frame b."""
        return vertex_rotations(self.vertices[a], self.vertices[b], self.faces)


def vertex_rotations(vertices_a: ArrayLike, vertices_b: ArrayLike, faces: ArrayLike) -> FloatArray:
    """Rotation of every vertex's neighborhood from pose a to pose b.

    A vertex without faces, or whose faces have no area in one of the poses, takes the rotation of
    the nearest determined vertex, preferably of its own connected component. If no vertex is
    determined, all rotations are the identity.

    Args:
        vertices_a, vertices_b: (V, 3) one mesh in two poses.
        faces: (f, 3).

    Returns:
        quat_wxyz (V, 4), w >= 0.
    """
    a, b = np.asarray(vertices_a, float), np.asarray(vertices_b, float)
    corners = np.asarray(faces, np.int64)
    covariance = _covariances(a, b, corners)
    # nearest rotation; the last axis is flipped to make det R = 1
    U, s, Vt = np.linalg.svd(covariance)
    side = np.sign(np.linalg.det(U @ Vt))
    U[..., 2] *= side[:, None]
    R = U @ Vt
    # unique if the sum of the two smallest signed singular values is not zero
    determined = s[:, 1] + side * s[:, 2] > DEGENERATE * s[:, 0]
    if not determined.all():
        R = (
            R[_donors(a, corners, determined)]
            if determined.any()
            else np.broadcast_to(np.eye(3), R.shape)
        )
    return quat_wxyz_from_matrix(R)


def _covariances(a: FloatArray, b: FloatArray, faces: NDArray[np.int64]) -> FloatArray:
    """(V, 3, 3) sum over the faces around every vertex of sum_k e'_k e_k^T and the term of the
    normals."""
    # edges of each face, (f, 3, 3), one edge a row
    edges_a, edges_b = (np.roll(x[faces], -1, axis=1) - x[faces] for x in (a, b))
    of_face = np.swapaxes(edges_b, 1, 2) @ edges_a
    # term of the normals, scaled by the geometric mean of the areas
    normal_a, normal_b = (np.cross(e[:, 0], e[:, 1]) for e in (edges_a, edges_b))
    size = np.sqrt(np.linalg.norm(normal_a, axis=1) * np.linalg.norm(normal_b, axis=1))
    normal_b = np.divide(
        normal_b, size[:, None], out=np.zeros_like(normal_b), where=size[:, None] > 0
    )
    of_face += normal_b[:, :, None] * normal_a[:, None, :]
    # sum over the faces of each vertex
    out = np.empty((len(a), 9))
    for i, term in enumerate(of_face.reshape(-1, 9).T):
        out[:, i] = np.bincount(faces.ravel(), np.repeat(term, 3), len(a))
    return out.reshape(-1, 3, 3)


def _donors(
    points: FloatArray, faces: NDArray[np.int64], determined: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(V,) whose rotation each vertex takes: its own, or the nearest determined one's."""
    count = len(points)
    joined = np.stack([faces, np.roll(faces, 1, axis=1)]).reshape(2, -1)
    piece = connected_components(
        coo_array((np.ones(joined.shape[1]), joined), (count, count)), directed=False
    )[1]
    donors = np.arange(count)

    def take(lost: NDArray[np.bool_], known: NDArray[np.int64]) -> None:
        donors[lost] = known[cKDTree(points[known]).query(points[lost])[1]]

    alone = ~np.isin(piece, piece[determined])
    if alone.any():
        take(alone, np.flatnonzero(determined))
    for p in np.unique(piece[~determined & ~alone]):
        take(~determined & (piece == p), np.flatnonzero(determined & (piece == p)))
    return donors
