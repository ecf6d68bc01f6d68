"""Picking points from a set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowplan.checks import FloatArray


def farthest_points(points: FloatArray, count: int) -> NDArray[np.int64]:
    """Indices of `count` of the points (P, 3), or of all, each as far as can be from those before; the first is 0."""
    chosen = np.zeros(min(count, len(points)), np.int64)
    distance = np.linalg.norm(points - points[0], axis=1)
    for i in range(1, len(chosen)):
        chosen[i] = np.argmax(distance)
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[i]], axis=1))
    return chosen
