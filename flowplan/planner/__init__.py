"""From a motion of objects to a certified motion of the robot."""

from flowplan.planner.contacts import moved_object, propose_contacts
from flowplan.planner.options import GeometryOptions, PlanOptions
from flowplan.planner.planner import PlanInputs, plan
from flowplan.planner.records import STAGES, Attempt, NoPlan, Plan

__all__ = [
    "STAGES",
    "Attempt",
    "GeometryOptions",
    "NoPlan",
    "Plan",
    "PlanInputs",
    "PlanOptions",
    "moved_object",
    "plan",
    "propose_contacts",
]
