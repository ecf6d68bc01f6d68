"""From a motion of objects to a certified motion of the robot."""

from flowplan.planner.planner import (
    STAGES,
    Attempt,
    NoPlan,
    Plan,
    PlanOptions,
    moved_object,
    plan,
    propose_contacts,
)

__all__ = [
    "STAGES",
    "Attempt",
    "NoPlan",
    "Plan",
    "PlanOptions",
    "moved_object",
    "plan",
    "propose_contacts",
]
