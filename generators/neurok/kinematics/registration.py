"""Baselines of inverse kinematics: the shape at rest, and registration without a prior.

`registration` deforms a mesh to a target point set as rigidly as possible, without knowledge of
parts or joints: an embedded deformation graph (Sumner et al., SIGGRAPH 2007), x(p) = sum_j w_j(p)
(R_j (p - g_j) + g_j + t_j), fitted to nearest-point matches that are found again in every step (Li
et al., SGP 2008),

    sum_matches rho(n . (x - y))^2 + s rho(x - y)^2
        + stiffness sum_edges rho(R_i (g_j - g_i) - (g_j + t_j - g_i - t_i))^2

by Gauss-Newton on the rotations and translations of the nodes. It starts with few nodes, stiff,
trusting distant matches, and ends with many, soft, trusting near ones. To be a fair baseline on
articulated objects: matches go both ways, the residual counts mostly along the target's normal,
both rho are robust (Geman-McClure), so the graph may tear between two parts, and a point is bound
to nodes of its own connected piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3, skew
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from generators.common.sampling import farthest_points, surface_points

Ints = NDArray[np.int64]
Positive = Annotated[float, Interval(1e-9, 1e6)]

_REGULARIZATION = 1e-8  # of the normal equations


@dataclass(frozen=True)
class RegistrationOptions:
    """Registration of a mesh. Lengths are in the normalized frame, in which the object spans 2."""

    points: Annotated[int, Interval(1, 10**6)] = 1500
    """Points drawn on the mesh, and of the target, that are matched."""
    nodes: tuple[Annotated[int, Interval(1, 10**5)], ...] = (40, 200)
    """Nodes of the deformation graph, level by level."""
    iterations: Annotated[int, Interval(1, 10**4)] = 20
    """Gauss-Newton steps of each level."""
    skinning: Annotated[int, Interval(1, 100)] = 4
    """Nodes that a point is bound to."""
    edges: Annotated[int, Interval(1, 100)] = 6
    """Nearest nodes that a node is connected with."""
    stiffness: tuple[Positive, Positive] = (10.0, 0.3)
    """Weight of the edges beside that of the matches, in the first and in the last step."""
    trust: tuple[Positive, Positive] = (1.0, 0.1)
    """Distance beyond which a match counts as wrong, in the first and in the last step."""
    tear: Positive = 0.05
    """Error of an edge, in length, beyond which it counts as torn."""
    sideways: Annotated[float, Interval(0, 1)] = 0.1
    """Share of a residual's square across the target's normal that counts."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if not self.nodes:
            raise ValueError("RegistrationOptions.nodes: expected a number per level, got none")


def static(mesh: trimesh.Trimesh, target: FloatArray, *, seed: int = 0) -> FloatArray:
    """Vertices (V, 3) at rest: measures the distance of the two poses."""
    return np.array(mesh.vertices, float)


def registration(
    mesh: trimesh.Trimesh,
    target: FloatArray,
    options: RegistrationOptions = RegistrationOptions(),
    *,
    seed: int = 0,
) -> FloatArray:
    """Vertices (V, 3) of the mesh, deformed to the target.

    Args:
        mesh: the object in its normalized frame.
        target: (P, 3) points evenly spread over its surface in another pose, same frame.
        options: see RegistrationOptions.
        seed: random seed of the points.
    """
    # Points of target and mesh, and the connected piece of each.
    goal = checks.array("target", target, ("P", 3))
    goal = goal[np.random.default_rng(seed).permutation(len(goal))[: options.points]]
    normal = _normals(goal)
    points, faces = surface_points(mesh, options.points, seed=seed)
    piece = trimesh.graph.connected_component_labels(
        mesh.edges_unique, node_count=len(mesh.vertices)
    )
    vertices, piece_of_point = np.asarray(mesh.vertices), piece[mesh.faces[faces, 0]]

    # Schedules over all steps.
    steps = len(options.nodes) * options.iterations
    stiffness = np.geomspace(*options.stiffness, steps)
    trust = np.geomspace(*options.trust, steps)

    graph = None
    for level, count in enumerate(options.nodes):
        # A finer graph, starting from the coarser one.
        chosen = farthest_points(points, count)
        finer = _Graph(points[chosen], piece_of_point[chosen], options.edges)
        if graph is not None:
            finer.take_over(graph, options.skinning)
        graph = finer
        skin = graph.skin(points, piece_of_point, options.skinning)
        for step in range(level * options.iterations, (level + 1) * options.iterations):
            # Nearest neighbors both ways.
            x = skin.moved()
            match, back = cKDTree(goal).query(x)[1], cKDTree(x).query(goal)[1]
            index = np.concatenate([np.arange(len(x)), back])
            matches = _Matches(
                index, np.concatenate([goal[match], goal]), np.concatenate([normal[match], normal])
            )
            graph.step(skin, matches, stiffness[step], trust[step], options)
    assert graph is not None
    return graph.skin(vertices, piece, options.skinning).moved()


