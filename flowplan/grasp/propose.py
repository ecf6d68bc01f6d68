"""Antipodal grasps of a parallel gripper on a mesh.

Rays through the object find antipodal contact pairs (flowplan.grasp.antipodal); every pair gives a
fan of tool poses about its closing line at a few depths. A pose is kept if the open gripper can
come along its approach axis and close without hitting the object, its neighbors or the support.
The remaining poses are ranked by the log odds that the object is held,

    logit = - 30 d - 40 d_xz - 25 |d_x| + 85 depth - 50 width - 5 tilt + 5 margin + robustness,

with d (m) from the tool to the center of mass, d_xz its distance from the closing line and d_x its
part across the fingers, depth (m) of the object in the hand above the pads, width (m) between
them, tilt (rad) between pad and surface, margin the force at the center of mass resisted per
newton of grip, and robustness the mean pad alignment under pose and friction errors
(flowplan.grasp.quality). The coefficients come from a logistic regression on some 400 simulated
lifts and shakes (one intercept per object), rounded by hand: they give an order, not a calibrated
probability. Depth and distance to the center of mass are the most informative; wrench-space
quality and alignment alone say little. Near duplicates are removed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import exp_so3, pose
from flowplan.grasp.antipodal import TORQUE_LENGTH, Pairs, antipodal_pairs, likely_pairs, tangents
from flowplan.grasp.candidates import (
    ContactCandidates,
    Proposal,
    best_first,
    no_candidates,
    spread,
)
from flowplan.grasp.contact import GraspPoses, depth_in_hand, pad_center_z
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.quality import force_margin, robustness
from flowplan.grasp.surface import (
    Surface,
    center_of_mass,
    neighbor_points,
    object_cloud,
    unit_vectors,
)
from flowplan.scene import Scene, SceneObject
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_PATCH_POINTS = 64
"""Surface points around each contact that pads are closed on."""
_PAD_SHIFTS = (0.0, 1 / 3, -1 / 3)
"""Depths tried, relative to the pad's length: contact at the pads' center, tips and roots."""
_HAND_REACH = 0.15
"""Distance beyond approach and opening at which other objects can touch the hand, meters."""
_SEPARATION_ANGLE = 20.0
"""Radians of separation per meter of separation."""
_PER_DISTANCE, _PER_TWIST, _PER_SIDE, _PER_DEPTH, _PER_WIDTH = -30.0, -40.0, -25.0, 85.0, -50.0
"""Weights of d, d_xz, |d_x|, depth and width in the logit, per meter."""
_PER_TILT, _PER_MARGIN, _PER_ROBUST = -5.0, 5.0, 1.0
"""Weights of tilt (per radian), margin (per newton of force and grip) and robustness."""


@dataclass(frozen=True)
class GraspOptions:
    """Search and ranking of antipodal grasps."""

    count: Annotated[int, Interval(1, 10_000)] = 100
    """Largest number of grasps returned."""
    friction: Annotated[float, Interval(0.01, 5)] = 0.5
    """Coulomb coefficient assumed at the contacts."""
    samples: Annotated[int, Interval(1, 1_000_000)] = 3000
    """Number of rays cast through the object."""
    pairs: Annotated[int, Interval(1, 1_000_000)] = 700
    """Antipodal contact pairs turned into tool poses."""
    rolls: Annotated[int, Interval(1, 360)] = 12
    """Approach directions tried about each closing line."""
    candidates: Annotated[int, Interval(1, 1_000_000)] = 2400
    """Tool poses whose contacts and collisions are checked."""
    refined: Annotated[int, Interval(1, 100_000)] = 240
    """Best candidates whose force margin and robustness are computed."""
    perturbations: Annotated[int, Interval(1, 1000)] = 10
    """Pose and friction errors that the robustness is averaged over."""
    position_error: Annotated[float, Interval(0, 0.1)] = 0.005
    """Standard deviation of the hand's position along each axis, meters."""
    rotation_error: Annotated[float, Interval(0, 3.2)] = 0.087
    """Standard deviation of the hand's orientation about each axis, radians."""
    clearance: Annotated[float, Interval(0, 0.1)] = 0.003
    """Clearance between the open gripper and everything else, meters."""
    palm_clearance: Annotated[float, Interval(0, 0.1)] = 0.007
    """Clearance in front of the palm, meters: a hand that stops late pushes with the whole arm."""
    opening: Annotated[float, Interval(0, 0.1)] = 0.01
    """Distance of each finger from its contact before closing, meters, if the hand opens so far."""
    approach: Annotated[float, Interval(0, 1)] = 0.06
    """Length of the straight approach that must be free, meters."""
    compliance: Annotated[float, Interval(1e-5, 0.05)] = 0.003
    """Depth behind a patch's foremost point that still bears load, meters."""
    separation: Annotated[float, Interval(0, 1)] = 0.01
    """Smallest difference between two grasps: meters and, times 20, radians."""

    def __post_init__(self) -> None:
        bounds.check(self)


