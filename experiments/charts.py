"""Lines over a common axis as a PNG, one panel beside the other, drawn with pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import atomic_write

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 300, 56, 14, 44, 40
INK, GRID = (40, 40, 40), (225, 225, 225)
COLORS = (
    (30, 100, 255),
    (220, 90, 20),
    (60, 150, 60),
    (150, 60, 160),
    (120, 120, 120),
    (180, 150, 0),
)
_FONT = ImageFont.load_default(12)


@dataclass(frozen=True)
class Chart:
    """One panel.

    Attributes:
        title: what is shown, with its unit.
        axis: what it is shown over, with its unit.
        lines: by name, x (n,) and y (n,).
    """

    title: str
    axis: str
    lines: Mapping[str, tuple[FloatArray, FloatArray]]

    def __post_init__(self) -> None:
        if not 0 < len(self.lines) <= len(COLORS):
            raise ValueError(
                f"Chart.lines: expected 1 to {len(COLORS)} lines, got {len(self.lines)}"
            )
        for name, (x, y) in self.lines.items():
            checks.array(
                f"Chart.lines[{name!r}]", y, checks.array(f"Chart.lines[{name!r}]", x, ("n",)).shape
            )


def draw_charts(path: Path, charts: Sequence[Chart]) -> None:
    """Panels from left to right."""
    image = Image.new("RGB", (WIDTH * len(charts), HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for index, chart in enumerate(charts):
        _panel(draw, WIDTH * index, chart)
    with atomic_write(path) as file:
        image.save(file, "PNG")


def _panel(draw: ImageDraw.ImageDraw, left: int, chart: Chart) -> None:
    low, high = (
        np.array([pick([pick(line[i]) for line in chart.lines.values()]) for i in (0, 1)])
        for pick in (np.min, np.max)
    )
    span = np.where(high > low, high - low, 1.0)
    corner, size = (left + LEFT, HEIGHT - BOTTOM), (WIDTH - LEFT - RIGHT, TOP + BOTTOM - HEIGHT)

    def place(x: float, y: float) -> tuple[float, float]:
        return corner[0] + (x - low[0]) / span[0] * size[0], corner[1] + (y - low[1]) / span[
            1
        ] * size[1]

    for share in np.linspace(0, 1, 5):
        x, y = np.round((low + share * span) / span, 6) * span  # what rounds to 0 is 0
        draw.line([place(low[0], y), place(low[0] + span[0], y)], fill=GRID)
        draw.text((left + LEFT - 6, place(x, y)[1]), f"{y:.3g}", fill=INK, font=_FONT, anchor="rm")
        draw.text((place(x, y)[0], corner[1] + 5), f"{x:.3g}", fill=INK, font=_FONT, anchor="ma")
    draw.text((corner[0] + size[0] / 2, HEIGHT - 4), chart.axis, fill=INK, font=_FONT, anchor="ms")
    draw.text((left + LEFT, 4), chart.title, fill=INK, font=_FONT)
    at = float(left + LEFT)
    for color, (name, (x, y)) in zip(COLORS, chart.lines.items(), strict=False):
        draw.line([place(*point) for point in zip(x, y, strict=True)], fill=color, width=2)
        draw.text((at, 22), name, fill=color, font=_FONT)
        at += draw.textlength(name, font=_FONT) + 14
