"""Options of the motion's report. Nothing heavy is imported here, so they can be listed quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class MotionOptions:
    """Requirements for a motion to be planned for."""

    check: bool = True
    """Refuse a motion beyond the limits."""
    project: Literal["off", "auto"] = "auto"
    """Before planning, replace the motion of an object that is not deformable by that of its rigid
    parts, if it bends."""
    parts: Annotated[int, Interval(1, 20)] = 4
    """Rigid parts of one object at most."""
    max_residual: Annotated[float, Interval(0, 1)] = 0.02
    """Meters by which an object that is not deformable may leave the motion of its rigid parts."""
    max_stretch: Annotated[float, Interval(0, 10)] = 0.6
    """Stretch of an edge as a share of the object's largest side, above which a part has come
    off."""
    max_stretch_convex: Annotated[float, Interval(0, 1)] = 0.01
    """Meters that an edge of a convex body may stretch: it has no joint."""
    max_gap: Annotated[float, Interval(0, 1)] = 0.02
    """Meters between an object that moves by itself and whatever could carry it, at the end."""

    def __post_init__(self) -> None:
        bounds.check(self)
