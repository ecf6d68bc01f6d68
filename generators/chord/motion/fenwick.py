"""The Fenwick tree over frames: a motion as sums of few nodes, each shared by a range of frames.

CHORD, eq. 10-11. Node j holds the change over frames (j - lowbit(j), j], where lowbit(j) is the
largest power of two that divides j. Frame t is the sum over the nodes t, t - lowbit(t), ... down to
0 (Fenwick, 1994). Frame 0 is the empty sum: it cannot move.

There are as many nodes as moving frames, so every motion has exactly one representation: the tree
does not smooth. It changes how a gradient acts: a step on node 8 moves frames 8 to 15 together, so
late frames need not be found one by one, far from the rest shape.
"""

from __future__ import annotations

import numpy as np

from flowplan.utils.checks import FloatArray


def query_matrix(frames: int) -> FloatArray:
    """Frames from nodes: (T, T-1), entry [t, j-1] is 1 if node j counts for frame t, else 0."""
    _require_frames(frames)
    out = np.zeros((frames, frames - 1))
    for t in range(1, frames):
        j = t
        while j > 0:
            out[t, j - 1] = 1
            j -= _lowbit(j)
    return out


def node_matrix(frames: int) -> FloatArray:
    """Nodes from frames: (T-1, T), row j-1 is frame j minus frame j - lowbit(j).

    The inverse of `query_matrix` for motions whose frame 0 is zero.
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
