"""When an arm counts as standing still, on stamps that are made up."""

from dataclasses import replace

import numpy as np
import pytest
from flowplan_ros.arm_history import ArmHistory, ArmOptions
from sensor_msgs.msg import JointState

NAN, INF = float("nan"), float("inf")
JOINTS = ("a", "b")
OPTIONS = ArmOptions()
FIRST, LAST = 1002.0, 1002.2  # stamps of the images


class Driver:
    """Publishes joint states at a rate, where `path` says the joints are."""

    def __init__(self, keep=30.0):
        self.date = 1000.0
        self.history = ArmHistory(lambda: self.date, keep)

    def say(self, positions, velocities=(), stamp=None, names=JOINTS):
        message = JointState(name=list(names), position=list(positions))
        message.velocity = list(velocities)
        stamp = self.date if stamp is None else stamp
        message.header.stamp.sec = int(stamp // 1)
        message.header.stamp.nanosec = round(1e9 * (stamp % 1))
        self.history.take(message)

    def run(self, path, until=1002.5, rate=100, velocity=lambda t: (), shift=0.0):
        while self.date < until:
            self.say(path(self.date), velocity(self.date), self.date + shift)
            self.date += 1 / rate

    def unrest(self, first=FIRST, last=LAST, options=OPTIONS):
        return self.history.unrest(JOINTS, first, last, options)


def still(t):
    return (0.3, -0.7)


@pytest.mark.parametrize("rate", [12, 100, 1000])
def test_an_arm_at_rest_stands_still(rate):
    driver = Driver()
    driver.run(still, rate=rate)
    assert driver.unrest() is None
    assert driver.history.at(JOINTS, 1001.0) == pytest.approx({"a": 0.3, "b": -0.7})


@pytest.mark.parametrize(
    ("begin", "end", "moves"),
    [
        (1000.5, 1001.3, False),  # it came to rest in time
        (1000.5, 1001.6, True),  # half a second before the first image is 1001.5
        (1002.05, 1002.1, True),  # between two images
        (1002.35, 1002.5, False),  # later than the last image
    ],
)
def test_an_arm_that_moves_near_the_images_does_not(begin, end, moves):
    driver = Driver()
    speed = 0.05 / (end - begin)  # a whole motion of 50 mrad
    driver.run(lambda t: (0.3, speed * np.clip(t - begin, 0.0, end - begin)))
    unrest = driver.unrest()
    assert (unrest is not None) == moves, unrest
    if moves:
        assert unrest.moved
        assert unrest.reason.startswith("b moved by 0.0")


def test_the_limits_are_those_of_the_options():
    driver = Driver()
    driver.run(lambda t: (0.3 + 0.004 * (t > 1002.0), 0.0))
    assert driver.unrest() is None
    assert driver.unrest(options=replace(OPTIONS, still=0.0039)).moved
    assert driver.unrest(options=replace(OPTIONS, still=0.0041)) is None


def test_noise_of_encoders_is_no_motion():
    driver, rng = Driver(), np.random.default_rng(0)
    driver.run(lambda t: rng.normal(0.0, 3e-4, 2), velocity=lambda t: rng.normal(0.0, 5e-3, 2))
    assert driver.unrest() is None


@pytest.mark.parametrize("speed", [0.06, -0.06])
def test_a_reported_speed_counts(speed):
    driver = Driver()
    driver.run(still, velocity=lambda t: (0.0, speed))
    unrest = driver.unrest()
    assert unrest.moved
    assert unrest.reason.startswith("b moves at 0.06 per second")
    assert driver.unrest(options=replace(OPTIONS, speed=None)) is None
    assert driver.unrest(options=replace(OPTIONS, speed=0.07)) is None


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("what", ["position", "speed"])
def test_numbers_that_are_not_finite_are_no_rest(value, what):
    """A single one among many is enough, even between samples that are left out."""
    driver = Driver()
    driver.run(still, until=1002.1, rate=1000, velocity=lambda t: (0.0, 0.0))
    odd = ((value, 0.0), (0.0, 0.0)) if what == "position" else ((0.3, -0.7), (0.0, value))
    driver.date += 1e-4
    driver.say(*odd)
    driver.run(still, rate=1000, velocity=lambda t: (0.0, 0.0))
    unrest = driver.unrest()
    assert not unrest.moved
    assert f"the {what} of " in unrest.reason
    assert "is not finite" in unrest.reason
    assert driver.unrest(1004.0, 1004.0) is not None  # no states there at all


@pytest.mark.parametrize(
    ("shift", "words"), [(-5.0, "5.00 s older"), (5.0, "2.80 s newer"), (-0.4, "gaps")]
)
def test_states_of_another_time_say_nothing_about_the_images(shift, words):
    driver = Driver()
    driver.run(still, shift=shift, until=1002.3)
    unrest = driver.unrest()
    assert not unrest.moved
    if shift == 5.0:
        assert "s newer than the images; synchronize the clocks" in unrest.reason
    elif shift == -5.0:
        assert "s older than the images; synchronize the clocks" in unrest.reason
    else:
        assert words in unrest.reason


def test_gaps_and_late_starts_are_no_rest():
    driver = Driver()
    driver.run(still, until=1001.7)
    driver.date = 1001.85
    driver.run(still)
    assert "gaps" in driver.unrest().reason
    late = Driver()
    late.date = 1001.65
    late.run(still)
    assert "gaps" in late.unrest().reason
    slow = Driver()
    slow.run(still, rate=8)
    assert "gaps" in slow.unrest().reason
    assert slow.unrest(options=replace(OPTIONS, state_gap=0.15)) is None


@pytest.mark.parametrize("stamps", [(NAN, LAST), (FIRST, NAN), (NAN, NAN), (0.0, 0.0)])
def test_images_without_a_time_have_no_states(stamps):
    driver = Driver()
    driver.run(still)
    assert driver.unrest(*stamps) is not None


def test_a_joint_that_was_never_heard_of_is_named():
    driver = Driver()
    driver.run(lambda t: (0.3,), until=1000.0)
    assert "a was never heard of" in driver.unrest().reason
    while driver.date < 1002.5:
        driver.say((0.3,), names=("a",))
        driver.date += 0.01
    assert "b was never heard of" in driver.unrest().reason
    assert driver.history.at(JOINTS, 1001.0) == pytest.approx({"a": 0.3})


def test_joints_may_come_in_different_messages():
    driver = Driver()
    while driver.date < 1002.5:
        driver.say((0.3,), names=("a",))
        driver.say((0.1 * (driver.date > 1002.1),), names=("b",))
        driver.date += 0.01
    assert driver.unrest().reason.startswith("b moved by 0.1")


def test_states_without_a_stamp_count_at_their_arrival():
    driver = Driver()
    while driver.date < 1002.5:
        driver.say((0.3, 0.1), stamp=0.0)
        driver.date += 0.01
    assert driver.unrest() is None


def test_positions_are_those_of_the_time():
    driver = Driver()
    driver.run(lambda t: (t - 1000.0, 0.0), rate=10)
    assert driver.history.at(JOINTS, 1001.234)["a"] == pytest.approx(1.234, abs=1e-9)


def test_the_history_is_bounded_and_a_clock_that_goes_back_empties_it():
    driver = Driver(keep=1.0)
    driver.run(still, until=1010.0, rate=1000)
    assert len(driver.history._samples) <= 1.0 / 0.004 + 2
    driver.date = 900.0
    driver.say(still(0))
    assert len(driver.history._samples) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("margin", -0.01), ("settle", 0.0), ("still", NAN), ("speed", INF), ("state_gap", 0.0)],
)
def test_options_keep_their_bounds(field, value):
    with pytest.raises(ValueError, match=field):
        ArmOptions(**{field: value})
