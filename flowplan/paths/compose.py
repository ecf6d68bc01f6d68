"""Assembly of a trajectory from its phases, each from rest to rest.

approach -> grip (the arm holds still while the fingers close) -> manipulate -> release -> retreat

A plan that ends holding ends with the manipulation: it has no release and no retreat.
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
    """One phase, with the gripper openings (m) at its start and end."""

    phase: Phase
    timed: TimedPath
    openings: tuple[float, float]


def compose(
    robot: Robot,
    contact: ContactCandidates,
    into: FloatArray,
    along: TimedPath,
    out: FloatArray | None,
    *,
    clock: TimingOptions,
    dwell: float,
    tracking_error: tuple[FloatArray, FloatArray],
) -> Trajectory:
    """One trajectory of all phases.

    Args:
        robot: Joint limits for the paths to and from the contact.
        contact: The contact that is made (one candidate).
        into: (M, J) path to the contact.
        along: The timed manipulation.
        out: (M, J) path away from it, or None to end holding.
        clock: Sampling step and shares of the limits.
        dwell: Seconds to close the gripper, and to open it; a push does not wait.
        tracking_error: Position (m) and rotation (rad) errors (T,) at the waypoints of `along`.

    Returns:
        Trajectory with zeros for the clearance, which is not measured yet.
    """
    # The pieces, each starting one sample after the end of the piece before.
    wide, closed = float(contact.width[0]), 0.0
    wait = 2 * clock.dt if contact.kind[0] == "push" else dwell
    pieces = [
        _Piece(Phase.APPROACH, retime(into, robot, clock), (wide, wide)),
        _Piece(Phase.GRIP, _hold(along.q[0], wait, clock.dt), (wide, closed)),
        _Piece(Phase.MANIPULATE, along, (closed, closed)),
    ]
    if out is not None:
        pieces += [
            _Piece(Phase.RELEASE, _hold(along.q[-1], wait, clock.dt), (closed, wide)),
            _Piece(Phase.RETREAT, retime(out, robot, clock), (wide, wide)),
        ]
    durations = [p.timed.times[-1] + clock.dt for p in pieces]
    starts = np.cumsum([0.0, *durations[:-1]])
    lengths = [len(p.timed.times) for p in pieces]
    phase = np.repeat([p.phase for p in pieces], lengths)

    # Errors at the samples of the manipulation, zero elsewhere.
    during = phase == Phase.MANIPULATE

    def at_samples(values: FloatArray) -> FloatArray:
        sampled = np.zeros(len(phase))
        sampled[during] = np.interp(along.waypoint, np.arange(len(values)), values)
        return sampled

    position_error, rotation_error = tracking_error
    times = [start + p.timed.times for start, p in zip(starts, pieces, strict=True)]
    openings = [np.linspace(*p.openings, n) for p, n in zip(pieces, lengths, strict=True)]
    return Trajectory(
        joint_names=robot.joint_names,
        times=np.concatenate(times),
        q=np.concatenate([p.timed.q for p in pieces]),
        qd=np.concatenate([p.timed.qd for p in pieces]),
        qdd=np.concatenate([p.timed.qdd for p in pieces]),
        grip=np.concatenate(openings),
        phase=phase,
        position_error=at_samples(position_error),
        rotation_error=at_samples(rotation_error),
        clearance=np.zeros(len(phase)),
    )


def _hold(q: FloatArray, seconds: float, dt: float) -> TimedPath:
    """The arm at rest at q (J,)."""
    samples = max(2, round(seconds / dt))
    still = np.zeros((samples, len(q)))
    return TimedPath(
        times=np.arange(samples) * np.float64(dt),
        q=still + q,
        qd=still,
        qdd=still,
        waypoint=np.zeros(samples),
        factor=1.0,
    )
