"""Line charts as a PNG, in a grid of panels, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#1e64ff", "#dc5a14", "#3c963c", "#963ca0", "#787878", "#b49600")
"""Colors of a panel's lines, in order."""
PANEL = (4.2, 3.0)
"""Width and height of a panel, inches."""
DPI = 100


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: quantity shown, with its unit.
        axis: quantity along the horizontal axis, with its unit.
        lines: by name, x (n,) and y (n,).
        log: logarithmic vertical axis.
    """

    title: str
    axis: str
    lines: Mapping[str, tuple[FloatArray, FloatArray]]
    log: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.lines) <= len(COLORS):
            raise ValueError(
                f"Chart.lines: expected 1 to {len(COLORS)} lines, got {len(self.lines)}"
            )
        for name, (x, y) in self.lines.items():
            field = f"Chart.lines[{name!r}]"
            checks.array(field, y, checks.array(field, x, ("n",)).shape)


def draw_charts(path: Path, charts: Sequence[Chart], *, columns: int | None = None) -> None:
    """Write the panels as a PNG, which appears whole or not at all.

    Args:
        path: of the file.
        charts: at least one panel.
        columns: panels side by side. Defaults to all of them.
    """
    drawn = figure(charts, columns=columns)
    with atomic_write(path) as file:
        drawn.savefig(file, format="png")


def figure(charts: Sequence[Chart], *, columns: int | None = None) -> Figure:
    """The panels as a matplotlib figure, without pyplot's global state."""
    from matplotlib.figure import Figure  # heavy

    columns = min(columns or len(charts), len(charts))
    rows = -(-len(charts) // columns)
    size = (PANEL[0] * columns, PANEL[1] * rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    for index, chart in enumerate(charts):
        axes = figure.add_subplot(rows, columns, index + 1)
        for color, (name, (x, y)) in zip(COLORS, chart.lines.items(), strict=False):
            # A single point makes no line.
            axes.plot(x, y, color=color, label=name, marker="o" if len(x) == 1 else None)
        axes.set_title(chart.title, fontsize=10)
        axes.set_xlabel(chart.axis, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e1e1e1")
        axes.margins(x=0)
        if chart.log:
            axes.set_yscale("log")
        if len(chart.lines) > 1:
            axes.legend(fontsize=8)
    return figure
