"""MJCF to URDF, for the articulated models that PyBullet cannot read.

PyBullet's MJCF reader knows no <include>, no defaults and no mesh frames, so MuJoCo itself compiles
the file and this walk over the compiled bodies writes what it finds: visual meshes and primitives
as they are, collision geometry as the MJCF's primitives, real joint axes and limits. Masses, joint
friction and damping are asked for, because models made for reinforcement learning rarely carry
plausible ones; inertias keep MuJoCo's distribution, scaled to the asked mass.

The models under `assets/` were made by

    python -m tools.convert_mjcf METAWORLD/assets/objects/laptop.xml OUT/laptop --body
    laptoplid_link \\
        --links base lid --masses 1.3 0.25 --scale 0.8 --friction 0.45 --damping 0.1
    python -m tools.convert_mjcf METAWORLD/assets/objects/drawer.xml OUT/drawer --body drawer_link
    \\
        --links case drawer --masses 3.0 0.5 --friction 2.0 --damping 2.0 --stand 0.08
    python -m tools.convert_mjcf METAWORLD/assets/objects/faucet.xml OUT/faucet --body faucet_link2
    \\
        --links base handle --masses 1.0 0.2 --friction 0.25 --damping 0.02
    python -m tools.convert_mjcf METAWORLD/assets/objects/doorlockB.xml OUT/door --body door_link \\
        --links safe door --masses 8.0 1.2 --friction 0.5 --damping 0.1
    python -m tools.convert_mjcf METAWORLD/assets/objects/doorlockA.xml OUT/door_lock --body
    lock_link \\
        --links safe door lock --masses 8.0 1.2 0.1 --friction 0.2 --damping 0.02
    python -m tools.convert_mjcf METAWORLD/assets/objects/dial.xml OUT/dial --body knob_Joint_1 \\
        --links base knob --masses 1.0 0.15 --friction 0.05 --damping 0.01 --stand 0.03
    python -m tools.convert_mjcf METAWORLD/assets/objects/handle_press.xml OUT/handle_press --body
    handle_link \\
        --links base handle --masses 5.0 0.3 --friction 5.0 --damping 5.0
    python -m tools.convert_mjcf METAWORLD/assets/objects/lever.xml OUT/lever --body lever_link1 \\
        --links base lever --masses 5.0 0.4 --friction 1.0 --damping 0.1
    python -m tools.convert_mjcf METAWORLD/assets/objects/window.xml OUT/window --body window_slide
    \\
        --links frame sash --masses 4.0 0.6 --friction 8.0 --damping 5.0
    python -m tools.convert_mjcf METAWORLD/assets/objects/window_horiz.xml OUT/window_horizontal \\
        --body window_slide --links frame sash pane --masses 4.0 0.6 0.6 --friction 2.0 --damping
        5.0
    python -m tools.convert_mjcf METAWORLD/assets/objects/buttonbox.xml OUT/button_box --body button
    \\
        --links base button --masses 3.0 0.05 --friction 3.0 --damping 5.0
    python -m tools.convert_mjcf METAWORLD/assets/objects/coffeemachine.xml OUT/coffee_machine
    --body cmbutton \\
        --links base machine button --masses 0.1 5.0 0.05 --friction 3.0 --damping 5.0
    python -m tools.convert_mjcf METAWORLD/assets/objects/hammerblock.xml OUT/hammer_block --body
    nail_link \\
        --links block nail --masses 3.0 0.1 --friction 5.0 --damping 5.0
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

from flowplan.geometry import matrix_from_quat_wxyz, pose, rpy_from_matrix


@dataclass(frozen=True)
class ConvertOptions:
    """Values that the MJCF lacks, or states implausibly."""

    mjcf: Annotated[Path, tyro.conf.Positional]
    """Model that MuJoCo compiles on its own."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to write NAME.urdf and its meshes into; its last part is NAME."""
    body: str = ""
    """Name of any body or joint of the wanted model. The topmost ancestor that has geometry becomes
    the base link; where that moves itself, the empty body above it."""
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
    """Height of a solid block added under the model as a part of the base link, meters."""
    stand_rgb: tuple[float, float, float] = field(default=(0.55, 0.42, 0.3))
    """Color of the block."""


