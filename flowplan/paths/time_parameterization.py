"""When to be where: a joint path, or a joint flow with its own clock, becomes a timed motion from rest to rest.

Both ways compose a C2 spline through the waypoints, q(s), with a clock s(t), so the path in space never changes:

    qd = q'(s) sd,    qdd = q''(s) sd^2 + q'(s) sdd

`retime` takes the fastest clock that velocity and acceleration limits allow (toppra: Pham and Pham, "A new approach to
time-optimal path parameterization based on reachability analysis", T-RO 2018). `follow` takes the flow's own clock.
Neither bounds jerk, and a flow need not start at rest. So the clock passes a moving average of width w (FIR smoothing:
Biagiotti and Melchiorri, RCIM 2012), which makes sd and sdd start and end at zero and bounds the third derivative by
2 max|sdd| / w, at the price of w seconds. Then time is stretched uniformly by the least factor k that meets all of the
limits. Derivatives fall with k, k^2 and k^3, so k is closed-form for each w, and the w with the shortest total wins.
The result is measured once more, on the samples as they will be executed (finite differences, rest before and after).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline, PPoly

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_WIDTHS = (
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
)  # candidate averaging widths, in sampling steps
_STILL = 1e-9  # waypoints closer than this many seconds at full speed are one


class Limits(Protocol):
    """What timing needs of a robot: (J,) rad/s, rad/s^2, rad/s^3."""

    @property
    def velocity(self) -> FloatArray: ...
    @property
    def acceleration(self) -> FloatArray: ...
    @property
    def jerk(self) -> FloatArray: ...


@dataclass(frozen=True)
class TimingOptions:
    """How a path becomes a timed motion."""

    dt: float = 0.01
    """Seconds between samples of the result."""
    velocity: float = 1.0
    """Share of the robot's joint velocity limits to use, in (0, 1]."""
    acceleration: float = 1.0
    """Share of the robot's joint acceleration limits to use, in (0, 1]."""
    jerk: float = 1.0
    """Share of the robot's joint jerk limits to use, in (0, 1]."""

    def __post_init__(self) -> None:
        checks.positive("TimingOptions.dt", self.dt)
        for name in ("velocity", "acceleration", "jerk"):
            if checks.positive(f"TimingOptions.{name}", getattr(self, name)) > 1:
                raise ValueError(
                    f"TimingOptions.{name}: expected a share in (0, 1], got {getattr(self, name):g}"
                )


@dataclass(frozen=True, eq=False)
class TimedPath:
    """A joint motion from rest to rest, sampled at a fixed step.

    Attributes:
        times: (S,) seconds, times[0] = 0, S >= 2.
        q, qd, qdd: (S, J) positions and their derivatives, rad or m, and per s, s^2.
        waypoint: (S,) fractional index of the waypoint each sample is at, non-decreasing from 0 to M - 1.
        factor: how much slower than the clock it was given: flow seconds become `factor` seconds (`follow`), or the
            time-optimal clock without jerk limits is stretched by this much (`retime`; 1 where nothing moves).
    """

    times: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray
    waypoint: FloatArray
    factor: float


def retime(q: ArrayLike, robot: Limits, options: TimingOptions = TimingOptions()) -> TimedPath:
    """The fastest motion along a path that the joint velocity, acceleration and jerk limits allow.

    Args:
        q: (M, J) waypoints, passed exactly and in order by a cubic spline; sample a path densely where it turns.
            Repeated waypoints count once.
        robot: its limits.
        options: sampling step and shares of the limits.
    """
    q = checks.array("q", q, ("M", "J"), hint="a path has one row per waypoint")
    velocity, acceleration, jerk = _limits(robot, options, q.shape[1])
    step = np.abs(np.diff(q, axis=0) / velocity).max(
        1, initial=0.0
    )  # seconds each piece takes at full speed
    keep = np.concatenate([[True], step > _STILL])
    if keep.sum() < 2:
        return _hold(q[[0, 0]], options.dt, options.dt, len(q))
    s = np.concatenate([[0.0], np.cumsum(step[keep[1:]])])
    path = CubicSpline(s, q[keep])
    fastest = _fastest_clock(s, q[keep], velocity, acceleration)
    clocks = [
        _average(fastest, n * options.dt)
        for n in _WIDTHS
        if n * options.dt <= max(fastest.x[-1], 0.1)
    ]
    index = np.flatnonzero(keep).astype(float)
    index[-1] = (
        len(q) - 1
    )  # the last of a run of equal waypoints is as good a name for the end as the first
    timed = _fit(path, clocks, (velocity, acceleration, jerk), options.dt, 0.0, index)
    return replace(timed, factor=float(timed.times[-1] / fastest.x[-1]))


