"""Is a mesh fit to be planned with, and what can be done where it is not.

`inspect_mesh` measures. `cleaned` welds, drops degenerate faces and orients. `filled` closes holes. `remeshed` builds a
closed surface anew: rays along the grid's three axes find where the mesh is crossed and which way, the winding number
(`flowplan.scan.meshes.winding`) says what is inside even where the surface is open or crosses itself, and the distance to the
mesh places the new surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy import ndimage

from flowplan.scan.meshes.surface import (
    closed_surface,
    decimated,
    from_open3d,
    raycasting_scene,
    submesh,
    to_open3d,
)
from flowplan.scan.meshes.winding import Jumps, winding_field
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d


@dataclass(frozen=True, eq=False)
class MeshReport:
    """What a mesh is like.

    Attributes:
        vertices, faces: how many.
        extents: (3,) sides of the bounding box, metres if the unit is right.
        watertight: every edge joins exactly two faces, oppositely.
        components: parts that share no vertex.
        holes: closed loops of edges that belong to one face only.
        degenerate: faces without area.
        crossings: edges that pass through another face; a mesh that crosses itself has some.
        volume: enclosed, cubic metres; 0 unless watertight.
        likely_unit: "m", or the unit that would make the size that of something to be handled.
    """

    vertices: int
    faces: int
    extents: FloatArray
    watertight: bool
    components: int
    holes: int
    degenerate: int
    crossings: int
    volume: float
    likely_unit: str


def inspect_mesh(mesh: trimesh.Trimesh) -> MeshReport:
    """Measure a mesh, which should be welded: a vertex that is there twice counts as a hole."""
    watertight = bool(mesh.is_watertight and mesh.is_winding_consistent)
    labels = trimesh.graph.connected_component_labels(
        mesh.edges_unique, node_count=len(mesh.vertices)
    )
    return MeshReport(
        vertices=len(mesh.vertices),
        faces=len(mesh.faces),
        extents=np.asarray(mesh.extents),
        watertight=watertight,
        components=len(np.unique(labels[mesh.faces[:, 0]])),
        holes=len(_rims(mesh)),
        degenerate=int((mesh.area_faces <= _smallest_area(mesh)).sum()),
        crossings=_crossing_count(mesh),
        volume=float(mesh.volume) if watertight else 0.0,
        likely_unit=likely_unit(float(mesh.extents.max())),
    )


def likely_unit(extent: float) -> str:
    """The unit of a largest side `extent`, if the thing is between a centimetre and three metres large."""
    if extent > 3:
        return "mm" if extent > 30 else "cm"
    return "m"


def cleaned(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Vertices nearer than a millionth of the size welded, faces without area or there twice dropped, all oriented."""
    lower, size = mesh.vertices.min(0), float(np.ptp(mesh.vertices, axis=0).max())
    steps = np.round((mesh.vertices - lower) * (2**20 / max(size, 1e-300))).astype(np.int64)
    key = (steps[:, 0] << 42) | (steps[:, 1] << 21) | steps[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces]
    welded = trimesh.Trimesh(mesh.vertices[first], faces, process=False)
    keep = (np.diff(np.sort(faces, axis=1), axis=1) > 0).all(1)
    _, once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    keep &= np.isin(np.arange(len(faces)), once)
    keep &= welded.area_faces > _smallest_area(welded)
    out = submesh(welded, keep)
    if len(out.faces) and not out.is_winding_consistent:
        oriented = to_open3d(out)
        oriented.orient_triangles()
        out = from_open3d(oriented)
    if len(out.faces) and out.is_watertight and out.volume < 0:
        out = trimesh.Trimesh(out.vertices, out.faces[:, ::-1], process=False)
    return out