def convert(options: ConvertOptions) -> Path:
    """Write the URDF and its meshes, and return the URDF's path.

    The base link's frame lies on the lowest point of its collision geometry, so the model stands on
    z = 0.

    Raises:
        ValueError: when the body is not there, the names do not match its links, or a joint has
            several axes.
    """
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(options.mjcf))
    bodies = _subtree(model, options.body)
    for name in ("links", "masses"):
        if len(getattr(options, name)) != len(bodies):
            raise ValueError(
                f"ConvertOptions.{name}: expected {len(bodies)} entries, one per body, got "
                f"{getattr(options, name)}"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    robot = ET.Element("robot", name=options.out.name)
    # Height of the model's lowest point, which becomes z = 0.
    bounds = _solid_bounds(model, bodies) * options.scale
    lift = bounds[0, 2] - options.stand
    for body, link, mass in zip(bodies, options.links, options.masses, strict=True):
        X_link_body = pose(translation=[0, 0, -lift]) if body == bodies[0] else pose()
        element = ET.SubElement(robot, "link", name=link)
        if _geoms(model, body):
            _inertial(element, model, body, X_link_body, mass, options.scale)
        else:
            _block_inertial(element, mass, bounds, options.stand)
        for geom in _geoms(model, body):
            _geometry(element, model, geom, X_link_body, options)
        if body == bodies[0] and options.stand:
            _stand(element, bounds, options)
        if body != bodies[0]:
            parent = bodies.index(model.body_parentid[body])
            X_parent = pose(translation=[0, 0, -lift]) if parent == 0 else pose()
            _joint(robot, model, body, options.links[parent], link, X_parent, options)
    ET.indent(robot)
    path = options.out / f"{options.out.name}.urdf"
    path.write_text(ET.tostring(robot, encoding="unicode") + "\n")
    return path


def _subtree(model: Any, name: str) -> list[int]:
    """Ids of the bodies of the model that holds the body or joint `name`, base first."""
    # Ids by name; a body goes before a joint of the same name.
    bodies_by_name = {model.body(i).name: i for i in range(model.nbody)}
    joints_by_name = {model.joint(i).name: int(model.jnt_bodyid[i]) for i in range(model.njnt)}
    known = joints_by_name | bodies_by_name
    if not name or name not in known:
        raise ValueError(
            f"ConvertOptions.body: got {name!r}, expected one of {', '.join(filter(None, known))}"
        )
    # Topmost ancestor with geometry.
    body = root = known[name]
    while body:
        root = body if len(_geoms(model, body)) else root
        body = model.body_parentid[body]
    if model.body_jntnum[root]:  # what moves is not a base
        root = model.body_parentid[root]
    # MuJoCo numbers children after their parents.
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
    raise ValueError(
        f"{model.geom(geom).name or geom}: got a geom of type {kind.name}; only bounded shapes "
        "are read"
    )


def _solid(model: Any, geom: int) -> bool:
    # One bit on either side is enough for MuJoCo to let two geoms collide.
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom])


def _solid_bounds(model: Any, bodies: list[int]) -> NDArray[np.float64]:
    """Corners (2, 3) of the base's collision geometry in its frame; of the whole model at rest if
    it has none."""
    # Poses (4, 4) of the bodies in the base, at rest.
    X_base = {bodies[0]: pose()}
    for body in bodies[1:]:
        X_base[body] = X_base[model.body_parentid[body]] @ _pose_of(model, "body", body)
    for chosen in (bodies[:1], bodies):
        boxes = [
            _shape(model, g).apply_transform(X_base[body] @ _pose_of(model, "geom", g)).bounds
            for body in chosen
            for g in _geoms(model, body)
            if _solid(model, g)
        ]
        if boxes:
            return np.stack([np.min(boxes, axis=(0, 1)), np.max(boxes, axis=(0, 1))])
    raise ValueError("ConvertOptions.body: expected a model with collision geometry, got none")


