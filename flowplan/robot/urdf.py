"""A URDF read with the standard library: the tree of joints, and each link's collision shape as one convex hull.

Only what planning needs is read. A file that cannot be used is refused in one line that names the file, the element,
what came and what is valid, before it reaches pinocchio or a simulator.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import matrix_from_rpy, pose, transform
from flowplan.utils.checks import FloatArray

KINDS = ("revolute", "prismatic", "fixed")


@dataclass(frozen=True, eq=False)
class Joint:
    """One joint of the tree: child frame = X_parent_joint, then a turn about (or a slide along) `axis`.

    Attributes:
        name, parent, child: joint name and the links it connects.
        kind: "revolute" (a URDF "continuous" joint too), "prismatic" or "fixed".
        X_parent_joint: (4, 4) joint frame in the parent link's frame at position zero.
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


@dataclass(frozen=True, eq=False)
class Urdf:
    """Joints in an order in which parents come before children, and the links with their collision hulls.

    Attributes:
        path: the file.
        root: the link nothing is the parent of.
        links: all link names, root first.
        joints: every joint, parents before children.
        hulls: convex hull of each link's collision geometry, link frame, metres; links without any are absent.
    """

    path: Path
    root: str
    links: tuple[str, ...]
    joints: tuple[Joint, ...]
    hulls: dict[str, trimesh.Trimesh]


def read_urdf(path: Path) -> Urdf:
    """Read a URDF and the collision meshes it names (relative to it); visual meshes are only checked to exist.

    Raises:
        ValueError: in one line, naming the file and the element, when anything is missing or contradicts itself.
    """
    tree = read_tree(path)
    hulls = {}
    for name, link in tree.links.items():
        for mesh in link.iterfind("visual/geometry/mesh"):
            _mesh_path(path, name, mesh)
        vertices = [
            _shape_vertices(path, name, collision) for collision in link.findall("collision")
        ]
        if vertices:
            hulls[name] = trimesh.convex.convex_hull(np.concatenate(vertices))
    return Urdf(path, next(iter(tree.links)), tuple(tree.links), tree.joints, hulls)


@dataclass(frozen=True, eq=False)
class UrdfTree:
    """A URDF's links and joints, no mesh read.

    Attributes:
        path: the file.
        links: element of each link, root first, then as their joints come.
        joints: every joint, parents before children.
        mimic: (joint, multiplier, offset) by name of the joint that follows: multiplier * position of `joint` + offset.
    """

    path: Path
    links: dict[str, ET.Element]
    joints: tuple[Joint, ...]
    mimic: dict[str, tuple[str, float, float]]


def read_tree(path: Path) -> UrdfTree:
    """The links and joints of a URDF; meshes are not looked at.

    Raises:
        ValueError: in one line, naming the file and the element, when anything is missing or contradicts itself.
    """
    try:
        robot = ET.parse(path).getroot()
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); check the `urdf` key of the robot file"
        ) from None
    except ET.ParseError as error:
        raise ValueError(
            f"{path}: expected an XML file, got a syntax error ({error}); repair the URDF"
        ) from None
    if robot.tag != "robot":
        raise ValueError(
            f"{path}: expected a <robot> element, got <{robot.tag}>; give a URDF (run xacro first)"
        )
    names = [_attribute(path, link, "name", "link") for link in robot.findall("link")]
    twice = sorted({n for n in names if names.count(n) > 1})
    if not names or twice:
        raise ValueError(
            f"{path}: expected links with unique names, got {twice or 'no link'}; rename them"
        )
    elements = robot.findall("joint")
    joints = [_read_joint(path, element, names) for element in elements]
    root, ordered = _sort_tree(path, names, joints)
    links = dict(zip(names, robot.findall("link"), strict=True))
    mimic = {}
    for joint, element in zip(joints, elements, strict=True):
        follows = element.find("mimic")
        if follows is not None:
            where = f"joint {joint.name!r} mimic"
            multiplier, offset = (
                float(_numbers(path, follows, key, where, default=(default,))[0])
                for key, default in (("multiplier", 1.0), ("offset", 0.0))
            )
            mimic[joint.name] = (_attribute(path, follows, "joint", where), multiplier, offset)
    return UrdfTree(
        path, {name: links[name] for name in (root, *(j.child for j in ordered))}, ordered, mimic
    )


