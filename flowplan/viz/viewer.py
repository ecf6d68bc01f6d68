"""A run to look at in a browser: one self-contained HTML page that plays without a server, or the same live.

Both drive one function, `show(t)` of `flowplan.viz.draw`: the page is viser's recording of it, stepped through the
timeline, put into viser's own client (nothing is loaded from anywhere else); the live view moves it with a slider.
"""

from __future__ import annotations

import contextlib
import html
import io
import threading
import time
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import viser

from flowplan.grasp import ContactCandidates
from flowplan.io.npz import load
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.robot import Robot, load_robot
from flowplan.rollout import Rollout
from flowplan.scene import Scene
from flowplan.utils.files import atomic_write
from flowplan.viz.draw import (
    CHOSEN_COLOR,
    MEASURED_COLOR,
    SCORE_COLORS,
    TRACK_COLORS,
    Run,
    ViewOptions,
    draw,
)


def write_page(path: str | Path, run: Run, options: ViewOptions | None = None) -> Path:
    """Write `run` as one HTML file, ending in .html, that plays without a server.

    Raises:
        ValueError: for another suffix, or when even a coarse timeline does not fit into `options.max_bytes`.
    """
    path, options = Path(path), options or ViewOptions()
    if path.suffix != ".html":
        raise ValueError(f"path: expected a name that ends in .html, got {str(path)!r}")
    for rate in (options.rate, options.rate / 2, options.rate / 4):
        page = _record(run, options, rate).encode()
        if len(page) <= options.max_bytes:
            with atomic_write(path) as file:
                file.write(page)
            return path
    raise ValueError(
        f"{path}: the page would have {len(page) / 1e6:.1f} MB, ViewOptions.max_bytes allows "
        f"{options.max_bytes / 1e6:.1f}; decimate the meshes or allow more"
    )


def read_run(folder: str | Path, robot: Robot | None = None) -> Run:
    """The run whose stages lie in `folder`: scene.npz, and motion, flow, grasps, plan and rollout where they are.

    Args:
        folder: what `flowplan run` wrote, or anyone who names the files so.
        robot: the arm; where not given, the one of this project whose joints the plan or the rollout names. Of a
            robot that is neither there nor given, no motion is shown.
    """
    from flowplan.planner import Plan  # loads the optimizers

    folder = Path(folder)

    def stage(name: str, kind: Any) -> Any:
        path = folder / f"{name}.npz"
        return load(path, kind) if path.is_file() else None

    plan, rollout = stage("plan", Plan), stage("rollout", Rollout)
    if robot is None and (plan or rollout):
        robot = _robot_with((plan.trajectory if plan else rollout).joint_names)
    return Run(
        load(folder / "scene.npz", Scene),
        stage("motion", SceneMotion),
        stage("flow", ObjectFlow),
        stage("grasps", ContactCandidates),
        plan.contact if plan else None,
        robot,
        plan.trajectory if plan and robot else None,
        rollout,
        folder.resolve().name,
    )


def serve_folder(folder: str | Path, *, port: int = 8080) -> None:
    """Show the run in `folder` in the browser until interrupted."""
    with serve(read_run(folder), port=port) as viewer, contextlib.suppress(KeyboardInterrupt):
        viewer.play()


def serve(
    run: Run, options: ViewOptions | None = None, *, host: str = "127.0.0.1", port: int = 8080
) -> Viewer:
    """Show `run` at http://host:port (the next free port), with a slider for the time."""
    return Viewer(
        viser.ViserServer(host=host, port=port, label=run.title), run, options or ViewOptions()
    )