def filled(mesh: trimesh.Trimesh, largest: float) -> trimesh.Trimesh:
    """Holes whose rim stays within `largest` metres of its centre closed, by a fan around that centre."""
    centers: list[FloatArray] = []
    fans = []
    for loop in _rims(mesh):
        corners = mesh.vertices[loop]
        center = corners.mean(0)
        if np.linalg.norm(corners - center, axis=-1).max() <= largest:
            hub = np.full(len(loop), len(mesh.vertices) + len(centers))
            centers.append(center)
            fans.append(np.column_stack([np.roll(loop, -1), loop, hub]))
    if not fans:
        return mesh
    return trimesh.Trimesh(
        np.concatenate([mesh.vertices, centers]), np.concatenate([mesh.faces, *fans]), process=False
    )


def closed(mesh: trimesh.Trimesh, *, cells: int, faces: int) -> trimesh.Trimesh:
    """The mesh itself where closing its holes makes it sound, else `remeshed`.

    Raises:
        ValueError: when the mesh encloses nothing, like a sheet.
    """
    out = mesh if mesh.is_watertight else filled(mesh, 2 * float(mesh.extents.max()))
    report = inspect_mesh(out)
    if (
        report.watertight
        and not report.crossings
        and report.volume > 1e-6 * float(report.extents.max()) ** 3
    ):
        return out
    return remeshed(mesh, cells=cells, faces=faces)


def remeshed(mesh: trimesh.Trimesh, *, cells: int = 96, faces: int = 20_000) -> trimesh.Trimesh:
    """A watertight mesh of what another encloses, holes closed and crossings resolved.

    Args:
        mesh: consistently oriented.
        cells: grid cells along the longest side; details smaller than one are lost.
        faces: decimated to about this many.

    Raises:
        ValueError: when the mesh encloses nothing, like a sheet.
    """
    voxel = float(mesh.extents.max()) / cells
    shape = np.ceil(mesh.extents / voxel).astype(int) + 8
    # Off the mesh's own corners, so that no ray runs along an edge of an axis-aligned box.
    lower = (
        mesh.bounds.mean(0)
        - 0.5 * (shape - 1) * voxel
        + 1e-3 * voxel * np.array([0.37, 0.59, 0.83])
    )
    scene = raycasting_scene(mesh)
    x, y, z = (_axis_jumps(scene, mesh, axis, lower, voxel, shape) for axis in range(3))
    chi = winding_field((x, y, z), mirror_bottom=False)
    centers = np.moveaxis(np.indices(shape), 0, -1) * voxel + lower
    # Near the mesh its distance places the surface; across a hole, far from the mesh, chi does.
    f = 2 * voxel * (1 - 2 * chi)
    near = ndimage.binary_dilation(_crossed_cells((x, y, z)), iterations=3)
    distance = scene.compute_distance(
        open3d().core.Tensor(centers[near].astype(np.float32))
    ).numpy()
    f[near] = np.sign(f[near]) * np.minimum(np.abs(f[near]), distance)
    out = closed_surface(f.astype(np.float32), voxel, lower, flat_bottom=False)
    if len(out.faces) == 0:
        raise ValueError(
            "mesh: encloses no volume, even with its holes closed; it is a sheet, to be kept open"
        )
    return decimated(out, faces)


def _crossed_cells(jumps: Jumps) -> NDArray[np.bool_]:
    """Cells (nx, ny, nz) just below a jump along some axis."""
    return np.logical_or.reduce(
        [np.pad(g != 0, [(0, int(a == axis)) for a in range(3)]) for axis, g in enumerate(jumps)]
    )


