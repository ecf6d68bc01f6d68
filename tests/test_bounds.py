"""Bounds in annotations are enforced."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from flowplan.utils import bounds
from flowplan.utils.bounds import Choices, Interval


@dataclass(frozen=True)
class Options:
    share: Annotated[float, Interval(0, 1)] = 0.5
    count: Annotated[int, Interval(1, 9)] | None = None
    corners: tuple[Annotated[float, Interval(-1, 1)], ...] = ()
    kind: Literal["grasp", "push"] = "grasp"
    robot: Annotated[str, Choices(("panda", "ur5e"))] = "panda"

    def __post_init__(self):
        bounds.check(self)


@pytest.mark.parametrize(
    "inside", [{"share": 0}, {"share": 1.0}, {"count": 1}, {"corners": (1, -1)}]
)
def test_what_is_within_the_bounds_passes(inside):
    Options(**inside)


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ({"share": 1.01}, "Options.share: expected 0 to 1, got 1.01"),
        ({"share": math.nan}, "Options.share: expected 0 to 1, got nan"),
        ({"share": "x"}, "Options.share: expected 0 to 1, got 'x'"),
        ({"count": 0}, "Options.count: expected 1 to 9, got 0"),
        ({"corners": (0, 2)}, "Options.corners: expected -1 to 1, got (0, 2)"),
        ({"kind": "pull"}, "Options.kind: got 'pull', expected one of grasp, push"),
        ({"robot": "r2d2"}, "Options.robot: got 'r2d2', expected one of panda, ur5e"),
    ],
)
def test_what_is_outside_is_refused_in_one_line(outside, message):
    with pytest.raises(ValueError) as error:
        Options(**outside)
    assert str(error.value) == message


def test_bounds_and_choices_can_be_read_from_the_type():
    assert bounds.intervals(Options) == {
        "share": (0, 1),
        "count": (1, 9),
        "corners": (-1, 1),
    }
    assert bounds.choices(Options) == {"kind": ("grasp", "push"), "robot": ("panda", "ur5e")}