def propose_grasps(
    obj: SceneObject,
    scene: Scene,
    gripper: Gripper,
    options: GraspOptions | None = None,
    *,
    seed: int = 0,
    faces: NDArray[np.bool_] | None = None,
) -> ContactCandidates:
    """Antipodal grasps on `obj`, best first; empty if there are none (see `grasp_proposal`).

    Args:
        obj: An object of `scene`.
        scene: Scene whose other objects, obstacles and support the gripper must not touch.
        gripper: Gripper of the robot.
        options: See GraspOptions.
        seed: Random seed.
        faces: (F,) True for faces of the object's mesh that the fingers may touch, such as those of
            a drawer's front. Defaults to all. A part of an object counts as supported by the rest:
            the gripper does not carry its weight.
    """
    return grasp_proposal(obj, scene, gripper, options, seed=seed, faces=faces).candidates


def grasp_proposal(
    obj: SceneObject,
    scene: Scene,
    gripper: Gripper,
    options: GraspOptions | None = None,
    *,
    seed: int = 0,
    faces: NDArray[np.bool_] | None = None,
) -> Proposal:
    """`propose_grasps` with the number of candidates left after each stage."""
    options = options or GraspOptions()
    object_id = scene.index(obj.name)
    if faces is not None:
        faces = checks.array("faces", faces, (len(obj.mesh.faces),), dtype=np.bool_)
    rng = np.random.default_rng(seed)

    # Antipodal pairs that fit into the gripper.
    cloud = object_cloud(obj, gripper, rng)
    pairs = antipodal_pairs(
        obj, cloud, rng, samples=options.samples, friction=options.friction, faces=faces
    )
    funnel = [("surface points", len(cloud)), ("antipodal pairs", len(pairs))]
    pairs = pairs.select(pairs.width < gripper.max_width - 2 * options.clearance)
    funnel.append((f"no wider than the gripper ({gripper.max_width:.3g} m)", len(pairs)))
    center = center_of_mass(obj) if faces is None or faces.all() else None
    pairs = likely_pairs(pairs, center, rng, count=options.pairs, friction=options.friction)

    # Tool poses with good contact and without collision.
    poses = _fan_out(pairs, cloud, gripper, scene, options, rng)
    funnel.append(("above the support", len(poses)))
    poses = _settle(poses, gripper, options)
    funnel.append(("pads lie on", len(poses)))
    others = neighbor_points(obj, scene, options.approach + gripper.max_width + _HAND_REACH, rng)
    poses = poses.select(_collision_free(poses, cloud, others, gripper, options))
    funnel.append(("collision-free", len(poses)))
    if not len(poses):
        return Proposal(no_candidates(), tuple(funnel))

    # The best of them, without near duplicates.
    X, width, score = _rate(poses, center, cloud, gripper, options, rng)
    angle = _SEPARATION_ANGLE * options.separation
    chosen = spread(X, score, options.count, distance=options.separation, angle=angle)
    found = best_first(X[chosen], width[chosen], score[chosen], "grasp", object_id)
    funnel.append(("different from each other", len(found)))
    return Proposal(found, tuple(funnel))


