"""Which contact suits the motion: contacts and flow ranked jointly.

A grasp that holds an object well is of no use when the arm cannot carry it where the flow goes. So every candidate is
carried along the whole motion at a few times, all candidates at once:

    slip        what the patch around the contact deviates from its own best rigid motion (robust, as in the attachment)
    reach       inverse kinematics at each time, warm from the one before; a jump to another branch does not count
    clearance   of the gripper's surface and the arm's spheres to what does not move, and to the support
    comfort     the least distance to a joint limit

    score = quality * exp(-slip / 1 cm) * (1 + c_clearance) / 2 * (1 + c_limits) / 2

for those that come through, with both c in [0, 1]. The others are reported with the reason and the time at which they
fail. A push, or a pinch of a sheet, leaves the hand free to turn: such a contact is followed with the orientation that
it started with, and where that fails, turning with the patch by half or wholly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.phase_geometry import is_sheet, surroundings
from flowplan.geometry import angle_between, exp_so3, fit_rigid, log_so3, pose, transform
from flowplan.grasp.proposal import no_candidates
from flowplan.grasp.records import ContactCandidates, ContactKind
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot import Robot
    from flowplan.robot.gripper import Gripper

_SLIP_SCALE = 0.01
"""Metres of slip that cost a factor e."""
_PATCH_POINTS = 96
"""Nearest flow points that a patch is fitted to."""
_ROUNDS = 3
"""Rounds of robust reweighting."""
_HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
"""About the approach axis: the same contact of a parallel gripper, another arm."""
_WIDTH_STEP = 0.005
"""Metres to which openings are rounded for the gripper's surface."""
_MISS_POSITION = 0.01
"""Metres: a solution that misses by less counts, the optimiser will find the rest."""
_MISS_ROTATION = 0.2
"""Radians, likewise."""


@dataclass(frozen=True)
class RankOptions:
    """What a contact must come through, and at how many times of the motion."""

    times: int = 9
    """Times of the motion that are looked at, the first and the last among them."""
    radius: float = 0.06
    """Metres around the tool that are held, as in the attachment."""
    max_slip: float = 0.03
    """Metres RMS beyond which a contact is refused."""
    jump: float = 1.5
    """Radians that a joint may turn from one of the times to the next."""
    restarts: int = 2
    """Further tries for contacts that do not pass: the hand turned by half, a random configuration, and so on."""
    enough: int = 30
    """Contacts that pass, after which the others get no further tries."""
    penetration: float = 0.005
    """Metres inside an obstacle that are forgiven: half a voxel of the distance field."""
    comfortable: float = 0.03
    """Metres of clearance beyond which more is worth nothing."""
    limit_margin: float = 0.3
    """Radians to the nearest joint limit beyond which more is worth nothing."""
    voxel: float = 0.01
    """Metres, of the distance field that is built where none is given."""

    def __post_init__(self) -> None:
        if self.times < 2:
            raise ValueError(f"RankOptions.times: expected at least 2, got {self.times}")
        if self.restarts < 0:
            raise ValueError(f"RankOptions.restarts: expected 0 or more, got {self.restarts}")
        for name in ("radius", "max_slip", "jump", "comfortable", "limit_margin", "voxel"):
            checks.positive(f"RankOptions.{name}", getattr(self, name))
        checks.positive("RankOptions.penetration", self.penetration, zero=True)


