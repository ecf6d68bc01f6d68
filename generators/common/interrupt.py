"""Interruption of long work between two steps, so that what it has done can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Flag that a signal sets to ask for a stop after the current step."""

    asked = False


@contextmanager
def held_signals() -> Iterator[StopRequest]:
    """Context in which the first SIGINT or SIGTERM sets a flag; a second one acts at once."""
    stop = StopRequest()
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.asked = True
        signal.signal(number, before[number])

    # Only the main thread may set handlers.
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