@dataclass(frozen=True, eq=False)
class _Matches:
    """Point `index` (M,) of a skin belongs at goal (M, 3), where the surface has normal (M, 3)."""

    index: Ints
    goal: FloatArray
    normal: FloatArray


class _Graph:
    """Nodes with a rotation and a translation each, connected with the nodes around them."""

    def __init__(self, nodes: FloatArray, piece: Ints, edges: int) -> None:
        self.nodes, self.piece = nodes, piece
        self.R, self.t = np.tile(np.eye(3), (len(nodes), 1, 1)), np.zeros_like(nodes)
        # Edges to the nearest nodes, in both directions.
        ranks = np.arange(1, min(edges + 1, len(nodes)) + 1)
        near = cKDTree(nodes).query(nodes, ranks)[1]
        i, j = np.repeat(np.arange(len(nodes)), near.shape[1]), near.reshape(-1)
        both = np.concatenate([np.stack([i, j], 1), np.stack([j, i], 1)])
        self.i, self.j = np.unique(both[np.tile(i != j, 2)], axis=0).T

    def take_over(self, coarse: _Graph, count: int) -> None:
        """Start from the result of a coarser graph."""
        skin = coarse.skin(self.nodes, self.piece, count)
        self.t = skin.moved() - self.nodes
        # Rotation nearest to the weighted mean of the coarse nodes' rotations.
        mean = np.einsum("pk,pkab->pab", skin.weight, coarse.R[skin.node])
        U, _, Vt = np.linalg.svd(mean)
        flip = np.linalg.det(U @ Vt)
        U[..., 2] *= flip[:, None]
        self.R = U @ Vt

    def skin(self, points: FloatArray, piece: Ints, count: int) -> _Skin:
        """Bind points (P, 3) to the nearest nodes of their own piece, or of all if it has none."""
        count = min(count, len(self.nodes))
        node = np.zeros((len(points), count), np.int64)
        distance = np.full((len(points), count), np.inf)
        for label in np.unique(piece):
            of = np.flatnonzero(piece == label)
            own = np.flatnonzero(self.piece == label)
            own = own if len(own) else np.arange(len(self.nodes))
            k = min(count, len(own))
            distance[of, :k], near = cKDTree(self.nodes[own]).query(points[of], np.arange(1, k + 1))
            node[of, :k] = own[near]
        # Weights that fall to almost zero at the farthest node.
        known = np.isfinite(distance)
        reach = 1.2 * np.where(known, distance, 0).max(1, keepdims=True) + 1e-9
        weight = np.where(known, (1 - np.minimum(distance / reach, 1)) ** 2, 0.0)
        return _Skin(self, points, node, weight / weight.sum(1, keepdims=True))

    def step(
        self,
        skin: _Skin,
        matches: _Matches,
        stiffness: float,
        trust: float,
        options: RegistrationOptions,
    ) -> None:
        """One Gauss-Newton step towards the matches."""
        data, data_residual = self._match_rows(skin, matches, trust, options.sideways)
        ties, ties_residual = self._edge_rows(stiffness, options.tear)
        regular = _REGULARIZATION * sparse.eye_array(6 * len(self.nodes))
        A = (data.T @ data + ties.T @ ties + regular).tocsc()
        b = data.T @ data_residual + ties.T @ ties_residual
        delta = -spsolve(A, b).reshape(-1, 6)
        # Rotation (rad, world axes) and translation of every node.
        self.R = exp_so3(delta[:, :3]) @ self.R
        self.t = self.t + delta[:, 3:]

    def _match_rows(
        self, skin: _Skin, matches: _Matches, trust: float, sideways: float
    ) -> tuple[sparse.csr_array, FloatArray]:
        """Weighted Jacobian (3 M, 6 nodes) and residual (3 M,) of the matches."""
        index, normal = matches.index, matches.normal
        r = skin.moved()[index] - matches.goal
        w = np.sqrt(_robust_weight(r, trust) / len(index))
        # A residual counts in full along the normal: (sqrt(s) I + (1 - sqrt(s)) n n^T) r.
        s = np.sqrt(sideways)
        P = w[:, None, None] * (s * np.eye(3) + (1 - s) * normal[:, :, None] * normal[:, None, :])
        rows = (3 * index[:, None] + np.arange(3)).reshape(-1)
        J, K = skin.jacobian(), _block_diagonal(P)
        data = sparse.coo_array(K).tocsr() @ J[rows]
        return data, np.einsum("mab,mb->ma", P, r).reshape(-1)

    def _edge_rows(self, stiffness: float, tear: float) -> tuple[sparse.csr_array, FloatArray]:
        """Weighted Jacobian (3 E, 6 nodes) and residual (3 E,) of the edges."""
        i, j = self.i, self.j
        arm = np.einsum("eab,eb->ea", self.R[i], self.nodes[j] - self.nodes[i])
        error = arm + self.nodes[i] + self.t[i] - self.nodes[j] - self.t[j]
        v = np.sqrt(stiffness * _robust_weight(error, tear) / len(i))
        one = np.ones(len(arm))
        ties = _rows(len(i), len(self.nodes), [(i, -skew(arm), one), (j, None, -one)])
        weighted = sparse.diags_array(np.repeat(v, 3)) @ ties
        return weighted, (v[:, None] * error).reshape(-1)


