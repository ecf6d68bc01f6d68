"""From a motion of objects to a certified motion of the robot (CHORD, section 4.2, made whole).

    SceneMotion -> ObjectFlow -> contacts, ranked with the flow -> Attachment -> optimised -> timed -> certified

Contacts are tried best first. The first whose whole trajectory (approach, grip, the flow, release, retreat) passes the
independent validator is the plan; every other attempt is kept with the stage where it ended, what was measured there
and what to try. Nothing that failed certification is ever returned as a trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.attachment import Attachment, AttachmentOptions, attach, attach_loosely
from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.phase_geometry import (
    SUPPORT,
    Named,
    Surroundings,
    in_frame,
    is_sheet,
    surroundings,
)
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.geometry import inverse
from flowplan.grasp import ContactCandidates
from flowplan.grasp.candidates import merge
from flowplan.grasp.pinch import propose_pinches
from flowplan.grasp.propose import propose_grasps
from flowplan.grasp.push import propose_pushes
from flowplan.grasp.rank import ContactReport, rank_with_flow
from flowplan.motion import ObjectFlow, Progress, SceneMotion, sample_flow, silent
from flowplan.optimizers import Optimizer, TrackOptions, TrackProblem, TrackSolution, registry
from flowplan.paths.approach import ApproachOptions, approach, retreat
from flowplan.paths.compose import compose
from flowplan.paths.time_parameterization import TimingOptions, follow, retime
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.validation.validator import HELD, Certificate, PhaseWorld, ValidationOptions, validate

_STILL = 2e-3  # metres: what moves less than this does not move
_HELD_SPHERES = 24
_SPHERE_SLACK = (
    0.015  # metres: fingers that pinch a sheet come nearer to the support than their spheres could
)
_TOUCH = 0.01  # metres: nearer than this the scan cannot tell from touching
_VOXEL = 0.01  # metres, of the distance fields
_REACH = 0.25  # metres around objects that the distance fields cover
STAGES = ("rank", "attach", "track", "approach", "retreat", "certify", "planned")

_REMEDY = {
    "rank": "move the robot's base, contact another place (contact='push'), or use an arm with more reach",
    "attach": "contact a part that moves rigidly, or hold a smaller patch (attachment.radius)",
    "track": "contact another place, push instead of grasping, move the base, or allow a larger tolerance",
    "approach": "clear the way to the object, start from another configuration, or contact it from another side",
    "retreat": "leave room behind the hand at the end of the motion, or contact from another side",
    "certify": "raise the optimizer's margins (track.margin), or clear the obstacle that the reason names",
}


@dataclass(frozen=True)
class PlanOptions:
    """How a motion becomes a plan."""

    contact: Literal["any", "grasp", "push"] = "any"
    """Touch by grasping, by pushing, or whichever ranks best."""
    rank: bool = True
    """Rank the contacts jointly with the flow; otherwise they are tried in the order in which they come."""
    candidates: int = 16
    """Contacts tried, best first, before giving up."""
    flow_points: int = 2000
    """Points sampled on each object."""
    timing: Literal["flow", "fast"] = "flow"
    """Keep the flow's clock (slowed where limits ask for it), or go as fast as the limits allow."""
    dwell: float = 0.8
    """Seconds the arm holds still while the fingers close, and again while they open."""
    max_position_error: float = 0.015
    """Metres the tool may be off the pose that the flow asks for."""
    max_rotation_error: float = 0.25
    """Radians it may be off, over the rotations that the flow observes."""
    max_slip: float = 0.02
    """Metres RMS that the held patch may deviate from rigid motion."""
    attachment: AttachmentOptions = field(default_factory=AttachmentOptions)
    """Which patch is held, and how robustly."""
    track: TrackOptions = field(default_factory=TrackOptions)
    """Trajectory optimization along the flow."""
    reach: ApproachOptions = field(default_factory=ApproachOptions)
    """Getting to the contact and away from it."""
    clock: TimingOptions = field(
        default_factory=lambda: TimingOptions(velocity=0.8, acceleration=0.6, jerk=0.6)
    )
    """Sampling, and the share of the joint limits to use."""
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    """What the independent validator insists on."""

    def __post_init__(self) -> None:
        checks.choice("PlanOptions.contact", self.contact, ("any", "grasp", "push"))
        checks.choice("PlanOptions.timing", self.timing, ("flow", "fast"))
        for name in (
            "candidates",
            "flow_points",
            "max_position_error",
            "max_rotation_error",
            "max_slip",
        ):
            checks.positive(f"PlanOptions.{name}", getattr(self, name))
        checks.positive("PlanOptions.dwell", self.dwell, zero=True)


