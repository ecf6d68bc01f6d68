"""Joint limits of a plan by finite differences of what is executed."""

from __future__ import annotations

import numpy as np

from experiments.certify.oracle.arm import Arm
from experiments.certify.oracle.recording import Floats, Recording

_SHARE = 1e-3
"""Share of a limit below which an excess is round-off."""
_JUMP = 1e-6
"""Radians or meters between the start configuration and the first sample."""


def limit_findings(recording: Recording, arm: Arm) -> list[str]:
    """One line for each kind of limit that a joint or the gripper exceeds."""
    t, q = recording.times, recording.q
    found = []
    arrays = {"times": t, "positions": q, "openings": recording.grip}
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            return [f"{name} are not all finite"]
    if not (np.diff(t) > 0).all():
        return ["times do not increase"]
    if not np.abs(q[0] - recording.start).max() <= _JUMP:
        found.append(f"starts {np.abs(q[0] - recording.start).max():.3g} rad from where the arm is")

    # Positions.
    room = _SHARE * (arm.upper - arm.lower)
    found += _worst("position", np.maximum(q - arm.upper, arm.lower - q), room, t, arm)
    opening = recording.grip
    if not (opening.min() >= -1e-6 and opening.max() <= arm.max_opening + 1e-6):
        found.append(f"opening between {opening.min():.4f} and {opening.max():.4f} m")

    # The arm rests before and after: the first and the last position go on for three steps.
    first, last = t[1] - t[0], t[-1] - t[-2]
    steps = np.arange(1, 4)
    t = np.concatenate([t[0] - first * steps[::-1], t, t[-1] + last * steps])
    values = np.concatenate([np.repeat(q[:1], 3, 0), q, np.repeat(q[-1:], 3, 0)])
    for name, limit in (
        ("velocity", arm.velocity),
        ("acceleration", arm.acceleration),
        ("jerk", arm.jerk),
    ):
        # Slopes between neighbors, which stand at the middles of their intervals.
        values = np.diff(values, axis=0) / np.diff(t)[:, None]
        t = 0.5 * (t[1:] + t[:-1])
        found += _worst(name, np.abs(values) - limit, _SHARE * limit, t, arm)
    return found


def _worst(name: str, excess: Floats, room: Floats, t: Floats, arm: Arm) -> list[str]:
    """The joint that exceeds a limit most, if one does."""
    over = excess - room
    if not over.max() > 0:
        return []
    i, j = np.unravel_index(np.argmax(over), over.shape)
    return [f"{arm.arm_joints[j]} {name} {excess[i, j]:.4g} beyond its limit at {t[i]:.3f} s"]
