"""Push contacts: closed fingertips against a surface that the flow moves away from them.

A push can only move a surface point along its own direction. With the outward normal n(t) and the
velocity v(t) of a material point, a finger in front of it can drive the whole motion if
-n(t) . v(t) / |v(t)| stays above cos(arctan mu): the normal turns with a lid, and so does the
velocity. The same motion takes less force far from a hinge, so points are preferred by their path
length. The tool stands at a small offset outside the surface, approaches within a tilt of -n, and
is carried along by the rigid motion of the surface around the contact, either turning with it or
keeping its orientation; at least one of the two must stay clear of everything that does not move.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import fit_rigid, pose
from flowplan.grasp.antipodal import tangents
from flowplan.grasp.candidates import (
    ContactCandidates,
    Proposal,
    best_first,
    no_candidates,
    spread,
)
from flowplan.grasp.gripper_clearance import Boxes, clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.surface import (
    Tracks,
    even_frames,
    neighbor_points,
    static_points,
    track_surface,
    unit_vectors,
)
from flowplan.motion import SceneMotion
from flowplan.scene import Scene
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_UNGUIDED = 0.2
"""Score factor on an object that moves as a whole: nothing keeps it from turning away from a
single finger."""
_HAND_REACH = 0.3
"""Distance beyond the approach at which other objects can touch the hand, meters."""
_SLOW = 0.1
"""Share of a point's fastest step below which its direction of motion is not judged."""
_FLAT = 0.9
"""Cosine to the contact's normal from which a point counts as part of a flat patch."""
_MOTION_POINTS = 48
"""Nearest surface points that a contact's rigid motion is fitted to."""
_TIP_DEPTH = 0.012
"""Distance behind the fingers' end within which a foremost point is a fingertip, meters."""


