"""The project's one reader of URDFs: the tree of joints, and the shapes of each link.

`read_urdf` reads the tree and opens no mesh. Shapes are read when they are asked for, since a scene
needs the visual ones, a planner the collision ones, and exporters write faulty elements that nobody
uses. A file that cannot be used is refused in one line that names the file, the element, the value
found and the valid ones, before it reaches pinocchio or a simulator.
"""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

import numpy as np

from flowplan.robot.urdf_xml import attribute, numbers, origin, positive_numbers, read_xml
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import is_inside

KINDS = ("revolute", "prismatic", "fixed")
"""Kinds of joints; a URDF's "continuous" joint is a revolute one without limits."""

Geometry = Literal["visual", "collision"]

URDF_FOLDERS = ("urdf", "urdfs", "robot", "robots", "xacro")
"""Folders of a package that hold its URDFs; meshes lie beside such a folder."""
PACKAGE_DEPTH = 4
"""A package is looked for up to so many folders above a URDF's folder."""
MOST_ELEMENTS = 3000
"""URDFs of more links or joints are refused: the time to sort them grows with the square."""

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb", ".gltf")
"""Types of mesh files that are read."""


@dataclass(frozen=True, eq=False)
class Joint:
    """One joint of the tree: X_parent_joint, then a turn about (or a slide along) `axis`.

    Attributes:
        name: unique in its URDF.
        kind: "revolute", "prismatic" or "fixed".
        parent, child: names of the links that it connects.
        X_parent_joint: (4, 4) joint frame in the parent link's frame, at position zero.
        axis: (3,) unit axis in the joint frame.
        lower, upper: position limits, rad or m; infinite for a continuous joint.
    """

    name: str
    kind: str
    parent: str
    child: str
    X_parent_joint: FloatArray
    axis: FloatArray
    lower: float = -np.inf
    upper: float = np.inf


class Mimic(NamedTuple):
    """A joint's position as a function of another's: multiplier * position of `joint` + offset."""

    joint: str
    multiplier: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, eq=False)
class Shape:
    """One <visual> or <collision> element of a link.

    Attributes:
        kind: "mesh", "box", "cylinder", "capsule" or "sphere".
        X_link_shape: (4, 4) pose in the link frame.
        size: mesh: scale along x, y, z (3,). box: sides (3,). cylinder and capsule:
            radius, length (2,); a capsule's half spheres come on top of its length. sphere: radius
            (1,). Meters, except for the scale.
        filename: the mesh file as written in the URDF; "" for other kinds.
        rgba: (4,) color of a visual in [0, 1], its own or its named material's, or None.
        where: file, link and element, for error messages.
    """

    kind: str
    X_link_shape: FloatArray
    size: FloatArray
    filename: str
    rgba: FloatArray | None
    where: str


