"""Records on disk: one `.npz` per record, written whole or not at all.

A file is an ordinary zip of `.npy` members (`np.load(path)["points"]` works without this library),
never pickled. Its keys are the record's fields (flowplan.io.record_arrays), with `_schema` and
`_version`. A new record needs one line in VERSIONS and nothing else.

The reader trusts nothing (flowplan.utils.numpy_files). It checks sizes before it unpacks anything
(a zip of a few kilobytes can hold gigabytes), checksums while it unpacks, then every member's type
and shape, NaN, missing and unknown fields, and last the record's own checks. Any failure is one
ValueError that names the file and the field.
"""

from __future__ import annotations

import typing
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from flowplan.io.record_arrays import ADDED, SCALARS, Arrays, Fault, flatten, restore, take
from flowplan.utils.files import atomic_write, check_folder
from flowplan.utils.numpy_files import FaultyArrayError, most_bytes, read_npz

__all__ = ["ADDED", "MAX_BYTES", "RENAMED", "VERSIONS", "load", "save"]

Record = TypeVar("Record")

VERSIONS = {
    "Scene": 3,
    "SceneMotion": 1,
    "ObjectFlow": 1,
    "ContactCandidates": 1,
    "Attachment": 1,
    "Trajectory": 1,
    "Plan": 4,
    "NoPlan": 3,
    "Rollout": 1,
}
"""Records that can be written, and the version of their fields. Raise it when a field is added (see
ADDED) or changes its name, shape, unit or frame. Files of every earlier version are read."""

RENAMED = {"ContactCandidates": "Grasps"}
"""Former names of records: files of this schema are read as version 1 of the record."""

MAX_BYTES = 4 * 2**30
"""Largest unpacked size of a file."""


def writable_path(path: str | Path) -> Path:
    """The path, if `save` could write a record there: checked before long work.

    Raises:
        ValueError: If it does not end in .npz, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {str(path)!r}")
    check_folder(path)
    return path


def save(path: str | Path, record: Any) -> Path:
    """Write a record to `path`, which ends in .npz.

    An existing file is replaced only once the new one is complete on disk.

    Raises:
        ValueError: If the record cannot be written, or contains what `load` would refuse (NaN).
    """
    name = type(record).__name__
    if name not in VERSIONS:
        raise ValueError(f"record: got a {name}, expected one of {', '.join(VERSIONS)}")
    path = writable_path(path)
    arrays: Arrays = {"_schema": np.array(f"flowplan.{name}"), "_version": np.array(VERSIONS[name])}
    try:
        flatten("", record, type(record), arrays)
        size = sum(a.nbytes for a in arrays.values())
        if size > MAX_BYTES:
            have, most = size / 2**30, MAX_BYTES / 2**30
            text = f"holds {have:.1f} GiB, the most is {most:.1f}; keep fewer points or frames"
            raise Fault("", text)
    except Fault as fault:
        raise ValueError(f"{path}: {name}{fault}") from None
    with atomic_write(path) as file:
        _write(file, arrays, zipfile.ZIP_DEFLATED)
        # Large arrays of equal values would deflate to what looks like an attack when read.
        if size > most_bytes(file.tell()):
            file.seek(0)
            file.truncate()
            _write(file, arrays, zipfile.ZIP_STORED)
    return path


def _write(file: BinaryIO, arrays: Arrays, method: int) -> None:
    """Write arrays as a zip file of .npy members, deflated or stored."""
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for key, array in arrays.items():
            # The default date of ZipInfo (1980) makes equal records equal files.
            member = zipfile.ZipInfo(f"{key}.npy")
            member.compress_type = method
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)


def load(path: str | Path, kind: type[Record]) -> Record:
    """The record of type `kind` that `save` wrote to `path`.

    Raises:
        ValueError: Naming the file and the field, if the file is not such a record or damaged.
    """
    path = Path(path)
    name = kind.__name__
    if name not in VERSIONS:
        raise ValueError(f"kind: got {name}, expected one of {', '.join(VERSIONS)}")
    try:
        arrays = _read(path)
        version = _check_schema(arrays, name)
        record = restore("", kind, arrays, version)
        if arrays:
            text = f"is not a field of {name}; the file was written by something else"
            raise Fault(min(arrays), text)
    except Fault as fault:
        raise ValueError(f"{path}: {name}{fault}") from None
    except ValueError as error:  # from the record's own checks, which name the field
        raise ValueError(f"{path}: {error}") from None
    return typing.cast(Record, record)


def _check_schema(arrays: Arrays, name: str) -> int:
    """The file's version, if it holds a record of this name that can be read."""
    if "_schema" not in arrays or "_version" not in arrays:
        raise Fault("", "the file has no _schema and _version; it was not written by flowplan")
    schema = str(take("_schema", SCALARS[str], arrays, ndim=0))
    version = int(take("_version", SCALARS[int], arrays, ndim=0))
    latest = VERSIONS[name]
    renamed = name in RENAMED and schema == f"flowplan.{RENAMED[name]}" and version == 1
    if schema != f"flowplan.{name}" and not renamed:
        raise Fault("", f"expected a file of flowplan.{name}, this one holds {schema[:80]!r}")
    if version > latest:
        text = f"the file has version {version}, this flowplan reads up to {latest}"
        raise Fault("", f"{text}; upgrade flowplan")
    if version < 1:
        raise Fault("", f"the file has version {version}, expected 1 to {latest}")
    return version


def _read(path: Path) -> Arrays:
    """Every array of the file, once its declared size has been accepted."""
    try:
        return read_npz(path, largest=MAX_BYTES)
    except FaultyArrayError as fault:
        raise Fault(fault.key, fault.text) from None
