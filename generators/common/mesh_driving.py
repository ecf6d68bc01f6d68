"""Mesh driving: a deformation known at points of a surface, carried over to the vertices (NeuROK, C.4, Algorithm 1).

The decoder's answer for a driving point is a rigid motion. Averaging the motions of a vertex's neighbours would smear
the seam between two parts, so the vertex follows a consensus instead:

1. The K_1 nearest driving points, by d_euc. RANSAC (Fischler & Bolles 1981) over their motions: a hypothesis is one
   neighbour's motion, its inliers are the neighbours whose motions take the vertex to nearly the same place. One
   neighbour is a minimal sample and there are only K_1, so every hypothesis is tried and nothing is left to chance.
2. A vertex with a high share of inliers keeps the mean of their motions. The others look again among the
   lambda_drive K_1 nearest, ordered by

       d_upd(v, x) = d_euc(v, x) (1 + d_geo(v, x)),

   where driving points that the surface does not connect with the vertex are noise, and RANSAC runs a second time.

All frames of an animation are driven at once: an inlier agrees in its worst frame, so a vertex keeps to one part
through time. Three things go beyond the algorithm. Near points count for more, in the vote and in the mean. A vertex is
also looked at again where its neighbours agree, but not those that the surface connects it with (the needle of a dial
has mostly the dial around it), and where its edges tear. And where the surface connects a vertex with next to no
driving point, the first consensus stands.

Motions are averaged as dual quaternions (Kavan et al., ACM TOG 2008): the mean of rigid motions is rigid. Geodesic
distances are shortest paths (Dijkstra) over vertices and driving points; they only order neighbours, and unlike the
heat method they need no manifold mesh and are infinite between separate pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

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

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 2**21
"""Neighbours times frames looked at together: tens of megabytes."""
_LEAST_SHARE = 1 / 3
"""Of a vertex's neighbours, that some hypothesis gathers however much they scatter."""


@dataclass(frozen=True)
class DriveOptions:
    """How vertices follow driving points. Lengths are those of the normalised frame, where an object spans 2."""

    neighbours: int = 16
    """K_1: driving points that vote on the motion of a vertex."""
    expansion: int = 4
    """lambda_drive: times as many are looked at where the vote is not clear."""
    inlier_distance: float = 0.03
    """Two motions agree where they take the vertex to places no further apart than this, in every frame."""
    inlier_ratio: float = 0.75
    """Share of the neighbours that must agree for the first vote to stand."""
    detour: float = 4.0
    """Driving points further along the surface than this many times the K_1-th nearest one's straight distance count
    as not connected."""
    least_connected: int = 3
    """With fewer connected driving points than this the second vote is not held: one of them may be wrong."""

    def __post_init__(self) -> None:
        for name in ("neighbours", "expansion", "least_connected"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"DriveOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        for name in ("inlier_distance", "detour"):
            checks.positive(f"DriveOptions.{name}", getattr(self, name))
        if not 0 < self.inlier_ratio <= 1:
            raise ValueError(
                f"DriveOptions.inlier_ratio: expected a share in (0, 1], got {self.inlier_ratio}"
            )


def drive_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    points: ArrayLike,
    deformation: ArrayLike,
    options: DriveOptions = DriveOptions(),
    *,
    point_faces: ArrayLike | None = None,
) -> FloatArray:
    """Vertices (T, V, 3) of the animation that the driving points show; where they show no motion, the very vertices.

    Args:
        vertices: (V, 3) of the reference mesh, normalised frame.
        faces: (F, 3) of the mesh. Faces are connected where they name the same vertex: weld a mesh whose faces do not
            share vertices, or else its driving follows the nearest points alone.
        points: (P, 3) driving points on its surface.
        deformation: (T, P, 8) dual quaternions (w, x, y, z, then the dual part) of the rigid motions of the points
            from the reference to each frame; any length and sign but zero. (T, P, 3) are displacements.
        options: see DriveOptions.
        point_faces: (P,) the face that each point lies on; the nearest one if not given, which cannot tell two
            pieces apart where they touch.
    """
    v = checks.array("vertices", vertices, ("V", 3))
    f = _faces(faces, len(v))
    x = checks.array("points", points, ("P", 3))
    q = _dual_quaternions(deformation, len(x))
    surface = _Surface(v, f, x, _point_faces(point_faces, v, f, x))
    swarm = _Swarm(x, q)

    tree = cKDTree(x)

    distance, neighbours = _nearest(tree, v, options.neighbours)
    motion, inlier = swarm.consensus(
        v, neighbours, distance, np.ones(neighbours.shape, bool), options
    )
    connected = surface.same_piece(np.arange(len(v)), neighbours)
    clear = inlier.mean(1) >= options.inlier_ratio
    clear &= (inlier & connected).sum(1) >= options.inlier_ratio * connected.sum(1)
    clear &= connected.any(1) | ~surface.driven
    seen = np.zeros(len(v), bool)
    # Resolving the rim of a patch that went astray tears its inside off, which is then looked at too.
    while len(
        again := np.flatnonzero((~clear | _torn(v, v + motion, f, options.inlier_distance)) & ~seen)
    ):
        seen[again] = True
        distance, neighbours = _nearest(tree, v[again], options.expansion * options.neighbours)
        limit = options.detour * distance[:, min(options.neighbours, distance.shape[1]) - 1]
        geodesic = surface.geodesic(again, neighbours, limit)
        distance, neighbours, connected = _refined(
            distance, neighbours, geodesic, options.neighbours
        )
        enough = connected.sum(1) >= options.least_connected
        again, distance, neighbours, connected = (
            a[enough] for a in (again, distance, neighbours, connected)
        )
        motion[:, again], _ = swarm.consensus(v[again], neighbours, distance, connected, options)
    return v + motion


