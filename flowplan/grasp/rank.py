"""Ranking of contacts jointly with the flow that they are to follow.

A grasp that holds an object well is useless if the arm cannot carry it along the flow. So every
candidate is carried along the whole motion at a few times, all candidates at once:

    slip        deviation of the patch around the contact from its own best rigid motion (robust,
                as in the attachment)
    reach       inverse kinematics at each time, starting from the time before; a jump to another
                branch does not count
    clearance   of the gripper's surface and the arm's spheres to static obstacles and support
    comfort     smallest distance to a joint limit

    score = quality * exp(-slip / 1 cm) * (1 + c_clearance) / 2 * (1 + c_limits) / 2

for those that pass, with both c in [0, 1]. The others are reported with the reason and the time of
failure. A push, or a pinch of a cloth, leaves the hand free to rotate: such a contact is followed
with its first orientation and, if that fails, turning with the patch by half or fully.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment import AttachmentOptions
from flowplan.collision.phase_geometry import VOXEL, PhaseGeometry
from flowplan.geometry import fit_rigid, transform
from flowplan.grasp.candidates import ContactCandidates, ContactKind, no_candidates
from flowplan.grasp.reachability import RankOptions, follow
from flowplan.grasp.surface import even_frames
from flowplan.motion import ObjectFlow
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.collision.distance_field import DistanceField
    from flowplan.robot import Robot

__all__ = ["ContactReport", "RankOptions", "patch_motion", "rank_with_flow"]

_SLIP_SCALE = 0.01
"""Slip that lowers the score by a factor e, meters."""
_PATCH_POINTS = 96
"""Nearest flow points that a patch is fitted to."""
_MIN_PATCH = 30
"""Number of points that a patch is widened to hold."""
_ROUNDS = 3
"""Rounds of robust reweighting."""
_MAD_TO_SIGMA = 1.538
"""Median over standard deviation per axis of the length of a 3-D Gaussian residual."""
_NOISE_FLOOR = 5e-4
"""Smallest noise assumed per axis, meters."""
_FIELD_MARGIN = 0.3
"""Distance around the tool's path that the distance field covers, meters."""


@dataclass(frozen=True)
class ContactReport:
    """Measurements of one candidate.

    Attributes:
        kind: "grasp", "push" or "pinch".
        slip: RMS slip, the largest over the motion, meters.
        reachable: Share of the checked times that the arm reaches.
        first_unreachable: Time at which the arm first fails, seconds; -1 if it never does.
        clearance: Smallest along the reachable motion, meters; negative inside an obstacle.
        limit_margin: Smallest distance to a joint limit along the reachable motion, rad or m.
        quality: Score of the proposer.
        score: Joint score; 0 if rejected.
        reasons: Reasons for the rejection; empty if there are none.
    """

    kind: ContactKind
    slip: float
    reachable: float
    first_unreachable: float
    clearance: float
    limit_margin: float
    quality: float
    score: float
    reasons: tuple[str, ...]


def rank_with_flow(
    candidates: ContactCandidates,
    flow: ObjectFlow,
    around: PhaseGeometry,
    robot: Robot,
    options: RankOptions | None = None,
    *,
    attachment: AttachmentOptions | None = None,
    field: DistanceField | None = None,
    seed: int = 0,
) -> tuple[ContactCandidates, tuple[ContactReport, ...]]:
    """Contacts that can be carried along the whole flow, with new scores, and a report of each.

    Args:
        candidates: Candidates on one object.
        flow: Flow that they are to follow.
        around: Obstacles by phase (flowplan.collision.phase_geometry).
        robot: The robot, placed in the scene.
        options: See RankOptions.
        attachment: Radius of the held patch and its largest slip. Defaults to AttachmentOptions().
        field: Distances to everything that the gripper must not touch along the motion. Built from
            `around` if omitted.
        seed: Random seed of the inverse kinematics' restarts.

    Returns:
        Contacts without a reason against them, best first, and one report for each of
        `candidates`, in their order. A contact that is only reached with the hand turned by 180
        degrees about its approach axis is returned turned.

    Raises:
        ValueError: If the candidates touch different objects.
    """
    options, attachment = options or RankOptions(), attachment or AttachmentOptions()
    if not len(candidates):
        return no_candidates(), ()
    ids = np.unique(candidates.object_id)
    if len(ids) > 1:
        raise ValueError(
            f"candidates.object_id: expected one object, got {ids.tolist()}; split them by object"
        )

    # Carry every candidate along the flow and follow it with the arm.
    frames = even_frames(len(flow.times), options.times)
    X, slip = patch_motion(candidates, flow, frames, attachment.radius)
    free_rotation = np.array([kind != "grasp" for kind in candidates.kind])
    if field is None:
        field = _static_field(around, X)
    followed = follow(robot, X, candidates.width, free_rotation, field, options, seed)
    limits = followed.limit_margin(robot)

    # Judge each of them.
    times, max_slip = flow.times[frames], options.slip_factor * attachment.max_slip
    reports = []
    for g in range(len(candidates)):
        ok, clearance = followed.ok[g], followed.clearance[g]
        reasons = _reasons(ok, clearance, float(slip[g]), times, options, max_slip)
        nearest = float(clearance.min()) if ok.any() else -1.0
        comfort = np.clip([nearest / options.comfortable, limits[g] / options.limit_margin], 0, 1)
        score = candidates.score[g] * np.exp(-slip[g] / _SLIP_SCALE) * np.prod(0.5 + 0.5 * comfort)
        lost = np.flatnonzero(~ok)
        report = ContactReport(
            kind=candidates.kind[g],
            slip=float(slip[g]),
            reachable=float(ok.mean()),
            first_unreachable=float(times[lost[0]]) if len(lost) else -1.0,
            clearance=nearest,
            limit_margin=float(limits[g]),
            quality=float(candidates.score[g]),
            score=0.0 if reasons else float(score),
            reasons=reasons,
        )
        reports.append(report)
    return _ranked(candidates, followed.X[:, 0], reports), tuple(reports)


