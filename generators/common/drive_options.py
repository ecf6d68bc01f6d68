"""Options of mesh driving, apart from the code so that reading them imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class DriveOptions:
    """Driving of vertices by points (`generators.common.mesh_driving`).

    Lengths are those of the normalized frame, in which an object spans 2.
    """

    neighbors: Annotated[int, Interval(1, 256)] = 16
    """K_1: driving points that vote on the motion of a vertex."""
    expansion: Annotated[int, Interval(1, 64)] = 4
    """lambda_drive: factor on `neighbors` for vertices whose first vote is unclear."""
    inlier_distance: Annotated[float, Interval(1e-6, 2)] = 0.03
    """Largest distance, over all frames, between the places to which two agreeing motions take the
    vertex."""
    inlier_ratio: Annotated[float, Interval(1e-3, 1)] = 0.75
    """Least share of agreeing neighbors for the first vote to stand."""
    detour: Annotated[float, Interval(1e-3, 1000)] = 4.0
    """Geodesic distance beyond which a driving point counts as not connected, in straight-line
    distances of the K_1-th nearest one."""
    least_connected: Annotated[int, Interval(1, 256)] = 3
    """Least number of connected driving points for the second vote; with fewer, one of them may be
    wrong."""

    def __post_init__(self) -> None:
        bounds.check(self)