@dataclass(frozen=True, eq=False)
class Urdf:
    """A URDF's links and joints.

    Attributes:
        path: the file.
        name: the robot element's name; "" if it has none.
        root: the link that is no joint's child.
        links: link names, the root first, then in the order of `joints`.
        joints: parents before children.
        mimic: by the name of the following joint; none follows a joint that follows another.
        elements: <link> elements by name, in the order of the file.
        materials: named top-level <material> elements.
        allow_outside: mesh files may lie outside of the URDF's folder and its package.
    """

    path: Path
    name: str
    root: str
    links: tuple[str, ...]
    joints: tuple[Joint, ...]
    mimic: dict[str, Mimic]
    elements: dict[str, ET.Element]
    materials: dict[str, ET.Element]
    allow_outside: bool = False

    def shapes(self, link: str, geometry: Geometry) -> tuple[Shape, ...]:
        """The visual or collision shapes of a link; no mesh is opened.

        Raises:
            ValueError: one line that names the link, if an element is faulty.
        """
        where = f"{self.path}: link {link!r} {geometry}"
        elements = self.elements[link].findall(geometry)
        return tuple(_read_shape(where, e, self.materials) for e in elements)

    def mesh_file(self, shape: Shape) -> Path:
        """Path of a shape's mesh file, which need not exist.

        File names are URIs or paths relative to the URDF; %20 is a blank. They lead to files in the
        folder of the URDF or in its package: the next folder above with a package.xml, or the one
        above a folder called urdf or robots. In package://NAME/..., NAME is a folder close above
        the URDF, one beside such a folder, or a package in ROS_PACKAGE_PATH or AMENT_PREFIX_PATH.

        Raises:
            ValueError: if no folder NAME holds the file, or the file lies outside and
                `allow_outside` is not set.
        """
        name = shape.filename.strip()
        scheme, _, rest = name.partition("://")
        if scheme not in ("package", "model"):
            if name.startswith("file:"):
                # file:///a and file://localhost/a are absolute; file://a is written for a.
                name = name.removeprefix("file:")
                name = name.removeprefix("//").removeprefix("localhost")
            file = next(_existing(self.path.parent, name), self.path.parent / name)
            return self._inside(_package_folder(self.path), file, shape)
        package, _, inner = rest.lstrip("/").partition("/")
        for root in _package_roots(self.path, package):
            for file in _existing(root, inner.lstrip("/")):
                return self._inside(root, file, shape)
        raise ValueError(
            f"{shape.where}: {name}: no folder {package!r} with this file in or above "
            f"{self.path.parent}, nor a package in ROS_PACKAGE_PATH or AMENT_PREFIX_PATH"
        )

    def _inside(self, folder: Path, file: Path, shape: Shape) -> Path:
        """The file, unless it lies outside of a folder and that is not allowed."""
        if not self.allow_outside and not is_inside(folder, file):
            raise ValueError(
                f"{shape.where}: mesh {shape.filename!r} lies outside of {folder}; move it there, "
                "or pass allow_outside=True"
            )
        return file


def _package_folder(urdf: Path) -> Path:
    """The folder that a URDF's meshes are looked for in: its own, or that of its package."""
    own = Path(os.path.abspath(urdf)).parent
    for folder in (own, *own.parents[:PACKAGE_DEPTH]):
        if (folder / "package.xml").is_file():
            return folder
    return own.parent if own.name.lower() in URDF_FOLDERS else own


def _existing(folder: Path, name: str) -> Iterator[Path]:
    """Files in a folder that a URI may stand for: as written, unquoted, with / for backslashes."""
    for variant in dict.fromkeys((name, unquote(name), unquote(name).replace("\\", "/"))):
        with contextlib.suppress(OSError):  # a name that is too long
            if "\0" not in variant and (folder / variant).is_file():
                yield folder / variant


def _package_roots(urdf: Path, package: str) -> Iterator[Path]:
    """Folders that may be those of a ROS package, the nearest to the URDF first."""
    if not package or package in (".", ".."):
        return
    for folder in urdf.resolve().parents[: PACKAGE_DEPTH + 1]:
        if folder.name == package:
            yield folder
        if folder != folder.parent:  # not in the root of the file system
            yield folder / package
    for name in filter(None, os.environ.get("ROS_PACKAGE_PATH", "").split(os.pathsep)):
        yield Path(name) if Path(name).name == package else Path(name) / package
    for name in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(name) / "share" / package


def read_urdf(path: str | Path, *, allow_outside: bool = False) -> Urdf:
    """Read the links and joints of a URDF; no mesh is opened.

    Args:
        path: the file.
        allow_outside: mesh files may lie outside of the URDF's folder and its package.

    Raises:
        ValueError: one line that names the file and the element, if anything is missing or
            inconsistent.
    """
    path = Path(path)
    robot = read_xml(path)
    # Names, which must be unique, then the tree that they form.
    elements = robot.findall("joint")
    links = _unique_names(path, robot.findall("link"))
    if not links:
        raise ValueError(f"{path}: expected at least one <link>, got none")
    if max(len(links), len(elements)) > MOST_ELEMENTS:
        raise ValueError(
            f"{path}: has {len(links)} links and {len(elements)} joints, expected at most "
            f"{MOST_ELEMENTS}"
        )
    _unique_names(path, elements)
    joints = [_read_joint(path, element, links) for element in elements]
    root, ordered = _sort_tree(path, links, joints)
    mimics = _read_mimics(path, elements)
    return Urdf(
        path=path,
        name=robot.get("name", ""),
        root=root,
        links=(root, *(j.child for j in ordered)),
        joints=ordered,
        mimic=_followed(path, mimics, [j.name for j in joints]),
        elements=dict(zip(links, robot.findall("link"), strict=True)),
        materials={m.get("name", ""): m for m in robot.findall("material")},
        allow_outside=allow_outside,
    )


