"""A scene from a path: depth frames, a mesh, a point cloud or a URDF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from flowplan.geometry import pose
from flowplan.motion import Progress, silent
from flowplan.scan.depth.frame_folder import read_frames
from flowplan.scan.depth.fuse import ScanOptions, scan_frames
from flowplan.scan.meshes.mesh_file import SUFFIXES as MESH_SUFFIXES
from flowplan.scan.meshes.mesh_file import Unit, load_mesh, ply_faces
from flowplan.scan.point_cloud import SUFFIXES as POINT_SUFFIXES
from flowplan.scan.point_cloud import load_points
from flowplan.scan.urdf import load_urdf
from flowplan.scene import Scene, SceneObject
from flowplan.utils import checks


def load_scene(
    path: str | Path,
    *,
    unit: Unit | None = None,
    name: str | None = None,
    position: tuple[float, float] | None = None,
    every: int = 1,
    allow_outside: bool = False,
    progress: Progress = silent,
) -> Scene:
    """The scene in a folder of depth frames, or of one object from a file on a table at z = 0.

    Args:
        path: folder that `read_frames` reads; mesh, point cloud or URDF file.
        unit: unit of a mesh or point file's coordinates.
        name: name of a file's object. Defaults to the file's name. Objects in depth frames are
            called object_0, object_1, ...
        position: x, y in meters of a file's object, its lowest point on the table. Defaults to the
            file's coordinates.
        every: take every n-th depth frame only.
        allow_outside: read images and meshes that an index or a URDF names outside of its folder.
        progress: receives the fraction done and the step.

    Raises:
        ValueError: one line, for a path of another kind or a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        frames = read_frames(path, every=every, allow_outside=allow_outside)
        return scan_frames(frames, ScanOptions(), progress=progress)
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file or folder; give depth frames, a mesh, a point cloud or a URDF"
        )
    # The suffix decides, but a .ply file may hold a mesh or points.
    suffix = path.suffix.lower()
    checks.choice(f"{path}: suffix", suffix, sorted({".urdf", *MESH_SUFFIXES, *POINT_SUFFIXES}))
    if suffix == ".urdf":
        objects = load_urdf(path, name=name, allow_outside=allow_outside)
    elif suffix in MESH_SUFFIXES and not (suffix == ".ply" and ply_faces(path) == 0):
        objects = (load_mesh(path, unit=unit, name=name, progress=progress),)
    else:
        objects = (load_points(path, unit=unit, name=name),)
    return Scene(objects if position is None else _stand(objects, position), support_height=0.0)


def _stand(
    objects: tuple[SceneObject, ...], position: tuple[float, float]
) -> tuple[SceneObject, ...]:
    """Objects moved together onto the table, the middle of their footprint at `position`."""
    # Bounding box of all objects together.
    corners = [o.mesh_world.bounds for o in objects]
    lower = np.min([c[0] for c in corners], axis=0)
    upper = np.max([c[1] for c in corners], axis=0)
    # Footprint to the position, lowest point to the table.
    middle = (lower + upper)[:2] / 2
    shift = [*(position - middle), -lower[2]]
    return tuple(
        replace(o, X_world_object=pose(translation=shift) @ o.X_world_object) for o in objects
    )
