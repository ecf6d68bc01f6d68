"""Mesh files to scene objects.

A file says nothing about its unit (except glTF, whose unit is the metre). A largest side above three metres is far more
often a millimetre or inch model than a thing to be handled, so it is warned about, and kept in metres all the same:
a wrong guess would scale the world silently, while a giant object only fails to be reachable. Pass `unit` to decide.
"""

from __future__ import annotations

import logging
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import pose
from flowplan.motion import Progress, silent
from flowplan.scan.meshes import repair
from flowplan.scan.meshes.surface import decimated, from_open3d, to_open3d
from flowplan.scene import SceneObject
from flowplan.utils import checks

Unit = Literal["m", "cm", "mm", "in"]
METRES: dict[str, float] = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "in": 0.0254}
SUFFIXES = (".obj", ".ply", ".stl", ".glb", ".gltf")
LARGEST_FILE = 2_000_000_000
"""Bytes beyond which a mesh file is not opened."""


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh file becomes an object."""

    repair: Literal["auto", "close", "none"] = "auto"
    """auto: weld, drop degenerate faces, orient, close holes smaller than a tenth of the size, and warn if it still is
    open or crosses itself. close: every hole, and a new surface on a grid if it still is open or crosses itself. none:
    as it is."""
    faces: int = 50_000
    """Meshes are decimated to about this many faces."""
    largest: int = 10_000_000
    """Meshes with more faces than this are refused."""
    cells: int = 96
    """Grid cells along the longest side where a new surface is made."""

    def __post_init__(self) -> None:
        checks.choice("MeshOptions.repair", self.repair, ("auto", "close", "none"))
        for name, least in (("faces", 20), ("largest", 20), ("cells", 8)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"MeshOptions.{name}: expected at least {least}, got {getattr(self, name)}"
                )
        if self.cells > 256:
            raise ValueError(
                f"MeshOptions.cells: expected at most 256, got {self.cells}; the grid grows with its cube"
            )


def load_mesh(
    path: str | Path,
    *,
    unit: Unit | None = None,
    up: Literal["y", "z"] | None = None,
    name: str | None = None,
    X_world_object: ArrayLike | None = None,
    options: MeshOptions = MeshOptions(),
    progress: Progress = silent,
) -> SceneObject:
    """An object from a .obj, .ply, .stl, .glb or .gltf file; a file with several parts becomes one mesh.

    Args:
        unit: of the file's coordinates; metres, with a warning if the size makes that unlikely, if not given.
        up: which axis of the file points up; y for glTF, as its specification says, else z, if not given.
        name: the file's name without its ending, if not given.
        X_world_object: (4, 4) where it is; the identity if not given. The object's frame is the file's, with z up.

    Raises:
        ValueError: one line that names the file, what is wrong with it and what to do.
    """
    path = Path(path)
    if unit is not None:
        checks.choice("unit", unit, tuple(METRES))
    if up is not None:
        checks.choice("up", up, ("y", "z"))
    progress(0.0, f"reading {path.name}")
    mesh = read_mesh(path, options.largest)
    if up == "y" or (up is None and path.suffix.lower() in (".glb", ".gltf")):
        mesh = trimesh.Trimesh(mesh.vertices[:, [0, 2, 1]] * [1, -1, 1], mesh.faces, process=False)
    mesh = in_metres(path, mesh, unit)
    progress(0.3, f"repairing {len(mesh.faces)} faces")
    mesh = _repaired(path, mesh, options, progress)
    progress(1.0, "loaded")
    pose_given = (
        pose() if X_world_object is None else checks.poses("X_world_object", X_world_object)
    )
    return SceneObject(name or path.stem, mesh, pose_given)


def read_mesh(path: Path, largest: int) -> trimesh.Trimesh:
    """The triangles of a file as they are, several parts put together.

    Raises:
        ValueError: when the file cannot be read, has no faces, more than `largest`, or broken ones.
    """
    checks.choice(f"{path}: file type", path.suffix.lower(), SUFFIXES)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(
            f"{path}: has {path.stat().st_size / 1e9:.1f} GB; decimate it to below {largest} faces first"
        )
    _refuse_giant(path, _promised_faces(path), largest)
    logger = logging.getLogger("trimesh")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs the tracebacks of what we report in one line
    try:
        mesh = trimesh.load_scene(path, process=False).to_mesh()
        mesh = trimesh.Trimesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), process=False)
    except Exception as error:  # trimesh and its readers raise whatever they meet in a damaged file
        raise ValueError(
            f"{path}: not readable as {path.suffix} ({first_line(error)}); export it again"
        ) from None
    finally:
        logger.setLevel(level)
    _refuse_giant(path, len(mesh.faces), largest)
    repair.require_surface(str(path), mesh)
    return mesh


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for a line of ours."""
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