@dataclass(frozen=True)
class ContactReport:
    """What was found of one candidate.

    Attributes:
        kind: "grasp" or "push".
        slip: metres RMS, the largest over the motion.
        reachable: share of the looked-at times that the arm follows.
        first_unreachable: seconds at which it first cannot; -1 where it always can.
        clearance: metres, the smallest along the reachable motion, negative inside an obstacle.
        limit_margin: radians (or m) to the nearest joint limit, the smallest along the reachable motion.
        quality: the score that the proposer gave.
        score: the joint score; 0 where it is refused.
        reasons: why it is refused; empty where it is not.
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


@dataclass(frozen=True, eq=False)
class _Followed:
    """G candidates along T' times.

    Attributes:
        X: (G, T', 4, 4) tool poses.
        q: (G, T', J) joints.
        ok: (G, T') does the arm come along so far?
        clearance: (G, T') metres to the surroundings; inf where not ok.
    """

    X: FloatArray
    q: FloatArray
    ok: NDArray[np.bool_]
    clearance: FloatArray

    def passes(self, options: RankOptions) -> NDArray[np.bool_]:
        """(G,) followed to the end, outside of everything."""
        return self.ok.all(1) & (self.clearance.min(1) > -options.penetration)

    def improved(self, rows: NDArray[np.int64], other: _Followed) -> _Followed:
        """With `rows` replaced by `other`'s candidates where those come farther, or as far with more room."""
        mine, theirs = (f.ok.sum(-1) + 0.5 * np.tanh(f.clearance.min(-1)) for f in (self, other))
        better = theirs > mine[rows]
        out = {f.name: getattr(self, f.name).copy() for f in fields(self)}
        for name, value in out.items():
            value[rows[better]] = getattr(other, name)[better]
        return _Followed(**out)


def rank_with_flow(
    grasps: ContactCandidates,
    flow: ObjectFlow,
    scene: Scene,
    motion: SceneMotion,
    robot: Robot,
    options: RankOptions | None = None,
    *,
    field: DistanceField | None = None,
    seed: int = 0,
) -> tuple[ContactCandidates, tuple[ContactReport, ...]]:
    """The contacts that can be carried along the whole flow, re-scored, and a report of every candidate.

    Args:
        grasps: candidates on one object.
        flow: that they should follow.
        scene, motion: what there is, and which of it stays where it is.
        robot: the arm, where it stands.
        options: see RankOptions.
        field: distances to what the gripper must not touch along the motion; built from `scene` where not given.
        seed: of the inverse kinematics' restarts.

    Returns:
        Those without a reason against them, best first, and one report for each of `grasps`, in their order. A contact
        that is only reached with the hand turned by half about its approach axis comes back so turned.
    """
    options = options or RankOptions()
    if not len(grasps):
        return no_candidates(), ()
    if len(np.unique(grasps.object_id)) > 1:
        raise ValueError(
            f"grasps.object_id: expected one object, got {np.unique(grasps.object_id).tolist()}; split them"
        )
    target = int(grasps.object_id[0])
    frames = np.unique(np.linspace(0, len(flow.times) - 1, options.times).round().astype(int))
    sheet = is_sheet(motion.vertices[target][0], scene.support_height)
    X, slip = patch_motion(grasps, flow, frames, options.radius, sheet=sheet)
    loose = np.array([sheet or kind == "push" for kind in grasps.kind])
    if field is None:
        field = _static_field(scene, motion, target, X, options)
    followed = _follow_freely(robot, X, grasps.width, loose, field, options, seed)
    clearance = followed.clearance
    limits = np.minimum(followed.q - robot.lower, robot.upper - followed.q).min(-1)
    limits = np.where(followed.ok, limits, np.inf).min(1)
    limits = np.where(np.isfinite(limits), limits, 0.0)
    times = flow.times[frames]
    reports = []
    for g in range(len(grasps)):
        reasons = _reasons(followed.ok[g], clearance[g], float(slip[g]), times, options)
        nearest = float(clearance[g].min()) if followed.ok[g].any() else -1.0
        comfort = np.clip([nearest / options.comfortable, limits[g] / options.limit_margin], 0, 1)
        score = grasps.score[g] * np.exp(-slip[g] / _SLIP_SCALE) * np.prod(0.5 + 0.5 * comfort)
        lost = np.flatnonzero(~followed.ok[g])
        reports.append(
            ContactReport(
                grasps.kind[g],
                float(slip[g]),
                float(followed.ok[g].mean()),
                float(times[lost[0]]) if len(lost) else -1.0,
                nearest,
                float(limits[g]),
                float(grasps.score[g]),
                0.0 if reasons else float(score),
                reasons,
            )
        )
    return _ranked(grasps, followed.X[:, 0], reports), tuple(reports)


def patch_motion(
    grasps: ContactCandidates,
    flow: ObjectFlow,
    frames: NDArray[np.int64],
    radius: float,
    *,
    sheet: bool = False,
) -> tuple[FloatArray, FloatArray]:
    """Tool poses (G, T', 4, 4) that carry each contact's patch along the flow, and their largest slip (G,) in metres.

    The attachment of every candidate at once, on its nearest flow points: Kabsch with the same fall-off of weights and
    Geman-McClure reweighting as flowplan.attachment. On a `sheet`, the tool goes where the point that it holds goes.
    """
    member = np.flatnonzero((flow.object_id == grasps.object_id[0]) & (flow.confidence[0] > 0))
    if not len(member):
        raise ValueError(
            f"flow.object_id: no visible point at t = 0 belongs to object {grasps.object_id[0]}"
        )
    k = min(_PATCH_POINTS, len(member))
    distance, near = cKDTree(flow.points[0][member]).query(grasps.X_world_tool[:, :3, 3], k=k)
    distance, near = distance.reshape(-1, k), member[near.reshape(-1, k)]
    reach = np.maximum(radius, 1.25 * distance[:, min(30, k) - 1])
    base = (1 - np.minimum(distance / reach[:, None], 1) ** 2) ** 2 + 1e-9
    source = flow.points[0][near][:, None]  # (G, 1, K, 3)
    target = np.moveaxis(flow.points[frames][:, near], 0, 1)  # (G, T', K, 3)
    weights = base[:, None] * np.moveaxis(flow.confidence[frames][:, near], 0, 1) + 1e-12
    robust = np.ones_like(weights)
    for _ in range(_ROUNDS):
        M = fit_rigid(source, target, weights * robust)
        residual = np.linalg.norm(transform(M, source) - target, axis=-1)
        scale = 4 * np.maximum(np.median(residual, axis=-1, keepdims=True) / 1.538, 5e-4)
        robust = 1 / (1 + (residual / scale) ** 2) ** 2
    M[:, 0] = np.eye(4)
    total = (weights * robust).sum(-1)
    slip = np.sqrt((weights * robust * residual**2).sum(-1) / total)
    X = M @ grasps.X_world_tool[:, None]
    if sheet:
        # A folded patch turns over, and would take a tool above it below the support: the tool keeps its height.
        held = source[:, :, 0]  # (G, 1, 3), the point nearest to the tool
        X[..., :3, 3] = (
            grasps.X_world_tool[:, None, :3, 3] + transform(M, held[:, :, None])[..., 0, :] - held
        )
    return X, slip.max(1)


def _follow_freely(
    robot: Robot,
    carried: FloatArray,
    widths: FloatArray,
    loose: NDArray[np.bool_],
    field: DistanceField,
    options: RankOptions,
    seed: int,
) -> _Followed:
    """Follow the carried poses; a loose contact keeps its first orientation, or turns with the patch by half or wholly.

    The first of these that reaches everything without penetration counts, else the one that comes the farthest.
    """
    first = np.where(loose[:, None, None, None], _turned(carried, 0.0), carried)
    best = _follow(robot, first, widths, field, options, seed)
    for share in (0.5, 1.0):
        passed = best.passes(options)
        again = np.flatnonzero(
            loose & ~passed & best.ok[:, 0]
        )  # the first pose is the same however it turns
        if len(again) and passed.sum() < options.enough:
            once = replace(options, restarts=0)
            other = _follow(robot, _turned(carried[again], share), widths[again], field, once, seed)
            best = best.improved(again, other)
    return best


def _turned(X: FloatArray, share: float) -> FloatArray:
    """The poses X (G, T', 4, 4) with only a share of the rotation since the first, about the same axis."""
    first = X[:, :1, :3, :3]
    turn = log_so3(X[..., :3, :3] @ np.swapaxes(first, -1, -2))
    return pose(exp_so3(share * turn) @ first, X[..., :3, 3])


def _follow(
    robot: Robot,
    X: FloatArray,
    widths: FloatArray,
    field: DistanceField,
    options: RankOptions,
    seed: int,
) -> _Followed:
    """Inverse kinematics along the poses X (G, T', 4, 4): from home, with the hand turned by half, from elsewhere."""
    rng = np.random.default_rng(seed)
    home = np.broadcast_to(robot.home, (len(X), len(robot.home)))
    best = _measured(robot, X, *_follow_from(robot, X, home, options.jump, seed), widths, field)
    for attempt in range(options.restarts):
        turned = attempt % 2 == 0
        passed = best.passes(options)
        # Only another hand makes a first pose reachable: its first search has started at random as well.
        again = np.flatnonzero(~passed & (turned | best.ok[:, 0]))
        if not len(again) or passed.sum() >= options.enough:
            break
        X_again = X[again] @ _HALF_TURN if turned else X[again]
        start = (
            home[again]
            if turned
            else rng.uniform(robot.lower, robot.upper, (len(again), home.shape[1]))
        )
        q, ok = _follow_from(robot, X_again, start, options.jump, seed)
        best = best.improved(again, _measured(robot, X_again, q, ok, widths[again], field))
    return best


def _measured(
    robot: Robot,
    X: FloatArray,
    q: FloatArray,
    ok: NDArray[np.bool_],
    widths: FloatArray,
    field: DistanceField,
) -> _Followed:
    return _Followed(X, q, ok, _clearance(robot, widths, X, q, ok, field))


def _follow_from(
    robot: Robot, X: FloatArray, start: FloatArray, jump: float, seed: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Joints (G, T', J), and where the arm has come along without a jump so far (G, T')."""
    q = np.zeros((*X.shape[:2], start.shape[1]))
    ok = np.zeros(X.shape[:2], bool)
    q[:, 0], ok[:, 0] = robot.inverse_kinematics(X[:, 0], seed=seed, attempts=8, q_near=start)
    for t in range(1, X.shape[1]):
        q[:, t] = q[:, t - 1]
        alive = np.flatnonzero(
            ok[:, t - 1]
        )  # one that is lost stays lost: what comes later needs another start
        if not len(alive):
            break
        solved, exact = robot.inverse_kinematics(
            X[alive, t], seed=seed, attempts=1, q_near=q[alive, t - 1]
        )
        reached = exact.copy()
        miss = np.flatnonzero(~exact)
        if len(miss):
            there = robot.tool_pose(solved[miss])
            near = (
                np.linalg.norm(there[:, :3, 3] - X[alive[miss], t, :3, 3], axis=1) < _MISS_POSITION
            )
            near &= angle_between(there[:, :3, :3], X[alive[miss], t, :3, :3]) < _MISS_ROTATION
            reached[miss] = near
        reached &= np.abs(solved - q[alive, t - 1]).max(1) < jump
        q[alive[reached], t], ok[alive, t] = solved[reached], reached
    return q, ok


def _static_field(
    scene: Scene, motion: SceneMotion, target: int, X: FloatArray, options: RankOptions
) -> DistanceField:
    """Distances to what stays where it is while the target moves, around everywhere the tool goes."""
    around = surroundings(scene, motion, target)
    origin = X[..., :3, 3].reshape(-1, 3)
    meshes = [mesh for _, mesh in around.during]
    return distance_field(
        meshes,
        lower=origin.min(0) - 0.3,
        upper=origin.max(0) + 0.3,
        voxel=options.voxel if meshes else 0.1,
        support_height=scene.support_height,
    )


def _clearance(
    robot: Robot,
    widths: FloatArray,
    X: FloatArray,
    q: FloatArray,
    ok: NDArray[np.bool_],
    field: DistanceField,
) -> FloatArray:
    """(G, T') metres between the obstacles and the gripper's surface or the moving links' spheres; inf where not ok."""
    out = np.full(ok.shape, np.inf)
    steps = (widths / _WIDTH_STEP).round()
    for step in np.unique(steps):
        surface = _gripper_surface(robot.gripper, float(step * _WIDTH_STEP))
        g, t = np.nonzero(ok & (steps == step)[:, None])
        out[g, t] = field.query(transform(X[g, t], surface))[0].min(-1)
    rest = _arm_spheres(robot)
    g, t = np.nonzero(ok)
    if len(g) and len(rest):
        centers = robot.spheres(q[g, t])[:, rest]
        out[g, t] = np.minimum(
            out[g, t], (field.query(centers)[0] - robot.sphere_radius[rest]).min(-1)
        )
    return out


def _arm_spheres(robot: Robot) -> NDArray[np.int64]:
    """Spheres of the links that move, the gripper's left out: its boxes are closer to the truth."""
    gripper = set(robot.gripper.finger_links) | set(robot.gripper.hand_links)
    on_gripper = np.array([robot.link_names[i] in gripper for i in robot.sphere_link])
    two = robot.spheres(np.stack([robot.home, robot.home + 0.1]))
    moves = np.linalg.norm(two[1] - two[0], axis=-1) > 1e-9
    return np.flatnonzero(moves & ~on_gripper)


def _gripper_surface(gripper: Gripper, width: float, spacing: float = 0.025) -> FloatArray:
    """(P, 3) points on the gripper's boxes at an opening, tool frame, metres."""
    X, extents = gripper.boxes(width)
    out = []
    for X_box, size in zip(X, extents, strict=True):
        axes = [np.linspace(-0.5, 0.5, int(np.ceil(s / spacing)) + 1) for s in size]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        shell = grid[np.abs(grid).max(1) > 0.5 - 1e-9]
        out.append(transform(X_box, shell * size))
    return np.concatenate(out)


def _reasons(
    ok: NDArray[np.bool_],
    clearance: FloatArray,
    slip: float,
    times: FloatArray,
    options: RankOptions,
) -> tuple[str, ...]:
    """Why a candidate is refused, one line each."""
    out = []
    if not ok.all():
        first = int(np.argmin(ok))
        out.append(
            f"out of reach from {times[first]:.2f} s on ({100 * ok.mean():.0f} % of the motion is reached)"
        )
    if ok.any() and clearance.min() < -options.penetration:
        worst = int(np.argmin(clearance))
        depth = -1e3 * clearance[worst]
        out.append(f"the robot is {depth:.0f} mm inside the surroundings at {times[worst]:.2f} s")
    if slip > options.max_slip:
        out.append(
            f"the patch deforms by {1e3 * slip:.0f} mm RMS (limit {1e3 * options.max_slip:g})"
        )
    return tuple(out)


def _ranked(
    grasps: ContactCandidates, X: FloatArray, reports: list[ContactReport]
) -> ContactCandidates:
    score = np.array([r.score for r in reports])
    good = [i for i, r in enumerate(reports) if not r.reasons]
    order = np.array(sorted(good, key=lambda i: -score[i]), np.int64)
    if not len(order):
        return no_candidates()
    kind = tuple(grasps.kind[i] for i in order)
    return ContactCandidates(
        X[order], grasps.width[order], score[order], kind, grasps.object_id[order]
    )
