"""`flowplan run`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from flowplan.cli import console, names
from flowplan.cli.parser import OneOf, Options
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class Run:
    """Do a task in simulation, from scan to measured end state; exit status 1 if it fails."""

    task: Annotated[Positional[str], OneOf(names.tasks)]
    """Task"""
    generator: Annotated[str, OneOf(names.generators)] = "kinematic"
    """Generator that makes the motion"""
    robot: Annotated[str, OneOf(names.robots)] = "panda"
    """Robot configuration"""
    method: Annotated[str, OneOf(names.methods)] = "planner"
    """The planner, or a baseline in its place"""
    optimizer: Annotated[str, OneOf(names.optimizers)] = "lm"
    """Trajectory optimizer"""
    device: str = "auto"
    """Device of the generator: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one."""
    out: Path | None = None
    """Folder for every stage's file, metrics, video and page. Defaults to runs/TASK-ROBOT-SEED."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Seed of the world and of every random choice."""
    articulate: bool = False
    """Cut objects into the rigid parts of the generated motion, which move exactly along their
    joints."""
    release: Literal["task", "auto", "always", "never"] = "task"
    """Let go at the end: as the task states, if the object then rests (auto), always or never."""
    video: bool = True
    """Film the execution."""
    options: Annotated[Any, Options("flowplan.planner.options:PlanOptions", hide=("release",))] = (
        None
    )

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from experiments.tasks.episode import EpisodeSpec
        from experiments.tasks.record import run_and_record
        from flowplan.cli.commands.generate import with_device
        from generators.registry import factory, takes

        spec = EpisodeSpec(
            self.task,
            self.robot,
            self.generator,
            self.method,
            self.seed,
            instruction=takes(self.generator),
            optimizer=self.optimizer,
            release=self.release,
            articulate=self.articulate,
        )
        folder = self.out or Path("runs") / f"{self.task}-{self.robot}-{self.seed}"
        make = factory(self.generator, with_device(self.generator, self.device))
        with console.progress(spec.label()) as tell:
            episode, report = run_and_record(
                spec, make, folder, options=self.options, video=self.video, progress=tell
            )
        if report:
            console.say(report)
        measures = ", ".join(f"{name} {value:.3g}" for name, value in episode.measures.items())
        console.say(f"{episode.outcome.upper()}: {spec.label()}: {measures or episode.reason}")
        console.say(f"wrote {folder}/")
        return 0 if episode.outcome == "success" else 1
