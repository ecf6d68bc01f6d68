"""Time parameterization: closed forms, limits by finite differences, the path kept, bad input."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowplan.paths.time_parameterization import TimedPath, TimingOptions, follow, retime


@dataclass(frozen=True)
class Limits:
    velocity: np.ndarray = field(default_factory=lambda: np.full(3, 2.0))
    acceleration: np.ndarray = field(default_factory=lambda: np.full(3, 10.0))
    jerk: np.ndarray = field(default_factory=lambda: np.full(3, 200.0))


def one_joint(velocity: float, acceleration: float, jerk: float = 1e9) -> Limits:
    return Limits(np.array([velocity]), np.array([acceleration]), np.array([jerk]))


def curve(count: int, scale: float = 1.0) -> np.ndarray:
    u = np.linspace(0, 1, count)
    return scale * np.stack([np.sin(3 * u), np.cos(2 * u), u**2], 1)


def shares(timed: TimedPath, limits: Limits, dt: float) -> list[float]:
    """Largest share used of each limit, by finite differences, at rest before and after."""
    q = np.concatenate([timed.q[:1].repeat(3, 0), timed.q, timed.q[-1:].repeat(3, 0)])
    bounds = (limits.velocity, limits.acceleration, limits.jerk)
    return [
        float(np.abs(np.diff(q, n + 1, axis=0) / dt ** (n + 1) / b).max())
        for n, b in enumerate(bounds)
    ]


def assert_lawful(timed: TimedPath, limits: Limits, dt: float = 0.01) -> None:
    assert max(shares(timed, limits, dt)) <= 1 + 1e-9
    assert np.abs(timed.qd / limits.velocity).max() <= 1 + 1e-9
    assert np.abs(timed.qdd / limits.acceleration).max() <= 1 + 1e-9
    np.testing.assert_allclose(np.diff(timed.times), dt, rtol=1e-9)
    for ends in (timed.qd[[0, -1]], timed.qdd[[0, -1]]):
        np.testing.assert_allclose(ends, 0, atol=1e-6)
    # Derivatives belong to the positions, within the error of the trapezoidal rule.
    for values, rate, bound in (
        (timed.q, timed.qd, limits.acceleration),
        (timed.qd, timed.qdd, limits.jerk),
    ):
        error = np.diff(values, axis=0) / dt - 0.5 * (rate[1:] + rate[:-1])
        assert (np.abs(error) / (0.25 * bound * dt + 1e-6)).max() <= 1 + 1e-6
    assert np.all(np.diff(timed.waypoint) >= 0)


@pytest.mark.parametrize(
    ("distance", "velocity", "acceleration"),
    [(0.1, 2.0, 4.0), (0.5, 2.0, 4.0), (5.0, 2.0, 4.0), (3.0, 1.0, 20.0)],
)
def test_one_joint_is_bang_bang(distance, velocity, acceleration):
    # Closed form: 2 sqrt(D/a) while the peak stays below v, else D/v + v/a.
    if distance * acceleration < velocity**2:
        truth = 2 * np.sqrt(distance / acceleration)
    else:
        truth = distance / velocity + velocity / acceleration
    limits = one_joint(velocity, acceleration)
    timed = retime([[0.0], [distance]], limits)
    assert_lawful(timed, limits)
    assert (
        truth - 1e-9 <= timed.times[-1] <= truth + 0.035
    )  # two samples of smoothing and one of rounding up


def test_one_joint_with_a_jerk_limit_is_near_its_closed_form():
    # Peak acceleration unreached: T = (32 D / j)^(1/3); no feasible motion is faster.
    limits = one_joint(10.0, 50.0, 40.0)
    timed = retime([[0.0], [0.5]], limits)
    truth = np.cbrt(32 * 0.5 / 40.0)
    assert_lawful(timed, limits)
    assert truth <= timed.times[-1] <= 1.3 * truth


@pytest.mark.parametrize("count", [2, 3, 5, 41, 161])
@pytest.mark.parametrize("jerk", [50.0, 500.0, 1e6])
def test_retime_meets_every_limit_and_keeps_the_path(count, jerk):
    limits = Limits(jerk=np.full(3, jerk))
    q = curve(count)
    timed = retime(q, limits)
    assert_lawful(timed, limits)
    np.testing.assert_allclose(timed.q[[0, -1]], q[[0, -1]], atol=1e-9)
    if count >= 41:  # enough waypoints for the truth of the curve to lie within the spline's error
        u = np.linspace(0, 1, 4001)
        truth = np.stack([np.sin(3 * u), np.cos(2 * u), u**2], 1)
        nearest = np.linalg.norm(timed.q[:, None] - truth[None], axis=-1).min(1)
        assert nearest.max() < 5e-4


def test_retime_uses_what_the_limits_allow():
    limits = Limits(jerk=np.full(3, 1e6))
    assert max(shares(retime(curve(41), limits), limits, 0.01)[:2]) > 0.97


def test_retime_scales_with_time():
    # Twice the velocity, four times the acceleration, eight times the jerk: the same motion in
    # half the time.
    slow, fast = Limits(), Limits(np.full(3, 4.0), np.full(3, 40.0), np.full(3, 1600.0))
    a, b = (
        retime(curve(41), slow, TimingOptions(dt=0.02)),
        retime(curve(41), fast, TimingOptions(dt=0.01)),
    )
    assert len(a.q) == len(b.q)
    np.testing.assert_allclose(a.q, b.q, atol=1e-6)


def test_shares_of_the_limits():
    limits = Limits()
    options = TimingOptions(velocity=0.5, acceleration=0.25, jerk=0.125)
    v, a, j = shares(retime(curve(41), limits, options), limits, 0.01)
    assert v <= 0.5 + 1e-9
    assert a <= 0.25 + 1e-9
    assert j <= 0.125 + 1e-9


def test_a_path_the_solver_loses_is_still_timed(monkeypatch):
    import toppra.algorithm

    monkeypatch.setattr(
        toppra.algorithm.TOPPRA, "compute_parameterization", lambda *_: (None, None, None)
    )
    limits = Limits()
    timed = retime(curve(41), limits)
    assert_lawful(timed, limits)
    np.testing.assert_allclose(timed.q[-1], curve(41)[-1], atol=1e-9)


def test_follow_keeps_the_clock_of_a_flow_that_fits():
    # Minimum jerk from rest to rest: only the shortest acceleration phase is added, and the middle
    # keeps the flow's clock.
    times = np.linspace(0, 3, 61)
    u = times / 3
    q = (10 * u**3 - 15 * u**4 + 6 * u**5)[:, None] * np.array([1.0, -0.5, 0.2])
    limits = Limits()
    timed = follow(times, q, limits)
    assert_lawful(timed, limits)
    assert timed.factor == pytest.approx(1.0, abs=0.01)
    assert timed.times[-1] < 3.05
    flow_time = np.interp(timed.waypoint, np.arange(61), times)
    inner = (timed.times > 0.1) & (timed.times < 2.9)
    delay = timed.times[inner] - flow_time[inner] * timed.factor
    np.testing.assert_allclose(delay, delay[0], atol=1e-6)


@pytest.mark.parametrize(("slope", "factor"), [(1.0, 1.0), (4.0, 2.0), (8.0, 4.0)])
def test_follow_slows_uniformly_by_the_least_factor(slope, factor):
    # Constant velocity: the middle must take slope / limit times longer, the ends a short
    # acceleration phase each.
    limits = one_joint(2.0, 100.0, 1e6)
    timed = follow(np.linspace(0, 2, 21), slope * np.linspace(0, 2, 21)[:, None], limits)
    assert_lawful(timed, limits)
    assert timed.factor == pytest.approx(factor, rel=0.03)
    rate = np.diff(np.interp(timed.waypoint, np.arange(21), np.linspace(0, 2, 21))) / 0.01
    np.testing.assert_allclose(rate[60:-60], 1 / timed.factor, rtol=1e-6)


def test_follow_passes_the_waypoints():
    times = np.linspace(0, 2, 41)
    timed = follow(times, curve(41), Limits())
    at = np.stack([np.interp(np.arange(41), timed.waypoint, timed.q[:, j]) for j in range(3)], 1)
    np.testing.assert_allclose(at, curve(41), atol=1e-3)


@pytest.mark.parametrize("repeat", [1, 3])
def test_repeated_waypoints_count_once(repeat):
    q = curve(21)
    plain, doubled = retime(q, Limits()), retime(q.repeat(repeat, axis=0), Limits())
    np.testing.assert_allclose(plain.q, doubled.q, atol=1e-12)
    assert doubled.waypoint[-1] == 21 * repeat - 1


def test_nothing_to_do():
    one = retime(curve(1), Limits())
    still = retime(np.zeros((5, 3)), Limits())
    held = follow(np.linspace(0, 1.5, 4), np.ones((4, 3)), Limits())
    for timed in (one, still, held, follow([0.0], curve(1), Limits())):
        assert len(timed.times) >= 2
        assert timed.times[0] == 0
        assert not timed.qd.any()
        assert not timed.qdd.any()
    assert held.times[-1] == pytest.approx(1.5)
    assert still.waypoint[-1] == 4
    assert held.waypoint[-1] == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(1e-6, 3.0), st.floats(30.0, 1e4))
def test_any_path_is_timed_within_its_limits(seed, count, scale, jerk):
    rng = np.random.default_rng(seed)
    q = np.cumsum(rng.normal(scale=scale, size=(count, 2)) * (rng.random((count, 1)) < 0.8), axis=0)
    limits = Limits(np.array([2.0, 0.3]), np.array([10.0, 2.0]), np.array([jerk, jerk / 4]))
    for timed in (retime(q, limits), follow(np.arange(count) * 0.1, q, limits)):
        assert_lawful(timed, limits)
        np.testing.assert_allclose(timed.q[[0, -1]], q[[0, -1]], atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retime(np.zeros((4, 2)), Limits()), "robot.velocity"),
        (lambda: retime([[0.0, np.nan, 0.0]], Limits()), "q: 1 of 3 values are not finite"),
        (
            lambda: retime(curve(3), Limits(jerk=np.zeros(3))),
            "robot.jerk: expected positive limits",
        ),
        (lambda: follow([0.0, 1.0], curve(3), Limits()), "times: expected 3 values"),
        (lambda: follow([0.0, 1.0, 0.5], curve(3), Limits()), "strictly increasing"),
        (lambda: TimingOptions(velocity=1.5), "TimingOptions.velocity: expected 0.01 to 1"),
        (lambda: TimingOptions(dt=0.0), "TimingOptions.dt"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        call()
