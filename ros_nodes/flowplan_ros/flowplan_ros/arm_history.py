"""Joint states of the last seconds, and whether the arm stood still while images were taken.

A joint state counts at its stamp, or at its arrival if the driver does not stamp. Every comparison
is written so that NaN fails it: an arm whose state is not known does not stand still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from sensor_msgs.msg import JointState

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan_ros import conversions

_SPACING = 0.004  # seconds: of joint states that follow each other faster, some are left out


@dataclass(frozen=True)
class ArmOptions:
    """The robot in the images: its removal, and the rest that a scan needs."""

    remove: bool = True
    """Remove the robot's own points, by joint states at the time of the images, and refuse to scan
    while the arm moves. If false, no joint states are needed: the robot has to stay out of the
    images."""
    margin: Annotated[float, Interval(0, 0.2)] = 0.015
    """Points nearer to a link than this are the robot's, meters."""
    settle: Annotated[float, Interval(0.05, 10)] = 0.5
    """Seconds before the first image for which the arm has to stand still."""
    still: Annotated[float, Interval(1e-5, 0.5)] = 0.005
    """Largest change of a joint from then to the last image, rad or m."""
    speed: Annotated[float, Interval(1e-4, 10)] | None = 0.05
    """Largest speed of a joint that the driver reports meanwhile, rad/s or m/s. None (NaN): speeds
    are not looked at, for drivers that report none."""
    state_gap: Annotated[float, Interval(0.01, 5)] = 0.1
    """Largest time between two joint states, and between the last one and the last image,
    seconds."""

    def __post_init__(self) -> None:
        bounds.check(self)


class _Sample(NamedTuple):
    """One message: its time (seconds), and position and speed by joint; speeds may be missing."""

    time: float
    positions: dict[str, float]
    speeds: dict[str, float]


class Unrest(NamedTuple):
    """Reason why the arm did not stand still: it moved, or its state is not known."""

    moved: bool
    reason: str


class ArmHistory:
    """Joint states of the last `keep` seconds.

    Args:
        date: seconds of the clock that stamps messages.
        keep: seconds.
    """

    def __init__(self, date: Callable[[], float], keep: float) -> None:
        self._date, self._keep = date, keep
        self._samples: deque[tuple[float, _Sample]] = deque()  # with the time of arrival

    def take(self, msg: JointState) -> None:
        """Remember a message."""
        arrival = self._date()
        stamp = conversions.seconds(msg.header.stamp)
        sample = _Sample(
            stamp or arrival,
            dict(zip(msg.name, msg.position, strict=False)),
            dict(zip(msg.name, msg.velocity, strict=False)),
        )
        # Numbers that are not finite are never left out.
        finite = np.isfinite([*sample.positions.values(), *sample.speeds.values()]).all()
        if self._samples and finite:
            last = self._samples[-1][1]
            if (
                0 <= sample.time - last.time < _SPACING
                and last.positions.keys() == sample.positions.keys()
            ):
                return
        self._samples.append((arrival, sample))
        # A clock that went back leaves nothing to compare with.
        while self._samples and not 0 <= arrival - self._samples[0][0] <= self._keep:
            self._samples.popleft()

    def unrest(
        self, names: Sequence[str], first: float, last: float, options: ArmOptions
    ) -> Unrest | None:
        """Reason why the arm did not stand still from `settle` before `first` to `last`, or None.

        Args:
            names: the arm's joints.
            first, last: stamps of the first and the last image, seconds.
            options: limits.
        """
        for name in names:
            found = self._unrest_of(name, first - options.settle, last, options)
            if found is not None:
                return found
        return None

    def at(self, names: Sequence[str], time: float) -> dict[str, float]:
        """Position at a time of each joint that was heard, between its samples linearly."""
        out = {}
        for name in names:
            times, positions, _ = self._series(name)
            if len(times):
                out[name] = float(np.interp(time, times, positions))
        return out

    def _unrest_of(
        self, name: str, begin: float, last: float, options: ArmOptions
    ) -> Unrest | None:
        times, positions, speeds = self._series(name)
        if not len(times):
            return Unrest(False, f"{name} was never heard of; is the robot's driver running?")
        # The samples from the last one before the beginning to the first one after the end.
        gap = options.state_gap
        chosen = (times >= begin - gap) & (times <= last + gap)
        t, q, speed = times[chosen], positions[chosen], speeds[chosen]
        if not np.isfinite(q).all():
            return Unrest(False, f"the position of {name} is not finite")
        if options.speed is not None and not np.isfinite(speed).all():
            return Unrest(False, f"the speed of {name} is not finite")
        # Motion first: more samples cannot undo it.
        if len(t) and not np.ptp(q) <= options.still:
            words = f"{name} moved by {np.ptp(q):.3g} within {t[-1] - t[0]:.2f} s"
            return Unrest(True, f"{words} (still {options.still:g})")
        fastest = np.abs(speed).max(initial=0.0)
        if options.speed is not None and not fastest <= options.speed:
            return Unrest(True, f"{name} moves at {fastest:.3g} per second (speed {options.speed})")
        # No gap from the beginning to the last image.
        edges = np.concatenate([[begin], t[(t > begin) & (t < last)], [last]])
        covered = len(t) and t[0] <= begin + gap and t[-1] >= last - gap
        if not (covered and np.diff(edges).max() <= gap):
            return Unrest(False, self._gap_of(name, times, begin, last))
        return None

    @staticmethod
    def _gap_of(name: str, times: FloatArray, begin: float, last: float) -> str:
        if times[-1] < begin or times[0] > last:
            apart = last - times[-1] if times[-1] < begin else last - times[0]
            side = "older" if apart > 0 else "newer"
            return (
                f"the states of {name} are {abs(apart):.2f} s {side} than the images; "
                "synchronize the clocks, or check the driver"
            )
        return f"the states of {name} have gaps over the {last - begin:.2f} s before the last image"

    def _series(self, name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Times, positions and speeds (n,) of a joint, by time. A speed that was not reported is
        0."""
        rows = [
            (sample.time, sample.positions[name], sample.speeds.get(name, 0.0))
            for _, sample in self._samples
            if name in sample.positions
        ]
        values = np.array(sorted(rows, key=lambda row: row[0]), float).reshape(-1, 3)
        return values[:, 0], values[:, 1], values[:, 2]
