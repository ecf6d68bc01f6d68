"""An articulated object as a URDF with a mesh for each part.

A URDF has neither screws nor free joints: a screw becomes a revolute joint and a prismatic one that
follows it (mimic), a free joint three slides and three turns, with links of no shape in between.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from flowplan.articulation.cutting import part_mesh
from flowplan.geometry import exp_so3, inverse, pose
from flowplan.parts import PartJoint
from flowplan.robot.urdf import Joint, Mimic
from flowplan.robot.urdf_writer import write_urdf
from flowplan.scene import SceneObject
from flowplan.utils.checks import FloatArray

_ROOM = 0.5
"""Meters that a free joint's slides may move each way."""


def export_urdf(path: str | Path, obj: SceneObject) -> Path:
    """Write an object's parts and joints as a URDF, and its meshes into a folder beside it.

    The root link's frame is the object's; that of another link lies at its joint, with the
    object's axes where the mesh shows it.

    Args:
        path: ends in .urdf; meshes go to a folder of its name with "_meshes".
        obj: with an articulation.

    Raises:
        ValueError: if the object has no articulation, or the path another suffix.
    """
    path = Path(path)
    articulation = obj.articulation
    if articulation is None:
        raise ValueError(
            f"SceneObject[{obj.name}].articulation: None; flowplan articulate estimates it from a "
            "motion"
        )
    if path.suffix != ".urdf":
        raise ValueError(f"path: expected a name that ends in .urdf, got {str(path)!r}")
    # Link frames: the object's for the root, at the joint for others.
    origin = {articulation.root: np.zeros(3)}
    origin |= {j.child: np.asarray(j.point) for j in articulation.joints}
    links = {
        name: _link_mesh(obj.mesh, articulation.part == k, origin[k])
        for k, name in enumerate(articulation.parts)
    }
    joints: list[Joint] = []
    mimic: dict[str, Mimic] = {}
    empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), process=False)
    for j in articulation.joints:
        ends = articulation.parts[j.parent], articulation.parts[j.child]
        made, followers = _urdf_joints(j, *ends, origin[j.child] - origin[j.parent])
        links |= {m.child: empty for m in made if m.child not in links}
        joints += made
        mimic |= followers
        if j.follows:
            mimic[j.name] = Mimic(j.follows, j.multiplier, j.offset)
    return write_urdf(path, _word(obj.name), links, joints, mimic, meshes=f"{path.stem}_meshes")


def _link_mesh(mesh: trimesh.Trimesh, faces: np.ndarray, origin: FloatArray) -> trimesh.Trimesh:
    """The faces of one part about its frame, its rims closed."""
    part = part_mesh(mesh, faces)
    return trimesh.Trimesh(part.vertices - origin, part.faces, process=False)


def _urdf_joints(
    j: PartJoint, parent: str, child: str, offset: FloatArray
) -> tuple[list[Joint], dict[str, Mimic]]:
    """A joint as those of a URDF, the child's frame at `offset` (3,) from the parent's."""
    X = pose(translation=offset)
    if j.kind == "fixed":
        return [Joint(j.name, "fixed", parent, child, X, j.axis)], {}
    if j.kind == "free":
        return _free(j, parent, child, X), {}
    if j.kind == "prismatic":
        at_zero = X @ pose(translation=-j.position * j.axis)
        return [Joint(j.name, "prismatic", parent, child, at_zero, j.axis, j.lower, j.upper)], {}
    # The mesh shows the joint at its position: turned back, at zero.
    back = inverse(pose(exp_so3(j.position * j.axis)))
    turn = Joint(j.name, "revolute", parent, child, X @ back, j.axis, j.lower, j.upper)
    if j.kind == "revolute":
        return [turn], {}
    between = f"{child}_turn"
    follower = f"{j.name}_rise"
    rise = Joint(
        follower,
        "prismatic",
        between,
        child,
        pose(translation=-j.pitch * j.position * j.axis),
        j.axis,
        *sorted((j.pitch * j.lower, j.pitch * j.upper)),
    )
    return [replace(turn, child=between), rise], {follower: Mimic(j.name, j.pitch, 0.0)}


def _free(j: PartJoint, parent: str, child: str, X: FloatArray) -> list[Joint]:
    """Three slides and three turns from a parent to a child, all zero where the mesh shows it."""
    made: list[Joint] = []
    steps = [("prismatic", i) for i in range(3)] + [("revolute", i) for i in range(3)]
    for number, (kind, i) in enumerate(steps):
        last = number == len(steps) - 1
        name = f"{j.name}_{'move' if kind == 'prismatic' else 'turn'}_{'xyz'[i]}"
        to = child if last else f"{child}_{number}"
        most = _ROOM if kind == "prismatic" else np.pi
        made.append(Joint(name, kind, parent, to, X, np.eye(3)[i], -most, most))
        parent, X = to, pose()
    return made


def _word(name: str) -> str:
    """A name that every reader of URDFs takes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) or "object"
