"""MJCF to URDF, for the articulated models that PyBullet cannot read.

PyBullet's MJCF reader knows no <include>, no defaults and no mesh frames, so MuJoCo itself compiles the file and this
walk over the compiled bodies writes what it finds: visual meshes and primitives as they are, collision geometry as
the MJCF's primitives, real joint axes and limits. Masses, joint friction and damping are asked for, because models made
for reinforcement learning rarely carry plausible ones; inertias keep MuJoCo's distribution, scaled to the asked mass.

The models under `assets/` were made by

    python -m sim_envs.convert_mjcf METAWORLD/assets/objects/laptop.xml OUT/laptop --body laptoplid_link \\
        --links base lid --masses 1.3 0.25 --scale 0.8 --friction 0.45 --damping 0.1
    python -m sim_envs.convert_mjcf METAWORLD/assets/objects/drawer.xml OUT/drawer --body drawer_link \\
        --links case drawer --masses 3.0 0.5 --friction 2.0 --damping 2.0 --stand 0.08
    python -m sim_envs.convert_mjcf METAWORLD/assets/objects/faucet.xml OUT/faucet --body faucet_link2 \\
        --links base handle --masses 1.0 0.2 --friction 0.25 --damping 0.02
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import trimesh
import tyro
from numpy.typing import NDArray

from flowplan.geometry import matrix_from_quat_wxyz, pose


@dataclass(frozen=True)
class ConvertOptions:
    """What the MJCF does not say, or says implausibly."""

    mjcf: Annotated[Path, tyro.conf.Positional]
    """Model that MuJoCo compiles on its own."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write NAME.urdf and its meshes into; its last part is NAME."""
    body: str = ""
    """Name of any body of the wanted model; its topmost ancestor that has geometry becomes the base link."""
    links: tuple[str, ...] = ()
    """Names of the URDF links, in the MJCF's order."""
    masses: tuple[float, ...] = ()
    """Mass of each link, kg."""
    scale: float = 1.0
    """Factor on every length."""
    friction: float = 0.0
    """Coulomb friction of each joint, N m or N."""
    damping: float = 0.0
    """Viscous damping of each joint, N m s/rad or N s/m."""
    stand: float = 0.0
    """Height of a solid block put under the base link, metres."""
    stand_rgb: tuple[float, float, float] = field(default=(0.55, 0.42, 0.3))
    """Its colour."""


