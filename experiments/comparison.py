"""Comparison of methods over many cases: a resumable log, means with intervals, and tables.

A result is a frozen dataclass with at least `split`, `name` (of the case), `method`, `seconds`, and
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from flowplan.motion import Progress, silent
from flowplan.utils.json_lines import JsonLines
from flowplan.utils.records import record
from flowplan.utils.stats import bootstrap


class Case(Protocol):
    """A case that methods are compared on; its name is unique within the split."""

    @property
    def split(self) -> str: ...
    @property
    def name(self) -> str: ...


class Result(Protocol):
    """The result of a method in a case; `seconds` is the method's own time."""

    @property
    def split(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def seconds(self) -> float: ...


class Measure(NamedTuple):
    """A number of a result: title in tables, unit, and "up" or "down" for the better direction."""

    title: str
    unit: str
    direction: str


C = TypeVar("C", bound=Case)
R = TypeVar("R", bound=Result)


def compare(
    cases: Sequence[C],
    methods: Iterable[str],
    run: Callable[[C, str], R],
    kind: type[R],
    *,
    log: Path | None = None,
    word: Callable[[R], str],
    progress: Progress = silent,
) -> list[R]:
    """Run every method in every case, except those already in the log.

    Args:
        cases: each runs under every method.
        methods: names.
        run: runs one method in one case.
        kind: class of the results.
        log: JSON-lines file of results, read first and appended to after every result.
        word: a short description of a result, for the progress.
        progress: called after each result with an estimate of the time left.

    Raises:
        ValueError: for a log with a line that is not a result.
    """
    # Cases that the log lacks.
    wanted = [(c, m) for c in cases for m in methods]
    with JsonLines(log) as lines:
        known = lines.read(lambda fields: kind(**fields), "a result")
        done = {(r.split, r.name, r.method): r for r in known}
        todo = [(c, m) for c, m in wanted if (c.split, c.name, m) not in done]
        start = time.monotonic()
        for count, (case, name) in enumerate(todo, 1):
            result = run(case, name)
            done[case.split, case.name, name] = result
            lines.append(asdict(result))  # type: ignore[call-overload]
            # Time left, at the mean pace so far.
            left = (time.monotonic() - start) / count * (len(todo) - count)
            text = f"{count}/{len(todo)} {case.name} {name} {word(result)}"
            progress(count / len(todo), f"{text}, {left / 60:.0f} min left")
    return [done[c.split, c.name, m] for c, m in wanted]


def differences(
    results: Sequence[R], methods: Iterable[str], to: str, measures: Iterable[str]
) -> list[R]:
    """Differences of `methods` from the method `to` case by case, as results named
    "METHOD_minus_TO".

    Cases differ more than methods do; an interval of differences is of the methods alone.
    """
    numbers = (*measures, "seconds")
    # Case by case, against the reference method.
    reference = {(r.split, r.name): r for r in results if r.method == to}

    def minus(r: R) -> R:
        base = reference[r.split, r.name]
        changed = {m: getattr(r, m) - getattr(base, m) for m in numbers}
        return replace(r, method=f"{r.method}_minus_{to}", **changed)  # type: ignore[type-var]

    return [minus(r) for method in methods for r in results if r.method == method]


def mean_records(
    results: Iterable[Result], prefix: str, measures: Mapping[str, Measure]
) -> list[dict[str, Any]]:
    """JSON records: for each split and method the mean of each measure, with its 95 % interval.

    Intervals are bootstrapped over cases.
    """
    out = []
    for (split, method), group in _groups(results).items():
        for name, measure in measures.items():
            values = _values(group, name)
            # Mean, and ends of the interval.
            numbers = (values.mean(), *bootstrap(values))
            for suffix, value in zip(("", "_low95", "_high95"), numbers, strict=True):
                key = f"{prefix}/{split}/{method}/{name}{suffix}"
                out.append(
                    record(key, value, measure.unit, measure.direction, len(group), decimals=5)
                )
    return out


def mean_table(
    results: Iterable[Result], measures: Mapping[str, Measure], *, digits: int = 3
) -> str:
    """The same as a Markdown table, one row for each split and method, with the mean of seconds."""
    titles = ["split", "method", *(m.title for m in measures.values()), "s", "n"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for (split, method), group in _groups(results).items():
        # Mean and interval of each measure.
        cells = []
        for name in measures:
            values = _values(group, name)
            low, high = bootstrap(values)
            cells.append(f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
        seconds = np.mean([r.seconds for r in group])
        lines.append(f"| {split} | {method} | {' | '.join(cells)} | {seconds:.1f} | {len(group)} |")
    return "\n".join(lines)


def _values(group: Sequence[Result], name: str) -> np.ndarray:
    return np.array([getattr(r, name) for r in group], float)


def _groups(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.split, r.method), []).append(r)
    return groups
