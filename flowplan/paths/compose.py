"""The five phases of touching something, one after another, each from rest to rest.

approach -> grip (the arm holds still while the fingers close) -> manipulate -> release -> retreat
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.grasp import ContactCandidates
from flowplan.paths.time_parameterization import TimedPath, TimingOptions, retime
from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class _Piece:
    """One phase, and the finger opening at its start and end."""

    phase: int
    timed: TimedPath
    grip: tuple[float, float]


def compose(
    robot: Robot,
    contact: ContactCandidates,
    into: FloatArray,
    along: TimedPath,
    out: FloatArray,
    *,
    clock: TimingOptions,
    dwell: float,
    position_error: FloatArray,
    rotation_error: FloatArray,
) -> Trajectory:
    """One trajectory of all phases.

    Args:
        robot: whose limits time the ways in and out.
        contact: the contact that is made (one).
        into: (M, J) path to the contact.
        along: the timed manipulation.
        out: (M, J) path away from it.
        clock: sampling and shares of the limits.
        dwell: seconds that a grasp takes to close, and to open; a push does not wait.
        position_error, rotation_error: (T,) at the waypoints of `along`, m and rad.

    Returns:
        Trajectory whose clearance is not measured yet (zero).
    """
    wide, closed = float(contact.width[0]), 0.0
    wait = 2 * clock.dt if contact.kind[0] == "push" else dwell
    pieces = (
        _Piece(Phase.APPROACH, retime(into, robot, clock), (wide, wide)),
        _Piece(Phase.GRIP, _still(along.q[0], wait, clock.dt), (wide, closed)),
        _Piece(Phase.MANIPULATE, along, (closed, closed)),
        _Piece(Phase.RELEASE, _still(along.q[-1], wait, clock.dt), (closed, wide)),
        _Piece(Phase.RETREAT, retime(out, robot, clock), (wide, wide)),
    )
    lengths = [len(p.timed.times) for p in pieces]
    starts = np.cumsum([0.0, *[p.timed.times[-1] + clock.dt for p in pieces[:-1]]])
    phase = np.repeat([p.phase for p in pieces], lengths)
    during = phase == Phase.MANIPULATE
    frames = np.arange(len(position_error))

    def at_samples(values: FloatArray) -> FloatArray:
        out = np.zeros(len(phase))
        out[during] = np.interp(along.waypoint, frames, values)
        return out

    return Trajectory(
        joint_names=robot.joint_names,
        times=np.concatenate([s + p.timed.times for s, p in zip(starts, pieces, strict=True)]),
        q=np.concatenate([p.timed.q for p in pieces]),
        qd=np.concatenate([p.timed.qd for p in pieces]),
        qdd=np.concatenate([p.timed.qdd for p in pieces]),
        grip=np.concatenate(
            [np.linspace(*p.grip, n) for p, n in zip(pieces, lengths, strict=True)]
        ),
        phase=phase,
        position_error=at_samples(position_error),
        rotation_error=at_samples(rotation_error),
        clearance=np.zeros(len(phase)),
    )


def _still(q: FloatArray, seconds: float, dt: float) -> TimedPath:
    samples = max(2, round(seconds / dt))
    zero = np.zeros((samples, len(q)))
    return TimedPath(
        np.arange(samples) * np.float64(dt), zero + q, zero, zero, np.zeros(samples), 1.0
    )
