"""From dense object flow to the motion of a hand: the rigid-attachment forward model (CHORD, section 4.2).

A tool that holds a patch of the object carries it rigidly: point b_k of the patch in the tool frame is at R b_k + t.
The tool poses that the flow asks for are those that minimise the distance of the carried points to the flow,

    X_world_tool(t) = argmin_{R, t} sum_k w_k(t) |R b_k + t - y_k(t)|^2,   b_k = X_world_tool(0)^-1 y_k(0),

so the first pose is the grasp itself. What is left, `slip`, says how untrue "rigid" is: near zero for a rigid object
or one link of an articulated one, and the stretch of the patch for cloth.

Weights are the nearness to the contact times the confidence of the flow times a Geman-McClure weight
1 / (1 + (r/c)^2)^2 of the residual r, found by iteratively reweighted least squares (Geman & McClure 1985), with c from
the median residual of each frame: tracks that went astray do not drag the hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_MEDIAN_NORM = 1.538
"""Median length of a 3-vector whose coordinates are normal with unit variance."""
_NO_WEIGHT = 1e-9
"""Share of the largest weight below which a point counts as not seen: squares of smaller ones lose their digits."""
_LARGEST_TURN = np.deg2rad(120)
"""Between two frames; beyond it the way round is anyone's guess."""


