"""Time parameterization of joint paths: timed motions from rest to rest within joint limits.

The path is a C2 spline through the waypoints, q(s), composed with a clock s(t), so its shape in
joint space never changes:

    qd = q'(s) sd,    qdd = q''(s) sd^2 + q'(s) sdd

`retime` takes the fastest clock within velocity and acceleration limits (toppra: Pham and Pham, "A
new approach to time-optimal path parameterization based on reachability analysis", T-RO 2018).
`follow` takes the flow's own clock. Neither bounds jerk, and a flow need not start at rest.

The clock is therefore smoothed by a moving average of width w (FIR smoothing: Biagiotti and
Melchiorri, RCIM 2012). This makes sd and sdd start and end at zero and bounds the third derivative
by 2 max|sdd| / w, at the cost of w seconds. Time is then stretched uniformly by the least factor k
that meets all limits. Derivatives fall with k, k^2 and k^3, so k is closed-form for each w, and the
w with the shortest total duration is chosen. The result is measured once more on the samples as
executed (finite differences, at rest before and after).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline, PPoly

_WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Candidate widths of the moving average, in sampling steps."""
_STATIONARY = 1e-9
"""Seconds at full speed; a path that is shorter than this stands still."""
_ONE_WAYPOINT = 1e-7
"""Seconds at full speed; waypoints closer than this are one, because a spline through both would
swing far out to match their directions."""


class Limits(Protocol):
    """Joint limits (J,) of a robot: velocity, acceleration and jerk in rad/s, rad/s^2, rad/s^3."""

    @property
    def velocity(self) -> FloatArray: ...
    @property
    def acceleration(self) -> FloatArray: ...
    @property
    def jerk(self) -> FloatArray: ...


