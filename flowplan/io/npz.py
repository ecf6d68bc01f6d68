"""Records on disk: one `.npz` per record, written whole or not at all, and read with suspicion.

A file is an ordinary zip of `.npy` members (`np.load(path)["points"]` works without this library), never pickled. The
fields of a record become keys: `times`, and `attachment/X_world_tool` for a record within a record; `_schema` and
`_version` say what the file holds. Types come from the record's own annotations, so a new record needs one line in
VERSIONS and nothing else.

    scalar or string      a 0-d array            tuple of those       a 1-d array
    other tuple           `key/count`, `key/0`.. dict                 `key/keys` and `key/values`
    mesh                  `key/vertices`, `key/faces`, `key/colors`   None   an empty boolean array

The reader trusts nothing: sizes are checked before anything is unpacked (a zip of a few kilobytes can hold gigabytes),
checksums while it is, then every member's type and shape, NaN, missing and unknown fields, and last the record's own
checks. What does not hold is one ValueError that names the file and the field.
"""

from __future__ import annotations

import dataclasses
import io
import types
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils.files import atomic_write

Record = TypeVar("Record")
Arrays = dict[str, NDArray[Any]]

VERSIONS = {
    "Scene": 2,
    "SceneMotion": 1,
    "ObjectFlow": 1,
    "ContactCandidates": 1,
    "Attachment": 1,
    "Trajectory": 1,
    "Plan": 2,
    "NoPlan": 2,
    "Rollout": 1,
}
"""Records that can be written, and the version of their fields. Raise it when a field is added (see ADDED) or changes
its name, shape, unit or frame. Files of every earlier version are read."""

RENAMED = {"ContactCandidates": "Grasps"}
"""Former names of records: files of this schema are read as version 1 of the record."""

ADDED: dict[str, dict[str, int]] = {
    "SceneObject": {"deformable": 2},
    "Plan": {"assumptions": 2},
    "NoPlan": {"assumptions": 2},
}
"""Fields added to a record since version 1, as {record: {field: version of the file}}. Files of an earlier version do
not have them and get their default. The version is that of the file's record, such as Scene for a field of SceneObject."""

SHAPES: dict[str, dict[str, tuple[int | str, ...]]] = {
    "Attachment": {
        "times": ("T",),
        "X_world_tool": ("T", 4, 4),
        "moments/weight": ("T",),
        "K": ("T", 3, 3),
        "slip": ("T",),
        "kept": ("T",),
        "held": ("N",),
        "screw/amount": ("T",),
    },
    "Screw": {
        "direction": (3,),
        "point": (3,),
        "amount": ("T",),
        "displacement": ("T", 4, 4),
        "normals": (2, 3),
        "covariance": (5, 5),
        "amount_std": ("T",),
    },
}
"""Shapes of the records that do not check their own, being made many times inside a plan: numbers, or letters that
stand for one size wherever they appear in a record."""

MAX_BYTES = 4 * 2**30
"""The most that a file may unpack to."""

_SCALARS: dict[type, np.dtype[Any]] = {
    str: np.dtype("U"),
    bool: np.dtype("?"),
    int: np.dtype("<i8"),
    float: np.dtype("<f8"),
}
_NONE = np.zeros(0, bool)


