"""Text, JSON and TOML files, read without trust: every fault is one line that names the file.

Programs write text in UTF-8, with or without a byte order mark, and on Windows also in UTF-16. JSON
allows integers of any length and lists of any depth; both end in errors of the interpreter far from
the file, so long integers and deep nesting are refused here.
"""

from __future__ import annotations

import codecs
import json
import tomllib
from pathlib import Path
from typing import Any

from flowplan.utils.files import read_bytes

LARGEST_TEXT = 128_000_000
"""Text files of more bytes are not read."""
MOST_VALUES = 5_000_000
"""JSON of more values is not decoded: a byte of text can become a hundred in memory."""
_LONGEST_INTEGER = 40
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: str | Path, *, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file, in UTF-8 or with a byte order mark in UTF-16.

    Args:
        path: The file.
        largest: Files of more bytes are refused.

    Raises:
        ValueError: In one line that names the file.
    """
    data = read_bytes(Path(path), largest=largest, kind=" of text")
    return decode(data, str(path))


def decode(data: bytes, where: str) -> str:
    """Bytes in UTF-8, or with a byte order mark in UTF-16; `where` names them in the error."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not text in UTF-8 (byte {error.start}); is it the right file?"
        ) from None


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text; `where` names it in the error.

    Raises:
        ValueError: In one line.
    """
    values = text.count(",") + text.count("[") + text.count("{")
    if values > MOST_VALUES:
        raise ValueError(
            f"{where}: has some {values} values, expected at most {MOST_VALUES}; "
            "is it the right file?"
        )
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"{where}: not valid JSON (nested too deeply); correct it") from None
    except ValueError as error:
        raise ValueError(f"{where}: not valid JSON ({_one_line(error)}); correct it") from None


def read_json(path: str | Path, *, largest: int = LARGEST_TEXT) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: In one line that names the file.
    """
    return parse_json(read_text(path, largest=largest), str(path))


def read_toml(path: str | Path) -> dict[str, Any]:
    """The top level of a TOML file.

    Raises:
        ValueError: In one line that names the file.
    """
    text = read_text(path, largest=10_000_000)
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError(
            f"{path}: expected a TOML file, got a syntax error (nested too deeply)"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a TOML file, got a syntax error ({_one_line(error)})"
        ) from None
    return values


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
