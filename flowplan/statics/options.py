"""Options of the statics. Nothing heavy is imported here, so they can be listed quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class RestOptions:
    """Requirements for an object to rest where it is let go."""

    drop: Annotated[float, Interval(0, 1)] = 0.01
    """Meters that it may fall onto what carries it."""
    tilt: Annotated[float, Interval(1e-3, 0.5)] = 0.14
    """Radians: tilted by as much in any direction, its center of mass must have risen."""
    friction: Annotated[float, Interval(0, 10)] = 0.3
    """Coefficient of friction that keeps it from sliding down a slope."""
    joint_friction: Annotated[float, Interval(0, 1)] = 0.05
    """Friction of a joint, as a share of the weight of the part that it carries."""
    joint_travel: Annotated[float, Interval(0, 0.2)] = 0.02
    """Meters that gravity may move the farthest point of a part before it meets a stop."""
    cloth_drop: Annotated[float, Interval(0, 1)] = 0.03
    """Meters that the points of a cloth may fall."""
    density: Annotated[float, Interval(1, 30_000)] = 1000.0
    """Density of everything in kg/m^3, for weights and torques in reports."""

    def __post_init__(self) -> None:
        bounds.check(self)
