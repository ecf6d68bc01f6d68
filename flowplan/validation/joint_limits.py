"""Joint limits of a trajectory as executed, whatever its derivative fields state.

The samples are joined by straight lines, so divided differences of the positions are checked. They
never exceed the largest value of the true derivative, at equal or unequal steps (n! times the n-th
divided difference is a weighted mean of the n-th derivative), so a motion within its limits always
passes. The derivative fields must agree with the positions: over a step h the mean of the two
velocities may differ from the difference quotient by at most A h / 4, where A bounds the
acceleration (the error of the trapezoidal rule), and likewise for accelerations and jerk.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray

_ROUND_OFF = 1e-6
"""rad/s and rad/s^2 by which derivative fields may differ from the positions' differences."""


def limit_reasons(
    robot: Robot, trajectory: Trajectory, *, tolerance: float, at_rest: bool
) -> Iterator[str]:
    """One line for every limit that a joint exceeds, at the time of the largest excess.

    Args:
        robot: Joint and gripper limits.
        trajectory: The samples.
        tolerance: Share of a limit by which it may be exceeded.
        at_rest: If True, the arm is at rest before the first and after the last sample, and a jump
            there counts.
    """
    yield from _position_reasons(robot, trajectory, tolerance)
    yield from _rate_reasons(robot, trajectory, tolerance, at_rest)
    yield from _mismatch_reasons(robot, trajectory, tolerance)


def _position_reasons(robot: Robot, trajectory: Trajectory, tolerance: float) -> Iterator[str]:
    """Positions of joints and fingers beyond their range."""
    t, q = trajectory.times, trajectory.q
    # Joints, each within a share of its range.
    room = tolerance * (robot.upper - robot.lower)
    text = "{name} is {value:.4g} above its upper limit"
    yield from _worst(trajectory, t, q - robot.upper, room, text, robot)
    text = "{name} is {value:.4g} below its lower limit"
    yield from _worst(trajectory, t, robot.lower - q, room, text, robot)

    # Fingers, as one opening.
    opening = trajectory.grip[:, None]  # (S, 1)
    widest = robot.gripper.max_width
    text = "fingers open {value:.4g} m too far"
    yield from _worst(trajectory, t, opening - widest, tolerance * widest, text)
    text = "fingers close {value:.4g} m beyond shut"
    yield from _worst(trajectory, t, -opening, tolerance * widest, text)


def _rate_reasons(
    robot: Robot, trajectory: Trajectory, tolerance: float, at_rest: bool
) -> Iterator[str]:
    """Velocity, acceleration and jerk above their limits, of the positions and as stated."""
    found = differences(trajectory.times, trajectory.q, at_rest=at_rest)
    stated = (trajectory.qd, trajectory.qdd, None)
    limits = (robot.velocity, robot.acceleration, robot.jerk)
    names = ("velocity", "acceleration", "jerk")
    for (times, rate), field, limit, name in zip(found, stated, limits, names, strict=True):
        # Divided differences of the positions.
        excess = np.abs(rate) - limit
        text = "{name} " + name + " exceeds its limit by {value:.4g}"
        yield from _worst(trajectory, times, excess, tolerance * limit, text, robot)
        # The trajectory's own field, which has no jerk.
        if field is None:
            continue
        excess = np.abs(field) - limit
        text = "{name} stated " + name + " exceeds its limit by {value:.4g}"
        yield from _worst(trajectory, trajectory.times, excess, tolerance * limit, text, robot)


def _mismatch_reasons(robot: Robot, trajectory: Trajectory, tolerance: float) -> Iterator[str]:
    """Derivative fields that disagree with the differences of the field below."""
    t, q, qd, qdd = trajectory.times, trajectory.q, trajectory.qd, trajectory.qdd
    step = np.diff(t)[:, None]
    middle = 0.5 * (t[1:] + t[:-1])
    for integral, stated, limit, name in (
        (q, qd, robot.acceleration, "velocity"),
        (qd, qdd, robot.jerk, "acceleration"),
    ):
        # The mean of two stated values stands for the average over the step.
        quotient = np.diff(integral, axis=0) / step
        derivative_mismatch = np.abs(quotient - 0.5 * (stated[1:] + stated[:-1]))
        allowed = 0.25 * limit * step
        text = (
            "{name} stated "
            + name
            + " is {value:.4g} further from the motion of its samples than limits allow"
        )
        room = tolerance * allowed + _ROUND_OFF
        yield from _worst(trajectory, middle, derivative_mismatch - allowed, room, text, robot)


def differences(
    times: FloatArray, q: FloatArray, *, at_rest: bool
) -> list[tuple[FloatArray, FloatArray]]:
    """Velocity, acceleration and jerk of samples by divided differences.

    Args:
        times: (S,) seconds, increasing by any steps.
        q: (S, J) positions, rad or m.
        at_rest: If True, the first and the last sample are held for three steps, which turns a
            jump from or to rest into a difference.

    Returns:
        For each order the times (n,) and the values (n, J).
    """
    if at_rest:
        steps = np.arange(1, 4)
        before = times[0] - steps[::-1] * (times[1] - times[0])
        after = times[-1] + steps * (times[-1] - times[-2])
        times = np.concatenate([before, times, after])
        q = np.concatenate([q[:1].repeat(3, 0), q, q[-1:].repeat(3, 0)])
    # n! times the n-th divided difference, from the one before.
    out, values = [], q
    for order in (1, 2, 3):
        span = times[order:] - times[:-order]
        middle = 0.5 * (times[order:] + times[:-order])
        values = order * np.diff(values, axis=0) / span[:, None]
        out.append((middle, values))
    return out


def _worst(
    trajectory: Trajectory,
    times: FloatArray,
    excess: FloatArray,
    room: FloatArray | float,
    text: str,
    robot: Robot | None = None,
) -> Iterator[str]:
    """One line for each column of `excess` (n, J) that is anywhere above `room`, at its maximum.

    Args:
        trajectory: For the phase and the range of times.
        times: (n,) seconds of the rows.
        excess: (n, J) amounts beyond the limits.
        room: Tolerated excess, broadcast to `excess`.
        text: Format of the line, with fields `name` and `value`.
        robot: For the joint names. None if the columns are no joints.
    """
    over = excess - room
    for j in np.flatnonzero(over.max(axis=0, initial=-np.inf) > 0):
        i = int(np.argmax(over[:, j]))
        t = float(np.clip(times[i], trajectory.times[0], trajectory.times[-1]))
        # The phase of the last sample before.
        sample = int(np.searchsorted(trajectory.times, t, side="right")) - 1
        phase = Phase(int(trajectory.phase[sample]))
        name = "" if robot is None else robot.joint_names[j]
        line = text.format(name=name, value=excess[i, j])
        yield f"{phase.label} phase, t = {t:.3f} s: {line}"