def in_metres(path: Path, mesh: trimesh.Trimesh, unit: Unit | None) -> trimesh.Trimesh:
    """The mesh scaled by its unit, or as it is with a warning if its size makes metres unlikely."""
    if unit is None:
        warn_of_unit(path, float(mesh.extents.max()))
        return mesh
    return (
        mesh
        if unit == "m"
        else trimesh.Trimesh(mesh.vertices * METRES[unit], mesh.faces, process=False)
    )


def warn_of_unit(path: Path, extent: float) -> None:
    """Warn if something of this largest side, read as metres, is hardly to be handled."""
    guess = repair.likely_unit(extent)
    if guess != "m":
        warnings.warn(
            f"{path}: is {extent:.4g} m large if its unit is the metre; looks like {guess}: pass unit={guess!r} "
            f"({extent * METRES[guess]:.3g} m), or unit='m' to keep it",
            stacklevel=4,
        )
    elif extent < 2e-3:
        warnings.warn(
            f"{path}: is only {1e3 * extent:.2g} mm large; pass unit= to say what it is",
            stacklevel=4,
        )


def _repaired(
    path: Path, mesh: trimesh.Trimesh, options: MeshOptions, progress: Progress
) -> trimesh.Trimesh:
    if len(mesh.faces) > 10 * options.faces:
        # Collapsing millions of edges takes minutes; merging vertices cell by cell takes seconds and leaves the details
        # that the edge collapse below decides on. A surface on a grid of cells c has about two faces to an area c^2.
        progress(0.4, "merging vertices")
        cell = float(np.sqrt(2 * mesh.area / (6 * options.faces)))
        mesh = from_open3d(to_open3d(mesh).simplify_vertex_clustering(cell))
    if options.repair != "none":
        progress(0.5, "welding and orienting")
        mesh = repair.cleaned(mesh)
        if len(mesh.faces) == 0:
            raise ValueError(f"{path}: faces: none has an area; export it again")
    progress(0.6, "decimating")
    mesh = decimated(mesh, options.faces)
    if options.repair == "none":
        return mesh
    progress(0.8, "closing holes")
    if options.repair == "close":
        try:
            return repair.closed(mesh, cells=options.cells, faces=options.faces)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if not mesh.is_watertight:
        mesh = repair.filled(mesh, 0.1 * float(mesh.extents.max()))
    report = repair.inspect_mesh(mesh)
    fault = ""
    if not report.watertight:
        fault = f"is open ({report.holes} holes, {report.components} parts), so it has no inside"
    elif report.crossings:
        fault = (
            f"crosses itself ({report.crossings} edges pass through faces), so its volume is wrong"
        )
    if fault:
        warnings.warn(
            f"{path}: {fault}; pass MeshOptions(repair='close') to make it sound, or repair='none' to leave it so",
            stacklevel=3,
        )
    return mesh


def _promised_faces(path: Path) -> int:
    """How many faces the header speaks of, 0 where it does not."""
    with path.open("rb") as file:
        head = file.read(4096)
    if path.suffix.lower() == ".stl" and len(head) >= 84:
        count = int(struct.unpack("<I", head[80:84])[0])
        if path.stat().st_size == 84 + 50 * count:  # binary, that is
            return count
    if path.suffix.lower() == ".ply":
        for line in head.splitlines():
            words = line.split()
            if words[:2] == [b"element", b"face"] and len(words) == 3 and words[2].isdigit():
                return int(words[2])
    return 0


def _refuse_giant(path: Path, faces: int, largest: int) -> None:
    if faces > largest:
        raise ValueError(
            f"{path}: faces: has {faces}, expected at most {largest}; decimate it first, or raise MeshOptions.largest"
        )
