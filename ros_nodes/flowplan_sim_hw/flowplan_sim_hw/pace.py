"""A simulation that goes on by itself, in a thread, at the pace of the clock on the wall or a multiple of it.

What falls behind by more than a fifth of a second is not caught up: on a machine too slow, simulated time runs slower.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowplan_sim_hw.simulation import Simulation

_LAG = 0.2  # seconds of wall time


class Pace:
    """Owns a simulation and steps it until `close`.

    Args:
        make: builds the simulation, also each time it is reset, given the time that it begins with.
        factor: simulated seconds in a second of wall time.
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
        """The simulation, standing still meanwhile: be brief."""
        with self._lock:
            yield self._simulation

    @property
    def alive(self) -> bool:
        """Whether the physics goes on; it ends with a traceback if there is a defect in it."""
        return self._thread.is_alive()

    @property
    def resets(self) -> int:
        """How often the simulation has been built anew."""
        return self._resets

    def reset(self) -> None:
        """Build the simulation anew, in the background; `resets` tells when that is done, `error` that it failed."""
        self.error = None
        self._reset.set()

    def close(self) -> None:
        """End it."""
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
            )  # seconds of wall time that a step may take
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
