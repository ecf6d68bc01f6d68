"""Articulated things from a URDF: one scene object per link, posed by forward kinematics.

    X_world_child = X_world_parent @ X_parent_joint @ motion(q)

Links stay separate objects, because each moves rigidly, and generators, grasps and flows name an
object by its index; a mesh whose vertices knew their link would need a record of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import pose
from flowplan.robot.kinematics import tree_poses
from flowplan.robot.urdf import Geometry, Shape, Urdf, primitive_mesh, read_urdf
from flowplan.scan.meshes.mesh_file import SUFFIXES, read_mesh
from flowplan.scan.meshes.repair import cleaned
from flowplan.scene import SceneObject
from flowplan.utils import checks

MAX_FACES = 10_000_000
"""Meshes of more faces are refused."""


def load_urdf(
    path: str | Path,
    joints: Mapping[str, float] | None = None,
    *,
    X_world_base: ArrayLike | None = None,
    name: str | None = None,
    geometry: Geometry = "visual",
) -> tuple[SceneObject, ...]:
    """The links of a URDF that have a shape, as objects called `<name>/<link>`.

    Args:
        path: the file.
        joints: positions by joint name, radians or meters. Defaults to 0, or to the limit nearest
            to it. A joint that mimics another follows it.
        X_world_base: (4, 4) pose of the root link. Defaults to the identity.
        name: defaults to the robot element's name.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.

    Returns:
        SceneObjects whose frames are the links', in the order of the file.

    Raises:
        ValueError: one line that names the file, the element and the remedy.
    """
    checks.choice("geometry", geometry, ("visual", "collision"))
    urdf = read_urdf(path)
    X_world_root = pose() if X_world_base is None else checks.poses("X_world_base", X_world_base)
    # Poses of the links at these joint positions.
    X_root_link = tree_poses(urdf.joints, urdf.root, _positions(urdf, joints or {}))
    title = name or urdf.name or urdf.path.stem
    objects = []
    for link in urdf.elements:
        mesh = link_mesh(urdf, link, geometry)
        if mesh is not None:
            objects.append(SceneObject(f"{title}/{link}", mesh, X_world_root @ X_root_link[link]))
    if not objects:
        raise ValueError(f"{urdf.path}: no link has a visual or collision shape")
    return tuple(objects)


def _positions(urdf: Urdf, given: Mapping[str, float]) -> dict[str, float]:
    """Position of every moving joint: the given one, the one nearest to zero, or the mimicked."""
    moving = [j for j in urdf.joints if j.kind != "fixed"]
    free = {j.name: j for j in moving if j.name not in urdf.mimic}
    for name, value in given.items():
        checks.choice(f"{urdf.path}: joints", name, tuple(free))
        joint = free[name]
        if not joint.lower - 1e-9 <= value <= joint.upper + 1e-9:
            raise ValueError(
                f"{urdf.path}: joints: {name!r} at {value:g}, expected {joint.lower:g} to "
                f"{joint.upper:g}; angles are in radians, lengths in meters"
            )
    # Free joints first, then those that follow one.
    q = {
        name: float(given.get(name, np.clip(0.0, joint.lower, joint.upper)))
        for name, joint in free.items()
    }
    for name, mimic in urdf.mimic.items():
        checks.choice(f"{urdf.path}: joint {name!r}: mimic", mimic.joint, tuple(free))
        q[name] = mimic.multiplier * q[mimic.joint] + mimic.offset
    return q


def link_mesh(urdf: Urdf, link: str, geometry: Geometry = "visual") -> trimesh.Trimesh | None:
    """All shapes of a link in its frame as one mesh, or None if it has none.

    Args:
        urdf: the file's links.
        link: name of one of them.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.

    Raises:
        ValueError: one line that names the file, if a shape cannot be read.
    """
    other: Geometry = "collision" if geometry == "visual" else "visual"
    shapes = urdf.shapes(link, geometry) or urdf.shapes(link, other)
    if not shapes:
        return None
    # All shapes in the link's frame, as one mesh.
    parts = [_mesh(urdf, s).apply_transform(s.X_link_shape) for s in shapes]
    vertices, faces = trimesh.util.append_faces(
        [p.vertices for p in parts], [p.faces for p in parts]
    )
    return trimesh.Trimesh(vertices, faces, process=False)


def _mesh(urdf: Urdf, shape: Shape) -> trimesh.Trimesh:
    """A shape's mesh in its own frame, meters."""
    if shape.kind != "mesh":
        return primitive_mesh(shape, sections=48)
    file = urdf.mesh_file(shape)
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{file}: not one of {', '.join(SUFFIXES)}; convert it and change {urdf.path.name}"
        )
    return cleaned(read_mesh(file, MAX_FACES)).apply_scale(shape.size)