@dataclass(frozen=True)
class Attempt:
    """One contact that was tried, and where it ended.

    Attributes:
        contact: its rank among the proposed contacts, 0 the best.
        kind: "grasp" or "push".
        stage: one of STAGES; "planned" is success, anything else is where it ended.
        reason: what was measured there, in a line.
        remedy: what to try.
        slip: metres, the largest RMS of the held patch over the motion; -1 where not measured.
        reachable: share of the motion's poses within reach; -1 where not measured.
        clearance: metres, smallest over what was checked; -1 where not measured.
        position_error: metres, largest over the motion; -1 where not measured.
        time: seconds of flow time at which it fails; -1 where it does not or is not known.
    """

    contact: int
    kind: str
    stage: str
    reason: str
    remedy: str = ""
    slip: float = -1.0
    reachable: float = -1.0
    clearance: float = -1.0
    position_error: float = -1.0
    time: float = -1.0

    def __post_init__(self) -> None:
        checks.choice("Attempt.stage", self.stage, STAGES)


@dataclass(frozen=True, eq=False)
class Plan:
    """A certified trajectory, and how it came about.

    Attributes:
        contact: the chosen contact (one).
        candidates: all contacts, as ranked.
        attachment: what the flow asks of the tool.
        trajectory: approach, grip, manipulate, release, retreat.
        certificate: the validator's.
        attempts: every contact tried, the successful one last.
    """

    contact: ContactCandidates
    candidates: ContactCandidates
    attachment: Attachment
    trajectory: Trajectory
    certificate: Certificate
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True)
class NoPlan:
    """No contact led to a certified trajectory.

    Attributes:
        attempts: every contact tried, best ranked first, with what stopped it.
    """

    attempts: tuple[Attempt, ...]

    @property
    def reason(self) -> str:
        """The furthest that any attempt came, in a line."""
        if not self.attempts:
            return "no contact was proposed: the moving part offers no place that the gripper can grasp or push"
        best = max(self.attempts, key=lambda a: STAGES.index(a.stage))
        return f"{best.stage}: {best.reason}; try: {best.remedy}"


def plan(
    scene: Scene,
    motion: SceneMotion,
    robot: Robot,
    *,
    contacts: ContactCandidates | None = None,
    flow: ObjectFlow | None = None,
    start: FloatArray | None = None,
    options: PlanOptions = PlanOptions(),
    optimizer: str | Optimizer = registry.DEFAULT,
    seed: int = 0,
    progress: Progress = silent,
) -> Plan | NoPlan:
    """Joint trajectories that make one object of the scene move as `motion` says.

    Args:
        scene: what there is.
        motion: how it should move; the object with the largest displacement is the one to touch.
        robot: the arm, placed by `robot.X_world_base`; it ends in `robot.home`.
        contacts: candidates to choose from; proposed on the moving part where not given.
        flow: tracks to follow in place of points sampled on `motion` (noisy, partial, with confidence).
        start: (J,) where the arm is now; `robot.home` where not given.
        options: see PlanOptions.
        optimizer: name of a trajectory optimizer (flowplan.optimizers.NAMES), or a function of its type.
        seed: Random seed; one seed gives one plan.
        progress: called with the fraction done and a word.

    Returns:
        Plan, certified; or NoPlan with the reasons.

    Raises:
        ValueError: when the motion does not fit the scene, or nothing in it moves.
    """
    flow = (
        sample_flow(scene, motion, points_per_object=options.flow_points, seed=seed)
        if flow is None
        else flow
    )
    start = robot.home if start is None else checks.array("start", start, robot.home.shape)
    optimize = registry.get(optimizer)
    target = moved_object(scene, motion)
    around = surroundings(scene, motion, target)
    progress(0.0, "measuring distances")
    problem = _Problem(
        scene,
        motion,
        flow,
        robot,
        start,
        target,
        around,
        _fields(around, robot),
        options,
        optimize,
        seed,
    )
    if contacts is None:
        progress(0.1, "proposing contacts")
        contacts = propose_contacts(scene, motion, robot, target, options, seed=seed)
    attempts: list[Attempt] = []
    ranked = contacts
    if options.rank:
        progress(0.15, f"ranking {len(contacts)} contacts with the flow")
        ranked, reports = rank_with_flow(
            contacts, flow, scene, motion, robot, field=problem.fields[1], seed=seed
        )
        attempts = [_rejected(i, r) for i, r in enumerate(reports) if r.reasons]
    for rank in range(min(len(ranked), options.candidates)):
        progress(0.2 + 0.8 * rank / options.candidates, f"contact {rank + 1} of {len(ranked)}")
        tried = _attempt(problem, ranked.select([rank]), rank)
        if isinstance(tried, Plan):
            progress(1.0, "certified")
            return replace(tried, candidates=ranked, attempts=(*attempts, *tried.attempts))
        attempts.append(tried)
    return NoPlan(tuple(attempts))


