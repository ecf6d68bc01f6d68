"""Joints between rigid bodies in motion: kind, axis and amounts, with their uncertainty.

The motion of a child as its parent sees it is fitted by a slide, a hinge and a helix
(flowplan.attachment.screw). The simplest kind that fits about as well as the best one is kept; what
a bent motion leaves over may be as large as the difference between kinds, and counts as noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowplan.attachment.moments import Moments, RigidFit, point_moments, rigid_fit
from flowplan.attachment.screw import Kind, Screw, ScrewOptions, screw_fit
from flowplan.geometry import exp_se3, fit_rigid, inverse, transform
from flowplan.parts import JointKind, PartJoint
from flowplan.utils.checks import FloatArray

_KIND: dict[Kind, JointKind] = {"slide": "prismatic", "hinge": "revolute", "helix": "screw"}
_MOST_FRAMES, _MOST_POINTS = 25, 600
_FINEST = 1e-4
"""Meters RMS of misfit that no motion resolves."""
_MIN_LEVER = 1e-4
"""Meters; rotations about an axis closer to all points are not observed."""
_BENT, _BENT_SCREW = 1.2, 2.5
"""Times what a rigid motion leaves over by which a slide or hinge, and a hinge in place of a screw,
may fit worse than the most general joint: the rigid motions of a bent part are off by as much."""
_MOST_BENT = 0.3
"""Share of the way that a simpler joint may cost at most."""
_FREE = 0.15
"""Share of the way that a joint may leave over; beyond it and 3 mm the child moves freely."""
_BLOCKS = 6
"""Blocks of the surface that are left out in turn to tell how certain an axis is."""


@dataclass(frozen=True, eq=False)
class Track:
    """Points of one part, as its parent sees them.

    Attributes:
        start: (K, 3) at t = 0, meters.
        seen: (T, K, 3) over time.
        weight: (K,) share of the surface, less for points that leave the part's motion.
    """

    start: FloatArray
    seen: FloatArray
    weight: FloatArray

    def some(self, frames: int, points: int) -> Track:
        """At most this many frames and points, evenly."""
        t = np.unique(np.linspace(0, len(self.seen) - 1, frames).round().astype(int))
        k = np.unique(np.linspace(0, len(self.start) - 1, points).round().astype(int))
        return Track(self.start[k], self.seen[t][:, k], self.weight[k])

    @property
    def way(self) -> float:
        """Largest RMS displacement at any time, meters."""
        square = ((self.seen - self.start) ** 2).sum(axis=-1) @ self.weight / self.weight.sum()
        return float(np.sqrt(square.max()))


def fit_joint(track: Track, name: str, parent: int, child: int) -> tuple[PartJoint, FloatArray]:
    """The joint that a part moves on, and its amounts (T,) from t = 0, rad or m.

    A part that no joint explains is free, and its amounts are zero.
    """
    few = track.some(_MOST_FRAMES, _MOST_POINTS)
    screw = _screw(few)
    kind = _KIND[screw.kind]
    point = screw.point if kind != "prismatic" else _mean(few)
    joint = PartJoint(name, kind, parent, child, screw.direction, point, screw.pitch)
    amount = amounts(joint, track)
    # What the joint leaves over at the points, and beyond their rigid motion.
    left = _left(joint, amount, track)
    confidence = 1 / (1 + (3 * left / max(track.way, 1e-12)) ** 2)
    if not screw.misfit <= max(_FREE * track.way, ScrewOptions().tolerance):
        X = fit_rigid(track.start, track.seen, track.weight)
        apart = transform(X, track.start) - track.seen
        left = float(np.sqrt(((apart**2).sum(-1) @ track.weight).mean() / track.weight.sum()))
        free = PartJoint(name, "free", parent, child, screw.direction, _mean(few), residual=left)
        return free, np.zeros(len(track.seen))
    joint = replace(
        joint,
        lower=float(amount.min()),
        upper=float(amount.max()),
        residual=left,
        confidence=float(confidence),
    )
    return joint, amount


def with_uncertainty(joint: PartJoint, track: Track) -> PartJoint:
    """The joint with standard deviations of its axis.

    A jackknife over blocks of the surface (Tukey 1958): neighbors err alike, so that points are no
    independent measurements, but blocks nearly are.
    """
    if joint.kind in ("free", "fixed"):
        return joint
    few = track.some(_MOST_FRAMES, _MOST_POINTS)
    order = np.argsort((few.start - few.start.mean(axis=0)) @ _longest(few.start), kind="stable")
    turns, shifts = [], []
    for block in np.array_split(order, _BLOCKS):
        kept = np.setdiff1d(order, block)
        if len(kept) < 4:
            continue
        part = Track(few.start[kept], few.seen[:, kept], few.weight[kept])
        found = _screw(part, joint.kind)
        cosine = np.clip(abs(found.direction @ joint.axis), 0.0, 1.0)
        turns.append(np.arccos(cosine))
        across = found.point - joint.point
        shifts.append(np.linalg.norm(across - joint.axis * (joint.axis @ across)))
    if not turns:
        return joint
    scale = (len(turns) - 1) / len(turns)
    axis_std = float(np.sqrt(scale * np.square(turns).sum()))
    point_std = float(np.sqrt(scale * np.square(shifts).sum()))
    slides = joint.kind == "prismatic"
    return replace(joint, axis_std=axis_std, point_std=0.0 if slides else point_std)


def amounts(joint: PartJoint, track: Track) -> FloatArray:
    """Amounts (T,) along a joint, from t = 0, that follow a track best, rad or m."""
    a, weight = joint.axis, track.weight / track.weight.sum()
    if joint.kind == "prismatic":
        out: FloatArray = ((track.seen - track.start) @ a) @ weight
        return out - out[0]
    # The best turn of the parts across the axis, continued over time.
    before, after = track.start - joint.point, track.seen - joint.point
    sine = np.cross(before, after) @ a @ weight
    flat = before - np.outer(before @ a, a)
    cosine = np.einsum("tki,ki->tk", after, flat) @ weight
    turn = np.unwrap(np.arctan2(sine, cosine))
    if joint.kind == "screw":
        for _ in range(10):
            turn = turn + _newton_step(joint, turn, track, weight)
    out = turn - turn[0]
    return out


def _newton_step(
    joint: PartJoint, turn: FloatArray, track: Track, weight: FloatArray
) -> FloatArray:
    """Gauss-Newton step (T,) of the turns of a screw."""
    placed = transform(exp_se3(turn[:, None] * joint.twist), track.start)
    velocity = np.cross(joint.axis, placed - joint.point) + joint.pitch * joint.axis
    left = track.seen - placed
    gain = (velocity * left).sum(axis=-1) @ weight
    out: FloatArray = gain / np.maximum((velocity**2).sum(axis=-1) @ weight, 1e-300)
    return out


def _screw(track: Track, kind: JointKind | None = None) -> Screw:
    """Best-fitting screw of a track: of a kind, or of the simplest one that its errors allow."""
    moments = _moments(track)
    rigid = rigid_fit(moments, np.eye(3), min_lever=_MIN_LEVER)
    if kind is not None:
        only = next(k for k, v in _KIND.items() if v == kind)
        return screw_fit(moments, rigid, ScrewOptions(), kinds=(only,))
    # Simpler kinds count as equal within what the rigid motion itself leaves over.
    slip, most = _rms_slip(moments, rigid), _MOST_BENT * track.way
    allowed = max(min(_BENT * slip, most), _FINEST)
    screw = screw_fit(moments, rigid, ScrewOptions(), negligible=allowed)
    if screw.kind != "helix":
        return screw
    hinge = screw_fit(moments, rigid, ScrewOptions(), kinds=("hinge",))
    return hinge if hinge.misfit <= max(min(_BENT_SCREW * slip, most), _FINEST) else screw


def _moments(track: Track) -> Moments:
    targets = np.swapaxes(track.seen, 1, 2)  # (T, 3, K)
    weights = np.broadcast_to(track.weight, (len(track.seen), len(track.weight)))
    return point_moments(track.start.T, targets, np.array(weights))


def _rms_slip(moments: Moments, rigid: RigidFit) -> float:
    return float(np.sqrt(np.average(rigid.slip**2, weights=moments.weight)))


def _left(joint: PartJoint, amount: FloatArray, track: Track) -> float:
    """Meters RMS over time and points that a joint leaves over."""
    placed = transform(exp_se3(amount[:, None] * joint.twist), track.start)
    square = ((placed - track.seen) ** 2).sum(axis=-1) @ track.weight / track.weight.sum()
    return float(np.sqrt(square.mean()))


def _mean(track: Track) -> FloatArray:
    out: FloatArray = track.weight @ track.start / track.weight.sum()
    return out


def _longest(points: FloatArray) -> FloatArray:
    """Direction (3,) in which points (K, 3) spread most."""
    centered = points - points.mean(axis=0)
    out: FloatArray = np.linalg.eigh(centered.T @ centered)[1][:, -1]
    return out


def as_seen_by(X_parent: FloatArray, points: FloatArray) -> FloatArray:
    """Points (T, K, 3) moved back by the motion (T, 4, 4) of a parent since t = 0."""
    return transform(inverse(X_parent), points)
