"""An articulated object as a URDF with a mesh for every link, for simulators and for
`flowplan.robot.urdf.read_urdf`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import rpy_from_matrix
from generators.data.objects.articulated import ArticulatedObject

DENSITY = 400.0
"""kg/m^3 of the material, between wood and hollow plastics."""


def write_urdf(obj: ArticulatedObject, folder: Path) -> Path:
    """Write `<name>.urdf` and `meshes/*.obj` into `folder` (made if absent) and return the URDF's
    path.

    Every link's mesh is both its visual and its collision shape; a simulator that wants convex
    shapes makes its own. Masses follow from the meshes' volumes, inertias from their boxes. Numbers
    are written in full, so that a reader gets the same poses to rounding.
    """
    folder = Path(folder)
    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    robot = ET.Element("robot", name=obj.name)
    for i, (name, mesh) in enumerate(obj.links.items()):
        link = ET.SubElement(robot, "link", name=name)
        _inertial(link, mesh)
        if len(mesh.faces):
            file = f"meshes/{i:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.obj"
            _write_obj(folder / file, mesh)
            for tag in ("visual", "collision"):
                ET.SubElement(
                    ET.SubElement(ET.SubElement(link, tag), "geometry"), "mesh", filename=file
                )
    for j in obj.joints:
        joint = ET.SubElement(robot, "joint", name=j.name, type=j.kind)
        ET.SubElement(joint, "parent", link=j.parent)
        ET.SubElement(joint, "child", link=j.child)
        rpy = rpy_from_matrix(j.X_parent_joint[:3, :3])
        ET.SubElement(joint, "origin", xyz=_words(j.X_parent_joint[:3, 3]), rpy=_words(rpy))
        if j.kind == "fixed":
            continue
        ET.SubElement(joint, "axis", xyz=_words(j.axis))
        # Effort and speed are a hand's; no law of the object itself bounds them.
        ET.SubElement(
            joint,
            "limit",
            lower=_words([j.lower]),
            upper=_words([j.upper]),
            effort="30",
            velocity="2",
        )
        if j.name in obj.mimic:
            m = obj.mimic[j.name]
            ET.SubElement(
                joint,
                "mimic",
                joint=m.joint,
                multiplier=_words([m.multiplier]),
                offset=_words([m.offset]),
            )
    ET.indent(robot)
    path = folder / f"{obj.name}.urdf"
    ET.ElementTree(robot).write(path, encoding="utf-8", xml_declaration=True)
    return path


def _words(numbers: Iterable[float]) -> str:
    return " ".join(repr(float(x)) for x in numbers)


def _write_obj(path: Path, mesh: trimesh.Trimesh) -> None:
    lines = ["v {:.9g} {:.9g} {:.9g}".format(*v) for v in mesh.vertices]
    lines += ["f {} {} {}".format(*f) for f in mesh.faces + 1]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _inertial(link: ET.Element, mesh: trimesh.Trimesh) -> None:
    """Mass of the closed pieces, spread over the mesh's bounding box; a gram for a link without
    a mesh."""
    center, size, mass = np.zeros(3), np.full(3, 0.01), 0.001
    if len(mesh.faces):
        center, size = mesh.bounds.mean(0), np.maximum(mesh.extents, 1e-3)
        # An imported mesh may be open, its volume then meaningless: between 1 % and all of the box.
        mass = max(
            DENSITY * float(np.clip(abs(mesh.volume), 0.01 * size.prod(), size.prod())), 0.001
        )
    moments = mass / 12 * (np.sum(size**2) - size**2)
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "origin", xyz=_words(center), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=_words([mass]))
    ixx, iyy, izz = (_words([m]) for m in moments)
    ET.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")
