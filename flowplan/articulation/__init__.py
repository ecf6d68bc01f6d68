"""Rigid parts and joints of objects, estimated from any motion of them.

Names are imported on first access (PEP 562): the options alone load quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowplan.articulation.options import ArticulationOptions

if TYPE_CHECKING:
    from flowplan.articulation.cutting import Cut, cut
    from flowplan.articulation.estimation import Estimate, estimate, estimate_object
    from flowplan.articulation.grouping import RigidBodies, rigid_bodies
    from flowplan.articulation.projection import Articulated, ObjectProjection, articulate
    from flowplan.articulation.urdf_export import export_urdf

_MODULES = {
    "Articulated": "flowplan.articulation.projection",
    "Cut": "flowplan.articulation.cutting",
    "Estimate": "flowplan.articulation.estimation",
    "ObjectProjection": "flowplan.articulation.projection",
    "RigidBodies": "flowplan.articulation.grouping",
    "articulate": "flowplan.articulation.projection",
    "cut": "flowplan.articulation.cutting",
    "estimate": "flowplan.articulation.estimation",
    "estimate_object": "flowplan.articulation.estimation",
    "export_urdf": "flowplan.articulation.urdf_export",
    "rigid_bodies": "flowplan.articulation.grouping",
}

__all__ = [
    "Articulated",
    "ArticulationOptions",
    "Cut",
    "Estimate",
    "ObjectProjection",
    "RigidBodies",
    "articulate",
    "cut",
    "estimate",
    "estimate_object",
    "export_urdf",
    "rigid_bodies",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
