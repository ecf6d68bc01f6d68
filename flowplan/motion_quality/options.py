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
    max_residual_share: Annotated[float, Interval(0, 1)] = 0.25
    """Share of its way by which it may leave it, if that is more than 3 mm."""
    max_tear: Annotated[float, Interval(0, 1)] = 0.01
    """Meters by which the parts of an object may come apart, and edges of a deformable one may
    grow."""
    max_strain: Annotated[float, Interval(0, 10)] = 0.3
    """Share by which a deformable object may stretch."""
    max_gap: Annotated[float, Interval(0, 1)] = 0.02
    """Meters between an object that moves by itself and whatever could carry it, at the end."""
    penetration: bool = True
    """Refuse a motion that carries an object into the support, an obstacle or another object,
    beyond the allowances of contact (validation.held_depth and others)."""

    def __post_init__(self) -> None:
        bounds.check(self)