def follow(
    times: ArrayLike, q: ArrayLike, robot: Limits, options: TimingOptions = TimingOptions()
) -> TimedPath:
    """The flow's own timing, slowed uniformly by the least factor that meets the limits.

    Where a flow starts or ends in motion, the clock runs up from rest and down to rest in the shortest way the limits
    allow; between the two it is the flow's, `factor` times slower and delayed by half a run-up.

    Args:
        times: (M,) seconds of the waypoints, times[0] = 0; one waypoint is allowed.
        q: (M, J) joint positions at those times, passed exactly by a cubic spline.
        robot: its limits.
        options: sampling step and shares of the limits.
    """
    q = checks.array("q", q, ("M", "J"), hint="a path has one row per waypoint")
    velocity, acceleration, jerk = _limits(robot, options, q.shape[1])
    if len(q) == 1:
        return _hold(q[[0, 0]], options.dt, options.dt, 1)
    s = checks.times("times", times)
    if len(s) != len(q):
        raise ValueError(
            f"times: expected {len(q)} values, one a waypoint of q, got {len(s)}; give both equally long"
        )
    if np.abs(np.diff(q, axis=0) / velocity).max() <= _STILL:
        return _hold(q[[0, -1]], s[-1], options.dt, len(q))
    runups = [n * options.dt for n in _WIDTHS if n * options.dt <= s[-1] / 2] or [s[-1] / 2]
    clocks = [_average(_runup_clock(s[-1], r), r / 2) for r in runups]
    limits = (velocity, acceleration, jerk)
    return _fit(CubicSpline(s, q), clocks, limits, options.dt, 1.0, np.arange(len(q), dtype=float))


