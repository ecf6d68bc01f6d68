"""Articulated things from a URDF: one scene object a link, posed by forward kinematics.

    X_world_child = X_world_parent @ X_parent_joint @ motion(q)

Links stay separate objects, because each moves rigidly and a generator, a grasp and a flow all speak of an object by
its index; a mesh whose vertices knew their link would need a record of its own. The file is read with the standard
library; document types and entities, which could make it read other files or grow without end, are refused.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import exp_so3, pose
from flowplan.scan.meshes.mesh_file import SUFFIXES, read_mesh
from flowplan.scan.meshes.repair import cleaned
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

MOVING = ("revolute", "continuous", "prismatic")
JOINT_TYPES = (*MOVING, "fixed")


@dataclass(frozen=True, eq=False)
class _Joint:
    name: str
    kind: str
    parent: str
    child: str
    X_parent_joint: FloatArray
    axis: FloatArray
    lower: float
    upper: float
    mimic: tuple[str, float, float] | None

    def motion(self, q: float) -> FloatArray:
        if self.kind == "prismatic":
            return pose(translation=self.axis * q)
        return pose(exp_so3(self.axis * q)) if self.kind in MOVING else pose()


def load_urdf(
    path: str | Path,
    joints: Mapping[str, float] | None = None,
    *,
    X_world_base: ArrayLike | None = None,
    name: str | None = None,
    geometry: str = "visual",
) -> tuple[SceneObject, ...]:
    """The links of a URDF that have a shape, as objects called `<name>/<link>`.

    Args:
        joints: positions by joint name, radians or metres; joints that are not named are at 0, or at the limit
            nearest to it. A joint that mimics another follows it.
        X_world_base: (4, 4) pose of the root link; the identity if not given.
        name: the robot element's name if not given.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.

    Returns:
        SceneObjects whose frames are the links', in the order of the file.

    Raises:
        ValueError: one line that names the file, the element, and what to do.
    """
    path = Path(path)
    checks.choice("geometry", geometry, ("visual", "collision"))
    root = _parse(path)
    links = {_attribute(path, link, "name"): link for link in root.findall("link")}
    parsed = [_joint(path, element) for element in root.findall("joint")]
    for kind, names in (
        ("link", [e.get("name") for e in root.findall("link")]),
        ("joint", [j.name for j in parsed]),
    ):
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: two <{kind}> elements have the same name; rename one")
    X_base = pose() if X_world_base is None else checks.poses("X_world_base", X_world_base)
    X_world_link = _forward_kinematics(path, list(links), parsed, dict(joints or {}), X_base)
    title = name or root.get("name") or path.stem
    objects = []
    for link, element in links.items():
        mesh = link_mesh(path, element, geometry)
        if mesh is not None:
            objects.append(SceneObject(f"{title}/{link}", mesh, X_world_link[link]))
    if not objects:
        raise ValueError(f"{path}: no link has a visual or collision shape")
    return tuple(objects)


class _DoctypeError(Exception):
    pass


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise _DoctypeError


def _parse(path: Path) -> ElementTree.Element:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        root = ElementTree.fromstring(path.read_bytes(), parser)
    except _DoctypeError:
        raise ValueError(
            f"{path}: document types and entities are not read; remove the <!DOCTYPE ...> part"
        ) from None
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not well-formed XML ({error})") from None
    if root.tag != "robot":
        raise ValueError(
            f"{path}: expected a <robot> element, got <{root.tag}>; expand xacro files first"
        )
    return root


def _attribute(path: Path, element: ElementTree.Element | None, key: str, where: str = "") -> str:
    value = None if element is None else element.get(key)
    if not value:
        tag = where if element is None else element.tag
        raise ValueError(f"{path}: <{tag}>: attribute {key!r} is missing")
    return value


def _numbers(path: Path, element: ElementTree.Element | None, key: str, default: str) -> FloatArray:
    text = default if element is None else element.get(key, default)
    tag = key if element is None else f"{element.tag} {key}"
    return checks.array(f"{path}: <{tag}={text!r}>", text.split(), (len(default.split()),))


def _origin(path: Path, element: ElementTree.Element) -> FloatArray:
    """(4, 4): rotations about the fixed axes x, y, z in turn, then the shift."""
    origin = element.find("origin")
    roll, pitch, yaw = (
        exp_so3(a * e)
        for a, e in zip(_numbers(path, origin, "rpy", "0 0 0"), np.eye(3), strict=True)
    )
    return pose(yaw @ pitch @ roll, _numbers(path, origin, "xyz", "0 0 0"))


def _joint(path: Path, element: ElementTree.Element) -> _Joint:
    name = _attribute(path, element, "name")
    kind = checks.choice(f"{path}: joint {name!r}: type", element.get("type"), JOINT_TYPES)
    axis = _numbers(path, element.find("axis"), "xyz", "1 0 0")
    if np.linalg.norm(axis) < 1e-9:
        raise ValueError(f"{path}: joint {name!r}: axis: expected a direction, got zeros")
    limit, mimic = element.find("limit"), element.find("mimic")
    limited = kind in ("revolute", "prismatic") and limit is not None
    return _Joint(
        name=name,
        kind=kind,
        parent=_attribute(path, element.find("parent"), "link", f"joint {name}: parent"),
        child=_attribute(path, element.find("child"), "link", f"joint {name}: child"),
        X_parent_joint=_origin(path, element),
        axis=axis / np.linalg.norm(axis),
        lower=float(_numbers(path, limit, "lower", "0")[0]) if limited else -np.inf,
        upper=float(_numbers(path, limit, "upper", "0")[0]) if limited else np.inf,
        mimic=None
        if mimic is None
        else (
            _attribute(path, mimic, "joint"),
            float(_numbers(path, mimic, "multiplier", "1")[0]),
            float(_numbers(path, mimic, "offset", "0")[0]),
        ),
    )


def _forward_kinematics(
    path: Path,
    links: list[str],
    joints: list[_Joint],
    values: dict[str, float],
    X_world_base: FloatArray,
) -> dict[str, FloatArray]:
    """X_world_link of every link, by name."""
    q = _positions(path, joints, values)
    for joint in joints:
        for end in (joint.parent, joint.child):
            if end not in links:
                raise ValueError(
                    f"{path}: joint {joint.name!r}: no link {end!r}; it has {', '.join(links)}"
                )
    children = [joint.child for joint in joints]
    twice = {c for c in children if children.count(c) > 1}
    roots = [link for link in links if link not in children]
    if twice or len(roots) != 1:
        raise ValueError(
            f"{path}: links: expected a tree with one root, got roots {roots or 'none'}"
            + (f" and more than one parent of {', '.join(sorted(twice))}" if twice else "")
        )
    X_world_link = {roots[0]: X_world_base}
    waiting = list(joints)
    while waiting:
        ready = [joint for joint in waiting if joint.parent in X_world_link]
        if not ready:
            raise ValueError(
                f"{path}: joints {', '.join(j.name for j in waiting)} form a loop; a tree is expected"
            )
        for joint in ready:
            X_world_joint = X_world_link[joint.parent] @ joint.X_parent_joint
            X_world_link[joint.child] = X_world_joint @ joint.motion(q[joint.name])
        waiting = [joint for joint in waiting if joint not in ready]
    return X_world_link


def _positions(path: Path, joints: list[_Joint], values: dict[str, float]) -> dict[str, float]:
    """Position of every joint: as given within its limits, else nearest to zero, else as the joint it mimics."""
    free = {joint.name: joint for joint in joints if joint.kind in MOVING and joint.mimic is None}
    for name, value in values.items():
        checks.choice(f"{path}: joints", name, tuple(free))
        joint = free[name]
        if not joint.lower - 1e-9 <= value <= joint.upper + 1e-9:
            raise ValueError(
                f"{path}: joints: {name!r} at {value:g}, expected {joint.lower:g} to {joint.upper:g}; "
                "angles are in radians, lengths in metres"
            )
    q = {
        name: float(values.get(name, np.clip(0.0, joint.lower, joint.upper)))
        for name, joint in free.items()
    }
    for joint in joints:
        if joint.mimic is not None:
            source, multiplier, offset = joint.mimic
            checks.choice(f"{path}: joint {joint.name!r}: mimic", source, tuple(free))
            q[joint.name] = multiplier * q[source] + offset
    return q | {joint.name: 0.0 for joint in joints if joint.name not in q}


def link_mesh(
    path: Path, link: ElementTree.Element, geometry: str = "visual"
) -> trimesh.Trimesh | None:
    """All shapes of a <link> in its frame as one mesh, or None if it has none.

    Args:
        path: the URDF, which mesh files are relative to.
        link: the element.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.

    Raises:
        ValueError: one line that names the file, when a shape cannot be read.
    """
    other = "collision" if geometry == "visual" else "visual"
    elements = link.findall(geometry) or link.findall(other)
    parts = []
    for element in elements:
        shape = element.find("geometry")
        if shape is None or len(shape) == 0:
            raise ValueError(f"{path}: link {link.get('name')!r}: <{element.tag}> without geometry")
        parts.append(_shape(path, shape[0]).apply_transform(_origin(path, element)))
    if not parts:
        return None
    vertices, faces = trimesh.util.append_faces(
        [p.vertices for p in parts], [p.faces for p in parts]
    )
    return trimesh.Trimesh(vertices, faces, process=False)


def _shape(path: Path, shape: ElementTree.Element) -> trimesh.Trimesh:
    if shape.tag == "box":
        sides = _numbers(path, shape, "size", "0 0 0")
        checks.positive(f"{path}: <box size>", sides.min())
        return trimesh.creation.box(sides)
    if shape.tag == "sphere":
        return trimesh.creation.icosphere(3, _size(path, shape, "radius"))
    if shape.tag == "cylinder":
        return trimesh.creation.cylinder(
            _size(path, shape, "radius"), _size(path, shape, "length"), sections=48
        )
    if shape.tag != "mesh":
        raise ValueError(
            f"{path}: <{shape.tag}>: unknown shape, expected one of box, sphere, cylinder, mesh"
        )
    file = _resolve(path, _attribute(path, shape, "filename"))
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{file}: not one of {', '.join(SUFFIXES)}; convert it and change {path.name}"
        )
    mesh = cleaned(read_mesh(file, 10_000_000))
    return mesh.apply_scale(_numbers(path, shape, "scale", "1 1 1"))


def _size(path: Path, shape: ElementTree.Element, key: str) -> float:
    return checks.positive(
        f"{path}: <{shape.tag} {key}>", float(_numbers(path, shape, key, "0")[0])
    )


def _resolve(path: Path, filename: str) -> Path:
    """The mesh file of a URI: relative to the URDF, or package://name/... with the package's folder above the URDF."""
    if filename.startswith("package://"):
        package, _, rest = filename.removeprefix("package://").partition("/")
        for folder in path.resolve().parents:
            for root in (folder, folder / package):
                if root.name == package and (root / rest).is_file():
                    return root / rest
        raise ValueError(
            f"{path}: {filename}: no folder {package!r} with this file in or above {path.parent}"
        )
    return path.parent / filename.removeprefix("file://")
