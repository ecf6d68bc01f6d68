"""Models made for this project: a desk lamp with three joints, and a cloth.

    python -m tools.make_models sim_envs/assets

writes `desk_lamp/desk_lamp.urdf` with its shade, and `cloth/cloth.obj`. The lamp is a small one
without springs: the friction of its joints carries the arm, and a hand moves it with a few newtons.
The frames of its links are parallel at rest, x toward the head and z up.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Annotated

import numpy as np
import trimesh
import tyro
from numpy.typing import ArrayLike

LOWER, UPPER = 0.28, 0.25  # lengths of the two arms, m
LEAN, RISE = (
    np.radians(15.0),
    np.radians(25.0),
)  # lower arm back from vertical, upper arm up from horizontal
SHOULDER = np.array([0.0, 0.0, 0.05])
ELBOW = LOWER * np.array([-np.sin(LEAN), 0.0, np.cos(LEAN)])  # in the lower arm's frame
NECK = UPPER * np.array([np.cos(RISE), 0.0, np.sin(RISE)])  # in the upper arm's frame
DARK, METAL, SHADE = (0.16, 0.17, 0.2), (0.62, 0.63, 0.65), (0.78, 0.3, 0.16)


def make_lamp(folder: Path) -> Path:
    """Write the lamp; returns the URDF's path."""
    folder.mkdir(parents=True, exist_ok=True)
    profile = [
        (0.0, -0.075),
        (0.06, -0.075),
        (0.03, 0.015),
        (0.0, 0.015),
    ]  # (radius, z), closed at both ends
    trimesh.creation.revolve(profile, sections=32).export(folder / "shade.stl")
    robot = ET.Element("robot", name="desk_lamp")
    base = _link(robot, "base", 2.0, center=(0, 0, 0.012), box=(0.18, 0.18, 0.02))
    _cylinder(base, (0, 0, 0), (0, 0, 0.02), 0.09, DARK)
    _cylinder(base, (0, 0, 0.02), SHOULDER, 0.012, METAL)
    lower = _link(robot, "lower_arm", 0.15, center=ELBOW / 2, box=(0.08, 0.03, 0.28))
    upper = _link(robot, "upper_arm", 0.1, center=NECK / 2, box=(0.24, 0.03, 0.11))
    for link, end in ((lower, ELBOW), (upper, NECK)):
        _cylinder(link, (0, 0, 0), end, 0.009, METAL)
        _cylinder(link, (0, -0.018, 0), (0, 0.018, 0), 0.016, DARK)
    head = _link(robot, "head", 0.12, center=(0, 0, -0.03), box=(0.1, 0.1, 0.09))
    for tag in ("visual", "collision"):
        _shape(head, tag, "mesh", {"filename": "shade.stl"}, (0, 0, 0), (0, 0, 0), SHADE)
    _joint(robot, "shoulder", "base", "lower_arm", SHOULDER, (-0.6, 0.6), friction=4.0)
    _joint(robot, "elbow", "lower_arm", "upper_arm", ELBOW, (-0.5, 1.1), friction=1.5)
    _joint(robot, "neck", "upper_arm", "head", NECK, (-0.8, 0.8), friction=0.8)
    ET.indent(robot)
    path = folder / "desk_lamp.urdf"
    path.write_text(ET.tostring(robot, encoding="unicode") + "\n")
    return path


def make_cloth(path: Path, side: float = 0.3, count: int = 11) -> Path:
    """Write a square sheet of count x count vertices on z = 0 around the origin, row by row, faces
    up."""
    line = np.linspace(-side / 2, side / 2, count)
    lines = [f"v {x:.5f} {y:.5f} 0" for y in line for x in line]
    for row in range(count - 1):
        for column in range(count - 1):
            a = row * count + column + 1
            b, c, d = a + 1, a + count + 1, a + count
            # Diagonals alternate, so that the sheet bends alike along both.
            pair = ((a, b, c), (a, c, d)) if (row + column) % 2 == 0 else ((a, b, d), (b, c, d))
            lines += [f"f {i} {j} {k}" for i, j, k in pair]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _link(
    robot: ET.Element, name: str, mass: float, *, center: ArrayLike, box: ArrayLike
) -> ET.Element:
    """Link with the inertia of a solid box of this size (3,), meters, about its center of mass."""
    link = ET.SubElement(robot, "link", name=name)
    inertial = ET.SubElement(link, "inertial")
    ET.SubElement(inertial, "origin", xyz=_text(center), rpy="0 0 0")
    ET.SubElement(inertial, "mass", value=f"{mass:g}")
    squares = np.asarray(box, float) ** 2
    diagonal = mass / 12 * (squares.sum() - squares)
    values = dict(zip(("ixx", "iyy", "izz"), (f"{v:.4g}" for v in diagonal), strict=True))
    ET.SubElement(inertial, "inertia", values | {"ixy": "0", "ixz": "0", "iyz": "0"})
    return link


def _cylinder(
    link: ET.Element,
    start: ArrayLike,
    end: ArrayLike,
    radius: float,
    rgb: tuple[float, float, float],
) -> None:
    """Cylinder between two points of the link frame, as visual and collision shape."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(b - a))
    x, y, z = (b - a) / length
    # Ry(pitch) Rx(roll) takes z to the direction; URDF applies roll first.
    roll = -np.arcsin(np.clip(y, -1, 1))
    pitch = np.arctan2(x, z)
    size = {"radius": f"{radius:g}", "length": f"{length:.6g}"}
    for tag in ("visual", "collision"):
        _shape(link, tag, "cylinder", size, (a + b) / 2, (roll, pitch, 0.0), rgb)


def _shape(
    link: ET.Element,
    tag: str,
    shape: str,
    attributes: dict[str, str],
    xyz: ArrayLike,
    rpy: ArrayLike,
    rgb: tuple[float, float, float],
) -> None:
    element = ET.SubElement(link, tag)
    ET.SubElement(element, "origin", xyz=_text(xyz), rpy=_text(rpy))
    ET.SubElement(ET.SubElement(element, "geometry"), shape, attributes)
    if tag == "visual":
        material = ET.SubElement(element, "material", name=f"rgb_{_text(rgb).replace(' ', '_')}")
        ET.SubElement(material, "color", rgba=_text([*rgb, 1.0]))


def _joint(
    robot: ET.Element,
    name: str,
    parent: str,
    child: str,
    xyz: ArrayLike,
    limits: tuple[float, float],
    *,
    friction: float,
) -> None:
    """Hinge about y: positive angles lower the side of x."""
    joint = ET.SubElement(robot, "joint", name=name, type="revolute")
    ET.SubElement(joint, "origin", xyz=_text(xyz), rpy="0 0 0")
    ET.SubElement(joint, "parent", link=parent)
    ET.SubElement(joint, "child", link=child)
    ET.SubElement(joint, "axis", xyz="0 1 0")
    ET.SubElement(
        joint, "limit", lower=f"{limits[0]:g}", upper=f"{limits[1]:g}", effort="100", velocity="10"
    )
    ET.SubElement(joint, "dynamics", friction=f"{friction:g}", damping="0.05")


def _text(values: ArrayLike) -> str:
    return " ".join(f"{v:.6g}" for v in np.round(np.asarray(values, float), 9) + 0.0)


def main(folder: Annotated[Path, tyro.conf.Positional]) -> None:
    """Write both into subfolders of `folder`."""
    make_lamp(folder / "desk_lamp")
    make_cloth(folder / "cloth" / "cloth.obj")


if __name__ == "__main__":
    tyro.cli(main)