class _Fault(Exception):
    """What is wrong with a key of a file, or with all of it where the key is empty; the file's name comes later."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{'.' if key else ''}{key.replace('/', '.')}: {what}")


def save(path: str | Path, record: Any) -> Path:
    """Write a record to `path` (ending in .npz), replacing what was there only once all of it is on disk.

    Raises:
        ValueError: for a record that cannot be written, or holds what `load` would refuse (such as NaN).
    """
    path = Path(path)
    name = type(record).__name__
    if name not in VERSIONS:
        raise ValueError(f"record: got a {name}, expected one of {', '.join(VERSIONS)}")
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {str(path)!r}")
    arrays: Arrays = {"_schema": np.array(f"flowplan.{name}"), "_version": np.array(VERSIONS[name])}
    try:
        _flatten("", record, type(record), arrays)
        size = sum(a.nbytes for a in arrays.values())
        if size > MAX_BYTES:
            raise _Fault(
                "",
                f"holds {size / 2**30:.1f} GiB, the most is {MAX_BYTES / 2**30:.1f}; keep fewer points or frames",
            )
    except _Fault as fault:
        raise ValueError(f"{path}: {name}{fault}") from None
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for key, array in arrays.items():
            # ZipInfo's own date (1980) makes equal records equal files.
            member = zipfile.ZipInfo(f"{key}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)
    return path


def load(path: str | Path, kind: type[Record]) -> Record:
    """Read the record of type `kind` that `save` wrote to `path`.

    Raises:
        ValueError: naming the file and the field, for anything that is not such a file, whole and sane.
    """
    path = Path(path)
    name = kind.__name__
    if name not in VERSIONS:
        raise ValueError(f"kind: got {name}, expected one of {', '.join(VERSIONS)}")
    try:
        arrays = _read(path)
        version = _check_schema(arrays, name)
        record = _restore("", kind, arrays, version)
        if arrays:
            raise _Fault(
                min(arrays), f"is not a field of {name}; the file was written by something else"
            )
    except _Fault as fault:
        raise ValueError(f"{path}: {name}{fault}") from None
    except ValueError as error:  # the record's own checks, which name the field
        raise ValueError(f"{path}: {error}") from None
    return typing.cast(Record, record)


def vertex_colors(mesh: trimesh.Trimesh) -> NDArray[np.uint8] | None:
    """Colours (V, 4), RGBA, of a mesh that has any: its own, or its texture's at every vertex."""
    visual: Any = mesh.visual
    if visual is None or not visual.defined:
        return None
    if visual.kind == "texture":
        if visual.uv is None or len(visual.uv) != len(mesh.vertices):
            return None
        visual = visual.to_color()
    return np.array(
        np.broadcast_to(np.asarray(visual.vertex_colors, np.uint8), (len(mesh.vertices), 4))
    )


