"""Inspection and repair of meshes.

`inspect_mesh` measures. `cleaned` welds, drops degenerate faces and orients. `filled` closes holes.
`remeshed` builds a new closed surface: rays along the grid's three axes find the crossings of the
mesh and their directions, the winding number (`flowplan.scan.meshes.winding`) tells the inside even
if the surface is open or crosses itself, and the distance to the mesh places the new surface.
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
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

MOST_FLIPS = 20_000
"""Edges that are flipped to replace faces without area, at most."""


@dataclass(frozen=True, eq=False)
class MeshReport:
    """Measures of a mesh.

    Attributes:
        vertices, faces: their numbers.
        extents: (3,) sides of the bounding box, meters if the unit is right.
        watertight: every edge joins exactly two faces, in opposite directions.
        components: number of parts that share no vertex.
        holes: number of closed loops of edges that belong to one face only.
        degenerate: number of faces without area.
        crossings: number of edges that pass through another face; above 0 if it crosses itself.
        volume: enclosed volume, cubic meters; 0 unless watertight.
        likely_unit: "m", or the unit that makes the size that of a thing to be handled.
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
    """Measures of a mesh, which should be welded: duplicate vertices count as holes."""
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
    """The likely unit of a largest side `extent` of a thing of a centimeter to three meters."""
    if extent > 3:
        return "mm" if extent > 30 else "cm"
    return "m"


