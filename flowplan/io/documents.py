"""Numpy arrays and YAML or JSON documents, read without trust: no pickle, errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flowplan.utils import checks, numpy_files, text_files
from flowplan.utils.text_files import MOST_VALUES

DOCUMENTS = (".yaml", ".yml", ".json")
"""Suffixes of documents."""
LARGEST_YAML = 16_000_000
"""Characters of a YAML file."""
DEEPEST_YAML = 100
"""Lists and mappings within each other in a YAML file."""


def check_suffix(path: str | Path, *valid: str) -> str:
    """The suffix of `path`, in lower case, if it is one of `valid`."""
    suffix = Path(path).suffix.lower()
    checks.choice(f"{path}: suffix", suffix, valid)
    return suffix


def read_array(path: str | Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        ValueError: In one line that names the file.
    """
    path = Path(path)
    check_suffix(path, ".npy")
    with _in_one_line(path):
        return numpy_files.read_npy(path)


def read_archive(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays in an .npz file, by name.

    Raises:
        ValueError: In one line that names the file.
    """
    path = Path(path)
    check_suffix(path, ".npz")
    with _in_one_line(path):
        return numpy_files.read_npz(path)


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    """Faults of arrays as errors that name the file and the array."""
    try:
        yield
    except numpy_files.FaultyArrayError as fault:
        field = f" {fault.key}:" if fault.key else ""
        raise ValueError(f"{path}:{field} {fault.text}") from None


def read_document(path: str | Path) -> Mapping[str, Any]:
    """The fields of a .yaml, .yml or .json file.

    Raises:
        ValueError: In one line that names the file.
    """
    # Text, then its parse, then its kind: each has its own error.
    suffix = check_suffix(path, *DOCUMENTS)
    text = text_files.read_text(path)
    try:
        value = text_files.parse_json(text, "text") if suffix == ".json" else _parse_yaml(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid {suffix[1:]}: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected named fields, got {type(value).__name__}")
    return value


def document_text(path: str | Path, document: Mapping[str, Any]) -> str:
    """A document in the format of the path's suffix."""
    if check_suffix(path, *DOCUMENTS) == ".json":
        return json.dumps(document, indent=1)
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, default_flow_style=None))


def _parse_yaml(text: str) -> Any:
    import yaml

    if len(text) > LARGEST_YAML:
        raise ValueError(f"has {len(text)} characters, the most is {LARGEST_YAML}")
    # Libyaml's reader of nested lists has no bound of its own and overflows the stack.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=loader)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_YAML or count > MOST_VALUES:
                raise ValueError("nested too deeply, or too many values")
        value = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    except (ValueError, RecursionError):
        raise
    except Exception as error:  # the constructors of tags raise anything
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    _expanded(value, {})
    return value


def _expanded(value: Any, sizes: dict[int, int]) -> int:
    """The number of values, those behind aliases counted wherever they are named.

    Raises:
        ValueError: if there are too many, or a value holds itself.
    """
    if not isinstance(value, dict | list | tuple | set):
        return 1
    known = sizes.get(id(value))
    if known is None:
        # Zero marks a value that is being counted.
        sizes[id(value)] = 0
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known = sizes[id(value)] = 1 + sum(_expanded(part, sizes) for part in parts)
    if not 0 < known <= MOST_VALUES:
        raise ValueError("aliases that stand for too many values, or for themselves")
    return known
