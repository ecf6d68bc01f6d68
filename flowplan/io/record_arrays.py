"""Records as named arrays, and back.

The fields of a record become keys: `times`, and `attachment/X_world_tool` for a record within a
record. Types come from the record's own annotations.

    scalar or string      a 0-d array
    tuple of those        a 1-d array
    other tuple           `key/count`, `key/0`, `key/1` and so on
    dict                  `key/keys` and `key/values`
    mesh                  `key/vertices`, `key/faces` and `key/colors`
    None                  an empty boolean array

Nothing in the arrays is trusted when they are read: every key's type, shape and values are checked.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.io.mesh_colors import vertex_colors

Arrays = dict[str, NDArray[Any]]

ADDED: dict[str, dict[str, int]] = {
    "SceneObject": {"deformable": 2, "articulation": 3},
    "Plan": {"assumptions": 2, "ending": 3, "flow_time": 3, "mounting": 3, "motion": 4},
    "NoPlan": {"assumptions": 2, "motion": 3},
}
"""Fields added to a record since version 1, as {record: {field: version of the file}}. They get
their default in files of an earlier version, which do not have them. The version is that of the
file's own record, such as Scene for a field of SceneObject."""

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
    "Plan": {"flow_time": ("S",)},
    "Mounting": {"X_world_base": (4, 4)},
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
"""Shapes of records that do not check their own, since plans create many of them. Letters stand for
one size wherever they appear in a record."""

SCALARS: dict[type, np.dtype[Any]] = {
    str: np.dtype("U"),
    bool: np.dtype("?"),
    int: np.dtype("<i8"),
    float: np.dtype("<f8"),
}
_NONE = np.zeros(0, bool)
LONGEST_TUPLE = 1_000_000
"""Tuples of more numbers or words are not read."""


class Fault(Exception):
    """A faulty key of a file, or the whole file if the key is empty; without the file's name."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{'.' if key else ''}{key.replace('/', '.')}: {text}")


def flatten(key: str, value: Any, hint: Any, arrays: Arrays) -> None:
    """Store `value`, annotated `hint`, in `arrays` under `key` and keys that start with it.

    Raises:
        Fault: If the value cannot be stored, or would be refused by `restore`.
    """
    optional, hint = _without_none(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if value is None and optional:
        arrays[key] = _NONE
    elif dataclasses.is_dataclass(hint):
        for field, field_hint in _fields(hint):
            flatten(_join(key, field), getattr(value, field), field_hint, arrays)
    elif hint is trimesh.Trimesh:
        _flatten_mesh(key, value, arrays)
    elif origin is tuple and inner[0] in SCALARS:
        _put(key, list(value), SCALARS[inner[0]], arrays)
    elif origin is tuple:
        arrays[_join(key, "count")] = np.array(len(value))
        for i, item in enumerate(value):
            flatten(_join(key, str(i)), item, inner[0], arrays)
    elif origin is dict:
        flatten(_join(key, "keys"), tuple(value), _tuple_of(str), arrays)
        flatten(_join(key, "values"), tuple(value.values()), _tuple_of(inner[1]), arrays)
    else:
        _put(key, value, _dtype(hint), arrays)


def restore(key: str, hint: Any, arrays: Arrays, version: int) -> Any:
    """The value annotated `hint` that `flatten` stored under `key`, removed from `arrays`.

    Args:
        key: Key of the value.
        hint: Its annotation.
        arrays: All arrays that are not used yet.
        version: Version of the file's record.

    Raises:
        Fault: If an array is missing or does not have the expected type, shape or values.
        ValueError: From the record's own checks.
    """
    optional, hint = _without_none(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if optional and key in arrays and arrays[key].dtype == bool and arrays[key].shape == (0,):
        del arrays[key]
        return None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _restore_record(key, hint, arrays, version)
    if hint is trimesh.Trimesh:
        return _restore_mesh(key, arrays)
    if origin is tuple and inner[0] in SCALARS:
        values = take(key, SCALARS[inner[0]], arrays, ndim=1)
        if len(values) > LONGEST_TUPLE:
            raise Fault(key, f"has {len(values)} values, the most is {LONGEST_TUPLE}")
        return tuple(values.tolist())
    if origin is tuple:
        count = int(take(_join(key, "count"), SCALARS[int], arrays, ndim=0))
        return tuple(restore(_join(key, str(i)), inner[0], arrays, version) for i in range(count))
    if origin is dict:
        return _restore_dict(key, inner[1], arrays, version)
    if hint in SCALARS:
        return take(key, _dtype(hint), arrays, ndim=0).item()
    return take(key, _dtype(hint), arrays)


def take(
    key: str, dtype: np.dtype[Any], arrays: Arrays, *, ndim: int | None = None
) -> NDArray[Any]:
    """The array under `key`, removed from `arrays`, if it has this type and number of dimensions.

    Raises:
        Fault: If it is missing, of another type or number of dimensions, or contains NaN.
    """
    if key not in arrays:
        raise Fault(key, "is missing from the file; write it again")
    array = arrays.pop(key)
    if array.dtype != dtype and not array.dtype.kind == dtype.kind == "U":
        raise Fault(key, f"expected {dtype} values, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise Fault(key, f"expected {ndim} dimensions, got shape {array.shape}")
    _refuse_nan(key, array)
    return array


def _restore_record(key: str, hint: type, arrays: Arrays, version: int) -> Any:
    """A dataclass; fields added after the file's version get their default."""
    # Shapes first: the fields' arrays are removed as they are restored.
    _check_shapes(key, SHAPES.get(hint.__name__, {}), arrays)
    since = ADDED.get(hint.__name__, {})
    values = {
        field: restore(_join(key, field), field_hint, arrays, version)
        for field, field_hint in _fields(hint)
        if version >= since.get(field, 1)
    }
    return hint(**values)


