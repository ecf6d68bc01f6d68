"""Parameters of a node, declared from the frozen dataclass of its options.

A field becomes a parameter of the same name, a field of nested options one with a dot
(`plan.dwell`). Its docstring is the description, a Literal its choices, and `Annotated[float,
Interval(0, 1)]` its range. ROS has no parameter without a value: None is NaN here. A value that the
dataclass refuses is refused as a parameter with the same message.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

Options = TypeVar("Options")


class Spec(NamedTuple):
    """Declaration of a parameter: name, default, description, range and choices."""

    name: str
    default: Any
    description: str
    range: Interval | None
    choices: tuple[str, ...]

    def descriptor(self) -> ParameterDescriptor:
        """Descriptor for `declare_parameter`."""
        out = ParameterDescriptor(name=self.name, description=self.description)
        if self.choices:
            out.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.range and isinstance(self.default, int):
            least, most = (int(bound) for bound in self.range)
            out.integer_range = [IntegerRange(from_value=least, to_value=most, step=0)]
        elif self.range:
            lower, upper = (float(bound) for bound in self.range)
            out.floating_point_range = [
                FloatingPointRange(from_value=lower, to_value=upper, step=0.0)
            ]
        return out


def specs(options: Any, prefix: str = "") -> tuple[Spec, ...]:
    """Parameters that `options` declares, with its values as defaults.

    Args:
        options: dataclass of booleans, numbers, strings, tuples of them, and nested dataclasses.
        prefix: prefix of every name.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    # Ranges, choices and descriptions come from the dataclass's annotations and docstrings.
    intervals, choices = bounds.intervals(type(options)), bounds.choices(type(options))
    words = field_docs(type(options))
    out: list[Spec] = []
    for field in dataclasses.fields(options):
        # Nested options get a dotted prefix.
        name, value, hint = prefix + field.name, getattr(options, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            out += specs(value, name + ".")
            continue
        valid = tuple(v for v in choices.get(field.name, ()) if v is not None)
        limits = intervals.get(field.name)
        out.append(Spec(name, _to_parameter(value, hint), words.get(field.name, ""), limits, valid))
    return tuple(out)


class Parameters(Generic[Options]):
    """Declared parameters of a node, and its options with their current values.

    Args:
        node: node that declares them.
        options: defaults.
        leave_out: names of options that are not declared because something else decides them.
        may_change: reason why a parameter of this name cannot be set now, or an empty string.
    """

    def __init__(
        self,
        node: Node,
        options: Options,
        leave_out: Collection[str],
        may_change: Callable[[str], str],
    ) -> None:
        self._may_change = may_change
        self._defaults = options
        declared = [spec for spec in specs(options) if spec.name not in leave_out]
        self._names = [spec.name for spec in declared]
        for spec in declared:
            default = spec.default
            # An empty list has no type of its own.
            kind = (
                Parameter.Type.STRING_ARRAY
                if default == []
                else Parameter.Type.from_parameter_value(default)
            )
            node.declare_parameter(
                spec.name, Parameter(spec.name, kind, default).value, spec.descriptor()
            )
        self.options: Options = self._build(
            {name: node.get_parameter(name).value for name in self._names}
        )
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._take)

    def _build(self, values: Mapping[str, Any]) -> Options:
        return replaced(self._defaults, values)

    def _values(self, changed: Sequence[Parameter]) -> dict[str, Any]:
        now = {spec.name: spec.default for spec in specs(self.options)}
        return now | {p.name: p.value for p in changed if p.name in now}

    def _check(self, changed: Sequence[Parameter]) -> SetParametersResult:
        for parameter in changed:
            why = self._may_change(parameter.name) if parameter.name in self._names else ""
            if why:
                return SetParametersResult(successful=False, reason=f"{parameter.name}: {why}")
        try:
            self._build(self._values(changed))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, changed: Sequence[Parameter]) -> None:
        self.options = self._build(self._values(changed))


def replaced(options: Options, values: Mapping[str, Any], prefix: str = "") -> Options:
    """Copy of `options` with the values of parameters.

    Raises:
        ValueError: raised by the dataclass, or for a string outside the choices.
    """
    hints = typing.get_type_hints(type(options), include_extras=True)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        name, now = prefix + field.name, getattr(options, field.name)
        if dataclasses.is_dataclass(now):
            given[field.name] = replaced(now, values, name + ".")
        elif name in values:
            given[field.name] = _from_parameter(name, values[name], hints[field.name])
    return dataclasses.replace(options, **given)  # type: ignore[type-var]


def field_docs(options: type) -> dict[str, str]:
    """Docstring below each field of a dataclass, inherited ones too, on one line each."""
    out: dict[str, str] = {}
    # Base classes first, so that a subclass's docstring wins.
    for kind in reversed([kind for kind in options.__mro__ if dataclasses.is_dataclass(kind)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, below in zip(body.body, body.body[1:], strict=False):
            if not (
                isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            ):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                out[statement.target.id] = " ".join(str(below.value.value).split())
    return out


def _bare(hint: Any) -> Any:
    """A type without its bounds."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _optional(hint: Any) -> bool:
    return type(None) in typing.get_args(_bare(hint))


def _to_parameter(value: Any, hint: Any) -> Any:
    if value is None and _optional(hint):
        return math.nan
    return list(value) if isinstance(value, tuple) else value


def _from_parameter(name: str, value: Any, hint: Any) -> Any:
    hint = _bare(hint)
    if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
        raise ValueError(
            f"{name}: got {value!r}, expected one of {', '.join(typing.get_args(hint))}"
        )
    if _optional(hint) and isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str | bool | int | float):
        return value
    # ROS lists have no fixed length, tuples of a fixed number of values do.
    numbers = typing.get_args(hint)
    if Ellipsis not in numbers and len(value) != len(numbers):
        raise ValueError(f"{name}: expected {len(numbers)} values, got {len(value)}")
    return tuple(item.item() if isinstance(item, np.generic) else item for item in value)