def _read_joint(path: Path, element: ET.Element, links: list[str]) -> Joint:
    name = _attribute(path, element, "name", "joint")
    where = f"joint {name!r}"
    kind = _attribute(path, element, "type", where)
    kind = "revolute" if kind == "continuous" else kind
    if kind not in KINDS:
        raise ValueError(
            f"{path}: {where}: type {kind!r} is not supported, expected one of {', '.join(KINDS)}"
        )
    ends = []
    for tag in ("parent", "child"):
        end = element.find(tag)
        link = "" if end is None else end.get("link", "")
        if link not in links:
            raise ValueError(
                f"{path}: {where}: {tag} link {link!r} does not exist, expected one of {', '.join(links)}"
            )
        ends.append(link)
    # Exporters write zeros for a fixed joint, which has no axis.
    given = None if kind == "fixed" else element.find("axis")
    axis = _numbers(path, given, "xyz", where, default=(1.0, 0.0, 0.0))
    norm = float(np.linalg.norm(axis))
    if norm < 1e-9:
        raise ValueError(f"{path}: {where}: axis is zero, expected a direction; repair the URDF")
    lower, upper = -np.inf, np.inf
    limit = element.find("limit")
    if limit is not None and element.get("type") in ("revolute", "prismatic"):
        lower, upper = (
            float(_numbers(path, limit, key, where, default=(0.0,))[0])
            for key in ("lower", "upper")
        )
    return Joint(
        name, kind, ends[0], ends[1], _origin(path, element, where), axis / norm, lower, upper
    )


def _sort_tree(path: Path, links: list[str], joints: list[Joint]) -> tuple[str, tuple[Joint, ...]]:
    children = [j.child for j in joints]
    names = [j.name for j in joints]
    twice = sorted(
        {c for c in children if children.count(c) > 1} | {n for n in names if names.count(n) > 1}
    )
    roots = [link for link in links if link not in children]
    if twice or len(roots) != 1:
        raise ValueError(
            f"{path}: expected a tree with one root, got roots {roots} and {twice or 'nothing'} twice; "
            "every link but the root is the child of exactly one joint"
        )
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
            f"{path}: joints {loop} form a loop, expected a tree; cut the loop and use a mimic joint"
        )
    return roots[0], tuple(ordered)


def _shape_vertices(path: Path, link: str, collision: ET.Element) -> FloatArray:
    """Vertices (V, 3) of one <collision>, link frame, metres."""
    where = f"link {link!r} collision"
    geometry = collision.find("geometry")
    shape = next(iter(geometry), None) if geometry is not None else None
    if shape is None:
        raise ValueError(
            f"{path}: {where}: has no geometry, expected mesh, box, cylinder or sphere"
        )
    mesh: trimesh.Trimesh
    if shape.tag == "mesh":
        file = _mesh_path(path, link, shape)
        try:
            mesh = trimesh.load_mesh(file)
            vertices = np.asarray(mesh.vertices, float)
        except Exception as error:  # trimesh raises whatever its many readers raise
            raise ValueError(
                f"{file}: cannot be read as a mesh ({type(error).__name__}); export it again"
            ) from None
        if len(vertices) < 4 or not np.isfinite(vertices).all():
            raise ValueError(
                f"{file}: expected at least 4 finite vertices, got {len(vertices)}; export it again"
            )
        vertices = vertices * _numbers(path, shape, "scale", where, default=(1.0, 1.0, 1.0))
    elif shape.tag == "box":
        vertices = trimesh.creation.box(
            _numbers(path, shape, "size", where, default=None, count=3)
        ).vertices
    elif shape.tag in ("cylinder", "sphere"):
        radius = float(_numbers(path, shape, "radius", where, default=None, count=1)[0])
        if shape.tag == "sphere":
            vertices = trimesh.creation.icosphere(2, radius).vertices
        else:
            length = float(_numbers(path, shape, "length", where, default=None, count=1)[0])
            vertices = trimesh.creation.cylinder(radius, length, sections=32).vertices
    else:
        raise ValueError(
            f"{path}: {where}: <{shape.tag}> is not supported, expected mesh, box, cylinder or sphere"
        )
    return transform(_origin(path, collision, where), vertices)


def _mesh_path(path: Path, link: str, mesh: ET.Element) -> Path:
    file = path.parent / mesh.get("filename", "")
    if not file.is_file():
        raise ValueError(
            f"{path}: link {link!r}: mesh {mesh.get('filename')!r} does not exist; paths are relative to the URDF "
            "(package:// is not resolved)"
        )
    return file


def _origin(path: Path, element: ET.Element, where: str) -> FloatArray:
    origin = element.find("origin")
    xyz = _numbers(path, origin, "xyz", where, default=(0.0, 0.0, 0.0))
    return pose(matrix_from_rpy(_numbers(path, origin, "rpy", where, default=(0.0, 0.0, 0.0))), xyz)


def _attribute(path: Path, element: ET.Element, key: str, where: str) -> str:
    value = element.get(key)
    if not value:
        raise ValueError(f"{path}: {where}: attribute {key!r} is missing; repair the URDF")
    return value


def _numbers(
    path: Path,
    element: ET.Element | None,
    key: str,
    where: str,
    *,
    default: tuple[float, ...] | None,
    count: int | None = None,
) -> FloatArray:
    """The numbers of one attribute; `default`, as many, where it is absent; with no default it must be there."""
    text = None if element is None else element.get(key)
    expected = count if default is None else len(default)
    if text is None:
        if default is None:
            raise ValueError(
                f"{path}: {where}: attribute {key!r} is missing, expected {expected} numbers"
            )
        return np.array(default)
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([np.nan])
    if len(values) != expected or not np.isfinite(values).all():
        raise ValueError(f"{path}: {where}: {key}={text!r}, expected {expected} finite numbers")
    return values