def cleaned(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with vertices welded, degenerate and duplicate faces dropped, and faces oriented.

    Vertices within a millionth of the size are welded.
    """
    # One integer key for each vertex, from its position in steps of 2^-20 of the size.
    lower, size = mesh.vertices.min(0), float(np.ptp(mesh.vertices, axis=0).max())
    steps = np.round((mesh.vertices - lower) * (2**20 / max(size, 1e-300))).astype(np.int64)
    key = (steps[:, 0] << 42) | (steps[:, 1] << 21) | steps[:, 2]
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces]  # (F, 3)
    welded = trimesh.Trimesh(mesh.vertices[first], faces, process=False)
    # Keep faces of three different vertices, each once, with an area.
    keep = (np.diff(np.sort(faces, axis=1), axis=1) > 0).all(1)
    _, once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    keep &= np.isin(np.arange(len(faces)), once)
    flat = keep & (welded.area_faces <= _smallest_area(welded))
    out = submesh(welded, keep & ~flat)
    if flat.any() and _open_edges(out.faces) > _open_edges(welded.faces[keep]):
        out = _without_slivers(submesh(welded, keep))
    # Neighbors agree on their direction, and a closed mesh faces outward.
    if len(out.faces) and not out.is_winding_consistent:
        oriented = to_open3d(out)
        oriented.orient_triangles()
        out = from_open3d(oriented)
    return outward(out)


def _open_edges(faces: NDArray[np.int64]) -> int:
    """Number of edges that belong to one face only."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] == 1).sum())


def _without_slivers(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with faces of no area replaced, so that it stays closed where they close it.

    A sliver whose third corner lies on its longest edge is flipped with the face across that edge.
    Slivers that have no such partner are left out.
    """
    faces = mesh.faces.copy()
    smallest = _smallest_area(mesh)
    waiting = np.flatnonzero(mesh.area_faces <= smallest).tolist()
    # Flips of slivers with each other may go around in circles, so their number is bounded.
    for _ in range(min(20 * len(waiting), MOST_FLIPS)):
        if not waiting:
            break
        f = waiting.pop(0)
        g = _flip(mesh.vertices, faces, f)
        if g is not None:
            flat = _areas(mesh.vertices[faces[[f, g]]]) <= smallest
            waiting = [k for k in waiting if k != g] + [
                k for k, still in zip((f, g), flat, strict=True) if still
            ]
    out = trimesh.Trimesh(mesh.vertices, faces, process=False)
    return submesh(out, out.area_faces > smallest)


def _areas(corners: FloatArray) -> FloatArray:
    """Areas (F,) of triangles (F, 3, 3)."""
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return 0.5 * np.linalg.norm(cross, axis=-1)


def _flip(vertices: FloatArray, faces: NDArray[np.int64], f: int) -> int | None:
    """Flip the longest edge of face f, in place.

    Returns:
        The face across that edge, or None if there is not exactly one.
    """
    sides = vertices[np.roll(faces[f], -1)] - vertices[faces[f]]
    a, b, c = np.roll(faces[f], -int(np.argmax(np.linalg.norm(sides, axis=-1)))).tolist()
    across = np.flatnonzero((faces == a).any(1) & (faces == b).any(1))
    others = [int(g) for g in across if g != f]
    if len(others) != 1:
        return None
    (g,) = others
    (d,) = [int(v) for v in faces[g] if v not in (a, b)]
    if d == c:
        return None
    # Faces (a, b, c) and (b, a, d) become two that share the edge from c to d.
    faces[f], faces[g] = [a, d, c], [d, b, c]
    return g


def outward(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with each of its closed bodies facing outward.

    A closed part inside another one that faces the other way is a cavity and stays one.
    """
    if len(mesh.faces) == 0:
        return mesh
    label = trimesh.graph.connected_component_labels(
        mesh.face_adjacency, node_count=len(mesh.faces)
    )
    count = int(label.max()) + 1
    # A part is closed if each of its faces has three neighbors.
    neighbors = np.bincount(mesh.face_adjacency.ravel(), minlength=len(mesh.faces))
    closed_part = np.bincount(label, weights=neighbors != 3, minlength=count) == 0
    volume = np.bincount(label, weights=_signed_volumes(mesh), minlength=count)
    inverted = closed_part & (volume < 0)
    if not inverted.any():
        return mesh
    if not inverted[closed_part].all():
        bounds = _part_bounds(mesh, label, count)
        for i in np.flatnonzero(inverted):
            inverted[i] = not _inside_another(mesh, label, bounds, i, closed_part)
        # A cavity of a body that is turned turns with it.
        turned = inverted.copy()
        for i in np.flatnonzero(closed_part & (volume > 0)):
            inverted[i] = _inside_another(mesh, label, bounds, i, turned)
    faces = np.where(inverted[label][:, None], mesh.faces[:, ::-1], mesh.faces)
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def _part_bounds(mesh: trimesh.Trimesh, label: NDArray[np.int64], count: int) -> FloatArray:
    """Lower and upper corners (parts, 2, 3) of the parts."""
    bounds = np.stack([np.full((count, 3), np.inf), np.full((count, 3), -np.inf)], axis=1)
    for corner in mesh.vertices[mesh.faces].swapaxes(0, 1):  # (F, 3)
        np.minimum.at(bounds[:, 0], label, corner)
        np.maximum.at(bounds[:, 1], label, corner)
    return bounds


def _inside_another(
    mesh: trimesh.Trimesh,
    label: NDArray[np.int64],
    bounds: FloatArray,
    i: Any,
    others: NDArray[np.bool_],
) -> bool:
    """True if part i lies inside one of the closed parts `others`."""
    around = (bounds[:, 0] <= bounds[i, 0]).all(1) & (bounds[:, 1] >= bounds[i, 1]).all(1)
    around[i] = False
    corner = mesh.vertices[mesh.faces[np.argmax(label == i), 0]]
    for k in np.flatnonzero(around & others):
        scene = raycasting_scene(submesh(mesh, label == k))
        query = open3d().core.Tensor(corner[None].astype(np.float32))
        if float(scene.compute_occupancy(query, nsamples=3).numpy()[0]) > 0:
            return True
    return False


def filled(mesh: trimesh.Trimesh, largest: float) -> trimesh.Trimesh:
    """The mesh with holes closed by fans around their centers.

    Holes whose rim is further than `largest` meters from its center stay open.
    """
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
    """The mesh with its holes closed, or `remeshed` if that does not make it a closed surface.

    Args:
        mesh: welded and oriented.
        cells, faces: see `remeshed`.

    Raises:
        ValueError: if the mesh encloses no volume, like a sheet.
    """
    out = mesh if mesh.is_watertight else outward(filled(mesh, 2 * float(mesh.extents.max())))
    report = inspect_mesh(out)
    solid = report.volume > 1e-6 * float(report.extents.max()) ** 3
    if report.watertight and not report.crossings and solid:
        return out
    if not mesh.is_watertight and _faces_inward(mesh):
        mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
    return remeshed(mesh, cells=cells, faces=faces)


def _faces_inward(mesh: trimesh.Trimesh) -> bool:
    """True if an open mesh encloses a notable negative volume once its holes are closed."""
    solid = filled(mesh, 2 * float(mesh.extents.max()))
    return float(_signed_volumes(solid).sum()) < -1e-3 * float(np.prod(mesh.extents))


def _signed_volumes(mesh: trimesh.Trimesh) -> FloatArray:
    """Signed volumes (F,) of the faces' tetrahedra with the center of the vertices."""
    corners = mesh.vertices[mesh.faces] - mesh.vertices.mean(0)  # (F, 3, 3)
    return np.einsum("fc,fc->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6


def remeshed(mesh: trimesh.Trimesh, *, cells: int = 96, faces: int = 20_000) -> trimesh.Trimesh:
    """A watertight mesh of the volume that a mesh encloses, holes closed and crossings resolved.

    Args:
        mesh: consistently oriented.
        cells: grid cells along the longest side; smaller details are lost.
        faces: the result is decimated to about this many.

    Raises:
        ValueError: if the mesh encloses no volume, like a sheet.
    """
    # A grid with a margin, offset so that no ray runs along an edge of an axis-aligned box.
    voxel = float(mesh.extents.max()) / cells
    shape = np.ceil(mesh.extents / voxel).astype(int) + 8
    offset = 1e-3 * voxel * np.array([0.37, 0.59, 0.83])
    lower = mesh.bounds.mean(0) - 0.5 * (shape - 1) * voxel + offset
    # The winding number of all crossings.
    scene = raycasting_scene(mesh)
    x, y, z = (_axis_jumps(scene, mesh, axis, lower, voxel, shape) for axis in range(3))
    chi = winding_field((x, y, z), mirror_bottom=False)
    # Near the mesh its distance places the surface; across a hole, far from the mesh, chi does.
    centers = np.moveaxis(np.indices(shape), 0, -1) * voxel + lower  # (nx, ny, nz, 3)
    f = 2 * voxel * (1 - 2 * chi)
    near = ndimage.binary_dilation(_crossed_cells((x, y, z)), iterations=3)
    queries = open3d().core.Tensor(centers[near].astype(np.float32))
    distance = scene.compute_distance(queries).numpy()
    f[near] = np.sign(f[near]) * np.minimum(np.abs(f[near]), distance)
    out = closed_surface(f.astype(np.float32), voxel, lower, flat_bottom=False)
    if len(out.faces) == 0:
        raise ValueError(
            "mesh: encloses no volume, even with its holes closed; it is a sheet, so leave it open"
        )
    return decimated(out, faces)


def _crossed_cells(jumps: Jumps) -> NDArray[np.bool_]:
    """Cells (nx, ny, nz) with a jump between them and the next cell along any axis."""
    crossed = []
    for axis, g in enumerate(jumps):
        missing = [(0, int(a == axis)) for a in range(3)]
        crossed.append(np.pad(g != 0, missing))
    return np.logical_or.reduce(crossed)


def _axis_jumps(
    scene: Any,
    mesh: trimesh.Trimesh,
    axis: int,
    lower: FloatArray,
    voxel: float,
    shape: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Jumps of chi along an axis: +1 where its grid lines enter the mesh, -1 where they leave it.

    Args:
        scene: raycasting scene of the mesh.
        mesh: consistently oriented.
        axis: 0, 1 or 2.
        lower: (3,) center of cell (0, 0, 0).
        voxel: cell size.
        shape: (3,) cells along each axis.
    """
    # One ray along each grid line.
    others = [a for a in range(3) if a != axis]
    index = np.indices(tuple(shape[others])).reshape(2, -1)
    rays = np.zeros((index.shape[1], 6), np.float32)
    rays[:, :3] = lower
    rays[:, others] += (index.T * voxel).astype(np.float32)
    rays[:, 3 + axis] = 1
    hits = scene.list_intersections(open3d().core.Tensor(rays))
    line = hits["ray_ids"].numpy().astype(np.int64)
    face = hits["primitive_ids"].numpy().astype(np.int64)
    # The face's normal tells an entry from an exit.
    along = np.clip(np.floor(hits["t_hit"].numpy() / voxel).astype(int), 0, shape[axis] - 2)
    sign = -np.sign(mesh.face_normals[face, axis]).astype(np.float32)
    jumps = np.zeros(tuple(shape - np.eye(3, dtype=int)[axis]), np.float32)
    where: list[NDArray[np.int64]] = [along, along, along]
    where[others[0]], where[others[1]] = index[0][line], index[1][line]
    np.add.at(jumps, tuple(where), sign)
    return jumps


def _smallest_area(mesh: trimesh.Trimesh) -> float:
    """Area below which a face is degenerate."""
    return 1e-14 * float(np.ptp(mesh.vertices, axis=0).max()) ** 2


def _rims(mesh: trimesh.Trimesh) -> list[list[int]]:
    """Closed loops of the edges that belong to one face only, along the face's direction.

    No loop passes a vertex twice.
    """
    # Vertices that follow each vertex along open edges.
    _, first, count = np.unique(mesh.edges_sorted, axis=0, return_index=True, return_counts=True)
    following: dict[int, list[int]] = {}
    for a, b in mesh.edges[first[count == 1]].tolist():
        following.setdefault(a, []).append(b)
    loops = []
    for start in following:
        # Walk along open edges; a vertex met again closes a loop, which is cut off the path.
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
    """Number of edges that pass through a face without sharing a vertex with it.

    Two triangles cross only in this way.
    """
    # Each edge is a ray of parameter 0 to 1.
    edges = mesh.edges_unique
    start, end = mesh.vertices[edges[:, 0]], mesh.vertices[edges[:, 1]]
    rays = np.concatenate([start, end - start], axis=1).astype(np.float32)
    hits = raycasting_scene(mesh).list_intersections(open3d().core.Tensor(rays))
    t = hits["t_hit"].numpy()
    edge = edges[hits["ray_ids"].numpy().astype(np.int64)]
    face = mesh.faces[hits["primitive_ids"].numpy().astype(np.int64)]
    # Only hits within the edge, on faces that share no vertex with it.
    apart = (face[:, :, None] != edge[:, None, :]).all((1, 2))
    inside = (t > 1e-3) & (t < 1 - 1e-3)
    return len(np.unique(hits["ray_ids"].numpy()[apart & inside]))