def patch_motion(
    candidates: ContactCandidates,
    flow: ObjectFlow,
    frames: NDArray[np.int64],
    radius: float,
) -> tuple[FloatArray, FloatArray]:
    """Tool poses that carry each contact's patch along the flow.

    The attachment of every candidate at once, on its nearest flow points: Kabsch fits with the same
    distance weights and Geman-McClure reweighting as flowplan.attachment. In a pinch, the tool
    follows the point that it holds.

    Args:
        candidates: Candidates on one object.
        flow: The flow.
        frames: (T',) frames of the flow.
        radius: Radius of the held patch, meters.

    Returns:
        X_world_tool (G, T', 4, 4), and the largest RMS slip (G,) in meters.

    Raises:
        ValueError: If no visible flow point belongs to the object.
    """
    from scipy.spatial import cKDTree

    object_id = candidates.object_id[0]
    member = np.flatnonzero((flow.object_id == object_id) & (flow.confidence[0] > 0))
    if not len(member):
        raise ValueError(
            f"flow.object_id: no visible point at t = 0 belongs to object {object_id}; "
            "sample points on it"
        )

    # The nearest flow points of each contact, weighted by distance and confidence.
    k = min(_PATCH_POINTS, len(member))
    tree = cKDTree(flow.points[0][member])
    distance, near = tree.query(candidates.X_world_tool[:, :3, 3], k=k)
    distance, near = distance.reshape(-1, k), member[near.reshape(-1, k)]  # (G, K)
    reach = np.maximum(radius, 1.25 * distance[:, min(_MIN_PATCH, k) - 1])
    base = (1 - np.minimum(distance / reach[:, None], 1) ** 2) ** 2 + 1e-9
    source = flow.points[0][near][:, None]  # (G, 1, K, 3)
    target = np.moveaxis(flow.points[frames][:, near], 0, 1)  # (G, T', K, 3)
    confidence = np.moveaxis(flow.confidence[frames][:, near], 0, 1)
    weights = base[:, None] * confidence + 1e-12  # (G, T', K)

    # Rigid fits with robust reweighting of the residuals.
    robust = np.ones_like(weights)
    for _ in range(_ROUNDS):
        M = fit_rigid(source, target, weights * robust)  # (G, T', 4, 4)
        residual = np.linalg.norm(transform(M, source) - target, axis=-1)
        sigma = np.median(residual, axis=-1, keepdims=True) / _MAD_TO_SIGMA
        scale = 4 * np.maximum(sigma, _NOISE_FLOOR)
        robust = 1 / (1 + (residual / scale) ** 2) ** 2
    M[:, 0] = np.eye(4)
    total = (weights * robust).sum(-1)
    slip = np.sqrt((weights * robust * residual**2).sum(-1) / total)

    X = M @ candidates.X_world_tool[:, None]
    pinched = np.array([kind == "pinch" for kind in candidates.kind])
    if pinched.any():
        # A folded patch turns over and would carry a tool above it below the support: the tool
        # keeps its offset from the held point.
        held = source[:, :, 0]  # (G, 1, 3), the point nearest to the tool
        origin = candidates.X_world_tool[:, None, :3, 3]
        origin = origin + transform(M, held[:, :, None])[..., 0, :] - held  # (G, T', 3)
        X[pinched, :, :3, 3] = origin[pinched]
    return X, slip.max(1)


def _static_field(around: PhaseGeometry, X: FloatArray) -> DistanceField:
    """Distances to everything static while the target moves, around all tool poses X."""
    from flowplan.collision.distance_field import distance_field

    origin = X[..., :3, 3].reshape(-1, 3)
    meshes = [mesh for _, mesh in around.during]
    return distance_field(
        meshes,
        lower=origin.min(0) - _FIELD_MARGIN,
        upper=origin.max(0) + _FIELD_MARGIN,
        voxel=VOXEL if meshes else 0.1,
        support_height=around.support_height,
    )


def _reasons(
    ok: NDArray[np.bool_],
    clearance: FloatArray,
    slip: float,
    times: FloatArray,
    options: RankOptions,
    max_slip: float,
) -> tuple[str, ...]:
    """Reasons to reject a candidate, one line each."""
    out = []
    if not ok.all():
        first = int(np.argmin(ok))
        share = 100 * ok.mean()
        out.append(
            f"out of reach from {times[first]:.2f} s on ({share:.0f} % of the motion is reached)"
        )
    if ok.any() and clearance.min() < -options.penetration:
        worst = int(np.argmin(clearance))
        depth = -1e3 * clearance[worst]
        out.append(f"the robot is {depth:.0f} mm inside the surroundings at {times[worst]:.2f} s")
    if slip > max_slip:
        out.append(f"the patch deforms by {1e3 * slip:.0f} mm RMS (limit {1e3 * max_slip:g})")
    return tuple(out)


def _ranked(
    candidates: ContactCandidates, X: FloatArray, reports: list[ContactReport]
) -> ContactCandidates:
    """Candidates without a reason against them, at first poses X (G, 4, 4), best first."""
    score = np.array([report.score for report in reports])
    good = [i for i, report in enumerate(reports) if not report.reasons]
    order = np.array(sorted(good, key=lambda i: -score[i]), np.int64)
    if not len(order):
        return no_candidates()
    return ContactCandidates(
        X[order],
        candidates.width[order],
        score[order],
        tuple(candidates.kind[i] for i in order),
        candidates.object_id[order],
    )
