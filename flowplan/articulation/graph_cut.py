"""Labels of the nodes of a graph that cost least: alpha-expansion by minimum cuts.

Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", PAMI 2001. Each
move lets every node keep its label or take the label alpha; the best such move is a minimum cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from flowplan.utils.checks import FloatArray

Ints = NDArray[np.int64]
_STEPS = 1e8
"""Capacities are whole numbers: their sum over all nodes is at most this."""


def expand(data: FloatArray, edges: Ints, border: FloatArray, label: Ints, sweeps: int = 2) -> Ints:
    """Labels (N,) of low cost sum data[n, label[n]] + sum border[e] over edges between labels.

    Args:
        data: (N, K) cost of each label at each node.
        edges: (E, 2) pairs of nodes.
        border: (E,) cost of different labels at the ends of an edge.
        label: (N,) labels to begin with.
        sweeps: Rounds over all labels; fewer if nothing changes.
    """
    label = label.copy()
    for _ in range(sweeps):
        before = label.copy()
        for alpha in range(data.shape[1]):
            label = _move(data, edges, border, label, alpha)
        if (label == before).all():
            break
    return label


def total(data: FloatArray, edges: Ints, border: FloatArray, label: Ints) -> float:
    """Cost of labels (N,)."""
    differ = label[edges[:, 0]] != label[edges[:, 1]]
    return float(data[np.arange(len(label)), label].sum() + border[differ].sum())


def _move(data: FloatArray, edges: Ints, border: FloatArray, label: Ints, alpha: int) -> Ints:
    """The best labels in which nodes keep their label (x = 0) or take alpha (x = 1)."""
    count = len(label)
    p, q = edges.T
    # Costs of an edge for (x_p, x_q): 00, 01, 10; 11 costs nothing.
    keep = border * (label[p] != label[q])
    take_q = border * (label[p] != alpha)
    take_p = border * (label[q] != alpha)
    # E = unary x_p + unary x_q + pair (1 - x_p) x_q: Kolmogorov and Zabih, PAMI 2004.
    unary = data[:, alpha] - data[np.arange(count), label]
    unary = unary + np.bincount(p, take_p - keep, count) - np.bincount(q, take_p, count)
    pair = take_q + take_p - keep

    scale = _STEPS / max(float(np.abs(unary).sum()), 1e-300)
    cost = np.round(scale * unary).astype(np.int64)
    pair_steps = np.minimum(np.round(scale * pair), _STEPS).astype(np.int64)
    source, sink = count, count + 1
    up, down = np.flatnonzero(cost > 0), np.flatnonzero(cost < 0)
    if not len(down):
        return label  # nothing gains by alpha
    rows = np.concatenate([np.full(len(up), source), down, p])
    columns = np.concatenate([up, np.full(len(down), sink), q])
    capacity = np.concatenate([cost[up], -cost[down], pair_steps])
    graph = sparse.csr_matrix(
        (capacity.astype(np.int32), (rows, columns)), shape=(count + 2, count + 2)
    )
    flow = csgraph.maximum_flow(graph, source, sink).flow
    # What the source still reaches keeps its label.
    left = graph - flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reached = csgraph.breadth_first_order(left, source, return_predecessors=False)
    takes = np.ones(count + 2, bool)
    takes[reached] = False
    # Nodes that neither side reaches may do either: they keep their label if that is no worse.
    return np.where(takes[:count], alpha, label)
