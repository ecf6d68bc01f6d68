"""`flowplan bench plan | grasp | shake | certify | parts | ros | wan`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from flowplan.cli import console, names
from flowplan.cli.parser import OneOf
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class _Benchmark:
    """Options of every benchmark."""

    json: Path | None = None
    """File for the records. Defaults to stdout."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class _OfRobot(_Benchmark):
    """Options of the benchmarks that take any robot."""

    robot: Annotated[str, OneOf(names.robots, "the path of a .toml file")] = "panda"
    """Robot configuration"""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Random seed."""


@dataclass(frozen=True)
class Plan(_OfRobot):
    """Measure the time per certified plan, and the share of random problems that are solved."""

    optimizer: Annotated[str, OneOf(names.optimizers)] = "lm"
    """Trajectory optimizer"""
    problems: Annotated[int, Interval(1, math.inf)] = 200
    """Random problems for the share."""
    timed: Annotated[int, Interval(1, math.inf)] = 15
    """Problems for each median time."""

    def run(self) -> int:
        from experiments.planning.bench_plan import bench_plan

        with console.progress("bench plan") as tell:
            records = bench_plan(
                robot=self.robot,
                seed=self.seed,
                problems=self.problems,
                timed=self.timed,
                optimizer=self.optimizer,
                progress=tell,
            )
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Grasp(_OfRobot):
    """Measure the throughput of the grasp proposer."""

    def run(self) -> int:
        from experiments.grasping.bench_grasp import bench_grasp

        with console.progress("bench grasp") as tell:
            records = bench_grasp(robot=self.robot, seed=self.seed, progress=tell)
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Shake(_OfRobot):
    """Measure the share of grasps that hold when they are shaken in simulation."""

    def run(self) -> int:
        from experiments.grasping.bench_shake import bench_shake

        with console.progress("bench shake") as tell:
            records = bench_shake(robot=self.robot, seed=self.seed, progress=tell)
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Certify(_Benchmark):
    """Count what certificates let through: random problems, every plan replayed by an oracle.

    With --json, FILE.problems.jsonl keeps every problem, and an interrupted benchmark resumes.
    """

    robot: Literal["both", "panda", "ur5e"] = "both"
    """Robot, or both in turn."""
    problems: Annotated[int, Interval(1, math.inf)] = 60
    """Random problems."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Random seed of the problems."""

    def run(self) -> int:
        from experiments.certify.bench_certify import bench_certify

        log = console.beside(self.json, ".problems.jsonl")
        with console.progress("bench certify") as tell:
            records = bench_certify(
                robot=self.robot,
                seed=self.seed,
                problems=self.problems,
                log=log,
                progress=tell,
            )
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Ros(_Benchmark):
    """Run the simulated cell over ROS 2 many times; count hangs and crashes, measure latencies.

    With --json, FILE.runs.jsonl keeps every run, and an interrupted benchmark resumes.
    """

    runs: Annotated[int, Interval(1, math.inf)] = 50
    """Runs of the whole demo."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Seed of the first run; the others count up."""

    def run(self) -> int:
        try:
            from flowplan_sim_hw.bench import bench_ros
        except ImportError as error:
            from flowplan.cli.commands.ros import no_ros

            raise no_ros("bench ros", error) from None

        log = console.beside(self.json, ".runs.jsonl")
        with console.progress("bench ros") as tell:
            records = bench_ros(runs=self.runs, seed=self.seed, log=log, progress=tell)
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Wan(_Benchmark):
    """Measure time and memory of CHORD's video models; needs an NVIDIA GPU, and no weights."""

    def run(self) -> int:
        from experiments.chord.bench_wan import bench_wan

        with console.progress("bench wan") as tell:
            records = bench_wan(progress=tell)
        console.records(records, self.json)
        return 0


@dataclass(frozen=True)
class Parts(_Benchmark):
    """Measure parts and joints estimated from motions of procedural objects, against the truth."""

    inputs: tuple[Literal["mesh", "scan"], ...] = ("mesh", "scan")
    """Objects as their own meshes, and as scans fused from noisy depth images."""
    objects: Annotated[int, Interval(1, 10_000)] = 40
    """Number of objects of each."""
    seed: Annotated[int, Interval(0, 1_000_000)] = 0
    """Random seed."""

    def run(self) -> int:
        from experiments.articulation.bench_parts import bench_parts

        with console.progress("bench parts") as tell:
            records = bench_parts(
                inputs=self.inputs, objects=self.objects, seed=self.seed, progress=tell
            )
        console.records(records, self.json)
        return 0