def moved_object(scene: Scene, motion: SceneMotion) -> int:
    """Index of the object whose vertices move farthest.

    Raises:
        ValueError: when nothing moves.
    """
    farthest = [float(np.linalg.norm(v - v[0], axis=-1).max()) for v in motion.vertices]
    if max(farthest) < _STILL:
        raise ValueError(
            f"motion.vertices: nothing moves (largest displacement {1e3 * max(farthest):.2f} mm); "
            "give a motion of more than 2 mm"
        )
    return int(np.argmax(farthest))


def propose_contacts(
    scene: Scene, motion: SceneMotion, robot: Robot, target: int, options: PlanOptions, *, seed: int
) -> ContactCandidates:
    """Grasps on the moving part of object `target`, pushes along its flow, and pinches where it is a sheet."""
    obj = scene.objects[target]
    if is_sheet(motion.vertices[target][0], scene.support_height):
        return propose_pinches(scene, motion, target, robot.gripper, seed=seed)
    found = []
    if options.contact in ("any", "grasp"):
        moving = motion.moving()[target][obj.mesh.faces].all(axis=1)
        part = None if moving.all() else np.asarray(moving)
        found.append(propose_grasps(obj, scene, robot.gripper, seed=seed, faces=part))
    if options.contact in ("any", "push"):
        found.append(propose_pushes(scene, motion, target, robot.gripper, seed=seed))
    return merge(found)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What every attempt of one plan shares."""

    scene: Scene
    motion: SceneMotion
    flow: ObjectFlow
    robot: Robot
    start: FloatArray
    target: int
    around: Surroundings
    fields: tuple[DistanceField, DistanceField, DistanceField]  # before, during, after
    options: PlanOptions
    optimizer: Optimizer
    seed: int


class _Ended(Exception):
    """An attempt ends here: where, why, and what was measured by then."""

    def __init__(self, stage: str, reason: str, **measured: float) -> None:
        super().__init__(reason)
        self.stage, self.reason, self.measured = stage, reason, measured


def _attempt(problem: _Problem, contact: ContactCandidates, rank: int) -> Plan | Attempt:
    measured: dict[str, Any] = {}  # fields of Attempt
    try:
        attachment = _attach(problem, contact, measured)
        solution = _track(problem, attachment, contact, measured)
        into, out = _reach(problem, contact, solution)
        trajectory = _assemble(problem, contact, attachment, solution, into, out)
        certificate = _certify(problem, contact, trajectory, measured)
    except _Ended as end:
        tried = Attempt(rank, contact.kind[0], end.stage, end.reason, _REMEDY[end.stage])
        return replace(tried, **(measured | end.measured))
    done = replace(Attempt(rank, contact.kind[0], "planned", "certified"), **measured)
    return Plan(contact, contact, attachment, trajectory, certificate, (done,))


def _attach(
    problem: _Problem, contact: ContactCandidates, measured: dict[str, float]
) -> Attachment:
    options = problem.options
    X = contact.X_world_tool[0]
    try:
        if contact.kind[0] == "push":
            found = attach_loosely(problem.flow, X, options.attachment, object_id=problem.target)
        elif (
            problem.around.moving is None
        ):  # a sheet turns over in the fingers: only its point is held
            found = attach(problem.flow, X, options.attachment, held=_nearest(problem, X))
        else:
            found = attach(problem.flow, X, options.attachment, object_id=problem.target)
    except ValueError as error:  # this patch cannot be followed; another one may
        raise _Ended("attach", str(error)) from None
    worst = int(np.argmax(found.slip))
    measured["slip"] = float(found.slip[worst])
    if found.slip[worst] > options.max_slip:
        reason = f"the held patch slips {1e3 * found.slip[worst]:.1f} mm RMS (limit {1e3 * options.max_slip:g})"
        raise _Ended("attach", reason, time=float(found.times[worst]))
    return found


def _nearest(problem: _Problem, X_world_tool: FloatArray) -> NDArray[np.bool_]:
    """(N,) the point of the target nearest to the tool."""
    distance = np.linalg.norm(problem.flow.points[0] - X_world_tool[:3, 3], axis=-1)
    seen = (problem.flow.object_id == problem.target) & (problem.flow.confidence[0] > 0)
    return np.arange(len(distance)) == np.argmin(np.where(seen, distance, np.inf))


def _track(
    problem: _Problem,
    attachment: Attachment,
    contact: ContactCandidates,
    measured: dict[str, float],
) -> TrackSolution:
    options = problem.options
    held = np.zeros((0, 4))
    if problem.around.moving is not None and contact.kind[0] == "grasp":
        held = sphere_cover(
            in_frame(problem.around.moving, inverse(contact.X_world_tool[0])), _HELD_SPHERES
        )
    around = problem.around
    task = TrackProblem(
        problem.robot,
        attachment.times,
        attachment,
        problem.fields[1],
        held,
        obstacles=tuple(mesh for _, mesh in (*around.during, *around.support())),
    )
    solution = problem.optimizer(task, options.track, seed=problem.seed)
    worst = int(np.argmax(solution.position_error))
    measured["position_error"] = float(solution.position_error[worst])
    measured["clearance"] = float(solution.clearance.min())
    if solution.position_error[worst] > options.max_position_error:
        reason = (
            f"the tool stays {1e3 * solution.position_error[worst]:.0f} mm off the flow "
            f"(limit {1e3 * options.max_position_error:g})"
        )
        raise _Ended("track", reason, time=float(attachment.times[worst]))
    worst = int(np.argmax(solution.rotation_error))
    if solution.rotation_error[worst] > options.max_rotation_error:
        reason = (
            f"the tool stays {np.rad2deg(solution.rotation_error[worst]):.0f} deg off the flow "
            f"(limit {np.rad2deg(options.max_rotation_error):.0f})"
        )
        raise _Ended("track", reason, time=float(attachment.times[worst]))
    return solution


def _reach(
    problem: _Problem, contact: ContactCandidates, solution: TrackSolution
) -> tuple[FloatArray, FloatArray]:
    options, robot = problem.options, problem.robot
    before, during, after = problem.fields
    width, how = float(contact.width[0]), options.reach
    if contact.kind[0] == "push":  # the hand stands just off the surface: it may come from anywhere
        how = replace(how, shortest=0.0, margin=min(how.margin, 0.002))
    into = approach(
        robot, problem.start, solution.q[0], before, during, how, width=width, seed=problem.seed
    )
    if into.reason:
        raise _Ended("approach", into.reason, time=0.0)
    out = retreat(
        robot, solution.q[-1], robot.home, after, during, how, width=width, seed=problem.seed
    )
    if out.reason:
        raise _Ended("retreat", out.reason, time=float(problem.flow.times[-1]))
    return into.q, out.q


def _assemble(
    problem: _Problem,
    contact: ContactCandidates,
    attachment: Attachment,
    solution: TrackSolution,
    into: FloatArray,
    out: FloatArray,
) -> Trajectory:
    options, robot = problem.options, problem.robot
    if options.timing == "flow":
        along = follow(attachment.times, solution.q, robot, options.clock)
    else:
        along = retime(solution.q, robot, options.clock)
    trajectory = compose(
        robot,
        contact,
        into,
        along,
        out,
        clock=options.clock,
        dwell=options.dwell,
        tracking_error=(solution.position_error, solution.rotation_error),
    )
    return replace(trajectory, clearance=_clearance(problem, trajectory))


def _clearance(problem: _Problem, trajectory: Trajectory) -> FloatArray:
    """Metres between the arm's moving spheres and the world of the phase; the fingers are meant to come close."""
    robot = problem.robot
    still = {robot.base_link, *robot.gripper.finger_links}
    counts = np.array([robot.link_names[i] not in still for i in robot.sphere_link])
    centers = robot.spheres(trajectory.q)[:, counts]
    before, during, after = (field.distance(centers) for field in problem.fields)
    phase = trajectory.phase[:, None]
    distance = np.where(
        phase == Phase.APPROACH, before, np.where(phase == Phase.RETREAT, after, during)
    )
    return (distance - robot.sphere_radius[counts]).min(axis=1)


