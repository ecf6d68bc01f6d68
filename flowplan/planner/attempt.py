"""One contact, taken through all stages: attach, track, approach, retreat, certify.

A stage that fails raises `_Failed`, which becomes an `Attempt` with everything measured so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.attachment import Attachment, attach, attach_loosely
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.grasp import ContactCandidates
from flowplan.grasp.rank import ContactReport
from flowplan.optimizers import TrackProblem, TrackSolution
from flowplan.optimizers.tracking_error import tracking_error
from flowplan.paths.approach import approach, retreat
from flowplan.paths.compose import compose
from flowplan.paths.time_parameterization import TimedPath, follow, retime
from flowplan.planner.problem import Problem, held_mesh
from flowplan.planner.records import Attempt, Mounting, Plan
from flowplan.planner.worlds import phase_worlds
from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan.validation.phase_world import PhaseWorld
from flowplan.validation.validator import Certificate, validate

_REMEDIES = {
    "motion": "generate the motion anew, move what is in its way, say that the object is "
    "deformable (SceneObject.deformable), give its parts as objects of their own, "
    "or raise the limit (motion.max_residual, motion.max_tear, motion.max_gap, ...)",
    "rank": "move the robot's base, contact another place (contact='push'), "
    "or use an arm with more reach",
    "attach": "contact a part that moves rigidly, or hold a smaller patch (attachment.radius)",
    "track": "contact another place, push instead of grasping, move the base, "
    "or allow a larger tolerance",
    "approach": "clear the way to the object, start from another configuration, "
    "or contact it from another side",
    "retreat": "leave room behind the hand at the end of the motion, or contact from another side",
    "certify": "raise the optimizer's margins (track.margin), "
    "or clear the obstacle that the reason names",
}


class _Failed(Exception):
    """End of an attempt: the stage, the reason, and further measurements (fields of Attempt)."""

    def __init__(self, stage: str, reason: str, **measured: float) -> None:
        super().__init__(reason)
        self.stage, self.reason, self.measured = stage, reason, measured


def try_contact(problem: Problem, contact: ContactCandidates, rank: int) -> Plan | Attempt:
    """A plan with this contact, or the attempt with the reason of its failure."""
    measured: dict[str, Any] = {}  # fields of Attempt
    kind = contact.kind[0]
    try:
        attachment = _attach(problem, contact, measured)
        solution = _track(problem, attachment, contact, measured)
        into, out = _reach(problem, contact, solution)
        along = _timed(problem, attachment, solution)
        trajectory = _assemble(problem, contact, along, solution, into, out)
        worlds = phase_worlds(problem, contact, attachment, along)
        certificate = _certify(problem, worlds, trajectory, measured)
    except _Failed as failure:
        stage = failure.stage
        tried = Attempt(rank, kind, stage, failure.reason, _REMEDIES[stage])
        return replace(tried, **(measured | failure.measured))
    done = replace(Attempt(rank, kind, "planned", "certified"), **measured)
    return Plan(
        contact,
        contact,
        attachment,
        trajectory,
        certificate,
        (done,),
        ending=problem.ending,
        flow_time=_flow_time(trajectory, along, attachment),
        mounting=_mounting(problem.robot),
    )


def _flow_time(trajectory: Trajectory, along: TimedPath, attachment: Attachment) -> FloatArray:
    """Seconds (S,) on the flow's clock at each sample of a trajectory."""
    times = attachment.times
    # The clock stands still before the manipulation and after it.
    clock = np.where(trajectory.phase > Phase.MANIPULATE, times[-1], times[0])
    during = trajectory.phase == Phase.MANIPULATE
    clock[during] = np.interp(along.waypoint, np.arange(len(times)), times)
    return clock


def _mounting(robot: Robot) -> Mounting:
    """Name, file and place of a robot."""
    file = "" if robot.file is None else str(robot.file.resolve())
    return Mounting(robot.name, file, robot.X_world_base)