def _geometry(
    link: ET.Element,
    model: Any,
    geom: int,
    X_link_body: NDArray[np.float64],
    options: ConvertOptions,
) -> None:
    """Append a geom as a <visual> or, where it collides, as one or more <collision> elements."""
    import mujoco

    X = X_link_body @ _scaled(_pose_of(model, "geom", geom), options.scale)
    size, kind = model.geom_size[geom] * options.scale, mujoco.mjtGeom(model.geom_type[geom])
    tag = "collision" if _solid(model, geom) else "visual"
    material = model.geom_matid[geom]
    rgba = model.geom_rgba[geom] if material < 0 else model.mat_rgba[material]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        _shape_element(link, tag, X, "box", {"size": _text(2 * size)}, rgba)
    elif kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        _shape_element(link, tag, X, "sphere", {"radius": _text(size[:1])}, rgba)
    elif kind in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
        _shape_element(
            link,
            tag,
            X,
            "cylinder",
            {"radius": _text(size[:1]), "length": _text(2 * size[1:2])},
            rgba,
        )
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


def _stand(link: ET.Element, bounds: NDArray[np.float64], options: ConvertOptions) -> None:
    """A block as wide as the collision geometry between `bounds`, from z = 0 up to it."""
    size = np.array([*(bounds[1] - bounds[0])[:2], options.stand])
    X = pose(translation=[*bounds.mean(0)[:2], 0.5 * options.stand])
    for tag in ("visual", "collision"):
        _shape_element(
            link, tag, X, "box", {"size": _text(size)}, np.array([*options.stand_rgb, 1.0])
        )


def _inertial(
    link: ET.Element,
    model: Any,
    body: int,
    X_link_body: NDArray[np.float64],
    mass: float,
    scale: float,
) -> None:
    element = ET.SubElement(link, "inertial")
    _origin(element, X_link_body @ _scaled(_pose_of(model, "inertia", body), scale))
    ET.SubElement(element, "mass", value=f"{mass:g}")
    ixx, iyy, izz = model.body_inertia[body] * (mass / model.body_mass[body]) * scale**2
    _inertia(element, ixx, iyy, izz)


def _block_inertial(
    link: ET.Element, mass: float, bounds: NDArray[np.float64], height: float
) -> None:
    """Inertia of the block under the model: of a link without a shape of its own."""
    element = ET.SubElement(link, "inertial")
    _origin(element, pose(translation=[*bounds.mean(0)[:2], 0.5 * height]))
    ET.SubElement(element, "mass", value=f"{mass:g}")
    # Solid block: m / 12 times the sum of the squares of the other two sides.
    squares = np.square([*(bounds[1] - bounds[0])[:2], height])
    _inertia(element, *(mass / 12 * (squares.sum() - squares)))


def _inertia(element: ET.Element, ixx: float, iyy: float, izz: float) -> None:
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
        raise ValueError(
            f"{link}: got {model.body_jntnum[body]} joints on one body; URDF allows one"
        )
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
        ET.SubElement(
            element, "limit", lower=f"{lower:g}", upper=f"{upper:g}", effort="100", velocity="10"
        )
        ET.SubElement(
            element, "dynamics", friction=f"{options.friction:g}", damping=f"{options.damping:g}"
        )
    _origin(element, X)
    ET.SubElement(element, "parent", link=parent)
    ET.SubElement(element, "child", link=link)


def _shape_element(
    link: ET.Element,
    tag: str,
    X: NDArray[np.float64],
    shape: str,
    attributes: dict[str, str],
    rgba: NDArray[Any],
) -> None:
    element = ET.SubElement(link, tag)
    _origin(element, X)
    ET.SubElement(ET.SubElement(element, "geometry"), shape, attributes)
    if tag == "visual":
        material = ET.SubElement(
            element, "material", name=f"rgb_{_text(rgba[:3]).replace(' ', '_')}"
        )
        ET.SubElement(material, "color", rgba=_text([*rgba[:3], 1.0]))


def _origin(element: ET.Element, X: NDArray[np.float64]) -> None:
    # Rotations come from quaternions of six digits.
    rpy = rpy_from_matrix(X[:3, :3], gimbal_tolerance=1.4e-5)
    ET.SubElement(element, "origin", xyz=_text(X[:3, 3]), rpy=_text(rpy))


def _scaled(X: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return pose(X[:3, :3], X[:3, 3] * scale)


def _text(values: Any) -> str:
    return " ".join(f"{v:.6g}" for v in np.round(np.asarray(values, float), 9) + 0.0)


if __name__ == "__main__":
    convert(tyro.cli(ConvertOptions))
