"""The simulated gripper controller obeys ros2_control's rules. Clock and fingers are injected;
nothing here is ROS."""

from dataclasses import dataclass

import numpy as np
import pytest
from flowplan_sim_hw.gripper import GripperController, GripperOptions
from flowplan_sim_hw.trajectory_controller import Status

PERIOD = 0.01


@dataclass
class FakeFingers:
    """Move at 0.1 m/s, up to a thing of width `between` and no farther."""

    at: float = 0.08
    between: float = 0.0
    pressed: float = 0.0
    limit: float = 0.0

    def opening(self):
        return self.at

    def effort(self):
        return self.pressed

    def command(self, opening, effort):
        to = max(opening, self.between)
        self.at += float(np.clip(to - self.at, -0.1 * PERIOD, 0.1 * PERIOD))
        self.limit = effort
        self.pressed = effort if opening < self.at else 0.0


class Bench:
    def __init__(self, *, active=True, between=0.0, **options):
        self.now = 5.0
        self.fingers = FakeFingers(between=between)
        self.controller = GripperController(
            self.fingers, lambda: self.now, GripperOptions(**options)
        )
        if active:
            self.controller.activate()

    def update(self, seconds):
        for _ in range(round(seconds / PERIOD)):
            self.controller.update()
            self.now += PERIOD

    def run(self, position, max_effort=0.0, seconds=5.0):
        handle = self.controller.accept(position, max_effort)
        began = self.now
        while handle.status is Status.EXECUTING and self.now - began < seconds:
            self.update(PERIOD)
        return handle


def test_reached():
    handle = Bench().run(0.02)
    assert (handle.status, handle.reached_goal, handle.stalled) == (Status.SUCCEEDED, True, False)
    assert handle.opening == pytest.approx(0.02, abs=0.002)


def test_a_thing_between_the_fingers_stalls_them():
    handle = Bench(between=0.03).run(0.0)
    assert (handle.status, handle.reached_goal, handle.stalled) == (Status.SUCCEEDED, False, True)
    assert handle.opening == pytest.approx(0.03)
    assert handle.effort == 70.0


def test_a_stall_aborts_where_it_is_not_allowed():
    handle = Bench(between=0.03, allow_stalling=False).run(0.0)
    assert (handle.status, handle.reached_goal, handle.stalled) == (Status.ABORTED, False, True)


def test_a_stall_takes_its_time():
    bench = Bench(between=0.03, stall_timeout=0.4)
    bench.run(0.0)
    assert bench.now - 5.0 == pytest.approx(0.5 + 0.4, abs=0.05)


def test_standing_before_a_goal_is_no_stall():
    bench = Bench()
    bench.update(3.0)
    assert bench.run(0.02).reached_goal


def test_a_position_that_cannot_be_reached_stalls():
    bench = Bench()
    assert bench.run(-0.05).stalled


@pytest.mark.parametrize(("asked", "limit"), [(0.0, 70.0), (20.0, 20.0), (500.0, 70.0)])
def test_max_effort(asked, limit):
    bench = Bench(between=0.03)
    bench.run(0.0, asked)
    assert bench.fingers.limit == limit


def test_cancel_holds_the_fingers_where_they_are():
    bench = Bench()
    handle = bench.controller.accept(0.0)
    bench.update(0.3)
    bench.controller.cancel(handle)
    assert handle.status is Status.CANCELED
    at = bench.fingers.at
    bench.update(0.5)
    assert bench.fingers.at == pytest.approx(at, abs=0.002)


def test_a_new_goal_ends_the_old():
    bench = Bench()
    old = bench.controller.accept(0.0)
    bench.update(0.2)
    new = bench.run(0.08)
    assert (old.status, new.status) == (Status.ABORTED, Status.SUCCEEDED)
    bench.controller.cancel(old)
    assert old.status is Status.ABORTED


def test_inactive_rejects_and_commands_nothing():
    bench = Bench(active=False)
    with pytest.raises(ValueError, match="not active"):
        bench.controller.accept(0.02)
    bench.update(0.1)
    assert bench.fingers.at == 0.08


def test_deactivation_ends_the_goal():
    bench = Bench()
    handle = bench.controller.accept(0.0)
    bench.controller.deactivate()
    assert handle.status is Status.ABORTED


@pytest.mark.parametrize(("position", "effort"), [(np.nan, 0.0), (0.02, -1.0), (0.02, np.inf)])
def test_nonsense_is_rejected(position, effort):
    with pytest.raises(ValueError, match=r"command\."):
        Bench().controller.accept(position, effort)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"GripperOptions\.stall_timeout"):
        GripperOptions(stall_timeout=0.0)
