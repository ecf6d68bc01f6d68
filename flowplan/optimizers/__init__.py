"""Trajectory optimizers: the protocol, its records, and the registry of names."""

from flowplan.optimizers.protocol import Optimizer, TrackOptions, TrackProblem, TrackSolution
from flowplan.optimizers.registry import DEFAULT, NAMES, get

__all__ = [
    "DEFAULT",
    "NAMES",
    "Optimizer",
    "TrackOptions",
    "TrackProblem",
    "TrackSolution",
    "get",
]
