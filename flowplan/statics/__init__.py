"""Statics of an object that is let go: its balance on what carries it, a joint under gravity.

Names are imported on first access (PEP 562): the options alone load quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowplan.statics.options import RestOptions

if TYPE_CHECKING:
    from flowplan.statics.rest import Rest, rest_at_end
    from flowplan.statics.rigid import Balance, balance
    from flowplan.statics.solid import Solid
    from flowplan.statics.supports import Supports

_MODULES = {
    "Balance": "flowplan.statics.rigid",
    "Rest": "flowplan.statics.rest",
    "Solid": "flowplan.statics.solid",
    "Supports": "flowplan.statics.supports",
    "balance": "flowplan.statics.rigid",
    "rest_at_end": "flowplan.statics.rest",
}

__all__ = ["Balance", "Rest", "RestOptions", "Solid", "Supports", "balance", "rest_at_end"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value
