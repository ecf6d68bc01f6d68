"""What stands beside NeuROK in inverse kinematics: the shape left as it is, and registration without a prior.

`registration` deforms a mesh to a target point set as rigidly as possible, knowing nothing of parts or joints: an
embedded deformation graph (Sumner et al., SIGGRAPH 2007), x(p) = sum_j w_j(p) (R_j (p - g_j) + g_j + t_j), fitted to
nearest-point matches that are found again in every step (Li et al., SGP 2008),

    sum_matches rho(n . (x - y))^2 + s rho(x - y)^2  +  stiffness sum_edges rho(R_i (g_j - g_i) - (g_j + t_j - g_i - t_i))^2

by Gauss-Newton on the rotations and translations of the nodes. It starts with few nodes, stiff, trusting far matches,
and ends with many, soft, trusting near ones. What gives it a fair chance on articulated objects: matches go both ways,
the residual counts mostly along the target's normal, both rho are robust (Geman-McClure), so the graph may tear where
two parts meet, and a point hangs on the nodes of its own connected piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3, skew
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.common.sampling import farthest_points, surface_points

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RegistrationOptions:
    """How a mesh is registered. Lengths are those of the normalised frame, where the object spans 2."""

    points: int = 1500
    """Points drawn on the mesh, and of the target, that are matched."""
    nodes: tuple[int, ...] = (40, 200)
    """Nodes of the deformation graph, level by level."""
    iterations: int = 20
    """Gauss-Newton steps of each level."""
    skinning: int = 4
    """Nodes that a point hangs on."""
    edges: int = 6
    """Nearest nodes that a node is tied to."""
    stiffness: tuple[float, float] = (10.0, 0.3)
    """Weight of the edges beside that of the matches, in the first and in the last step."""
    trust: tuple[float, float] = (1.0, 0.1)
    """Distance beyond which a match counts as wrong, in the first and in the last step."""
    tear: float = 0.05
    """Length by which an edge is out of shape beyond which it counts as torn."""
    sideways: float = 0.1
    """Share of a residual's square across the target's normal that counts."""

    def __post_init__(self) -> None:
        for name in ("points", "iterations", "skinning", "edges"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"RegistrationOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        if not self.nodes or min(self.nodes) < 1:
            raise ValueError(
                f"RegistrationOptions.nodes: expected a positive number per level, got {self.nodes}"
            )
        for name in ("stiffness", "trust"):
            for value in getattr(self, name):
                checks.positive(f"RegistrationOptions.{name}", value)
        checks.positive("RegistrationOptions.tear", self.tear)
        checks.positive("RegistrationOptions.sideways", self.sideways, zero=True)


def static(mesh: trimesh.Trimesh, target: FloatArray, *, seed: int = 0) -> FloatArray:
    """Vertices (V, 3) left where they are: how far the two poses are from each other."""
    return np.array(mesh.vertices, float)


def registration(
    mesh: trimesh.Trimesh,
    target: FloatArray,
    options: RegistrationOptions = RegistrationOptions(),
    *,
    seed: int = 0,
) -> FloatArray:
    """Vertices (V, 3) of the mesh brought to the target.

    Args:
        mesh: the object in its normalised frame.
        target: (P, 3) points evenly spread over its surface in another pose, same frame.
        options: see RegistrationOptions.
        seed: of the points drawn.
    """
    goal = checks.array("target", target, ("P", 3))
    goal = goal[np.random.default_rng(seed).permutation(len(goal))[: options.points]]
    normal = _normals(goal)
    points, faces = surface_points(mesh, options.points, seed=seed)
    piece = trimesh.graph.connected_component_labels(
        mesh.edges_unique, node_count=len(mesh.vertices)
    )
    vertices, piece_of_point = np.asarray(mesh.vertices), piece[mesh.faces[faces, 0]]

    steps = len(options.nodes) * options.iterations
    stiffness, trust = np.geomspace(*options.stiffness, steps), np.geomspace(*options.trust, steps)
    graph = None
    for level, count in enumerate(options.nodes):
        chosen = farthest_points(points, count)
        finer = _Graph(points[chosen], piece_of_point[chosen], options.edges)
        if graph is not None:
            finer.take_over(graph, options.skinning)
        graph = finer
        skin = graph.skin(points, piece_of_point, options.skinning)
        for step in range(level * options.iterations, (level + 1) * options.iterations):
            x = skin.moved()
            match, back = cKDTree(goal).query(x)[1], cKDTree(x).query(goal)[1]
            index = np.concatenate([np.arange(len(x)), back])
            y, n = np.concatenate([goal[match], goal]), np.concatenate([normal[match], normal])
            graph.step(skin, index, y, n, stiffness[step], trust[step], options)
    assert graph is not None
    return graph.skin(vertices, piece, options.skinning).moved()


class _Graph:
    """Nodes with a rotation and a translation each, tied to the nodes around them."""

    def __init__(self, nodes: FloatArray, piece: Ints, edges: int) -> None:
        self.nodes, self.piece = nodes, piece
        self.R, self.t = np.tile(np.eye(3), (len(nodes), 1, 1)), np.zeros_like(nodes)
        near = cKDTree(nodes).query(nodes, np.arange(1, min(edges + 1, len(nodes)) + 1))[1]
        i, j = np.repeat(np.arange(len(nodes)), near.shape[1]), near.reshape(-1)
        pairs = np.unique(
            np.concatenate([np.stack([i, j], 1), np.stack([j, i], 1)])[np.tile(i != j, 2)], axis=0
        )
        self.i, self.j = pairs.T

    def take_over(self, coarse: _Graph, count: int) -> None:
        """Start where a coarser graph has come to."""
        skin = coarse.skin(self.nodes, self.piece, count)
        self.t = skin.moved() - self.nodes
        U, _, Vt = np.linalg.svd(np.einsum("pk,pkab->pab", skin.weight, coarse.R[skin.node]))
        flip = np.linalg.det(U @ Vt)
        U[..., 2] *= flip[:, None]
        self.R = U @ Vt

    def skin(self, points: FloatArray, piece: Ints, count: int) -> _Skin:
        """Hang points (P, 3) on the nearest nodes of their own piece, or of all where it has none."""
        count = min(count, len(self.nodes))
        node, distance = (
            np.zeros((len(points), count), np.int64),
            np.full((len(points), count), np.inf),
        )
        for label in np.unique(piece):
            of = np.flatnonzero(piece == label)
            own = np.flatnonzero(self.piece == label)
            own = own if len(own) else np.arange(len(self.nodes))
            k = min(count, len(own))
            distance[of, :k], near = cKDTree(self.nodes[own]).query(points[of], np.arange(1, k + 1))
            node[of, :k] = own[near]
        reach = 1.2 * np.where(np.isfinite(distance), distance, 0).max(1, keepdims=True) + 1e-9
        weight = np.where(np.isfinite(distance), (1 - np.minimum(distance / reach, 1)) ** 2, 0.0)
        return _Skin(self, points, node, weight / weight.sum(1, keepdims=True))

    def step(
        self,
        skin: _Skin,
        index: Ints,
        goal: FloatArray,
        normal: FloatArray,
        stiffness: float,
        trust: float,
        options: RegistrationOptions,
    ) -> None:
        """One Gauss-Newton step towards matches: point `index` (M,) of the skin belongs at goal (M, 3)."""
        r = skin.moved()[index] - goal
        w = np.sqrt(_trust(r, trust) / len(index))
        # A residual counts in full along the normal: (sqrt(s) I + (1 - sqrt(s)) n n^T) r.
        s = np.sqrt(options.sideways)
        P = w[:, None, None] * (s * np.eye(3) + (1 - s) * normal[:, :, None] * normal[:, None, :])
        J, K = skin.jacobian(), _weights(P)
        data = sparse.coo_array(K).tocsr() @ J[(3 * index[:, None] + np.arange(3)).reshape(-1)]

        arm = np.einsum("eab,eb->ea", self.R[self.i], self.nodes[self.j] - self.nodes[self.i])
        bent = arm + self.nodes[self.i] + self.t[self.i] - self.nodes[self.j] - self.t[self.j]
        v = np.sqrt(stiffness * _trust(bent, options.tear) / len(self.i))
        ties = _rows(
            len(self.i),
            len(self.nodes),
            [(self.i, -skew(arm), np.ones(len(arm))), (self.j, None, -np.ones(len(arm)))],
        )
        ties = sparse.diags_array(np.repeat(v, 3)) @ ties
        A = (data.T @ data + ties.T @ ties + 1e-8 * sparse.eye_array(6 * len(self.nodes))).tocsc()
        b = data.T @ np.einsum("mab,mb->ma", P, r).reshape(-1) + ties.T @ (
            v[:, None] * bent
        ).reshape(-1)
        delta = -spsolve(A, b).reshape(-1, 6)
        self.R = exp_so3(delta[:, :3]) @ self.R
        self.t = self.t + delta[:, 3:]


@dataclass(frozen=True, eq=False)
class _Skin:
    """Points (P, 3) and the nodes (P, K) they hang on, with weights (P, K)."""

    graph: _Graph
    points: FloatArray
    node: Ints
    weight: FloatArray

    def moved(self) -> FloatArray:
        """Where the points are now, (P, 3)."""
        g = self.graph
        return np.einsum("pk,pka->pa", self.weight, self._arms() + (g.nodes + g.t)[self.node])

    def jacobian(self) -> sparse.csr_array:
        """(3 P, 6 nodes) with respect to a turn (rad, world axes) and a shift of every node."""
        arms = self._arms()
        blocks = [
            (self.node[:, k], -skew(arms[:, k]), self.weight[:, k])
            for k in range(self.node.shape[1])
        ]
        return _rows(len(self.points), len(self.graph.nodes), blocks)

    def _arms(self) -> FloatArray:
        return np.einsum(
            "pkab,pkb->pka",
            self.graph.R[self.node],
            self.points[:, None] - self.graph.nodes[self.node],
        )


def _rows(
    count: int, nodes: int, blocks: Sequence[tuple[Ints, FloatArray | None, FloatArray]]
) -> sparse.csr_array:
    """(3 count, 6 nodes): in row block r, for each (node, turn, weight), weight * [turn | identity] at node[r]."""
    row = 3 * np.arange(count)[:, None, None] + np.arange(3)[:, None]
    rows, columns, values = [], [], []
    for node, turn, weight in blocks:
        block = np.zeros((count, 3, 6))
        if turn is not None:
            block[..., :3] = turn
        block[..., 3:] = np.eye(3)
        rows.append(np.broadcast_to(row, block.shape).reshape(-1))
        columns.append(
            np.broadcast_to(6 * node[:, None, None] + np.arange(6), block.shape).reshape(-1)
        )
        values.append((weight[:, None, None] * block).reshape(-1))
    shape = (3 * count, 6 * nodes)
    index = np.concatenate(rows), np.concatenate(columns)
    return sparse.coo_array((np.concatenate(values), index), shape).tocsr()


def _weights(P: FloatArray) -> sparse.coo_array:
    """Block diagonal (3 M, 3 M) of P (M, 3, 3)."""
    row = 3 * np.arange(len(P))[:, None, None] + np.arange(3)[:, None]
    column = 3 * np.arange(len(P))[:, None, None] + np.arange(3)
    index = tuple(np.broadcast_to(a, P.shape).reshape(-1) for a in (row, column))
    return sparse.coo_array((P.reshape(-1), index), (3 * len(P),) * 2)


def _trust(residual: FloatArray, scale: float) -> FloatArray:
    return (1 + (residual**2).sum(-1) / scale**2) ** -2


def _normals(points: FloatArray, neighbours: int = 10) -> FloatArray:
    """Unit normals (P, 3), of either sign, of the planes through each point's neighbours."""
    near = points[cKDTree(points).query(points, np.arange(1, min(neighbours, len(points)) + 1))[1]]
    spread = near - near.mean(1, keepdims=True)
    return np.linalg.eigh(np.swapaxes(spread, 1, 2) @ spread)[1][..., 0]
