"""Objects of the shake test, each a union of convex pieces.

They are five of the vendored scans (fingers cannot get under the rim of the sixth, the plate) and
objects that come with PyBullet: a mug, a duck and every 250th of its thousand random shapes. Grasps
are proposed on the union of the pieces, which is also what the simulator collides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet_data
import trimesh

from flowplan.geometry import exp_so3, pose
from flowplan.scene import SceneObject
from flowplan.utils import checks
from sim_envs.assets import SCANNED, connected_pieces, urdf_path
from sim_envs.world import World

_PYBULLET = Path(pybullet_data.getDataPath())
_GRASPABLE = tuple(name for name in SCANNED if name != "plate")
_RANDOM = ("000", "250", "500", "750")

OBJECTS: dict[str, tuple[Path, float]] = {
    **{name: (urdf_path(name).parent / "collision.obj", 1.0) for name in _GRASPABLE},
    "mug": (_PYBULLET / "objects" / "mug_col.obj", 1.0),
    "duck": (_PYBULLET / "duck_vhacd.obj", 0.05),
    **{f"random_{i}": (_PYBULLET / "random_urdfs" / i / f"{i}.obj", 0.015) for i in _RANDOM},
}
"""Mesh of convex pieces and meters per file unit, by name."""

_DROP_HEIGHT = 0.002
"""Height above the table from which an object is released, meters."""
_DROP_MASS = 0.15
"""Mass of an object while it comes to rest, kilograms."""
_SETTLE_TIME = 4.0
"""Time it is given to come to rest, seconds."""


@dataclass(frozen=True, eq=False)
class ShakeObject:
    """A rigid object made of convex pieces.

    Attributes:
        name: Name for the log.
        mesh: Union of the pieces, link frame, meters.
        urdf_path: URDF of one link with these pieces and an evenly distributed mass of 1 kg.
    """

    name: str
    mesh: trimesh.Trimesh
    urdf_path: Path


def shake_objects(folder: Path, names: Sequence[str]) -> tuple[ShakeObject, ...]:
    """Objects of the benchmark by name; their files are written to `folder`."""
    for name in names:
        checks.choice("objects", name, list(OBJECTS))
    found = []
    for name in names:
        path, scale = OBJECTS[name]
        found.append(convex_object(name, path, folder, scale=scale))
    return tuple(found)


def convex_object(name: str, obj_path: Path, folder: Path, *, scale: float = 1.0) -> ShakeObject:
    """The convex hulls of an OBJ's connected parts as one body.

    Args:
        name: Name of the object and its files.
        obj_path: Mesh in file units.
        folder: Folder of the object's URDF and mesh, which must outlive the object.
        scale: Meters per file unit.
    """
    # Convex pieces in meters, and their union as the body's surface.
    parts = connected_pieces(obj_path)
    hulls = [trimesh.convex.convex_hull(scale * np.asarray(part.vertices)) for part in parts]
    mesh = trimesh.boolean.union(hulls)
    (folder / f"{name}.obj").write_text(_obj_text(hulls))
    path = folder / f"{name}.urdf"
    path.write_text(_urdf_text(name, mesh))
    return ShakeObject(name, mesh, path)


def _obj_text(hulls: Sequence[trimesh.Trimesh]) -> str:
    """An OBJ file with one object per convex hull."""
    # OBJ numbers vertices from 1, over all pieces.
    first, lines = 1, []
    for i, hull in enumerate(hulls):
        lines += [f"o piece_{i}", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in hull.vertices)]
        lines += ["f " + " ".join(map(str, face)) for face in hull.faces + first]
        first += len(hull.vertices)
    return "\n".join(lines) + "\n"


def _urdf_text(name: str, mesh: trimesh.Trimesh) -> str:
    """A URDF of one link with the mesh NAME.obj and a mass of 1 kg."""
    # Inertia of 1 kg, evenly distributed.
    center, inertia = mesh.center_mass, mesh.moment_inertia / mesh.volume
    shape = f'<geometry><mesh filename="{name}.obj"/></geometry>'
    return (
        f'<robot name="{name}"><link name="{name}"><inertial>'
        f'<origin xyz="{center[0]} {center[1]} {center[2]}"/><mass value="1"/>'
        f'<inertia ixx="{inertia[0, 0]}" iyy="{inertia[1, 1]}" izz="{inertia[2, 2]}" '
        f'ixy="{inertia[0, 1]}" ixz="{inertia[0, 2]}" iyz="{inertia[1, 2]}"/></inertial>'
        f"<visual>{shape}</visual><collision>{shape}</collision></link></robot>"
    )


def at_rest(shaken: ShakeObject, seed: int) -> SceneObject:
    """An object at rest on the table, turned at random about the vertical."""
    # Dropped from just above the table, at a random yaw.
    yaw = np.random.default_rng(seed).uniform(-np.pi, np.pi)
    X = pose(exp_so3([0, 0, yaw]), [0, 0, _DROP_HEIGHT - shaken.mesh.bounds[0, 2]])
    with World() as world:
        body = world.load(shaken.urdf_path, X, name=shaken.name, mass_scale=_DROP_MASS)
        world.settle(_SETTLE_TIME)
        return SceneObject(shaken.name, shaken.mesh, world.link_pose(body))
