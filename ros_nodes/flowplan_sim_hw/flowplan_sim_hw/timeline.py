"""What an accepted trajectory says at a time.

Between two waypoints every joint follows the polynomial of the lowest degree that meets what both of them state:
positions alone a line, velocities too a cubic, accelerations too a quintic. With h the time between them and u in
[0, 1] the share of it that has passed,

    q(u) = sum_k c_k u^k,    q(0), q(1) = positions,    q'(0), q'(1) = h velocities,    q''(0), q''(1) = h^2 accelerations

Before the first waypoint there is one more: where the arm was when the trajectory began to be followed. A first
waypoint at time zero leaves it no time, and the target jumps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowplan.utils.checks import FloatArray
from flowplan_sim_hw.trajectory_goal import Waypoint

# Coefficients c_0, c_1, ... of u from what the two ends state, in the order position, velocity, acceleration at 0, then
# at 1, times powers of h: the inverses of the equations above.
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
    """Positions, velocities and accelerations (J,) each."""

    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray


@dataclass(frozen=True, eq=False)
class Sample:
    """What a timeline says at a time.

    Attributes:
        state: of the J joints.
        following: index of the waypoint that comes next; their number when all have passed.
        since: seconds since the last waypoint that has passed; negative, to the first one, before it.
    """

    state: JointState
    following: int
    since: float


class Timeline:
    """A trajectory that is being followed.

    Attributes:
        start: time of its beginning, seconds of the controller's clock.
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
        """Begin to follow waypoints.

        Args:
            now: seconds.
            before: where the joints are now; its time is not read.
            waypoints: for all J joints, in the controller's order.
            start: time of the waypoints' zero; None for now.
            splines: interpolate; otherwise the target jumps to each waypoint in turn.
        """
        self.start = now if start is None else start
        self._splines = splines
        first = waypoints[0]
        J = len(before.positions)
        # What the first waypoint states the state before it states too, or the first piece would be of a lower degree.
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
        """What holds at `time`, which is not before `now` of the beginning."""
        t = time - self.start
        following = bisect_right(self._times, t)
        since = t - self._times[max(following - 1, 0)]
        if following == len(self._times):
            return Sample(_state(self.last), following, since)
        a, b = (
            self._points[following],
            self._points[following + 1],
        )  # _points has the state before them all in front
        if self._splines:
            return Sample(between(a, b, t), following, since)
        return Sample(_state(b if following else a), following, since)


def between(a: Waypoint, b: Waypoint, t: float) -> JointState:
    """The state at time t between waypoints a and b, which state positions."""
    h = b.time - a.time
    ends = [a.positions, b.positions]
    inverse = _LINEAR
    if len(a.velocities) and len(b.velocities):
        ends = [a.positions, h * a.velocities, b.positions, h * b.velocities]
        inverse = _CUBIC
        if len(a.accelerations) and len(b.accelerations):
            ends = [*ends[:2], h * h * a.accelerations, *ends[2:], h * h * b.accelerations]
            inverse = _QUINTIC
    c = inverse @ np.stack(ends)
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
    """Positions that are missing, by the trapezoidal rule from velocities, and those from accelerations."""
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
