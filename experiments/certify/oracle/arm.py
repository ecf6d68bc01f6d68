"""Kinematics and collision bodies of a robot, read from its .toml file and its URDF."""

from __future__ import annotations

import tomllib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from experiments.certify.oracle.recording import Floats


@dataclass(frozen=True, eq=False)
class _Joint:
    """A joint of the URDF."""

    name: str
    kind: str
    parent: str
    child: str
    origin: Floats
    axis: Floats


@dataclass(frozen=True, eq=False)
class Arm:
    """A robot as its files state it.

    Attributes:
        joints: All joints, parents before children.
        arm_joints: Names of the J joints of the arm.
        lower, upper, velocity, acceleration, jerk: (J,) limits.
        base, tool: Links; `X_link_tool` (4, 4) is the tool frame on its link.
        fingers: The two links with the pads.
        gripper: All links that the gripper's joints move, pads included.
        carried: Links that the last arm joint carries and the gripper's joints do not move.
        ignored: Pairs of links that touch by construction.
        openings, opening_joints: (W,) openings in meters, and (W,) positions by joint.
        meshes: Collision meshes by link, in its frame.
    """

    joints: tuple[_Joint, ...]
    arm_joints: tuple[str, ...]
    lower: Floats
    upper: Floats
    velocity: Floats
    acceleration: Floats
    jerk: Floats
    base: str
    tool: str
    X_link_tool: Floats
    fingers: tuple[str, ...]
    gripper: tuple[str, ...]
    ignored: frozenset[frozenset[str]]
    openings: Floats
    opening_joints: dict[str, Floats]
    meshes: dict[str, tuple[trimesh.Trimesh, ...]]

    @property
    def max_opening(self) -> float:
        """Widest opening, meters."""
        return float(self.openings[-1])

    def links(self, q: Floats, opening: Floats, X_world_base: Floats) -> dict[str, Floats]:
        """World poses (n, 4, 4) of every link at q (n, J) and openings (n,)."""
        at = dict(zip(self.arm_joints, q.T, strict=True))
        for name, table in self.opening_joints.items():
            at[name] = np.interp(opening, self.openings, table)
        poses = {self.base: np.broadcast_to(X_world_base, (len(q), 4, 4))}
        for joint in self.joints:
            moved = np.tile(np.eye(4), (len(q), 1, 1))
            if joint.kind in ("revolute", "continuous"):
                turn = Rotation.from_rotvec(at[joint.name][:, None] * joint.axis)
                moved[:, :3, :3] = turn.as_matrix()
            elif joint.kind == "prismatic":
                moved[:, :3, 3] = at[joint.name][:, None] * joint.axis
            poses[joint.child] = poses[joint.parent] @ joint.origin @ moved
        return poses

    def tools(self, q: Floats, X_world_base: Floats) -> Floats:
        """World poses (n, 4, 4) of the tool at q (n, J)."""
        return self.links(q, np.zeros(len(q)), X_world_base)[self.tool] @ self.X_link_tool

    def moving_joints(self, link: str) -> frozenset[str]:
        """The arm's joints between the base and a link."""
        by_child = {joint.child: joint for joint in self.joints}
        found = set()
        while link in by_child:
            joint = by_child[link]
            found |= {joint.name} & set(self.arm_joints)
            link = joint.parent
        return frozenset(found)


@lru_cache(maxsize=8)
def read_arm(path: str) -> Arm:
    """The robot of a .toml file."""
    file = Path(path)
    values = tomllib.loads(file.read_text())
    urdf = file.parent / values["urdf"]
    root = ET.parse(urdf).getroot()
    joints = _in_order([_joint(node) for node in root.findall("joint")], values["base_link"])
    arm, gripper, tool = values["arm"], values["gripper"], values["tool"]
    tables = {name: np.array(table, float) for name, table in gripper["opening"]["joints"].items()}
    return Arm(
        joints=joints,
        arm_joints=tuple(arm["joints"]),
        **{
            name: np.array(arm[name], float)
            for name in ("lower", "upper", "velocity", "acceleration", "jerk")
        },
        base=values["base_link"],
        tool=tool["link"],
        X_link_tool=_pose(tool["xyz"], tool["rpy"]),
        fingers=tuple(gripper["finger_links"]),
        gripper=_below(joints, set(tables)),
        ignored=frozenset(frozenset(pair) for pair in values["self_collision"]["ignore"]),
        openings=np.array(gripper["opening"]["width"], float),
        opening_joints=tables,
        meshes={
            link.attrib["name"]: shapes
            for link in root.findall("link")
            if (shapes := tuple(_shape(c, urdf.parent) for c in link.findall("collision")))
        },
    )


def _joint(node: ET.Element) -> _Joint:
    axis = np.array(_numbers(node.find("axis"), "xyz", "1 0 0"))
    return _Joint(
        name=node.attrib["name"],
        kind=node.attrib["type"],
        parent=node.find("parent").attrib["link"],  # type: ignore[union-attr]
        child=node.find("child").attrib["link"],  # type: ignore[union-attr]
        origin=_origin(node),
        axis=axis / max(float(np.linalg.norm(axis)), 1e-12),
    )


def _in_order(joints: list[_Joint], base: str) -> tuple[_Joint, ...]:
    """The joints with parents before children."""
    known = {base}
    out: list[_Joint] = []
    while len(out) < len(joints):
        ready = [j for j in joints if j.parent in known and j.child not in known]
        if not ready:
            break
        out += ready
        known |= {joint.child for joint in ready}
    return tuple(out)


def _below(joints: tuple[_Joint, ...], names: set[str]) -> tuple[str, ...]:
    """Links that some of the named joints move."""
    moved: list[str] = []
    for joint in joints:
        if joint.name in names or joint.parent in moved:
            moved.append(joint.child)
    return tuple(moved)


def _shape(node: ET.Element, folder: Path) -> trimesh.Trimesh:
    """A <collision> element in its link's frame."""
    kind = node.find("geometry")[0]  # type: ignore[index]
    if kind.tag == "mesh":
        shape: Any = trimesh.load(folder / kind.attrib["filename"], force="mesh", process=True)
        shape.apply_scale(_numbers(kind, "scale", "1 1 1"))
    elif kind.tag == "box":
        shape = trimesh.creation.box(_numbers(kind, "size", ""))
    elif kind.tag == "sphere":
        shape = trimesh.creation.icosphere(4, float(kind.attrib["radius"]))
    else:
        size = float(kind.attrib["radius"]), float(kind.attrib["length"])
        shape = trimesh.creation.cylinder(*size, sections=96)
    shape.apply_transform(_origin(node))
    return shape


def _origin(node: ET.Element) -> Floats:
    origin = node.find("origin")
    return _pose(_numbers(origin, "xyz", "0 0 0"), _numbers(origin, "rpy", "0 0 0"))


def _pose(xyz: list[float], rpy: list[float]) -> Floats:
    X = np.eye(4)
    X[:3, :3] = Rotation.from_euler("xyz", rpy).as_matrix()
    X[:3, 3] = xyz
    return X


def _numbers(node: ET.Element | None, name: str, default: str) -> list[float]:
    text = default if node is None else node.attrib.get(name, default)
    return [float(word) for word in text.split()]
