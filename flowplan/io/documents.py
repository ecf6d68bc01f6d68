"""Numpy arrays and YAML or JSON documents, read without trust: no pickle, errors in one line."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.utils import checks, text_files

DOCUMENTS = (".yaml", ".yml", ".json")
"""Suffixes of documents."""


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
    value = _load_numpy(path, ".npy")
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: expected one array, got an archive")
    return value


def read_archive(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays in an .npz file, by name.

    Raises:
        ValueError: In one line that names the file.
    """
    value = _load_numpy(path, ".npz")
    if isinstance(value, np.ndarray):
        raise ValueError(f"{path}: expected an archive of named arrays, got one array")
    # Arrays are only read here, so faults inside the archive appear here.
    with value:
        return {key: _unpickled(path, partial(value.__getitem__, key)) for key in value.files}


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


def _load_numpy(path: str | Path, suffix: str) -> Any:
    check_suffix(path, suffix)
    return _unpickled(path, lambda: np.load(path, allow_pickle=False))


def _unpickled(path: str | Path, read: Callable[[], Any]) -> Any:
    """Result of `read`, with errors of numpy as one line."""
    try:
        return read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        name = type(error).__name__
        raise ValueError(f"{path}: not a complete numpy file ({name}); write it again") from None
    except ValueError as error:
        # Numpy names the refused pickle in its message alone.
        if "pickle" in str(error) or "Object arrays" in str(error):
            text = "contains pickled objects, which run code when read; save plain arrays"
        else:
            text = "not a numpy file"
        raise ValueError(f"{path}: {text}") from None


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
