"""Mesh driving: a deformation known at points of a surface, transferred to the vertices.

NeuROK, C.4, Algorithm 1. The decoder's answer for a driving point is a rigid motion. Averaging the
motions of a vertex's neighbors would smear the seam between two parts, so the vertex follows a
consensus instead:

1. The K_1 nearest driving points, by d_euc. RANSAC (Fischler & Bolles 1981) over their motions: a
   hypothesis is one neighbor's motion, its inliers are the neighbors whose motions take the vertex
   to nearly the same place. One neighbor is a minimal sample and there are only K_1, so every
   hypothesis is tried and nothing is random.
2. A vertex with a high share of inliers keeps the mean of their motions. The others vote again
   among the lambda_drive K_1 nearest, ordered by

       d_upd(v, x) = d_euc(v, x) (1 + d_geo(v, x)),

   where driving points that the surface does not connect with the vertex are noise.

All frames of an animation are driven at once: an inlier agrees in its worst frame, so a vertex
stays with one part through time. Three things go beyond the algorithm. Near points weigh more, in
the vote and in the mean. A vertex also votes again if its neighbors agree, but not those that the
surface connects it with (the needle of a dial has mostly the dial around it), and if its edges
tear. And if the surface connects a vertex with almost no driving point, the first consensus stands.

Motions are averaged as dual quaternions (Kavan et al., ACM TOG 2008): the mean of rigid motions is
rigid. Geodesic distances are shortest paths (Dijkstra) over vertices and driving points; they only
order neighbors, and unlike the heat method they need no manifold mesh and are infinite between
separate pieces.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.common.drive_options import DriveOptions

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 2**21  # neighbors times frames per batch: tens of megabytes
_LEAST_SHARE = 1 / 3  # share of its neighbors that some hypothesis gathers, however they scatter


def drive_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    points: ArrayLike,
    deformation: ArrayLike,
    options: DriveOptions = DriveOptions(),
    *,
    point_faces: ArrayLike | None = None,
) -> FloatArray:
    """Vertices (T, V, 3) of the animation given by driving points.

    If no point moves, the vertices are returned to the last bit.

    Args:
        vertices: (V, 3) of the reference mesh, normalized frame.
        faces: (F, 3) of the mesh. Faces are connected if they name the same vertex: weld a mesh
            whose faces do not share vertices, or its driving follows the nearest points alone.
        points: (P, 3) driving points on its surface.
        deformation: (T, P, 8) dual quaternions (w, x, y, z, then the dual part) of the points'
            rigid motions from the reference to each frame; of any sign and any length but zero.
            (T, P, 3) are displacements.
        options: see DriveOptions.
        point_faces: (P,) face of each point. Defaults to the nearest face, which cannot distinguish
            two pieces that touch.
    """
    v = checks.array("vertices", vertices, ("V", 3))
    f = _faces(faces, len(v))
    x = checks.array("points", points, ("P", 3))
    motions = _Motions(_dual_quaternions(deformation, len(x)))
    surface = _Surface(v, f, x, _point_faces(point_faces, v, f, x))
    tree = cKDTree(x)

    # First vote, of all vertices.
    distance, neighbors = _nearest(tree, v, options.neighbors)  # (V, K)
    everyone = np.ones(neighbors.shape, bool)
    motion, inlier = motions.consensus(v, neighbors, distance, everyone, options)

    # The vote is clear if most neighbors agree, most connected ones too, and some are connected.
    connected = surface.same_piece(np.arange(len(v)), neighbors)
    clear = inlier.mean(1) >= options.inlier_ratio
    clear &= (inlier & connected).sum(1) >= options.inlier_ratio * connected.sum(1)
    clear &= connected.any(1) | ~surface.driven

    # Second vote, of the others and of vertices at torn edges. Resolving the rim of a patch that
    # went astray tears its inside off, which then votes too.
    seen = np.zeros(len(v), bool)
    while True:
        torn = _torn(v, v + motion, f, options.inlier_distance)
        again = np.flatnonzero((~clear | torn) & ~seen)
        if not len(again):
            break
        seen[again] = True
        distance, neighbors, connected = _second_neighbors(tree, surface, v, again, options)
        enough = connected.sum(1) >= options.least_connected
        again = again[enough]
        motion[:, again], _ = motions.consensus(
            v[again], neighbors[enough], distance[enough], connected[enough], options
        )
    return v + motion


def _second_neighbors(
    tree: cKDTree, surface: _Surface, v: FloatArray, again: Ints, options: DriveOptions
) -> tuple[FloatArray, Ints, Mask]:
    """Nearest driving points of the vertices v[again] (N,) by d_upd.

    Returns:
        distance (N, K), neighbors (N, K), and whether each is connected (N, K).
    """
    distance, neighbors = _nearest(tree, v[again], options.expansion * options.neighbors)
    straight = distance[:, min(options.neighbors, distance.shape[1]) - 1]
    geodesic = surface.geodesic(again, neighbors, options.detour * straight)
    updated = distance * (1 + geodesic)

    order = np.argsort(updated, axis=1, kind="stable")[:, : options.neighbors]
    updated = np.take_along_axis(updated, order, axis=1)
    connected = np.isfinite(updated)
    neighbors = np.take_along_axis(neighbors, order, axis=1)
    return np.where(connected, updated, 0.0), neighbors, connected


def _torn(vertices: FloatArray, moved: FloatArray, faces: Ints, distance: float) -> Mask:
    """Vertices (V,) with an edge that some frame (T, V, 3) lengthens by more than `distance`."""
    torn = np.zeros(len(vertices), bool)
    for corners in ([0, 1], [1, 2], [2, 0]):
        a, b = faces[:, corners].T
        rest = np.linalg.norm(vertices[a] - vertices[b], axis=-1)
        longest = np.linalg.norm(moved[:, a] - moved[:, b], axis=-1).max(0)
        long = longest > rest + distance
        torn[a[long]] = torn[b[long]] = True
    return torn


class _Motions:
    """Motions of the driving points, laid out so that those of a point are adjacent in memory."""

    def __init__(self, dual_quaternions: Floats) -> None:
        self.count = len(dual_quaternions)  # T
        self.quaternions = np.ascontiguousarray(np.moveaxis(dual_quaternions, 1, 0))  # (P, T, 8)
        self.affine = _displacement_matrices(self.quaternions)  # (P, T, 3, 4)

    def consensus(
        self,
        vertices: FloatArray,
        neighbors: Ints,
        distance: FloatArray,
        valid: Mask,
        options: DriveOptions,
    ) -> tuple[Floats, Mask]:
        """RANSAC over the motions of each vertex's neighbors.

        Args:
            vertices: (N, 3).
            neighbors: (N, K) driving points.
            distance: (N, K) their distances.
            valid: (N, K) True for those that vote.
            options: see DriveOptions.

        Returns:
            Displacements (T, N, 3) of the vertices, and the inliers (N, K) of the best hypothesis.
        """
        motion = np.empty((self.count, len(vertices), 3), np.float32)
        inlier = np.empty(neighbors.shape, bool)
        step = max(1, _BLOCK // (self.count * neighbors.shape[1]))
        for start in range(0, len(vertices), step):
            block = slice(start, start + step)
            v, near = vertices[block], neighbors[block]
            weight = np.where(valid[block], _nearness(distance[block]), 0.0)
            best, agree = self._vote(v, near, weight, options.inlier_distance)
            inlier[block] = agree & valid[block]
            motion[:, block] = self._mean(v, near, np.where(agree, weight, 0.0), best)
        return motion, inlier

    def _vote(
        self, v: FloatArray, neighbors: Ints, weight: FloatArray, distance: float
    ) -> tuple[Ints, Mask]:
        """Hypothesis (n,) with most weight behind it, and neighbors (n, K) that agree with it."""
        n, k = neighbors.shape
        # Places to which the neighbors' motions take the vertex, about their mean: the squares of
        # small numbers keep their digits.
        places = self.affine[neighbors].reshape(n, -1, 4) @ _homogeneous(v)
        places = places.reshape(n, k, self.count, 3)
        places -= places.mean(1, keepdims=True)
        places = np.ascontiguousarray(np.swapaxes(places, 1, 2))  # (n, T, K, 3)

        # Squared distances |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, in the worst frame.
        squared = np.einsum("ntki,ntki->ntk", places, places)
        apart = places @ np.swapaxes(places, -1, -2)
        apart *= -2
        apart += squared[..., :, None]
        apart += squared[..., None, :]
        worst = apart.max(1)  # (n, K, K)

        # A neighbor counts more the better it agrees (MSAC, Torr & Zisserman 2000): breaks ties.
        tolerance = _tolerance(worst, weight > 0, distance)
        agreement = 1 - worst / tolerance[:, None, None]  # positive for inliers
        score = (np.maximum(agreement, 0) * weight[:, None, :]).sum(-1)
        best = np.argmax(np.where(weight > 0, score, -1.0), axis=1)
        return best, agreement[np.arange(n), best] >= 0

    def _mean(self, v: FloatArray, neighbors: Ints, weight: FloatArray, best: Ints) -> Floats:
        """Displacements (T, n, 3) of vertices by the weighted mean of their neighbors' motions."""
        n = len(v)
        q = self.quaternions[neighbors]  # (n, K, T, 8)
        # q and -q are one rotation: take the sign of the best hypothesis.
        own = q[np.arange(n), best, :, :4]
        sign = np.sign(np.einsum("nkti,nti->nkt", q[..., :4], own))
        blend = np.einsum("nkt,nkti->nti", sign * weight[:, :, None].astype(np.float32), q)
        norm = np.linalg.norm(blend[..., :4], axis=-1, keepdims=True)
        affine = _displacement_matrices(blend / norm)
        displacement = affine.reshape(n, -1, 4) @ _homogeneous(v)
        return np.swapaxes(displacement.reshape(n, -1, 3), 0, 1)


