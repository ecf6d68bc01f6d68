"""A live view of a run in the browser, with a slider for the time."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import viser

from flowplan.robot import Robot
from flowplan.viz import panel
from flowplan.viz.draw import ViewOptions, draw
from flowplan.viz.run import Run, read_run
from flowplan.viz.server import local_server

_MIN_DURATION = 1e-3
"""Length of the slider for a run without duration, seconds."""
_REFRESH = 1 / 30
"""Time between updates of the clock, seconds."""


def serve_folder(folder: str | Path, *, port: int = 8080, robot: Robot | None = None) -> None:
    """Show the run in `folder` in the browser until interrupted.

    Args:
        folder: Written by `flowplan run`.
        port: Port to listen on, or the next free one.
        robot: The robot. Defaults to the plan's own; see `read_run`.
    """
    run = read_run(folder, robot)
    with serve(run, port=port) as viewer, contextlib.suppress(KeyboardInterrupt):
        viewer.play()


def serve(
    run: Run, options: ViewOptions | None = None, *, host: str = "127.0.0.1", port: int = 8080
) -> Viewer:
    """Show `run` at http://host:port, or at the next free port."""
    server = local_server(host, port, label=run.title)
    return Viewer(server, run, options or ViewOptions())


class Viewer:
    """A live view, to be closed after use; `play` runs its clock.

    Attributes:
        server: Viser's server, to which anything else can be added.
    """

    def __init__(self, server: viser.ViserServer, run: Run, options: ViewOptions) -> None:
        self.server = server
        self._show = draw(server, run, options)
        self._lock = threading.Lock()  # viser reports changes of the slider in a thread of its own
        self._duration = max(run.duration, _MIN_DURATION)
        # A slider in thousandths of the run, and a checkbox that lets it run.
        step = self._duration / 1000
        self._slider: Any = server.gui.add_slider("time (s)", 0.0, self._duration, step, 0.0)
        self._running = server.gui.add_checkbox("play", True)
        self._add_panel(run)
        self._slider.on_update(lambda _: self.show(self._slider.value))
        self.show(0.0)

    def _add_panel(self, run: Run) -> None:
        """Add phases below the slider, and folders with the report and the joint plots."""
        gui = self.server.gui
        above = panel.phase_bar(run, self._duration) + panel.notes(run)
        if above:
            gui.add_html(f'<div style="padding:0.4em 1em">{above}</div>')
        sections = [
            ("report", panel.report_text(run)),
            ("joints and their limits", panel.joint_plots(run, self._duration)),
        ]
        for title, content in sections:
            if content:
                with gui.add_folder(title, expand_by_default=False):
                    gui.add_html(f'<div style="padding:0 1em;overflow:auto">{content}</div>')

    def show(self, t: float) -> None:
        """Move everything to time t, seconds."""
        with self._lock, self.server.atomic():
            self._show(t)

    @property
    def time(self) -> float:
        """Time on the slider, seconds."""
        return float(self._slider.value)

    def play(self, seconds: float = np.inf) -> None:
        """Run the clock in a loop for so long, while "play" is checked."""
        # Real time passed since the last refresh moves the slider, which moves the scene.
        start = last = time.monotonic()
        while last - start < seconds:
            time.sleep(_REFRESH)
            now = time.monotonic()
            if self._running.value:
                self._slider.value = (self._slider.value + now - last) % self._duration
            last = now

    def close(self) -> None:
        """Stop serving."""
        self.server.stop()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
