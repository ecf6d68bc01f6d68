"""Options of the estimation of parts and joints, apart so that they can be listed quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class ArticulationOptions:
    """Search for the rigid parts of a motion, and for their joints."""

    parts: Annotated[int, Interval(1, 20)] = 6
    """Rigid parts of one object at most."""
    noise: Annotated[float, Interval(1e-5, 0.1)] = 2e-3
    """Meters by which a rigid part leaves a rigid motion in the finest search."""
    bend: Annotated[float, Interval(0.01, 0.9)] = 0.35
    """Share of its way by which a part may leave a rigid motion; an object of which more is left
    over is deformable."""
    border: Annotated[float, Interval(0, 0.2)] = 0.03
    """Length of a border that costs as much as a band of the same length whose faces follow
    another part, this share of the object's size wide. More makes smoother borders."""
    crease: Annotated[float, Interval(0.01, 3.2)] = 0.6
    """Radians between the normals of two faces at which a border between them costs a third."""
    stillness: Annotated[float, Interval(0, 10)] = 0.1
    """Cost of moving rather than standing still, in squared tolerances."""
    smallest: Annotated[float, Interval(0, 0.5)] = 0.002
    """Share of the surface of the smallest part."""
    faces: Annotated[int, Interval(100, 100_000)] = 2000
    """Patches of faces into which larger meshes are grouped for the search."""
    frames: Annotated[int, Interval(2, 100)] = 7
    """Frames that the search looks at."""

    def __post_init__(self) -> None:
        bounds.check(self)
