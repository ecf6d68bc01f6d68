"""Options of an evaluation. Nothing heavy is imported here, so they can be listed quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from flowplan import optimizers
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from sim_envs.tasks import TASKS

Method = Literal["planner", "random_grasp", "kabsch_ik"]
METHODS: tuple[Method, ...] = get_args(Method)
"""The planner and its baselines (experiments.tasks.baselines)."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Episodes to run, and the number of processes."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names of tasks."""
    robots: tuple[str, ...] = ("panda", "ur5e")
    """Names of robot configurations."""
    methods: tuple[str, ...] = METHODS
    """The planner and its baselines."""
    seeds: Annotated[int, Interval(1, 100_000)] = 20
    """Episodes of each combination of task, robot and method."""
    first_seed: int = 0
    """Seed of the first episode."""
    workers: Annotated[int, Interval(1, 1024)] = 2
    """Number of processes."""
    instruction: Literal["action", "prompt"] = "action"
    """Input of the generator: handles and targets, or a sentence."""
    optimizer: str = optimizers.DEFAULT
    """Name of the trajectory optimizer."""
    articulate: bool = False
    """Cut objects into the rigid parts of the generated motion, which move exactly along their
    joints."""
    release: Literal["task", "auto", "always", "never"] = "task"
    """Let go at the end: as the task states, if the object then rests (auto), always or never."""

    def __post_init__(self) -> None:
        bounds.check(self)
        for task in self.tasks:
            checks.choice("tasks", task, list(TASKS))
        for method in self.methods:
            checks.choice("methods", method, METHODS)
        checks.choice("optimizer", self.optimizer, optimizers.NAMES)