def _tolerance(worst: Floats, valid: Mask, distance: float) -> Floats:
    """Squared distances (n,) within which motions agree: the given one, or more if they scatter.

    If a network is unsure, motions scatter by more than any threshold and each would be its own
    only inlier. The smallest spread with which some hypothesis gathers a share of its neighbors
    (least median of squares, Rousseeuw 1984, with a smaller share than half since three parts may
    meet) measures the scatter.
    """
    apart = np.where(valid[:, None, :], worst, np.inf)
    apart = np.where(valid[:, :, None], np.sort(apart, axis=-1), np.inf)
    rank = np.maximum(np.ceil(_LEAST_SHARE * valid.sum(1)).astype(int) - 1, 0)
    spread = np.take_along_axis(apart, rank[:, None, None], axis=-1).min((1, 2))
    return np.maximum(spread, np.float32(distance**2))


class _Surface:
    """Graph of the mesh and the driving points on it: connected pieces and geodesic distances."""

    def __init__(
        self, vertices: FloatArray, faces: Ints, points: FloatArray, point_faces: Ints
    ) -> None:
        count = len(vertices)
        self.vertex_count = count
        nodes = np.concatenate([vertices, points])

        # Edges of the mesh, of points to the corners of their faces, and between near points.
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        if len(faces):
            corners = faces[point_faces]
            own = np.repeat(count + np.arange(len(points)), 3)
            spokes = np.stack([own, corners.reshape(-1)], axis=1)
            edges = np.concatenate([edges, spokes, count + _shortcuts(points, corners)])
        edges = np.unique(np.sort(edges, axis=1), axis=0)

        # An edge of length zero would be no edge of a sparse graph.
        length = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
        weights = (np.maximum(length, 1e-9), (edges[:, 0], edges[:, 1]))
        upper = sparse.coo_array(weights, (len(nodes),) * 2)
        self.graph = (upper + upper.T).tocsr()
        self.piece = csgraph.connected_components(self.graph, directed=False)[1]
        # (V,) True if the vertex's piece has driving points.
        self.driven = np.isin(self.piece[:count], self.piece[count:])

    def same_piece(self, vertices: Ints, points: Ints) -> Mask:
        """Points (N, K) that the surface connects with each of the vertices (N,)."""
        return self.piece[vertices][:, None] == self.piece[self.vertex_count + points]

    def geodesic(self, vertices: Ints, points: Ints, limit: FloatArray) -> FloatArray:
        """Geodesic distances (N, K) from vertices (N,) to points (N, K); inf beyond limits (N,)."""
        out = np.empty(points.shape)
        step = max(1, 2**23 // self.graph.shape[0])
        for start in range(0, len(vertices), step):
            block = slice(start, start + step)
            reach = csgraph.dijkstra(self.graph, indices=vertices[block], limit=float(limit.max()))
            out[block] = np.take_along_axis(reach, self.vertex_count + points[block], axis=1)
        return np.where(out <= limit[:, None], out, np.inf)


def _shortcuts(points: FloatArray, corners: Ints) -> Ints:
    """Pairs (E, 2) of near points whose faces share a corner: shortcuts across a face.

    Args:
        points: (P, 3).
        corners: (P, 3) vertices of the points' faces.
    """
    _, near = _nearest(cKDTree(points), points, 8)
    a, b = np.repeat(np.arange(len(points)), near.shape[1]), near.reshape(-1)
    touching = (corners[a][:, :, None] == corners[b][:, None, :]).any((1, 2))
    return np.stack([a, b], axis=1)[touching & (a != b)]


def _nearest(tree: cKDTree, vertices: FloatArray, count: int) -> tuple[FloatArray, Ints]:
    """Distances and indices (N, K) of the K nearest points, or of all if there are fewer."""
    distance, index = tree.query(vertices, np.arange(1, min(count, tree.n) + 1))
    return distance, index


def _nearness(distance: FloatArray) -> FloatArray:
    """Weights (N, K): 1 at the vertex, falling smoothly to almost 0 at the farthest neighbor.

    A point that enters or leaves the K nearest weighs little, so adjacent vertices move alike.
    """
    reach = 1.1 * distance.max(1, keepdims=True)
    return (1 - (distance / np.where(reach > 0, reach, 1.0)) ** 2) ** 2


def _homogeneous(v: FloatArray) -> Floats:
    """Columns (n, 4, 1) of (x, 1) for points x (n, 3)."""
    return np.concatenate([v, np.ones((len(v), 1))], axis=1).astype(np.float32)[:, :, None]


def _displacement_matrices(q: Floats) -> Floats:
    """A (..., 3, 4) with A (x, 1) = R x + t - x, of unit dual quaternions (..., 8).

    Displacements rather than places: in single precision, what is at rest then stays at rest.
    """
    w, v = q[..., 0], q[..., 1:4]
    dual_w, dual_v = q[..., 4:5], q[..., 5:8]
    out = np.empty((*q.shape[:-1], 3, 4), np.float32)
    # R - I = 2 (w [v]x + [v]x [v]x), [v]x [v]x = v v^T - |v|^2 I
    squared = np.einsum("...i,...i->...", v, v)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[..., i, i] = 2 * (v[..., i] ** 2 - squared)
        out[..., i, j] = 2 * (v[..., i] * v[..., j] - w * v[..., k])
        out[..., i, k] = 2 * (v[..., i] * v[..., k] + w * v[..., j])
    # t is the vector part of 2 q_dual q_real^*; the component of q_dual along q_real, which is no
    # part of a motion, cancels.
    out[..., 3] = 2 * (w[..., None] * dual_v - dual_w * v + np.cross(v, dual_v))
    return out


def _dual_quaternions(deformation: ArrayLike, count: int) -> Floats:
    """Dual quaternions (T, P, 8) with a real part of unit length."""
    d = np.asarray(deformation)
    if d.ndim != 3 or d.shape[1:] not in ((count, 8), (count, 3)) or len(d) == 0:
        raise ValueError(
            f"deformation: expected (T, {count}, 8) dual quaternions or (T, {count}, 3) "
            f"displacements, one for each of the {count} points, got {d.shape}"
        )
    if not np.isfinite(d).all():
        raise ValueError("deformation: some values are not finite; was the network trained?")
    d = d.astype(np.float32)
    if d.shape[-1] == 3:
        out = np.zeros((*d.shape[:-1], 8), np.float32)
        out[..., 0], out[..., 5:] = 1, d / 2
        return out
    norm = np.linalg.norm(d[..., :4], axis=-1, keepdims=True)
    if not (norm > 1e-6).all():
        raise ValueError(
            "deformation: a real part of length zero is no rotation; rest is "
            "(1, 0, 0, 0, 0, 0, 0, 0)"
        )
    return d / norm


def _faces(faces: ArrayLike, vertex_count: int) -> Ints:
    """Faces (F, 3), checked."""
    f = np.asarray(faces, np.int64).reshape(-1, 3)
    if len(f) and (f.min() < 0 or f.max() >= vertex_count):
        wrong = f.max() if f.min() >= 0 else f.min()
        raise ValueError(f"faces: name vertex {wrong} of {vertex_count}")
    return f


def _point_faces(
    point_faces: ArrayLike | None, vertices: FloatArray, faces: Ints, points: FloatArray
) -> Ints:
    """Face (P,) of each point, checked; by default the nearest."""
    if len(faces) == 0:
        return np.empty(0, np.int64)
    if point_faces is None:
        scene = raycasting_scene(trimesh.Trimesh(vertices, faces, process=False))
        query = open3d().core.Tensor(points.astype(np.float32))
        return scene.compute_closest_points(query)["primitive_ids"].numpy().astype(np.int64)
    out = np.asarray(point_faces, np.int64)
    if out.shape != (len(points),) or out.min() < 0 or out.max() >= len(faces):
        span = f"[{out.min(initial=0)}, {out.max(initial=0)}]"
        raise ValueError(
            f"point_faces: expected ({len(points)},) indices below {len(faces)}, got {out.shape} "
            f"in {span}"
        )
    return out
