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
from flowplan.viz.draw import CHOSEN_COLOR, SCORE_COLORS, ViewOptions, draw
from flowplan.viz.objects import MEASURED_COLOR, TRACK_COLORS
from flowplan.viz.run import Run

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
        server = viser.ViserServer(host="127.0.0.1", port=0)
        try:
            page = _play(server, run, options, rate)
        finally:
            server.stop()
    page = page.replace("<title>Viser</title>", f"<title>{html.escape(run.title)}</title>")
    return page.replace("</body>", _legend(run) + "</body>")


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
    items = [
        f'<div><span style="{_SWATCH}{color}"></span>{html.escape(text)}</div>'
        for color, text in rows
    ]
    title = f'<b style="font-size:15px">{html.escape(run.title)}</b>'
    return f'<div style="{_BOX}">{title}{"".join(items)}</div>'


def _gradient(colors: tuple[tuple[int, int, int], ...]) -> str:
    """CSS gradient through RGB colors."""
    return f"linear-gradient(90deg, {', '.join(f'rgb{color}' for color in colors)})"
