"""Speed and jitter of a motion, and the speed that an arm's tool reaches."""

from __future__ import annotations

import numpy as np

from flowplan.robot import Robot
from flowplan.utils.checks import FloatArray

_DIRECTIONS = np.array(
    [
        [x, y, z]
        for x in (-1, 0, 1)
        for y in (-1, 0, 1)
        for z in (-1, 0, 1)
        if (x, y, z) != (0, 0, 0)
    ],
    float,
)
_DIRECTIONS /= np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)


def speed(times: FloatArray, vertices: FloatArray) -> float:
    """Largest speed in m/s of any vertex (T, V, 3) between frames at times (T,)."""
    way = np.linalg.norm(np.diff(vertices, axis=0), axis=-1).max(axis=1, initial=0.0)
    return float((way / np.diff(times)).max())


def jitter(vertices: FloatArray) -> float:
    """Standard deviation in meters, an axis, of the noise of tracks (T, V, 3).

    Cubic motions have no fourth difference, and white noise of variance s^2 has one of 70 s^2, so
    the root mean square of the fourth difference (of the acceleration's second) over sqrt(70) is
    that of the noise. Of vertices that move; 0 for fewer than five frames.
    """
    moves = np.abs(vertices - vertices[0]).max(axis=(0, 2)) > 0
    if len(vertices) < 5 or not moves.any():
        return 0.0
    fourth = np.diff(vertices[:, moves], n=4, axis=0)  # (T - 4, V', 3)
    return float(np.sqrt((fourth**2).mean() / 70.0))


def tool_speed_limit(robot: Robot) -> float:
    """Speed in m/s that the tool reaches in every direction, at the arm's home without turning.

    An estimate of the order of magnitude: it varies over the workspace.
    """
    _, J = robot.tool_jacobian(robot.home[None])
    twists = np.concatenate([_DIRECTIONS, np.zeros_like(_DIRECTIONS)], axis=1)  # (D, 6)
    rates = np.abs(twists @ np.linalg.pinv(J[0]).T)  # (D, J), rad/s for 1 m/s
    return float(1.0 / (rates / robot.velocity).max())
