"""`flowplan plan` and `flowplan check`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from flowplan.cli import console, names
from flowplan.cli.parser import OneOf, Options
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

if TYPE_CHECKING:
    from flowplan.planner import NoPlan
    from flowplan.planner import Plan as Planned


@dataclass(frozen=True)
class Plan:
    """Plan a motion for a robot and print a feasibility report.

    Exit status 1 if there is no plan.
    """

    scene: Positional[Path]
    """Scene file."""
    motion: Positional[Path]
    """Motion file."""
    robot: Annotated[str, OneOf(names.robots, "the path of a .toml file")] = "panda"
    """Robot configuration."""
    optimizer: Annotated[str, OneOf(names.optimizers)] = "lm"
    """Trajectory optimizer"""
    out: Path = Path("plan.npz")
    """Plan file to write; nothing is written if there is no plan."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Random seed."""
    json: bool = False
    """Print the report as JSON and nothing else."""
    options: Annotated[Any, Options("flowplan.planner.options:PlanOptions")] = None

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        from flowplan.planner import NoPlan

        result = self._plan()
        found = not isinstance(result, NoPlan)
        if found:
            from flowplan.io import npz

            npz.save(self.out, result)
        elif self.out.exists():
            console.note(f"flowplan plan: {self.out} is of an earlier plan, and was left as it is")
        if self.json:
            from flowplan.cli.plan_data import plan_data

            data = plan_data(result) | {"file": str(self.out) if found else None}
            console.say(json.dumps(data, indent=1))
        else:
            from flowplan.report import feasibility

            console.say(feasibility(result))
            if found:
                console.say(f"wrote {self.out}")
        return 0 if found else 1

    def _plan(self) -> Planned | NoPlan:
        from flowplan.io import npz
        from flowplan.motion import SceneMotion
        from flowplan.planner import plan
        from flowplan.robot import load_robot
        from flowplan.scene import Scene

        npz.writable_path(self.out)
        scene, motion = npz.load(self.scene, Scene), npz.load(self.motion, SceneMotion)
        robot = load_robot(self.robot)
        with console.progress("planning") as tell:
            return plan(
                scene,
                motion,
                robot,
                options=self.options,
                optimizer=self.optimizer,
                seed=self.seed,
                progress=tell,
            )


@dataclass(frozen=True)
class Check:
    """Report on a motion before it is planned for: bending, tears, overlaps, what floats, speed.

    Exit status 1 if it is beyond the limits.
    """

    scene: Positional[Path]
    """Scene file."""
    motion: Positional[Path]
    """Motion file."""
    robot: Annotated[str, OneOf(names.robots, "the path of a .toml file")] = "panda"
    """Robot configuration, for the speed that it reaches."""
    json: bool = False
    """Print the report as JSON and nothing else."""
    options: Annotated[Any, Options("flowplan.motion_quality.options:MotionOptions")] = None

    def run(self) -> int:
        from flowplan.cli.plan_data import motion_data
        from flowplan.io import npz
        from flowplan.motion import SceneMotion
        from flowplan.motion_quality import motion_report
        from flowplan.report import motion_lines
        from flowplan.robot import load_robot
        from flowplan.scene import Scene

        scene, motion = npz.load(self.scene, Scene), npz.load(self.motion, SceneMotion)
        report = motion_report(scene, motion, self.options, robot=load_robot(self.robot))
        if self.json:
            console.say(json.dumps(motion_data(report), indent=1))
        else:
            verdict = "BEYOND THE LIMITS." if report.reasons else "WITHIN THE LIMITS."
            lines = [verdict, *(f"  {reason}" for reason in report.reasons)]
            console.say("\n".join([*lines, *motion_lines(report)]))
        return 1 if report.reasons else 0
