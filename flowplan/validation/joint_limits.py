"""Joint limits of a trajectory as it will be executed, whatever its derivative fields say.

The samples are joined by straight lines, so what counts are divided differences of the positions. Those never exceed
the true derivative's largest value, at equal or unequal steps (n! times the n-th divided difference is a weighted mean
of the n-th derivative), so a lawful motion always passes. Derivative fields must then agree with the positions: over a
step h the mean of the two velocities may differ from the difference quotient by A h / 4, no more, where the
acceleration is at most A (the error of the trapezoidal rule), and likewise for accelerations and jerk.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray

_ROUND_OFF = (
    1e-6  # rad/s and rad/s^2 by which derivative fields may differ from the positions' differences
)


def limit_reasons(
    robot: Robot, trajectory: Trajectory, *, tolerance: float, at_rest: bool
) -> Iterator[str]:
    """One line for every limit that a joint exceeds, at the time where it does so most.

    Args:
        robot: its limits.
        trajectory: its samples.
        tolerance: share of a limit by which it may be exceeded.
        at_rest: the arm holds still before the first and after the last sample, and that jump counts.
    """
    t, q, qd, qdd = (np.asarray(getattr(trajectory, name)) for name in ("times", "q", "qd", "qdd"))
    reach, width = tolerance * (robot.upper - robot.lower), np.asarray(trajectory.grip)[:, None]
    widest = robot.gripper.max_width
    yield from _worst(
        trajectory, t, q - robot.upper, reach, "{name} is {value:.4g} above its upper limit", robot
    )
    yield from _worst(
        trajectory, t, robot.lower - q, reach, "{name} is {value:.4g} below its lower limit", robot
    )
    yield from _worst(
        trajectory, t, width - widest, tolerance * widest, "fingers open {value:.4g} m too far"
    )
    yield from _worst(
        trajectory, t, -width, tolerance * widest, "fingers close {value:.4g} m beyond shut"
    )

    velocity, acceleration, jerk = differences(t, q, at_rest=at_rest)
    for (when, found), stated, limit, what in (
        (velocity, qd, robot.velocity, "velocity"),
        (acceleration, qdd, robot.acceleration, "acceleration"),
        (jerk, None, robot.jerk, "jerk"),
    ):
        text = "{name} " + what + " exceeds its limit by {value:.4g}"
        yield from _worst(trajectory, when, np.abs(found) - limit, tolerance * limit, text, robot)
        if stated is not None:
            text = "{name} stated " + what + " exceeds its limit by {value:.4g}"
            yield from _worst(trajectory, t, np.abs(stated) - limit, tolerance * limit, text, robot)

    step = np.diff(t)[:, None]
    middle = 0.5 * (t[1:] + t[:-1])
    for rate, stated, limit, what in (
        (np.diff(q, axis=0), qd, robot.acceleration, "velocity"),
        (np.diff(qd, axis=0), qdd, robot.jerk, "acceleration"),
    ):
        lie = np.abs(rate / step - 0.5 * (stated[1:] + stated[:-1]))
        error = 0.25 * limit * step
        text = (
            "{name} stated "
            + what
            + " is {value:.4g} further from the motion of its samples than limits allow"
        )
        yield from _worst(
            trajectory, middle, lie - error, tolerance * error + _ROUND_OFF, text, robot
        )


def differences(
    times: FloatArray, q: FloatArray, *, at_rest: bool
) -> list[tuple[FloatArray, FloatArray]]:
    """Velocity, acceleration and jerk of samples q (S, J): each with the times (n,) it belongs to, and values (n, J).

    Args:
        times: (S,) seconds, increasing by any steps.
        q: positions, rad or m.
        at_rest: continue the first and the last sample by as long as it takes to see a jump there.
    """
    if at_rest:
        still = np.arange(1, 4)
        times = np.concatenate(
            [
                times[0] - still[::-1] * (times[1] - times[0]),
                times,
                times[-1] + still * (times[-1] - times[-2]),
            ]
        )
        q = np.concatenate([q[:1].repeat(3, 0), q, q[-1:].repeat(3, 0)])
    out, values = [], q
    for order in (1, 2, 3):
        span = times[order:] - times[:-order]
        values = order * np.diff(values, axis=0) / span[:, None]
        out.append((0.5 * (times[order:] + times[:-order]), values))
    return out


def _worst(
    trajectory: Trajectory,
    times: FloatArray,
    excess: FloatArray,
    room: FloatArray | float,
    text: str,
    robot: Robot | None = None,
) -> Iterator[str]:
    """Lines for the columns of `excess` (n, J) that are anywhere above `room`, each where it is so most."""
    over = excess - room
    for j in np.flatnonzero(over.max(axis=0, initial=-np.inf) > 0):
        i = int(np.argmax(over[:, j]))
        t = float(np.clip(times[i], trajectory.times[0], trajectory.times[-1]))
        sample = int(np.searchsorted(trajectory.times, t, side="right")) - 1
        line = text.format(name="" if robot is None else robot.joint_names[j], value=excess[i, j])
        yield f"{Phase(int(trajectory.phase[sample])).label} phase, t = {t:.3f} s: {line}"
