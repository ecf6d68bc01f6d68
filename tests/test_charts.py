"""Charts: lines end where their values are, whatever is drawn beside them."""

import numpy as np
import pytest
from PIL import Image

from experiments.charts import BOTTOM, COLORS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, draw_charts

X = np.linspace(0, 2, 5)


def test_lines_go_from_corner_to_corner(tmp_path):
    flat = Chart("flat", "s", {"level": (X, 0 * X + 3)})
    draw_charts(tmp_path / "a.png", [flat, Chart("both", "s", {"up": (X, X), "down": (X, -X)})])
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (HEIGHT, 2 * WIDTH, 3)
    right, start = 2 * WIDTH - RIGHT - 1, WIDTH + LEFT + 1
    for color, end in zip(COLORS, (TOP, HEIGHT - BOTTOM), strict=False):
        drawn = (pixels == color).all(2)
        assert drawn[end - 3 : end + 4, right - 1 : right + 2].any()
        assert drawn[(TOP + HEIGHT - BOTTOM) // 2 - 3 :, start - 1 : start + 2][
            :7
        ].any()  # both begin in the middle


def test_a_chart_needs_lines_of_one_length():
    with pytest.raises(ValueError, match="Chart.lines: expected 1 to 6 lines, got 0"):
        Chart("none", "s", {})
    with pytest.raises(ValueError, match=r"Chart.lines\['a'\]"):
        Chart("short", "s", {"a": (X, X[1:])})
