"""Simulation that runs in a thread at a multiple of real time.

A delay of more than a fifth of a second is not caught up: on a slow machine simulated time runs
slower.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowplan_sim_hw.simulation import Simulation

_LAG = 0.2  # seconds of real time


class Pace:
    """Owner of a simulation, which it steps until `close`.

    Args:
        make: builder of the simulation, given its start time; also called for each reset.
        factor: simulated seconds per second of real time.
    """

    def __init__(self, make: Callable[[float], Simulation], factor: float = 1.0) -> None:
        self._make, self._factor = make, factor
        self._lock = threading.Lock()
        self._simulation = make(0.0)
        self._reset = threading.Event()
        self._resets = 0
        self._stop = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
        self._thread.start()

    @contextmanager
    def held(self) -> Iterator[Simulation]:
        """The simulation, paused meanwhile: be brief."""
        with self._lock:
            yield self._simulation

    @property
    def alive(self) -> bool:
        """True while the physics runs; a defect ends it with a traceback."""
        return self._thread.is_alive()

    @property
    def resets(self) -> int:
        """Number of times that the simulation was rebuilt."""
        return self._resets

    def reset(self) -> None:
        """Rebuild the simulation in the background; `resets` counts up when done, `error` reports a
        failure."""
        self.error = None
        self._reset.set()

    def close(self) -> None:
        """End the simulation."""
        self._stop.set()
        self._thread.join()
        self._simulation.close()

    def _run(self) -> None:
        begun, steps = time.monotonic(), 0
        while not self._stop.is_set():
            if self._reset.is_set():
                self._rebuild()
                begun, steps = time.monotonic(), 0
            wall = (
                self._simulation.period / self._factor
            )  # largest duration of a step, seconds of real time
            due = begun + steps * wall
            late = time.monotonic() - due
            if late < 0:
                self._stop.wait(-late)
                continue
            if late > _LAG:
                begun += late
            with self._lock:
                self._simulation.step()
            steps += 1

    def _rebuild(self) -> None:
        self._reset.clear()
        try:
            fresh = self._make(self._simulation.time)
        except ValueError as error:
            self.error = error
            return
        with self._lock:
            old, self._simulation = self._simulation, fresh
            old.close()
            self._resets += 1
