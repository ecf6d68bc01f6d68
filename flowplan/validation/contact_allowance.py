"""Depth to which a carried object may overlap what it touches, by the place on its way.

An object stands on something before it is lifted and after it is put down, and a scan places both
with an error. Contact at the start is allowed near the start, to its own depth and a tolerance, and
likewise at the end; between them only what both ends have, as when an object slides along a table.
No allowance exceeds `held_depth`, or a share of the thickness of what is touched, so that nothing
passes through a plate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body
from flowplan.validation.options import ValidationOptions


class Stretch(NamedTuple):
    """Fractional samples `start` to `end`, and the depths (P,) in meters allowed between them."""

    start: float
    end: float
    allowed: FloatArray


def most_allowed(carried: Body, other: Body, options: ValidationOptions) -> float:
    """Largest depth in meters that a carried body may overlap another one anywhere."""
    # An open surface has no thickness of its own: that of the carried body decides.
    thickness = other.thickness if other.closed else carried.thickness
    return float(min(options.held_depth, options.thickness_share * thickness))


def stretches(
    at_start: FloatArray,
    at_end: FloatArray,
    most: FloatArray,
    poses: FloatArray,
    body: Body,
    span: tuple[float, float],
    options: ValidationOptions,
) -> list[Stretch]:
    """Allowed depths of P pairs along the way of a carried body.

    Args:
        at_start, at_end: (P,) distances at both ends, meters, negative by the depth.
        most: (P,) largest allowances, meters.
        poses: (S, 4, 4) of the carried body, at the first sample of the span and every one after.
        body: The carried body.
        span: Fractional samples of both ends.
        options: Tolerances.
    """
    grazing = np.minimum(options.grazing, most)

    def allowed(distance: FloatArray) -> FloatArray:
        depth = np.maximum(-distance, 0.0) + options.contact_tolerance
        in_contact = distance < options.contact_distance
        return np.where(in_contact, np.minimum(depth, most), grazing)

    start, end = allowed(at_start), allowed(at_end)
    lasting = (at_start < options.contact_distance) & (at_end < options.contact_distance)
    between = np.where(lasting, np.maximum(start, end), grazing)

    # Samples until which, and from which on, the body is near its first and its last pose.
    first, last = span
    left = np.flatnonzero(_moved(poses, poses[0], body) > options.contact_travel)
    joined = np.flatnonzero(_moved(poses, poses[-1], body) > options.contact_travel)
    leaves = first + max(left[0] - 1, 0) if len(left) else last
    arrives = min(first + joined[-1] + 1, last) if len(joined) else first
    if not leaves < arrives:
        return [Stretch(first, last, np.maximum(start, end))]
    parts = [Stretch(first, leaves, start), Stretch(leaves, arrives, between)]
    parts.append(Stretch(arrives, last, end))
    return [part for part in parts if part.end > part.start]


def _moved(poses: FloatArray, reference: FloatArray, body: Body) -> FloatArray:
    """Meters (S,) that some point of a body has moved from a reference pose, at poses (S, 4, 4)."""
    shift = poses[:, :3, :3] - reference[:3, :3]
    moved = body.points @ np.swapaxes(shift, -1, -2) + (poses[:, None, :3, 3] - reference[:3, 3])
    return np.linalg.norm(moved, axis=-1).max(axis=1)
