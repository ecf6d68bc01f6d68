"""Points of a .pcd file (Point Cloud Library, version 0.7): ascii, binary or binary_compressed.

The header names the fields of a point, their sizes and types. Compressed data hold all x, then all
y, and so on, packed by LZF: a byte below 32 announces that many plus one literal bytes, any other
byte a copy of bytes unpacked before.

Open3D reads these files too, but not strictly: from a truncated ASCII file it returns memory that
was never written, and zeros for words that are not numbers. Here damaged files are refused.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from flowplan.utils.checks import FloatArray

TYPES = {"F": "f", "I": "i", "U": "u"}
"""numpy's letters for the header's types."""
LARGEST = 100_000_000
"""Files of more points are not read."""
LONGEST_HEADER = 100_000
"""Bytes within which the header's DATA line must come."""


def read_pcd(path: Path) -> dict[str, FloatArray]:
    """The fields (P,) of a cloud by name, such as "x" and "normal_x".

    Fields of several numbers are left out.

    Raises:
        ValueError: one line, if the file is not a complete .pcd file.
    """
    header, body = _header(path)
    try:
        names = header["FIELDS"]
        kinds = [TYPES[t] for t in header["TYPE"]]
        sizes = [int(s) for s in header["SIZE"]]
        counts = [int(c) for c in header.get("COUNT", ["1"] * len(names))]
        fields = zip(kinds, sizes, counts, strict=True)
        dtypes = [np.dtype((f"<{kind}{size}", (count,))) for kind, size, count in fields]
        points = int(header["POINTS"][0])
        layout = header["DATA"][0]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: not a .pcd header ({error}); export it again") from None
    if len(names) != len(kinds) or not 0 < points <= LARGEST:
        raise ValueError(
            f"{path}: POINTS: expected 1 to {LARGEST} points of {len(names)} fields, got {points}"
        )
    try:
        table = _columns(body, layout, dtypes, points)
    except (ValueError, IndexError, struct.error) as error:
        raise ValueError(f"{path}: {layout} data: {error}; export it again") from None
    return {n: t[:, 0].astype(float) for n, t in zip(names, table, strict=True) if t.shape[1] == 1}


def _header(path: Path) -> tuple[dict[str, list[str]], bytes]:
    """The words of each header line by its first word, and the data after the header."""
    content = path.read_bytes()
    header: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in header:
        end = content.find(b"\n", at)
        if end < 0 or end > LONGEST_HEADER:
            raise ValueError(f"{path}: no DATA line; not a .pcd file, or a damaged one")
        words = content[at:end].decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
        at = end + 1
    return header, content[at:]


def _columns(body: bytes, layout: str, dtypes: list[np.dtype], points: int) -> list[np.ndarray]:
    """One array (P, count) per field."""
    counts = [d.shape[0] for d in dtypes]
    size = sum(d.itemsize for d in dtypes)
    if layout == "ascii":
        numbers = np.array(body.split(), float).reshape(points, sum(counts))
        return np.split(numbers, np.cumsum(counts)[:-1], axis=1)
    if layout == "binary":
        if len(body) < points * size:
            raise ValueError(f"expected {points * size} bytes, got {len(body)}")
        table = np.frombuffer(body, np.dtype([(str(i), d) for i, d in enumerate(dtypes)]), points)
        return [table[str(i)] for i in range(len(dtypes))]
    if layout == "binary_compressed":
        # Sizes of the packed and the unpacked data, then one block per field.
        packed, unpacked = struct.unpack("<II", body[:8])
        if unpacked != points * size:
            raise ValueError(f"expected {points * size} bytes unpacked, the file says {unpacked}")
        plain = _unpack_lzf(body[8 : 8 + packed], unpacked)
        ends = np.cumsum([points * d.itemsize for d in dtypes])
        columns = []
        for end, dtype in zip(ends, dtypes, strict=True):
            block = plain[end - points * dtype.itemsize : end]
            columns.append(np.frombuffer(block, dtype.base).reshape(points, -1))
        return columns
    raise ValueError("expected ascii, binary or binary_compressed")


def _unpack_lzf(packed: bytes, size: int) -> bytes:
    """The `size` bytes that LZF packed."""
    out = bytearray()
    at = 0
    while at < len(packed) and len(out) < size:
        control = packed[at]
        at += 1
        # Literal bytes.
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        # A copy: three bits of length (7 means that another byte follows), 13 bits of distance.
        length, back = control >> 5, (control & 31) << 8
        if length == 7:
            length += packed[at]
            at += 1
        start = len(out) - (back + packed[at]) - 1
        at += 1
        if start < 0:
            raise ValueError("damaged compression")
        for i in range(start, start + length + 2):  # byte by byte: a copy may overlap itself
            out.append(out[i])
    if len(out) != size:
        raise ValueError(f"expected {size} bytes unpacked, got {len(out)}")
    return bytes(out)
