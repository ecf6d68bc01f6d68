"""Many episodes, counted: success by task, robot and method with Wilson intervals, and failures by kind.

Episodes are appended to a log as they end, one JSON object a line, so an evaluation that was interrupted goes on where
it stopped. Every method of a table runs in the same processes, on the same seeds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.tasks.episode import Episode, EpisodeSpec, GeneratorFactory, run_episode
from flowplan.motion import Progress, silent
from flowplan.rollout import OUTCOMES
from flowplan.utils import checks
from flowplan.utils.records import record
from flowplan.utils.stats import wilson
from sim_envs.tasks import TASKS


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, and with how much of the machine."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks, by name."""
    robots: tuple[str, ...] = ("panda", "ur5e")
    """Robot configurations, by name."""
    methods: tuple[str, ...] = ("pinocchio", "random_grasp", "kabsch_ik")
    """The optimizer under test, and the baselines that stand beside it."""
    seeds: int = 20
    """Episodes of each combination."""
    first_seed: int = 0
    """Seed of the first of them."""
    workers: int = 2
    """Processes."""
    instruction: Literal["action", "prompt"] = "action"
    """What the generator is told: handles and targets, or a sentence."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            checks.choice("tasks", task, list(TASKS))
        for name in ("seeds", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"EvaluationOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )


def evaluate(
    generator: GeneratorFactory,
    generator_name: str,
    options: EvaluationOptions = EvaluationOptions(),
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Episode]:
    """Run every combination of task, robot, method and seed, or what of it the log does not hold yet.

    Args:
        generator: makes a generator from a task's laws of motion; a function at a module's top level, since it goes to
            other processes.
        generator_name: what it is called in the log and the records.
        options: see EvaluationOptions.
        log: JSON-lines file of finished episodes, read first and appended to.
        progress: called after each episode with an estimate of the time left.
    """
    specs = [
        EpisodeSpec(task, robot, generator_name, method, seed, options.instruction)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for task in options.tasks
        for robot in options.robots
        for method in options.methods
    ]
    done = {e.spec: e for e in _read_log(log)}
    todo = [s for s in specs if s not in done]
    for episode in _run(generator, todo, options.workers, progress):
        done[episode.spec] = episode
        if log is not None:
            with log.open("a") as f:
                f.write(json.dumps(asdict(episode)) + "\n")
    return [done[s] for s in specs]


def _run(
    generator: GeneratorFactory, specs: Sequence[EpisodeSpec], workers: int, progress: Progress
) -> Iterable[Episode]:
    if not specs:
        return
    start = time.monotonic()
    # Fresh interpreters: PyBullet's plugins and Open3D's threads do not survive a fork.
    fresh, threads = multiprocessing.get_context("spawn"), max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, fresh, initializer=_share_cores, initargs=(threads,)) as pool:
        futures = [pool.submit(run_episode, spec, generator) for spec in specs]
        for count, future in enumerate(as_completed(futures), 1):
            episode = future.result()
            left = (time.monotonic() - start) / count * (len(specs) - count)
            word = f"{count}/{len(specs)} {episode.spec.label()} {episode.outcome}, {left / 60:.0f} min left"
            progress(count / len(specs), word)
            yield episode


def _share_cores(threads: int) -> None:
    """Before a network is loaded: threads of several processes that wait for each other stand still together."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def success_records(episodes: Iterable[Episode]) -> list[dict[str, Any]]:
    """JSON records: per task, robot and method the success share, its Wilson interval, and each kind of failure."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.spec.key(), []).append(episode)
    records = []
    for key, group in sorted(groups.items()):
        n = len(group)
        wins = sum(e.outcome == "success" for e in group)
        low, high = wilson(wins, n)
        records.append(record(f"{key}/success", wins / n, "share", "up", n, decimals=4))
        records.append(record(f"{key}/success_low95", low, "share", "up", n, decimals=4))
        records.append(record(f"{key}/success_high95", high, "share", "up", n, decimals=4))
        for outcome in OUTCOMES[1:]:
            records.append(
                record(
                    f"{key}/{outcome}",
                    sum(e.outcome == outcome for e in group) / n,
                    "share",
                    "down",
                    n,
                    decimals=4,
                )
            )
    return records


def success_table(episodes: Iterable[Episode]) -> str:
    """The same as a Markdown table, one row per task and robot, one column per method."""
    groups: dict[tuple[str, str], dict[str, list[Episode]]] = {}
    methods: list[str] = []
    for e in episodes:
        row = groups.setdefault((e.spec.task, e.spec.robot), {})
        row.setdefault(e.spec.method, []).append(e)
        if e.spec.method not in methods:
            methods.append(e.spec.method)
    lines = ["| task | robot | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for (task, robot), row in groups.items():
        cells = [_cell(row.get(m, [])) for m in methods]
        lines.append(f"| {task} | {robot} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(group: list[Episode]) -> str:
    if not group:
        return "-"
    wins = sum(e.outcome == "success" for e in group)
    low, high = wilson(wins, len(group))
    failures = {o: sum(e.outcome == o for e in group) for o in OUTCOMES[1:]}
    why = ", ".join(f"{count} {o}" for o, count in failures.items() if count)
    return f"{wins}/{len(group)} [{low:.2f}, {high:.2f}]" + (f" ({why})" if why else "")


def _read_log(log: Path | None) -> list[Episode]:
    if log is None or not log.exists():
        return []
    episodes = []
    for number, line in enumerate(log.read_text().splitlines(), 1):
        try:
            fields = json.loads(line)
            episodes.append(Episode(**(fields | {"spec": EpisodeSpec(**fields["spec"])})))
        except (ValueError, TypeError, KeyError):
            raise ValueError(
                f"{log}: line {number} is not an episode; delete the line to run it again"
            ) from None
    return episodes