@dataclass(frozen=True)
class PushOptions:
    """Search and ranking of push contacts."""

    count: Annotated[int, Interval(1, 10_000)] = 100
    """Largest number of the best pushes overall, and of the best of every contact."""
    friction: Annotated[float, Interval(0.01, 5)] = 0.5
    """Coulomb coefficient between finger and surface; pushes stay in its cone at all times."""
    offset: Annotated[float, Interval(0, 0.1)] = 0.005
    """Distance between fingertip and surface before the push, meters."""
    clearance: Annotated[float, Interval(0, 0.1)] = 0.003
    """Clearance between the closed gripper and everything else, meters."""
    approach: Annotated[float, Interval(0, 1)] = 0.03
    """Length of the straight approach that must be free, meters."""
    samples: Annotated[int, Interval(1, 1_000_000)] = 3000
    """Number of surface points considered."""
    contacts: Annotated[int, Interval(1, 10_000)] = 48
    """Surface points, apart from each other, that tool poses are tried at."""
    tilts: Annotated[tuple[float, ...], Interval(0, 1.58)] = (0.0, 0.45, 0.9, 1.3)
    """Angles between the tool's z and the inward normal, radians."""
    azimuths: Annotated[int, Interval(1, 360)] = 8
    """Number of directions that the tool is tilted in."""
    frames: Annotated[int, Interval(2, 1000)] = 6
    """Times of the motion that are checked."""
    patch: Annotated[float, Interval(0.001, 0.5)] = 0.012
    """Radius around a contact that should be flat, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class PushContacts:
    """P places to push, world frame at t = 0.

    Attributes:
        point: (P, 3) meters.
        normal: (P, 3) unit, outward.
        score: (P,) in [0, 1].
        motion: (P, T, 4, 4) rigid motion of the surface around each, identity first.
    """

    point: FloatArray
    normal: FloatArray
    score: FloatArray
    motion: FloatArray


def propose_pushes(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PushOptions | None = None,
    *,
    seed: int = 0,
) -> ContactCandidates:
    """Pushes that can drive object `target` along `motion`, best first; empty if there are none.

    Args:
        scene: The scene.
        motion: Motion of the scene.
        target: Index of the object to push.
        gripper: Gripper that pushes with its fingers closed.
        options: See PushOptions.
        seed: Random seed.
    """
    return push_proposal(scene, motion, target, gripper, options, seed=seed).candidates


def push_proposal(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PushOptions | None = None,
    *,
    seed: int = 0,
) -> Proposal:
    """`propose_pushes` with the number of candidates left after each stage."""
    options = options or PushOptions()
    rng = np.random.default_rng(seed)
    obj = scene.objects[target]

    # Surface points that a push can drive, and tool poses in front of them.
    frames = even_frames(len(motion.times), options.frames)
    tracks = track_surface(obj, motion, target, frames, options.samples, rng)
    funnel = [("moving surface points", len(tracks))]
    contacts = _pushable(tracks, options)
    funnel.append(("pushed within the friction cone all along", len(contacts.point)))
    X, contact = _tool_poses(contacts, gripper, options)
    funnel.append(("tool poses with the fingertips in front", len(X)))

    # Free at the start, approach included.
    boxes = gripper_boxes(gripper, np.zeros(1))
    static = static_points(scene, motion, target, rng)
    others = neighbor_points(obj, scene, options.approach + _HAND_REACH, rng)
    everything = np.concatenate([tracks.points[0], static, others])
    support = scene.support_height
    free = _free(X, boxes, everything, support, options, approach=options.approach)
    X, contact = X[free], contact[free]
    funnel.append(("free at the start", len(X)))

    # Score, and a varied selection: the best overall, and some of every contact, since it is not
    # known here which of them an arm can reach.
    along = -np.einsum("gi,gi->g", X[:, :3, 2], contacts.normal[contact])
    guided = 1.0 if len(static) else _UNGUIDED
    score = contacts.score[contact] * (0.85 + 0.15 * along) * guided
    each = max(1, round(2 * options.count / options.contacts))
    best = spread(X, score, 5 * options.count, distance=0.015, angle=0.3)
    selected = np.union1d(best, _best_of_each(X, score, contact, 3 * each))
    X, contact, score = X[selected], contact[selected], score[selected]

    # Free along the motion.
    obstacles = np.concatenate([static, others])
    free = _free_along(X, contacts.motion[contact], boxes, obstacles, support, options)
    X, contact, score = X[free], contact[free], score[free]
    funnel.append(("free along the motion", len(X)))
    if not len(X):
        return Proposal(no_candidates(), tuple(funnel))

    # Up to `count` of the best overall, and up to `count` of the best of every contact.
    few = _best_of_each(X, score, contact, each)
    few = few[np.argsort(-score[few], kind="stable")[: options.count]]
    chosen = np.union1d(spread(X, score, options.count, distance=0.03, angle=0.45), few)
    found = best_first(X[chosen], np.zeros(len(chosen)), score[chosen], "push", target)
    funnel.append(("different from each other", len(found)))
    return Proposal(found, tuple(funnel))


def _best_of_each(
    X: FloatArray, score: FloatArray, contact: NDArray[np.int64], each: int
) -> NDArray[np.int64]:
    """Indices of up to `each` good poses of every contact, of different orientations."""
    chosen = [np.zeros(0, np.int64)]
    for c in np.unique(contact):
        rows = np.flatnonzero(contact == c)
        chosen.append(rows[spread(X[rows], score[rows], each, distance=np.inf, angle=0.5)])
    return np.concatenate(chosen)


def _pushable(tracks: Tracks, options: PushOptions) -> PushContacts:
    """The best places, apart from each other, that can be pushed along their whole motion."""
    from scipy.spatial import cKDTree

    T = len(tracks.points)
    if not len(tracks):
        none = np.zeros((0, 3))
        return PushContacts(none, none, np.zeros(0), np.zeros((0, T, 4, 4)))

    # Cosine between each step and the inward normal in its middle.
    step = np.diff(tracks.points, axis=0)  # (T - 1, M, 3)
    length = np.linalg.norm(step, axis=-1)
    middle = unit_vectors(tracks.normals[1:] + tracks.normals[:-1])
    along = -np.einsum("tmc,tmc->tm", middle, step) / np.maximum(length, 1e-12)
    along[length < _SLOW * length.max(0)] = 1.0  # hardly moving: the direction is undefined

    # Margin to the friction cone at the worst time, and path length.
    cos_cone = 1 / np.hypot(1, options.friction)
    margin = (along.min(0) - cos_cone) / (1 - cos_cone)
    path = length.sum(0)

    # Share of the patch around each point that is flat.
    start, normal = tracks.points[0], tracks.normals[0]
    tree = cKDTree(start)
    patches = tree.query_ball_point(start, options.patch)
    flat = [np.sum(normal[rows] @ normal[i] > _FLAT) for i, rows in enumerate(patches)]
    cover = np.clip(np.array(flat) * tracks.area / (np.pi * options.patch**2), 0, 1)
    score = np.sqrt(np.clip(margin, 0, 1)) * path / path.max() * cover
    score = np.where(margin > 0, score, 0.0)

    # The best points, apart from each other, and the rigid motion of the surface around them.
    rows = np.flatnonzero(score > 0)
    X = pose(translation=start[rows])
    apart = 2.5 * options.patch
    best = rows[spread(X, score[rows], options.contacts, distance=apart, angle=np.inf)]
    motion = np.zeros((0, T, 4, 4))
    if len(best):
        k = min(_MOTION_POINTS, len(start))
        near = tree.query(start[best], k=k)[1].reshape(len(best), k)
        source = tracks.points[0][near][:, None]  # (P, 1, K, 3)
        motion = fit_rigid(source, np.moveaxis(tracks.points[:, near], 0, 1))
    return PushContacts(start[best], normal[best], score[best], motion)


def _tool_poses(
    contacts: PushContacts, gripper: Gripper, options: PushOptions
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Tool poses with the closed fingertips in front of each contact.

    Returns:
        X_world_tool (G, 4, 4), and the contact (G,) of each.
    """
    turns = _approaches(options)  # (A, 3, 3), in a frame whose z is the inward normal
    inward = -contacts.normal
    t1, t2 = tangents(inward)
    frame = np.stack([t1, t2, inward], axis=-1)  # (P, 3, 3)

    # The part of the gripper that is foremost towards the surface must be a fingertip.
    boxes = gripper_boxes(gripper, np.zeros(1))
    lower, upper = boxes.lower[0][:, None], boxes.upper[0][:, None]  # (B, 1, 3)
    at_upper = np.array(list(itertools.product((False, True), repeat=3)))  # (8, 3)
    corners = np.where(at_upper, upper, lower).reshape(-1, 3)
    depth = corners @ turns[:, 2].T  # (C, A), of each corner along the inward normal
    foremost = depth > depth.max(0) - 1e-3
    tip = np.einsum("ca,ci->ai", foremost, corners) / foremost.sum(0)[:, None]  # (A, 3)
    fingertip = tip[:, 2] > gripper.finger_depth - _TIP_DEPTH
    turns, tip = turns[fingertip], tip[fingertip]

    # Put that fingertip at the offset from the surface.
    R = frame[:, None] @ turns
    touch = (contacts.point + options.offset * contacts.normal)[:, None]
    origin = touch - (R @ tip[..., None])[..., 0]
    contact = np.repeat(np.arange(len(frame)), len(turns))
    return pose(R, origin).reshape(-1, 4, 4), contact