def _flatten(key: str, value: Any, hint: Any, arrays: Arrays) -> None:
    """Put `value`, annotated `hint`, into `arrays` under `key` and keys that begin with it."""
    optional, hint = _without_none(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if value is None and optional:
        arrays[key] = _NONE
    elif dataclasses.is_dataclass(hint):
        for field, of in _fields(hint):
            _flatten(_join(key, field), getattr(value, field), of, arrays)
    elif hint is trimesh.Trimesh:
        _put(_join(key, "vertices"), value.vertices, _SCALARS[float], arrays)
        _put(_join(key, "faces"), value.faces, _SCALARS[int], arrays)
        colors = vertex_colors(value)
        _put(
            _join(key, "colors"),
            np.zeros((0, 4), np.uint8) if colors is None else colors,
            np.dtype("u1"),
            arrays,
        )
    elif origin is tuple and inner[0] in _SCALARS:
        _put(key, list(value), _SCALARS[inner[0]], arrays)
    elif origin is tuple:
        arrays[_join(key, "count")] = np.array(len(value))
        for i, item in enumerate(value):
            _flatten(_join(key, str(i)), item, inner[0], arrays)
    elif origin is dict:
        _flatten(_join(key, "keys"), tuple(value), _tuple_of(str), arrays)
        _flatten(_join(key, "values"), tuple(value.values()), _tuple_of(inner[1]), arrays)
    else:
        _put(key, value, _dtype(hint), arrays)


def _restore(key: str, hint: Any, arrays: Arrays, version: int) -> Any:
    """The value annotated `hint` that `_flatten` put under `key`; what it used is taken out of `arrays`."""
    optional, hint = _without_none(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if optional and key in arrays and arrays[key].dtype == bool and arrays[key].shape == (0,):
        del arrays[key]
        return None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        _check_shapes(key, SHAPES.get(hint.__name__, {}), arrays)
        since = ADDED.get(hint.__name__, {})
        values = {
            field: _restore(_join(key, field), of, arrays, version)
            for field, of in _fields(hint)
            if version >= since.get(field, 1)
        }
        return hint(**values)
    if hint is trimesh.Trimesh:
        return _restore_mesh(key, arrays)
    if origin is tuple and inner[0] in _SCALARS:
        return tuple(_take(key, _SCALARS[inner[0]], arrays, ndim=1).tolist())
    if origin is tuple:
        count = int(_take(_join(key, "count"), _SCALARS[int], arrays, ndim=0))
        return tuple(_restore(_join(key, str(i)), inner[0], arrays, version) for i in range(count))
    if origin is dict:
        keys = _restore(_join(key, "keys"), _tuple_of(str), arrays, version)
        values = _restore(_join(key, "values"), _tuple_of(inner[1]), arrays, version)
        if len(keys) != len(values) or len(set(keys)) < len(keys):
            raise _Fault(
                key, f"has {len(keys)} keys, {len(set(keys))} distinct, for {len(values)} values"
            )
        return dict(zip(keys, values, strict=True))
    if hint in _SCALARS:
        return _take(key, _dtype(hint), arrays, ndim=0).item()
    return _take(key, _dtype(hint), arrays)


def _check_shapes(key: str, shapes: dict[str, tuple[int | str, ...]], arrays: Arrays) -> None:
    sizes: dict[int | str, int] = {}
    for field, shape in shapes.items():
        array = arrays.get(_join(key, field))
        if (
            array is None
        ):  # an optional record that is not there; of a field that should be, _take will tell
            continue
        fits = array.ndim == len(shape) and all(
            have == (sizes.setdefault(n, have) if isinstance(n, str) else n)
            for n, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            shown = ", ".join(f"{n}={sizes[n]}" if n in sizes else str(n) for n in shape)
            raise _Fault(_join(key, field), f"expected shape ({shown}), got {array.shape}")


def _restore_mesh(key: str, arrays: Arrays) -> trimesh.Trimesh:
    vertices = _take(_join(key, "vertices"), _SCALARS[float], arrays, ndim=2)
    faces = _take(_join(key, "faces"), _SCALARS[int], arrays, ndim=2)
    colors = _take(_join(key, "colors"), np.dtype("u1"), arrays, ndim=2)
    if vertices.shape[1] != 3 or faces.shape[1] != 3:
        raise _Fault(
            key,
            f"expected vertices (V, 3) and faces (F, 3), got {vertices.shape} and {faces.shape}",
        )
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise _Fault(
            _join(key, "faces"),
            f"expected vertex numbers in 0..{len(vertices) - 1}, got {faces.max()}",
        )
    if len(colors) and colors.shape != (len(vertices), 4):
        raise _Fault(
            _join(key, "colors"), f"expected shape ({len(vertices)}, 4), got {colors.shape}"
        )
    return trimesh.Trimesh(
        vertices, faces, vertex_colors=colors if len(colors) else None, process=False
    )


def _fields(record: Any) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(record)
    return ((f.name, hints[f.name]) for f in dataclasses.fields(record) if f.init)


def _without_none(hint: Any) -> tuple[bool, Any]:
    """Whether `hint` is `X | None`, and X; the words of a Literal are strings."""
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (
            h for h in typing.get_args(hint) if h is not type(None)
        )  # a record holds no union of records
        optional = True
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        hint = _tuple_of(str) if typing.get_origin(inner) is typing.Literal else hint
    return optional, str if typing.get_origin(hint) is typing.Literal else hint


def _tuple_of(hint: Any) -> Any:
    return types.GenericAlias(tuple, (hint, ...))


def _dtype(hint: Any) -> np.dtype[Any]:
    if hint in _SCALARS:
        return _SCALARS[hint]
    return np.dtype(
        typing.get_args(typing.get_args(hint)[1])[0]
    )  # NDArray[X] is ndarray[shape, dtype[X]]


def _put(key: str, value: Any, dtype: np.dtype[Any], arrays: Arrays) -> None:
    array = np.asarray(value, order="C")
    text = dtype.kind == "U"
    if text and any("\0" in word for word in ([value] if array.ndim == 0 else value)):
        raise _Fault(key, "holds a zero character, which arrays of text cannot keep; remove it")
    if not text and array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise _Fault(key, f"expected {dtype} values, got {array.dtype}")
    array = array.astype(dtype)
    _refuse_nan(key, array)
    arrays[key] = array


def _take(
    key: str, dtype: np.dtype[Any], arrays: Arrays, *, ndim: int | None = None
) -> NDArray[Any]:
    if key not in arrays:
        raise _Fault(key, "is missing from the file; write it again")
    array = arrays.pop(key)
    if array.dtype != dtype and not array.dtype.kind == dtype.kind == "U":
        raise _Fault(key, f"expected {dtype} values, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise _Fault(key, f"expected {ndim} dimensions, got shape {array.shape}")
    _refuse_nan(key, array)
    return array


def _refuse_nan(key: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and np.isnan(array).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise _Fault(
            key, f"{np.isnan(array).sum()} of {array.size} values are NaN (first at {where})"
        )


def _check_schema(arrays: Arrays, name: str) -> int:
    """The file's version, if the file holds a record of this name that can be read."""
    if "_schema" not in arrays or "_version" not in arrays:
        raise _Fault("", "the file has no _schema and _version; it was not written by flowplan")
    schema = str(_take("_schema", _SCALARS[str], arrays, ndim=0))
    version = int(_take("_version", _SCALARS[int], arrays, ndim=0))
    renamed = name in RENAMED and schema == f"flowplan.{RENAMED[name]}" and version == 1
    if schema != f"flowplan.{name}" and not renamed:
        raise _Fault("", f"expected a file of flowplan.{name}, this one holds {schema[:80]!r}")
    if version > VERSIONS[name]:
        raise _Fault(
            "",
            f"the file has version {version}, this flowplan reads up to {VERSIONS[name]}; upgrade flowplan",
        )
    if version < 1:
        raise _Fault("", f"the file has version {version}, expected 1 to {VERSIONS[name]}")
    return version


def _read(path: Path) -> Arrays:
    """Every array of the file, after its declared size was found bearable."""
    if not path.is_file():
        raise _Fault("", "no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(m.file_size for m in members)
            if size > MAX_BYTES:
                raise _Fault(
                    "", f"unpacks to {size / 2**30:.1f} GiB, the most is {MAX_BYTES / 2**30:.1f}"
                )
            if len({m.filename for m in members}) < len(members) or any(
                m.flag_bits & 1 for m in members
            ):
                raise _Fault("", "has doubled or encrypted members")
            keys = [m.filename.removesuffix(".npy") for m in members]
            return {key: _array(key, archive.read(m)) for key, m in zip(keys, members, strict=True)}
    except _Fault:
        raise
    except Exception as error:
        # The zip and zlib modules raise a dozen different types on damaged bytes; all of them mean this.
        raise _Fault(
            "", f"is damaged or not an .npz file ({type(error).__name__}); write it again"
        ) from None


def _array(key: str, data: bytes) -> NDArray[Any]:
    """The array of one .npy member: a view of the bytes that there are, whatever size its header claims."""
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
        # numpy's header is a Python literal: whatever it stumbles over, the member is not an array of numbers or text.
        raise _Fault(key, "is not a plain array of numbers or text") from None
    return array


def _join(key: str, part: str) -> str:
    return f"{key}/{part}" if key else part
