"""Damaged files: random edits of whole ones, some of them below their containers' checksums."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

WORDS = (
    b"NaN", b"-Infinity", b"1e999", b"1e30", b"-1", b"0", b"9" * 400, b"4294967295", b"1e-320",
    b"null", b"true", b'""', b"{}", b"[]", b"[" * 2000, b"{" * 50, b"[[[]]]", b"\x00", b"\xff\xfe",
    b"../outside.txt", b"/etc/hostname", b"file:///etc/hostname", b"package://../x", b"%s%n", b"\n",
    b"&a [*a]", b"*a", b"!!python/object:os.system", b"<!DOCTYPE r>", b"${x}", b"'", b'"', b" ",
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Edit = Callable[[bytes, np.random.Generator], bytes]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The data after one to four random edits."""
    for _ in range(min(int(rng.geometric(0.6)), 4)):
        edit = EDITS[int(rng.integers(len(EDITS)))]
        data = edit(data, rng) if data else b"x"
    return data


def _at(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data))) if data else 0


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    i = _at(data, rng)
    return data[:i] + bytes([data[i] ^ (1 << int(rng.integers(8)))]) + data[i + 1 :]


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _at(data, rng)]


def _drop(data: bytes, rng: np.random.Generator) -> bytes:
    i = _at(data, rng)
    return data[:i] + data[i + int(rng.integers(1, 64)) :]


def _repeat(data: bytes, rng: np.random.Generator) -> bytes:
    i = _at(data, rng)
    piece = data[i : i + int(rng.integers(1, 200))]
    return data[:i] + piece * int(rng.integers(2, 20)) + data[i:]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    i = _at(data, rng)
    return data[:i] + WORDS[int(rng.integers(len(WORDS)))] + data[i:]


def _replace_number(data: bytes, rng: np.random.Generator) -> bytes:
    """A run of digits, or four bytes, replaced by an extreme number."""
    i = _at(data, rng)
    end = i
    while end < len(data) and data[end : end + 1] in b"0123456789.":
        end += 1
    if end > i:
        return data[:i] + WORDS[int(rng.integers(9))] + data[end:]
    number = NUMBERS[int(rng.integers(len(NUMBERS)))]
    return data[:i] + struct.pack("<I", number) + data[i + 4 :]


def _replace_text(data: bytes, rng: np.random.Generator) -> bytes:
    """What stands between two quotes replaced by a word."""
    quotes = [i for i, byte in enumerate(data[:20_000]) if byte == 34]
    if len(quotes) < 2:
        return _insert(data, rng)
    k = int(rng.integers(len(quotes) - 1))
    word = WORDS[int(rng.integers(len(WORDS)))]
    return data[: quotes[k] + 1] + word + data[quotes[k + 1] :]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    """Two pieces in each other's place."""
    i, j = sorted((_at(data, rng), _at(data, rng)))
    n = int(rng.integers(1, 40))
    return data[:i] + data[j : j + n] + data[i + n : j] + data[i : i + n] + data[j + n :]


EDITS: tuple[Edit, ...] = (
    _flip, _flip, _cut, _drop, _repeat, _insert, _replace_number, _replace_number, _replace_text,
    _swap,
)  # fmt: skip


def damaged_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """An archive with damaged members or names and right checksums, or damaged as a whole."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    names = list(members)
    for _ in range(int(rng.integers(1, 4))):
        name = names[int(rng.integers(len(names)))]
        kind = rng.random()
        if kind < 0.15:
            members.pop(name, None)
        elif kind < 0.3:
            members[name] = (
                members[names[int(rng.integers(len(names)))]] if name in members else b""
            )
        elif name in members and kind < 0.6:  # the header alone
            head, rest = members[name][:128], members[name][128:]
            members[name] = damaged(head, rng) + rest
        elif name in members:
            members[name] = damaged(members[name], rng)
        members = {k: v for k, v in members.items() if v is not None}
        names = list(members) or ["a.npy"]
        members.setdefault(names[0], b"")
    out = io.BytesIO()
    method = [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA][
        int(rng.choice(3, p=[0.8, 0.15, 0.05]))
    ]
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def damaged_glb(data: bytes, rng: np.random.Generator) -> bytes:
    """A .glb with a damaged document in a whole container, or damaged as a whole."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    (size,) = struct.unpack_from("<I", data, 12)
    text = damaged_json(data[20 : 20 + size], rng)
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def damaged_json(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with values replaced by others, or damaged as text."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    value = json.loads(data)
    for _ in range(int(rng.integers(1, 4))):
        _change(value, rng)
    return json.dumps(value).encode()


OTHER = (None, True, -1, 0, 10**9, 10**39, 1e300, float("nan"), "", "x", "../outside.txt",
         "/etc/hostname", [], {}, [[]], [1, 2, 3], {"a": 1}, "9" * 400)  # fmt: skip


def _change(value: object, rng: np.random.Generator) -> None:
    """Replace, remove or repeat a value somewhere inside."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))  # type: ignore[arg-type]
    if not keys:
        return
    key = keys[int(rng.integers(len(keys)))]
    inner = value[key]  # type: ignore[index]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
        _change(inner, rng)
    elif rng.random() < 0.2:
        del value[key]  # type: ignore[attr-defined]
    else:
        value[key] = copy.deepcopy(OTHER[int(rng.integers(len(OTHER)))])  # type: ignore[index]


def damaged_png(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG with a damaged header or pixels and right checksums, or damaged as a whole."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    at, pieces = 8, [data[:8]]
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if rng.random() < 0.4:
            body = damaged(body, rng)[: max(size, 1) * 4]
        crc = zlib.crc32(kind + body)
        pieces.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc))
        at += 12 + size
    return b"".join(pieces)


def damaged_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file with a damaged header of the right length, or damaged as a whole."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    (size,) = struct.unpack_from("<Q", data)
    head, body = data[8 : 8 + size], data[8 + size :]
    if rng.random() < 0.5:
        values = json.loads(head)
        text = values.get("__metadata__", {})
        if text and rng.random() < 0.7:
            key = sorted(text)[int(rng.integers(len(text)))]
            text[key] = damaged(text[key].encode(), rng).decode("latin1")
        else:
            _change(values, rng)
        head = json.dumps(values).encode()
    else:
        body = damaged(body, rng)[: len(body)].ljust(len(body), b"\0")
    return struct.pack("<Q", len(head)) + head + body
