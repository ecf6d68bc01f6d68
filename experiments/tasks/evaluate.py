"""Success rates over many episodes, by task, robot and method, with Wilson intervals and failures
by kind.

Finished episodes are appended to a log, one JSON object per line, so an interrupted evaluation
resumes. All methods of a table run in the same processes, on the same seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.tasks.episode import Episode, EpisodeSpec, GeneratorFactory, run_episode
from experiments.tasks.options import EvaluationOptions
from experiments.worker_processes import worker_processes
from flowplan.motion import Progress, silent
from flowplan.rollout import OUTCOMES
from flowplan.utils.json_lines import JsonLines
from flowplan.utils.records import record
from flowplan.utils.stats import wilson


def evaluate(
    generator: GeneratorFactory,
    generator_name: str,
    options: EvaluationOptions = EvaluationOptions(),
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Episode]:
    """Run each combination of task, robot, method and seed that the log does not hold yet.

    Args:
        generator: makes a generator from a task's laws of motion. A picklable function, since other
            processes call it.
        generator_name: name of the generator in the log and the records.
        options: see EvaluationOptions.
        log: JSON-lines file of finished episodes, read first and appended to.
        progress: called after each episode with an estimate of the remaining time.
    """
    specs = [
        EpisodeSpec(
            task,
            robot,
            generator_name,
            method,
            seed,
            options.instruction,
            options.optimizer,
            options.release,
            options.articulate,
        )
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for task in options.tasks
        for robot in options.robots
        for method in options.methods
    ]
    with JsonLines(log) as lines:
        done = {e.spec: e for e in lines.read(_episode, "an episode of this version")}
        todo = [s for s in specs if s not in done]
        for episode in _run(generator, todo, options.workers, progress):
            done[episode.spec] = episode
            lines.append(asdict(episode))
    return [done[s] for s in specs]


def _run(
    generator: GeneratorFactory, specs: Sequence[EpisodeSpec], workers: int, progress: Progress
) -> Iterator[Episode]:
    """Episodes in the order in which they finish."""
    if not specs:
        return
    start = time.monotonic()
    with worker_processes(workers) as pool:
        futures = [pool.submit(run_episode, spec, generator) for spec in specs]
        for count, future in enumerate(as_completed(futures), 1):
            episode = future.result()
            remaining = (time.monotonic() - start) / count * (len(specs) - count) / 60
            message = f"{count}/{len(specs)} {episode.spec.label()} {episode.outcome}"
            progress(count / len(specs), f"{message}, {remaining:.0f} min left")
            yield episode


def success_records(episodes: Iterable[Episode]) -> list[dict[str, Any]]:
    """JSON records per task, robot and method: success share, its Wilson interval, the share of
    each failure, and the median and largest leak of the episodes that measured one.

    Records of methods that optimize trajectories carry the optimizer's name.
    """
    groups: dict[tuple[str, str], list[Episode]] = {}
    for episode in episodes:
        spec = episode.spec
        optimizer = "" if spec.method == "kabsch_ik" else spec.optimizer
        groups.setdefault((spec.key(), optimizer), []).append(episode)
    records = []
    for (key, optimizer), group in sorted(groups.items()):
        n = len(group)
        counts = {outcome: sum(e.outcome == outcome for e in group) for outcome in OUTCOMES}
        low, high = wilson(counts["success"], n)
        fields = {"optimizer": optimizer} if optimizer else {}
        for name, share in (
            ("success", counts["success"] / n),
            ("success_low95", low),
            ("success_high95", high),
        ):
            records.append(record(f"{key}/{name}", share, "share", "up", n, decimals=4, **fields))
        for outcome in OUTCOMES[1:]:
            share = counts[outcome] / n
            records.append(
                record(f"{key}/{outcome}", share, "share", "down", n, decimals=4, **fields)
            )
        leaks = [e.measures["leak"] for e in group if "leak" in e.measures]
        for name, value in (("median", np.median), ("largest", np.max)):
            if leaks:
                way = float(value(leaks))
                records.append(
                    record(f"{key}/leak_{name}", way, "m", "down", len(leaks), decimals=4, **fields)
                )
    return records


def success_table(episodes: Iterable[Episode]) -> str:
    """Markdown table of success rates: one row per task and robot, one column per method."""
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
    counts = {outcome: sum(e.outcome == outcome for e in group) for outcome in OUTCOMES[1:]}
    failures = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    return f"{wins}/{len(group)} [{low:.2f}, {high:.2f}]" + (f" ({failures})" if failures else "")


def _episode(fields: Any) -> Episode:
    """The episode of a line of the log."""
    return Episode(**(fields | {"spec": EpisodeSpec(**fields["spec"])}))