def _tolerance(worst: Floats, valid: Mask, distance: float) -> Floats:
    """Squared distance (n,) within which motions agree: the given one, or what a share of the neighbours needs.

    Where a network is unsure, motions scatter by more than any threshold and each would be its own only inlier. The
    least spread that some hypothesis needs to gather a share of its neighbours (least median of squares, Rousseeuw
    1984, with a smaller share than half since three parts may meet) measures the scatter.
    """
    apart = np.where(valid[:, None, :], worst, np.inf)
    apart = np.where(valid[:, :, None], np.sort(apart, axis=-1), np.inf)
    rank = np.maximum(np.ceil(_LEAST_SHARE * valid.sum(1)).astype(int) - 1, 0)
    spread = np.take_along_axis(apart, rank[:, None, None], axis=-1).min((1, 2))
    return np.maximum(spread, np.float32(distance**2))


def _refined(
    distance: FloatArray, neighbours: Ints, geodesic: FloatArray, count: int
) -> tuple[FloatArray, Ints, Mask]:
    """The `count` nearest by d_upd among the expanded neighbours (N', lambda K_1), and which of them are not noise."""
    updated = distance * (1 + geodesic)
    order = np.argsort(updated, axis=1, kind="stable")[:, :count]
    updated = np.take_along_axis(updated, order, axis=1)
    connected = np.isfinite(updated)
    return (
        np.where(connected, updated, 0.0),
        np.take_along_axis(neighbours, order, axis=1),
        connected,
    )


def _torn(vertices: FloatArray, moved: FloatArray, faces: Ints, distance: float) -> Mask:
    """Vertices (V,) with an edge that some frame (T, V, 3) makes longer by more than `distance`."""
    torn = np.zeros(len(vertices), bool)
    for a, b in (faces[:, [0, 1]].T, faces[:, [1, 2]].T, faces[:, [2, 0]].T):
        rest = np.linalg.norm(vertices[a] - vertices[b], axis=-1)
        long = np.linalg.norm(moved[:, a] - moved[:, b], axis=-1).max(0) > rest + distance
        torn[a[long]] = torn[b[long]] = True
    return torn


