"""Bounds of numeric options, stated once in the type.

Checks, the command line and ROS parameters read them from there:

    @dataclass(frozen=True)
    class GripOptions:
        dwell: Annotated[float, Interval(0, 10)] = 0.8

        def __post_init__(self) -> None:
            bounds.check(self)

An option may be None if its annotation allows it. NaN is outside every interval.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, NamedTuple


class Interval(NamedTuple):
    """Smallest and largest allowed value of a number, both included."""

    lower: float
    upper: float

    def __contains__(self, value: Any) -> bool:
        return self.lower <= value <= self.upper  # false for NaN

    def __str__(self) -> str:
        if math.isinf(self.upper):
            return f"at least {self.lower:g}"
        return f"{self.lower:g} to {self.upper:g}"


class Choices(NamedTuple):
    """Allowed values of an option, such as the names in a registry."""

    values: tuple[str, ...]


def check(options: Any) -> None:
    """Refuse values of a dataclass outside the intervals and choices of its annotations.

    Raises:
        ValueError: One line that names class and field, the value and what was expected.
    """
    owner = type(options).__name__
    kind: Any = type(options)
    for name, interval in intervals(kind).items():
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not _inside(number, interval):
                raise ValueError(f"{owner}.{name}: expected {interval}, got {value!r}")
    for name, valid in choices(kind).items():
        if (got := getattr(options, name)) not in valid:
            expected = ", ".join(map(str, valid))
            raise ValueError(f"{owner}.{name}: got {got!r}, expected one of {expected}")


def intervals(kind: Any) -> dict[str, Interval]:
    """Intervals of the fields of a dataclass that have one, by name."""
    return _intervals(kind)


def choices(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Allowed values of the fields of a dataclass that are a Literal or have Choices, by name."""
    return _choices(kind)


@functools.cache
def _intervals(kind: Any) -> dict[str, Interval]:
    return _metadata(kind, Interval)


@functools.cache
def _choices(kind: Any) -> dict[str, tuple[Any, ...]]:
    hints = typing.get_type_hints(kind)
    found = {field.name: _literals(hints[field.name]) for field in dataclasses.fields(kind)}
    found |= {name: note.values for name, note in _metadata(kind, Choices).items()}
    return {name: values for name, values in found.items() if values}


def _inside(value: Any, interval: Interval) -> bool:
    try:
        return bool(value in interval)
    except TypeError:  # not a number
        return False


def _metadata(kind: Any, wanted: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        for annotation in _alternatives(hints[field.name]):
            for note in getattr(annotation, "__metadata__", ()):
                if isinstance(note, wanted):
                    found[field.name] = note
    return found


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Members of a union, elements of a tuple, or the hint alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return typing.get_args(hint)
    return (hint,)


def _literals(hint: Any) -> tuple[Any, ...]:
    members = _alternatives(hint) if typing.get_origin(hint) is not tuple else ()
    values = [v for m in members if typing.get_origin(m) is Literal for v in typing.get_args(m)]
    return tuple(values) + ((None,) if values and type(None) in members else ())
