"""Charts: lines end where their values are, whatever is drawn beside them."""

import numpy as np
import pytest
from PIL import Image

from generators.common.charts import COLORS, DPI, PANEL, Chart, draw_charts, figure

X = np.linspace(0, 2, 5)


def test_lines_go_from_corner_to_corner(tmp_path):
    flat = Chart("flat", "s", {"level": (X, 0 * X + 3)})
    charts = [flat, Chart("both", "s", {"up": (X, X), "down": (X, -X)})]
    draw_charts(tmp_path / "a.png", charts)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height = round(PANEL[1] * DPI)
    assert pixels.shape == (height, round(2 * PANEL[0] * DPI), 3)

    drawn = figure(charts)
    drawn.draw_without_rendering()
    axes = drawn.axes[1]
    for color, slope in zip(COLORS, (1, -1), strict=False):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        close = np.abs(pixels - wanted).max(2) < 60
        for x in (0.05, 1.0, 1.95):
            column, row = axes.transData.transform((x, slope * x))
            near = close[
                round(height - row) - 4 : round(height - row) + 5,
                round(column) - 2 : round(column) + 3,
            ]
            assert near.any()


def test_panels_stand_in_rows_and_a_single_point_is_seen(tmp_path):
    point = Chart("one", "s", {"a": (X[:1], X[:1] + 1)})
    draw_charts(tmp_path / "a.png", [point, Chart("b", "s", {"b": (X, X)}), point], columns=2)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (round(2 * PANEL[0] * DPI), round(2 * PANEL[1] * DPI))
    assert figure([point]).axes[0].lines[0].get_marker() == "o"


def test_an_axis_is_logarithmic_on_request():
    chart = Chart("loss", "step", {"loss": (X, 10.0**-X)}, log=True)
    assert figure([chart]).axes[0].get_yscale() == "log"


def test_a_chart_needs_lines_of_one_length():
    with pytest.raises(ValueError, match="Chart.lines: expected 1 to 6 lines, got 0"):
        Chart("none", "s", {})
    with pytest.raises(ValueError, match=r"Chart.lines\['a'\]"):
        Chart("short", "s", {"a": (X, X[1:])})
