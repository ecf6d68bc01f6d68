"""Generators by name, each imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Literal

from flowplan.laws import Law
from flowplan.motion import Generator
from flowplan.utils import checks

Factory = Callable[[tuple[Law, ...]], Generator]
"""Makes a generator for objects whose laws of motion are these; one that needs no laws ignores them."""

_WHERE = {
    "kinematic": ("generators.kinematic", "kinematic"),
    "neurok": ("generators.neurok.generate", "neurok"),
    "chord": ("generators.chord.generate", "chord"),
}
_PROMPTED = frozenset({"chord"})

NAMES = tuple(_WHERE)


def takes(name: str) -> Literal["action", "prompt"]:
    """Which instruction the generator called `name` follows."""
    checks.choice("generator", name, NAMES)
    return "prompt" if name in _PROMPTED else "action"


def factory(name: str) -> Factory:
    """The factory called `name`: a top-level function, so that it can go to other processes."""
    checks.choice("generator", name, NAMES)
    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
