"""From a motion of objects to a certified motion of the robot (extends CHORD, section 4.2).

    SceneMotion -> ObjectFlow -> ranked contacts -> Attachment -> optimized -> timed -> certified

Contacts are tried best first. The first whose whole trajectory (approach, grip, manipulate,
release, retreat) passes the independent validator is the plan. Where the object would not rest if
it were let go, the trajectory ends with the manipulation. Every other attempt is kept with the
stage where it failed, the measurement that decided, and things to try. A trajectory that failed
certification is never returned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict, Unpack

from flowplan.collision.phase_geometry import is_deformable, phase_geometry
from flowplan.grasp import ContactCandidates
from flowplan.grasp.rank import rank_with_flow
from flowplan.motion import ObjectFlow, Progress, SceneMotion, check_fits, sample_flow, silent
from flowplan.motion_quality import prepare
from flowplan.optimizers import Optimizer, registry
from flowplan.planner.attempt import rejected, try_contact, unfit
from flowplan.planner.contacts import as_pinches, moved_object, propose_contacts
from flowplan.planner.ending import ending_of
from flowplan.planner.options import PlanOptions, SizeLimits
from flowplan.planner.problem import Problem, distance_fields
from flowplan.planner.records import Attempt, NoPlan, Plan
from flowplan.planner.worlds import other_movers
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


class PlanInputs(TypedDict, total=False):
    """Optional inputs of `plan`, each computed if omitted or None.

    Attributes:
        contacts: contact candidates. Defaults to those of `propose_contacts`.
        flow: tracks to follow (noisy, partial, with confidence). Defaults to points sampled on the
            motion.
        start: (J,) configuration of the arm at the start. Defaults to `robot.home`.
    """

    contacts: ContactCandidates | None
    flow: ObjectFlow | None
    start: FloatArray | None


def plan(
    scene: Scene,
    motion: SceneMotion,
    robot: Robot,
    *,
    options: PlanOptions | None = None,
    optimizer: str | Optimizer = registry.DEFAULT,
    seed: int = 0,
    progress: Progress = silent,
    **inputs: Unpack[PlanInputs],
) -> Plan | NoPlan:
    """A certified trajectory that makes one object of the scene follow a motion.

    Args:
        scene: the world at t = 0.
        motion: desired motion. The object with the largest displacement is the one to touch.
        robot: the arm, placed by `robot.X_world_base`; it ends in `robot.home`, or holding the
            object (PlanOptions.release).
        options: see PlanOptions. Defaults to PlanOptions().
        optimizer: name of a trajectory optimizer (flowplan.optimizers.NAMES), or a function of its
            type.
        seed: Random seed; one seed gives one plan.
        progress: called with the fraction done and a short message.
        inputs: `contacts`, `flow` and `start`; see PlanInputs.

    Returns:
        A certified Plan, or a NoPlan with the reasons.

    Raises:
        ValueError: if an argument is of another type, the motion does not fit the scene, nothing
            in it moves, or either is larger than `options.size` allows.
    """
    _check_types(scene, motion, robot)
    check_fits(scene, motion)
    options = options or PlanOptions()
    _check_size(scene, motion, options.size)
    start = inputs.get("start")
    start = robot.home if start is None else checks.array("start", start, robot.home.shape)
    optimize = registry.get(optimizer)
    target = moved_object(scene, motion)
    assumptions = _assumptions(scene, target, is_deformable(scene, motion, target))

    progress(0.0, "examining the motion")
    motion, quality = prepare(
        scene, motion, options.motion, robot=robot, contact=options.validation
    )
    if options.motion.check and quality.reasons:
        return NoPlan(tuple(unfit(reason) for reason in quality.reasons), assumptions, quality)

    flow = inputs.get("flow")
    if flow is None:
        flow = sample_flow(scene, motion, points_per_object=options.flow_points, seed=seed)
    around = phase_geometry(scene, motion, target)

    progress(0.01, "examining where the motion ends")
    ending, guesses = ending_of(scene, motion, target, around.deformable, options)
    assumptions += guesses

    progress(0.02, "computing distance fields")
    fields = distance_fields(around, robot, options.geometry)
    movers = tuple(other_movers(scene, motion, target))
    problem = Problem(
        scene,
        motion,
        flow,
        robot,
        start,
        target,
        around,
        fields,
        options,
        optimize,
        seed,
        ending,
        movers,
    )

    progress(0.1, "proposing contacts")
    contacts = inputs.get("contacts")
    if contacts is None:
        contacts = propose_contacts(scene, motion, robot, target, options, seed=seed)
    if around.deformable:
        contacts = as_pinches(contacts)

    attempts: list[Attempt] = []
    if options.rank:
        progress(0.15, f"ranking {len(contacts)} contacts with the flow")
        contacts, reports = rank_with_flow(
            contacts,
            flow,
            around,
            robot,
            options.ranking,
            attachment=options.attachment,
            field=fields.during,
            seed=seed,
        )
        attempts = [rejected(i, report) for i, report in enumerate(reports) if report.reasons]

    for rank in range(min(len(contacts), options.candidates)):
        done = 0.2 + 0.8 * rank / options.candidates
        progress(done, f"contact {rank + 1} of {len(contacts)}")
        tried = try_contact(problem, contacts.select([rank]), rank)
        if isinstance(tried, Plan):
            progress(1.0, "certified")
            attempts += tried.attempts
            return replace(
                tried,
                candidates=contacts,
                attempts=tuple(attempts),
                assumptions=assumptions,
                motion=quality,
            )
        attempts.append(tried)
    return NoPlan(tuple(attempts), assumptions, quality)


def _check_types(scene: Scene, motion: SceneMotion, robot: Robot) -> None:
    """Refuse arguments that are no scene, motion or robot."""
    expected = (
        ("scene", scene, Scene, "load_scene reads one"),
        ("motion", motion, SceneMotion, "a generator makes a list of them"),
        ("robot", robot, Robot, "load_robot reads one, by name or path"),
    )
    for name, value, kind, hint in expected:
        if not isinstance(value, kind):
            got = type(value).__name__
            raise ValueError(f"{name}: expected a {kind.__name__}, got {got}; {hint}")


def _check_size(scene: Scene, motion: SceneMotion, limits: SizeLimits) -> None:
    """Refuse scenes and motions for which memory or time would not suffice."""
    bodies = (*scene.objects, *scene.obstacles)
    faces = sum(len(body.mesh.faces) for body in bodies)
    for name, value, limit, unit, remedy in (
        ("motion.times", motion.times[-1], limits.duration, "s", "split the motion"),
        ("motion.times", len(motion.times), limits.frames, "frames", "take fewer frames"),
        ("scene", len(bodies), limits.bodies, "bodies", "leave out what is out of reach"),
        ("scene", faces, limits.faces, "triangles", "simplify its meshes"),
    ):
        if not value <= limit:
            field = {"s": "duration", "triangles": "faces"}.get(unit, unit)
            raise ValueError(
                f"{name}: {value:g} {unit} are more than the {limit:g} that are planned for; "
                f"{remedy}, or raise size.{field}"
            )


def _assumptions(scene: Scene, target: int, deformable: bool) -> tuple[str, ...]:
    """The guess about the target, if the scene leaves it open."""
    obj = scene.objects[target]
    if obj.deformable is not None:
        return ()
    guess = "deformable" if deformable else "rigid or articulated"
    return (f"{obj.name} is {guess}, a guess (SceneObject.deformable decides)",)
