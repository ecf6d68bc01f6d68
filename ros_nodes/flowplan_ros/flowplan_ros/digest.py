"""Digest of a certified plan, which tells it from one that was altered or cut short."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from typing import Any

from flowplan_msgs.msg import CertifiedPlan


def digest(msg: CertifiedPlan) -> str:
    """SHA-256 of every field of a plan but its digest, hexadecimal: the same on every machine.

    It detects a plan that was altered or cut short. It is no signature: anybody can compute it.
    """
    sha = hashlib.sha256()
    for name in msg.get_fields_and_field_types():
        if name != "digest":
            _feed(sha, getattr(msg, name))
    return sha.hexdigest()


def _feed(sha: hashlib._Hash, value: Any) -> None:
    """One field, with its type and length in front so that no two messages read alike."""
    if isinstance(value, array):
        if sys.byteorder == "big":
            value = array(value.typecode, value)
            value.byteswap()
        sha.update(f"{value.typecode}{len(value)}:".encode())
        sha.update(memoryview(value).cast("B"))
    elif isinstance(value, str):
        data = value.encode()
        sha.update(f"s{len(data)}:".encode() + data)
    elif isinstance(value, bool | int):
        sha.update(f"i{int(value)}:".encode())
    elif isinstance(value, float):
        sha.update(b"d" + struct.pack("<d", value))
    elif isinstance(value, list | tuple):
        sha.update(f"l{len(value)}:".encode())
        for item in value:
            _feed(sha, item)
    else:
        fields = value.get_fields_and_field_types()
        sha.update(f"m{len(fields)}:".encode())
        for name in fields:
            _feed(sha, getattr(value, name))
