"""A run as one self-contained HTML page that plays without a server.

The page is viser's recording of the scene, moved through the timeline, embedded in viser's own
client; nothing is loaded from anywhere else.
"""

from __future__ import annotations

import contextlib
import html
import io
from pathlib import Path

import numpy as np
import viser

from flowplan.utils.files import atomic_write
from flowplan.viz import clearance, panel
from flowplan.viz.draw import CHOSEN_COLOR, SCORE_COLORS, ViewOptions, draw
from flowplan.viz.objects import MEASURED_COLOR, TRACK_COLORS
from flowplan.viz.run import Run
from flowplan.viz.server import local_server

_PAUSE = 1.0
"""Pause at the end of the timeline before it starts again, seconds."""
_SWATCH = (
    "display:inline-block;width:2.2em;height:.6em;border-radius:.3em;margin-right:.6em;background:"
)
_BOX = (
    "position:fixed;left:1em;bottom:4em;z-index:10;padding:.7em 1em;border-radius:.5em;"
    "pointer-events:none;background:rgba(255,255,255,.85);color:#222;"
    "font:13px/1.7 system-ui,sans-serif"
)

_PANEL = (
    "position:fixed;right:1em;top:1em;z-index:10;padding:.5em .8em;border-radius:.5em;"
    "background:rgba(255,255,255,.9);color:#222;font:13px/1.7 system-ui,sans-serif;"
    "max-width:min(46em,50vw);max-height:calc(100vh - 9em);overflow:auto"
)
_PHASES = "position:fixed;left:0;right:0;bottom:3.1em;z-index:11;height:14px"
_FOLLOW = """
(() => {
  // The player's own slider holds the time; it appears once the recording is loaded.
  const bar = document.getElementById("flowplan-phases");
  const follow = () => {
    const thumb = document.querySelector('[role="slider"]');
    const root = thumb && thumb.closest(".mantine-Slider-root");
    if (root) {
      const box = root.getBoundingClientRect();
      bar.style.left = box.left + "px";
      bar.style.right = "auto";
      bar.style.width = box.width + "px";
      bar.style.bottom = window.innerHeight - box.top + 6 + "px";
      const share = Number(thumb.getAttribute("aria-valuenow")) / DURATION;
      for (const line of document.querySelectorAll(".flowplan-now")) {
        const x = String(share * line.ownerSVGElement.viewBox.baseVal.width);
        line.setAttribute("x1", x);
        line.setAttribute("x2", x);
      }
    }
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
})();
"""
"""Places the phases above the player's time bar, and the lines of the plots at its time."""


def write_page(path: str | Path, run: Run, options: ViewOptions | None = None) -> Path:
    """Write `run` as one HTML file, ending in .html, that plays without a server.

    Raises:
        ValueError: For another suffix, or if even a coarse timeline exceeds `options.max_bytes`.
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


def _record(run: Run, options: ViewOptions, rate: float) -> str:
    """The page: a recording at `rate` frames per second, with a title and a legend."""
    # viser prints its address, which is of no use here.
    with contextlib.redirect_stdout(io.StringIO()):
        server = local_server()
        try:
            page = _play(server, run, options, rate)
        finally:
            server.stop()
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(run.title)}</title>")
    overlay = _legend(run) + _panel(run) + _time_bar(run)
    return page.replace("</body>", overlay + "</body>")


def _play(server: viser.ViserServer, run: Run, options: ViewOptions, rate: float) -> str:
    """Viser's page of the scene moved through the timeline."""
    show = draw(server, run, options)
    show(0.0)
    recording = server.get_scene_serializer()
    # The player loops, so the recording must also state where everything that moves starts: move
    # it to the end and back.
    show(run.duration)
    show(0.0)
    frames = int(np.ceil(run.duration * rate)) if run.duration > 0 else 0
    for frame in range(1, 1 + frames):
        recording.insert_sleep(1 / rate)
        show(min(frame / rate, run.duration))
    if run.duration > 0:
        recording.insert_sleep(_PAUSE)
    return recording.as_html()


def _legend(run: Run) -> str:
    """A box with the title and the meaning of the colors that are drawn."""
    rows = []
    if run.flow is not None:
        rows.append((_gradient(TRACK_COLORS), "flow, start to end"))
    if run.candidates is not None and len(run.candidates):
        rows.append((_gradient(SCORE_COLORS), "contact candidates, worst to best"))
    if run.chosen is not None:
        rows.append((f"rgb{CHOSEN_COLOR}", "contact chosen"))
    if run.rollout is not None:
        outcome = run.rollout.outcome.replace("_", " ")
        rows.append((f"rgb{MEASURED_COLOR}", f"object as measured ({outcome})"))
    if text := clearance.label(run):
        rows.append((panel.MARK, f"least clearance: {text}"))
    items = [
        f'<div><span style="{_SWATCH}{color}"></span>{html.escape(text)}</div>'
        for color, text in rows
    ]
    title = f'<b style="font-size:15px">{html.escape(run.title)}</b>'
    return f'<div style="{_BOX}">{title}{"".join(items)}{panel.notes(run)}</div>'


def _panel(run: Run) -> str:
    """Report and joint plots at the top right, each to be opened and closed."""
    length = _length(run)
    plots = panel.joint_plots(run, length)
    sections = [("report", panel.report_text(run)), ("joints and their limits", plots)]
    parts = [
        f'<details><summary style="cursor:pointer">{title}</summary>{content}</details>'
        for title, content in sections
        if content
    ]
    return f'<div id="flowplan-panel" style="{_PANEL}">{"".join(parts)}</div>' if parts else ""


def _time_bar(run: Run) -> str:
    """Bar of the phases above the player's time bar, and the lines that follow its time."""
    length = _length(run)
    bar = panel.phase_bar(run, length)
    if not bar:
        return ""
    return (
        f'<div id="flowplan-phases" style="{_PHASES}">{bar}</div>'
        f"<script>{_FOLLOW.replace('DURATION', f'{length:.6f}')}</script>"
    )


def _length(run: Run) -> float:
    """Seconds of the player's time bar."""
    return run.duration + _PAUSE if run.duration > 0 else 0.0


def _gradient(colors: tuple[tuple[int, int, int], ...]) -> str:
    """CSS gradient through RGB colors."""
    return f"linear-gradient(90deg, {', '.join(f'rgb{color}' for color in colors)})"
