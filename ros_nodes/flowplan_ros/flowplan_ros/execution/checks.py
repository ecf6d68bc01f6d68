"""Checks before and between the steps of an execution. Every comparison is false for NaN, and
fails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowplan.trajectory import Phase
from flowplan.utils.checks import FloatArray
from flowplan_ros.execution.options import ExecutionOptions
from flowplan_ros.execution.records import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionRequest,
    Goal,
    GoalState,
    GripperStep,
)

_CLOCK_SKEW = 1.0  # seconds: a plan may be stamped this far in the future


def check_digest(stated: str, computed: str) -> None:
    """Refuse a plan that nothing certified, or that was changed since."""
    if stated != computed:
        what = "not that of the plan" if stated else "missing"
        raise ExecutionEnded(
            Code.NOT_CERTIFIED, f"plan.digest: {what}; execute what a planner returned, unchanged"
        )


def check_hand(holding: bool) -> None:
    """Refuse a plan while the hand holds something: it would begin with opening the fingers."""
    if holding:
        line = (
            "the hand holds the object of an earlier plan; take it out and call the service "
            "~/hand_is_empty"
        )
        raise ExecutionEnded(Code.HAND_FULL, line)


def check_ending(request: ExecutionRequest) -> None:
    """Refuse a plan whose trajectory does not end as it says."""
    last = Phase(int(request.trajectory.phase[-1]))
    if request.released != (last > Phase.MANIPULATE):
        says = "lets go" if request.released else "ends holding"
        line = f"plan.released: the plan {says}, and its trajectory ends with {last.label}"
        raise ExecutionEnded(Code.BAD_GOAL, line)


def check_age(stamp: float, date: float, options: ExecutionOptions) -> None:
    """Refuse a plan that is old or from the future: obstacles may have moved since."""
    # NaN is neither too early nor within the limit, so it is refused too.
    age = date - stamp
    if age < -_CLOCK_SKEW:
        line = f"the plan is stamped {-age:.1f} s in the future; synchronize the machines' clocks"
        raise ExecutionEnded(Code.STALE, line)
    if not age <= options.max_age:
        line = f"the plan is {age:.1f} s old (max_age {options.max_age:g} s); plan again"
        raise ExecutionEnded(Code.STALE, line)


def state_fault(measured: tuple[float, FloatArray] | None, max_age: float) -> str:
    """Reason not to trust a joint reading: its age in seconds and positions (J,), or None before
    every joint was heard. Empty if it is complete, fresh and finite."""
    if measured is None:
        return "no joint states"
    age, q = measured
    if age < 0:
        return f"the joint states are stamped {-age:.2f} s in the future; synchronize the clocks"
    if not age <= max_age:
        return f"no joint states for {age:.2f} s"
    if not np.isfinite(q).all():
        return "the joint states are not finite"
    return ""


def check_known(
    measured: tuple[float, FloatArray] | None, joint_names: Sequence[str], options: ExecutionOptions
) -> FloatArray:
    """Positions (J,) of a robot whose state is known; refuse to start anything otherwise."""
    fault = state_fault(measured, options.state_timeout)
    if fault or measured is None:
        names = f" of {', '.join(joint_names)}" if measured is None else ""
        raise ExecutionEnded(Code.NO_STATE, f"{fault}{names}; is the robot's driver running?")
    return measured[1]


def check_start(
    step: ArmStep, measured: tuple[float, FloatArray] | None, options: ExecutionOptions
) -> None:
    """Refuse to start a motion away from the robot's state, or without knowing that state."""
    q = check_known(measured, step.joint_names, options)
    off = np.abs(q - step.q[0])  # (J,)
    j = int(np.argmax(off))
    if not off[j] <= options.start_tolerance:
        raise ExecutionEnded(
            Code.WRONG_START,
            f"{Phase(step.phase).label}: {step.joint_names[j]} is at {q[j]:.4f}, "
            f"the motion starts at {step.q[0, j]:.4f} "
            f"(start_tolerance {options.start_tolerance:g}); plan again from where the robot is",
        )


def check_fingers(step: GripperStep, goal: Goal, options: ExecutionOptions) -> None:
    """Refuse to go on unless the fingers reached the opening, or the grasp, that the plan needs."""
    name = f"{Phase(step.phase).label}: the fingers"
    if goal.state is GoalState.REJECTED:
        line = f"the gripper's controller rejected an opening of {step.opening:.4f} m"
        raise ExecutionEnded(Code.GOAL_REJECTED, line)
    if goal.state is GoalState.CANCELED:
        raise ExecutionEnded(Code.GRIPPER_FAILED, f"{name} were stopped by somebody else")
    # A controller may abort when an object stops the fingers: their position decides.
    said = f" ({goal.message})" if goal.message else ""
    opening = f"{1e3 * goal.opening:.1f} mm apart{said}"
    if not np.isfinite(goal.opening):
        raise ExecutionEnded(Code.GRIPPER_FAILED, f"{name} report no finite opening: {opening}")
    if step.holding:
        if not goal.opening >= options.min_grasp:
            raise ExecutionEnded(Code.GRIPPER_FAILED, f"{name} closed on nothing: {opening}")
        if not goal.opening <= step.before + options.opening_tolerance:
            line = f"{name} closed from {1e3 * step.before:.1f} mm and are {opening}"
            raise ExecutionEnded(Code.GRIPPER_FAILED, line)
        if not goal.gripped:
            line = f"{name} neither arrived nor met anything: {opening}"
            raise ExecutionEnded(Code.GRIPPER_FAILED, line)
    elif not abs(goal.opening - step.opening) <= options.opening_tolerance:
        line = f"{name} should be {1e3 * step.opening:.1f} mm apart and are {opening}"
        raise ExecutionEnded(Code.GRIPPER_FAILED, line)
