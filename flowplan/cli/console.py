"""Output: results on stdout; errors, warnings and progress on stderr, a line each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Tell = Callable[[float, str], None]
"""Takes the fraction done and a message."""
TellStage = Callable[[str, float, str], None]
"""Takes the name of a stage, the fraction of it done and a message."""

_EVERY = 10.0
"""Seconds between lines of progress where stderr is not a terminal."""
_BOLD_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"


def say(text: str) -> None:
    """Write a result, or a part of it, to stdout."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(one_line(text) + "\n")
    sys.stderr.flush()


def error(text: str, label: str = "") -> None:
    """Write an error to stderr, on one line.

    Args:
        text: the error.
        label: what failed. Defaults to the first words of `text` if these name the program.
    """
    text = one_line(text)
    if not label:
        label, _, text = (
            text.partition(": ") if text.startswith("flowplan") else ("flowplan", "", text)
        )
    colored = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    note(f"{_BOLD_RED}{label}:{_PLAIN} {text}" if colored else f"{label}: {text}")


def records(values: Sequence[dict[str, Any]], path: Path | None) -> None:
    """Write records as JSON to a file, or to stdout if there is none."""
    text = json.dumps(values, indent=1)
    if path is None:
        say(text)
        return
    from flowplan.utils.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write((text + "\n").encode())
    say(f"wrote {path}")


def table(text: str) -> None:
    """Write a table for people to stderr; its records are the result."""
    sys.stderr.write(text + "\n")


def beside(path: Path | None, suffix: str) -> Path | None:
    """The file `path` + `suffix`, if there is a path."""
    return None if path is None else path.with_name(path.name + suffix)


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(text.split())


@contextmanager
def prepared() -> Iterator[None]:
    """Streams, warnings and logs as every command wants them."""
    with warnings.catch_warnings(), _stdout_for_results():
        warnings.showwarning = _show_warning
        handler = logging.StreamHandler()
        handler.setFormatter(_LineFormatter())
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


@contextmanager
def progress(title: str) -> Iterator[Tell]:
    """A progress bar on a terminal, a line every few seconds elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn())
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_terminal())
    task = bar.add_task(title, total=1.0)
    with bar:
        yield lambda done, word: bar.update(task, completed=done, description=escape(word))


@contextmanager
def stages(names: Sequence[str]) -> Iterator[tuple[TellStage, Callable[[str], bool]]]:
    """A progress bar for each stage, and a function that asks a person yes or no."""
    if not sys.stderr.isatty():
        lines = {name: _Lines(name) for name in names}
        yield lambda stage, done, word: lines[stage](done, word), _ask
        return
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.fields[stage]:8}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TextColumn("{task.description}"), console=_terminal())
    tasks = {name: bar.add_task("", total=1.0, start=False, stage=name) for name in names}

    def tell(stage: str, done: float, word: str) -> None:
        if not bar.tasks[tasks[stage]].started:
            bar.start_task(tasks[stage])
        bar.update(tasks[stage], completed=done, description=escape(word))

    def ask(question: str) -> bool:
        bar.stop()
        try:
            return _ask(question)
        finally:
            bar.start()

    with bar:
        yield tell, ask


def _ask(question: str) -> bool:
    sys.stderr.write(question + " (y/N)? ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _terminal() -> Any:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


class _Lines:
    """Progress as lines: the first message, the last, and one every few seconds between them."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = 0.0

    def __call__(self, done: float, word: str) -> None:
        now = time.monotonic()
        if now < self._next and done < 1.0:
            return
        self._next = now + _EVERY
        note(f"{self._title}: {100 * done:.0f} % {word}")


class _LineFormatter(logging.Formatter):
    """`flowplan: warning: message`, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(f"flowplan: {record.levelname.lower()}: {record.getMessage()}")


def _show_warning(message: Warning | str, *where: Any, **_: Any) -> None:
    note(f"flowplan: warning: {message}")


@contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Keep stdout for results: what C libraries print there goes to stderr."""
    if sys.stdout is not sys.__stdout__ or sys.stdout is None or not _is_first(sys.stdout):
        yield  # already redirected in this process, as by a test
        return
    sys.stdout.flush()
    results = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    before, sys.stdout = sys.stdout, results
    try:
        yield
    finally:
        sys.stdout = before
        try:
            results.flush()
            os.dup2(results.fileno(), 1)
            results.close()
        except BrokenPipeError:
            pass


def _is_first(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 1)
    except (OSError, ValueError):
        return False
