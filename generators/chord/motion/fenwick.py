"""The Fenwick tree over frames: a motion as sums of few nodes, each shared by a range of frames (CHORD, eq. 10-11).

Node j holds what happens over frames (j - lowbit(j), j], lowbit(j) the largest power of two that divides j; frame t is
the sum over t, t - lowbit(t), ... down to 0 (Fenwick, 1994). Frame 0 is the sum of nothing: it cannot move.

There are as many nodes as moving frames, so any motion can be written, in one way: the tree does not smooth. What it
changes is how a gradient acts. A step on node 8 moves frames 8 to 15 together, so late frames need not be found each
by itself, far from the rest shape.
"""

from __future__ import annotations

import numpy as np

from flowplan.utils.checks import FloatArray


def query_matrix(frames: int) -> FloatArray:
    """Which nodes add up to which frame: (T, T-1), entry [t, j-1] is 1 where node j counts for frame t, else 0."""
    _require_frames(frames)
    out = np.zeros((frames, frames - 1))
    for t in range(1, frames):
        j = t
        while j > 0:
            out[t, j - 1] = 1
            j -= _lowbit(j)
    return out


def node_matrix(frames: int) -> FloatArray:
    """What a node must be for given frames: (T-1, T), row j-1 is frame j less frame j - lowbit(j).

    It inverts `query_matrix` for motions whose frame 0 is zero.
    """
    _require_frames(frames)
    out = np.zeros((frames - 1, frames))
    for j in range(1, frames):
        out[j - 1, j] = 1
        out[j - 1, j - _lowbit(j)] = -1
    return out


def _lowbit(j: int) -> int:
    return j & -j


def _require_frames(frames: int) -> None:
    if frames < 2:
        raise ValueError(f"frames: expected at least 2, got {frames}; the first one does not move")