def _limits(
    robot: Limits, options: TimingOptions, joints: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    out = []
    for name in ("velocity", "acceleration", "jerk"):
        limit = checks.array(
            f"robot.{name}", getattr(robot, name), (joints,), hint="one limit per column of q"
        )
        if limit.min() <= 0:
            raise ValueError(
                f"robot.{name}: expected positive limits, got {limit.min():g}; correct the robot file"
            )
        out.append(limit * getattr(options, name))
    return out[0], out[1], out[2]


def _hold(q: FloatArray, duration: float, dt: float, waypoints: int) -> TimedPath:
    count = max(int(np.ceil(duration / dt - 1e-6)), 1) + 1
    waypoint = np.linspace(0, waypoints - 1, count)
    still = np.zeros((count, q.shape[1]))
    return TimedPath(
        dt * np.arange(count, dtype=float),
        np.linspace(q[0], q[1], count),
        still,
        still.copy(),
        waypoint,
        1.0,
    )


def _fastest_clock(
    s: FloatArray, q: FloatArray, velocity: FloatArray, acceleration: FloatArray
) -> PPoly:
    """s(t), piecewise quadratic, of the time-optimal motion under velocity and acceleration limits."""
    from toppra import SplineInterpolator
    from toppra.algorithm import TOPPRA
    from toppra.constraint import JointAccelerationConstraint, JointVelocityConstraint

    limits = [
        JointVelocityConstraint(np.stack([-velocity, velocity], 1)),
        JointAccelerationConstraint(np.stack([-acceleration, acceleration], 1)),
    ]
    problem = TOPPRA(limits, SplineInterpolator(s, q))
    rate = problem.compute_parameterization(0.0, 0.0)[1]
    grid = problem.gridpoints
    if rate is None or not np.isfinite(rate).all() or (rate[1:] + rate[:-1]).min() <= 0:
        # The solver can lose a path to round-off; a uniform clock is slower and always there.
        return _runup_clock(s[-1], s[-1] / 2)
    step = 2 * np.diff(grid) / (rate[1:] + rate[:-1])
    half_accel = (rate[1:] ** 2 - rate[:-1] ** 2) / (4 * np.diff(grid))
    times = np.concatenate([[0.0], np.cumsum(step)])
    return PPoly(np.stack([half_accel, rate[:-1], grid[:-1]]), times)


def _runup_clock(duration: float, runup: float) -> PPoly:
    """s(t) from 0 to `duration`: unit rate, reached at constant acceleration in `runup` seconds and lost likewise."""
    pieces = [
        [0.5 / runup, 0.0, -0.5 / runup],
        [0.0, 1.0, 1.0],
        [0.0, runup / 2, duration - runup / 2],
    ]
    return PPoly(np.array(pieces), np.array([0.0, runup, duration, duration + runup]))


@dataclass(frozen=True)
class _Averaged:
    """A clock s(t) after a moving average: it runs from 0 to `duration` seconds; called, it gives s, sd, sdd."""

    clock: PPoly
    integral: PPoly
    rate: PPoly
    width: float
    duration: float

    def __call__(self, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        pair = np.stack([t, t - self.width])
        s, sd, sdd = (f(pair) for f in (self.integral, self.clock, self.rate))
        return (
            (s[0] - s[1]) / self.width,
            (sd[0] - sd[1]) / self.width,
            (sdd[0] - sdd[1]) / self.width,
        )


def _average(clock: PPoly, width: float) -> _Averaged:
    """`clock` averaged over a window of `width` seconds that trails t; it stands still before 0 and after its end."""
    end = float(clock(clock.x[-1]))
    still = np.zeros((len(clock.c), 1))
    # Two widths of stillness on either side, so that round-off in t never asks for more than there is.
    breaks = np.concatenate([[-2 * width], clock.x, [clock.x[-1] + 2 * width]])
    after = still.copy()
    after[-1] = end
    padded = PPoly(np.concatenate([still, clock.c, after], axis=1), breaks)
    return _Averaged(
        padded, padded.antiderivative(), padded.derivative(), width, float(clock.x[-1]) + width
    )


def _fit(
    path: CubicSpline,
    clocks: list[_Averaged],
    limits: tuple[FloatArray, FloatArray, FloatArray],
    dt: float,
    least: float,
    index: FloatArray,
) -> TimedPath:
    """The clock, and its stretch k >= `least`, that end soonest within the limits; sampled every `dt` seconds.

    `index` names the waypoint at each knot of the path; the factor of the result is k.
    """
    spline = (path, path.derivative(), path.derivative(2))
    best, clock, k = np.inf, clocks[0], 1.0
    for wider in clocks:
        stretch = max(least, _excess(_sample(spline, wider, 1.0, dt), limits, dt))
        if stretch * wider.duration < best:
            best, clock, k = stretch * wider.duration, wider, stretch
        if wider.duration * least > best or best < 0.8 * stretch * wider.duration:
            break  # smoother clocks only take longer
    while True:
        # The end falls on a sample: the last step is as long as the others, at a little less speed.
        steps = max(int(np.ceil(k * clock.duration / dt - 1e-9)), 1)
        k = steps * dt / clock.duration
        s, q, qd, qdd = _sample(spline, clock, k, dt)
        excess = _excess((s, q, qd, qdd), limits, dt)
        if excess <= 1.0:
            break
        k *= max(excess, 1 + 1e-6)
    waypoint = np.maximum.accumulate(np.interp(s, path.x, index))
    return TimedPath(dt * np.arange(len(q), dtype=float), q, qd, qdd, waypoint, k)


def _sample(
    spline: tuple[CubicSpline, PPoly, PPoly], clock: _Averaged, k: float, dt: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Path parameter (S,), positions, velocities and accelerations (S, J) of the clock stretched by k."""
    steps = max(int(np.ceil(k * clock.duration / dt - 1e-9)), 1)
    t = np.minimum(np.arange(steps + 1) * dt / k, clock.duration)
    s, sd, sdd = clock(t)
    s = np.clip(s, spline[0].x[0], spline[0].x[-1])
    sd, sdd = sd[:, None] / k, sdd[:, None] / k**2
    slope = spline[1](s)
    return s, spline[0](s), slope * sd, spline[2](s) * sd**2 + slope * sdd


def _excess(
    sample: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    limits: tuple[FloatArray, FloatArray, FloatArray],
    dt: float,
) -> float:
    """The uniform stretch of time that would bring a sampled motion just within its limits (below 1: room is left)."""
    _, q, qd, qdd = sample
    velocity, acceleration, jerk = limits
    held = np.concatenate(
        [q[:1].repeat(3, 0), q, q[-1:].repeat(3, 0)]
    )  # the arm rests before and after
    d1, d2, d3 = (np.diff(held, n, axis=0) / dt**n for n in (1, 2, 3))
    # How far a mean of two rates may lie from the step between them: dt / 4 of the next derivative (trapezoidal rule).
    # What exceeds that is a peak between two samples, which the differences alone would miss.
    peak2 = (np.diff(q, axis=0) / dt - 0.5 * (qd[1:] + qd[:-1])) * (4 / dt)
    peak3 = (np.diff(qd, axis=0) / dt - 0.5 * (qdd[1:] + qdd[:-1])) * (4 / dt)
    v = max(np.abs(x / velocity).max() for x in (qd, d1))
    a = max(np.abs(x / acceleration).max() for x in (qdd, d2, peak2))
    j = max(np.abs(x / jerk).max() for x in (d3, peak3))
    return float(max(v, np.sqrt(a), np.cbrt(j)))
