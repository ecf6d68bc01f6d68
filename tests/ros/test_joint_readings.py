"""Ages and positions of joint readings, on clocks that are made up."""

import numpy as np
import pytest
from flowplan_ros.joint_readings import JointReadings
from sensor_msgs.msg import JointState

NAN = float("nan")


class World:
    """Two clocks: one that never jumps, and one that stamps messages."""

    def __init__(self):
        self.now, self.date = 5.0, 1000.0
        self.joints = JointReadings(lambda: self.now, lambda: self.date)

    def hear(self, positions, stamp):
        message = JointState(name=list(positions), position=list(positions.values()))
        message.header.stamp.sec = int(np.floor(stamp))
        message.header.stamp.nanosec = round(1e9 * (stamp - np.floor(stamp)))
        self.joints.take(message)

    def age(self):
        return self.joints.of(["a"])[0]


@pytest.mark.parametrize(
    ("stamp", "age"),
    [
        (1000.0, 0.0),
        (999.5, 0.5),
        (1000.05, 0.0),  # a driver's clock may be a tenth of a second ahead
        (1000.5, -0.5),
        (0.0, 0.0),  # not stamped: from its arrival
        (-5.0, 1005.0),
    ],
)
def test_a_reading_ages_from_its_stamp(stamp, age):
    world = World()
    world.hear({"a": 0.1}, stamp)
    assert world.age() == pytest.approx(age, abs=1e-6)
    world.now += 2.0
    # A stamp in the future does not become right by waiting.
    assert world.age() == pytest.approx(age if age < 0 else age + 2.0, abs=1e-6)


def test_the_least_trustworthy_joint_counts():
    world = World()
    world.hear({"a": 0.1}, 999.0)
    world.hear({"b": 0.2}, 1000.0)
    age, q = world.joints.of(["b", "a"])
    assert age == pytest.approx(1.0)
    np.testing.assert_array_equal(q, [0.2, 0.1])
    world.hear({"b": 0.3}, 1003.0)
    age, q = world.joints.of(["b", "a"])
    assert age == pytest.approx(-3.0)
    np.testing.assert_array_equal(q, [0.3, 0.1])
    assert world.joints.of(["a", "c"]) is None


def test_positions_are_those_of_fresh_readings():
    world = World()
    world.hear({"old": 1.0}, 990.0)
    world.hear({"fresh": 2.0}, 1000.0)
    world.hear({"future": 3.0}, 1001.0)
    assert world.joints.positions(0.5) == {"fresh": 2.0}
    assert world.joints.positions() == {"old": 1.0, "fresh": 2.0}


def test_a_clock_that_goes_back_makes_readings_future_ones():
    world = World()
    world.hear({"a": 0.1}, 1000.0)
    world.now -= 1.0
    assert world.age() < 0


def test_what_is_not_a_number_stays_so():
    world = World()
    world.hear({"a": NAN}, 1000.0)
    assert np.isnan(world.joints.of(["a"])[1]).all()


def test_a_message_without_positions_says_nothing():
    world = World()
    world.joints.take(JointState(name=["a"]))
    assert world.joints.of(["a"]) is None
