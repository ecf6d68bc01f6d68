"""An articulated object as a URDF with a mesh for every link, for simulators and for
`flowplan.robot.urdf.read_urdf`."""

from __future__ import annotations

from pathlib import Path

from flowplan.robot import urdf_writer
from generators.data.objects.articulated import ArticulatedObject


def write_urdf(obj: ArticulatedObject, folder: Path) -> Path:
    """Write `<name>.urdf` and `meshes/*.obj` into `folder` (made if absent) and return the URDF's
    path.

    See `flowplan.robot.urdf_writer.write_urdf` for shapes, masses and inertias.
    """
    path = Path(folder) / f"{obj.name}.urdf"
    return urdf_writer.write_urdf(path, obj.name, obj.links, obj.joints, obj.mimic)
