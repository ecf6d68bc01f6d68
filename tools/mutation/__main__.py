"""Share of small faults that quick tests notice, per room.

    python -m tools.mutation geometry grasp --sample 60 --seed 0 --json build/mutation.json

One fault is planted at a time: a comparison negated, a sign, a factor or a boolean operator
exchanged, a condition turned round; numbers are changed with --constants and reported apart. The
quick tests that run the line are run on it, the quickest first, until one fails. Results are kept
in build/mutation, and a run that was interrupted goes on; a fault that survived is tried again
when its file or the tests have changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from flowplan.utils.bounds import Interval
from flowplan.utils.records import record
from flowplan.utils.stats import wilson
from tools.mutation.faults import CONSTANT, KINDS, Fault, faults, sample
from tools.mutation.rooms import ROOMS, ROOT, Room
from tools.mutation.trial import Coverage, measure_coverage, notices, preload

_STARTUP = 30.0
"""Seconds of a trial beside its tests: imports and collection on a loaded machine."""
_SLOWER = 5.0
"""Times its usual time after which a test counts as running for ever."""


@dataclass(frozen=True)
class Options:
    """Faults planted and tests run."""

    rooms: tyro.conf.Positional[tuple[str, ...]] = tuple(ROOMS)
    """Rooms: planner, validation, attachment, geometry, collision, grasp, execution."""
    sample: Annotated[int, Interval(1, 100_000)] = 60
    """Faults per room, drawn at random."""
    seed: int = 0
    """Seed of the draw."""
    only: str = ""
    """Plant faults only in files whose path contains this."""
    constants: bool = False
    """Change numbers and truth values instead of operators."""
    seconds: Annotated[float, Interval(1, 3600)] = 40.0
    """Usual time of the tests that are run on one fault, at most."""
    json: Path | None = None
    """File for the records; printed as well."""


def main(options: Options) -> None:
    """Plant faults in all rooms and print the records."""
    unknown = set(options.rooms) - set(ROOMS)
    if unknown:
        raise SystemExit(f"rooms: expected some of {', '.join(ROOMS)}, got {sorted(unknown)[0]}")
    preload()
    records = [room_record(name, options) for name in options.rooms]
    text = json.dumps(records, indent=1) + "\n"
    sys.stdout.write(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text)


def room_record(name: str, options: Options) -> dict[str, Any]:
    """Record of one room: the share noticed, its interval, and every survivor."""
    room = ROOMS[name]
    kinds = (CONSTANT,) if options.constants else KINDS
    found = [f for path in room.files for f in faults(ROOT, path)]
    found = [f for f in found if f.kind in kinds and options.only in f.path]
    chosen = sample(found, options.sample, options.seed)
    log = _Log(ROOT / "build" / "mutation" / f"{name}.jsonl", room)

    # Coverage is measured only if a fault is to be tried.
    coverage: Coverage | None = None
    began, results = time.monotonic(), []
    for i, fault in enumerate(chosen, 1):
        result = log.known(fault)
        if result is None:
            coverage = coverage or measure_coverage(room)
            result = _result(room, fault, coverage, options.seconds)
            log.add(fault, result)
        results.append(result)
        _progress(name, fault, result, i, len(chosen), time.monotonic() - began)

    noticed = sum(bool(result["by"]) for result in results)
    low, high = wilson(noticed, len(chosen))
    survivors = [
        {**_place(fault), "tests": result["tests"]}
        for fault, result in zip(chosen, results, strict=True)
        if not result["by"]
    ]
    return record(
        f"mutation/{name}/noticed{'_constants' if options.constants else ''}",
        noticed / max(len(chosen), 1),
        "share",
        "up",
        len(chosen),
        decimals=4,
        low=round(low, 4),
        high=round(high, 4),
        seed=options.seed,
        faults=len(found),
        survivors=sorted(survivors, key=lambda s: s["place"]),
    )


def _result(room: Room, fault: Fault, coverage: Coverage, most: float) -> dict[str, Any]:
    """Outcome of one fault: test that noticed it, number of tests run, seconds."""
    tests = coverage.tests(fault, most)
    if not tests:
        return {"by": "", "tests": 0, "seconds": 0.0}
    usual = sum(coverage.seconds.get(name, 0.0) for name in tests)
    by, seconds = notices(room, fault, tests, _STARTUP + _SLOWER * usual)
    return {"by": by, "tests": len(tests), "seconds": round(seconds, 1)}


def _place(fault: Fault) -> dict[str, str]:
    return {
        "place": f"{fault.path}:{fault.line}",
        "kind": fault.kind,
        "before": fault.before,
        "after": fault.after,
    }


def _progress(name: str, fault: Fault, result: dict[str, Any], i: int, n: int, s: float) -> None:
    """One line on standard error: outcome, and the time left."""
    outcome = result["by"] or f"SURVIVED {result['tests']} tests"
    left = s / i * (n - i)
    sys.stderr.write(
        f"{name} {i}/{n}, {left / 60:.0f} min left: {fault.path}:{fault.line} "
        f"{fault.kind} `{fault.before}` -> `{fault.after}`: {outcome}\n"
    )


class _Log:
    """Results of earlier runs, as lines of JSON."""

    def __init__(self, path: Path, room: Room) -> None:
        self.path = path
        self.tests = _digest(room.test_files)
        lines = path.read_text().splitlines() if path.exists() else []
        self.lines = {(row["key"], row["source"]): row for row in map(json.loads, lines)}

    def known(self, fault: Fault) -> dict[str, Any] | None:
        """Result of an earlier run, if it still holds."""
        row = self.lines.get((fault.key, _digest([ROOT / fault.path])))
        if row is None or (not row["by"] and row["test_files"] != self.tests):
            return None
        return row

    def add(self, fault: Fault, result: dict[str, Any]) -> None:
        """Keep a result."""
        row = {
            "key": fault.key,
            "source": _digest([ROOT / fault.path]),
            "test_files": self.tests,
            **result,
            **asdict(fault),
        }
        self.lines[row["key"], row["source"]] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _digest(files: Sequence[Path]) -> str:
    """Short digest of the content of files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
