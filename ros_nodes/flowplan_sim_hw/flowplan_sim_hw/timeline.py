"""Interpolation of an accepted trajectory.

Between two waypoints every joint follows the polynomial of the lowest degree that meets what both
of them state: a line for positions, a cubic with velocities, a quintic with accelerations. With h
the time between them and u in [0, 1] the share of it that has passed,

    q(u) = sum_k c_k u^k,    q(0), q(1) = positions,    q'(0), q'(1) = h velocities,    q''(0),
    q''(1) = h^2 accelerations

One more waypoint precedes the first: the arm's state at the start of the trajectory. A first
waypoint at time zero makes the target jump.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowplan.utils.checks import FloatArray
from flowplan_sim_hw.trajectory_goal import Waypoint

# Coefficients c_0, c_1, ... of u from the values at both ends, in the order position, velocity,
# acceleration at 0, then at 1, times powers of h: the inverses of the equations above.
_LINEAR = np.linalg.inv([[1, 0], [1, 1]])
_CUBIC = np.linalg.inv([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 2, 3]])
_QUINTIC = np.linalg.inv(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 2, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [0, 1, 2, 3, 4, 5],
        [0, 0, 2, 6, 12, 20],
    ]
)


@dataclass(frozen=True, eq=False)
class JointState:
    """Positions, velocities and accelerations, (J,) each."""

    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray


@dataclass(frozen=True, eq=False)
class Sample:
    """State of a timeline at one time.

    Attributes:
        state: state of the J joints.
        following: index of the next waypoint; their number after the last.
        since: seconds since the last waypoint; before the first one, negative seconds to it.
    """

    state: JointState
    following: int
    since: float


class Timeline:
    """Trajectory under way.

    Attributes:
        start: time of its start, seconds of the controller's clock.
    """

    def __init__(
        self,
        now: float,
        before: Waypoint,
        waypoints: Sequence[Waypoint],
        start: float | None,
        *,
        splines: bool = True,
    ) -> None:
        """Start to follow waypoints.

        Args:
            now: current time, seconds.
            before: current state of the joints; its time is ignored.
            waypoints: waypoints of all J joints, in the controller's order.
            start: time of the waypoints' zero. Defaults to now.
            splines: interpolate; otherwise the target jumps to each waypoint.
        """
        self.start = now if start is None else start
        self._splines = splines
        first = waypoints[0]
        J = len(before.positions)
        # The initial state states what the first waypoint states, or the first piece would be of a
        # lower degree.
        velocities = (
            before.velocities
            if len(before.velocities) or not len(first.velocities)
            else np.zeros(J)
        )
        accelerations = np.zeros(J if len(first.accelerations) else 0)
        begin = Waypoint(now - self.start, before.positions, velocities, accelerations)
        self._points = _integrated([begin, *waypoints])
        self._times = [point.time for point in waypoints]

    @property
    def last(self) -> Waypoint:
        """The last waypoint."""
        return self._points[-1]

    def at(self, time: float) -> Sample:
        """State at `time`, not before the `now` of the start."""
        t = time - self.start
        # Waypoints on both sides of t.
        following = bisect_right(self._times, t)
        since = t - self._times[max(following - 1, 0)]
        if following == len(self._times):
            return Sample(_state(self.last), following, since)
        # One more point than times: the initial state comes first.
        a, b = self._points[following], self._points[following + 1]
        if self._splines:
            return Sample(between(a, b, t), following, since)
        return Sample(_state(b if following else a), following, since)


def between(a: Waypoint, b: Waypoint, t: float) -> JointState:
    """State at time t between waypoints a and b, which state positions."""
    # Values at both ends in units of u, by the highest degree that both state.
    h = b.time - a.time
    ends = [a.positions, b.positions]
    inverse = _LINEAR
    if len(a.velocities) and len(b.velocities):
        ends = [a.positions, h * a.velocities, b.positions, h * b.velocities]
        inverse = _CUBIC
        if len(a.accelerations) and len(b.accelerations):
            ends = [*ends[:2], h * h * a.accelerations, *ends[2:], h * h * b.accelerations]
            inverse = _QUINTIC
    # Polynomial coefficients, and the derivatives of their powers of u.
    c = inverse @ np.stack(ends)  # (degree + 1, J)
    u, k = (t - a.time) / h, np.arange(len(c))
    velocity = k[1:] * u ** (k[1:] - 1) @ c[1:] / h
    acceleration = k[2:] * (k[2:] - 1) * u ** (k[2:] - 2) @ c[2:] / h**2
    return JointState(u**k @ c, velocity, acceleration)


def _state(point: Waypoint) -> JointState:
    zeros = np.zeros(len(point.positions))
    return JointState(
        point.positions,
        point.velocities if len(point.velocities) else zeros,
        point.accelerations if len(point.accelerations) else zeros,
    )


def _integrated(points: Sequence[Waypoint]) -> list[Waypoint]:
    """Missing positions from velocities, and those from accelerations, by the trapezoidal rule."""
    done = [points[0]]
    J = len(points[0].positions)
    for point in points[1:]:
        last, positions, velocities = done[-1], point.positions, point.velocities
        h = max(point.time - last.time, 0.0)
        if not len(positions):
            was = last.velocities if len(last.velocities) else np.zeros(J)
            if not len(velocities):
                pushed = last.accelerations if len(last.accelerations) else np.zeros(J)
                velocities = was + 0.5 * h * (pushed + point.accelerations)
            positions = last.positions + 0.5 * h * (was + velocities)
        done.append(Waypoint(point.time, positions, velocities, point.accelerations))
    return done
