"""Files written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def check_folder(path: Path) -> None:
    """Refuse a file whose folder does not exist."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: its folder does not exist; create it first")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` once the block has ended without an error.

    An existing file is replaced in one step; after an error it is still there, unchanged.

    Raises:
        ValueError: If the folder of `path` does not exist.
    """
    path = Path(path)
    check_folder(path)
    # In the same folder, hence on the same file system: replacing is atomic there.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
