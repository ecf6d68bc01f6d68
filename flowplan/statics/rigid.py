"""Balance of a rigid body on what carries it.

A body that is let go at rest cannot leave a region at whose border its center of mass is higher. It
is tilted by a few degrees in every direction, about the point of contact below its center of mass,
and let down again: on a flat face, a center of mass h above it and a distance d inside its edge has
risen by

    d sin(tilt) - h (1 - cos(tilt)).

A ball neither rises nor sinks, and does not rest: it may roll. Shifted sideways by a small step,
the center of mass may sink by no more than friction holds: the friction coefficient times the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from flowplan.geometry import pose, rotation_about
from flowplan.statics.options import RestOptions
from flowplan.statics.solid import Solid
from flowplan.statics.supports import Supports
from flowplan.utils.checks import FloatArray

_DIRECTIONS = 16
"""Directions of tilts and shifts."""
_STEP = 0.01
"""Meters of the sideways shift."""
_LEAST_RISE = 2e-4
"""Meters that the center of mass must rise: less is a rolling body, or the noise of a scan."""
_BAND = 0.003
"""Meters above the lowest gap up to which a point counts as in contact."""


@dataclass(frozen=True)
class Balance:
    """Measurements on a body that is let go.

    Attributes:
        drop: Meters that it falls first; infinite if nothing is below it.
        margin: Meters by which its center of mass is inside the polygon of contact; negative
            outside.
        rise: Meters, least rise of the center of mass over the tilts.
        slide: Meters, most that it sinks over the shifts, per meter of shift.
        fault: "", or why it does not rest: "falls", "tips" (or rolls) or "slides".
    """

    drop: float
    margin: float
    rise: float
    slide: float
    fault: str

    @property
    def rests(self) -> bool:
        """True if it stays where it is let go."""
        return not self.fault


def balance(body: Solid, supports: Supports, options: RestOptions = RestOptions()) -> Balance:
    """Balance of a body that is let go.

    Args:
        body: Where it is let go.
        supports: What is below it.
        options: Tolerances.
    """
    drop = supports.drop(body, np.eye(4))
    if not drop <= options.drop:
        return Balance(drop, -np.inf, -np.inf, np.inf, "falls")
    contact = contact_points(body, supports, drop)
    margin = hull_margin(contact[:, :2], body.center[:2])

    # Rise of the center of mass at each tilt about the contact, after the body is let down again.
    pivot = np.append(body.center[:2], contact[:, 2].mean())
    angles = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    sideways = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    tilted = [rotation_about(pivot, axis, options.tilt) for axis in sideways]
    lowered = (body.center[2] - pivot[2]) * (1 - np.cos(options.tilt))
    rise = min(drop - supports.drop(body, X) for X in tilted) - lowered

    # Slope of the ground under it: how far it sinks when it is shifted. The steepest way is at most
    # half a step of the directions from one of them.
    shifted = [pose(translation=_STEP * way) for way in sideways]
    sinks = max(supports.drop(body, X) - drop for X in shifted) / _STEP
    slide = sinks / np.cos(np.pi / _DIRECTIONS)

    fault = ""
    if not rise >= _LEAST_RISE:
        fault = "tips"
    elif not slide <= options.friction:
        fault = "slides"
    return Balance(float(drop), margin, float(rise), float(slide), fault)


def contact_points(body: Solid, supports: Supports, drop: float) -> FloatArray:
    """Points (K, 3) at which a body that has fallen touches what is below it, to a small band.

    Args:
        body: The body, before it falls.
        supports: What is below it.
        drop: Meters that it falls onto them.
    """
    own, other = supports.gaps(body, np.eye(4))
    lowest = body.points[own <= drop + _BAND] - [0, 0, drop]
    return np.concatenate([lowest, supports.points[: len(other)][other <= drop + _BAND]])


def hull_margin(points: FloatArray, center: FloatArray) -> float:
    """Distance in meters of a point (2,) from the border of the convex hull of points (K, 2).

    Negative outside.
    """
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError):  # points on a line have no inside
        return -_distance_to_line(points, center)
    # Inside, the nearest edge; outside, the nearest point of all edges.
    inside = -(hull.equations[:, :2] @ center + hull.equations[:, 2])
    if inside.min() >= 0:
        return float(inside.min())
    return -min(_distance_to_line(points[edge], center) for edge in hull.simplices)


def _distance_to_line(points: FloatArray, center: FloatArray) -> float:
    """Distance of a center (2,) from points (K, 2) on a line: from the segment that they span."""
    mean = points.mean(axis=0)
    along = np.linalg.svd(points - mean)[2][0]
    extent = (points - mean) @ along
    at = np.clip((center - mean) @ along, extent.min(), extent.max())
    return float(np.linalg.norm(mean + at * along - center))
