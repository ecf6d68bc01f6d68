"""Articulated things from a URDF: one scene object with its parts and joints, or one a link.

X_world_child = X_world_parent @ X_parent_joint @ motion(q)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import pose, transform
from flowplan.parts import Articulation, PartJoint
from flowplan.robot.kinematics import tree_poses
from flowplan.robot.urdf import Geometry, Joint, Shape, Urdf, read_urdf
from flowplan.robot.urdf_meshes import primitive_mesh, require_readable, z_up
from flowplan.scan.meshes.mesh_file import read_mesh
from flowplan.scan.meshes.repair import cleaned
from flowplan.scan.meshes.requirements import NoFacesError
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

MAX_FACES = 10_000_000
"""Meshes of more faces are refused."""
ROUNDING = 1e-6
"""Joint positions that leave a limit by less are at the limit, rad or m."""
FOLLOWING = 1e-3
"""Positions of followers that are given may differ from the followed one by this, rad or m."""
LARGE, SMALL, FAR = 3.0, 2e-3, 30.0
"""Meters; larger links, smaller things and larger distances are likely in another unit."""


def load_urdf(
    path: str | Path,
    joints: Mapping[str, float] | None = None,
    *,
    X_world_base: ArrayLike | None = None,
    name: str | None = None,
    geometry: Geometry = "visual",
    links: bool = False,
    allow_outside: bool = False,
) -> tuple[SceneObject, ...]:
    """A URDF as one object with its articulation, in the frame of the root link.

    Its parts are the links, its joints those of the URDF, at the given positions.

    Args:
        path: the file.
        joints: positions by joint name, radians or meters. Defaults to 0, or to the limit nearest
            to it. A joint that mimics another follows it; its own position may be given beside
            that of the joint that it follows.
        X_world_base: (4, 4) pose of the root link. Defaults to the identity.
        name: defaults to the robot element's name.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.
        links: make an object `<name>/<link>` of each link that has a shape instead, without
            joints, in the link's frame and in the order of the file.
        allow_outside: read meshes that lie outside of the URDF's folder and its package.

    Returns:
        One object, or as many as links have a shape.

    Raises:
        ValueError: one line that names the file, the element and the remedy.
    """
    checks.choice("geometry", geometry, ("visual", "collision"))
    urdf = read_urdf(path, allow_outside=allow_outside)
    X_world_root = pose() if X_world_base is None else checks.poses("X_world_base", X_world_base)
    # Poses of the links at these joint positions.
    positions = _positions(urdf, joints or {})
    X_root_link = tree_poses(urdf.joints, urdf.root, positions)
    title = name or urdf.name or urdf.path.stem
    objects = []
    for link in urdf.elements:
        mesh = link_mesh(urdf, link, geometry)
        if mesh is not None:
            objects.append(SceneObject(f"{title}/{link}", mesh, X_world_root @ X_root_link[link]))
    if not objects:
        raise ValueError(f"{urdf.path}: no link has a visual or collision shape")
    _warn_of_unit(urdf.path, objects)
    if links:
        return tuple(objects)
    meshes = {o.name.removeprefix(f"{title}/"): o.mesh for o in objects}
    return (_whole(urdf, title, meshes, X_world_root, X_root_link, positions),)


def _whole(
    urdf: Urdf,
    title: str,
    meshes: Mapping[str, trimesh.Trimesh],
    X_world_root: FloatArray,
    X_root_link: Mapping[str, FloatArray],
    positions: Mapping[str, float],
) -> SceneObject:
    """All links as one object in the root link's frame, with its articulation."""
    vertices, faces = trimesh.util.append_faces(
        [transform(X_root_link[link], mesh.vertices) for link, mesh in meshes.items()],
        [mesh.faces for mesh in meshes.values()],
    )
    number = {link: i for i, link in enumerate(urdf.links)}
    part = np.concatenate([np.full(len(m.faces), number[link]) for link, m in meshes.items()])
    joints = []
    for j in urdf.joints:
        X_root_joint = X_root_link[j.parent] @ j.X_parent_joint
        made = PartJoint(
            j.name,
            j.kind,  # type: ignore[arg-type]
            number[j.parent],
            number[j.child],
            X_root_joint[:3, :3] @ j.axis,
            X_root_joint[:3, 3],
        )
        if j.kind != "fixed":
            made = replace(made, position=positions[j.name], lower=j.lower, upper=j.upper)
        mimic = urdf.mimic.get(j.name)
        if mimic is not None and j.kind != "fixed" and mimic.joint in positions:
            made = replace(
                made, follows=mimic.joint, multiplier=mimic.multiplier, offset=mimic.offset
            )
        joints.append(made)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    articulation = Articulation(urdf.links, part, tuple(joints))
    return SceneObject(title, mesh, X_world_root, articulation=articulation)


