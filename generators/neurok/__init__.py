"""NeuROK: from a static mesh and an action to motion, through a learned space of the object's kinematic states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.motion import Generator

INSTRUCTION: Literal["action", "prompt"] = "action"


def make(laws: Sequence[Law], options: Any) -> Generator:
    """The generator; `laws` are ignored."""
    from generators.neurok.generate import neurok

    return neurok(laws, options)


def __getattr__(name: str) -> Any:
    if name == "Options":
        from generators.neurok.generate import NeurokOptions

        return NeurokOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
