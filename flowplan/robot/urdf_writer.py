"""Links with meshes and the joints between them as a URDF, for simulators and for `read_urdf`."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import rpy_from_matrix
from flowplan.robot.urdf import Joint, Mimic

DENSITY = 400.0
"""kg/m^3 of the material, between wood and hollow plastics."""


def write_urdf(
    path: Path,
    name: str,
    links: Mapping[str, trimesh.Trimesh],
    joints: Sequence[Joint],
    mimic: Mapping[str, Mimic] | None = None,
    *,
    meshes: str = "meshes",
) -> Path:
    """Write a URDF, and its meshes as .obj files into a folder beside it (made if absent).

    Every link's mesh is both its visual and its collision shape; a simulator that wants convex
    shapes makes its own. Masses follow from the meshes' volumes, inertias from their boxes. Numbers
    are written in full, so that a reader gets the same poses to rounding.

    Args:
        path: The URDF.
        name: Name of the robot element.
        links: Mesh of each link, link frame, meters; a link may have no face.
        joints: Infinite limits make a revolute joint continuous.
        mimic: By joint name, what a joint that has no position of its own follows.
        meshes: Name of the folder.

    Returns:
        The path.
    """
    folder = path.parent / meshes
    folder.mkdir(parents=True, exist_ok=True)
    robot = ET.Element("robot", name=name)
    for i, (link_name, mesh) in enumerate(links.items()):
        link = ET.SubElement(robot, "link", name=link_name)
        _inertial(link, mesh)
        if len(mesh.faces):
            file = f"{meshes}/{i:02d}_{re.sub(r'[^A-Za-z0-9_-]', '_', link_name)}.obj"
            _write_obj(path.parent / file, mesh)
            for tag in ("visual", "collision"):
                geometry = ET.SubElement(ET.SubElement(link, tag), "geometry")
                ET.SubElement(geometry, "mesh", filename=file)
    for joint in joints:
        _joint(robot, joint, (mimic or {}).get(joint.name))
    ET.indent(robot)
    ET.ElementTree(robot).write(path, encoding="utf-8", xml_declaration=True)
    return path


def _joint(robot: ET.Element, j: Joint, mimic: Mimic | None) -> None:
    endless = j.kind == "revolute" and not np.isfinite([j.lower, j.upper]).all()
    kind = "continuous" if endless else j.kind
    joint = ET.SubElement(robot, "joint", name=j.name, type=kind)
    ET.SubElement(joint, "parent", link=j.parent)
    ET.SubElement(joint, "child", link=j.child)
    rpy = rpy_from_matrix(j.X_parent_joint[:3, :3])
    ET.SubElement(joint, "origin", xyz=_words(j.X_parent_joint[:3, 3]), rpy=_words(rpy))
    if j.kind == "fixed":
        return
    ET.SubElement(joint, "axis", xyz=_words(j.axis))
    # Effort and speed are a hand's; no law of the object itself bounds them.
    limit = {"effort": "30", "velocity": "2"}
    if not endless:
        limit = {"lower": _words([j.lower]), "upper": _words([j.upper]), **limit}
    ET.SubElement(joint, "limit", limit)
    if mimic is not None:
        ET.SubElement(
            joint,
            "mimic",
            joint=mimic.joint,
            multiplier=_words([mimic.multiplier]),
            offset=_words([mimic.offset]),
        )


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
        volume = float(np.clip(abs(mesh.volume), 0.01 * size.prod(), size.prod()))
        mass = max(DENSITY * volume, 0.001)
    moments = mass / 12 * (np.sum(size**2) - size**2)
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "origin", xyz=_words(center), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=_words([mass]))
    ixx, iyy, izz = (_words([m]) for m in moments)
    ET.SubElement(inertial, "inertia", ixx=ixx, iyy=iyy, izz=izz, ixy="0", ixz="0", iyz="0")
