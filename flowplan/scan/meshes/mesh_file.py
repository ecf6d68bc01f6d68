"""Mesh files to scene objects.

A file does not state its unit, except for glTF, whose unit is the meter. A largest side above three
meters is far more often a model in millimeters or inches than a thing to be handled, so the reader
warns about it, and still keeps meters: a wrong guess would scale the world silently, while a giant
object only fails to be reachable. Pass `unit` to decide.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import pose
from flowplan.motion import Progress, silent
from flowplan.scan.meshes import polygons, repair, requirements
from flowplan.scan.meshes.surface import decimated, from_open3d, to_open3d
from flowplan.scene import SceneObject
from flowplan.utils import bounds, checks, mesh_loader
from flowplan.utils.bounds import Interval
from flowplan.utils.files import require_file

Unit = Literal["m", "cm", "mm", "in"]
METERS: dict[str, float] = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "in": 0.0254}
SUFFIXES = (".obj", ".ply", ".stl", ".glb", ".gltf")
LONGEST_HEADER = 4_000_000
"""Bytes of a .ply file in which its header ends."""


@dataclass(frozen=True)
class MeshOptions:
    """Conversion of a mesh file to an object."""

    repair: Literal["auto", "close", "none"] = "auto"
    """auto: weld, drop degenerate faces, orient, close holes smaller than a tenth of the size, and
    warn if the mesh is still open or crosses itself. close: close every hole, and build a new
    surface on a grid if the mesh is still open or crosses itself. none: keep it as it is."""
    faces: Annotated[int, Interval(20, 1_000_000_000)] = 50_000
    """Meshes are decimated to about this many faces."""
    largest: Annotated[int, Interval(20, 1_000_000_000)] = 10_000_000
    """Meshes with more faces than this are refused."""
    cells: Annotated[int, Interval(8, 256)] = 96
    """Grid cells along the longest side of a new surface; memory grows with their cube."""

    def __post_init__(self) -> None:
        bounds.check(self)


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
    """An object from a .obj, .ply, .stl, .glb or .gltf file; its parts become one mesh.

    Args:
        path: the file.
        unit: unit of the coordinates. Defaults to meters, with a warning if the size is unlikely.
        up: axis of the file that points up. Defaults to y for glTF, as specified there, else to z.
        name: defaults to the file's name without its suffix.
        X_world_object: (4, 4) pose. Defaults to the identity. The object's frame is the file's,
            with z up.
        options: repair and size.
        progress: receives the fraction done and the step.

    Raises:
        ValueError: one line that names the file, the fault and the remedy.
    """
    path = Path(path)
    if unit is not None:
        checks.choice("unit", unit, tuple(METERS))
    if up is not None:
        checks.choice("up", up, ("y", "z"))
    progress(0.0, f"reading {path.name}")
    mesh = read_mesh(path, options.largest)
    if up == "y" or (up is None and path.suffix.lower() in (".glb", ".gltf")):
        mesh = trimesh.Trimesh(mesh.vertices[:, [0, 2, 1]] * [1, -1, 1], mesh.faces, process=False)
    mesh = in_meters(path, mesh, unit)
    progress(0.3, f"repairing {len(mesh.faces)} faces")
    mesh = _repaired(path, mesh, options, progress)
    progress(1.0, "loaded")
    X = pose() if X_world_object is None else checks.poses("X_world_object", X_world_object)
    return SceneObject(name or path.stem, mesh, X)


def read_mesh(path: Path, largest: int) -> trimesh.Trimesh:
    """The triangles of all parts of a file, unchanged.

    Raises:
        ValueError: if the file cannot be read or has no faces, more than `largest`, or broken ones.
    """
    checks.choice(f"{path}: file type", path.suffix.lower(), SUFFIXES)
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size > mesh_loader.LARGEST_FILE:
        raise ValueError(
            f"{path}: has {path.stat().st_size / 1e9:.1f} GB; "
            f"decimate it to below {largest} faces first"
        )
    require_file(path)
    _refuse_giant(path, _promised_faces(path), largest)
    contents = _rewritten(path)
    if path.suffix.lower() in mesh_loader.GLTF:
        mesh_loader.check_gltf(path)
    try:
        mesh = _triangles(path, contents)
    except Exception as error:  # the many readers of trimesh raise anything on damaged files
        raise ValueError(
            f"{path}: not readable as {path.suffix} ({first_line(error)}); export it again"
        ) from None
    _refuse_giant(path, len(mesh.faces), largest)
    requirements.require_surface(str(path), mesh)
    return mesh


def _triangles(path: Path, contents: bytes | None) -> trimesh.Trimesh:
    """The triangles of all parts of a file, or of the bytes that stand for it."""
    scene = mesh_loader.load(path, contents)
    mesh = scene.to_mesh()
    if path.suffix.lower() == ".ply":
        for part in scene.geometry.values():
            mesh = polygons.triangulated_ply(part.metadata.get("_ply_raw")) or mesh
    return trimesh.Trimesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), process=False)


def _rewritten(path: Path) -> bytes | None:
    """The bytes to read instead of the file's, if trimesh would misread it.

    Raises:
        ValueError: if an .stl file was cut short.
    """
    if path.suffix.lower() == ".obj":
        try:
            return polygons.triangulated_obj(path)
        except ValueError as error:
            raise ValueError(f"{path}: not readable as .obj ({first_line(error)})") from None
    return _whole_stl(path) if path.suffix.lower() == ".stl" else None


def _whole_stl(path: Path) -> bytes | None:
    """A binary .stl file without what follows its last face; None if nothing does.

    Raises:
        ValueError: if it ends before its last face.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
        if _is_ascii_stl(head):
            file.seek(max(size - 1024, 0))
            if b"endsolid" not in file.read().lower():
                raise ValueError(
                    f"{path}: was cut short: it does not end with 'endsolid'; export it again"
                )
            return None
        if len(head) < 84:
            raise ValueError(
                f"{path}: was cut short: has {size} bytes, less than the header of an .stl file; "
                "copy or export it again"
            )
        count = int(struct.unpack("<I", head[80:84])[0])
        whole = 84 + 50 * count
        if size < whole or (count == 0 and size > whole):
            raise ValueError(
                f"{path}: was cut short or damaged: its header promises {count} faces in {whole} "
                f"bytes, it has {size} bytes; copy or export it again"
            )
        if size == whole:
            return None
        file.seek(0)
        return file.read(whole)


