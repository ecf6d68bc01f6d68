"""Quality of an object motion before anything is planned for it: bending, tears, overlaps.

Names are imported on first access (PEP 562): the limits alone load quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowplan.motion_quality.options import MotionOptions

if TYPE_CHECKING:
    from flowplan.motion_quality.grouping import RigidParts, rigid_parts
    from flowplan.motion_quality.projection import Projection, project
    from flowplan.motion_quality.report import MotionReport, ObjectQuality, motion_report, prepare

_MODULES = {
    "MotionReport": "flowplan.motion_quality.report",
    "ObjectQuality": "flowplan.motion_quality.report",
    "Projection": "flowplan.motion_quality.projection",
    "RigidParts": "flowplan.motion_quality.grouping",
    "motion_report": "flowplan.motion_quality.report",
    "prepare": "flowplan.motion_quality.report",
    "project": "flowplan.motion_quality.projection",
    "rigid_parts": "flowplan.motion_quality.grouping",
}

__all__ = [
    "MotionOptions",
    "MotionReport",
    "ObjectQuality",
    "Projection",
    "RigidParts",
    "motion_report",
    "prepare",
    "project",
    "rigid_parts",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