def _axis_jumps(
    scene: Any,
    mesh: trimesh.Trimesh,
    axis: int,
    lower: FloatArray,
    voxel: float,
    shape: NDArray[np.int64],
) -> NDArray[np.float32]:
    """How chi changes between the cells of every grid line along an axis: +1 entering the mesh, -1 leaving it."""
    others = [a for a in range(3) if a != axis]
    index = np.indices(tuple(shape[others])).reshape(2, -1)
    rays = np.zeros((index.shape[1], 6), np.float32)
    rays[:, :3] = lower
    rays[:, others] += (index.T * voxel).astype(np.float32)
    rays[:, 3 + axis] = 1
    hits = scene.list_intersections(open3d().core.Tensor(rays))
    line, face = (
        hits["ray_ids"].numpy().astype(np.int64),
        hits["primitive_ids"].numpy().astype(np.int64),
    )
    along = np.clip(np.floor(hits["t_hit"].numpy() / voxel).astype(int), 0, shape[axis] - 2)
    jumps = np.zeros(tuple(shape - np.eye(3, dtype=int)[axis]), np.float32)
    where: list[NDArray[np.int64]] = [along, along, along]
    where[others[0]], where[others[1]] = index[0][line], index[1][line]
    np.add.at(jumps, tuple(where), -np.sign(mesh.face_normals[face, axis]).astype(np.float32))
    return jumps


def _smallest_area(mesh: trimesh.Trimesh) -> float:
    return 1e-14 * float(np.ptp(mesh.vertices, axis=0).max()) ** 2


def _rims(mesh: trimesh.Trimesh) -> list[list[int]]:
    """Closed loops of the edges that belong to one face only, in its direction; none passes a vertex twice."""
    _, first, count = np.unique(mesh.edges_sorted, axis=0, return_index=True, return_counts=True)
    following: dict[int, list[int]] = {}
    for a, b in mesh.edges[first[count == 1]].tolist():
        following.setdefault(a, []).append(b)
    loops = []
    for start in following:
        path, place = [start], {start: 0}
        while following.get(path[-1]):
            vertex = following[path[-1]].pop()
            if vertex not in place:
                place[vertex] = len(path)
                path.append(vertex)
                continue
            loops.append(path[place[vertex] :])
            for passed in path[place[vertex] + 1 :]:
                del place[passed]
            del path[place[vertex] + 1 :]
    return loops


def _crossing_count(mesh: trimesh.Trimesh) -> int:
    """Edges that pass through a face with which they share no vertex: two triangles cross only so."""
    edges = mesh.edges_unique
    start, end = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]]
    rays = np.concatenate([start, end - start], axis=1).astype(np.float32)
    hits = raycasting_scene(mesh).list_intersections(open3d().core.Tensor(rays))
    t = hits["t_hit"].numpy()
    edge = edges[hits["ray_ids"].numpy().astype(np.int64)]
    face = mesh.faces[hits["primitive_ids"].numpy().astype(np.int64)]
    apart = (face[:, :, None] != edge[:, None, :]).all((1, 2))
    inside = (t > 1e-3) & (t < 1 - 1e-3)
    return len(np.unique(hits["ray_ids"].numpy()[apart & inside]))


def require_surface(field: str, mesh: trimesh.Trimesh) -> None:
    """A mesh that has faces, finite vertices and an extent, or a one-line error."""
    if len(mesh.faces) == 0:
        raise ValueError(f"{field}: has no faces; if it is a point cloud, use load_points")
    checks.array(
        f"{field}: vertices",
        mesh.vertices,
        ("V", 3),
        hint="export it again, or delete the broken vertices",
    )
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError(
            f"{field}: faces: name vertex {int(mesh.faces.max())} of {len(mesh.vertices)}; the file is damaged"
        )
    require_reach(f"{field}: vertices", mesh.vertices)
    if np.count_nonzero(mesh.extents > 1e-9 * mesh.extents.max()) < 2:
        raise ValueError(
            f"{field}: vertices: all lie in one point or on one line, so no face has an area; export it again"
        )


def require_reach(field: str, points: FloatArray) -> None:
    """Coordinates that single precision can tell apart, or a one-line error."""
    reach = float(np.abs(points).max())
    if reach > 1e6:
        raise ValueError(
            f"{field}: reach out to {reach:.3g}, expected at most 1e6; move them to the origin, or the file is damaged"
        )
