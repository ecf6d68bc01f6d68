"""From dense object flow to tool poses: the rigid-attachment model (CHORD, section 4.2).

A tool that holds a patch of the object carries it rigidly: point b_k of the patch in the tool frame
is at R b_k + t. The best tool poses minimize the distance of the carried points to the flow,

    X_world_tool(t) = argmin_{R, t} sum_k w_k(t) |R b_k + t - y_k(t)|^2,
    b_k = X_world_tool(0)^-1 y_k(0),

so the first pose is the grasp itself. The remaining RMS distance, `slip`, measures the deviation
from rigid motion: near zero for a rigid object or one link of an articulated one, and the stretch
of the patch for cloth.

Weights are the proximity to the contact times the confidence of the flow times the Geman-McClure
weight 1 / (1 + (r/c)^2)^2 of the residual r, found by iteratively reweighted least squares (Geman
and McClure 1985) with c from the median residual of each frame. Outlier tracks thus have little
influence on the poses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment.moments import (
    Moments,
    RigidFit,
    point_moments,
    residual_moments,
    rigid_fit,
)
from flowplan.attachment.screw import Screw, ScrewOptions, screw_fit
from flowplan.geometry import angle_between, interpolate, transform
from flowplan.motion import ObjectFlow
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

_MEDIAN_NORM = 1.538
"""Median length of a 3-vector of independent standard normal coordinates."""
_NEGLIGIBLE_WEIGHT = 1e-9
"""Share of the largest weight below which a point counts as unseen; its square would underflow."""
_REWEIGHTING_POINTS = 512
"""Points used in the reweighting rounds; the final fit uses all of them."""
_LARGEST_TURN = np.deg2rad(120)
"""Largest rotation between two frames whose direction is unambiguous."""


@dataclass(frozen=True)
class AttachmentOptions:
    """Selection and robust fit of the held patch."""

    radius: Annotated[float, Interval(0.005, 1)] = 0.06
    """Meters around the tool's origin within which points are held; weights fall to zero there."""
    min_points: Annotated[int, Interval(3, 10_000)] = 30
    """The patch grows until it has this many points, if the object has them."""
    max_points: Annotated[int, Interval(3, 1_000_000)] = 1024
    """Points kept of a larger patch, spread evenly: 1024 tracks of noise s give poses to s / 32."""
    robust_rounds: Annotated[int, Interval(0, 100)] = 10
    """Maximum rounds of reweighting; 0 trusts every track."""
    robust_scale: Annotated[float, Interval(0.1, 100)] = 4.0
    """Standard deviations of a frame's residuals at which a track's weight is a quarter."""
    noise_floor: Annotated[float, Interval(1e-6, 0.1)] = 5e-4
    """Meters; lower bound of the standard deviation of the tracks."""
    min_lever: Annotated[float, Interval(0, 0.1)] = 2e-3
    """Meters; rotation about an axis that all held points are closer to than this is free."""
    max_speed: Annotated[float, Interval(0.01, 100)] = 5.0
    """Meters per second; a patch faster than this between two frames is refused as a teleport."""
    max_slip: Annotated[float, Interval(1e-4, 1)] = 0.02
    """RMS deviation in meters of the patch from rigid motion above which the planner refuses it."""
    screw: bool = False
    """Replace the poses by one screw motion (hinge, slide or helix) if it explains the flow."""
    screw_fit: ScrewOptions = field(default_factory=ScrewOptions)
    """Fit of the screw and its required accuracy."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class Attachment:
    """Tool motion that carries a patch of the object along the flow.

    Attributes:
        times: (T,) seconds, those of the flow.
        X_world_tool: (T, 4, 4) best rigid motion of the held patch; the first is the grasp.
        moments: Moments of the held patch, which evaluate any other pose exactly.
        K: (T, 3, 3) rotation stiffness, world axes, m^2; zero along unobserved rotations.
        slip: (T,) weighted RMS distance (m) of the patch from its best rigid motion.
        kept: (T,) share of the patch's weight that the robust loss kept; small if the patch
            straddles two bodies.
        held: (N,) weight of each flow point in the patch.
        screw: The one-degree-of-freedom motion that replaced the poses, or None.
    """

    times: FloatArray
    X_world_tool: FloatArray
    moments: Moments
    K: FloatArray
    slip: FloatArray
    kept: FloatArray
    held: FloatArray
    screw: Screw | None = None


def attach(
    flow: ObjectFlow,
    X_world_tool: FloatArray,
    options: AttachmentOptions | None = None,
    *,
    held: FloatArray | NDArray[np.bool_] | None = None,
    object_id: int | None = None,
) -> Attachment:
    """Tool motion that carries the patch around `X_world_tool` along the flow.

    Frames in which no held point has confidence get poses interpolated from their neighbors, and
    weight zero.

    Args:
        flow: Dense object flow.
        X_world_tool: (4, 4) grasp at the flow's first frame.
        options: Selection and robust fit of the patch. Defaults to AttachmentOptions().
        held: (N,) weights of the held points. Defaults to the patch around the tool.
        object_id: The touched object. Defaults to that of the point nearest to the tool.

    Raises:
        ValueError: If no point is held at the first frame, or the patch teleports.
    """
    options = options or AttachmentOptions()
    X_0 = checks.poses("X_world_tool", X_world_tool)
    R_0, p_0 = X_0[:3, :3], X_0[:3, 3:]

    # Held points, in the tool frame and along the flow; points on the last axis for speed.
    if held is None:
        weights = _patch_around(flow, X_0, object_id, options)
    else:
        weights = _given_patch(flow, held)
    index, w = _subsample(weights, options.max_points)
    targets = np.empty((len(flow.times), 3, len(index)))
    for t, frame in enumerate(flow.points):
        targets[t] = frame.take(index, axis=0).T
    source = R_0.T @ (targets[0] - p_0)  # (3, K)
    base = _visible_weights(w * flow.confidence.take(index, axis=1))  # (T, K)

    # Robust rigid fit, with unseen frames filled in.
    moments, kept = _robust_moments(source, targets, base, X_0, options)
    fit = rigid_fit(moments, R_0, min_lever=options.min_lever)
    fit.X_world_tool[0] = X_0
    fit = _interpolate_unseen(fit, flow.times, moments.weight > 0)
    _refuse_teleports(fit.X_world_tool, moments, flow.times, options)

    # One screw motion instead, if wanted and if it explains the flow.
    screw = screw_fit(moments, fit, options.screw_fit) if options.screw else None
    if screw is not None and not screw.explains:
        screw = None
    X = fit.X_world_tool if screw is None else screw.displacement @ X_0
    return Attachment(flow.times, X, moments, fit.K, fit.slip, kept, weights, screw)


def attach_loosely(
    flow: ObjectFlow,
    X_world_tool: FloatArray,
    options: AttachmentOptions | None = None,
    *,
    object_id: int | None = None,
) -> Attachment:
    """Tool motion for contacts that leave the orientation free: a push, or a pinch of cloth.

    The tool's origin follows the rigid motion of the patch. Its orientation is unobserved, and kept
    near that of the contact. The slip is that of the patch.

    Args:
        flow: Dense object flow.
        X_world_tool: (4, 4) contact at the flow's first frame.
        options: Selection and robust fit of the patch. Defaults to AttachmentOptions().
        object_id: The touched object. Defaults to that of the point nearest to the tool.

    Raises:
        ValueError: As `attach`.
    """
    rigid = attach(flow, X_world_tool, options, object_id=object_id)
    # A flow of a single point, the tool's origin, does not observe any rotation.
    origin = rigid.X_world_tool[:, None, :3, 3]  # (T, 1, 3)
    seen = (rigid.moments.weight > 0).astype(float)[:, None]
    one_point = ObjectFlow(flow.times, origin, seen, np.zeros(1, np.int64))
    loose = attach(one_point, X_world_tool, options)
    return replace(loose, slip=rigid.slip, kept=rigid.kept, held=rigid.held)


def fit_screw(
    flow: ObjectFlow,
    options: AttachmentOptions | None = None,
    *,
    held: FloatArray | NDArray[np.bool_] | None = None,
) -> Screw:
    """One-degree-of-freedom motion (hinge, slide or helix) that best explains a flow.

    Args:
        flow: Dense object flow of the moving part.
        options: Robust fit as in `attach`, and the required accuracy of the screw. Defaults to
            AttachmentOptions().
        held: (N,) weights of the points of the part. Defaults to ones.
    """
    options = replace(options or AttachmentOptions(), screw=False)
    weights = np.ones(flow.points.shape[1]) if held is None else np.asarray(held, float)
    # A tool frame at the center of the part.
    seen = weights * flow.confidence[0]
    X = np.eye(4)
    if seen.sum() > 0:
        X[:3, 3] = np.average(flow.points[0], axis=0, weights=seen)
    part = attach(flow, X, options, held=weights)
    fit = RigidFit(part.X_world_tool, part.K, part.slip)
    return screw_fit(part.moments, fit, options.screw_fit)


def _patch_around(
    flow: ObjectFlow, X_0: FloatArray, object_id: int | None, options: AttachmentOptions
) -> FloatArray:
    """Weights (N,) of the points around the tool's origin, on one object."""
    # Distances of the points visible at the first frame.
    seen = flow.confidence[0] > 0
    if object_id is not None:
        seen &= flow.object_id == object_id
    if not seen.any():
        whom = "" if object_id is None else f" of object {object_id}"
        raise ValueError(
            f"flow.confidence: no point{whom} has confidence at frame 0, where the grasp is given; "
            "start the flow at a frame that sees the object"
        )
    offset = flow.points[0] - X_0[:3, 3]
    distance = np.where(seen, np.sqrt(np.einsum("nc,nc->n", offset, offset)), np.inf)
    if object_id is None:
        touched = flow.object_id[np.argmin(distance)]
        distance = np.where(flow.object_id == touched, distance, np.inf)
    # The radius grows until enough points are within.
    available = int(np.isfinite(distance).sum())
    last = min(options.min_points, available) - 1
    radius = max(options.radius, 1.25 * float(np.partition(distance, last)[last]))
    # Biweight falloff to zero at the radius.
    share = np.minimum(distance / radius, 1.0)
    return (1 - share**2) ** 2


