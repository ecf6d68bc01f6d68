"""Training curves as a PNG, one panel per measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from generators.common.charts import Chart, draw_charts

_COLUMNS = 3
_NOT_DRAWN = {"step", "seconds"}


def draw_curves(path: Path, metrics: Sequence[Mapping[str, float]]) -> None:
    """Draw every measure over the steps.

    The axis is logarithmic if all values are positive and span a decade.

    Args:
        path: of the PNG.
        metrics: lines of a training's log, each with its "step".
    """
    names = sorted({name for line in metrics for name in line} - _NOT_DRAWN)
    charts = []
    for name in names:
        points = [
            (line["step"], line[name])
            for line in metrics
            if name in line and math.isfinite(line[name])
        ]
        if points:
            steps, values = np.array(points, float).T
            log = values.min() > 0 and values.max() > 10 * values.min()
            title = f"{name}: {values[-1]:.4g}"
            charts.append(Chart(title, "step", {name: (steps, values)}, bool(log)))
    if charts:
        draw_charts(path, charts, columns=_COLUMNS)