def _certify(
    problem: _Problem,
    contact: ContactCandidates,
    trajectory: Trajectory,
    measured: dict[str, float],
) -> Certificate:
    certificate = validate(
        problem.robot, trajectory, _phase_worlds(problem, contact), problem.options.validation
    )
    measured["clearance"] = float(certificate.clearance)
    if not certificate.ok:
        more = f" (and {len(certificate.reasons) - 1} more)" if len(certificate.reasons) > 1 else ""
        raise _Ended("certify", certificate.reasons[0] + more, time=float(certificate.worst_time))
    return certificate


def _phase_worlds(problem: _Problem, contact: ContactCandidates) -> dict[int, PhaseWorld]:
    """What the validator checks in each phase, and which contacts are the purpose of it."""
    robot, around = problem.robot, problem.around
    name = problem.scene.objects[problem.target].name
    touching = {(robot.base_link, SUPPORT)} | {(link, name) for link in robot.gripper.finger_links}
    support = around.support()
    before = PhaseWorld((*around.before, *support), None, frozenset(touching))
    after = PhaseWorld((*around.after, *support), None, frozenset(touching))
    held = None
    if around.moving is not None and contact.kind[0] == "grasp":
        held = in_frame(around.moving, inverse(contact.X_world_tool[0]))
        touching |= {(HELD, other) for other in _flow_touches(problem)}
    during = PhaseWorld((*around.during, *support), held, frozenset(touching))
    return {
        Phase.APPROACH: before,
        Phase.GRIP: during,
        Phase.MANIPULATE: during,
        Phase.RELEASE: during,
        Phase.RETREAT: after,
    }


