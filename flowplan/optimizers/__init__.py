"""Trajectory optimizers: the protocol and its records."""

from flowplan.optimizers.protocol import Optimizer, TrackOptions, TrackProblem, TrackSolution

__all__ = ["Optimizer", "TrackOptions", "TrackProblem", "TrackSolution"]
