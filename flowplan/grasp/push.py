"""Push contacts: closed fingertips against a surface that the flow moves away from them (CHORD's second mode).

A push can only move a surface point the way it pushes. With the outward normal n(t) and the velocity v(t) of a material
point, a finger in front of it moves it all along the motion when -n(t) . v(t) / |v(t)| stays above cos(arctan mu): the
normal turns with a lid, and so does the velocity. Far from a hinge the same motion takes less force: points are
preferred by the length of their way. The tool then stands at a small offset outside the surface, approaching within a
tilt of -n, and is carried along by the rigid motion of the surface around the contact, turning with it or keeping its
own orientation; one or the other must stay clear of what does not move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import fit_rigid, pose
from flowplan.grasp.gripper_clearance import Boxes, clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.proposal import Proposal, best_first, no_candidates, spread
from flowplan.grasp.records import ContactCandidates
from flowplan.grasp.surface import Tracks, neighbours, still_points, track_surface
from flowplan.motion import SceneMotion
from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_UNGUIDED = 0.2
"""Worth of a push on an object of which no part stays: nothing keeps it from turning away from a single finger."""


@dataclass(frozen=True)
class PushOptions:
    """How push contacts are searched and judged."""

    count: int = 100
    """Pushes of either kind at most: the best anywhere, and a few of every contact."""
    friction: float = 0.5
    """Coulomb coefficient between finger and surface; the push must stay in its cone at all times."""
    offset: float = 0.005
    """Metres between fingertip and surface before the push."""
    clearance: float = 0.003
    """Metres that the closed gripper keeps from everything else."""
    approach: float = 0.03
    """Metres of straight approach that must be free."""
    samples: int = 3000
    """Surface points looked at."""
    contacts: int = 48
    """Surface points, well apart from each other, that tool poses are tried at."""
    tilts: tuple[float, ...] = (0.0, 0.45, 0.9, 1.3)
    """Radians between the tool's z and the inward normal."""
    azimuths: int = 8
    """Directions the tool is tilted to."""
    frames: int = 6
    """Times of the motion that are looked at."""
    patch: float = 0.012
    """Metres around a contact that should be flat."""

    def __post_init__(self) -> None:
        for name in ("count", "samples", "contacts", "azimuths"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"PushOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        if self.frames < 2:
            raise ValueError(f"PushOptions.frames: expected at least 2, got {self.frames}")
        checks.positive("PushOptions.friction", self.friction)
        checks.positive("PushOptions.patch", self.patch)
        for name in ("offset", "clearance", "approach"):
            checks.positive(f"PushOptions.{name}", getattr(self, name), zero=True)


@dataclass(frozen=True, eq=False)
class Contacts:
    """P places to push, world frame at t = 0.

    Attributes:
        point: (P, 3) metres.
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
    """Pushes that can drive object `target` along `motion`, best first; empty where there is none.

    Args:
        scene: what there is.
        motion: how it should move.
        target: index of the object to push.
        gripper: pushes with its fingers closed.
        options: see PushOptions.
        seed: of the sampling.
    """
    return push_proposal(scene, motion, target, gripper, options, seed=seed).grasps


def push_proposal(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PushOptions | None = None,
    *,
    seed: int = 0,
) -> Proposal:
    """As `propose_pushes`, with the number of candidates left after each stage."""
    options = options or PushOptions()
    rng = np.random.default_rng(seed)
    frames = np.unique(np.linspace(0, len(motion.times) - 1, options.frames).round().astype(int))
    tracks = track_surface(scene.objects[target], motion, target, frames, options.samples, rng)
    funnel = [("moving surface points", len(tracks))]
    contacts = _pushable(tracks, options)
    funnel.append(("pushed within the friction cone all along", len(contacts.point)))
    X, contact = _tool_poses(contacts, gripper, options)
    funnel.append(("tool poses with the fingertips in front", len(X)))

    boxes = gripper_boxes(gripper, np.zeros(1))
    still = still_points(scene, motion, target, rng)
    obj = scene.objects[target]
    others = neighbours(obj, scene, options.approach + 0.3, rng)
    whole = np.concatenate([tracks.points[0], still, others])
    free = _free(X, boxes, whole, scene.support_height, options, approach=options.approach)
    X, contact = X[free], contact[free]
    funnel.append(("free at the start", len(X)))
    along = -np.einsum("gi,gi->g", X[:, :3, 2], contacts.normal[contact])
    score = contacts.score[contact] * (0.85 + 0.15 * along) * (1.0 if len(still) else _UNGUIDED)
    # A few of each contact, unlike each other: which of them an arm can reach is not known here.
    each = max(1, round(2 * options.count / options.contacts))
    best = spread(X, score, 5 * options.count, distance=0.015, angle=0.3)
    some = np.union1d(best, _few_of_each(X, score, contact, 3 * each))
    X, contact, score = X[some], contact[some], score[some]
    static = np.concatenate([still, others])
    turning, steady = np.ones(len(X), bool), np.ones(len(X), bool)
    for frame in range(1, len(frames)):
        carried = contacts.motion[contact, frame] @ X
        kept = pose(X[:, :3, :3], carried[:, :3, 3])
        turning &= _free(carried, boxes, static, scene.support_height, options, approach=0.0)
        steady &= _free(kept, boxes, static, scene.support_height, options, approach=0.0)
    free = turning | steady
    X, contact, score = X[free], contact[free], score[free]
    funnel.append(("free along the motion", len(X)))
    if not len(X):
        return Proposal(no_candidates(), tuple(funnel))
    # Half of them the best anywhere, half a few of every contact.
    few = _few_of_each(X, score, contact, each)
    few = few[np.argsort(-score[few], kind="stable")[: options.count]]
    chosen = np.union1d(spread(X, score, options.count, distance=0.03, angle=0.45), few)
    grasps = best_first(X[chosen], np.zeros(len(chosen)), score[chosen], "push", target)
    funnel.append(("different from each other", len(grasps)))
    return Proposal(grasps, tuple(funnel))


def _few_of_each(
    X: FloatArray, score: FloatArray, contact: NDArray[np.int64], each: int
) -> NDArray[np.int64]:
    """Indices of up to `each` poses of every contact, good ones whose orientations differ."""
    chosen = [np.zeros(0, np.int64)]
    for c in np.unique(contact):
        rows = np.flatnonzero(contact == c)
        chosen.append(rows[spread(X[rows], score[rows], each, distance=np.inf, angle=0.5)])
    return np.concatenate(chosen)


def _pushable(tracks: Tracks, options: PushOptions) -> Contacts:
    """The best places, well apart, whose velocity stays inside the friction cone about the inward normal."""
    if not len(tracks):
        return Contacts(
            np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, len(tracks.points), 4, 4))
        )
    step = np.diff(tracks.points, axis=0)  # (T - 1, M, 3)
    length = np.linalg.norm(step, axis=-1)
    middle = tracks.normals[1:] + tracks.normals[:-1]
    middle /= np.maximum(np.linalg.norm(middle, axis=-1, keepdims=True), 1e-12)
    along = -np.einsum("tmc,tmc->tm", middle, step) / np.maximum(length, 1e-12)
    along[length < 0.1 * length.max(0)] = 1.0  # hardly moving: no direction to speak of
    way = length.sum(0)
    cos_cone = 1 / np.hypot(1, options.friction)
    margin = (along.min(0) - cos_cone) / (1 - cos_cone)

    start, normal = tracks.points[0], tracks.normals[0]
    near = cKDTree(start).query_ball_point(start, options.patch)
    flat = np.array([np.sum(normal[rows] @ normal[i] > 0.9) for i, rows in enumerate(near)])
    cover = np.clip(flat * tracks.area / (np.pi * options.patch**2), 0, 1)
    score = np.where(margin > 0, np.sqrt(np.clip(margin, 0, 1)) * way / way.max() * cover, 0.0)

    rows = np.flatnonzero(score > 0)
    X = pose(translation=start[rows])
    best = rows[
        spread(X, score[rows], options.contacts, distance=2.5 * options.patch, angle=np.inf)
    ]
    tree = cKDTree(start)
    patch = tree.query(start[best], k=min(48, len(start)))[1].reshape(
        len(best), min(48, len(start))
    )
    source = tracks.points[0][patch][:, None]  # (P, 1, K, 3)
    rigid = (
        fit_rigid(source, np.moveaxis(tracks.points[:, patch], 0, 1))
        if len(best)
        else np.zeros((0, len(tracks.points), 4, 4))
    )
    return Contacts(start[best], normal[best], score[best], rigid)


def _tool_poses(
    contacts: Contacts, gripper: Gripper, options: PushOptions
) -> tuple[FloatArray, NDArray[np.int64]]:
    """X_world_tool (G, 4, 4) with the closed fingertips in front of each contact, and the contact (G,) of each."""
    turns = _approaches(options)  # (A, 3, 3), in a frame whose z is the inward normal
    inward = -contacts.normal
    helper = np.eye(3)[np.argmin(np.abs(inward), axis=1)]
    x = np.cross(helper, inward)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    frame = np.stack([x, np.cross(inward, x), inward], axis=-1)  # (P, 3, 3)
    # The part of the gripper that is foremost towards the surface must be a fingertip; it is put at the offset.
    boxes = gripper_boxes(gripper, np.zeros(1))
    signs = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners = np.where(signs, boxes.upper[0][:, None], boxes.lower[0][:, None]).reshape(-1, 3)
    reach = corners @ turns[:, 2].T  # (C, A): how far each corner goes along the inward normal
    foremost = reach > reach.max(0) - 1e-3
    tip = np.einsum("ca,ci->ai", foremost, corners) / foremost.sum(0)[:, None]  # (A, 3) tool frame
    good = tip[:, 2] > gripper.finger_depth - 0.012
    turns, tip = turns[good], tip[good]
    R = frame[:, None] @ turns
    origin = (contacts.point + options.offset * contacts.normal)[:, None] - (R @ tip[..., None])[
        ..., 0
    ]
    return pose(R, origin).reshape(-1, 4, 4), np.repeat(np.arange(len(frame)), len(turns))


def _approaches(options: PushOptions) -> FloatArray:
    """Tool rotations (A, 3, 3): z tilted from the normal's z to every azimuth, y across the tilt or along it."""
    out = []
    for tilt in options.tilts:
        count = options.azimuths if tilt > 0 else options.azimuths // 2
        for azimuth in 2 * np.pi * np.arange(count) / options.azimuths:
            c, s = np.cos(azimuth), np.sin(azimuth)
            across = np.array([-s, c, 0.0])
            z = np.array([np.sin(tilt) * c, np.sin(tilt) * s, np.cos(tilt)])
            for y in (across, np.cross(z, across)) if tilt > 0 else (across,):
                out.append(np.stack([np.cross(y, z), y, z], axis=-1))
    return np.array(out)


def _free(
    X: FloatArray,
    boxes: Boxes,
    points: FloatArray,
    support_height: float | None,
    options: PushOptions,
    *,
    approach: float,
) -> NDArray[np.bool_]:
    """(G,) is the closed gripper clear of the points and above the support?"""
    margin = min(options.clearance, 0.6 * options.offset)
    swept = boxes.grown(margin).approached(approach).select(np.zeros(len(X), np.int64))
    free = clear_of_points(X, swept, points)
    if support_height is not None:
        free &= lowest_point(X, swept) > support_height
    return free