def _fan_out(
    pairs: Pairs,
    cloud: Surface,
    gripper: Gripper,
    scene: Scene,
    options: GraspOptions,
    rng: np.random.Generator,
) -> GraspPoses:
    """Tool poses about every pair's closing line that keep the open gripper above the support."""
    from scipy.spatial import cKDTree

    count = len(pairs)
    if not count:
        none = np.zeros((0, 2, 1, 3))
        return GraspPoses(np.zeros((0, 4, 4)), np.zeros(0, np.int64), none, none, 0.0)

    # Approach directions about the closing line y, starting from the steepest one downward.
    y = (pairs.second - pairs.first) / pairs.width[:, None]
    down = np.array([0.0, 0.0, -1.0]) - y * -y[:, 2:]
    vertical = np.linalg.norm(down, axis=1) < 0.1
    down[vertical] = tangents(y[vertical])[0]
    down = unit_vectors(down)
    roll = 2 * np.pi * np.arange(options.rolls) / options.rolls
    turn = exp_so3(roll[None, :, None] * y[:, None])  # (P, rolls, 3, 3)
    z = (turn @ down[:, None, :, None])[..., 0]  # (P, rolls, 3)
    y = np.broadcast_to(y[:, None], z.shape)
    R = np.stack([np.cross(y, z), y, z], axis=-1)

    # Origins that put the contact at the pads' center, or near their tips or roots.
    middle = np.broadcast_to(0.5 * (pairs.first + pairs.second)[:, None], z.shape)
    pad = pad_center_z(gripper, pairs.width)[:, None, None]
    pad = np.broadcast_to(pad, z[..., :1].shape)
    shifts = np.array(_PAD_SHIFTS) * gripper.pad_size[1]
    X = np.stack([pose(R, middle + (shift - pad) * z) for shift in shifts], axis=2)
    X = X.reshape(-1, 4, 4)
    pair = np.repeat(np.arange(count), options.rolls * len(shifts))

    # Poses whose approach stays above the support, and a random subset of them.
    if scene.support_height is not None:
        opened = gripper_boxes(gripper, _opening(pairs.width, gripper, options))
        swept = opened.approached(options.approach).select(pair)
        above = lowest_point(X, swept) > scene.support_height + options.clearance
        X, pair = X[above], pair[above]
    chosen = np.sort(rng.permutation(len(X))[: options.candidates])

    # Surface points around both contacts of each pair.
    k = min(_PATCH_POINTS, len(cloud))
    contacts = np.stack([pairs.first, pairs.second], axis=1)  # (P, 2, 3)
    near = cKDTree(cloud.points).query(contacts, k=k)[1].reshape(count, 2, k)
    return GraspPoses(X[chosen], pair[chosen], cloud.points[near], cloud.normals[near], cloud.area)


def _opening(width: FloatArray, gripper: Gripper, options: GraspOptions) -> FloatArray:
    """(...,) finger opening before closing on an object of some width, meters."""
    return np.minimum(width + 2 * options.opening, gripper.max_width)


def _settle(poses: GraspPoses, gripper: Gripper, options: GraspOptions) -> GraspPoses:
    """Close the pads, center the hand between them, and keep poses within the friction cone."""
    if not len(poses):
        return poses
    pads = poses.close(poses.X_world_tool, poses.pair, gripper, options.compliance)
    X = poses.X_world_tool.copy()
    X[:, :3, 3] += pads.offset[:, None] * X[:, :3, 1]
    keep = pads.touch & (pads.width > 0) & (pads.width < gripper.max_width - 2 * options.clearance)
    keep &= pads.tilt.max(-1) < np.arctan(options.friction)
    return replace(poses, X_world_tool=X, pads=pads.centered()).select(keep)


