"""Meshes of a URDF's shapes: primitives, collision hulls, and the files that can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from flowplan.geometry import transform
from flowplan.robot.urdf import MESH_SUFFIXES, Shape, Urdf
from flowplan.utils import mesh_loader
from flowplan.utils.checks import FloatArray


def primitive_mesh(shape: Shape, *, sections: int = 32, subdivisions: int = 3) -> trimesh.Trimesh:
    """A box, cylinder, capsule or sphere as a mesh in its own frame, meters.

    Args:
        shape: not a mesh.
        sections: sides of a cylinder or capsule.
        subdivisions: subdivisions of the icosahedron that stands for a sphere.
    """
    if shape.kind == "box":
        return trimesh.creation.box(shape.size)
    if shape.kind == "cylinder":
        radius, length = map(float, shape.size)
        return trimesh.creation.cylinder(radius, length, sections=sections)
    if shape.kind == "capsule":
        radius, length = map(float, shape.size)
        return _capsule(radius, length, sections)
    return trimesh.creation.icosphere(subdivisions, float(shape.size[0]))


def _capsule(radius: float, length: float, sections: int) -> trimesh.Trimesh:
    """A cylinder of this length along z around the origin, with half spheres at its ends."""
    count = max(sections // 4, 2)
    around = np.linspace(0, 2 * np.pi, sections, endpoint=False)
    # Rings from the equator of a half sphere to just below its pole, and the pole.
    up = np.linspace(0, np.pi / 2, count, endpoint=False)[:, None]
    x, y = np.cos(up) * np.cos(around), np.cos(up) * np.sin(around)
    z = np.broadcast_to(np.sin(up), x.shape)
    half = radius * np.concatenate([np.stack([x, y, z], -1).reshape(-1, 3), [[0, 0, 1]]])
    half[:, 2] += length / 2
    return trimesh.convex.convex_hull(np.concatenate([half, half * [1, 1, -1]]))


def collision_hulls(urdf: Urdf) -> dict[str, trimesh.Trimesh]:
    """Convex hull of each link's collision shapes, link frame, meters.

    Links without collision shapes are absent. The files of visual meshes are checked to exist.

    Raises:
        ValueError: one line that names the file, if a mesh is missing or unreadable.
    """
    hulls = {}
    for link in urdf.links:
        for shape in urdf.shapes(link, "visual"):
            if shape.kind == "mesh":
                _present_file(urdf, link, shape)
        # One hull over all collision shapes.
        vertices = [_vertices(urdf, link, shape) for shape in urdf.shapes(link, "collision")]
        if vertices:
            hulls[link] = trimesh.convex.convex_hull(np.concatenate(vertices))
    return hulls


def _vertices(urdf: Urdf, link: str, shape: Shape) -> FloatArray:
    """Vertices (V, 3) of a collision shape, link frame, meters."""
    if shape.kind != "mesh":
        mesh = primitive_mesh(shape, subdivisions=2)
        return transform(shape.X_link_shape, mesh.vertices)
    file = _present_file(urdf, link, shape)
    require_readable(urdf.path, file)
    try:
        vertices = z_up(file, mesh_loader.load_vertices(file))
    except ValueError:
        raise
    except Exception as error:  # trimesh raises whatever its many readers raise
        raise ValueError(
            f"{file}: cannot be read as a mesh ({type(error).__name__}); export it again"
        ) from None
    if len(vertices) < 4 or not np.isfinite(vertices).all():
        raise ValueError(
            f"{file}: expected at least 4 finite vertices, got {len(vertices)}; export it again"
        )
    return transform(shape.X_link_shape, vertices * shape.size)


def _present_file(urdf: Urdf, link: str, shape: Shape) -> Path:
    file = urdf.mesh_file(shape)
    if not file.is_file():
        raise ValueError(
            f"{urdf.path}: link {link!r}: mesh {shape.filename!r} does not exist; "
            "paths are relative to the URDF"
        )
    return file


def require_readable(urdf: Path, file: Path) -> None:
    """Refuse a mesh of a type that is not read, with the way to convert it.

    Raises:
        ValueError: one line that names the file.
    """
    if file.suffix.lower() not in MESH_SUFFIXES:
        kind = " (COLLADA)" if file.suffix.lower() == ".dae" else ""
        raise ValueError(
            f"{file}: not one of {', '.join(MESH_SUFFIXES)}{kind}; "
            f"convert it, in meters and with z up, and change {urdf.name}"
        )


def z_up(file: Path, vertices: FloatArray) -> FloatArray:
    """Vertices (V, 3) with z up: glTF files have y up, as specified there."""
    if file.suffix.lower() not in (".glb", ".gltf"):
        return vertices
    return vertices[:, [0, 2, 1]] * [1, -1, 1]
