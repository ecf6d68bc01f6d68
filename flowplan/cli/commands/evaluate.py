"""`flowplan eval tasks | motions | neurok | chord`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from flowplan.cli import console, names
from flowplan.cli.parser import OneOf, Options
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

if TYPE_CHECKING:
    from experiments.neurok.box_scene import BoxTruth
    from generators.neurok.network.model import Neurok as Network


@dataclass(frozen=True)
class Tasks:
    """Do simulated tasks over many seeds: success shares, failures by kind, baselines.

    With --json, FILE.episodes.jsonl keeps every episode, and an interrupted evaluation resumes.
    """

    generator: Annotated[str, OneOf(names.generators)] = "kinematic"
    """Generator that makes the motions"""
    device: str = "auto"
    """Device of the generator: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."""
    json: Path | None = None
    """File for the records. Defaults to stdout."""
    options: Annotated[
        Any, Options("experiments.tasks.options:EvaluationOptions", hide=("instruction",))
    ] = None

    def run(self) -> int:
        from experiments.tasks.evaluate import evaluate, success_records, success_table
        from flowplan.cli.commands.generate import with_device
        from generators.registry import factory, takes

        options = replace(self.options, instruction=takes(self.generator))
        log = console.beside(self.json, ".episodes.jsonl")
        make = factory(self.generator, with_device(self.generator, self.device))
        with console.progress("evaluating") as tell:
            episodes = evaluate(make, self.generator, options, log=log, progress=tell)
        console.records(success_records(episodes), self.json)
        console.table(success_table(episodes))
        return 0


@dataclass(frozen=True)
class Motions:
    """Report on the motions that a generator makes of the tasks' scans: bending, tears, jitter.

    With --json, FILE.episodes.jsonl keeps every motion, and an interrupted evaluation resumes.
    """

    generator: Annotated[str, OneOf(names.generators)] = "kinematic"
    """Generator that makes the motions"""
    tasks: tuple[str, ...] = ()
    """Names of tasks. Defaults to all."""
    device: str = "auto"
    """Device of the generator: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."""
    seeds: Annotated[int, Interval(1, 100_000)] = 5
    """Motions of each task."""
    first_seed: Annotated[int, Interval(0, math.inf)] = 0
    """Seed of the first motion."""
    json: Path | None = None
    """File for the records. Defaults to stdout."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from experiments.tasks.motions import evaluate_motions, motion_records, motion_table
        from flowplan.cli.commands.generate import with_device
        from generators.registry import factory

        make = factory(self.generator, with_device(self.generator, self.device))
        log = console.beside(self.json, ".episodes.jsonl")
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        with console.progress("evaluating") as tell:
            found = evaluate_motions(
                make, self.generator, self.tasks, seeds, log=log, progress=tell
            )
        console.records(motion_records(found), self.json)
        console.table(motion_table(found))
        return 0


