"""Fixed obstacles of a cell from a file: walls, a cage, a shelf.

A .toml file lists boxes and meshes in the world frame, in meters and radians:

    [[obstacle]]
    name = "wall"
    size = [0.02, 2.0, 1.5]   # of a box about its frame's origin
    xyz = [-0.4, 0.0, 0.75]

    [[obstacle]]
    name = "cage"
    mesh = "cage.stl"         # in this file's folder
    unit = "mm"
    rpy = [0.0, 0.0, 1.5708]

A mesh file is one obstacle, where its coordinates put it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import matrix_from_rpy, pose
from flowplan.scan.meshes.mesh_file import METERS, SUFFIXES, MeshOptions, Unit, load_mesh
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.files import inside
from flowplan.utils.toml_table import Table

LARGEST = 100.0
"""Meters: sides and distances beyond this are in another unit."""


def load_obstacles(path: str | Path, *, unit: Unit | None = None) -> tuple[SceneObject, ...]:
    """Fixed obstacles from a .toml file, or one obstacle from a mesh file.

    Args:
        path: the file.
        unit: unit of a mesh file's coordinates. Defaults to meters; a .toml file states its own.

    Returns:
        Obstacles with different names, world frame, their meshes as they are in the files.

    Raises:
        ValueError: one line that names the file, the field and the fault.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    checks.choice(f"{path}: suffix", suffix, (".toml", *SUFFIXES))
    if suffix != ".toml":
        return (_mesh(path, path.stem, unit or "m"),)
    if unit is not None:
        raise ValueError(f"unit: got {unit!r} for {path}, which states the unit of each mesh")
    # One obstacle a table, each with a name of its own.
    file = Table.read(path, ["obstacle"])
    tables = file.tables("obstacle", ["name"], ["size", "mesh", "unit", "xyz", "rpy"])
    if not tables:
        raise file.error("obstacle", "expected at least one, got none")
    obstacles: list[SceneObject] = []
    for table in tables:
        obstacle = _obstacle(table, path.parent)
        if obstacle.name in [other.name for other in obstacles]:
            raise table.error("name", f"{obstacle.name!r} is there twice; rename one")
        obstacles.append(obstacle)
    return tuple(obstacles)


def _obstacle(table: Table, folder: Path) -> SceneObject:
    """A box or a mesh at its pose."""
    if ("size" in table) == ("mesh" in table):
        raise table.error("size", "expected either size or mesh")
    name = table.text("name")
    # Pose of the obstacle's frame; the identity unless it is given.
    zero = np.zeros(3)
    xyz, rpy = (table.numbers(key, (3,), default=zero) for key in ("xyz", "rpy"))
    if not np.abs(xyz).max() <= LARGEST:
        raise table.error("xyz", f"expected meters up to {LARGEST:g}, got {xyz.tolist()}")
    X = pose(matrix_from_rpy(rpy), xyz)
    if "size" in table:
        size = table.numbers("size", (3,))
        if not (size.min() > 0 and size.max() <= LARGEST):
            raise table.error("size", f"expected meters above 0 up to {LARGEST:g}, got {size}")
        if "unit" in table:
            raise table.error("unit", "belongs to a mesh; give size in meters")
        return SceneObject(name, trimesh.creation.box(size), X)
    mesh_path = inside(folder, table.text("mesh"), f"{table.file}: {name}")
    unit = table.one_of("unit", tuple(METERS)) if "unit" in table else "m"
    return _mesh(mesh_path, name, unit, X)


def _mesh(
    path: Path, name: str, unit: str, X_world_object: np.ndarray | None = None
) -> SceneObject:
    """A mesh as it is in its file: a cage may be open, and needs no inside."""
    options = MeshOptions(repair="none")
    found = load_mesh(path, unit=unit, name=name, X_world_object=X_world_object, options=options)  # type: ignore[arg-type]
    if not np.abs(found.vertices_world).max() <= LARGEST:
        reach = float(np.abs(found.vertices_world).max())
        raise ValueError(
            f"{path}: reaches {reach:.3g} m from the world's origin, more than {LARGEST:g}; "
            "check its unit"
        )
    return found
