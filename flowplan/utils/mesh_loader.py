"""Triangles of mesh files by trimesh, after budgets that no small file can exceed.

glTF names its data: a few kilobytes can ask for a mesh a million times, or for an accessor of a
billion zeros. Its document is looked at before trimesh reads it. Materials and images are not read.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.utils import text_files
from flowplan.utils.files import read_bytes, require_file

LARGEST_FILE = 2_000_000_000
"""Mesh files of more bytes are not opened."""
MOST_NODES = 4000
"""Nodes of a glTF document; the time to read them grows with the square."""
MOST_NUMBERS = 60_000_000
"""Numbers in all accessors of a glTF document, and corners of faces of all its nodes."""
GLTF = (".glb", ".gltf")


def load_vertices(path: Path) -> NDArray[np.float64]:
    """Vertices (V, 3) of all parts of a mesh file.

    Raises:
        ValueError: one line that names the file, for a document beyond the budgets.
        Exception: whatever trimesh raises.
    """
    vertices: NDArray[np.float64] = np.asarray(load(path).to_mesh().vertices, float)
    return vertices


def load(path: Path, contents: bytes | None = None) -> trimesh.Scene:
    """The parts of a mesh file, in the file's units and axes, without materials.

    Args:
        path: of the file.
        contents: to be read in place of the file's.

    Raises:
        ValueError: one line that names the file, for a document beyond the budgets.
        Exception: whatever trimesh raises.
    """
    kind = path.suffix.lower()
    if contents is None:
        if kind in GLTF:
            check_gltf(path)
        else:
            require_file(path, largest=LARGEST_FILE)
    with _quiet():
        if contents is not None:
            source: Any = io.BytesIO(contents)
            return trimesh.load_scene(
                source, file_type=kind[1:], process=False, skip_materials=True
            )
        return trimesh.load_scene(path, process=False, skip_materials=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without trimesh's log: tracebacks of faults that become one line."""
    logger = logging.getLogger("trimesh")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_gltf(path: Path) -> dict[str, Any]:
    """The document of a .glb or .gltf file, if it is within the budgets.

    Raises:
        ValueError: one line that names the file.
    """
    document = gltf_document(path, read_bytes(path, largest=LARGEST_FILE))
    lists = {key: _objects(path, document, key) for key in ("nodes", "meshes", "accessors")}
    if len(lists["nodes"]) > MOST_NODES:
        raise _beyond(path, "nodes", len(lists["nodes"]), MOST_NODES)
    # Accessors without data are zeros of any number.
    numbers = sum(16 * _count(path, a) for a in lists["accessors"] if "bufferView" not in a)
    if numbers > MOST_NUMBERS:
        raise _beyond(path, "numbers without data", numbers, MOST_NUMBERS)
    # Every node makes a copy of its mesh.
    sizes = [_corners(path, mesh, lists["accessors"]) for mesh in lists["meshes"]]
    corners = 0
    for node in lists["nodes"]:
        mesh = node.get("mesh")
        if isinstance(mesh, int) and 0 <= mesh < len(sizes):
            corners += sizes[mesh]
    if corners > MOST_NUMBERS:
        raise _beyond(path, "corners of faces", corners, MOST_NUMBERS)
    _refuse_shared_nodes(path, lists["nodes"])
    return document


def gltf_document(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object of a .glb or .gltf file's content.

    Raises:
        ValueError: one line that names the file.
    """
    text = gltf_chunks(path, data)[0] if data[:4] == b"glTF" else data
    try:
        document = text_files.parse_json(text_files.decode(text, "it"), "it")
    except ValueError as error:
        raise ValueError(
            f"{path}: expected glTF's JSON, got something else ({error}); export it again"
        ) from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(document).__name__}")
    asset = document.get("asset")
    if not isinstance(asset, dict):
        raise ValueError(
            f"{path}: asset: expected an object with a version, got {type(asset).__name__}; "
            "export it again"
        )
    return document


def gltf_chunks(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON chunk of a .glb file and the binary one, if there is one.

    Raises:
        ValueError: one line that names the file.
    """
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        size, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + size > len(data):
            raise ValueError(
                f"{path}: a chunk ends at byte {at + 8 + size} of {len(data)}; the file is cut off"
            )
        found.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    if b"JSON" not in found:
        raise ValueError(f"{path}: expected a JSON chunk, got none; export it again")
    return found[b"JSON"], found.get(b"BIN\0")


def _objects(path: Path, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects in a document; empty where it has none."""
    values = document.get(key) or []
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        raise ValueError(f"{path}: {key}: expected a list of objects; export it again")
    return values


def _count(path: Path, accessor: dict[str, Any]) -> int:
    """The number of elements of an accessor."""
    count = accessor.get("count", 0)
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"{path}: accessors: count: got {count!r}, expected a whole number")
    return count


def _corners(path: Path, mesh: dict[str, Any], accessors: list[dict[str, Any]]) -> int:
    """The number of corners of a mesh's faces."""
    total = 0
    for primitive in _objects(path, mesh, "primitives"):
        attributes = primitive.get("attributes")
        position = attributes.get("POSITION") if isinstance(attributes, dict) else None
        at = [i for i in (primitive.get("indices"), position) if isinstance(i, int)]
        total += max((_count(path, accessors[i]) for i in at if 0 <= i < len(accessors)), default=0)
    return total


def _refuse_shared_nodes(path: Path, nodes: list[dict[str, Any]]) -> None:
    """Refuse nodes with two parents: the specification asks for trees, and rings have no end."""
    seen: set[Any] = set()
    for node in nodes:
        children = node.get("children") or []
        if not isinstance(children, list) or not all(isinstance(c, int) for c in children):
            raise ValueError(f"{path}: nodes: children: expected a list of numbers")
        twice = [c for c in children if c in seen] or len(set(children)) < len(children)
        if twice:
            raise ValueError(f"{path}: nodes: one has several parents; export it again")
        seen.update(children)


def _beyond(path: Path, what: str, count: int, most: int) -> ValueError:
    return ValueError(f"{path}: has {count} {what}, expected at most {most}; simplify it first")
