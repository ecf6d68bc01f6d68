"""`flowplan ros send`."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from flowplan.cli import console
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.records import record

if TYPE_CHECKING:
    from flowplan_ros.client import Client

_CONFIRM = "Is the workspace clear? Execute the plan"


@dataclass(frozen=True)
class Send:
    """Send an instruction to the ROS 2 nodes: scan, flow, plan, execute.

    Exit status 1 if a stage fails; ctrl-C cancels, and the arm stops.
    """

    text: Positional[str] = ""
    """A sentence."""
    document: Path | None = None
    """JSON file with the instruction, as for `flowplan generate`, in place of a sentence."""
    task: bool = False
    """Take the task that a simulation publishes, in place of a sentence."""
    names: tuple[str, ...] = ()
    """Names of the objects, nearest to the robot first. Defaults to the instruction's."""
    release: Literal["", "auto", "always", "never"] = ""
    """Let go at the end: if the object then rests (auto), always or never. Empty for plan_node's
    own."""
    dry_run: bool = False
    """Show the motion, move nothing."""
    velocity_scaling: Annotated[float, Interval(0, 1)] = 0.0
    """Fraction of the planned speed; 0 for the executor's own."""
    namespace: str = ""
    """Namespace of the nodes."""
    json: Path | None = None
    """File for records of the duration of each stage."""
    seed: Annotated[int, Interval(0, math.inf)] = 0
    """Random seed."""

    def __post_init__(self) -> None:
        bounds.check(self)

    def run(self) -> int:
        if sum((bool(self.text), self.document is not None, self.task)) != 1:
            raise ValueError("flowplan ros send: expected one of TEXT, --document and --task")
        try:
            from flowplan_ros.client import STAGES, Client, ClientOptions, StageFailed
        except ImportError as error:
            raise no_ros("ros send", error) from None

        options = ClientOptions(release=self.release)
        with Client(self.namespace, options) as client, console.stages(STAGES) as (tell, ask):
            instruction = self._instruction(client)
            try:
                done = client.send(
                    instruction,
                    names=self.names,
                    seed=self.seed,
                    dry_run=self.dry_run,
                    velocity_scaling=self.velocity_scaling,
                    on_progress=tell,
                    on_confirm=(lambda: ask(_CONFIRM)) if sys.stdin.isatty() else None,
                )
            except StageFailed as failure:
                console.error(failure.text, failure.stage)
                return 1
        if self.json is not None:
            durations = done.seconds.items()
            values = [record(f"ros/{stage}", value, "s", "down") for stage, value in durations]
            console.records(values, self.json)
        console.say(done.execution.error_msg)
        return 0

    def _instruction(self, client: Client) -> Any:
        from flowplan_ros.conversions import document_to_msg, instruction_to_msg

        from flowplan.scene import Prompt

        if self.task:
            return client.task()
        if self.document is not None:
            return document_to_msg(self.document.read_text())
        return instruction_to_msg(Prompt(self.text))


def no_ros(command: str, error: ImportError) -> ImportError:
    """The error of a command that cannot import the ROS 2 nodes, with its remedy."""
    return ImportError(
        f"flowplan {command}: {error}. Source the workspace that ros_nodes was built in "
        "(docs/ros2.md); without a ROS distribution, run `make ros`, then "
        "`. build/ros/environment.sh`"
    )
