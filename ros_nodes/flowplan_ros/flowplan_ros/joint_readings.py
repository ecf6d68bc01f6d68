"""Newest joint positions of a robot, each with the age of its reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import JointState

from flowplan.utils.checks import FloatArray
from flowplan_ros import conversions

_CLOCK_SKEW = 0.1  # seconds: a driver's clock may be ahead of ours by this much


class Reading(NamedTuple):
    """Position of one joint (rad or m), the time it was received, and its age then, both
    seconds."""

    position: float
    received: float
    age: float


class JointReadings:
    """Newest reading of each joint, taken from sensor_msgs/JointState.

    A reading ages from its stamp, or from its arrival if the driver does not stamp. A stamp in the
    future makes its age negative, which no rule of execution accepts.

    Args:
        now: seconds of a clock that never jumps.
        date: seconds of the clock that stamps messages.
    """

    def __init__(self, now: Callable[[], float], date: Callable[[], float]) -> None:
        self._now, self._date = now, date
        self._newest: dict[str, Reading] = {}

    def take(self, msg: JointState) -> None:
        """Remember the positions of a message."""
        stamp = conversions.seconds(msg.header.stamp)
        age = self._date() - stamp if stamp else 0.0
        if -_CLOCK_SKEW <= age < 0:
            age = 0.0
        received = self._now()
        for name, position in zip(msg.name, msg.position, strict=False):
            self._newest[name] = Reading(position, received, age)

    def positions(self, max_age: float = np.inf) -> dict[str, float]:
        """Position of every joint by name, of readings at most `max_age` seconds old."""
        ages = {name: self._age(reading) for name, reading in self._newest.items()}
        return {
            name: self._newest[name].position for name, age in ages.items() if 0 <= age <= max_age
        }

    def of(self, names: Sequence[str]) -> tuple[float, FloatArray] | None:
        """The least trustworthy age (seconds) and the positions (J,) of some joints; None if one
        of them was never heard of."""
        readings = [self._newest.get(name) for name in names]
        known = [reading for reading in readings if reading is not None]
        if len(known) < len(readings):
            return None
        ages = [self._age(reading) for reading in known]
        age = min(ages) if min(ages) < 0 else max(ages)
        return age, np.array([reading.position for reading in known])

    def _age(self, reading: Reading) -> float:
        # A stamp from the future stays in the future: waiting does not make its clock right.
        if reading.age < 0:
            return reading.age
        return reading.age + self._now() - reading.received
