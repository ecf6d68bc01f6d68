""".npy and .npz files of numpy arrays, read without trust.

Nothing is unpickled. A zip file of a few kilobytes can claim gigabytes, and a header any shape: the
sizes that a file claims are checked before anything is unpacked, members are stored or deflated
(bzip2 and LZMA unpack a million times their size, without a bound), and an array is a view of the
bytes that are there.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.utils.files import read_bytes, require_file

MAX_BYTES = 4 * 2**30
"""Largest unpacked size of a file."""
FREE_BYTES = 128 * 2**20
"""Files may unpack to this size, whatever their own size."""
MAX_RATIO = 100
"""Larger ones unpack to at most this many times their own size."""
MAX_TEXT = 4 * 2**20
"""Largest array of text, bytes."""
MAX_MEMBERS = 100_000
"""Arrays in one file."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class FaultyArrayError(Exception):
    """A fault of a file of arrays, without the file's name.

    Attributes:
        key: the array's name; "" for the whole file.
        text: what is wrong, and what to do.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key, self.text = key, text


def most_bytes(size: int, largest: int = MAX_BYTES) -> int:
    """The unpacked bytes allowed of a file of `size` bytes, `largest` at most."""
    return min(largest, max(FREE_BYTES, MAX_RATIO * size))


def read_npz(path: Path, *, largest: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file by name.

    Args:
        path: of the file.
        largest: unpacked bytes; larger files are refused.

    Raises:
        FaultyArrayError: if it cannot be read.
    """
    if not path.is_file():
        raise FaultyArrayError("", "no such file")
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, most_bytes(size, largest))
            # No member is unpacked beyond the size that it claims.
            data = {m.filename.removesuffix(".npy"): archive.read(m) for m in members}
    except FaultyArrayError:
        raise
    except Exception as error:
        # On damaged bytes, the zip and zlib modules raise a dozen different types.
        name = type(error).__name__
        text = f"is damaged or not an .npz file ({name}); write it again"
        raise FaultyArrayError("", text) from None
    return {key: parse_npy(content, key) for key, content in data.items()}


def _check_members(members: list[zipfile.ZipInfo], most: int) -> None:
    """Refuse archives whose directory promises what is not read."""
    if len(members) > MAX_MEMBERS:
        raise FaultyArrayError("", f"has {len(members)} members, the most is {MAX_MEMBERS}")
    total = sum(m.file_size for m in members)
    if total > most:
        text = f"unpacks to {total / 2**30:.1f} GiB, the most is {most / 2**30:.1f}"
        raise FaultyArrayError("", f"{text} for a file of its size")
    if len({m.filename for m in members}) < len(members) or any(m.flag_bits & 1 for m in members):
        raise FaultyArrayError("", "has duplicate or encrypted members")
    other = [m.filename for m in members if m.compress_type not in _METHODS]
    if other:
        raise FaultyArrayError(
            other[0].removesuffix(".npy")[:80],
            "is compressed by another method than deflate; save it by numpy.savez_compressed",
        )


def read_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy file.

    Raises:
        ValueError: one line that names the file, if it is no regular file or too large.
        FaultyArrayError: if it cannot be read.
    """
    require_file(path, largest=MAX_BYTES)
    return parse_npy(read_bytes(path), "")


def parse_npy(data: bytes, key: str) -> NDArray[Any]:
    """The array of one .npy file's bytes: a view of them, whatever size the header claims.

    Raises:
        FaultyArrayError: with this key, if they are no array of numbers or short text.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        shape, fortran, dtype = read[version](file)
    except Exception:
        # The header is a Python literal; any failure to read it means this.
        raise FaultyArrayError(key, "is not a plain array of numbers or text") from None
    if dtype.hasobject:
        text = (
            "is not a plain array: it contains pickled objects, which run code when read; "
            "save plain arrays"
        )
        raise FaultyArrayError(key, text)
    try:
        if dtype.kind not in "biufU":
            raise ValueError
        count = int(np.prod(shape, dtype=object))
        body = memoryview(data)[file.tell() :]
        if len(body) != count * dtype.itemsize or (dtype.kind == "U" and len(body) > MAX_TEXT):
            raise ValueError
        array = np.frombuffer(body, dtype, count) if len(body) else np.zeros(0, dtype)
        array = array.reshape(shape, order="F" if fortran else "C")
        if dtype.kind == "U":
            array.tolist()  # not every four bytes are a character
    except Exception:
        raise FaultyArrayError(key, "is not a plain array of numbers or text") from None
    return array
