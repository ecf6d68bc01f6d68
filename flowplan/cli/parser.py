"""From the words of a command line to a command's record, by tyro.

Two things are added to what tyro does. A field `Annotated[Any, Options("module:Record")]` stands
for the options record of another folder, imported only here, when this command is called. And the
help of a number shows its range, which stands in its type (flowplan.utils.bounds).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_type_hints

import tyro
from tyro import _errors as parse_errors  # the only way to word parse errors ourselves
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from flowplan.utils import bounds

T = TypeVar("T")

_OPTION = re.compile(r"--[a-z][\w.-]*")
_NOT_A_NUMBER = re.compile(r"(could not convert string to float|invalid literal for int.*?):")
_NO_TYPE = re.compile(r"no type matching .* could be instantiated from \[(.*?)\]")


@dataclasses.dataclass(frozen=True)
class Options:
    """Marks a field as the options record of another folder.

    Attributes:
        where: `module:record`, imported when the command is called.
        hide: fields that the command fills in by itself.
        prefix: of the options' names, none by default.
    """

    where: str
    hide: tuple[str, ...] = ()
    prefix: str = ""

    def load(self) -> type[Any]:
        """The record."""
        module, _, name = self.where.partition(":")
        kind: type[Any] = getattr(import_module(module), name)
        return kind


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Marks a field as a name out of a registry; the help lists the names.

    Attributes:
        names: the registry's names, asked for when the help is printed.
        more: what else may be given.
    """

    names: Callable[[], Iterable[str]]
    more: str = ""

    def __str__(self) -> str:
        return ", ".join(self.names()) + (f", or {self.more}" if self.more else "")


def parse(kind: type[T], prog: str, words: Sequence[str]) -> T:
    """Make a command's record of a command line.

    Args:
        kind: a dataclass.
        prog: the words that led to the command, for help and errors.
        words: the rest of the command line.

    Raises:
        ValueError: one line that says what is not understood, or which value is not valid.
        SystemExit: after `--help`.
    """

    if "NO_COLOR" in os.environ and {"-h", "--help"} & set(words):
        sys.stdout.write(help_text(kind, prog))
        raise SystemExit(0)
    rules = _Rules()

    def refuse(event: parse_errors.ParseErrorEvent) -> NoReturn:
        raise ValueError(_typo(words, option_names(kind, prog)) or _explain(event))

    try:
        with parse_errors.on_parse_error(refuse):
            return _tyro(kind, prog, words, rules)
    except ValueError as error:  # of `refuse`, or of a record that checks its values
        raise ValueError(f"{prog}: {rules.spelled(str(error))}") from None


def option_names(kind: type[Any], prog: str) -> list[str]:
    """The options of a command, as its help shows them."""
    return sorted(set(_OPTION.findall(help_text(kind, prog))))


