"""How handles get to their targets when an instruction gives the targets alone.

Three handles or more that go where one rigid motion takes them are taken to be on one body, and go along that motion's
screw: the path of every point of a hinged, sliding or screwed part (Chasles 1830). Otherwise each goes straight, and
what the object can do bends the path. Either way by minimum jerk, from rest to rest.
"""

from __future__ import annotations

import numpy as np

from flowplan.geometry import exp_se3, fit_rigid, log_se3, transform
from flowplan.utils.checks import FloatArray
from generators.kinematic import minimum_jerk

_MISFIT = 0.1  # of the handles' travel, that a rigid motion may leave of it
_FLATNESS = 0.05  # second over first extent of the handles, below which they are in a line and a turn about it unseen


def handle_paths(handles: FloatArray, targets: FloatArray, fraction: FloatArray) -> FloatArray:
    """Positions (T, H, 3) at fractions (T,) of the time, from handles (H, 3) to targets (H, 3), in their unit."""
    s = minimum_jerk(fraction)[:, None, None]
    X = _rigid(handles, targets)
    if X is None:
        return handles + s * (targets - handles)
    along = transform(exp_se3(s[:, 0] * log_se3(X)), handles)
    return along + s * (targets - transform(X, handles))  # the little that is not rigid, evenly


def on_one_body(handles: FloatArray, targets: FloatArray) -> bool:
    """Whether the handles (H, 3) are taken to be on one body, which one rigid motion takes to its target."""
    return _rigid(handles, targets) is not None


def _rigid(handles: FloatArray, targets: FloatArray) -> FloatArray | None:
    if len(handles) < 3:
        return None
    extent = np.linalg.svd(handles - handles.mean(0), compute_uv=False)
    if extent[1] <= _FLATNESS * extent[0]:
        return None
    X = fit_rigid(handles, targets)
    left = np.linalg.norm(transform(X, handles) - targets)
    return X if left <= _MISFIT * np.linalg.norm(targets - handles) else None
