"""A robot's hand without its arm, on six joints that move its tool frame.

Its links are cut out of the robot's URDF. Three prismatic and three revolute joints carry the tool
frame, which is X_world_base at zero.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowplan.geometry import inverse, pose, rpy_from_matrix
from flowplan.robot import Robot
from flowplan.robot.urdf import Joint, read_urdf
from flowplan.robot.urdf_xml import read_xml
from flowplan.utils.checks import FloatArray

_NAMES = tuple(f"gantry_{kind}_{axis}" for kind in ("slide", "turn") for axis in "xyz")
_BASE = "gantry_base"


def floating_hand(robot: Robot, folder: Path) -> Robot:
    """The robot's hand on six joints. For the simulator only: it has no collision spheres.

    Args:
        robot: The robot.
        folder: Folder of the hand's URDF, which must outlive the hand.
    """
    # The hand's links on a gantry, written where the simulator reads them.
    tree = _hand_tree(robot)
    joints = _add_gantry(tree, robot)
    path = folder / "hand.urdf"
    ET.ElementTree(tree).write(path)
    six = np.zeros(6)
    carried = (*(j.child for j in joints), *(j.child for j in robot.gripper.tree))
    return replace(
        robot,
        name=f"{robot.name}_hand",
        urdf_path=path,
        base_link=_BASE,
        joint_names=_NAMES,
        lower=six - 10,
        upper=six + 10,
        velocity=six + 100,
        acceleration=six + 1000,
        jerk=six + 1e5,
        home=six,
        link_names=(_BASE, *carried),
        sphere_link=np.zeros(0, np.int64),
        sphere_center=np.zeros((0, 3)),
        sphere_radius=np.zeros(0),
        self_pairs=np.zeros((0, 2), np.int64),
        joints=(*joints, *robot.gripper.tree),
    )


def _hand_tree(robot: Robot) -> ET.Element:
    """The part of the robot's URDF from its tool link on, with absolute mesh paths."""
    # The tool link, and all links below it.
    hand = {robot.tool_link}
    for joint in read_urdf(robot.urdf_path).joints:  # parents before children
        if joint.parent in hand:
            hand.add(joint.child)
    tree = read_xml(robot.urdf_path)
    out = ET.Element("robot", name="hand")
    out.extend(tree.findall("material"))
    for link in tree.findall("link"):
        if link.get("name") not in hand:
            continue
        for mesh in link.iter("mesh"):
            file = Path(robot.urdf_path).parent / mesh.attrib["filename"]
            mesh.set("filename", str(file.resolve()))
        out.append(link)
    # Joints between those links.
    for element in tree.findall("joint"):
        parent = element.find("parent")
        if parent is not None and parent.get("link") in hand:
            out.append(element)
    return out


def _add_gantry(tree: ET.Element, robot: Robot) -> tuple[Joint, ...]:
    """Append the gantry's links and joints to a URDF, and return the joints."""
    ET.SubElement(tree, "link", name=_BASE)
    joints, parent = [], _BASE
    for i, name in enumerate(_NAMES):
        # Three slides, then three turns, one a coordinate axis.
        kind, axis = ("prismatic", "revolute")[i // 3], np.eye(3)[i % 3]
        child = f"{name}_link"
        _add_link(tree, child)
        element = _add_joint(tree, name, kind, parent, child)
        ET.SubElement(element, "axis", xyz=" ".join(f"{a:g}" for a in axis))
        ET.SubElement(element, "limit", lower="-10", upper="10", effort="1e6", velocity="100")
        joints.append(Joint(name, kind, parent, child, pose(), axis, -10.0, 10.0))
        parent = child
    # The last link is the tool frame; the hand's link is fixed to it.
    X_tool_link = inverse(robot.X_link_tool)
    element = _add_joint(tree, "gantry_hand", "fixed", parent, robot.tool_link)
    xyz, rpy = X_tool_link[:3, 3], rpy_from_matrix(X_tool_link[:3, :3])
    ET.SubElement(element, "origin", xyz=_numbers(xyz), rpy=_numbers(rpy))
    x_axis = np.array([1.0, 0.0, 0.0])
    joints.append(Joint("gantry_hand", "fixed", parent, robot.tool_link, X_tool_link, x_axis))
    return tuple(joints)


def _add_joint(tree: ET.Element, name: str, kind: str, parent: str, child: str) -> ET.Element:
    element = ET.SubElement(tree, "joint", name=name, type=kind)
    ET.SubElement(element, "parent", link=parent)
    ET.SubElement(element, "child", link=child)
    return element


def _add_link(tree: ET.Element, name: str) -> None:
    """Append a link of 1 kg without a shape."""
    inertial = ET.SubElement(ET.SubElement(tree, "link", name=name), "inertial")
    ET.SubElement(inertial, "mass", value="1")
    moments = {"ixx": "0.01", "iyy": "0.01", "izz": "0.01", "ixy": "0", "ixz": "0", "iyz": "0"}
    ET.SubElement(inertial, "inertia", moments)


def _numbers(values: FloatArray) -> str:
    return " ".join(f"{v:.12g}" for v in values)