@dataclass(frozen=True)
class TimingOptions:
    """Sampling step, and shares of the robot's joint limits."""

    dt: Annotated[float, Interval(1e-3, 0.1)] = 0.01
    """Seconds between samples of the result."""
    velocity: Annotated[float, Interval(0.01, 1)] = 1.0
    """Share of the joint velocity limits to use."""
    acceleration: Annotated[float, Interval(0.01, 1)] = 1.0
    """Share of the joint acceleration limits to use."""
    jerk: Annotated[float, Interval(0.01, 1)] = 1.0
    """Share of the joint jerk limits to use."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class TimedPath:
    """Joint motion from rest to rest, sampled at a fixed step.

    Attributes:
        times: (S,) seconds, times[0] = 0, S >= 2.
        q, qd, qdd: (S, J) positions, velocities and accelerations, rad or m, and per s, s^2.
        waypoint: (S,) fractional waypoint index of each sample, non-decreasing from 0 to M - 1.
        factor: Stretch of time. For `follow`, seconds per second of the flow; for `retime`,
            relative to the time-optimal clock without jerk limits (1 if nothing moves).
    """

    times: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray
    waypoint: FloatArray
    factor: float


class _JointLimits(NamedTuple):
    """Limits (J,) after their shares."""

    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray


class _Samples(NamedTuple):
    """Samples of a timed path: parameter s (S,), and q, qd, qdd (S, J)."""

    s: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray


def retime(q: ArrayLike, robot: Limits, options: TimingOptions = TimingOptions()) -> TimedPath:
    """Fastest motion along a path within joint velocity, acceleration and jerk limits.

    Args:
        q: (M, J) waypoints, interpolated in order by a cubic spline; sample a path densely where it
            bends. Repeated waypoints count once.
        robot: Joint limits.
        options: Sampling step and shares of the limits.

    Raises:
        ValueError: If `q` or the limits have the wrong shape or values.
    """
    from scipy.interpolate import CubicSpline

    q = checks.array("q", q, ("M", "J"), hint="a path has one row per waypoint")
    limits = _scaled_limits(robot, options, q.shape[1])

    # Path parameter: seconds at full speed, without repeated waypoints.
    step = np.abs(np.diff(q, axis=0) / limits.velocity).max(1, initial=0.0)
    keep = np.concatenate([[True], step > _ONE_WAYPOINT])
    if keep.sum() < 2:
        return _hold(q[[0, 0]], options.dt, options.dt, len(q))
    s = np.concatenate([[0.0], np.cumsum(step[keep[1:]])])
    knots = q[keep]
    if not keep[-1] and step[-1] > _STATIONARY:
        knots[-1] = q[-1]  # the path ends where it was asked to
    path = CubicSpline(s, knots)

    # The time-optimal clock, smoothed by each of the widths.
    fastest = _fastest_clock(s, knots, limits)
    longest = max(fastest.x[-1], 0.1)
    widths = [n * options.dt for n in _WIDTHS if n * options.dt <= longest]
    clocks = [_average(fastest, width) for width in widths]

    # Waypoint of each knot; the end is the last of any repeated waypoints.
    index = np.flatnonzero(keep).astype(float)
    index[-1] = len(q) - 1
    timed = _fit(path, clocks, limits, options.dt, least=0.0, index=index)
    return replace(timed, factor=float(timed.times[-1] / fastest.x[-1]))


def follow(
    times: ArrayLike, q: ArrayLike, robot: Limits, options: TimingOptions = TimingOptions()
) -> TimedPath:
    """The flow's own timing, slowed down uniformly by the least factor that meets the limits.

    If the flow starts or ends in motion, the clock accelerates from rest and decelerates to rest in
    the shortest way within the limits. In between it is the flow's, `factor` times slower and
    delayed by half an acceleration phase.

    Args:
        times: (M,) seconds of the waypoints, times[0] = 0; M = 1 is allowed.
        q: (M, J) joint positions at those times, interpolated by a cubic spline.
        robot: Joint limits.
        options: Sampling step and shares of the limits.

    Raises:
        ValueError: If `times`, `q` or the limits have the wrong shape or values.
    """
    from scipy.interpolate import CubicSpline

    q = checks.array("q", q, ("M", "J"), hint="a path has one row per waypoint")
    limits = _scaled_limits(robot, options, q.shape[1])
    if len(q) == 1:
        return _hold(q[[0, 0]], options.dt, options.dt, 1)
    s = checks.times("times", times)
    if len(s) != len(q):
        raise ValueError(
            f"times: expected {len(q)} values, one a waypoint of q, got {len(s)}; "
            "give both equally long"
        )
    step = np.abs(np.diff(q, axis=0) / limits.velocity)
    if step.max() <= _STATIONARY:
        return _hold(q[[0, -1]], s[-1], options.dt, len(q))

    # A unit-rate clock with each of the acceleration times, smoothed over half of that time.
    half = s[-1] / 2
    ramps = [n * options.dt for n in _WIDTHS if n * options.dt <= half] or [half]
    clocks = [_average(_trapezoidal_clock(s[-1], ramp), ramp / 2) for ramp in ramps]
    keep = _apart(s, step.max(1))
    index = np.flatnonzero(keep).astype(float)
    path = CubicSpline(s[keep], q[keep])
    return _fit(path, clocks, limits, options.dt, least=1.0, index=index)


def _apart(s: FloatArray, step: FloatArray) -> NDArray[np.bool_]:
    """Waypoints (M,) to keep of those at times s (M,): one of any that are close in time and place.

    Args:
        s: Seconds.
        step: (M - 1,) seconds at full speed from each waypoint to the next.
    """
    close = (np.diff(s) < _ONE_WAYPOINT) & (step < _ONE_WAYPOINT)
    keep = np.concatenate([[True], ~close])
    if not keep[-1]:  # the end stays, and the start
        keep[np.flatnonzero(keep[1:])[-1:] + 1] = False
        keep[-1] = True
    return keep


def _scaled_limits(robot: Limits, options: TimingOptions, joints: int) -> _JointLimits:
    """The robot's limits times the shares of the options."""
    hint = "one limit per column of q"
    out = []
    for name in _JointLimits._fields:
        limit = checks.array(f"robot.{name}", getattr(robot, name), (joints,), hint=hint)
        if limit.min() <= 0:
            raise ValueError(
                f"robot.{name}: expected positive limits, got {limit.min():g}; "
                "correct the robot file"
            )
        out.append(limit * getattr(options, name))
    return _JointLimits(*out)


