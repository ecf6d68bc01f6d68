"""Rules of executing a certified plan: checks before anything moves, and reasons to stop. No ROS in
here.

A plan is cut where its fingers move: approach, close, manipulate, open, retreat. Each piece begins
and ends at rest and goes to its controller alone. The next one is sent after the result of the last
one was checked. A running controller is watched, since it may be stuck and wait forever: a motion
of d seconds may take

    factor d + slack       (1.1 d + 0.5 s)

and no longer. If an execution ends early, the running goal is canceled first, and the arm holds
still. A plan that ends holding ends with its manipulation, the fingers closed; until somebody says
that the hand is empty, no other plan is executed.

Clock, controllers and the operator are ports (`Ports`), so every rule is tested without them.

Every comparison is written so that NaN fails it: a robot whose state is not known does not move.
"""

from flowplan_ros.execution.checks import (
    check_age,
    check_digest,
    check_ending,
    check_fingers,
    check_hand,
    check_known,
    check_start,
    state_fault,
)
from flowplan_ros.execution.options import ExecutionOptions
from flowplan_ros.execution.records import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionRequest,
    ExecutionResult,
    Goal,
    GoalState,
    GripperStep,
    Ports,
)
from flowplan_ros.execution.run import execute
from flowplan_ros.execution.steps import effective_scaling, steps

__all__ = [
    "ArmStep",
    "Code",
    "ExecutionEnded",
    "ExecutionOptions",
    "ExecutionRequest",
    "ExecutionResult",
    "Goal",
    "GoalState",
    "GripperStep",
    "Ports",
    "check_age",
    "check_digest",
    "check_ending",
    "check_fingers",
    "check_hand",
    "check_known",
    "check_start",
    "effective_scaling",
    "execute",
    "state_fault",
    "steps",
]
