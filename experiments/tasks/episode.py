"""One simulated episode: scan, generate a motion, plan, execute, measure the end state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from experiments.tasks import baselines
from experiments.tasks.options import METHODS
from flowplan import optimizers
from flowplan.articulation import articulate
from flowplan.collision.phase_geometry import is_deformable
from flowplan.grasp import ContactKind
from flowplan.laws import Law
from flowplan.motion import Generator, Progress, SceneMotion, silent
from flowplan.planner import NoPlan, Plan, PlanOptions, plan
from flowplan.robot import Robot, load_robot
from flowplan.rollout import Rollout
from flowplan.scan import DepthFrame, ScanOptions, scan_frames
from flowplan.scene import Action, Instruction, Scene
from flowplan.trajectory import Trajectory
from flowplan.utils import checks
from sim_envs.arm import Arm
from sim_envs.camera import Recorder
from sim_envs.execute import Track, execute, link_points
from sim_envs.scan_views import capture_views
from sim_envs.task import TaskSetup
from sim_envs.tasks import TASKS
from sim_envs.world import World, WorldOptions

GeneratorFactory = Callable[[tuple[Law, ...]], Generator]


@dataclass(frozen=True)
class EpisodeSpec:
    """Everything that determines an episode.

    Attributes:
        task: name of a task.
        robot: name of a robot configuration.
        generator: name of the generator.
        method: one of METHODS.
        seed: Random seed of the world's randomization and of everything after it.
        instruction: input of the generator: the task's "action" (handles and targets) or its
            "prompt" (a sentence).
        optimizer: name of the trajectory optimizer; unused by the method "kabsch_ik".
        release: PlanOptions.release, or "task" for what the task states; the method "kabsch_ik"
            always lets go.
        articulate: cut the scanned objects into the rigid parts of the generated motion, and move
            these exactly along their joints (flowplan.articulation).
    """

    task: str
    robot: str
    generator: str
    method: str
    seed: int
    instruction: Literal["action", "prompt"] = "action"
    optimizer: str = optimizers.DEFAULT
    release: Literal["task", "auto", "always", "never"] = "task"
    articulate: bool = False

    def __post_init__(self) -> None:
        checks.choice("task", self.task, list(TASKS))
        checks.choice("instruction", self.instruction, ("action", "prompt"))
        checks.choice("method", self.method, METHODS)
        checks.choice("optimizer", self.optimizer, optimizers.NAMES)
        checks.choice("release", self.release, ("task", "auto", "always", "never"))

    def label(self) -> str:
        """Short description for progress lines."""
        return f"{self.task} {self.robot} {self.method} seed {self.seed}"

    def key(self) -> str:
        """Prefix of the keys of its records."""
        return f"eval/{self.task}/{self.generator}/{self.robot}/{self.method}"


@dataclass(frozen=True)
class Episode:
    """Result of one episode.

    Attributes:
        spec: the episode's specification.
        outcome: one of flowplan.rollout.OUTCOMES.
        reason: cause of a failure; empty for a success.
        measures: quantities of the physical end state, SI units.
        seconds: wall time of each stage.
    """

    spec: EpisodeSpec
    outcome: str
    reason: str
    measures: dict[str, float]
    seconds: dict[str, float]


@dataclass
class Stages:
    """Output of each stage, for recording; None for stages that the episode did not reach."""

    frames: list[DepthFrame] = field(default_factory=list)
    scene: Scene | None = None
    motion: SceneMotion | None = None
    robot: Robot | None = None
    plan: Plan | NoPlan | None = None
    rollout: Rollout | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Context that stores the wall time of its block under `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def run_episode(
    spec: EpisodeSpec,
    generator: GeneratorFactory,
    *,
    options: PlanOptions = PlanOptions(),
    stages: Stages | None = None,
    recorder: Recorder | None = None,
    progress: Progress = silent,
) -> Episode:
    """Scan, generate, plan, execute and measure one task.

    Args:
        spec: specification of the episode.
        generator: makes a generator from the task's laws of motion.
        options: of the planner; unused by the method "kabsch_ik". Their `release` is that of the
            specification.
        stages: filled with the output of each stage.
        recorder: films the execution.
        progress: called before each stage.
    """
    stages = stages if stages is not None else Stages()
    task = TASKS[spec.task]
    rng = np.random.default_rng(spec.seed)
    release = task.release if spec.release == "task" else spec.release
    options = replace(options, release=release)
    stages.robot = robot = load_robot(spec.robot)
    with World(WorldOptions(deformable=task.deformable)) as world:
        # The world: robot and task at rest.
        with stages.timed("set_up"):
            arm = Arm.add(world, robot)
            setup = task.setup(world, rng)
        progress(0.1, "scanning")
        # Depth images of several views, fused.
        with stages.timed("scan"):
            stages.frames = capture_views(world, setup, seed=spec.seed)
            stages.scene = scene = scan(stages.frames, setup)
        progress(0.3, "generating")
        # The best motion for the task's instruction.
        with stages.timed("generate"):
            instruction = task.prompt if spec.instruction == "prompt" else setup.instruction
            motions = generator(setup.laws)(scene, instruction, seed=spec.seed)
            motion = motions[0]
            if spec.articulate:
                scene, motion = _articulated(scene, motion, instruction)
            stages.scene, stages.motion = scene, motion
        progress(0.35, "planning")
        # Trajectory of the arm; an episode without one ends here.
        with stages.timed("plan"):
            trajectory, kind, reason = _trajectory(spec, scene, motion, robot, options, stages)
        if trajectory is None:
            return Episode(spec, "no_plan", reason, {}, stages.seconds)
        progress(0.6, "executing")
        # Motors, contacts and friction decide what happens.
        with stages.timed("execute"):
            target = setup.instruction.object
            execution = execute(
                world,
                arm,
                trajectory,
                targets=[target],
                track=_track(world, setup),
                kind=kind,
                on_step=recorder,
            )
        # Success is read off the physical end state.
        measures = {name: float(value) for name, value in setup.measure(world).items()}
        stages.rollout = execution.rollout(setup.verdict(measures), measures)
        events = [f"{e.kind} at {e.time:.2f} s: {e.detail}" for e in execution.events]
        reason = "" if stages.rollout.outcome == "success" else "; ".join(events)
        return Episode(spec, stages.rollout.outcome, reason, measures, stages.seconds)


def scan(frames: list[DepthFrame], setup: TaskSetup) -> Scene:
    """Scene reconstructed from depth frames: movable things as objects, all others as obstacles."""
    found = scan_frames(frames, ScanOptions(names=tuple(setup.scan_ids), support_height=0.0))
    movable = tuple(o for o in found.objects if o.name in setup.objects)
    static = tuple(o for o in found.objects if o.name not in setup.objects)
    return Scene(movable, found.support_height, static)


def _articulated(
    scene: Scene, motion: SceneMotion, instruction: Instruction
) -> tuple[Scene, SceneMotion]:
    """Scene and motion of rigid parts on joints."""
    bends = [is_deformable(scene, motion, i) for i in range(len(scene.objects))]
    action = instruction if isinstance(instruction, Action) else None
    made = articulate(scene, motion, action=action, deformable=bends)
    return made.scene, made.motion


def _trajectory(
    spec: EpisodeSpec,
    scene: Scene,
    motion: SceneMotion,
    robot: Robot,
    options: PlanOptions,
    stages: Stages,
) -> tuple[Trajectory | None, ContactKind, str]:
    """The trajectory to execute, the kind of its contact, and the reason if there is none."""
    if spec.method == "kabsch_ik":
        trajectory, reason = baselines.kabsch_ik(scene, motion, robot, seed=spec.seed)
        return trajectory, "grasp", reason
    # Random grasps keep their order; the planner ranks its own.
    contacts = None
    if spec.method == "random_grasp":
        contacts = baselines.random_grasps(scene, motion, robot, seed=spec.seed)
        options = replace(options, rank=False)
    result = plan(
        scene,
        motion,
        robot,
        contacts=contacts,
        options=options,
        optimizer=spec.optimizer,
        seed=spec.seed,
    )
    stages.plan = result
    if isinstance(result, NoPlan):
        return None, "grasp", result.reason
    return result.trajectory, result.contact.kind[0], ""


def _track(world: World, setup: TaskSetup) -> Track:
    """Points of the instructed object to log."""
    # All vertices of a cloth, or the origins of a body's links.
    body = setup.objects[setup.instruction.object]
    if world.is_cloth(body):
        return lambda: world.cloth_vertices(body)
    return link_points(world, body, {link: np.zeros((1, 3)) for link in world.link_poses(body)})