def _is_ascii_stl(head: bytes) -> bool:
    """True if an .stl file that starts so is text; some binary headers start with solid, too."""
    return head.lstrip().lower().startswith(b"solid") and b"\0" not in head


def ply_header(path: Path) -> list[list[bytes]]:
    """The words of each line of a .ply file's header; comments are left out."""
    with path.open("rb") as file:
        data = file.read(LONGEST_HEADER)
    lines = data.split(b"end_header", 1)[0].splitlines()
    words = [line.split() for line in lines]
    return [w for w in words if w and w[0] not in (b"comment", b"obj_info")]


def ply_faces(path: Path) -> int:
    """The number of faces that a .ply file's header declares."""
    for words in ply_header(path):
        if words[:2] in ([b"element", b"face"], [b"element", b"tristrips"]):
            return int(words[2]) if len(words) == 3 and words[2].isdigit() else 0
    return 0


def first_line(error: Exception) -> str:
    """The first line of a library's error, cut to 120 characters."""
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


def in_meters(path: Path, mesh: trimesh.Trimesh, unit: Unit | None) -> trimesh.Trimesh:
    """The mesh scaled by its unit. Defaults to meters, with a warning if the size is unlikely."""
    if unit is None:
        warn_of_unit(path, float(mesh.extents.max()))
        return mesh
    if unit == "m":
        return mesh
    return trimesh.Trimesh(mesh.vertices * METERS[unit], mesh.faces, process=False)


def warn_of_unit(path: Path, extent: float) -> None:
    """Warn if a largest side of `extent` meters is unlikely for a thing to be handled."""
    guess = repair.likely_unit(extent)
    if guess != "m":
        warnings.warn(
            f"{path}: is {extent:.4g} m large if its unit is the meter; looks like {guess}: "
            f"pass unit={guess!r} ({extent * METERS[guess]:.3g} m), or unit='m' to keep it",
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
    """The mesh welded, decimated and closed as the options ask; warns of remaining faults."""
    if len(mesh.faces) > 10 * options.faces:
        # Collapsing millions of edges takes minutes. Merging vertices cell by cell takes seconds,
        # and the cells are small enough to leave the choice of details to the edge collapse below:
        # a surface on a grid of cells c has about two faces per area c^2.
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
        mesh = repair.outward(repair.filled(mesh, 0.1 * float(mesh.extents.max())))
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
            f"{path}: {fault}; pass MeshOptions(repair='close') to close it, "
            "or repair='none' to leave it so",
            stacklevel=3,
        )
    return mesh


def _promised_faces(path: Path) -> int:
    """Number of faces that the file's header declares; 0 if it declares none."""
    with path.open("rb") as file:
        head = file.read(4096)
    if path.suffix.lower() == ".stl" and len(head) >= 84:
        count = int(struct.unpack("<I", head[80:84])[0])
        if path.stat().st_size == 84 + 50 * count:  # the file is binary
            return count
    return ply_faces(path) if path.suffix.lower() == ".ply" else 0


def _refuse_giant(path: Path, faces: int, largest: int) -> None:
    if faces > largest:
        raise ValueError(
            f"{path}: faces: has {faces}, expected at most {largest}; "
            "decimate it first, or raise MeshOptions.largest"
        )