def unfit(reason: str) -> Attempt:
    """The attempt that ends with the motion itself, before any contact is proposed."""
    return Attempt(0, "any", "motion", reason, _REMEDIES["motion"])


def rejected(index: int, report: ContactReport) -> Attempt:
    """The attempt of a contact that ranking refused."""
    return Attempt(
        index,
        report.kind,
        "rank",
        "; ".join(report.reasons),
        _REMEDIES["rank"],
        slip=report.slip,
        reachable=report.reachable,
        clearance=report.clearance,
    )


def _attach(problem: Problem, contact: ContactCandidates, measured: dict[str, float]) -> Attachment:
    """Tool motion that the flow asks of this contact."""
    options, flow, target = problem.options.attachment, problem.flow, problem.target
    X, kind = contact.X_world_tool[0], contact.kind[0]
    try:
        if kind == "push":
            found = attach_loosely(flow, X, options, object_id=target)
        elif kind == "pinch":  # a cloth turns over between the fingers: only one point is held
            found = attach(flow, X, options, held=_nearest_point(problem, X))
        else:
            found = attach(flow, X, options, object_id=target)
    except ValueError as error:  # this patch cannot be followed; another one may
        raise _Failed("attach", str(error)) from None
    worst = int(np.argmax(found.slip))
    slip = float(found.slip[worst])
    measured["slip"] = slip
    if not slip <= options.max_slip:
        reason = f"the held patch slips {1e3 * slip:.1f} mm RMS (limit {1e3 * options.max_slip:g})"
        raise _Failed("attach", reason, time=float(found.times[worst]))
    return found


def _nearest_point(problem: Problem, X_world_tool: FloatArray) -> NDArray[np.bool_]:
    """Mask (N,) of the visible flow point of the target that is nearest to the tool."""
    flow = problem.flow
    distance = np.linalg.norm(flow.points[0] - X_world_tool[:3, 3], axis=-1)
    visible = (flow.object_id == problem.target) & (flow.confidence[0] > 0)
    return np.arange(len(distance)) == np.argmin(np.where(visible, distance, np.inf))


def _track(
    problem: Problem,
    attachment: Attachment,
    contact: ContactCandidates,
    measured: dict[str, float],
) -> TrackSolution:
    """Optimized joint trajectory along the attachment, within the tolerances."""
    options, around = problem.options, problem.around
    held = held_mesh(problem, contact)
    task = TrackProblem(
        problem.robot,
        attachment.times,
        attachment,
        problem.fields.during,
        np.zeros((0, 4)) if held is None else sphere_cover(held, options.geometry.held_spheres),
        obstacles=tuple(mesh for _, mesh in (*around.during, *around.support())),
    )
    solution = _optimize(problem, task)

    # The frames farthest off the flow, which the refusal names.
    worst = int(np.argmax(solution.position_error))
    position = float(solution.position_error[worst])
    measured["position_error"] = position
    measured["clearance"] = float(solution.clearance.min())
    if not position <= options.max_position_error:
        limit = 1e3 * options.max_position_error
        reason = f"the tool stays {1e3 * position:.0f} mm off the flow (limit {limit:g})"
        raise _Failed("track", reason, time=float(attachment.times[worst]))

    worst = int(np.argmax(solution.rotation_error))
    rotation = solution.rotation_error[worst]
    if not rotation <= options.max_rotation_error:
        limit = np.rad2deg(options.max_rotation_error)
        reason = f"the tool stays {np.rad2deg(rotation):.0f} deg off the flow (limit {limit:.0f})"
        raise _Failed("track", reason, time=float(attachment.times[worst]))
    return solution


