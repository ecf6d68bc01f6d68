"""From a motion of objects to a certified motion of the robot.

Names are imported on first access (PEP 562): the options alone, as for a help text, load quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowplan.planner.options import GeometryOptions, PlanOptions, SizeLimits

if TYPE_CHECKING:
    from flowplan.planner.contacts import moved_object, propose_contacts
    from flowplan.planner.planner import PlanInputs, plan
    from flowplan.planner.records import STAGES, Attempt, Ending, NoPlan, Plan

_MODULES = {
    "STAGES": "flowplan.planner.records",
    "Attempt": "flowplan.planner.records",
    "Ending": "flowplan.planner.records",
    "Mounting": "flowplan.planner.records",
    "NoPlan": "flowplan.planner.records",
    "Plan": "flowplan.planner.records",
    "PlanInputs": "flowplan.planner.planner",
    "moved_object": "flowplan.planner.contacts",
    "plan": "flowplan.planner.planner",
    "propose_contacts": "flowplan.planner.contacts",
}

__all__ = [
    "STAGES",
    "Attempt",
    "Ending",
    "GeometryOptions",
    "Mounting",
    "NoPlan",
    "Plan",
    "PlanInputs",
    "PlanOptions",
    "SizeLimits",
    "moved_object",
    "plan",
    "propose_contacts",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