@dataclass(frozen=True, eq=False)
class _Skin:
    """Points (P, 3), and the nodes (P, K) that they are bound to, with weights (P, K)."""

    graph: _Graph
    points: FloatArray
    node: Ints
    weight: FloatArray

    def moved(self) -> FloatArray:
        """Current positions (P, 3) of the points."""
        places = self._arms() + (self.graph.nodes + self.graph.t)[self.node]
        return np.einsum("pk,pka->pa", self.weight, places)

    def jacobian(self) -> sparse.csr_array:
        """(3 P, 6 nodes) by a rotation (rad, world axes) and a translation of every node."""
        arms = self._arms()
        blocks = [
            (self.node[:, k], -skew(arms[:, k]), self.weight[:, k])
            for k in range(self.node.shape[1])
        ]
        return _rows(len(self.points), len(self.graph.nodes), blocks)

    def _arms(self) -> FloatArray:
        """Rotated offsets (P, K, 3) of the points from their nodes."""
        offset = self.points[:, None] - self.graph.nodes[self.node]
        return np.einsum("pkab,pkb->pka", self.graph.R[self.node], offset)


def _rows(
    count: int, nodes: int, blocks: Sequence[tuple[Ints, FloatArray | None, FloatArray]]
) -> sparse.csr_array:
    """Sparse Jacobian (3 count, 6 nodes).

    For each (node (count,), turn (count, 3, 3), weight (count,)) of `blocks`, block row r has
    weight * [turn | identity] at node[r].
    """
    row = 3 * np.arange(count)[:, None, None] + np.arange(3)[:, None]
    rows, columns, values = [], [], []
    for node, turn, weight in blocks:
        block = np.zeros((count, 3, 6))
        if turn is not None:
            block[..., :3] = turn
        block[..., 3:] = np.eye(3)
        column = 6 * node[:, None, None] + np.arange(6)
        rows.append(np.broadcast_to(row, block.shape).reshape(-1))
        columns.append(np.broadcast_to(column, block.shape).reshape(-1))
        values.append((weight[:, None, None] * block).reshape(-1))
    index = np.concatenate(rows), np.concatenate(columns)
    shape = (3 * count, 6 * nodes)
    return sparse.coo_array((np.concatenate(values), index), shape).tocsr()


def _block_diagonal(P: FloatArray) -> sparse.coo_array:
    """Block diagonal (3 M, 3 M) of P (M, 3, 3)."""
    row = 3 * np.arange(len(P))[:, None, None] + np.arange(3)[:, None]
    column = 3 * np.arange(len(P))[:, None, None] + np.arange(3)
    index = tuple(np.broadcast_to(a, P.shape).reshape(-1) for a in (row, column))
    return sparse.coo_array((P.reshape(-1), index), (3 * len(P),) * 2)


def _robust_weight(residual: FloatArray, scale: float) -> FloatArray:
    """Weights (M,) of residuals (M, 3) under the Geman-McClure penalty."""
    return (1 + (residual**2).sum(-1) / scale**2) ** -2


def _normals(points: FloatArray, neighbors: int = 10) -> FloatArray:
    """Unit normals (P, 3), of either sign, of the planes through each point's neighbors."""
    ranks = np.arange(1, min(neighbors, len(points)) + 1)
    near = points[cKDTree(points).query(points, ranks)[1]]
    # The direction of least spread.
    spread = near - near.mean(1, keepdims=True)
    return np.linalg.eigh(np.swapaxes(spread, 1, 2) @ spread)[1][..., 0]