@dataclass(frozen=True)
class Neurok:
    """Evaluate NeuROK's network: inverse kinematics, a falling lid, speed; beside baselines.

    With --json, FILE.episodes.jsonl keeps every case, and an interrupted evaluation resumes.
    """

    weights: str = "neurok-small"
    """Name of weights that ship, or path of a file."""
    also: dict[str, Path] | None = None
    """Further weights beside them in the tables, as NAME FILE pairs."""
    instances: Annotated[int, Interval(1, math.inf)] = 64
    """Held-out objects of trained families; half as many of families that were never trained on."""
    families: tuple[str, ...] = ()
    """Inverse kinematics alone, on these families. Defaults to everything."""
    ablations: bool = False
    """Also other reductions of the latent space."""
    json: Path | None = None
    """File for the records. Defaults to stdout."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from experiments.neurok import ablations, evaluate
        from generators.data.objects.partnet import read_articulated
        from generators.neurok.network.weights import load
        from sim_envs.assets import metaworld_urdfs

        model = load(self.weights)
        chosen = ablations.METHODS + (ablations.ABLATIONS if self.ablations else ())
        further = {name: load(str(path)) for name, path in (self.also or {}).items()}
        methods = ablations.ik_methods(model, chosen, further)
        others = {
            name: read_articulated(path, name=name) for name, path in metaworld_urdfs().items()
        }
        cases = ablations.ik_cases(self.instances, others, self.families)
        log = console.beside(self.json, ".episodes.jsonl")
        with console.progress("inverse kinematics") as tell:
            results = evaluate.evaluate(cases, methods, log=log, progress=tell)
        records = evaluate.ik_records(results)
        if not self.families:
            records += self._speed_and_dynamics(model)
        console.records(records, self.json)
        console.table(evaluate.ik_table(results))
        return 0

    def _speed_and_dynamics(self, model: Network) -> list[dict[str, Any]]:
        from experiments.neurok import ablations
        from experiments.neurok.box_experiment import box_records, dynamics_speed_records

        with console.progress("timing") as tell:
            records = ablations.speed_records(model, progress=tell)
        figure = self.json and self.json.with_name(self.json.stem + "_box.png")
        with console.progress("the box's lid") as tell:
            box, fall, pushes = _falling_box()
            records += box_records(model, box, fall, pushes, figure=figure, progress=tell)
            records += dynamics_speed_records(model, box, fall)
        return records


@dataclass(frozen=True)
class Chord:
    """Evaluate CHORD on held-out prompted scenes, beside no motion and a wrong sentence.

    With --json, FILE.episodes.jsonl keeps every case, and an interrupted evaluation resumes.
    """

    weights: str = "choreographer-small"
    """Name of weights that ship, or path of a file."""
    scenes: Annotated[int, Interval(1, math.inf)] = 52
    """Held-out scenes, the kinds in turn."""
    kinds: tuple[str, ...] = ()
    """Kinds of scenes. Defaults to all."""
    ablations: bool = False
    """Also CHORD without each of its parts."""
    json: Path | None = None
    """File for the records. Defaults to stdout."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from experiments.chord import ablations, evaluate
        from generators.chord.priors.choreographer.prior import Choreographer

        chosen = ablations.METHODS + (ablations.ABLATIONS if self.ablations else ())
        methods = ablations.methods(Choreographer.load(self.weights), chosen)
        cases = evaluate.held_out_cases(self.scenes, self.kinds)
        log = console.beside(self.json, ".episodes.jsonl")
        with console.progress("prompted scenes") as tell:
            results = evaluate.evaluate(cases, methods, log=log, progress=tell)
        if self.ablations:
            results = evaluate.beside(results, ablations.ABLATIONS)
        console.records(evaluate.records(results), self.json)
        console.table(evaluate.table(results))
        return 0


def _falling_box() -> tuple[Any, BoxTruth, dict[float, BoxTruth]]:
    """A held-out box, its lid's fall from one radian, and its rise when pushed."""
    import tempfile

    import numpy as np

    from experiments.neurok.box_experiment import held_out_box, lid_inertia
    from experiments.neurok.box_scene import BoxOptions, BoxTruth
    from generators.data.objects.export import write_urdf
    from sim_envs.falling_lid import Push, RigidInertia, falling_lid

    box, options = held_out_box(), BoxOptions()
    lid = RigidInertia(*lid_inertia(box, options.dynamics.mass))
    weight = 9.81 * lid.mass

    def fall(urdf: Path, angle: float, push: Push | None, seconds: float) -> BoxTruth:
        times = np.linspace(0, seconds, 21)
        run = falling_lid(urdf, angle, times, inertia=lid, push=push)
        impact = float(run.impacts[0]) if len(run.impacts) else None
        return BoxTruth(run.times, run.link_poses, impact)

    with tempfile.TemporaryDirectory() as folder:
        urdf = write_urdf(box, Path(folder))
        pushed = {
            size: fall(
                urdf, 0.0, Push(np.array([0, 0, size * weight]), end=options.push_seconds), 0.3
            )
            for size in (0.5, 1.5, 2.0)
        }
        return box, fall(urdf, 1.0, None, 0.5), pushed
