"""Seams between rigid parts, moved to where the parts come apart least.

Where a motion bends about a joint, several parts explain a vertex about equally well, and a cut
through the nearest of them may lie far from the joint. Labels minimize

    sum_v r_v(label) + w sum_(v, u) |X_a p - X_b p|,

the distance of each vertex from the motion of its part, and over the edges between two parts a and
b the distance by which their motions separate the edge's middle p. Two labels at a time are solved
exactly by a minimum cut (Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph
cuts", PAMI 2001: the swap move).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from flowplan.geometry import transform
from flowplan.motion_quality.grouping import RigidParts
from flowplan.utils.checks import FloatArray

_WEIGHT = 6.0
"""Weight w of an edge that comes apart, in vertices that are as far off."""
_UNIT = 1e-5
"""Meters of one unit of flow: capacities are integers."""
_MOST = 1.0
"""Meters at which a cost is cut off."""
_FRAMES = 7
"""Frames at which distances are measured."""
_MOST_VERTICES = 50_000
"""Number of vertices of an object above which its labels are kept as they are."""


def settle_seams(parts: RigidParts, vertices: FloatArray, edges: NDArray[np.int64]) -> RigidParts:
    """Parts with seams where they come apart least.

    Args:
        parts: Rigid parts.
        vertices: (T, V, 3) meters.
        edges: (E, 2) of the mesh.
    """
    count = len(parts.X_world)
    if count < 2 or vertices.shape[1] > _MOST_VERTICES:
        return parts
    # Distances (P, V) from the motions of all parts.
    distance = np.stack(
        [
            np.linalg.norm(transform(X, vertices[0]) - vertices, axis=-1).max(axis=0)
            for X in parts.X_world
        ]
    )
    frames = np.unique(np.linspace(0, len(vertices) - 1, _FRAMES).round().astype(int))
    middle = vertices[0, edges].mean(axis=1)  # (E, 3)
    label = np.array(parts.label)
    for a, b in combinations(range(count), 2):
        X_a, X_b = parts.X_world[a, frames], parts.X_world[b, frames]
        apart = np.linalg.norm(transform(X_a, middle) - transform(X_b, middle), axis=-1)
        label = _swap(label, (a, b), distance, edges, _WEIGHT * apart.max(axis=0))
    return RigidParts(label, parts.X_world, distance[label, np.arange(len(label))])


def _swap(
    label: NDArray[np.int64],
    pair: tuple[int, int],
    distance: FloatArray,
    edges: NDArray[np.int64],
    apart: FloatArray,
) -> NDArray[np.int64]:
    """Labels (V,) with those of a pair of parts chosen anew, by a minimum cut."""
    a, b = pair
    nodes = np.flatnonzero((label == a) | (label == b))
    index = np.full(len(label), -1)
    index[nodes] = np.arange(len(nodes))
    inner = (index[edges] >= 0).all(axis=1)
    if not inner.any():
        return label

    # Cutting source from vertex costs what label b costs, vertex from sink what label a costs.
    n, source, sink = len(nodes), len(nodes), len(nodes) + 1
    own = np.arange(n)
    u, v = index[edges[inner]].T
    rows = np.concatenate([np.full(n, source), own, u, v])
    columns = np.concatenate([own, np.full(n, sink), v, u])
    cost = np.concatenate([distance[b, nodes], distance[a, nodes], apart[inner], apart[inner]])
    capacity = np.round(np.minimum(cost, _MOST) / _UNIT).astype(np.int32)
    graph = csr_matrix((capacity, (rows, columns)), shape=(n + 2, n + 2))
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    reached = breadth_first_order(left, source, return_predecessors=False)

    of_a = np.zeros(n + 2, bool)
    of_a[reached] = True
    out = label.copy()
    out[nodes] = np.where(of_a[:n], a, b)
    return out