def _approaches(options: PushOptions) -> FloatArray:
    """Tool rotations (A, 3, 3) relative to the normal: z tilted, y across the tilt or along it."""
    out = []
    for tilt in options.tilts:
        # Without a tilt, half of the azimuths give all rotations of a symmetric gripper.
        count = options.azimuths if tilt > 0 else options.azimuths // 2
        for azimuth in 2 * np.pi * np.arange(count) / options.azimuths:
            c, s = np.cos(azimuth), np.sin(azimuth)
            across = np.array([-s, c, 0.0])
            z = np.array([np.sin(tilt) * c, np.sin(tilt) * s, np.cos(tilt)])
            for y in (across, np.cross(z, across)) if tilt > 0 else (across,):
                out.append(np.stack([np.cross(y, z), y, z], axis=-1))
    return np.array(out)


def _free_along(
    X: FloatArray,
    motion: FloatArray,
    boxes: Boxes,
    points: FloatArray,
    support_height: float | None,
    options: PushOptions,
) -> NDArray[np.bool_]:
    """(G,) True if the gripper stays clear along the rigid motion (G, T, 4, 4) of its contact.

    It may turn with the surface, or keep its orientation.
    """
    turning, steady = np.ones(len(X), bool), np.ones(len(X), bool)
    for frame in range(1, motion.shape[1]):
        carried = motion[:, frame] @ X
        upright = pose(X[:, :3, :3], carried[:, :3, 3])
        turning &= _free(carried, boxes, points, support_height, options, approach=0.0)
        steady &= _free(upright, boxes, points, support_height, options, approach=0.0)
    return turning | steady


def _free(
    X: FloatArray,
    boxes: Boxes,
    points: FloatArray,
    support_height: float | None,
    options: PushOptions,
    *,
    approach: float,
) -> NDArray[np.bool_]:
    """(G,) True if the closed gripper is clear of the points (M, 3) and above the support."""
    margin = min(options.clearance, 0.6 * options.offset)
    swept = boxes.grown(margin).approached(approach).select(np.zeros(len(X), np.int64))
    free = clear_of_points(X, swept, points)
    if support_height is not None:
        free &= lowest_point(X, swept) > support_height
    return free
