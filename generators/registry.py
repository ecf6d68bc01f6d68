"""Generators by name.

Adding one takes a line in `MODULES` and a module (or a package's `__init__`) that defines

    Options                                  frozen dataclass with a default for every field
    INSTRUCTION: "action" or "prompt"        which instruction it follows
    make(laws, options=Options())            the generator; `laws` may be ignored

A registered module imports nothing heavy (torch, weights) before `make` is called, so that the
command line can list options quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flowplan.utils import checks

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.motion import Generator

Factory: TypeAlias = "Callable[[tuple[Law, ...]], Generator]"
"""Makes a generator for objects with these laws of motion; a generator may ignore the laws."""

MODULES = {
    "kinematic": "generators.kinematic",
    "neurok": "generators.neurok",
    "chord": "generators.chord",
}

NAMES = tuple(MODULES)


def options_type(name: str) -> type:
    """The options dataclass of a generator.

    Raises:
        ValueError: for an unknown name.
    """
    return _module(name).Options


def takes(name: str) -> Literal["action", "prompt"]:
    """The kind of instruction that a generator follows.

    Raises:
        ValueError: for an unknown name.
    """
    return _module(name).INSTRUCTION


def factory(name: str, options: object | None = None) -> Factory:
    """The factory of a generator. It can be pickled, to go to other processes.

    Args:
        name: one of `NAMES`.
        options: an instance of `options_type(name)`. Defaults to its defaults.

    Raises:
        ValueError: for an unknown name.
        TypeError: for options of another generator.
    """
    expected = options_type(name)
    if options is not None and not isinstance(options, expected):
        raise TypeError(
            f"options: expected {expected.__name__} of the generator {name}, "
            f"got {type(options).__name__}"
        )
    return partial(_make, name, options)


def _make(name: str, options: object | None, laws: tuple[Law, ...]) -> Generator:
    """The generator called `name`, with default options if they are omitted."""
    module = _module(name)
    return module.make(laws, module.Options() if options is None else options)


def _module(name: str) -> Any:
    checks.choice("generator", name, NAMES)
    return import_module(MODULES[name])
