"""`flowplan check`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from flowplan.cli import console, names
from flowplan.cli.parser import OneOf, Options


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