def _restore_dict(key: str, hint: Any, arrays: Arrays, version: int) -> dict[str, Any]:
    keys = restore(_join(key, "keys"), _tuple_of(str), arrays, version)
    values = restore(_join(key, "values"), _tuple_of(hint), arrays, version)
    distinct = len(set(keys))
    if len(keys) != len(values) or distinct < len(keys):
        raise Fault(key, f"has {len(keys)} keys, {distinct} distinct, for {len(values)} values")
    return dict(zip(keys, values, strict=True))


def _flatten_mesh(key: str, mesh: trimesh.Trimesh, arrays: Arrays) -> None:
    _put(_join(key, "vertices"), mesh.vertices, SCALARS[float], arrays)
    _put(_join(key, "faces"), mesh.faces, SCALARS[int], arrays)
    colors = vertex_colors(mesh)
    colors = np.zeros((0, 4), np.uint8) if colors is None else colors
    _put(_join(key, "colors"), colors, np.dtype("u1"), arrays)


def _restore_mesh(key: str, arrays: Arrays) -> trimesh.Trimesh:
    vertices = take(_join(key, "vertices"), SCALARS[float], arrays, ndim=2)  # (V, 3)
    faces = take(_join(key, "faces"), SCALARS[int], arrays, ndim=2)  # (F, 3)
    colors = take(_join(key, "colors"), np.dtype("u1"), arrays, ndim=2)
    if vertices.shape[1] != 3 or faces.shape[1] != 3:
        raise Fault(
            key,
            f"expected vertices (V, 3) and faces (F, 3), got {vertices.shape} and {faces.shape}",
        )
    # Faces name existing vertices, and colors are of all vertices or none.
    last = len(vertices) - 1
    if faces.size and not 0 <= faces.min() <= faces.max() <= last:
        raise Fault(_join(key, "faces"), f"expected vertex numbers in 0..{last}, got {faces.max()}")
    if len(colors) and colors.shape != (len(vertices), 4):
        raise Fault(
            _join(key, "colors"), f"expected shape ({len(vertices)}, 4), got {colors.shape}"
        )
    own = colors if len(colors) else None
    return trimesh.Trimesh(vertices, faces, vertex_colors=own, process=False)


def _check_shapes(key: str, shapes: dict[str, tuple[int | str, ...]], arrays: Arrays) -> None:
    """Check the shapes of a record's fields; letters must stand for one size each."""
    sizes: dict[int | str, int] = {}
    for field, shape in shapes.items():
        array = arrays.get(_join(key, field))
        if array is None:  # an optional record without a value, or an error that `take` will report
            continue
        # A letter takes the size of its first appearance.
        fits = array.ndim == len(shape) and all(
            have == (sizes.setdefault(n, have) if isinstance(n, str) else n)
            for n, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            shown = ", ".join(f"{n}={sizes[n]}" if n in sizes else str(n) for n in shape)
            raise Fault(_join(key, field), f"expected shape ({shown}), got {array.shape}")


def _put(key: str, value: Any, dtype: np.dtype[Any], arrays: Arrays) -> None:
    array = np.asarray(value, order="C")
    text = dtype.kind == "U"
    # Numpy drops zero characters at the end of strings.
    words = [value] if array.ndim == 0 else value
    if text and any("\0" in word for word in words):
        raise Fault(key, "holds a zero character, which arrays of text cannot keep; remove it")
    if not text and array.size and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise Fault(key, f"expected {dtype} values, got {array.dtype}")
    array = array.astype(dtype)
    _refuse_nan(key, array)
    arrays[key] = array


def _refuse_nan(key: str, array: NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        return
    missing = np.isnan(array)
    if missing.any():
        count = missing.sum()
        first = tuple(int(i) for i in np.argwhere(missing)[0])
        raise Fault(key, f"{count} of {array.size} values are NaN (first at {first})")


def _fields(record: Any) -> Iterator[tuple[str, Any]]:
    """Name and annotation of every field that the constructor takes."""
    # trimesh is a name for type checkers alone in the modules of most records.
    hints = typing.get_type_hints(record, localns={"trimesh": trimesh})
    return ((f.name, hints[f.name]) for f in dataclasses.fields(record) if f.init)


def _without_none(hint: Any) -> tuple[bool, Any]:
    """True for `X | None`, and X. The words of a Literal are strings."""
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # A record holds no other unions.
        (hint,) = (h for h in typing.get_args(hint) if h is not type(None))
        optional = True
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        hint = _tuple_of(str) if typing.get_origin(inner) is typing.Literal else hint
    return optional, str if typing.get_origin(hint) is typing.Literal else hint


def _tuple_of(hint: Any) -> Any:
    return types.GenericAlias(tuple, (hint, ...))


def _dtype(hint: Any) -> np.dtype[Any]:
    if hint in SCALARS:
        return SCALARS[hint]
    # NDArray[X] is ndarray[shape, dtype[X]].
    return np.dtype(typing.get_args(typing.get_args(hint)[1])[0])


def _join(key: str, part: str) -> str:
    return f"{key}/{part}" if key else part
