"""Triangle meshes from a signed distance on a grid: marching cubes, smoothing, decimation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d, surface_scene


def closed_surface(
    f: NDArray[np.float32], voxel: float, lower: FloatArray, *, flat_bottom: bool
) -> trimesh.Trimesh:
    """The zero level of a signed distance, closed at the border of the grid.

    Args:
        f: (nx, ny, nz) negative inside, meters.
        voxel: cell size, meters.
        lower: (3,) center of cell (0, 0, 0), meters.
        flat_bottom: close the bottom exactly half a cell below the centers of the lowest layer, on
            the support.

    Returns:
        A watertight mesh in the grid frame; without faces if f is nowhere negative.
    """
    if not (f < 0).any():
        return trimesh.Trimesh()
    # A layer of outside cells closes the surface.
    padded = np.pad(f, 1, constant_values=float(max(f.max(), voxel)))
    if flat_bottom:
        # Mirrored values put the zero level half a cell below the lowest layer.
        padded[1:-1, 1:-1, 0] = np.where(f[:, :, 0] < 0, -f[:, :, 0], padded[0, 0, 0])
    padded[padded == 0] = 1e-9  # a level through a cell's center makes triangles without area
    vertices, faces, _, _ = marching_cubes(
        padded, 0.0, spacing=(voxel,) * 3, gradient_direction="descent"
    )
    return trimesh.Trimesh(vertices + (np.asarray(lower) - voxel), faces, process=False)


def without_strays(
    mesh: trimesh.Trimesh, share: float, keep_part: Callable[[trimesh.Trimesh], bool] | None = None
) -> trimesh.Trimesh:
    """The parts that enclose at least `share` of the largest part's volume.

    Cavities have a negative volume, so they are filled.

    Args:
        mesh: of any number of parts.
        share: of the largest part's volume.
        keep_part: tells of a smaller part whether it is kept, too.
    """
    if len(mesh.faces) == 0:
        return mesh
    label = trimesh.graph.connected_component_labels(
        mesh.face_adjacency, node_count=len(mesh.faces)
    )
    # Signed volume of each face's tetrahedron with the origin, summed over each part.
    corners = mesh.vertices[mesh.faces]  # (F, 3, 3)
    part = np.einsum("fc,fc->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    volume = np.bincount(label, weights=part)
    keep = volume >= share * volume.max()
    if keep_part is not None:
        for number in np.flatnonzero(~keep & (volume > 0)):
            keep[number] = keep_part(submesh(mesh, label == number))
    return submesh(mesh, keep[label])


def submesh(mesh: trimesh.Trimesh, keep: NDArray[np.bool_]) -> trimesh.Trimesh:
    """The faces to keep (F,), and only the vertices that they use."""
    used, faces = np.unique(mesh.faces[keep], return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], faces.reshape(-1, 3), process=False)


def smoothed(mesh: trimesh.Trimesh, iterations: int) -> trimesh.Trimesh:
    """The mesh after Taubin smoothing (SIGGRAPH 1995), which keeps the volume."""
    if iterations == 0 or len(mesh.faces) == 0:
        return mesh
    return from_open3d(to_open3d(mesh).filter_smooth_taubin(iterations))


def decimated(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """The mesh with at most about `faces` faces, by quadric error (Garland and Heckbert 1997).

    A watertight mesh stays watertight: if collapsing edges would break it, fewer are collapsed.
    """
    if len(mesh.faces) <= faces:
        return mesh
    source = to_open3d(mesh)
    watertight = mesh.is_watertight
    for target in (faces, 2 * faces, 4 * faces):
        out = from_open3d(source.simplify_quadric_decimation(target))
        if len(out.faces) and (not watertight or out.is_watertight):
            return out
    return mesh


def to_open3d(mesh: trimesh.Trimesh) -> Any:
    """The open3d.geometry.TriangleMesh of a mesh."""
    o3d = open3d()
    return o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(np.asarray(mesh.vertices)),
        o3d.utility.Vector3iVector(np.asarray(mesh.faces, np.int32)),
    )


def from_open3d(mesh: Any) -> trimesh.Trimesh:
    """The mesh of an open3d.geometry.TriangleMesh, without degenerate and duplicate triangles."""
    mesh.remove_degenerate_triangles()
    mesh.remove_duplicated_triangles()
    mesh.remove_unreferenced_vertices()
    return trimesh.Trimesh(np.array(mesh.vertices), np.array(mesh.triangles), process=False)


def raycasting_scene(*meshes: trimesh.Trimesh) -> Any:
    """The open3d.t.geometry.RaycastingScene of meshes in one frame, for rays and distances.

    Geometry ids are the meshes' positions, from 0.
    """
    return surface_scene(*((mesh.vertices, mesh.faces) for mesh in meshes))