def help_text(kind: type[Any], prog: str) -> str:
    """The help of a command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _tyro(kind, prog, ["--help"], _Rules())
    return re.sub(r"\x1b\[[\d;]*m", "", text.getvalue())


def _tyro(kind: type[T], prog: str, words: Sequence[str], rules: _Rules) -> T:
    return tyro.cli(
        kind,
        prog=prog,
        args=list(words),
        registry=rules,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
    )


class _Rules(ConstructorRegistry):
    """Conversion of records to options."""

    def __init__(self) -> None:
        super().__init__()
        self._inside = False
        self._hidden: dict[type[Any], tuple[str, ...]] = {}
        self._prefixes: dict[str, str] = {}
        self.struct_rule(self._record)

    def spelled(self, message: str) -> str:
        """A message that begins with `Record.field:`, with the option's name in its place."""
        record, _, rest = message.partition(".")
        field, colon, reason = rest.partition(":")
        if not colon or not field.isidentifier() or record not in self._prefixes:
            return message
        name = f"{self._prefixes[record]}{field}".replace("_", "-")
        return f"--{name}:{reason}"

    def _record(self, info: StructTypeInfo) -> StructConstructorSpec | None:
        """tyro's rule for dataclasses, with ranges in the help and records of other folders."""
        if self._inside or not dataclasses.is_dataclass(info.type):
            return None
        self._inside = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            self._inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        prefix = self._prefixes.setdefault(info.type.__name__, "")
        ranges = bounds.intervals(info.type)
        notes = get_type_hints(info.type, include_extras=True)
        hidden = self._hidden.get(info.type, ())
        fields = []
        for field in spec.fields:
            if field.name in hidden or _is_optional_record(field, notes[field.name]):
                continue
            metadata = getattr(notes[field.name], "__metadata__", ())
            field = self._field(field, ranges.get(field.name), metadata)
            if dataclasses.is_dataclass(field.default):
                name = next((n.prefix for n in metadata if isinstance(n, Options)), field.name)
                inner = f"{prefix}{name}." if name else prefix
                self._prefixes[type(field.default).__name__] = inner
            fields.append(field)
        return dataclasses.replace(spec, fields=tuple(fields))

    def _field(
        self, field: StructFieldSpec, interval: bounds.Interval | None, notes: tuple[Any, ...]
    ) -> StructFieldSpec:
        if interval is not None:
            field = dataclasses.replace(field, helptext=_appended(field.helptext, interval))
        for note in notes:
            if isinstance(note, bounds.Choices):
                names = ", ".join(note.values)
                field = dataclasses.replace(field, helptext=_appended(field.helptext, names))
            if isinstance(note, OneOf):
                field = dataclasses.replace(field, helptext=_appended(field.helptext, note))
            if isinstance(note, Options):
                kind = note.load()
                self._hidden[kind] = note.hide
                annotated: Any = Annotated[kind, tyro.conf.arg(name=note.prefix)]
                return dataclasses.replace(field, type=annotated, default=kind())
        if any(field.default is nothing for nothing in (None, False, (), "")):
            # The help says what happens without a value; "(default: None)" adds nothing.
            plain = tyro.conf.arg(help_behavior_hint="")
            annotated = Annotated[
                field.type, plain, tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff
            ]
            field = dataclasses.replace(field, type=annotated)
        return field


def _is_optional_record(field: StructFieldSpec, hint: Any) -> bool:
    """True for a record that is None by default: its options cannot be listed."""
    members = get_args(hint) if field.default is None else ()
    return any(isinstance(m, type) and dataclasses.is_dataclass(m) for m in members)


def _appended(
    helptext: str | Callable[[], str | None] | None, more: object
) -> Callable[[], str | None]:
    """A help text and what the registry or the type has to add, worked out when it is printed."""

    def whole() -> str:
        text = helptext() if callable(helptext) else helptext
        text = (text or "").strip()
        return f"{text.removesuffix('.')}: {more}." if text else f"{more}."

    return whole


def _typo(words: Sequence[str], known: Sequence[str]) -> str:
    """The first option that the command does not know, and what it might have been meant to be."""
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        if _OPTION.fullmatch(option) and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "--help lists the options"
            return f"unknown option {option}; {hint}"
    return ""


def _explain(event: parse_errors.ParseErrorEvent) -> str:
    """The fault of a command line, in one line."""
    match event:
        case parse_errors.UnrecognizedArgs():
            return f"unexpected argument {event.tokens[0]!r}; see {event.prog} --help"
        case parse_errors.MissingArgs():
            names = [_name(entry.arg) for entry in event.missing_arguments]
            return f"{' and '.join(names)} must be given; see {event.prog} --help"
        case parse_errors.InvalidChoice():
            expected = ", ".join(event.choices)
            return f"{_name(event.argument)}: expected one of {expected}, got {event.value!r}"
        case parse_errors.BadValue():
            expected = event.argument.lowered.metavar or "a value"
            return f"{_name(event.argument)}: expected {expected}, got nothing"
        case parse_errors.InstantiationFailure():
            message = _NOT_A_NUMBER.sub(_a_number, " ".join(event.message.split()))
            if event.argument is None:
                return message
            if given := _NO_TYPE.match(message):
                message = f"expected {event.argument.lowered.metavar}, got {given[1]}"
            return f"{_name(event.argument)}: {message}"
    return f"not understood; see {event.prog} --help"


def _a_number(message: re.Match[str]) -> str:
    kind = "a whole number" if "int()" in message[0] else "a number"
    return f"expected {kind}, got"


def _name(argument: Any) -> str:
    """An option as it is spelled, or a positional argument in capitals."""
    name: str = argument.display_name()
    return name if name.startswith("-") else name.upper()
