"""Tests in a forked process: once to see which test runs which line, then once a fault.

The packages that take long to import are imported before the fork, the project's own after it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from tools.mutation.faults import Fault, planted
from tools.mutation.rooms import ROOT, Room

MEMORY = 12 * 2**30
"""Address space of one trial, bytes."""

_SLOW_IMPORTS = (
    "numpy",
    "scipy.optimize",
    "scipy.spatial",
    "scipy.stats",
    "trimesh",
    "pinocchio",
    "coal",
    "toppra",
    "hypothesis",
    "pytest",
)
_TESTS_FAILED = 1
_NO_TESTS = 5


@dataclass(frozen=True)
class Coverage:
    """Tests that run each line, and the time each of them takes.

    Attributes:
        seconds: per test, by its name.
        lines: per file, relative to the project, and line: names of the tests that run it.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def tests(self, fault: Fault, most: float) -> list[str]:
        """Tests that run the fault's line, quickest first, up to `most` seconds in all."""
        chosen: list[str] = []
        total = 0.0
        names = self.lines.get(fault.path, {}).get(fault.line, [])
        for name in sorted(set(names), key=lambda name: self.seconds.get(name, 0.0)):
            total += self.seconds.get(name, 0.0)
            if chosen and total > most:
                break
            chosen.append(name)
        return chosen


def preload() -> None:
    """Import the slow packages, to be shared by every trial."""
    for name in _SLOW_IMPORTS:
        importlib.import_module(name)


def measure_coverage(room: Room) -> Coverage:
    """Coverage of a room by its tests, which have to pass."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "coverage.json"
        status, _ = _forked(lambda: _record_coverage(room, found), 3600.0)
        if status != 0 or not found.exists():
            raise RuntimeError(f"the tests of {room.source} fail without any fault: run them first")
        data = json.loads(found.read_text())
    lines = {
        path: {int(line): names for line, names in at.items()} for path, at in data["lines"].items()
    }
    return Coverage(data["seconds"], lines)


def notices(room: Room, fault: Fault, tests: Sequence[str], limit: float) -> tuple[str, float]:
    """The test that notices a fault, "time" if one ran on for ever, "" if none does; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        failed = Path(folder) / "failed"
        status, seconds = _forked(lambda: _try_fault(room, fault, tests, failed), limit)
        by = failed.read_text() if failed.exists() else ""
    if status is None:
        return "time", seconds
    if status in (0, _NO_TESTS):
        return "", seconds
    return by or "import", seconds


def _record_coverage(room: Room, found: Path) -> int:
    """Run all tests of a room and write which lines each runs; pytest's exit status."""
    import coverage

    source = ROOT / room.source
    measured = coverage.Coverage(
        data_file=None,
        include=[str(source) if source.is_file() else f"{source}/*"],
        config_file=False,
    )
    recorder = _Recorder(measured)
    measured.start()
    status = _pytest(room, [str(file) for file in room.test_files], [recorder])
    measured.stop()

    data = measured.get_data()
    lines: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        path = Path(file).relative_to(ROOT).as_posix()
        lines[path] = {
            line: recorder.names(contexts)
            for line, contexts in data.contexts_by_lineno(file).items()
        }
    found.write_text(json.dumps({"seconds": recorder.seconds, "lines": lines}))
    return status


def _try_fault(room: Room, fault: Fault, tests: Sequence[str], failed: Path) -> int:
    """Run tests with a fault planted; pytest's exit status."""
    path = ROOT / fault.path
    sys.meta_path.insert(0, _Finder(room.module(path), path, fault.number))
    order = {name: i for i, name in enumerate(tests)}
    files = dict.fromkeys(str(ROOT / name.split("::")[0]) for name in tests)
    return _pytest(room, [*files, "-x"], [_Chosen(order, failed)])


def _pytest(room: Room, arguments: list[str], plugins: list[Any]) -> int:
    # Installed plugins cost a second a trial.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    quiet = ["-p", "no:cacheprovider", "--no-header"]
    quiet += ["-m", "not slow and not gpu", f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml")]
    quiet += [] if room.conftest else ["--noconftest"]
    sys.path[:0] = [str(ROOT), str(ROOT / room.import_root)]
    from hypothesis import settings

    # The same examples in every trial, and none kept.
    settings.register_profile("mutation", derandomize=True, database=None, deadline=None)
    settings.load_profile("mutation")
    return int(pytest.main([*quiet, *arguments], plugins=plugins))


def _forked(work: Callable[[], int], limit: float) -> tuple[int | None, float]:
    """Exit status of some work in a process of its own, None past the limit; and its seconds."""
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            silent = os.open(os.environ.get("MUTATION_LOG", os.devnull), os.O_RDWR | os.O_CREAT)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            status = work()
        finally:
            os._exit(status)
    while time.monotonic() - began < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - began
        time.sleep(0.02)
    # The trial and the processes that it started.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, time.monotonic() - began


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, whose code has a fault."""

    def __init__(self, name: str, path: Path, number: int) -> None:
        self.name, self.path, self.number = name, path, number

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Spec of the module, if it is the faulty one."""
        if fullname != self.name:
            return None
        loader = _Loader(fullname, str(self.path), self.number)
        folders = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=loader, submodule_search_locations=folders
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Source loader that plants a fault."""

    def __init__(self, name: str, path: str, number: int) -> None:
        super().__init__(name, path)
        self.number = number

    def get_code(self, fullname: str) -> CodeType:
        """Code of the module with its fault."""
        tree = planted(Path(self.path).read_text(), self.number)
        return compile(tree, self.path, "exec")


class _Recorder:
    """Names the running test for the coverage, and keeps the time of each."""

    def __init__(self, measured: Any) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = defaultdict(float)
        self.by_file: dict[str, list[str]] = defaultdict(list)

    def names(self, contexts: Sequence[str]) -> list[str]:
        """Tests that depend on a line run in these contexts."""
        if "" in contexts:
            return list(self.seconds)
        chosen: set[str] = set()
        for context in contexts:
            # What a fixture makes may be for all tests of the file.
            file, _, setup = context.partition("|")
            chosen |= set(self.by_file[file]) if setup else {context}
        return sorted(chosen)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the tests of each file."""
        for item in session.items:
            self.by_file[item.nodeid.split("::")[0]].append(item.nodeid)
            self.seconds[item.nodeid] = 0.0

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fixtures come next."""
        self.measured.switch_context(f"{item.nodeid.split('::')[0]}|setup")

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """The test itself comes next."""
        self.measured.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the time of a part of a test."""
        self.seconds[report.nodeid] += report.duration


class _Chosen:
    """Runs the chosen tests in their order, and keeps the name of the first that fails."""

    def __init__(self, order: dict[str, int], failed: Path) -> None:
        self.order, self.failed = order, failed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the chosen tests, in order."""
        kept = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(kept, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the name of a test that fails."""
        if report.failed and not self.failed.exists():
            self.failed.write_text(report.nodeid)
