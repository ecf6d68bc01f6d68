"""Training curves as a PNG, one panel per measure, drawn with pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from flowplan.utils.files import atomic_write

WIDTH, HEIGHT, COLUMNS, MARGIN = 360, 200, 3, 34
INK, LINE, GRID = (40, 40, 40), (30, 100, 255), (225, 225, 225)


def draw_curves(path: Path, metrics: Sequence[Mapping[str, float]]) -> None:
    """Every measure over the steps, on a logarithmic axis where it is positive and spans a decade."""
    names = sorted({k for line in metrics for k in line} - {"step", "seconds"})
    if not names:
        return
    rows = -(-len(names) // COLUMNS)
    image = Image.new("RGB", (WIDTH * min(COLUMNS, len(names)), HEIGHT * rows), "white")
    draw = ImageDraw.Draw(image)
    for index, name in enumerate(names):
        points = [
            (line["step"], line[name])
            for line in metrics
            if name in line and math.isfinite(line[name])
        ]
        if points:
            _panel(draw, WIDTH * (index % COLUMNS), HEIGHT * (index // COLUMNS), name, points)
    with atomic_write(path) as file:
        image.save(file, "PNG")


def _panel(
    draw: ImageDraw.ImageDraw, left: int, top: int, name: str, points: list[tuple[float, float]]
) -> None:
    steps, values = [p[0] for p in points], [p[1] for p in points]
    log = min(values) > 0 and max(values) > 10 * min(values)
    heights = [math.log10(v) for v in values] if log else values
    low, high = min(heights), max(heights)
    span, first, reach = (high - low) or 1.0, min(steps), (max(steps) - min(steps)) or 1.0
    x0, x1, y0, y1 = left + MARGIN, left + WIDTH - 10, top + HEIGHT - 24, top + 24
    draw.rectangle((x0, y1, x1, y0), outline=GRID)
    line = [
        (x0 + (s - first) / reach * (x1 - x0), y0 - (h - low) / span * (y0 - y1))
        for s, h in zip(steps, heights, strict=True)
    ]
    if len(line) > 1:
        draw.line(line, fill=LINE, width=2)
    else:
        draw.ellipse((line[0][0] - 2, line[0][1] - 2, line[0][0] + 2, line[0][1] + 2), fill=LINE)
    draw.text((x0, top + 6), f"{name}  {values[-1]:.4g}{'  (log)' if log else ''}", fill=INK)
    draw.text((left + 2, y1 - 2), f"{max(values):.3g}", fill=INK)
    draw.text((left + 2, y0 - 10), f"{min(values):.3g}", fill=INK)
    draw.text((x0, y0 + 4), f"{first:g}", fill=INK)
    draw.text((x1 - 40, y0 + 4), f"{max(steps):g}", fill=INK)