class _Swarm:
    """The driving points and their motions, laid out so that a neighbour's whole motion lies together in memory."""

    def __init__(self, points: FloatArray, dual_quaternions: Floats) -> None:
        self.count = len(dual_quaternions)
        self.points = points
        self.quaternions = np.ascontiguousarray(np.moveaxis(dual_quaternions, 1, 0))  # (P, T, 8)
        self.affine = _displacement_matrices(self.quaternions)  # (P, T, 3, 4)

    def consensus(
        self,
        vertices: FloatArray,
        neighbours: Ints,
        distance: FloatArray,
        valid: Mask,
        options: DriveOptions,
    ) -> tuple[Floats, Mask]:
        """RANSAC over the motions of each vertex's neighbours.

        Args:
            vertices: (N, 3).
            neighbours, distance, valid: (N, K) driving points, how far they are, and which of them have a vote.
            options: see DriveOptions.

        Returns:
            Displacements (T, N, 3) of the vertices, and which neighbours (N, K) are inliers of the best hypothesis.
        """
        motion = np.empty((self.count, len(vertices), 3), np.float32)
        inlier = np.empty(neighbours.shape, bool)
        step = max(1, _BLOCK // (self.count * neighbours.shape[1]))
        for start in range(0, len(vertices), step):
            block = slice(start, start + step)
            weight = np.where(valid[block], _nearness(distance[block]), 0.0)
            best, agree = self._vote(
                vertices[block], neighbours[block], weight, options.inlier_distance
            )
            inlier[block] = agree & valid[block]
            motion[:, block] = self._mean(
                vertices[block], neighbours[block], np.where(agree, weight, 0.0), best
            )
        return motion, inlier

    def _vote(
        self, v: FloatArray, neighbours: Ints, weight: FloatArray, distance: float
    ) -> tuple[Ints, Mask]:
        """The hypothesis (n,) with most weight behind it, and the neighbours (n, K) that agree with it."""
        n, k = neighbours.shape
        homogeneous = np.concatenate([v, np.ones((n, 1))], axis=1).astype(np.float32)
        places = self.affine[neighbours].reshape(n, -1, 4) @ homogeneous[:, :, None]
        places = places.reshape(n, k, self.count, 3)
        places -= places.mean(
            1, keepdims=True
        )  # small numbers, so that the squares below keep their digits
        places = np.ascontiguousarray(np.swapaxes(places, 1, 2))  # (n, T, K, 3)
        squared = np.einsum("ntki,ntki->ntk", places, places)
        apart = places @ np.swapaxes(places, -1, -2)  # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b
        apart *= -2
        apart += squared[..., :, None]
        apart += squared[..., None, :]
        worst = apart.max(1)  # (n, K, K)
        agreement = (
            1 - worst / _tolerance(worst, weight > 0, distance)[:, None, None]
        )  # positive for inliers
        # A neighbour counts the more the better it agrees (MSAC, Torr & Zisserman 2000), which settles ties.
        score = (np.maximum(agreement, 0) * weight[:, None, :]).sum(-1)
        best = np.argmax(np.where(weight > 0, score, -1.0), axis=1)
        return best, agreement[np.arange(n), best] >= 0

    def _mean(self, v: FloatArray, neighbours: Ints, weight: FloatArray, best: Ints) -> Floats:
        """Displacements (T, n, 3) of vertices by the weighted mean of their neighbours' motions."""
        q = self.quaternions[neighbours]  # (n, K, T, 8)
        sign = np.sign(np.einsum("nkti,nti->nkt", q[..., :4], q[np.arange(len(v)), best, :, :4]))
        blend = np.einsum("nkt,nkti->nti", sign * weight[:, :, None].astype(np.float32), q)
        affine = _displacement_matrices(
            blend / np.linalg.norm(blend[..., :4], axis=-1, keepdims=True)
        )
        homogeneous = np.concatenate([v, np.ones((len(v), 1))], axis=1).astype(np.float32)
        return np.swapaxes(
            (affine.reshape(len(v), -1, 4) @ homogeneous[:, :, None]).reshape(len(v), -1, 3), 0, 1
        )


class _Surface:
    """The mesh with the driving points on it: which pieces it falls into, and how far it is along it."""

    def __init__(
        self, vertices: FloatArray, faces: Ints, points: FloatArray, point_faces: Ints
    ) -> None:
        self.vertex_count = len(vertices)
        nodes = np.concatenate([vertices, points])
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        if len(faces):
            corners = faces[point_faces]
            spokes = np.stack(
                [np.repeat(len(vertices) + np.arange(len(points)), 3), corners.reshape(-1)], axis=1
            )
            edges = np.concatenate([edges, spokes, len(vertices) + _pairs(points, corners)])
        edges = np.unique(np.sort(edges, axis=1), axis=0)
        length = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
        # An edge without length would be no edge of a sparse graph.
        upper = sparse.coo_array(
            (np.maximum(length, 1e-9), (edges[:, 0], edges[:, 1])), (len(nodes),) * 2
        )
        self.graph = (upper + upper.T).tocsr()
        self.piece = csgraph.connected_components(self.graph, directed=False)[1]
        self.driven = np.isin(
            self.piece[: len(vertices)], self.piece[len(vertices) :]
        )  # (V,) has driving points

    def same_piece(self, vertices: Ints, points: Ints) -> Mask:
        """Which of the points (N, K) the surface connects with each of the vertices (N,)."""
        return self.piece[vertices][:, None] == self.piece[self.vertex_count + points]

    def geodesic(self, vertices: Ints, points: Ints, limit: FloatArray) -> FloatArray:
        """Distances (N, K) along the surface from vertices (N,) to points (N, K); infinite beyond the limits (N,)."""
        out = np.empty(points.shape)
        step = max(1, 2**23 // self.graph.shape[0])
        for start in range(0, len(vertices), step):
            block = slice(start, start + step)
            reach = csgraph.dijkstra(self.graph, indices=vertices[block], limit=float(limit.max()))
            out[block] = np.take_along_axis(reach, self.vertex_count + points[block], axis=1)
        return np.where(out <= limit[:, None], out, np.inf)


def _pairs(points: FloatArray, corners: Ints) -> Ints:
    """Pairs (E, 2) of near points whose faces, given by their corners (P, 3), share one: short cuts across a face."""
    _, near = _nearest(cKDTree(points), points, 8)
    a, b = np.repeat(np.arange(len(points)), near.shape[1]), near.reshape(-1)
    touching = (corners[a][:, :, None] == corners[b][:, None, :]).any((1, 2))
    return np.stack([a, b], axis=1)[touching & (a != b)]


def _nearest(tree: cKDTree, vertices: FloatArray, count: int) -> tuple[FloatArray, Ints]:
    """Distances and indices (N, K) of the K nearest points, or of all there are."""
    distance, index = tree.query(vertices, np.arange(1, min(count, tree.n) + 1))
    return distance, index


def _nearness(distance: FloatArray) -> FloatArray:
    """Weights (N, K): 1 at the vertex, falling smoothly to almost nothing at the furthest neighbour.

    As a neighbour enters or leaves the K nearest it weighs little, so neighbouring vertices move alike.
    """
    reach = 1.1 * distance.max(1, keepdims=True)
    return (1 - (distance / np.where(reach > 0, reach, 1.0)) ** 2) ** 2


def _displacement_matrices(q: Floats) -> Floats:
    """A (..., 3, 4) with A (x, 1) = R x + t - x, of unit dual quaternions (..., 8).

    Displacements rather than places: single precision then moves nothing that is at rest.
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
    # t = vector part of 2 q_dual q_real^*, with the component of q_dual along q_real, no part of a motion, dropping out
    out[..., 3] = 2 * (w[..., None] * dual_v - dual_w * v + np.cross(v, dual_v))
    return out


def _dual_quaternions(deformation: ArrayLike, count: int) -> Floats:
    """Dual quaternions (T, P, 8) with a real part of unit length."""
    d = np.asarray(deformation)
    if d.ndim != 3 or d.shape[1:] not in ((count, 8), (count, 3)) or len(d) == 0:
        raise ValueError(
            f"deformation: expected (T, {count}, 8) dual quaternions or (T, {count}, 3) displacements, one for each of "
            f"the {count} points, got {d.shape}"
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
            "deformation: a real part of length zero is no rotation; rest is (1, 0, 0, 0, 0, 0, 0, 0)"
        )
    return d / norm


def _faces(faces: ArrayLike, vertex_count: int) -> Ints:
    f = np.asarray(faces, np.int64).reshape(-1, 3)
    if len(f) and (f.min() < 0 or f.max() >= vertex_count):
        raise ValueError(
            f"faces: name vertex {f.max() if f.min() >= 0 else f.min()} of {vertex_count}"
        )
    return f


def _point_faces(
    point_faces: ArrayLike | None, vertices: FloatArray, faces: Ints, points: FloatArray
) -> Ints:
    if len(faces) == 0:
        return np.empty(0, np.int64)
    if point_faces is None:
        scene = raycasting_scene(trimesh.Trimesh(vertices, faces, process=False))
        query = open3d().core.Tensor(points.astype(np.float32))
        return scene.compute_closest_points(query)["primitive_ids"].numpy().astype(np.int64)
    out = np.asarray(point_faces, np.int64)
    if out.shape != (len(points),) or out.min() < 0 or out.max() >= len(faces):
        raise ValueError(
            f"point_faces: expected ({len(points)},) indices below {len(faces)}, got {out.shape} in "
            f"[{out.min(initial=0)}, {out.max(initial=0)}]"
        )
    return out