def _hold(q: FloatArray, duration: float, dt: float, waypoints: int) -> TimedPath:
    """A path that stands still, up to a negligible difference of its two ends q (2, J)."""
    count = max(int(np.ceil(duration / dt - 1e-6)), 1) + 1
    still = np.zeros((count, q.shape[1]))
    return TimedPath(
        times=dt * np.arange(count, dtype=float),
        q=np.linspace(q[0], q[1], count),
        qd=still,
        qdd=still.copy(),
        waypoint=np.linspace(0, waypoints - 1, count),
        factor=1.0,
    )


def _fastest_clock(s: FloatArray, q: FloatArray, limits: _JointLimits) -> PPoly:
    """Time-optimal s(t) under velocity and acceleration limits, piecewise quadratic."""
    from scipy.interpolate import PPoly
    from toppra import SplineInterpolator
    from toppra.algorithm import TOPPRA
    from toppra.constraint import JointAccelerationConstraint, JointVelocityConstraint

    velocity = np.stack([-limits.velocity, limits.velocity], 1)  # (J, 2)
    acceleration = np.stack([-limits.acceleration, limits.acceleration], 1)
    constraints = [JointVelocityConstraint(velocity), JointAccelerationConstraint(acceleration)]
    problem = TOPPRA(constraints, SplineInterpolator(s, q))
    rate = problem.compute_parameterization(0.0, 0.0)[1]
    grid = problem.gridpoints
    if rate is None or not np.isfinite(rate).all() or (rate[1:] + rate[:-1]).min() <= 0:
        # The solver can lose a path to round-off; a uniform clock is slower, and always exists.
        return _trapezoidal_clock(s[-1], s[-1] / 2)

    # Constant acceleration sdd on each grid interval: sd^2 grows linearly with s.
    step = 2 * np.diff(grid) / (rate[1:] + rate[:-1])
    half_acceleration = (rate[1:] ** 2 - rate[:-1] ** 2) / (4 * np.diff(grid))
    times = np.concatenate([[0.0], np.cumsum(step)])
    return PPoly(np.stack([half_acceleration, rate[:-1], grid[:-1]]), times)


def _trapezoidal_clock(duration: float, ramp: float) -> PPoly:
    """s(t) from 0 to `duration` at unit rate, with `ramp` seconds of acceleration at both ends."""
    from scipy.interpolate import PPoly

    coefficients = [
        [0.5 / ramp, 0.0, -0.5 / ramp],
        [0.0, 1.0, 1.0],
        [0.0, ramp / 2, duration - ramp / 2],
    ]
    breaks = [0.0, ramp, duration, duration + ramp]
    return PPoly(np.array(coefficients), np.array(breaks))