def _given_patch(flow: ObjectFlow, held: FloatArray | NDArray[np.bool_]) -> FloatArray:
    """Weights (N,) given by the caller, zero for points whose first position is unknown."""
    weights = checks.array("held", held, (flow.points.shape[1],))
    if weights.min() < 0:
        raise ValueError(f"held: expected non-negative weights, got {weights.min():g}; clip them")
    weights = np.where(flow.confidence[0] > 0, weights, 0.0)
    if not weights.any():
        raise ValueError(
            "held: none of the held points has weight and confidence at frame 0, where the grasp "
            "is given; hold points that are seen at the start"
        )
    return weights


def _subsample(weights: FloatArray, count: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Indices (K,) and weights (K,) of at most `count` held points, spread evenly."""
    index = np.flatnonzero(weights)
    if len(index) > count:
        spread = np.linspace(0, len(index) - 1, count).astype(np.int64)
        index = index[spread]
    return index, weights[index]


def _visible_weights(base: FloatArray) -> FloatArray:
    """Weights (T, K) relative to the largest, in place, with negligible ones set to zero."""
    base /= base.max()
    base[base < _NEGLIGIBLE_WEIGHT] = 0.0
    if not base[0].any():
        raise ValueError(
            "flow.confidence: no held point has notable confidence at frame 0, where the grasp is "
            "given; start the flow at a frame that sees the object"
        )
    if not base[1:].any():
        raise ValueError(
            "flow.confidence: no held point has confidence after the first frame; "
            "give visible points"
        )
    return base


def _robust_moments(
    source: FloatArray,
    targets: FloatArray,
    base: FloatArray,
    X_0: FloatArray,
    options: AttachmentOptions,
) -> tuple[Moments, FloatArray]:
    """Moments under robust weights, and the share (T,) of the weight that these kept."""
    # The rounds use a subset of the points, spread evenly over the patch.
    stride = max(1, -(-base.shape[1] // _REWEIGHTING_POINTS))
    subset = slice(None, None, stride)
    some_source = source[:, subset].copy()
    some_targets = targets[:, :, subset].copy()
    some_base = base[:, subset].copy()
    if not some_base.any(axis=1).all():  # the subset misses the only visible points of a frame
        some_source, some_targets, some_base = source, targets, base

    # Iteratively reweighted least squares until the poses settle.
    X = _fit_poses(point_moments(some_source, some_targets, some_base), X_0)
    for _ in range(int(options.robust_rounds)):
        residual = _residual(some_source, some_targets, X)
        w, scale = _robust_weights(residual, some_base, options)
        X_next = _fit_poses(residual_moments(some_source, residual, w, X), X_0)
        change = np.abs(X_next - X).max()
        X = X_next
        if change < 0.02 * options.noise_floor:
            break

    # One pass over all points.
    residual = _residual(source, targets, X)
    w = base
    if options.robust_rounds:
        w = base * _geman_mcclure(residual, scale)
    total = base.sum(axis=1)
    kept = np.where(total > 0, w.sum(axis=1) / np.where(total > 0, total, 1.0), 0.0)
    return residual_moments(source, residual, w, X), kept


def _residual(source: FloatArray, targets: FloatArray, X: FloatArray) -> FloatArray:
    """Targets (T, 3, K) minus source points (3, K) carried by poses X (T, 4, 4)."""
    carried = X[:, :3, :3] @ source
    carried += X[:, :3, 3:]
    return np.subtract(targets, carried, out=carried)


def _fit_poses(moments: Moments, X_0: FloatArray) -> FloatArray:
    """Best poses (T, 4, 4) with all observable rotations."""
    return rigid_fit(moments, X_0[:3, :3], min_lever=0.0).X_world_tool


def _robust_weights(
    residual: FloatArray, base: FloatArray, options: AttachmentOptions
) -> tuple[FloatArray, FloatArray]:
    """Weights (T, K) under the robust loss, and its scale c (T,) in meters."""
    length = np.sqrt(np.einsum("tck,tck->tk", residual, residual))
    sigma = _weighted_median(length, base) / _MEDIAN_NORM
    scale = options.robust_scale * np.maximum(sigma, options.noise_floor)
    return base * _geman_mcclure(residual, scale), scale


def _geman_mcclure(residual: FloatArray, scale: FloatArray) -> FloatArray:
    """Weights 1 / (1 + (r/c)^2)^2 (T, K) of residuals (T, 3, K) at scales c (T,)."""
    w = np.einsum("tck,tck->tk", residual, residual)
    w /= (scale**2)[:, None]
    w += 1.0
    np.multiply(w, w, out=w)
    return np.reciprocal(w, out=w)


def _weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Medians (T,) of the rows of `values` (T, K) under weights (T, K)."""
    order = np.argsort(values, axis=1)
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    half = 0.5 * cumulative[:, -1:]
    middle = (cumulative < half).sum(axis=1)
    column = np.take_along_axis(order, middle[:, None], axis=1)  # (T, 1)
    return np.take_along_axis(values, column, axis=1)[:, 0]


def _interpolate_unseen(fit: RigidFit, times: FloatArray, seen: NDArray[np.bool_]) -> RigidFit:
    """The fit with poses and slip of unseen frames interpolated from their neighbors."""
    if seen.all():
        return fit
    X = fit.X_world_tool.copy()
    slip = np.interp(times, times[seen], fit.slip[seen])
    known = np.flatnonzero(seen)  # holds frame 0
    for t in np.flatnonzero(~seen):
        following = int(np.searchsorted(known, t))
        if following == len(known):  # unseen until the end: hold the last pose
            X[t] = X[known[-1]]
            continue
        a, b = known[following - 1], known[following]
        share = (times[t] - times[a]) / (times[b] - times[a])
        X[t] = interpolate(X[a], X[b], np.array([share]))[0]
    return RigidFit(X, fit.K, slip)


def _refuse_teleports(
    X: FloatArray, moments: Moments, times: FloatArray, options: AttachmentOptions
) -> None:
    """Raise a ValueError if the patch moves or turns implausibly far between two frames."""
    mean = moments.source_mean[0]
    center = transform(X, mean[None])[:, 0]
    speed = np.linalg.norm(np.diff(center, axis=0), axis=1) / np.diff(times)
    worst = int(np.argmax(speed))
    if speed[worst] > options.max_speed:
        raise ValueError(
            f"flow.points: the held patch teleports at {speed[worst]:.3g} m/s between frames "
            f"{worst} and {worst + 1} (limit {options.max_speed:g}); repair the tracks, stretch "
            "the times or raise AttachmentOptions.max_speed"
        )
    turn = angle_between(X[:-1, :3, :3], X[1:, :3, :3])
    worst = int(np.argmax(turn))
    if turn[worst] > _LARGEST_TURN:
        raise ValueError(
            f"flow.points: the held patch turns by {np.rad2deg(turn[worst]):.0f} degrees between "
            f"frames {worst} and {worst + 1} (limit {np.rad2deg(_LARGEST_TURN):.0f}); repair the "
            "tracks or give more frames"
        )
