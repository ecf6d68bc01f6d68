"""The few rigid bodies that explain the motion of a surface best.

Isack and Boykov, "Energy-based geometric multi-model fitting" (IJCV 2012), with the label costs of
Delong et al., "Fast approximate energy minimization with label costs" (IJCV 2012): motions are
proposed by patches of neighbors, every patch of the surface takes one of them so that

    sum area (log s + log(1 + r^2 / 2 s^2)) + sum border length x border cost + cost of the bodies

is least, the motions are fitted again, and so on. Standing still is always one of the motions. Each
body has a tolerance s of its own, the one that describes its distances r best: millimeters for a
true motion, centimeters for one that a network bends. A body of its own must be worth it: cutting a
bent part in two halves what is left over, cutting at a joint divides it many times.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from flowplan.articulation.graph_cut import expand, total
from flowplan.articulation.options import ArticulationOptions
from flowplan.articulation.surface_graph import Ints, surface_graph
from flowplan.geometry import fit_rigid, transform
from flowplan.utils.checks import FloatArray

_EVIDENCE = 200.0
"""Independent observations that a whole surface is worth: neighbors err alike."""
_BODY = 5.0
"""Cost of one more body, nats."""
_SHARPER = 4.0
"""Times by which a body of its own must divide what is left over on its surface."""
_MOVES, _DRAGGED = 1.5, 6.0
"""The same for a body that would stand still otherwise: if it moves, or if it moves so little that
it may be dragged along by another."""
_LITTLE = 0.3
"""Share of the largest way below which a body may be dragged along."""
_LADDER = 14
"""Number of tolerances to choose from."""
_SEEDS = 32
"""Patches of neighbors that propose motions."""
_PROPOSING = 1500
"""Vertices that proposals are made and judged on."""
_ROUNDS = 3
"""Rounds of labeling and fitting."""


@dataclass(frozen=True, eq=False)
class RigidBodies:
    """Bodies of one object; body 0 stands still if any does.

    Attributes:
        body: (F,) body of each face.
        X_world: (B, T, 4, 4) motion of each from its place at t = 0.
        residual: (V,) RMS over time of the distance of a vertex from its body's motion, meters.
        still: True if body 0 stands still.
        tolerance: (B,) meters; typical distance of a body's surface from its motion.
    """

    body: Ints
    X_world: FloatArray
    residual: FloatArray
    still: bool
    tolerance: FloatArray


@dataclass(frozen=True, eq=False)
class _Motion:
    """Motion X (T', 4, 4) of a body, and its tolerance in meters."""

    X: FloatArray
    tolerance: float


class _Search:
    """A surface in motion, and the costs of motions on it."""

    def __init__(
        self, vertices: FloatArray, faces: Ints, frames: Ints, options: ArticulationOptions
    ) -> None:
        self.options = options
        self.graph = surface_graph(vertices[0], faces, options.faces, options.crease)
        self.start, self.seen = vertices[0], vertices[frames]
        # Sums over patches of costs at vertices: each corner has a third of its face's area.
        count = int(self.graph.patch.max()) + 1
        third = np.repeat(self.graph.area / 3, 3)
        rows = np.repeat(self.graph.patch, 3)
        self.gather = sparse.csr_matrix(
            (third, (rows, faces.ravel())), shape=(count, len(self.start))
        )
        self.weight = np.asarray(self.gather.sum(axis=0)).ravel()  # (V,) m^2
        self.patch_area = np.asarray(self.gather.sum(axis=1)).ravel()  # (N,) m^2
        self.area = max(float(self.weight.sum()), 1e-300)
        self.size = max(float(np.ptp(self.start, axis=0).max()), 1e-300)
        self.border = (
            _EVIDENCE * options.border * self.size / self.area * self.graph.length * self.graph.cost
        )
        away = np.linalg.norm(self.seen - self.start, axis=-1).max(axis=0)
        self.way = float(np.quantile(away[self.weight > 0], 0.98))
        self.ladder = np.geomspace(options.noise, max(self.way, 2 * options.noise), _LADDER)

    def sampled(self, most: int) -> _Search:
        """The search on some of the vertices, with their areas; its patches are not sampled."""
        some = np.flatnonzero(self.weight > 0)
        if len(some) <= most:
            return self
        some = some[np.linspace(0, len(some) - 1, most).astype(int)]
        out = copy(self)
        out.start, out.seen, out.weight = self.start[some], self.seen[:, some], self.weight[some]
        out.area = float(out.weight.sum())
        return out

    def squared(self, X: FloatArray) -> FloatArray:
        """Mean square over time (V,) of the distance from a motion (T', 4, 4), m^2."""
        left = transform(X, self.start) - self.seen
        out: FloatArray = (left**2).sum(axis=-1).mean(axis=0)
        return out

    def fit(self, weight: FloatArray, X: FloatArray, tolerance: float) -> FloatArray:
        """Motion (T', 4, 4) of vertices by weight (V,), those that leave X (T', 4, 4) less."""
        weight = weight / (1 + self.squared(X) / (2 * tolerance**2))
        some = weight > 1e-9 * weight.max()
        return fit_rigid(self.start[some], self.seen[:, some], weight[some])

    def tolerance(self, weight: FloatArray, squared: FloatArray) -> float:
        """The tolerance that describes squared distances (V,) by weight (V,) in fewest nats."""
        some = weight > 0
        cost = _nats(squared[some, None], self.ladder) + np.log(self.ladder)
        return float(self.ladder[np.argmin(weight[some] @ cost)])

    def data(self, motions: list[_Motion]) -> FloatArray:
        """Cost (N, K) of motions on patches, nats; the first one is standing still."""
        return np.stack([self.column(m, moves=k > 0) for k, m in enumerate(motions)], axis=1)

    def column(self, motion: _Motion, *, moves: bool) -> FloatArray:
        """Cost (N,) of one motion on patches, nats."""
        cost = self.vertex_cost(motion) + self.options.stillness * moves
        out: FloatArray = self.gather @ cost * (_EVIDENCE / self.area)
        return out

    def vertex_cost(self, motion: _Motion) -> FloatArray:
        """Nats (V,) of a motion at each vertex, beyond those of a rigid motion's noise."""
        nats = _nats(self.squared(motion.X), motion.tolerance)
        out: FloatArray = nats + np.log(motion.tolerance / self.options.noise)
        return out

    @property
    def identity(self) -> FloatArray:
        """Standing still (T', 4, 4)."""
        return np.broadcast_to(np.eye(4), (len(self.seen), 4, 4))


def _nats(squared: FloatArray, tolerance: FloatArray | float) -> FloatArray:
    """Cost of squared distances, m^2: Cauchy's density, whose tails forgive outliers."""
    out: FloatArray = np.log1p(squared / (2 * np.square(tolerance)))
    return out


def rigid_bodies(
    vertices: FloatArray, faces: Ints, options: ArticulationOptions | None = None
) -> RigidBodies:
    """Group the faces of an object by rigid motion.

    Args:
        vertices: (T, V, 3) meters.
        faces: (F, 3).
        options: Number of bodies, tolerances, cost of borders.
    """
    options = options or ArticulationOptions()
    last = len(vertices) - 1
    frames = np.unique(np.linspace(0, last, options.frames + 1).round().astype(int))[1:]
    search = _Search(vertices, faces, frames, options)
    label = np.zeros(int(search.graph.patch.max()) + 1, np.int64)
    motions = [_Motion(search.identity, options.noise)]
    if search.way > options.noise:
        label, motions = _bodies(search)
    return _on_all_frames(search, label, motions, vertices, faces)


def _bodies(search: _Search) -> tuple[Ints, list[_Motion]]:
    """Label (N,) of each patch, and the motions; the first is standing still."""
    motions = [_Motion(search.identity, search.options.noise), *_proposals(search)]
    edges, border = search.graph.edges, search.border
    data = search.data(motions)
    label = data.argmin(axis=1)
    for _ in range(_ROUNDS):
        before = label
        label = expand(data, edges, border, label)
        motions = [_fitted(search, k, label == k, m) for k, m in enumerate(motions)]
        label, motions = _fewer(search, label, motions)
        data = search.data(motions)
        if (before == label).all():
            break
    label = expand(data, edges, border, label)
    return _without_islands(search, label, len(motions)), motions


def _fitted(search: _Search, k: int, members: NDArray[np.bool_], motion: _Motion) -> _Motion:
    """The motion of body k fitted to its patches (N,); body 0 stands still."""
    if not members.any():
        return motion
    weight = _members(search, members)
    X = motion.X if k == 0 else search.fit(weight, motion.X, motion.tolerance)
    return _Motion(X, search.tolerance(weight, search.squared(X)))


def _fewer(search: _Search, label: Ints, motions: list[_Motion]) -> tuple[Ints, list[_Motion]]:
    """Labels and motions without the bodies that are not worth their cost."""
    motions = list(motions)
    used = [0, *(k for k in range(1, len(motions)) if (label == k).any())]
    label, motions = np.searchsorted(used, label), [motions[k] for k in used]
    edges, border = search.graph.edges, search.border
    share = search.patch_area / search.area
    data = search.data(motions)
    while len(motions) > 1:
        now = total(data, edges, border, label)
        best: tuple[float, Ints, list[_Motion], FloatArray] | None = None
        for k in range(1, len(motions)):
            # One body of two, with the motion and tolerance that suit it best.
            for into in (i for i in range(len(motions)) if i != k):
                joined = np.where(label == k, into, label)
                motion = _fitted(search, into, joined == into, motions[into])
                changed = data.copy()
                changed[:, into] = search.column(motion, moves=into > 0)
                sharper = _SHARPER if into else _sharper(search, motions[k])
                worth = _BODY + _EVIDENCE * share[label == k].sum() * np.log(sharper)
                loss = float(total(changed, edges, border, joined) - now - worth)
                if best is None or loss < best[0]:
                    merged = [motion if i == into else m for i, m in enumerate(motions)]
                    del merged[k]
                    best = loss, joined - (joined > k), merged, np.delete(changed, k, axis=1)
        assert best is not None
        if best[0] > 0 and len(motions) <= search.options.parts:
            break
        _, label, motions, data = best
    return label, motions


def _sharper(search: _Search, motion: _Motion) -> float:
    """Times by which a motion must leave less over than standing still."""
    gone = transform(motion.X, search.start) - search.start
    inside = search.squared(motion.X) <= (3 * motion.tolerance) ** 2
    away = np.linalg.norm(gone[:, inside], axis=-1)
    return _MOVES if away.max(initial=0.0) > _LITTLE * search.way else _DRAGGED


def _proposals(search: _Search) -> list[_Motion]:
    """Motions that patches of neighbors and the whole suggest, the most useful first.

    Greedily the motion that lowers the cost of the whole surface most, until none is worth a body.
    """
    small = search.sampled(_PROPOSING)
    noise = search.options.noise
    tolerances = np.geomspace(noise, max(search.ladder[-1] / 2, 2 * noise), 3)
    whole = small.fit(small.weight, small.identity, small.way)
    proposed = [_Motion(whole, float(t)) for t in tolerances]
    for members in _neighborhoods(small):
        weight = np.zeros(len(small.start))
        weight[members] = small.weight[members] + 1e-12
        first = small.fit(weight, small.identity, 1e3 * small.way)
        for tolerance in tolerances:
            # Fit to all that follow.
            X = first
            for _ in range(2):
                follows = small.squared(X) < (3 * tolerance) ** 2
                X = small.fit(small.weight * follows + 1e-6 * weight, X, tolerance)
            proposed.append(_Motion(X, float(tolerance)))
    costs = np.stack([small.vertex_cost(m) for m in proposed])  # (M, V)
    costs += small.options.stillness
    squared = small.squared(small.identity)
    least = _nats(squared, small.options.noise)
    chosen = []
    for _ in range(small.options.parts + 2):
        gain = (np.maximum(least - costs, 0.0) @ small.weight) * (_EVIDENCE / small.area)
        k = int(gain.argmax())
        if gain[k] < _BODY:
            break
        chosen.append(proposed[k])
        least = np.minimum(least, costs[k])
    return chosen


def _neighborhoods(search: _Search) -> list[Ints]:
    """Vertices of patches that lie together and move alike, spread over place and motion."""
    some = np.flatnonzero(search.weight > 0)
    gone = search.seen[[len(search.seen) // 2, -1]] - search.start  # (2, V, 3)
    place = search.start[some] / search.size
    features = np.concatenate([place, *(gone[:, some] / search.way)], axis=1)  # (S, 9)
    # Farthest points in place and motion.
    distance = np.linalg.norm(features - features.mean(axis=0), axis=-1)
    seeds = []
    for _ in range(min(_SEEDS, len(some))):
        seed = int(distance.argmax())
        seeds.append(seed)
        distance = np.minimum(distance, np.linalg.norm(features - features[seed], axis=-1))
    count = min(max(12, len(some) // 50), len(some))
    near = cKDTree(features).query(features[seeds], count)[1].reshape(len(seeds), -1)
    return [some[n] for n in near]


def _members(search: _Search, chosen: NDArray[np.bool_]) -> FloatArray:
    """Area (V,) at each vertex of the chosen patches (N,)."""
    out: FloatArray = search.gather.T @ chosen.astype(float)
    return out


def _without_islands(search: _Search, label: Ints, count: int) -> Ints:
    """Labels in which connected patches of one body too small to be one join their neighbors."""
    edges = search.graph.edges
    nodes = len(label)
    for _ in range(3):
        inside = label[edges[:, 0]] == label[edges[:, 1]]
        graph = sparse.csr_matrix((inside, edges.T), shape=(nodes, nodes))
        graph.eliminate_zeros()
        _, island = csgraph.connected_components(graph, directed=False)
        area = np.bincount(island, search.patch_area)
        small = area < search.options.smallest * search.area
        # Length of the border of each small island with each body.
        a, b = edges[~inside].T
        length = search.graph.length[~inside]
        shared = np.zeros((len(area), count))
        np.add.at(shared, (island[a], label[b]), length)
        np.add.at(shared, (island[b], label[a]), length)
        joins = small & shared.any(axis=1)
        if not joins.any():
            break
        label = np.where(joins[island], shared.argmax(axis=1)[island], label)
    return label


def _on_all_frames(
    search: _Search, label: Ints, motions: list[_Motion], vertices: FloatArray, faces: Ints
) -> RigidBodies:
    """Bodies with their motions in every frame."""
    used = np.unique(label)
    X_world = np.broadcast_to(np.eye(4), (len(used), len(vertices), 4, 4)).copy()
    squares, tolerance = [], []
    for i, k in enumerate(used):
        weight = _members(search, label == k)
        if k:
            # Vertices that leave the motion count less, in every frame alike.
            left = search.squared(motions[k].X)
            robust = weight / (1 + left / (2 * motions[k].tolerance ** 2))
            some = robust > 1e-9 * robust.max()
            X_world[i] = fit_rigid(vertices[0, some], vertices[:, some], robust[some])
        away = transform(X_world[i], vertices[0]) - vertices
        squares.append((away**2).sum(axis=-1).mean(axis=0))
        tolerance.append(search.tolerance(weight, squares[-1]))
    body = np.searchsorted(used, label)[search.graph.patch]
    # A vertex between bodies is measured against the one that it follows best.
    touches = np.zeros((len(used), vertices.shape[1]), bool)
    for corner in faces.T:
        touches[body, corner] = True
    touches[:, ~touches.any(axis=0)] = True
    residual = np.sqrt(np.where(touches, np.stack(squares), np.inf).min(axis=0))
    return RigidBodies(body, X_world, residual, bool(used[0] == 0), np.array(tolerance))