def _warn_of_unit(path: Path, objects: list[SceneObject]) -> None:
    """Warn of sizes and distances that are unlikely in meters."""
    sizes = [float(o.mesh.extents.max()) for o in objects]
    worst = int(np.argmax(sizes))
    name = objects[worst].name
    corners = np.concatenate([o.mesh_world.bounds for o in objects])
    span = float(np.ptp(corners, axis=0).max())
    fault = ""
    if sizes[worst] > LARGE:
        fault = f"{name!r} is {sizes[worst]:.4g} m large; if it is in mm, scale its shapes"
    elif span > FAR:
        fault = f"the links lie {span:.4g} m apart; if they are in mm, scale the joints' origins"
    elif sizes[worst] < SMALL:
        fault = f"the largest link, {name!r}, is only {1e3 * sizes[worst]:.2g} mm large"
    if fault:
        warnings.warn(f"{path}: {fault} (a URDF's unit is the meter)", stacklevel=3)


def _positions(urdf: Urdf, given: Mapping[str, float]) -> dict[str, float]:
    """Position of every moving joint: the given one, the one nearest to zero, or the mimicked."""
    moving = {j.name: j for j in urdf.joints if j.kind != "fixed"}
    free = {name: joint for name, joint in moving.items() if name not in urdf.mimic}
    q = {name: float(np.clip(0.0, j.lower, j.upper)) for name, j in free.items()}
    for name, value in given.items():
        if name not in urdf.mimic:
            checks.choice(f"{urdf.path}: joints", name, tuple(free))
            q[name] = _within_limits(urdf, free[name], value)
    for name, mimic in urdf.mimic.items():
        # A follower of a fixed joint stays at its offset.
        q[name] = mimic.multiplier * q.get(mimic.joint, 0.0) + mimic.offset
        if name in given and not abs(_number(urdf, name, given[name]) - q[name]) <= FOLLOWING:
            raise ValueError(
                f"{urdf.path}: joints: {name!r} at {given[name]:g}, but it follows "
                f"{mimic.joint!r} (mimic), which puts it at {q[name]:g}; "
                f"give {mimic.joint!r} instead"
            )
    return q


def _number(urdf: Urdf, name: str, value: float) -> float:
    return float(checks.array(f"{urdf.path}: joints: {name!r}", value, ()))


def _within_limits(urdf: Urdf, joint: Joint, value: float) -> float:
    """A position up to rounding within the joint's limits."""
    value = _number(urdf, joint.name, value)
    if not joint.lower - ROUNDING <= value <= joint.upper + ROUNDING:
        raise ValueError(
            f"{urdf.path}: joints: {joint.name!r} at {value:g}, expected {joint.lower:g} to "
            f"{joint.upper:g}; angles are in radians, lengths in meters"
        )
    return float(np.clip(value, joint.lower, joint.upper))


def link_mesh(
    urdf: Urdf, link: str, geometry: Geometry = "visual", *, strict: bool = False
) -> trimesh.Trimesh | None:
    """All shapes of a link in its frame as one mesh, or None if it has none.

    Meshes without a face are left out with a warning, or refused if `strict`.

    Args:
        urdf: the file's links.
        link: name of one of them.
        geometry: "visual" or "collision"; a link without one of the kind uses the other.
        strict: refuse a mesh without a face.

    Raises:
        ValueError: one line that names the file, if a shape cannot be read.
    """
    other: Geometry = "collision" if geometry == "visual" else "visual"
    parts: list[trimesh.Trimesh] = []
    for kind in (geometry, other):
        parts = parts or _parts(urdf, link, kind, strict)
    if not parts:
        return None
    # All shapes in the link's frame, as one mesh.
    vertices, faces = trimesh.util.append_faces(
        [p.vertices for p in parts], [p.faces for p in parts]
    )
    return trimesh.Trimesh(vertices, faces, process=False)


def _parts(urdf: Urdf, link: str, geometry: Geometry, strict: bool) -> list[trimesh.Trimesh]:
    """The meshes of a link's shapes of one kind, link frame."""
    parts = []
    for shape in urdf.shapes(link, geometry):
        try:
            parts.append(_mesh(urdf, shape).apply_transform(shape.X_link_shape))
        except NoFacesError:
            if strict:
                raise
            warnings.warn(
                f"{shape.where}: mesh {shape.filename!r} has no faces; the link is read without it",
                stacklevel=4,
            )
    return parts


def _mesh(urdf: Urdf, shape: Shape) -> trimesh.Trimesh:
    """A shape's mesh in its own frame, meters."""
    if shape.kind != "mesh":
        return primitive_mesh(shape, sections=48)
    file = urdf.mesh_file(shape)
    require_readable(urdf.path, file)
    mesh = cleaned(read_mesh(file, MAX_FACES))
    if len(mesh.faces) == 0:
        raise NoFacesError(f"{file}: faces: none has an area")
    mesh = trimesh.Trimesh(z_up(file, mesh.vertices), mesh.faces, process=False)
    return mesh.apply_scale(shape.size)
