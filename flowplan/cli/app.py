"""The command line: `flowplan scan | generate | plan | run | eval | bench | train | view | export | ros`.

Each command is a function whose annotated arguments are its options (tyro). This is the one module of flowplan that
reaches into generators, sim_envs and ros_nodes, and it does so inside the command that needs them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


def main() -> None:
    """Entry point: a caller's mistake is one line and exit status 2, an interruption 130."""
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="flowplan", description=__doc__.split("\n")[0]
        )
    except (ValueError, OSError, ImportError) as error:
        console.print(f"[bold red]flowplan:[/] {escape(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        console.print(escape(str(interrupt)) or "interrupted")  # long work says how to go on
        sys.exit(130)
    sys.exit(int(status or 0))


def scan(
    source: tyro.conf.Positional[Path],
    out: Path = Path("scene.npz"),
    unit: Literal["m", "cm", "mm", "in"] | None = None,
    name: str | None = None,
    position: tuple[float, float] | None = None,
) -> int:
    """Make a scene from a folder of depth frames, a mesh (.obj .ply .stl .glb), a point cloud or a URDF.

    Args:
        source: folder of PNG depth + JSON, or a file.
        out: scene file to write.
        unit: length unit of a mesh file; without it metres are taken, and a doubtful size is warned about.
        name: what the object is called in the scene; the file's name where not given.
        position: x, y in metres where a file's object is stood on the table; as in the file where not given.
    """
    from flowplan.io import npz
    from flowplan.scan import load_scene

    scene = load_scene(source, unit=unit, name=name, position=position)
    npz.save(out, scene)
    for obj in scene.objects:
        size = " x ".join(f"{100 * e:.1f}" for e in obj.mesh.extents)
        _say(
            f"{obj.name}: {len(obj.mesh.faces)} faces, {size} cm, watertight: {obj.mesh.is_watertight}"
        )
    _say(f"wrote {out}")
    return 0


def generate(
    scene: tyro.conf.Positional[Path],
    motion: tyro.conf.Positional[Path | None] = None,
    generator: Literal["kinematic", "neurok", "chord"] = "kinematic",
    prompt: str = "",
    prior: str = "choreographer",
    iterations: int | None = None,
    duration: float | None = None,
    segments: int = 1,
    samples: int = 1,
    folder: Path | None = None,
    resume: tyro.conf.FlagCreatePairsOff[bool] = False,
    out: Path | None = None,
    seed: int | None = None,
) -> int:
    """Make a motion of a scene from a JSON file that says what moves and how far (docs/tutorial.md), or from a sentence.

    Args:
        scene: scene file; for chord also a .toml file of objects, a prompt and a seed (docs/chord.md shows one).
        motion: JSON file with the instruction and, for the kinematic generator, the law of motion.
        generator: which generator.
        prompt: in its place, a sentence, which chord follows.
        prior: chord's video model: choreographer, choreographer:WEIGHTS, or wan:FOLDER-OR-NAME.
        iterations: chord's; the usual number for its prior where not given.
        duration: seconds of chord's motions; the usual ones where not given.
        segments: motions in a chain, each from the last frame of the one before (chord).
        samples: motions tried; the best is written (chord).
        folder: where chord keeps checkpoints and previews; nowhere where not given, runs/NAME for a .toml file.
        resume: go on from what the folder holds (chord).
        out: motion file to write, motion.npz where not given; what a .toml file asks for goes to its folder.
        seed: of every random choice, 0 where not given; a .toml file has its own.
    """
    from flowplan.io import npz

    if generator == "chord":
        from generators.chord.generate import from_prior, load_prior
        from generators.chord.options import default_options

        options = replace(default_options(prior), segments=segments, samples=samples)
        given: dict[str, Any] = {"iterations": iterations, "duration": duration}
        options = replace(
            options, **{name: value for name, value in given.items() if value is not None}
        )
        if scene.suffix == ".toml":
            if motion or prompt or out or seed is not None:
                raise ValueError(
                    f"flowplan generate: {scene} has its own prompt, seed and folder; give --folder alone"
                )
            return _run_job(scene, prior, options, folder, resume)
        world, instruction = _prompted(scene, motion, prompt)
        make = from_prior(load_prior(prior), options, folder=folder, resume=resume)
    else:
        from flowplan.io.instruction import read_instruction
        from flowplan.scene import Scene
        from generators.registry import factory

        if motion is None:
            raise ValueError(
                f"flowplan generate: {generator} takes a JSON file with handles and targets; give MOTION"
            )
        world = npz.load(scene, Scene)
        laws, instruction = read_instruction(motion, world)
        make = factory(generator)(laws)
    with _bar("generating") as progress:
        motions = make(world, instruction, seed=seed or 0, progress=progress)
    out = out or Path("motion.npz")
    npz.save(out, motions[0])
    _say(f"{len(motions[0].times)} frames over {motions[0].times[-1]:.2f} s; wrote {out}")
    return 0


def _run_job(path: Path, prior: str, options: Any, folder: Path | None, resume: bool) -> int:
    """A scene file with its prompt: everything goes into its folder."""
    from generators.chord.generate import load_prior
    from generators.chord.scene_file import read_job, run_job

    job, folder = read_job(path), folder or Path("runs") / path.stem
    with _bar(path.stem) as progress:
        motions = run_job(job, load_prior(prior), folder, options, resume=resume, progress=progress)
    _say(f"{len(motions)} motions of {motions[0].times[-1]:.2f} s; wrote {folder}/")
    return 0


def _prompted(scene: Path, motion: Path | None, prompt: str) -> tuple[Any, Any]:
    """A scene and a sentence, from the command line or a JSON file."""
    from flowplan.io import npz
    from flowplan.io.instruction import read_instruction
    from flowplan.scene import Prompt, Scene

    if (motion is None) == (not prompt):
        raise ValueError(
            "flowplan generate: chord takes either --prompt or a JSON file with one, got both or neither"
        )
    world = npz.load(scene, Scene)
    return world, Prompt(prompt) if motion is None else read_instruction(motion, world)[1]


def plan(
    scene: tyro.conf.Positional[Path],
    motion: tyro.conf.Positional[Path],
    robot: str = "panda",
    contact: Literal["any", "grasp", "push"] = "any",
    timing: Literal["flow", "fast"] = "flow",
    out: Path = Path("plan.npz"),
    seed: int = 0,
) -> int:
    """Plan a motion for a robot, and print a feasibility report; exit status 1 where there is no plan.

    Args:
        scene: scene file.
        motion: motion file.
        robot: name of a robot configuration, or path of a .toml file.
        contact: grasp, push, or whichever ranks best.
        timing: keep the flow's clock, or go as fast as the limits allow.
        out: plan file to write; nothing is written where there is no plan.
        seed: of every random choice.
    """
    from flowplan.io import npz
    from flowplan.motion import SceneMotion
    from flowplan.planner import planner
    from flowplan.report import feasibility
    from flowplan.robot import load_robot
    from flowplan.scene import Scene

    options = planner.PlanOptions(contact=contact, timing=timing)
    arguments = (npz.load(scene, Scene), npz.load(motion, SceneMotion), load_robot(robot))
    with _bar("planning") as progress:
        result = planner.plan(*arguments, options=options, seed=seed, progress=progress)
    _say(feasibility(result))
    if isinstance(result, planner.NoPlan):
        return 1
    npz.save(out, result)
    _say(f"wrote {out}")
    return 0


def run(
    task: tyro.conf.Positional[str],
    generator: Literal["kinematic", "neurok", "chord"] = "kinematic",
    robot: str = "panda",
    method: Literal["planner", "random_grasp", "kabsch_ik"] = "planner",
    optimizer: str = "lm",
    out: Path | None = None,
    seed: int = 0,
    video: bool = True,
) -> int:
    """Do a task in simulation, all the way: scan, generate, plan, execute, measure. Exit status 1 where it fails.

    Args:
        task: close_laptop, pick_place, lower_lamp, fold_cloth, open_drawer or turn_faucet.
        generator: which generator makes the motion.
        robot: name of a robot configuration.
        method: the planner, or a baseline in its place.
        optimizer: name of the trajectory optimizer.
        out: folder for every stage's file, metrics, video and page; runs/TASK-ROBOT-SEED where not given.
        seed: of the world and every random choice.
        video: film the execution.
    """
    from experiments.tasks.episode import EpisodeSpec
    from experiments.tasks.record import run_and_record
    from generators.registry import factory, takes

    spec = EpisodeSpec(task, robot, generator, method, seed, takes(generator), optimizer)
    folder = out or Path("runs") / f"{task}-{robot}-{seed}"
    with _bar(spec.label()) as progress:
        episode, report = run_and_record(
            spec, factory(generator), folder, video=video, progress=progress
        )
    if report:
        _say(report)
    measures = ", ".join(f"{k} {v:.3g}" for k, v in episode.measures.items())
    _say(f"{episode.outcome.upper()}: {spec.label()}: {measures or episode.reason}")
    _say(f"wrote {folder}/")
    return 0 if episode.outcome == "success" else 1


def evaluate(
    what: tyro.conf.Positional[Literal["tasks", "neurok", "chord"]] = "tasks",
    generator: Literal["kinematic", "neurok", "chord"] = "kinematic",
    tasks: str = "all",
    robots: str = "panda,ur5e",
    methods: str = "planner,random_grasp,kabsch_ik",
    seeds: int = 20,
    first_seed: int = 0,
    workers: int = 2,
    weights: str | None = None,
    also: str = "",
    instances: int = 64,
    families: str = "",
    scenes: int = 52,
    kinds: str = "",
    ablations: tyro.conf.FlagCreatePairsOff[bool] = False,
    json: Path | None = None,
) -> int:
    """Evaluate `tasks` in simulation (success shares, failures by kind, baselines), or `neurok` or `chord` by themselves.

    Args:
        what: tasks (the next seven options are theirs), neurok, or chord with the choreographer as its video model.
        generator: which generator makes the motions.
        tasks: names separated by commas, or "all".
        robots: names separated by commas.
        methods: the planner and its baselines, separated by commas.
        seeds: episodes of each combination.
        first_seed: the first seed.
        workers: processes.
        weights: of the network: name of some that ship, or path of a file; the best that ship where not given.
        also: further weights that stand beside them in the tables, NAME=PATH separated by commas (neurok).
        instances: held-out objects of trained families; half as many of families that were never trained on (neurok).
        families: inverse kinematics alone, on instances of these families, separated by commas (neurok).
        scenes: held-out scenes, kinds in turn (chord).
        kinds: of scenes, separated by commas; all where not given (chord).
        ablations: also other reductions of the latent space (neurok), or without one of its parts (chord).
        json: file for the records; beside it FILE.episodes.jsonl keeps every episode, and an interrupted run resumes.
    """
    if what == "chord":
        return _evaluate_chord(
            weights or "choreographer-small", scenes, _names(kinds), ablations, json
        )
    if what == "neurok":
        return _evaluate_neurok(
            weights or "neurok-small", also, instances, _names(families), ablations, json
        )
    from experiments.tasks.evaluate import EvaluationOptions, success_records, success_table
    from experiments.tasks.evaluate import evaluate as run_all
    from generators.registry import factory, takes
    from sim_envs.tasks import TASKS

    chosen = tuple(TASKS) if tasks == "all" else _names(tasks)
    options = EvaluationOptions(
        chosen, _names(robots), _names(methods), seeds, first_seed, workers, takes(generator)
    )
    log = json.with_name(json.name + ".episodes.jsonl") if json else None
    with _bar("evaluating") as progress:
        episodes = run_all(factory(generator), generator, options, log=log, progress=progress)
    _records(success_records(episodes), json)
    console.print(success_table(episodes), markup=False)
    return 0


def _evaluate_neurok(
    weights: str,
    also: str,
    instances: int,
    families: tuple[str, ...],
    ablations: bool,
    out: Path | None,
) -> int:
    from experiments.neurok import ablations as study
    from experiments.neurok import evaluate
    from experiments.neurok.box_experiment import box_records, dynamics_speed_records
    from generators.data.objects.partnet import read_articulated
    from generators.neurok.network.weights import load
    from sim_envs.assets import metaworld_urdfs

    model = load(weights)
    pairs = [entry.partition("=") for entry in also.split(",") if entry]
    names = study.METHODS + study.ABLATIONS if ablations else study.METHODS
    methods = study.ik_methods(model, names, {name: load(path) for name, _, path in pairs})
    others = {name: read_articulated(path, name=name) for name, path in metaworld_urdfs().items()}
    log = out.with_name(out.name + ".episodes.jsonl") if out else None
    with _bar("inverse kinematics") as progress:
        results = evaluate.evaluate(
            study.ik_cases(instances, others, families), methods, log=log, progress=progress
        )
    records = evaluate.ik_records(results)
    if not families:
        with _bar("timing") as progress:
            records += study.speed_records(model, progress=progress)
        with _bar("the box's lid") as progress:
            box, fall, pushes = _falling_box()
            figure = out.with_name(out.stem + "_box.png") if out else None
            records += box_records(model, box, fall, pushes, figure=figure, progress=progress)
            records += dynamics_speed_records(model, box, fall)
    _records(records, out)
    console.print(evaluate.ik_table(results), markup=False)
    return 0


def _evaluate_chord(
    weights: str, scenes: int, kinds: tuple[str, ...], ablations: bool, out: Path | None
) -> int:
    from experiments.chord import ablations as study
    from experiments.chord import evaluate
    from generators.chord.priors.choreographer.prior import Choreographer

    names = study.METHODS + study.ABLATIONS if ablations else study.METHODS
    methods = study.methods(Choreographer.load(weights), names)
    log = out.with_name(out.name + ".episodes.jsonl") if out else None
    with _bar("prompted scenes") as progress:
        results = evaluate.evaluate(
            evaluate.held_out_cases(scenes, kinds), methods, log=log, progress=progress
        )
    if ablations:
        results = evaluate.beside(results, study.ABLATIONS)
    _records(evaluate.records(results), out)
    console.print(evaluate.table(results), markup=False)
    return 0


def _falling_box() -> tuple[Any, Any, dict[float, Any]]:
    """A held-out box, how its lid falls from one radian, and how it rises when pushed by multiples of its weight."""
    import tempfile

    import numpy as np

    from experiments.neurok.box_experiment import BoxOptions, BoxTruth, held_out_box, lid_inertia
    from generators.data.objects.export import write_urdf
    from sim_envs.falling_lid import Push, RigidInertia, falling_lid

    box, options = held_out_box(), BoxOptions()
    lid = RigidInertia(*lid_inertia(box, options.dynamics.mass))
    with tempfile.TemporaryDirectory() as folder:
        urdf = write_urdf(box, Path(folder))

        def fall(angle: float, push: Push | None, seconds: float) -> BoxTruth:
            run = falling_lid(urdf, angle, np.linspace(0, seconds, 21), inertia=lid, push=push)
            return BoxTruth(
                run.times, run.link_poses, float(run.impacts[0]) if len(run.impacts) else None
            )

        def pushed(size: float) -> BoxTruth:
            return fall(
                0.0, Push(np.array([0, 0, size * 9.81 * lid.mass]), end=options.push_seconds), 0.3
            )

        return box, fall(1.0, None, 0.5), {size: pushed(size) for size in (0.5, 1.5, 2.0)}


def bench(
    what: tyro.conf.Positional[Literal["plan", "grasp", "shake", "ros", "wan"]],
    robot: str = "panda",
    json: Path | None = None,
    seed: int = 0,
    runs: int = 50,
) -> int:
    """Measure speed and quality: `plan` (time per certified plan), `grasp` (throughput), `shake` (held grasps), `ros`,
    `wan` (time and memory of CHORD's video models).

    Args:
        what: which benchmark; `ros` is the whole demo over ROS 2, panda only, and goes on where it was interrupted;
            `wan` needs an NVIDIA GPU and no weights.
        robot: name of a robot configuration.
        json: file for the records; that of `ros` has a log of its runs beside it.
        seed: of every random choice.
        runs: of `ros`.
    """
    with _bar(f"bench {what}") as progress:
        if what == "plan":
            from experiments.planning.bench_plan import bench_plan

            records = bench_plan(robot=robot, seed=seed, progress=progress)
        elif what == "grasp":
            from experiments.grasping.bench_grasp import bench_grasp

            records = bench_grasp(robot=robot, seed=seed, progress=progress)
        elif what == "shake":
            from experiments.grasping.shake import bench_shake

            records = bench_shake(robot=robot, seed=seed, progress=progress)
        elif what == "wan":
            from experiments.chord.bench_wan import bench_wan

            records = bench_wan(progress=progress)
        else:
            records = _bench_ros(robot, json, seed, runs, progress)
    _records(records, json)
    return 0


def _bench_ros(
    robot: str, out: Path | None, seed: int, runs: int, progress: Callable[[float, str], None]
) -> list[dict[str, Any]]:
    if robot != "panda":
        raise ValueError(
            f"flowplan bench ros: --robot: the simulated cell has a panda, got {robot!r}"
        )
    try:
        from flowplan_sim_hw.bench import bench_ros
    except ImportError as error:
        raise _no_ros("bench ros", error) from None
    log = out.with_name(out.name + ".runs.jsonl") if out else None
    return bench_ros(runs=runs, seed=seed, log=log, progress=progress)


def _no_ros(command: str, error: ImportError) -> ImportError:
    """What to do where the ROS 2 nodes cannot be imported."""
    return ImportError(
        f"flowplan {command}: {error}. Source the workspace that ros_nodes was built in (docs/ros2.md); "
        "without a ROS distribution, run `make ros`, then `. build/ros/environment.sh`"
    )


def train(
    what: tyro.conf.Positional[Literal["neurok", "choreographer"]],
    out: Path | None = None,
    config: Literal["small", "paper"] = "small",
    steps: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    points: int | None = None,
    lr: float | None = None,
    instances: int = 100,
    families: str = "",
    favour: str = "",
    scenes: int = 400,
    kinds: str = "",
    seed: int = 0,
    threads: int = 0,
    compile: tyro.conf.FlagCreatePairsOff[bool] = False,
    start: str | None = None,
    resume: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Train a generator's network; an interruption leaves a checkpoint and the weights so far.

    Args:
        what: which network: NeuROK's, or the choreographer, CHORD's small video model.
        out: folder of the checkpoint, metrics, curves and weights; runs/NETWORK where not given.
        config: size of the network (neurok).
        steps: steps to take; the network's own number where not given, as with the next three.
        minutes: wall-clock budget, which the learning rate falls over; whichever of the two ends first.
        batch: pairs of poses, or videos, in a step.
        points: surface points of a pair, or of a scene.
        lr: highest learning rate.
        instances: objects of each family (neurok).
        families: names separated by commas; all but the held-out ones where not given (neurok).
        favour: families to draw oftener, separated by commas; each mention doubles a family's chance (neurok).
        scenes: scenes of each kind (choreographer).
        kinds: of scenes, names separated by commas; all where not given (choreographer).
        seed: of every random choice.
        threads: threads of the processor; torch's own choice where 0.
        compile: compile the loss first: minutes, and then steps take two thirds of the time (needs a C++ compiler).
        start: weights to begin with, a name among those that ship or a file; chance where not given.
        resume: go on from the folder's checkpoint.
    """
    given = {"steps": steps, "batch": batch, "points": points, "learning_rate": lr}
    shared: dict[str, Any] = {
        "out": out or Path("runs") / what,
        "minutes": minutes,
        "seed": seed,
        "threads": threads,
        "compile": compile,
        "start": start,
        "resume": resume,
    } | {name: value for name, value in given.items() if value is not None}
    with _bar(f"training {what}") as progress:
        if what == "neurok":
            from generators.neurok import train as neurok

            options = neurok.TrainOptions(
                config=config,
                instances=instances,
                families=_names(families),
                favour=_names(favour),
                **shared,
            )
            path = neurok.train(options, progress)
        else:
            from generators.chord.priors.choreographer import train as choreographer

            path = choreographer.train(
                choreographer.TrainOptions(scenes=scenes, kinds=_names(kinds), **shared), progress
            )
    _say(f"wrote {path}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    """What is listed between commas."""
    return tuple(filter(None, text.split(",")))


def view(folder: tyro.conf.Positional[Path], port: int = 8080) -> int:
    """Serve a run's folder in the browser until interrupted.

    Args:
        folder: what `flowplan run` wrote.
        port: to listen on.
    """
    from flowplan.viz.viewer import serve_folder

    serve_folder(folder, port=port)
    return 0


def export(
    scene: tyro.conf.Positional[Path],
    motion: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
) -> int:
    """Write a scene's motion as animated glTF (.glb).

    Args:
        scene: scene file.
        motion: motion file.
        out: .glb file to write.
    """
    from flowplan.io import npz
    from flowplan.io.gltf import export_gltf
    from flowplan.motion import SceneMotion
    from flowplan.scene import Scene

    export_gltf(out, npz.load(scene, Scene), npz.load(motion, SceneMotion))
    _say(f"wrote {out}")
    return 0


def ros(
    what: tyro.conf.Positional[Literal["send"]],
    text: tyro.conf.Positional[str] = "",
    document: Path | None = None,
    task: tyro.conf.FlagCreatePairsOff[bool] = False,
    names: str = "",
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
    velocity_scaling: float = 0.0,
    namespace: str = "",
    json: Path | None = None,
    seed: int = 0,
) -> int:
    """Ask the ROS 2 nodes for something: scan, flow, plan, execute. Exit status 1 where a stage fails; ctrl-C cancels.

    Args:
        what: send an instruction.
        text: a sentence.
        document: in its place, a JSON file as for `flowplan generate`.
        task: in their place, the task that a simulation publishes.
        names: of the objects, from the nearest to the robot outwards, separated by commas; the instruction's where not
            given.
        dry_run: show the motion, move nothing.
        velocity_scaling: share of the planned speed; 0 for the executor's own.
        namespace: of the nodes.
        json: file for records of how long each stage took.
        seed: of every random choice.
    """
    try:
        from flowplan_ros.client import STAGES, Client, StageFailed
        from flowplan_ros.conversions import document_to_msg, instruction_to_msg
    except ImportError as error:
        raise _no_ros("ros", error) from None
    from flowplan.scene import Prompt
    from flowplan.utils.records import record

    if sum((bool(text), document is not None, task)) != 1:
        raise ValueError("flowplan ros send: expected one of TEXT, --document and --task")
    with Client(namespace) as client, _stages(STAGES) as (progress, ask):
        if task:
            instruction = client.task()
        else:
            instruction = (
                document_to_msg(document.read_text())
                if document
                else instruction_to_msg(Prompt(text))
            )
        try:
            done = client.send(
                instruction,
                names=_names(names),
                seed=seed,
                dry_run=dry_run,
                velocity_scaling=velocity_scaling,
                on_progress=progress,
                on_confirm=ask if sys.stdin.isatty() else None,
            )
        except StageFailed as failure:
            console.print(f"[bold red]{escape(failure.stage)}:[/] {escape(failure.text)}")
            return 1
    if json is not None:
        _records(
            [record(f"ros/{k}", v, "s", "down") for k, v in done.seconds.items()],
            json,
        )
    _say(done.execution.error_msg)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "scan": scan,
    "generate": generate,
    "plan": plan,
    "run": run,
    "eval": evaluate,
    "bench": bench,
    "train": train,
    "view": view,
    "export": export,
    "ros": ros,
}


@dataclass
class _bar:
    """A progress bar with the time left, as a context that yields a progress callback."""

    title: str

    def __enter__(self) -> Callable[[float, str], None]:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._progress.start()
        task = self._progress.add_task(self.title, total=1.0)
        return lambda fraction, word: self._progress.update(
            task, completed=fraction, description=escape(word)
        )

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


@dataclass
class _stages:
    """A progress bar for each stage, as a context that yields a progress callback, and one that asks a person."""

    names: tuple[str, ...]

    def __enter__(self) -> tuple[Callable[[str, float, str], None], Callable[[], bool]]:
        self._progress = Progress(
            TextColumn("{task.fields[stage]:8}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._tasks = {
            name: self._progress.add_task("", total=1.0, start=False, stage=name)
            for name in self.names
        }
        self._progress.start()
        return self._tell, self._ask

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _tell(self, stage: str, fraction: float, status: str) -> None:
        task = self._tasks[stage]
        if not self._progress.tasks[task].started:
            self._progress.start_task(task)
        self._progress.update(task, completed=fraction, description=escape(status))

    def _ask(self) -> bool:
        self._progress.stop()
        try:
            return console.input(
                "Is the workspace clear? Execute the plan (y/N)? "
            ).strip().lower() in ("y", "yes")
        finally:
            self._progress.start()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _records(records: list[dict[str, Any]], path: Path | None) -> None:
    text = json.dumps(records, indent=1)
    if path is None:
        _say(text)
        return
    from flowplan.utils.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as f:
        f.write((text + "\n").encode())
    _say(f"wrote {path}")


if __name__ == "__main__":
    main()