class Viewer:
    """A live view, to be closed; `play` runs its clock.

    Attributes:
        server: viser's, to which anything else can be added.
    """

    def __init__(self, server: viser.ViserServer, run: Run, options: ViewOptions) -> None:
        self.server = server
        self._show = draw(server, run, options)
        self._showing = threading.Lock()  # a hand on the slider is heard in a thread of viser's
        self._duration = run.duration
        end = max(run.duration, 1e-3)
        self._slider: Any = server.gui.add_slider("time (s)", 0.0, end, end / 1000, 0.0)
        self._running = server.gui.add_checkbox("play", True)
        self._slider.on_update(lambda _: self.show(self._slider.value))
        self.show(0.0)

    def show(self, t: float) -> None:
        """Put everything where it is at time t."""
        with self._showing, self.server.atomic():
            self._show(t)

    @property
    def time(self) -> float:
        """Seconds on the slider."""
        return float(self._slider.value)

    def play(self, seconds: float = np.inf) -> None:
        """Run the clock, around and around while "play" is ticked, for so long."""
        start = last = time.monotonic()
        while last - start < seconds:
            time.sleep(1 / 30)
            now = time.monotonic()
            if self._running.value:
                self._slider.value = (self._slider.value + now - last) % max(self._duration, 1e-3)
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
        at: TracebackType | None,
    ) -> None:
        self.close()


def _record(run: Run, options: ViewOptions, rate: float) -> str:
    """The page: viser's own recording of the stage as it is driven through the timeline, with a title and a legend."""
    with contextlib.redirect_stdout(
        io.StringIO()
    ):  # viser announces its address, which nobody needs here
        server = viser.ViserServer(host="127.0.0.1", port=0)
        try:
            show = draw(server, run, options)
            show(0.0)
            recording = server.get_scene_serializer()
            # The player goes around, so whatever moves must also be told where it starts: to the end and back.
            show(run.duration)
            show(0.0)
            for t in (
                np.arange(1, 1 + np.ceil(run.duration * rate)) / rate if run.duration > 0 else ()
            ):
                recording.insert_sleep(1 / rate)
                show(min(float(t), run.duration))
            if run.duration > 0:
                recording.insert_sleep(1.0)  # to look at the end before it starts again
            page = recording.as_html()
        finally:
            server.stop()
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(run.title)}</title>")
    return page.replace("</body>", _legend(run) + "</body>")


def _legend(run: Run) -> str:
    rows = []
    if run.flow is not None:
        rows.append(
            (
                f"linear-gradient(90deg, rgb{TRACK_COLORS[0]}, rgb{TRACK_COLORS[1]})",
                "flow, start to end",
            )
        )
    if run.grasps is not None and len(run.grasps):
        ramp = ", ".join(f"rgb{c}" for c in SCORE_COLORS)
        rows.append((f"linear-gradient(90deg, {ramp})", "contact candidates, worst to best"))
    if run.chosen is not None:
        rows.append((f"rgb{CHOSEN_COLOR}", "contact chosen"))
    if run.rollout is not None:
        rows.append(
            (
                f"rgb{MEASURED_COLOR}",
                f"object as measured ({run.rollout.outcome.replace('_', ' ')})",
            )
        )
    swatch = "display:inline-block;width:2.2em;height:.6em;border-radius:.3em;margin-right:.6em;background:"
    items = "".join(
        f'<div><span style="{swatch}{color}"></span>{html.escape(text)}</div>'
        for color, text in rows
    )
    box = (
        "position:fixed;left:1em;bottom:4em;z-index:10;padding:.7em 1em;border-radius:.5em;pointer-events:none;"
        "background:rgba(255,255,255,.85);color:#222;font:13px/1.7 system-ui,sans-serif"
    )
    return f'<div style="{box}"><b style="font-size:15px">{html.escape(run.title)}</b>{items}</div>'


def _robot_with(joints: tuple[str, ...]) -> Robot | None:
    """The robot of this project that has these joints."""
    files = sorted(p.name for p in resources.files("robot_configs").iterdir())
    names = [name.removesuffix(".toml") for name in files if name.endswith(".toml")]
    return next((r for r in map(load_robot, names) if r.joint_names == joints), None)
