"""Results of the planner: a certified plan, or the reasons for none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flowplan.attachment import Attachment
from flowplan.grasp import ContactCandidates
from flowplan.motion_quality.report import MotionReport
from flowplan.trajectory import Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.validation.validator import Certificate

STAGES = ("motion", "rank", "attach", "track", "approach", "retreat", "certify", "planned")
"""Stages of an attempt, in order; "planned" is success."""


@dataclass(frozen=True)
class Attempt:
    """One contact that was tried, and the stage that it reached.

    Attributes:
        contact: index among the ranked contacts, 0 the best; for stage "rank", index among the
            proposed ones, and 0 for stage "motion".
        kind: "grasp", "push" or "pinch"; "any" for stage "motion".
        stage: one of STAGES. "planned" is success, any other stage is where the attempt failed.
        reason: one line with the measurement that decided.
        remedy: one line with things to try.
        slip: meters, largest RMS deviation of the held patch from rigid motion; -1 if not measured.
        reachable: share of the motion's poses within reach; -1 if not measured.
        clearance: meters, smallest over everything that was checked; -1 if not measured.
        position_error: meters, largest over the motion; -1 if not measured.
        time: seconds of flow time of the failure; -1 if there is none or it is not known.
    """

    contact: int
    kind: str
    stage: str
    reason: str
    remedy: str = ""
    slip: float = -1.0
    reachable: float = -1.0
    clearance: float = -1.0
    position_error: float = -1.0
    time: float = -1.0

    def __post_init__(self) -> None:
        checks.choice("Attempt.stage", self.stage, STAGES)


@dataclass(frozen=True)
class Ending:
    """End of a plan: the object is let go or held, and the reason.

    Attributes:
        released: True if the hand lets go and retreats. Otherwise the plan ends with the
            manipulation, the hand holding the object (in contact with it, after a push), and its
            trajectory has no release and no retreat.
        reason: one line with the measurement that decided, and the option if that decided; empty in
            plans of files that do not say.
        rests: True if the object rests where it is let go (flowplan.statics); False if not, or if
            that was not examined.
        drop: meters that it falls first; infinite if nothing is below it.
        margin: meters by which its center of mass is inside the polygon of contact, seen from
            above; negative outside, minus infinity without contact.
        load: torque of gravity in N m about the joint of its moving part (N along a slide).
    """

    released: bool = True
    reason: str = ""
    rests: bool = False
    drop: float = 0.0
    margin: float = 0.0
    load: float = 0.0


@dataclass(frozen=True, eq=False)
class Mounting:
    """Robot that a plan is for, and its place.

    Attributes:
        name: the robot's name; empty in plans of files that do not say.
        file: path of its robot file; empty if there was none.
        X_world_base: (4, 4) pose of its base.
    """

    name: str = ""
    file: str = ""
    X_world_base: FloatArray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        X = checks.poses("Mounting.X_world_base", self.X_world_base)
        object.__setattr__(self, "X_world_base", X)


@dataclass(frozen=True, eq=False)
class Plan:
    """A certified trajectory with everything that led to it.

    Attributes:
        contact: the chosen contact (one).
        candidates: all contacts, as ranked.
        attachment: tool motion that the flow asks for.
        trajectory: approach, grip, manipulate, and release and retreat unless it ends holding.
        certificate: result of the independent validator.
        attempts: every contact tried, the successful one last.
        assumptions: guesses that the plan rests on, one line each, with the way to decide them.
        ending: whether the object is released, and why.
        flow_time: (S,) seconds on the flow's clock at each sample of the trajectory, which runs
            while the robot manipulates; empty in plans of files that do not say.
        mounting: the robot and the pose of its base.
        motion: report on the motion; None in files of earlier versions.
    """

    contact: ContactCandidates
    candidates: ContactCandidates
    attachment: Attachment
    trajectory: Trajectory
    certificate: Certificate
    attempts: tuple[Attempt, ...]
    assumptions: tuple[str, ...] = ()
    ending: Ending = Ending()
    flow_time: FloatArray = field(default_factory=lambda: np.zeros(0))
    mounting: Mounting = field(default_factory=Mounting)
    motion: MotionReport | None = None


@dataclass(frozen=True)
class NoPlan:
    """No contact led to a certified trajectory.

    Attributes:
        attempts: every contact tried, best ranked first, with the reason of its failure.
        assumptions: guesses that the attempts rest on, one line each, with the way to decide them.
        motion: report on the motion; None in files of earlier versions.
    """

    attempts: tuple[Attempt, ...]
    assumptions: tuple[str, ...] = ()
    motion: MotionReport | None = None

    @property
    def reason(self) -> str:
        """One line on the attempt that came furthest."""
        if not self.attempts:
            return (
                "no contact was proposed: "
                "the moving part offers no place that the gripper can grasp or push"
            )
        best = max(self.attempts, key=lambda a: STAGES.index(a.stage))
        return f"{best.stage}: {best.reason}; try: {best.remedy}"
