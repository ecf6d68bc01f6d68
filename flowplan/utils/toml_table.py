"""Strict reading of TOML tables.

An unknown key, a missing one or a wrong value is one line that names file and field.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowplan.utils import checks, text_files
from flowplan.utils.checks import FloatArray


class Table:
    """One table of a file, with required and optional keys and no others.

    Args:
        file: Path of the file, for errors.
        name: Dotted name of the table in the file, "" for the top level.
        values: The parsed table.
        required, optional: Allowed keys.

    Raises:
        ValueError: If a key is unknown or missing.
    """

    def __init__(
        self,
        file: Path,
        name: str,
        values: Any,
        required: Sequence[str],
        optional: Sequence[str] = (),
    ) -> None:
        self.file = file
        self._table_name = name
        if not isinstance(values, dict):
            raise self.error("", f"expected a table, got {type(values).__name__}")
        self._values = values
        valid = ", ".join([*required, *optional])
        for key in values:
            if key not in required and key not in optional:
                raise self.error(key, f"unknown key, expected one of {valid}")
        for key in required:
            if key not in values:
                raise self.error(key, f"missing, expected the keys {valid}")

    @classmethod
    def read(cls, file: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
        """Top level of a TOML file."""
        return cls(file, "", text_files.read_toml(file), required, optional)

    def error(self, key: str, message: str) -> ValueError:
        """ValueError that names the file and the field."""
        return ValueError(f"{self.file}: {self._name(key)}: {message}")

    def _name(self, key: str) -> str:
        return ".".join(part for part in (self._table_name, key) if part)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        """Keys that are present."""
        return list(self._values)

    def table(self, key: str, required: Sequence[str], optional: Sequence[str] = ()) -> Table:
        """A table inside this one."""
        return Table(self.file, self._name(key), self._values[key], required, optional)

    def tables(
        self, key: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> list[Table]:
        """An array of tables."""
        return [
            Table(self.file, f"{self._name(key)}[{i}]", value, required, optional)
            for i, value in enumerate(self._list(key))
        ]

    def text(self, key: str) -> str:
        """A non-empty string."""
        value = self._values[key]
        if not isinstance(value, str) or not value:
            raise self.error(key, f"expected a non-empty string, got {value!r}")
        return value

    def one_of(self, key: str, valid: Sequence[str]) -> str:
        """One of the names in `valid`."""
        return self._valid(key, self._values[key], valid)

    def names(self, key: str, valid: Sequence[str]) -> tuple[str, ...]:
        """A list of names, each one of `valid` and none twice."""
        names = tuple(
            self._valid(f"{key}[{i}]", value, valid) for i, value in enumerate(self._list(key))
        )
        if len(set(names)) != len(names):
            raise self.error(key, f"expected every name once, got {list(names)}")
        return names

    def pairs(self, key: str, valid: Sequence[str]) -> frozenset[frozenset[str]]:
        """A list of unordered pairs of different names, each one of `valid`."""
        out = set()
        for i, value in enumerate(self._list(key)):
            if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
                raise self.error(f"{key}[{i}]", f"expected two different names, got {value!r}")
            out.add(frozenset(self._valid(f"{key}[{i}]", name, valid) for name in value))
        return frozenset(out)

    def number(self, key: str) -> float:
        """A positive number."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, f"expected a positive number, got {value!r}")
        return checks.positive(f"{self.file}: {self._name(key)}", value)

    def numbers(
        self, key: str, shape: Sequence[int | str], *, default: FloatArray | None = None
    ) -> FloatArray:
        """Finite numbers of a shape (see `checks.array`)."""
        if key not in self._values and default is not None:
            return default
        return checks.array(f"{self.file}: {self._name(key)}", self._values[key], shape)

    def _list(self, key: str) -> list[Any]:
        value = self._values[key]
        if not isinstance(value, list):
            raise self.error(key, f"expected a list, got {type(value).__name__}")
        return value

    def _valid(self, key: str, value: Any, valid: Sequence[str]) -> str:
        if value not in valid:
            raise self.error(key, f"got {value!r}, expected one of {', '.join(valid)}")
        return str(value)