@dataclass(frozen=True)
class AttachmentOptions:
    """How the held patch is chosen and fitted."""

    radius: float = 0.06
    """Metres around the tool's origin within which points are held; their weight falls off to zero there."""
    min_points: int = 30
    """The patch reaches out until it has this many points, where the object has them."""
    max_points: int = 1024
    """Points kept of a larger patch, spread evenly: 1024 tracks with noise s give the hand to about s / 32."""
    robust_rounds: int = 10
    """Rounds of reweighting at most; 0 trusts every track."""
    robust_scale: float = 4.0
    """Standard deviations of the frame's residuals at which a track's weight has fallen to a quarter."""
    noise_floor: float = 5e-4
    """Metres: no track is thought better than this."""
    min_lever: float = 2e-3
    """Metres: a rotation about an axis that all held points are closer to than this is left free."""
    max_speed: float = 5.0
    """Metres per second: a patch that is faster than this between two frames is refused as a teleport."""
    screw: bool = False
    """Replace the poses by one screw motion (hinge, slide or helix) where it explains the flow."""
    screw_fit: ScrewOptions = field(default_factory=ScrewOptions)
    """How the screw is fitted, and how well it must explain the flow."""

    def __post_init__(self) -> None:
        for name in ("radius", "robust_scale", "noise_floor", "max_speed"):
            checks.positive(f"AttachmentOptions.{name}", getattr(self, name))
        for name in ("robust_rounds", "min_lever"):
            checks.positive(f"AttachmentOptions.{name}", getattr(self, name), zero=True)
        for name in ("min_points", "max_points"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"AttachmentOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True, eq=False)
class Attachment:
    """What the tool should do so that the patch it holds follows the flow.

    Attributes:
        times: (T,) seconds, those of the flow.
        X_world_tool: (T, 4, 4) best rigid motion of the held patch; the first is the grasp.
        moments: of the held patch, enough to evaluate any other pose exactly.
        K: (T, 3, 3) rotation stiffness, world axes, m^2; zero along rotations that the patch does not show.
        slip: (T,) weighted RMS distance (m) of the patch from its best rigid motion.
        kept: (T,) share of the patch's weight that the robust loss kept: small where the patch straddles two bodies.
        held: (N,) weight of each flow point in the patch.
        screw: the one-degree-of-freedom motion that replaced the poses, or None.
    """

    times: FloatArray
    X_world_tool: FloatArray
    moments: Moments
    K: FloatArray
    slip: FloatArray
    kept: FloatArray
    held: FloatArray
    screw: Screw | None = None

    @property
    def R_star(self) -> FloatArray:
        """The best rotations (T, 3, 3), world from tool."""
        return self.X_world_tool[:, :3, :3]


def attach(
    flow: ObjectFlow,
    X_world_tool: FloatArray,
    options: AttachmentOptions | None = None,
    *,
    held: FloatArray | NDArray[np.bool_] | None = None,
    object_id: int | None = None,
) -> Attachment:
    """The tool motion that carries the patch around `X_world_tool` along the flow.

    Args:
        flow: dense object flow.
        X_world_tool: (4, 4) grasp at the flow's first frame.
        options: see AttachmentOptions.
        held: (N,) weights of the held points, in place of the patch around the tool.
        object_id: the touched object; that of the point nearest to the tool where not given.

    Frames in which no held point has confidence get poses between those of their neighbours, and weight zero.

    Raises:
        ValueError: when no point is held at the first frame, or the patch teleports.
    """
    options = options or AttachmentOptions()
    X_0 = checks.poses("X_world_tool", X_world_tool)
    weights = _patch(flow, X_0, object_id, options) if held is None else _given_patch(flow, held)
    index, w = _thin(weights, options.max_points)
    targets = np.empty((len(flow.times), 3, len(index)))
    for t, frame in enumerate(
        flow.points
    ):  # points on the last axis: four times faster from here on
        targets[t] = frame.take(index, axis=0).T
    source = X_0[:3, :3].T @ (targets[0] - X_0[:3, 3:])
    base = _visible(w * flow.confidence.take(index, axis=1))
    moments, kept = _robust_moments(source, targets, base, X_0, options)
    fit = rigid_fit(moments, X_0[:3, :3], min_lever=options.min_lever)
    fit.X_world_tool[0] = X_0
    fit = _bridge_unseen(fit, flow.times, moments.weight > 0)
    _refuse_teleports(fit.X_world_tool, moments, flow.times, options)
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
    """As `attach`, for contacts that a hand can turn about: a push, or a pinch of cloth.

    The tool's origin goes where the rigid motion of the patch takes it; which way the tool is turned is left free, and
    kept near the contact's own orientation. The slip is that of the patch.
    """
    firm = attach(flow, X_world_tool, options, object_id=object_id)
    origin = firm.X_world_tool[:, None, :3, 3]
    seen = (firm.moments.weight > 0).astype(float)[:, None]
    one_point = ObjectFlow(flow.times, origin, seen, np.zeros(1, np.int64))
    return replace(
        attach(one_point, X_world_tool, options), slip=firm.slip, kept=firm.kept, held=firm.held
    )


def fit_screw(
    flow: ObjectFlow,
    options: AttachmentOptions | None = None,
    *,
    held: FloatArray | NDArray[np.bool_] | None = None,
) -> Screw:
    """The one-degree-of-freedom motion (hinge, slide or helix) that explains the flow of the held points best.

    Args:
        flow: dense object flow of the moving part.
        options: robust fit as in `attach`; its `screw_fit` says what counts as explained.
        held: (N,) weights of the points of the part; all of them where not given.
    """
    options = replace(options or AttachmentOptions(), screw=False)
    weights = np.ones(flow.points.shape[1]) if held is None else np.asarray(held, float)
    seen = weights * flow.confidence[0]
    X = np.eye(4)
    if seen.sum() > 0:
        X[:3, 3] = np.average(flow.points[0], axis=0, weights=seen)
    held_part = attach(flow, X, options, held=weights)
    fit = RigidFit(held_part.X_world_tool, held_part.K, held_part.slip)
    return screw_fit(held_part.moments, fit, options.screw_fit)


def _patch(
    flow: ObjectFlow, X_0: FloatArray, object_id: int | None, options: AttachmentOptions
) -> FloatArray:
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
    available = int(np.isfinite(distance).sum())
    enough = min(options.min_points, available) - 1
    radius = max(options.radius, 1.25 * float(np.partition(distance, enough)[enough]))
    near = np.minimum(distance / radius, 1.0)
    return (1 - near**2) ** 2


def _given_patch(flow: ObjectFlow, held: FloatArray | NDArray[np.bool_]) -> FloatArray:
    weights = checks.array("held", held, (flow.points.shape[1],))
    if weights.min() < 0:
        raise ValueError(f"held: expected non-negative weights, got {weights.min():g}; clip them")
    weights = np.where(flow.confidence[0] > 0, weights, 0.0)  # where a point starts must be known
    if not weights.any():
        raise ValueError(
            "held: none of the held points has weight and confidence at frame 0, where the grasp is given; "
            "hold points that are seen at the start"
        )
    return weights


def _thin(weights: FloatArray, most: int) -> tuple[NDArray[np.int64], FloatArray]:
    index = np.flatnonzero(weights)
    if len(index) > most:
        index = index[np.linspace(0, len(index) - 1, most).astype(np.int64)]
    return index, weights[index]


def _visible(base: FloatArray) -> FloatArray:
    base /= base.max()
    base[base < _NO_WEIGHT] = 0.0
    if not base[0].any():
        raise ValueError(
            "flow.confidence: no held point has confidence to speak of at frame 0, where the grasp is given; "
            "start the flow at a frame that sees the object"
        )
    if not base[1:].any():
        raise ValueError(
            "flow.confidence: no held point has confidence after the first frame; give visible points"
        )
    return base


def _robust_moments(
    source: FloatArray,
    targets: FloatArray,
    base: FloatArray,
    X_0: FloatArray,
    options: AttachmentOptions,
) -> tuple[Moments, FloatArray]:
    # The rounds run on few points, spread evenly over the patch; one pass over all of them ends it.
    few = slice(None, None, max(1, -(-base.shape[1] // 512)))
    some_source, some_targets, some_base = (
        source[:, few].copy(),
        targets[:, :, few].copy(),
        base[:, few].copy(),
    )
    if not some_base.any(axis=1).all():  # a few seen points may all have been passed over
        some_source, some_targets, some_base = source, targets, base
    X = _fit_poses(point_moments(some_source, some_targets, some_base), X_0)
    for _ in range(int(options.robust_rounds)):
        residual = _residual(some_source, some_targets, X)
        w, scale = _robust_weights(residual, some_base, options)
        X_next = _fit_poses(residual_moments(some_source, residual, w, X), X_0)
        moved = np.abs(X_next - X).max()
        X = X_next
        if moved < 0.02 * options.noise_floor:
            break
    residual = _residual(source, targets, X)
    w = base
    if options.robust_rounds:
        w = base * _geman_mcclure(residual, scale)
    total = base.sum(axis=1)
    kept = np.where(total > 0, w.sum(axis=1) / np.where(total > 0, total, 1.0), 0.0)
    return residual_moments(source, residual, w, X), kept


def _residual(source: FloatArray, targets: FloatArray, X: FloatArray) -> FloatArray:
    moved = X[:, :3, :3] @ source
    moved += X[:, :3, 3:]
    return np.subtract(targets, moved, out=moved)


def _fit_poses(moments: Moments, X_0: FloatArray) -> FloatArray:
    return rigid_fit(moments, X_0[:3, :3], min_lever=0.0).X_world_tool


def _robust_weights(
    residual: FloatArray, base: FloatArray, options: AttachmentOptions
) -> tuple[FloatArray, FloatArray]:
    length = np.sqrt(np.einsum("tck,tck->tk", residual, residual))
    sigma = _weighted_median(length, base) / _MEDIAN_NORM
    scale = options.robust_scale * np.maximum(sigma, options.noise_floor)
    return base * _geman_mcclure(residual, scale), scale


def _geman_mcclure(residual: FloatArray, scale: FloatArray) -> FloatArray:
    w = np.einsum("tck,tck->tk", residual, residual)
    w /= (scale**2)[:, None]
    w += 1.0
    np.multiply(w, w, out=w)
    return np.reciprocal(w, out=w)


def _weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    order = np.argsort(values, axis=1)
    cumulative = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    middle = (cumulative < 0.5 * cumulative[:, -1:]).sum(axis=1)
    return np.take_along_axis(values, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[
        :, 0
    ]


def _bridge_unseen(fit: RigidFit, times: FloatArray, seen: NDArray[np.bool_]) -> RigidFit:
    if seen.all():
        return fit
    X, slip = fit.X_world_tool.copy(), np.interp(times, times[seen], fit.slip[seen])
    known = np.flatnonzero(seen)
    for t in np.flatnonzero(~seen):
        after = int(np.searchsorted(known, t))
        if after == len(known):
            X[t] = X[known[-1]]
            continue
        a, b = known[after - 1], known[after]  # frame 0 is always seen
        X[t] = interpolate(X[a], X[b], np.array([(times[t] - times[a]) / (times[b] - times[a])]))[0]
    return RigidFit(X, fit.K, slip)


def _refuse_teleports(
    X: FloatArray, moments: Moments, times: FloatArray, options: AttachmentOptions
) -> None:
    b = moments.source_mean[0]
    centre = transform(X, b[None])[:, 0]
    speed = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.diff(times)
    worst = int(np.argmax(speed))
    if speed[worst] > options.max_speed:
        raise ValueError(
            f"flow.points: the held patch teleports at {speed[worst]:.3g} m/s between frames {worst} and {worst + 1} "
            f"(limit {options.max_speed:g}); repair the tracks, stretch the times or raise AttachmentOptions.max_speed"
        )
    turn = angle_between(X[:-1, :3, :3], X[1:, :3, :3])
    worst = int(np.argmax(turn))
    if turn[worst] > _LARGEST_TURN:
        raise ValueError(
            f"flow.points: the held patch turns by {np.rad2deg(turn[worst]):.0f} degrees between frames {worst} and "
            f"{worst + 1} (limit 120); repair the tracks or give more frames"
        )