def _flow_touches(problem: _Problem) -> list[str]:
    """What the moving part touches by the flow's own will, where it starts and where it ends: its hinge, its support.

    The robot is not to blame for those; that the flow is physical is the generator's business.
    """
    around = problem.around
    vertices = problem.motion.vertices[problem.target]
    moving = problem.motion.moving()[problem.target]
    ends = np.concatenate([vertices[0, moving], vertices[-1, moving]])
    touched = [name for name, mesh in around.during if _near(mesh, ends)]
    if around.support_height is not None and ends[:, 2].min() < around.support_height + _TOUCH:
        touched.append(SUPPORT)
    return touched


def _near(mesh: trimesh.Trimesh, points: FloatArray) -> bool:
    """Does any point (P, 3) come within a touch of a vertex or face centre of a mesh?"""
    marks = np.concatenate([mesh.vertices, mesh.triangles_center])
    spacing = float(np.sqrt(mesh.area_faces.max()))
    return bool(cKDTree(marks).query(points)[0].min() < _TOUCH + spacing)


def _fields(
    around: Surroundings, robot: Robot
) -> tuple[DistanceField, DistanceField, DistanceField]:
    """Distance to the world before, during and after the motion."""
    before, during, after = (
        _field(named, around, robot) for named in (around.before, around.during, around.after)
    )
    return before, during, after


def _field(named: Named, around: Surroundings, robot: Robot) -> DistanceField:
    base = robot.X_world_base[:3, 3]
    corners = np.concatenate(
        [base[None], *[mesh.bounds for _, mesh in (*around.before, *around.after)]]
    )
    support = around.support_height
    if support is not None and around.moving is None:
        support -= _SPHERE_SLACK
    return distance_field(
        [mesh for _, mesh in named],
        lower=corners.min(axis=0) - _REACH,
        upper=corners.max(axis=0) + _REACH,
        voxel=_VOXEL,
        support_height=support,
    )


def _rejected(rank: int, report: ContactReport) -> Attempt:
    return Attempt(
        rank,
        report.kind,
        "rank",
        "; ".join(report.reasons),
        _REMEDY["rank"],
        slip=report.slip,
        reachable=report.reachable,
        clearance=report.clearance,
    )
