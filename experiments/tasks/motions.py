"""Quality of the motions that a generator makes of the tasks' scans, before and after projection.

Nothing is planned or executed. Finished motions are appended to a log, one JSON object per line, so
an interrupted evaluation resumes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.tasks.episode import GeneratorFactory, scan
from flowplan.motion import Progress, SceneMotion, silent
from flowplan.motion_quality.report import ObjectQuality, motion_report, prepare
from flowplan.scene import Scene
from flowplan.utils.json_lines import JsonLines
from flowplan.utils.records import record
from flowplan.utils.stats import wilson
from generators.registry import takes
from sim_envs.scan_views import capture_views
from sim_envs.tasks import TASKS
from sim_envs.world import World, WorldOptions

MEASURES = {
    "residual": ("mm", 1e3),
    "stretch": ("mm", 1e3),
    "tear": ("mm", 1e3),
    "penetration": ("mm", 1e3),
    "jitter": ("mm", 1e3),
}
"""Unit and factor of each measure that is given before and after projection."""


@dataclass(frozen=True)
class MotionResult:
    """Report on one motion.

    Attributes:
        task: Name of the task.
        generator: Name of the generator.
        seed: Seed of the world, the scan and the generator.
        reason: Reason for which the motion is beyond the limits; empty if it is not.
        projected: Meters that the projection moves a vertex at most.
        way: Meters, largest displacement of a vertex.
        before: Measures (MEASURES) of the motion as it was made.
        after: The same of the motion that would be planned for.
    """

    task: str
    generator: str
    seed: int
    reason: str
    projected: float
    way: float
    before: dict[str, float]
    after: dict[str, float]


def evaluate_motions(
    make: GeneratorFactory,
    generator: str,
    tasks: Sequence[str],
    seeds: Iterable[int],
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[MotionResult]:
    """Reports on each combination of task and seed that the log does not hold yet, and those in it.

    Args:
        make: Makes a generator from a task's laws of motion.
        generator: Its name.
        tasks: Names of tasks; all if there are none.
        seeds: Random seeds.
        log: JSON-lines file of finished motions, read first and appended to.
        progress: Called after each motion with an estimate of the remaining time.
    """
    cases = [(task, seed) for seed in seeds for task in tasks or tuple(TASKS)]
    with JsonLines(log) as lines:
        found = lines.read(lambda value: MotionResult(**value), "a motion of this version")
        done = {(r.task, r.seed): r for r in found if r.generator == generator}
        todo = [case for case in cases if case not in done]
        start = time.monotonic()
        for count, (task, seed) in enumerate(todo, 1):
            result = _evaluate(make, generator, task, seed)
            done[task, seed] = result
            lines.append(asdict(result))
            left = (time.monotonic() - start) / count * (len(todo) - count) / 60
            progress(count / len(todo), f"{count}/{len(todo)} {task} {seed}, {left:.0f} min left")
    return [done[case] for case in cases]


def _evaluate(make: GeneratorFactory, generator: str, task: str, seed: int) -> MotionResult:
    """Report on the motion of one task."""
    scene, motion = _made(make, generator, task, seed)
    planned, report = prepare(scene, motion)
    target = [q.name for q in report.objects].index(report.target)
    before = report.objects[target]
    after = motion_report(scene, planned).objects[target]
    return MotionResult(
        task,
        generator,
        seed,
        "; ".join(report.reasons),
        before.projected,
        before.way,
        _measures(before),
        _measures(after),
    )


def _made(
    make: GeneratorFactory, generator: str, task: str, seed: int
) -> tuple[Scene, SceneMotion]:
    """Scan of a task's world, and the generator's best motion of it."""
    chosen, rng = TASKS[task], np.random.default_rng(seed)
    with World(WorldOptions(deformable=chosen.deformable)) as world:
        setup = chosen.setup(world, rng)
        scene = scan(capture_views(world, setup, seed=seed), setup)
    prompted = takes(generator) == "prompt"
    instruction = chosen.prompt if prompted else setup.instruction
    return scene, make(setup.laws)(scene, instruction, seed=seed)[0]


def _measures(quality: ObjectQuality) -> dict[str, float]:
    return {name: float(getattr(quality, name)) for name in MEASURES}


def motion_records(results: Iterable[MotionResult]) -> list[dict[str, Any]]:
    """JSON records per task: share within the limits, and the median of each measure."""
    records = []
    for (task, generator), group in _groups(results).items():
        key, n = f"motions/{task}/{generator}", len(group)
        good = sum(not r.reason for r in group)
        low, high = wilson(good, n)
        for name, share in (("", good / n), ("_low95", low), ("_high95", high)):
            records.append(record(f"{key}/within{name}", share, "share", "up", n, decimals=4))
        moved = 1e3 * float(np.median([r.projected for r in group]))
        records.append(record(f"{key}/projected", moved, "mm", "down", n, decimals=2))
        for name, (unit, factor) in MEASURES.items():
            for when in ("before", "after"):
                value = factor * float(np.median([getattr(r, when)[name] for r in group]))
                records.append(record(f"{key}/{name}_{when}", value, unit, "down", n, decimals=2))
    return records


def motion_table(results: Iterable[MotionResult]) -> str:
    """Markdown table of medians in mm, before and after projection, with the reasons' kinds."""
    lines = [
        "| task | generator | within limits | bends | moved | edges grow | jitter | refused for |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, generator), group in _groups(results).items():
        good = sum(not r.reason for r in group)

        def change(name: str, group: list[MotionResult] = group) -> str:
            before, after = (
                1e3 * float(np.median([getattr(r, when)[name] for r in group]))
                for when in ("before", "after")
            )
            return f"{before:.1f} -> {after:.1f}"

        moved = 1e3 * float(np.median([r.projected for r in group]))
        kinds = [" ".join(r.reason.split(":")[0].split()[1:2]) for r in group if r.reason]
        why = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        cells = [task, generator, f"{good}/{len(group)}", change("residual"), f"{moved:.0f}"]
        cells += [change("stretch"), change("jitter"), why or "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _groups(results: Iterable[MotionResult]) -> dict[tuple[str, str], list[MotionResult]]:
    groups: dict[tuple[str, str], list[MotionResult]] = {}
    for result in results:
        groups.setdefault((result.task, result.generator), []).append(result)
    return groups