@dataclass(frozen=True)
class _Averaged:
    """A clock s(t) after a moving average, from 0 to `duration` seconds."""

    clock: PPoly
    integral: PPoly
    rate: PPoly
    width: float
    duration: float

    def __call__(self, t: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """s, sd and sdd (S,) at times t (S,)."""
        # The derivatives of an average are differences over its window.
        window = np.stack([t, t - self.width])
        s, sd, sdd = (f(window) for f in (self.integral, self.clock, self.rate))
        return (
            (s[0] - s[1]) / self.width,
            (sd[0] - sd[1]) / self.width,
            (sdd[0] - sdd[1]) / self.width,
        )


def _average(clock: PPoly, width: float) -> _Averaged:
    """`clock` averaged over the last `width` seconds; constant before 0 and after its end."""
    from scipy.interpolate import PPoly

    # Two widths of rest at either end, so that round-off in t never leaves the breaks.
    before = np.zeros((len(clock.c), 1))
    after = before.copy()
    after[-1] = float(clock(clock.x[-1]))
    breaks = np.concatenate([[-2 * width], clock.x, [clock.x[-1] + 2 * width]])
    padded = PPoly(np.concatenate([before, clock.c, after], axis=1), breaks)
    return _Averaged(
        clock=padded,
        integral=padded.antiderivative(),
        rate=padded.derivative(),
        width=width,
        duration=float(clock.x[-1]) + width,
    )


def _fit(
    path: CubicSpline,
    clocks: list[_Averaged],
    limits: _JointLimits,
    dt: float,
    *,
    least: float,
    index: FloatArray,
) -> TimedPath:
    """The clock and its stretch k >= `least` that end soonest within the limits.

    Args:
        path: q(s).
        clocks: Candidates, by increasing width.
        limits: Joint limits.
        dt: Seconds between samples.
        least: Lower bound of k.
        index: Waypoint at each knot of the path.

    Returns:
        The sampled motion, with k as its factor.
    """
    spline = (path, path.derivative(), path.derivative(2))

    # Shortest total duration over the widths, ended once wider averages only take longer.
    best, clock, k = np.inf, clocks[0], 1.0
    for candidate in clocks:
        needed = _required_stretch(_sample(spline, candidate, 1.0, dt), limits, dt)
        stretch = max(least, needed)
        if stretch * candidate.duration < best:
            best, clock, k = stretch * candidate.duration, candidate, stretch
        if candidate.duration * least > best or best < 0.8 * stretch * candidate.duration:
            break

    # Stretch until the samples as executed are within the limits. The end falls on a sample: the
    # last step is as long as the others.
    while True:
        steps = max(int(np.ceil(k * clock.duration / dt - 1e-9)), 1)
        k = steps * dt / clock.duration
        samples = _sample(spline, clock, k, dt)
        excess = _required_stretch(samples, limits, dt)
        if excess <= 1.0:
            break
        k *= max(excess, 1 + 1e-6)
    waypoint = np.maximum.accumulate(np.interp(samples.s, path.x, index))
    times = dt * np.arange(len(samples.q), dtype=float)
    return TimedPath(times, samples.q, samples.qd, samples.qdd, waypoint, k)


def _sample(
    spline: tuple[CubicSpline, PPoly, PPoly], clock: _Averaged, k: float, dt: float
) -> _Samples:
    """Samples of the path along the clock stretched by k."""
    position, slope, curvature = spline
    steps = max(int(np.ceil(k * clock.duration / dt - 1e-9)), 1)
    t = np.minimum(np.arange(steps + 1) * dt / k, clock.duration)
    s, sd, sdd = clock(t)
    s = np.clip(s, position.x[0], position.x[-1])
    # Chain rule, with the clock's derivatives divided by k and k^2.
    sd, sdd = sd[:, None] / k, sdd[:, None] / k**2
    dq = slope(s)  # (S, J)
    return _Samples(s, position(s), dq * sd, curvature(s) * sd**2 + dq * sdd)


def _required_stretch(samples: _Samples, limits: _JointLimits, dt: float) -> float:
    """Uniform stretch of time that just meets the limits; below 1 if they leave room."""
    _, q, qd, qdd = samples
    # Finite differences of the executed positions, at rest before and after.
    held = np.concatenate([q[:1].repeat(3, 0), q, q[-1:].repeat(3, 0)])
    d1, d2, d3 = (np.diff(held, n, axis=0) / dt**n for n in (1, 2, 3))
    # The mean of two rates may differ from the step between them by dt / 4 of the next derivative
    # (trapezoidal rule). Any excess is a peak between samples that the differences would miss.
    peak2 = (np.diff(q, axis=0) / dt - 0.5 * (qd[1:] + qd[:-1])) * (4 / dt)
    peak3 = (np.diff(qd, axis=0) / dt - 0.5 * (qdd[1:] + qdd[:-1])) * (4 / dt)
    # Largest share of each limit; a stretch of k divides them by k, k^2 and k^3.
    v = max(np.abs(x / limits.velocity).max() for x in (qd, d1))
    a = max(np.abs(x / limits.acceleration).max() for x in (qdd, d2, peak2))
    j = max(np.abs(x / limits.jerk).max() for x in (d3, peak3))
    return float(max(v, np.sqrt(a), np.cbrt(j)))
