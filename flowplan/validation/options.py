"""Options of the validator. Nothing heavy is imported here, so they can be listed quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class ValidationOptions:
    """Requirements for a trajectory to be certified."""

    margin: Annotated[float, Interval(0, 0.2)] = 0.0
    """Meters that the robot must keep from itself and from everything it may not touch."""
    held_depth: Annotated[float, Interval(0, 0.1)] = 0.005
    """Largest depth in meters that the carried object may overlap what it touches at the start or
    the end: the error of a scan."""
    thickness_share: Annotated[float, Interval(0, 0.5)] = 0.25
    """Share of the thickness of a touched body above which no overlap is allowed."""
    contact_tolerance: Annotated[float, Interval(0, 0.1)] = 1e-3
    """Meters by which a contact may be deeper than at the start or the end, near there."""
    contact_distance: Annotated[float, Interval(0, 0.1)] = 5e-3
    """Meters below which the carried object touches something at the start or the end."""
    contact_travel: Annotated[float, Interval(0, 1)] = 0.03
    """Meters of motion of the carried object up to which it is near its start or its end."""
    grazing: Annotated[float, Interval(0, 0.01)] = 5e-4
    """Depth in meters that the carried object may overlap anything anywhere: round-off."""
    resolution: Annotated[float, Interval(1e-5, 0.1)] = 5e-4
    """Meters of relative motion below which two clear instants settle the interval between them."""
    spacing: Annotated[float, Interval(1e-3, 1)] = 0.1
    """Meters that no body moves farther than between instants at which clearance is measured."""
    horizon: Annotated[float, Interval(1e-3, 10)] = 0.3
    """Meters at which the clearance is truncated."""
    limit_tolerance: Annotated[float, Interval(0, 1e6)] = 1e-4
    """Share by which a joint limit may be exceeded: round-off, not slack."""
    at_rest: bool = True
    """The arm is at rest before the first and after the last sample: a jump is an acceleration."""

    def __post_init__(self) -> None:
        bounds.check(self)
