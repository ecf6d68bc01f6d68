"""Paths of handles to their targets, for instructions that give the targets alone.

Three handles or more that one rigid motion takes to their targets are assumed to be on one body,
and follow that motion's screw: the path of every point of a hinged, sliding or screwed part
(Chasles 1830). Otherwise each goes straight, and the object's own constraints bend the path. Both
in minimum jerk, from rest to rest.
"""

from __future__ import annotations

import numpy as np

from flowplan.geometry import exp_se3, fit_rigid, log_se3, transform
from flowplan.utils.checks import FloatArray
from generators.kinematic import minimum_jerk

_MISFIT = 0.1  # largest error of a rigid motion, as a share of the handles' travel
_FLATNESS = 0.05  # second over first extent of handles that count as collinear


def handle_paths(handles: FloatArray, targets: FloatArray, fraction: FloatArray) -> FloatArray:
    """Positions (T, H, 3) of handles on their way, in the unit of the arguments.

    Args:
        handles: (H, 3) at the start.
        targets: (H, 3) at the end.
        fraction: (T,) fractions of the time, in [0, 1].
    """
    s = minimum_jerk(fraction)[:, None, None]
    X = _rigid(handles, targets)
    if X is None:
        return handles + s * (targets - handles)
    along = transform(exp_se3(s[:, 0] * log_se3(X)), handles)
    # The little that is not rigid, evenly.
    return along + s * (targets - transform(X, handles))


def on_one_body(handles: FloatArray, targets: FloatArray) -> bool:
    """True if one rigid motion takes the handles (H, 3) to their targets (H, 3)."""
    return _rigid(handles, targets) is not None


def _rigid(handles: FloatArray, targets: FloatArray) -> FloatArray | None:
    """Rigid motion (4, 4) of the handles; None if it is not unique or does not fit."""
    if len(handles) < 3:
        return None
    # A rotation about a line of handles would be unobservable.
    extent = np.linalg.svd(handles - handles.mean(0), compute_uv=False)
    if extent[1] <= _FLATNESS * extent[0]:
        return None
    X = fit_rigid(handles, targets)
    error = np.linalg.norm(transform(X, handles) - targets)
    return X if error <= _MISFIT * np.linalg.norm(targets - handles) else None