def _unique_names(path: Path, elements: Sequence[ET.Element]) -> list[str]:
    """Names of all <link> or all <joint> elements, in the order of the file."""
    names = [attribute(f"{path}: <{e.tag}>", e, "name") for e in elements]
    counts = Counter(names)
    twice = sorted(n for n, count in counts.items() if count > 1)
    if twice:
        raise ValueError(
            f"{path}: two <{elements[0].tag}> elements have the same name, {twice[0]!r}; rename one"
        )
    return names


def _read_joint(path: Path, element: ET.Element, links: Sequence[str]) -> Joint:
    name = element.get("name", "")
    where = f"{path}: joint {name!r}"
    kind = attribute(where, element, "type")
    limited = kind in ("revolute", "prismatic")
    kind = "revolute" if kind == "continuous" else kind
    if kind not in KINDS:
        raise ValueError(
            f"{where}: type {kind!r} is not supported, "
            f"expected one of {', '.join(KINDS)}, continuous"
        )
    parent, child = (_linked(where, element, tag, links) for tag in ("parent", "child"))
    # Exporters write zeros for a fixed joint, which has no axis.
    given = None if kind == "fixed" else element.find("axis")
    axis = numbers(where, given, "xyz", 3, default=(1.0, 0.0, 0.0))
    norm = float(np.linalg.norm(axis))
    if norm < 1e-9:
        raise ValueError(f"{where}: axis is zero, expected a direction; repair the URDF")
    # Limits count for limited joints alone; the URDF's default is 0.
    lower, upper = -np.inf, np.inf
    limit = element.find("limit")
    if limit is not None and limited:
        lower = float(numbers(where, limit, "lower", 1, default=(0.0,))[0])
        upper = float(numbers(where, limit, "upper", 1, default=(0.0,))[0])
        if lower > upper:
            raise ValueError(
                f"{where}: limit lower={lower:g} is above upper={upper:g}; swap the two"
            )
    return Joint(name, kind, parent, child, origin(where, element), axis / norm, lower, upper)


def _linked(where: str, joint: ET.Element, tag: str, links: Sequence[str]) -> str:
    """The link that a joint's <parent> or <child> names."""
    end = joint.find(tag)
    if end is None:
        raise ValueError(f"{where}: <{tag}> is missing; repair the URDF")
    link = attribute(f"{where}: <{tag}>", end, "link")
    if link not in links:
        raise ValueError(
            f"{where}: {tag} link {link!r} does not exist, expected one of {', '.join(links)}"
        )
    return link


def _read_mimics(path: Path, joints: Sequence[ET.Element]) -> dict[str, Mimic]:
    mimics = {}
    for joint in joints:
        element = joint.find("mimic")
        if element is None:
            continue
        where = f"{path}: joint {joint.get('name')!r}: <mimic>"
        multiplier = float(numbers(where, element, "multiplier", 1, default=(1.0,))[0])
        offset = float(numbers(where, element, "offset", 1, default=(0.0,))[0])
        followed = attribute(where, element, "joint")
        mimics[joint.get("name", "")] = Mimic(followed, multiplier, offset)
    return mimics


