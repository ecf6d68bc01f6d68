"""Stopping long work between two steps, so that what it has done can be kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether a signal has asked to stop."""

    asked = False


@contextmanager
def held_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask to stop after the step; a second one is not held back."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.asked = True
        signal.signal(number, before[number])

    if (
        threading.current_thread() is threading.main_thread()
    ):  # elsewhere signals are somebody else's
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
