"""Records on disk: one `.npz` per record, written whole or not at all.

A file is an ordinary zip of `.npy` members (`np.load(path)["points"]` works without this library),
never pickled. Its keys are the record's fields (flowplan.io.record_arrays), with `_schema` and
`_version`. A new record needs one line in VERSIONS and nothing else.

The reader trusts nothing. It checks sizes before it unpacks anything (a zip of a few kilobytes can
hold gigabytes), checksums while it unpacks, then every member's type and shape, NaN, missing and
unknown fields, and last the record's own checks. Any failure is one ValueError that names the file
and the field.
"""

from __future__ import annotations

import io
import typing
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from flowplan.io.record_arrays import ADDED, SCALARS, Arrays, Fault, flatten, restore, take
from flowplan.utils.files import atomic_write, check_folder

__all__ = ["ADDED", "MAX_BYTES", "RENAMED", "VERSIONS", "load", "save"]

Record = TypeVar("Record")

VERSIONS = {
    "Scene": 3,
    "SceneMotion": 1,
    "ObjectFlow": 1,
    "ContactCandidates": 1,
    "Attachment": 1,
    "Trajectory": 1,
    "Plan": 3,
    "NoPlan": 2,
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
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for key, array in arrays.items():
            # The default date of ZipInfo (1980) makes equal records equal files.
            member = zipfile.ZipInfo(f"{key}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)
    return path


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
    if not path.is_file():
        raise Fault("", "no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(m.file_size for m in members)
            if size > MAX_BYTES:
                have, most = size / 2**30, MAX_BYTES / 2**30
                raise Fault("", f"unpacks to {have:.1f} GiB, the most is {most:.1f}")
            duplicate = len({m.filename for m in members}) < len(members)
            encrypted = any(m.flag_bits & 1 for m in members)
            if duplicate or encrypted:
                raise Fault("", "has duplicate or encrypted members")
            keys = [m.filename.removesuffix(".npy") for m in members]
            return {key: _array(key, archive.read(m)) for key, m in zip(keys, members, strict=True)}
    except Fault:
        raise
    except Exception as error:
        # On damaged bytes, the zip and zlib modules raise a dozen different types.
        name = type(error).__name__
        raise Fault("", f"is damaged or not an .npz file ({name}); write it again") from None


def _array(key: str, data: bytes) -> NDArray[Any]:
    """The array of one .npy member: a view of the actual bytes, whatever size its header claims."""
    file = io.BytesIO(data)
    try:
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        body = data[file.tell() :]
        if dtype.kind not in "biufU":
            raise ValueError
        array = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
        if dtype.kind == "U":
            array.tolist()  # not every four bytes are a character
    except Exception:
        # numpy's header is a Python literal; any failure to read it means this.
        raise Fault(key, "is not a plain array of numbers or text") from None
    return array
