"""Record of one execution, the same for simulator and robot."""

from __future__ import annotations

from dataclasses import dataclass

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

OUTCOMES = (
    "success",
    "no_plan",
    "collision",
    "missed_grasp",
    "dropped",
    "overshoot",
    "leak",
    "wrong_end_state",
)
"""Ways in which an execution may end; a leak moves what should stand still."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One execution.

    Attributes:
        times: (S,) seconds, times[0] = 0.
        joint_names: J arm joints.
        q: (S, J) measured positions, rad or m.
        points: (S, P, 3) tracked object points, world frame, meters.
        outcome: One of OUTCOMES; success is judged by the physical end state alone.
        measures: Named measurements of the end state and of the motion (SI units).
    """

    times: FloatArray
    joint_names: tuple[str, ...]
    q: FloatArray
    points: FloatArray
    outcome: str
    measures: dict[str, float]

    def __post_init__(self) -> None:
        times = checks.times("Rollout.times", self.times)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "joint_names", tuple(self.joint_names))
        object.__setattr__(
            self, "q", checks.array("Rollout.q", self.q, (len(times), len(self.joint_names)))
        )
        object.__setattr__(
            self, "points", checks.array("Rollout.points", self.points, (len(times), "P", 3))
        )
        checks.choice("Rollout.outcome", self.outcome, OUTCOMES)
