"""A part on a joint under gravity, the joint free: its torque, and whether the part moves.

The joint is one screw, fitted to the motion of the part (flowplan.attachment.screw). About a hinge
whose axis is the unit vector a, gravity turns a part of mass m with the torque m g (a x r)_z, r
from the axis to its center of mass: m g r sin(angle from the vertical) for a horizontal axis. The
part stays if friction holds it, or if it meets a stop within a short way: its own base or another
thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment import AttachmentOptions, fit_screw
from flowplan.attachment.screw import Screw, ScrewOptions
from flowplan.geometry import exp_se3, transform
from flowplan.motion import ObjectFlow
from flowplan.statics.options import RestOptions
from flowplan.statics.solid import Solid, cast, surface_points
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import surface_scene

GRAVITY = 9.81
"""m/s^2."""
_MISFIT = 0.01
"""Meters RMS that the motion of a part on a joint may leave one screw: motions are noisy."""
_MOST_POINTS = 2000
"""Points of the part that the screw is fitted to, and that may meet a stop."""
_LEVER = 0.3
"""Share of the largest distance from the axis below which a point is the hinge itself: the meshes
of a scan overlap there."""
_TOUCHING = 0.005
"""Share of the points that meet a stop."""


@dataclass(frozen=True)
class JointLoad:
    """A part on a joint that is let go.

    Attributes:
        kind: "hinge", "slide" or "helix".
        load: Torque of gravity in N m about the joint (N along a slide).
        stays: True if friction or a stop keeps it.
        stopped: True if it is a stop.
    """

    kind: str
    load: float
    stays: bool
    stopped: bool


def part_screw(times: FloatArray, vertices: FloatArray) -> Screw | None:
    """The screw of a part on a joint, from its vertices (T, V, 3); None if it is on none."""
    index = np.linspace(0, vertices.shape[1] - 1, min(vertices.shape[1], _MOST_POINTS)).astype(int)
    points = vertices[:, index]
    flow = ObjectFlow(times, points, np.ones(points.shape[:2]), np.zeros(len(index), np.int64))
    try:
        screw = fit_screw(flow, AttachmentOptions(screw_fit=ScrewOptions(tolerance=_MISFIT)))
    except ValueError:  # it jumps
        return None
    return screw if screw.explains else None


def joint_load(
    part: Solid,
    screw: Screw,
    stops: Sequence[tuple[FloatArray, NDArray[np.int64]]],
    height: float | None,
    options: RestOptions = RestOptions(),
) -> JointLoad:
    """Gravity on a part that is let go, with its joint free.

    Args:
        part: The part where it is let go.
        screw: Its joint.
        stops: Surfaces that stop it, its own base among them.
        height: z of the support plane in meters, or None.
        options: Tolerances.
    """
    twist = screw_twist(screw)
    # Way of the center of mass, and of the farthest point, for a unit of the joint's motion.
    rate = twist[:3] + np.cross(twist[3:], part.center)
    points = surface_points(part.mesh.vertices, part.mesh.faces)
    reach = np.linalg.norm(twist[:3] + np.cross(twist[3:], points), axis=1)
    load = part.volume * options.density * GRAVITY * abs(float(rate[2]))
    amount = options.joint_travel / max(float(reach.max()), 1e-9)

    # Either way: does the center of mass sink by more than friction holds, and does a stop prevent
    # it?
    stopped = False
    for direction in (-1.0, 1.0):
        X = exp_se3(direction * amount * twist)
        sinks = part.center[2] - transform(X, part.center[None])[0, 2]
        if sinks <= options.joint_friction * amount * float(np.linalg.norm(rate)):
            continue
        if not _meets(points, reach, direction * amount * twist, stops, height):
            return JointLoad(screw.kind, load, False, False)
        stopped = True
    return JointLoad(screw.kind, load, True, stopped)


def screw_twist(screw: Screw) -> FloatArray:
    """Twist (6,) of a unit of the screw's motion: (linear, angular), world frame."""
    if screw.kind == "slide":
        return np.concatenate([screw.direction, np.zeros(3)])
    linear = np.cross(screw.point, screw.direction) + screw.pitch * screw.direction
    return np.concatenate([linear, screw.direction])


def _meets(
    points: FloatArray,
    reach: FloatArray,
    twist: FloatArray,
    stops: Sequence[tuple[FloatArray, NDArray[np.int64]]],
    height: float | None,
) -> bool:
    """True if points (P, 3) of a part meet a stop on their way by a twist.

    The way begins half as long behind them, since a part may already overlap its stop.
    """
    far = np.flatnonzero(reach >= _LEVER * reach.max())
    points = points[far[np.linspace(0, len(far) - 1, min(len(far), _MOST_POINTS)).astype(int)]]
    start, end = transform(exp_se3(-0.5 * twist), points), transform(exp_se3(twist), points)
    met = np.zeros(len(points), bool)
    if height is not None:
        met |= end[:, 2] < height
    for vertices, faces in stops:
        if len(faces):
            met |= cast(surface_scene((vertices, faces)), start, end - start) <= 1.0
    return bool(met.sum() >= max(3, _TOUCHING * len(points)))