def convert(options: ConvertOptions) -> Path:
    """Write the URDF and its meshes, and return the URDF's path.

    The base link's frame lies on the lowest point of its collision geometry, so the model stands on z = 0.

    Raises:
        ValueError: when the body is not there, the names do not match its links, or a joint has several axes.
    """
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(options.mjcf))
    bodies = _subtree(model, options.body)
    for name in ("links", "masses"):
        if len(getattr(options, name)) != len(bodies):
            raise ValueError(
                f"ConvertOptions.{name}: expected {len(bodies)} entries, one per body, got {getattr(options, name)}"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    robot = ET.Element("robot", name=options.out.name)
    lift = _lowest(model, bodies[0]) * options.scale - options.stand
    for body, link, mass in zip(bodies, options.links, options.masses, strict=True):
        X_link_body = pose(translation=[0, 0, -lift]) if body == bodies[0] else pose()
        element = ET.SubElement(robot, "link", name=link)
        _inertial(element, model, body, X_link_body, mass, options.scale)
        for geom in _geoms(model, body):
            _geometry(element, model, geom, X_link_body, options)
        if body == bodies[0] and options.stand:
            _stand(element, model, body, options)
        if body != bodies[0]:
            parent = bodies.index(model.body_parentid[body])
            X_parent = pose(translation=[0, 0, -lift]) if parent == 0 else pose()
            _joint(robot, model, body, options.links[parent], link, X_parent, options)
    ET.indent(robot)
    path = options.out / f"{options.out.name}.urdf"
    path.write_text(ET.tostring(robot, encoding="unicode") + "\n")
    return path


def _subtree(model: Any, name: str) -> list[int]:
    """Ids of the bodies of the model that holds the body `name`, base first."""
    names = [model.body(i).name for i in range(model.nbody)]
    if name not in names:
        raise ValueError(f"ConvertOptions.body: got {name!r}, expected one of {', '.join(filter(None, names))}")
    body = root = names.index(name)
    while body:
        root = body if len(_geoms(model, body)) else root
        body = model.body_parentid[body]
    bodies = [root]
    for child in range(root + 1, model.nbody):
        if model.body_parentid[child] in bodies:
            bodies.append(child)
    return bodies


def _geoms(model: Any, body: int) -> range:
    first = model.body_geomadr[body]
    return range(first, first + model.body_geomnum[body]) if first >= 0 else range(0)


def _pose_of(model: Any, kind: str, index: int) -> NDArray[np.float64]:
    """(4, 4) pose of a body, geom or inertia frame in its parent frame, in the MJCF's own scale."""
    quat, pos = {
        "body": (model.body_quat, model.body_pos),
        "geom": (model.geom_quat, model.geom_pos),
        "inertia": (model.body_iquat, model.body_ipos),
    }[kind]
    return pose(matrix_from_quat_wxyz(quat[index]), pos[index])


def _shape(model: Any, geom: int) -> trimesh.Trimesh:
    """A geom's surface in the geom's frame."""
    import mujoco

    size, kind = model.geom_size[geom], mujoco.mjtGeom(model.geom_type[geom])
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return trimesh.creation.box(2 * size)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return trimesh.creation.cylinder(size[0], 2 * size[1])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(radius=size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        capsule: trimesh.Trimesh = trimesh.creation.capsule(2 * size[1], size[0])
        return capsule
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.mesh(model.geom_dataid[geom])
        v = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        f = model.mesh_face[mesh.faceadr[0] : mesh.faceadr[0] + mesh.facenum[0]]
        return trimesh.Trimesh(v, f)
    raise ValueError(f"{model.geom(geom).name or geom}: got a geom of type {kind.name}; only bounded shapes are read")


def _lowest(model: Any, body: int) -> float:
    """Least z of a body's collision geometry in the body frame."""
    solid = [g for g in _geoms(model, body) if model.geom_contype[g]]
    return min(_shape(model, g).apply_transform(_pose_of(model, "geom", g)).bounds[0, 2] for g in solid)


def _geometry(
    link: ET.Element, model: Any, geom: int, X_link_body: NDArray[np.float64], options: ConvertOptions
) -> None:
    """Append a geom as a <visual> or, where it collides, as one or more <collision> elements."""
    import mujoco

    X = X_link_body @ _scaled(_pose_of(model, "geom", geom), options.scale)
    size, kind = model.geom_size[geom] * options.scale, mujoco.mjtGeom(model.geom_type[geom])
    solid = bool(model.geom_contype[geom])
    tag = "collision" if solid else "visual"
    material = model.geom_matid[geom]
    rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        _shape_element(link, tag, X, "box", {"size": _text(2 * size)}, rgba)
    elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        _shape_element(link, tag, X, "sphere", {"radius": _text(size[:1])}, rgba)
    elif kind in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
        _shape_element(link, tag, X, "cylinder", {"radius": _text(size[:1]), "length": _text(2 * size[1:2])}, rgba)
        # URDF has no capsule: a cylinder between two spheres is the same solid.
        for end in (-size[1], size[1]) if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else ():
            X_end = X @ pose(translation=[0, 0, end])
            _shape_element(link, tag, X_end, "sphere", {"radius": _text(size[:1])}, rgba)
    else:
        mesh = _shape(model, geom)
        name = f"{model.mesh(model.geom_dataid[geom]).name}.stl"
        mesh.apply_scale(options.scale)
        mesh.export(options.out / name)
        _shape_element(link, tag, X, "mesh", {"filename": name}, rgba)


def _stand(link: ET.Element, model: Any, body: int, options: ConvertOptions) -> None:
    """A block as wide as the base link's collision geometry, from z = 0 up to it."""
    solid = [g for g in _geoms(model, body) if model.geom_contype[g]]
    bounds = np.stack([_shape(model, g).apply_transform(_pose_of(model, "geom", g)).bounds for g in solid])
    lower, upper = bounds[:, 0].min(0) * options.scale, bounds[:, 1].max(0) * options.scale
    size = np.array([*(upper - lower)[:2], options.stand])
    X = pose(translation=[*(0.5 * (lower + upper))[:2], 0.5 * options.stand])
    for tag in ("visual", "collision"):
        _shape_element(link, tag, X, "box", {"size": _text(size)}, np.array([*options.stand_rgb, 1.0]))


def _inertial(
    link: ET.Element, model: Any, body: int, X_link_body: NDArray[np.float64], mass: float, scale: float
) -> None:
    element = ET.SubElement(link, "inertial")
    _origin(element, X_link_body @ _scaled(_pose_of(model, "inertia", body), scale))
    ET.SubElement(element, "mass", value=f"{mass:g}")
    ixx, iyy, izz = model.body_inertia[body] * (mass / model.body_mass[body]) * scale**2
    values = {"ixx": ixx, "ixy": 0.0, "ixz": 0.0, "iyy": iyy, "iyz": 0.0, "izz": izz}
    ET.SubElement(element, "inertia", {k: f"{v:.4g}" for k, v in values.items()})


def _joint(
    robot: ET.Element,
    model: Any,
    body: int,
    parent: str,
    link: str,
    X_parent: NDArray[np.float64],
    options: ConvertOptions,
) -> None:
    import mujoco

    if model.body_jntnum[body] > 1:
        raise ValueError(f"{link}: got {model.body_jntnum[body]} joints on one body; URDF allows one")
    X = X_parent @ _scaled(_pose_of(model, "body", body), options.scale)
    if not model.body_jntnum[body]:
        element = ET.SubElement(robot, "joint", name=f"{link}_fixed", type="fixed")
    else:
        j = model.body_jntadr[body]
        kinds = {mujoco.mjtJoint.mjJNT_HINGE: "revolute", mujoco.mjtJoint.mjJNT_SLIDE: "prismatic"}
        kind = kinds.get(mujoco.mjtJoint(model.jnt_type[j]))
        if kind is None or np.abs(model.jnt_pos[j]).max() > 1e-9 or not model.jnt_limited[j]:
            raise ValueError(f"{link}: expected a limited hinge or slide through the body's origin")
        element = ET.SubElement(robot, "joint", name=f"{link}_joint", type=kind)
        ET.SubElement(element, "axis", xyz=_text(model.jnt_axis[j]))
        lower, upper = model.jnt_range[j] * (options.scale if kind == "prismatic" else 1.0)
        ET.SubElement(element, "limit", lower=f"{lower:g}", upper=f"{upper:g}", effort="100", velocity="10")
        ET.SubElement(element, "dynamics", friction=f"{options.friction:g}", damping=f"{options.damping:g}")
    _origin(element, X)
    ET.SubElement(element, "parent", link=parent)
    ET.SubElement(element, "child", link=link)


def _shape_element(
    link: ET.Element, tag: str, X: NDArray[np.float64], shape: str, attributes: dict[str, str], rgba: NDArray[Any]
) -> None:
    element = ET.SubElement(link, tag)
    _origin(element, X)
    ET.SubElement(ET.SubElement(element, "geometry"), shape, attributes)
    if tag == "visual":
        material = ET.SubElement(element, "material", name=f"rgb_{_text(rgba[:3]).replace(' ', '_')}")
        ET.SubElement(material, "color", rgba=_text([*rgba[:3], 1.0]))


def _origin(element: ET.Element, X: NDArray[np.float64]) -> None:
    R = X[:3, :3]
    # URDF's rpy turns about the fixed x, then y, then z axis: R = Rz(yaw) Ry(pitch) Rx(roll).
    pitch = np.arctan2(-R[2, 0], np.hypot(R[2, 1], R[2, 2]))
    if abs(R[2, 0]) > 1 - 1e-10:  # roll and yaw turn about one line: all of it goes to roll
        rpy = np.arctan2(-R[1, 2], R[1, 1]), pitch, 0.0
    else:
        rpy = np.arctan2(R[2, 1], R[2, 2]), pitch, np.arctan2(R[1, 0], R[0, 0])
    ET.SubElement(element, "origin", xyz=_text(X[:3, 3]), rpy=_text(rpy))


def _scaled(X: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return pose(X[:3, :3], X[:3, 3] * scale)


def _text(values: Any) -> str:
    return " ".join(f"{v:.6g}" for v in np.round(np.asarray(values, float), 9) + 0.0)


if __name__ == "__main__":
    convert(tyro.cli(ConvertOptions))
