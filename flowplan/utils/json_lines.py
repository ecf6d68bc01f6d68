"""Logs of one JSON object per line, appended to while long work goes on.

A process that dies while it writes leaves a last line cut short. It is dropped, in the file too,
and the work that it stood for is done again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from flowplan.utils import text_files
from flowplan.utils.files import check_folder, naming

Record = TypeVar("Record")


class JsonLines:
    """A log, open for appending by one process at a time.

    Args:
        path: of the file; None for a log that keeps nothing.

    Raises:
        ValueError: If another process appends to the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is None:
            return
        check_folder(path)
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(
                f"{path}: another run appends to this log; wait for it, or give another one"
            ) from None
        except OSError:  # a file system without locks
            pass

    def read(self, parse: Callable[[Any], Record], kind: str) -> list[Record]:
        """The records so far; a last line that was cut short is removed.

        Args:
            parse: makes a record of a line's JSON value; a ValueError, TypeError or KeyError means
                that it is none.
            kind: of the record, for the error.

        Raises:
            ValueError: one line that names the file and the line.
        """
        if self.path is None:
            return []
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        rest = data[len(whole) :]
        records = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                records.append(parse(_value(line)))
            except (ValueError, TypeError, KeyError):
                raise ValueError(
                    f"{self.path}: line {number} is not {kind}; delete the line to run it again"
                ) from None
        if rest:
            # Whole but for its line break, or cut short.
            try:
                records.append(parse(_value(rest)))
                self._append(b"\n")
            except (ValueError, TypeError, KeyError):
                self._file.truncate(len(whole))
        return records

    def append(self, value: Any) -> None:
        """Append a value as one line, whole or not at all."""
        if self.path is not None:
            self._append(json.dumps(value).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        assert self.path is not None
        size = self._file.seek(0, os.SEEK_END)
        with naming(self.path):
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                # What reached the disk of this line is taken back.
                os.ftruncate(self._file.fileno(), size)
                raise

    def close(self) -> None:
        """Close the file, and let other processes append to it."""
        if self.path is not None:
            self._file.close()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _value(line: bytes) -> Any:
    return text_files.parse_json(text_files.decode(line, "line"), "line")
