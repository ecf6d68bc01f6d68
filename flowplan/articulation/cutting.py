"""A mesh cut along the borders of its parts: each side gets vertices of its own.

Where a closed mesh is cut, both sides get rims. They are closed again by fans, so that each part
encloses a volume: planners and simulators need solids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.scan.meshes.repair import filled

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cut:
    """A mesh whose parts share no vertex.

    Attributes:
        mesh: faces in the order of their parts.
        part: (F',) part of each face.
        owner: (V',) part of each vertex.
        source: (V',) vertex of the whole mesh that it was; -1 for the hub of a fan.
    """

    mesh: trimesh.Trimesh
    part: Ints
    owner: Ints
    source: Ints


def cut(mesh: trimesh.Trimesh, part: Ints) -> Cut:
    """Cut a mesh between faces of different parts, and close the rims if the mesh was closed.

    Args:
        mesh: any mesh; its colors are kept.
        part: (F,) part of each face.
    """
    solid = bool(mesh.is_watertight)
    vertices, faces, parts, owners, sources = [], [], [], [], []
    count = 0
    for k in np.unique(part):
        used, own = np.unique(mesh.faces[part == k], return_inverse=True)
        piece = trimesh.Trimesh(mesh.vertices[used], own.reshape(-1, 3), process=False)
        if solid:
            piece = filled(piece, np.inf)
        hubs = len(piece.vertices) - len(used)
        vertices.append(piece.vertices)
        faces.append(piece.faces + count)
        parts.append(np.full(len(piece.faces), k))
        owners.append(np.full(len(piece.vertices), k))
        sources.append(np.concatenate([used, np.full(hubs, -1)]))
        count += len(piece.vertices)
    source = np.concatenate(sources)
    whole = trimesh.Trimesh(
        np.concatenate(vertices),
        np.concatenate(faces),
        vertex_colors=_colors(mesh, source),
        process=False,
    )
    return Cut(whole, np.concatenate(parts), np.concatenate(owners), source)


def _colors(mesh: trimesh.Trimesh, source: Ints) -> NDArray[np.uint8] | None:
    """Colors (V', 4) of the vertices' sources; hubs have the mean color."""
    visual: Any = mesh.visual
    if visual is None or not visual.defined or visual.kind != "vertex":
        return None
    colors = np.asarray(visual.vertex_colors, np.uint8)
    out = colors[np.maximum(source, 0)]
    out[source < 0] = colors.mean(axis=0).astype(np.uint8)
    return out


def part_mesh(mesh: trimesh.Trimesh, keep: NDArray[np.bool_]) -> trimesh.Trimesh:
    """The faces to keep (F,) as a mesh of their own, its rims closed if the whole was closed."""
    if not keep.any():
        return trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), process=False)
    found = cut(mesh, np.where(keep, 0, 1))
    used = found.part == 0
    vertices = int((found.owner == 0).sum())
    return trimesh.Trimesh(found.mesh.vertices[:vertices], found.mesh.faces[used], process=False)
