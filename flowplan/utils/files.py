"""Files written whole or not at all, folders of one writer, and names that stay in their folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LARGEST_FILE = 4 * 2**30
"""Files of more bytes are not read as a whole."""
_LONGEST_NAME = 4000
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)


def check_folder(path: Path) -> None:
    """Refuse a file whose folder does not exist."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: its folder does not exist; create it first")


def inside(folder: Path, name: str, where: object, *, allow_outside: bool = False) -> Path:
    """The path of a file that another file in `folder` names, which must not lie outside of it.

    Names are compared, not what links in the folder point to: those are the owner's own choice.
    Backslashes separate folders, as Windows programs write them, if no file is called so.

    Args:
        folder: that the name is relative to.
        name: as written in the file.
        where: place of the name, for the error.
        allow_outside: accept names that lead out of the folder.

    Raises:
        ValueError: one line that names the place.
    """
    if "\0" in name or len(name) > _LONGEST_NAME:
        raise ValueError(f"{where}: {name[:60]!r}... is not the name of a file; correct it")
    if "\\" in name and not _exists(folder / name):
        name = name.replace("\\", "/")
    path = folder / name
    if not allow_outside and not is_inside(folder, path):
        raise ValueError(
            f"{where}: {name!r} lies outside of the folder {folder}; "
            "move the file into it and give its path relative to it, or pass allow_outside=True"
        )
    return path


def is_inside(folder: Path, path: Path) -> bool:
    """True if a path, by its name, lies in a folder."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def require_file(path: Path, *, largest: int = LARGEST_FILE, kind: str = "") -> None:
    """Refuse a path that is no regular file (a folder, pipe or device), or a file that is too big.

    Args:
        path: of the file.
        largest: bytes; bigger files are refused.
        kind: of the content, for the error.

    Raises:
        ValueError: one line that names the file.
    """
    try:
        regular, exists = path.is_file(), path.exists()
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)[:200]}: cannot be read ({error})") from None
    if not exists:
        raise ValueError(f"{path}: cannot be read: no such file; check the path")
    if not regular:
        raise ValueError(f"{path}: expected a file, got a folder, pipe or device")
    size = path.stat().st_size
    if size > largest:
        raise ValueError(
            f"{path}: has {size / 1e6:.0f} MB, expected at most {largest / 1e6:.0f} MB{kind}; "
            "is it the right file?"
        )


def read_bytes(path: Path, *, largest: int = LARGEST_FILE, kind: str = "") -> bytes:
    """The content of a regular file.

    Raises:
        ValueError: one line that names the file.
    """
    require_file(path, largest=largest, kind=kind)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check the path") from None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` once the block has ended without an error.

    An existing file is replaced in one step; after an error it is still there, unchanged. Where the
    file system allows it, the new file has no name until it is complete, so that a killed process
    leaves nothing behind; elsewhere the next writer of `path` removes what a dead one left.

    Raises:
        ValueError: If the folder of `path` does not exist.
        OSError: That names `path`, if it cannot be written: no space left, read-only, ...
    """
    path = Path(path)
    check_folder(path)
    _remove_leftovers(path)
    # In the same folder, hence on the same file system: replacing is atomic there.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with naming(path), _new_file(temporary) as (file, named):
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not named:
                _give_name(file, temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system that name no file, such as no space left, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not _nameless(error, path):
            raise
        text = error.strerror or os.strerror(error.errno)
        raise type(error)(error.errno, text, str(path)) from None


def _nameless(error: OSError, path: Path) -> bool:
    """True if an error names no file, or a temporary one of `path`."""
    return error.filename is None or (
        f".{path.name}." in str(error.filename) or "/proc/self/fd/" in str(error.filename)
    )


@contextmanager
def _new_file(temporary: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """A new file in the folder of `temporary`, and whether it has that name already."""
    flags = getattr(os, "O_TMPFILE", None)
    try:
        handle = -1 if flags is None else os.open(temporary.parent, flags | os.O_RDWR, 0o666)
    except OSError:  # not on every file system
        handle = -1
    if handle < 0:
        with open(temporary, "xb") as file:
            yield file, True
    else:
        with os.fdopen(handle, "w+b") as file:
            yield file, False


def _give_name(file: BinaryIO, temporary: Path) -> None:
    """Link an unnamed file to a name."""
    folder = os.open(temporary.parent, os.O_RDONLY)
    try:
        # With a folder, Python calls linkat, which follows the link in /proc to the file.
        source = f"/proc/self/fd/{file.fileno()}"
        os.link(source, temporary.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose writers are dead."""
    start, end = f".{path.name}.", ".tmp"
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(start) and name.endswith(end):
                process = name[len(start) : -len(end)].partition("-")[0]
                if process.isdecimal() and not _alive(int(process)):
                    (path.parent / name).unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclusive use of a folder by this process, so that two runs do not mix their files.

    The lock ends with the process, however that ends. File systems without locks have none.

    Raises:
        ValueError: If another process uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                raise ValueError(
                    f"{folder}: another run writes to this folder; wait for it, or give another one"
                ) from None
        yield
    finally:
        os.close(handle)