def _optimize(problem: Problem, task: TrackProblem) -> TrackSolution:
    """The optimizer's solution, with its errors measured here.

    Raises:
        ValueError: if the optimizer returns anything else.
    """
    solution = problem.optimizer(task, problem.options.track, seed=problem.seed)
    if not isinstance(solution, TrackSolution):
        raise ValueError(
            f"optimizer: expected to return a TrackSolution, got {type(solution).__name__}"
        )
    shape = len(task.times), len(task.robot.joint_names)
    if solution.q.shape != shape:
        raise ValueError(
            f"optimizer: expected a TrackSolution with q of shape {shape}, got {solution.q.shape}"
        )
    # The validator knows obstacles and limits but not the flow.
    position, rotation = tracking_error(task, task.robot.tool_pose(solution.q))
    return replace(solution, position_error=position, rotation_error=rotation)


def _reach(
    problem: Problem, contact: ContactCandidates, solution: TrackSolution
) -> tuple[FloatArray, FloatArray | None]:
    """Joint paths (M, J) to the contact and away from it; None if the plan ends holding."""
    robot, fields, options = problem.robot, problem.fields, problem.options.reach
    width, seed = float(contact.width[0]), problem.seed
    if contact.kind[0] == "push":
        # The hand waits just off the surface, so it may come from any direction.
        margin = min(options.margin, problem.options.geometry.push_margin)
        options = replace(options, shortest=0.0, margin=margin)
    into = approach(
        robot,
        problem.start,
        solution.q[0],
        fields.before,
        fields.during,
        options,
        width=width,
        seed=seed,
    )
    if into.reason:
        raise _Failed("approach", into.reason, time=0.0)
    if not problem.ending.released:
        return into.q, None
    out = retreat(
        robot,
        solution.q[-1],
        robot.home,
        fields.after,
        fields.during,
        options,
        width=width,
        seed=seed,
    )
    if out.reason:
        raise _Failed("retreat", out.reason, time=float(problem.flow.times[-1]))
    return into.q, out.q


def _timed(problem: Problem, attachment: Attachment, solution: TrackSolution) -> TimedPath:
    """The manipulation over time."""
    options, robot = problem.options, problem.robot
    # On the flow's own clock, or as fast as the robot's limits allow.
    if options.timing == "flow":
        return follow(attachment.times, solution.q, robot, options.clock)
    return retime(solution.q, robot, options.clock)


def _assemble(
    problem: Problem,
    contact: ContactCandidates,
    along: TimedPath,
    solution: TrackSolution,
    into: FloatArray,
    out: FloatArray | None,
) -> Trajectory:
    """Timed trajectory of all phases, with its clearance."""
    options, robot = problem.options, problem.robot
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


def _clearance(problem: Problem, trajectory: Trajectory) -> FloatArray:
    """Clearance (S,) in meters of the arm without its fingers from the obstacles of the phase."""
    robot, fields = problem.robot, problem.fields
    ignored = {robot.base_link, *robot.gripper.finger_links}
    counted = np.array([robot.link_names[i] not in ignored for i in robot.sphere_link])
    centers = robot.spheres(trajectory.q)[:, counted]  # (S, K, 3)
    # Distances (S, K) to the obstacles of each phase, of which a sample's own counts.
    before, during, after = (
        field.distance(centers) for field in (fields.before, fields.during, fields.after)
    )
    phase = trajectory.phase[:, None]
    distance = np.where(phase == Phase.RETREAT, after, during)
    distance = np.where(phase == Phase.APPROACH, before, distance)
    return (distance - robot.sphere_radius[counted]).min(axis=1)


def _certify(
    problem: Problem,
    worlds: Mapping[int, PhaseWorld],
    trajectory: Trajectory,
    measured: dict[str, float],
) -> Certificate:
    """Certificate of the independent validator."""
    certificate = validate(problem.robot, trajectory, worlds, problem.options.validation)
    measured["clearance"] = float(certificate.clearance)
    if not certificate.ok:
        more = len(certificate.reasons) - 1
        reason = certificate.reasons[0] + (f" (and {more} more)" if more else "")
        raise _Failed("certify", reason, time=float(certificate.worst_time))
    return certificate