def _followed(path: Path, mimics: Mapping[str, Mimic], joints: Sequence[str]) -> dict[str, Mimic]:
    """Mimics that name the joint at the start of a chain of followers.

    Raises:
        ValueError: if a joint follows one that does not exist, or follows itself around a ring.
    """
    out = {}
    for name, mimic in mimics.items():
        chain = [name]
        while mimic.joint in mimics:
            if mimic.joint in chain:
                ring = " -> ".join([*chain, mimic.joint])
                raise ValueError(
                    f"{path}: joint {name!r}: mimic: a loop of followers, {ring}; "
                    "one of them must move by itself"
                )
            chain.append(mimic.joint)
            leader = mimics[mimic.joint]
            # m (m' q + o') + o
            mimic = Mimic(
                leader.joint,
                mimic.multiplier * leader.multiplier,
                mimic.multiplier * leader.offset + mimic.offset,
            )
        free = [j for j in joints if j not in mimics]
        checks.choice(f"{path}: joint {name!r}: mimic", mimic.joint, free)
        out[name] = mimic
    return out


def _sort_tree(
    path: Path, links: Sequence[str], joints: Sequence[Joint]
) -> tuple[str, tuple[Joint, ...]]:
    """The root link, and the joints breadth-first from it.

    Raises:
        ValueError: unless every link but one is the child of exactly one joint, without loops.
    """
    # One parent each, and one link without.
    children = [j.child for j in joints]
    twice = sorted(c for c, count in Counter(children).items() if count > 1)
    roots = [link for link in links if link not in set(children)]
    if twice or len(roots) != 1:
        raise ValueError(
            f"{path}: expected a tree with one root, got roots {roots} and "
            f"{twice or 'no link'} with several parents; "
            "every link but the root is the child of exactly one joint"
        )
    # Breadth-first; a loop is never reached.
    ordered: list[Joint] = []
    frontier = [roots[0]]
    while frontier:
        link = frontier.pop(0)
        for joint in joints:
            if joint.parent == link:
                ordered.append(joint)
                frontier.append(joint.child)
    if len(ordered) != len(joints):
        loop = sorted({j.name for j in joints} - {j.name for j in ordered})
        raise ValueError(
            f"{path}: joints {loop} form a loop, expected a tree; "
            "cut the loop and use a mimic joint"
        )
    return roots[0], tuple(ordered)


def _read_shape(where: str, element: ET.Element, materials: dict[str, ET.Element]) -> Shape:
    # Kind of the shape, and its size.
    child = element.find("geometry")
    shape = next(iter(child), None) if child is not None else None
    if shape is None:
        raise ValueError(
            f"{where}: has no geometry, expected mesh, box, cylinder, capsule or sphere"
        )
    filename = ""
    if shape.tag == "mesh":
        filename = attribute(f"{where}: <mesh>", shape, "filename")
        size = numbers(where, shape, "scale", 3, default=(1.0, 1.0, 1.0))
    elif shape.tag == "box":
        size = positive_numbers(where, shape, "size", 3)
    elif shape.tag in ("cylinder", "capsule"):
        radius = positive_numbers(where, shape, "radius", 1)
        size = np.concatenate([radius, positive_numbers(where, shape, "length", 1)])
    elif shape.tag == "sphere":
        size = positive_numbers(where, shape, "radius", 1)
    else:
        raise ValueError(
            f"{where}: <{shape.tag}> is not supported, "
            "expected mesh, box, cylinder, capsule or sphere"
        )
    # Color, of a visual.
    rgba = _color(where, element.find("material"), materials)
    return Shape(shape.tag, origin(where, element), size, filename, rgba, where)


def _color(
    where: str, material: ET.Element | None, materials: dict[str, ET.Element]
) -> FloatArray | None:
    """The color (4,) of a visual's material, or of the top-level material that it names."""
    if material is None:
        return None
    # A material's own color, else that of the top-level one of the same name.
    color = material.find("color")
    if color is None:
        named = materials.get(material.get("name", ""))
        color = None if named is None else named.find("color")
    return None if color is None else numbers(where, color, "rgba", 4)
