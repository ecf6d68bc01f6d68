"""Timed joint trajectories, with their tracking errors and clearance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


class Phase(IntEnum):
    """Phases of a manipulation, in order."""

    APPROACH = 0
    GRIP = 1
    MANIPULATE = 2
    RELEASE = 3
    RETREAT = 4

    @property
    def label(self) -> str:
        """Lower-case name for reports."""
        return self.name.lower()


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Joint motion over time, dense enough for execution by linear interpolation.

    Attributes:
        joint_names: J arm joints, in the robot's order.
        times: (S,) seconds, times[0] = 0.
        q: (S, J) positions, rad or m.
        qd: (S, J) velocities.
        qdd: (S, J) accelerations.
        grip: (S,) commanded gripper opening, meters.
        phase: (S,) Phase of each sample, as integers.
        position_error: (S,) distance of the tool from its pose along the flow, meters (0 outside
            the manipulation).
        rotation_error: (S,) angle from it in radians, about axes that the flow observes.
        clearance: (S,) distance of the robot from everything it must not touch, meters (negative:
            penetration).
    """

    joint_names: tuple[str, ...]
    times: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray
    grip: FloatArray
    phase: NDArray[np.int64]
    position_error: FloatArray
    rotation_error: FloatArray
    clearance: FloatArray

    def __post_init__(self) -> None:
        names = tuple(self.joint_names)
        times = checks.times("Trajectory.times", self.times)
        S, J = len(times), len(names)
        object.__setattr__(self, "joint_names", names)
        object.__setattr__(self, "times", times)
        for name in ("q", "qd", "qdd"):
            object.__setattr__(
                self, name, checks.array(f"Trajectory.{name}", getattr(self, name), (S, J))
            )
        for name in ("grip", "position_error", "rotation_error", "clearance"):
            object.__setattr__(
                self, name, checks.array(f"Trajectory.{name}", getattr(self, name), (S,))
            )
        phase = checks.array("Trajectory.phase", self.phase, (S,), dtype=np.int64)
        if phase.min() < 0 or phase.max() > max(Phase) or np.any(np.diff(phase) < 0):
            raise ValueError(
                "Trajectory.phase: expected non-decreasing values in 0..4 (approach .. retreat)"
            )
        object.__setattr__(self, "phase", phase)

    def at(self, t: FloatArray | float) -> FloatArray:
        """Positions (..., J) at times t, linear between samples, held outside."""
        t = np.asarray(t, float)
        joints = [np.interp(t, self.times, q) for q in self.q.T]
        return np.stack(joints, axis=-1)
