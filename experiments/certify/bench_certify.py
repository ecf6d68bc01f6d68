"""Certified plans replayed by an independent oracle: `flowplan bench certify`.

Random problems go through the planner; every plan that it returns is replayed
(experiments.certify.oracle), and what the certificate let through is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.certify.oracle.replay import replay
from experiments.certify.problems import KINDS, ROBOTS, TIMINGS, Problem, random_problem
from experiments.certify.solve import Solved, solve
from flowplan.motion import Progress, silent
from flowplan.utils.json_lines import JsonLines
from flowplan.utils.records import record
from flowplan.utils.stats import wilson


@dataclass(frozen=True)
class Outcome:
    """Result of one problem.

    Attributes:
        seed, index, robot, kind, timing: The problem.
        certified: True if the planner returned a plan.
        reason: Reason why there is none.
        overlaps: One line for each overlap beyond what is meant.
        deepest: Meters, the largest of them.
        limits: One line for each exceeded limit.
        plan_seconds, replay_seconds: Processor time.
    """

    seed: int
    index: int
    robot: str
    kind: str
    timing: str
    certified: bool
    reason: str
    overlaps: list[str]
    deepest: float
    limits: list[str]
    plan_seconds: float
    replay_seconds: float

    @property
    def sound(self) -> bool:
        """True if the plan does what its certificate says."""
        return self.certified and not self.overlaps and not self.limits


def problem_of(seed: int, index: int, robots: Sequence[str]) -> Problem:
    """Problem `index`: kinds change fastest, then timings, then robots."""
    robot = robots[index // (len(KINDS) * len(TIMINGS)) % len(robots)]
    return random_problem(seed, index, robot)


def judge(problem: Problem, solver: Callable[[Problem], Solved] = solve) -> Outcome:
    """Plan a problem, and replay what is returned."""
    begin = time.process_time()
    solved = solver(problem)
    planned = time.process_time()
    overlaps: list[str] = []
    limits: list[str] = []
    deepest = 0.0
    if solved.recording is not None:
        verdict = replay(solved.recording)
        overlaps = [str(overlap) for overlap in verdict.overlaps]
        deepest = max((overlap.depth for overlap in verdict.overlaps), default=0.0)
        limits = list(verdict.limits)
    return Outcome(
        problem.seed,
        problem.index,
        problem.robot,
        problem.kind,
        problem.timing,
        solved.recording is not None,
        solved.reason,
        overlaps,
        deepest,
        limits,
        round(planned - begin, 3),
        round(time.process_time() - planned, 3),
    )


def bench_certify(
    *,
    robot: str = "both",
    seed: int = 0,
    problems: int = 60,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Records of what certificates let through, and of the share of problems that get one.

    Args:
        robot: Name of a robot, or "both" for all robots of the benchmark in turn.
        seed: Random seed of the problems.
        problems: Number of problems.
        log: JSON-lines file of outcomes, read first and appended to after every problem.
        progress: Called with the fraction done and a short message.

    Raises:
        ValueError: For another robot.
    """
    robots = ROBOTS if robot == "both" else (robot,)
    if not set(robots) <= set(ROBOTS):
        raise ValueError(f"robot: expected one of {', '.join(ROBOTS)}, or both, got {robot!r}")
    wanted = [(i, robots[i // (len(KINDS) * len(TIMINGS)) % len(robots)]) for i in range(problems)]
    with JsonLines(log) as lines:
        done = {(o.seed, o.index, o.robot): o for o in read_log(lines)}
        todo = [(i, name) for i, name in wanted if (seed, i, name) not in done]
        begin = time.monotonic()
        for count, (index, name) in enumerate(todo, 1):
            outcome = judge(random_problem(seed, index, name))
            done[seed, index, name] = outcome
            lines.append(asdict(outcome))
            # Time left, at the mean pace so far.
            left = (time.monotonic() - begin) / count * (len(todo) - count)
            word = "no plan" if not outcome.certified else "sound" if outcome.sound else "UNSOUND"
            text = f"{count}/{len(todo)} {name} {outcome.kind} {word}, {left / 60:.0f} min left"
            progress(count / len(todo), text)
    return records([done[seed, i, name] for i, name in wanted])


def read_log(lines: JsonLines) -> list[Outcome]:
    """Outcomes of a log; a last line that was cut short is dropped from the file."""
    return lines.read(lambda value: Outcome(**value), "an outcome of this version")


def records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """JSON records of all outcomes, and of each robot, kind and timing by itself."""
    out = _records("certify", outcomes)
    for field in ("robot", "kind", "timing"):
        for value in sorted({getattr(o, field) for o in outcomes}):
            out += _records(f"certify/{value}", [o for o in outcomes if getattr(o, field) == value])
    certified = [o for o in outcomes if o.certified]
    deepest = max((o.deepest for o in certified), default=0.0)
    out.append(record("certify/deepest_overlap", 1e3 * deepest, "mm", "down", len(certified)))
    return out


def _records(prefix: str, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    certified = [o for o in outcomes if o.certified]
    n = len(certified)
    out = []
    for name, count in (
        ("overlap_over_1mm", sum(bool(o.overlaps) for o in certified)),
        ("limit_violations", sum(bool(o.limits) for o in certified)),
    ):
        bound = upper_bound(count, n)
        out.append(record(f"{prefix}/{name}", count, "plans", "down", n, share_high95=bound))
    for name, chosen in (
        ("certified_share", certified),
        ("sound_share", [o for o in certified if o.sound]),
    ):
        low, high = wilson(len(chosen), len(outcomes))
        share = len(chosen) / max(len(outcomes), 1)
        key = f"{prefix}/{name}"
        more = {"low95": round(low, 4), "high95": round(high, 4)}
        out.append(record(key, share, "share", "up", len(outcomes), decimals=4, **more))
    return out


def upper_bound(count: int, n: int) -> float:
    """One-sided upper 95 % bound of a share (Clopper and Pearson 1934); 3 / n for none of many."""
    from scipy.stats import beta

    return 1.0 if count >= n else round(float(beta.ppf(0.95, count + 1, n - count)), 5)


def compare(ours: Iterable[Outcome], theirs: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Records of the shares of two planners on the same problems, unsound plans subtracted."""
    first = {(o.seed, o.index, o.robot): o for o in ours}
    second = {(o.seed, o.index, o.robot): o for o in theirs}
    both = sorted(first.keys() & second.keys())
    out = []
    for name, outcomes in (("now", first), ("before", second)):
        chosen = [outcomes[key] for key in both]
        out += [r for r in _records(f"certify/paired/{name}", chosen)]
    for name, wins in (
        ("only_now", [k for k in both if first[k].sound and not second[k].sound]),
        ("only_before", [k for k in both if second[k].sound and not first[k].sound]),
    ):
        direction = "up" if name == "only_now" else "down"
        out.append(record(f"certify/paired/{name}", len(wins), "problems", direction, len(both)))
    return out