def _collision_free(
    poses: GraspPoses,
    cloud: Surface,
    others: FloatArray,
    gripper: Gripper,
    options: GraspOptions,
) -> NDArray[np.bool_]:
    """(G,) True if the hand can approach and close, touching nothing except with its pads.

    Args:
        poses: Poses with closed pads.
        cloud: The object's surface.
        others: (M, 3) points of everything else, world frame.
        gripper: Gripper of the robot.
        options: See GraspOptions.
    """
    if not len(poses):
        return np.zeros(0, bool)
    X = poses.X_world_tool
    width = poses.closed.width
    opened = gripper_boxes(gripper, _opening(width, gripper, options))
    closed = gripper_boxes(gripper, width + 2 * options.compliance)

    # The open hand approaches the object, its palm with a clearance of its own.
    palm = np.array([link == gripper.tool_link for link in gripper.box_link])
    ahead = np.where(palm, max(options.palm_clearance - options.clearance, 0.0), 0.0)
    approach = opened.grown(options.clearance).approached(options.approach).advanced(ahead)
    free = clear_of_points(X, approach, cloud.points)

    # Closed on the pads, no other part of the fingers has met the object first.
    rows = np.flatnonzero(free)
    fingers = closed.select(rows).grown(-options.compliance)
    free[rows] = clear_of_points(X[rows], fingers, cloud.points)

    # The whole sweep misses everything else.
    rows = np.flatnonzero(free)
    sweep = opened.hull(closed).select(rows).grown(options.clearance).approached(options.approach)
    free[rows] = clear_of_points(X[rows], sweep, others)
    return free


def _rate(
    poses: GraspPoses,
    center: FloatArray | None,
    cloud: Surface,
    gripper: Gripper,
    options: GraspOptions,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Poses (R, 4, 4), openings (R,) and scores (R,) in [0, 1] of the best candidates.

    `center` (3,) is the center of mass, or None if the gripper does not carry the weight.
    """
    pads = poses.closed
    X = poses.X_world_tool

    # Cheap terms of the logit, for all candidates.
    arm = np.zeros((len(poses), 3))  # center of mass in the tool frame
    if center is not None:
        arm = np.einsum("gji,gj->gi", X[:, :3, :3], center - X[:, :3, 3])
    depth = depth_in_hand(X, pads.width, cloud.points, gripper)
    distance = np.linalg.norm(arm, axis=1)
    logit = _PER_DISTANCE * distance + _PER_TWIST * np.hypot(arm[:, 0], arm[:, 2])
    logit += _PER_SIDE * np.abs(arm[:, 0])
    logit += _PER_DEPTH * depth + _PER_WIDTH * pads.width + _PER_TILT * pads.tilt.max(-1)

    # Expensive terms, for the best of them.
    best = np.argsort(-logit, kind="stable")[: options.refined]
    poses, pads, logit = poses.select(best), pads.select(best), logit[best]
    points, normals = pads.as_points()
    margin = force_margin(
        points,
        -normals,
        friction=options.friction,
        center=arm[best],
        length=TORQUE_LENGTH,
        starts=8,
        iterations=12,
    )
    robust = robustness(
        poses,
        gripper,
        rng,
        count=options.perturbations,
        friction=options.friction,
        compliance=options.compliance,
        position_error=options.position_error,
        rotation_error=options.rotation_error,
    )
    logit += _PER_MARGIN * margin + _PER_ROBUST * robust

    # Less certain if the open fingers leave less room than the position error.
    slack = 0.5 * (gripper.max_width - pads.width)
    room = np.clip(slack / max(options.position_error, 1e-9), 0, 1)
    score = room / (1 + np.exp(-logit))
    return poses.X_world_tool, _opening(pads.width, gripper, options), score
