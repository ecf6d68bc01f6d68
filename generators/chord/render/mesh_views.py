"""Images of meshes by ray casting, which Gaussians are fitted to.

The light is fixed to the world, not to the camera: a Gaussian has one color from every side, and so
has a surface under such a light. Brightness falls linearly with the cosine of the angle, from 1
facing the light to 1 - contrast facing away, so nothing is lost in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.visual.color import uv_to_interpolated_color

from flowplan.io.mesh_colors import vertex_colors
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d
from generators.chord.options import ViewOptions

LIGHT = np.array([0.3, -0.4, 1.0]) / np.linalg.norm([0.3, -0.4, 1.0])
"""Direction toward the light, world frame."""
GRAY = (0.6, 0.6, 0.6)
"""Color of a surface without one."""


@dataclass(frozen=True, eq=False)
class MeshViews:
    """V images, averaged over the rays of each pixel; rays that hit nothing count as 0.

    Attributes:
        rgb: (V, H, W, 3) in [0, 1], lit.
        alpha: (V, H, W) share of the pixel that is covered.
        points: (V, H, W, 3) where the rays hit, world frame, meters, times alpha.
        depth: (V, H, W) along the camera's z, meters, times alpha.
        mesh_id: (V, H, W) mesh that the pixel's first ray hits; -1 for none.
    """

    rgb: FloatArray
    alpha: FloatArray
    points: FloatArray
    depth: FloatArray
    mesh_id: NDArray[np.int64]


class _Hits(NamedTuple):
    """Hits of N rays."""

    hit: NDArray[np.bool_]
    """(N,) true if the ray hits anything."""
    depth: FloatArray
    """(N,) distance in lengths of the ray's direction; 0 for no hit."""
    mesh_id: NDArray[np.int64]
    """(N,) -1 for no hit."""
    face: NDArray[np.int64]
    """(N,) 0 for no hit."""
    barycentric: FloatArray
    """(N, 3) coordinates on the face."""


def world_mesh(obj: SceneObject) -> trimesh.Trimesh:
    """The object's mesh in the world frame, with its colors."""
    return trimesh.Trimesh(
        obj.vertices_world, obj.mesh.faces, visual=obj.mesh.visual, process=False
    )


def mesh_views(
    meshes: Sequence[trimesh.Trimesh],
    viewmats: FloatArray,
    Ks: FloatArray,
    width: int,
    height: int,
    options: ViewOptions = ViewOptions(),
) -> MeshViews:
    """Images of meshes from V cameras.

    Args:
        meshes: world frame, meters; those without colors are gray.
        viewmats: (V, 4, 4) X_camera_world, OpenCV's convention.
        Ks: (V, 3, 3) intrinsics, pixels; the center of the first pixel is at (0.5, 0.5).
        width: pixels.
        height: pixels.
        options: see ViewOptions.
    """
    viewmats = checks.array("viewmats", viewmats, ("V", 4, 4))
    Ks = checks.array("Ks", Ks, (len(viewmats), 3, 3))
    scene = raycasting_scene(*meshes)
    shape = (height, options.samples, width, options.samples)

    def averaged(values: FloatArray) -> FloatArray:
        return values.reshape(*shape, -1).mean(axis=(1, 3))

    views = []
    # Camera by camera: rays take a hundred bytes each.
    for X_camera_world, K in zip(viewmats, Ks, strict=True):
        eye, directions = _rays(X_camera_world, K, width, height, options.samples)
        hits = _cast(scene, eye, directions)
        # Points and colors (N, 3) of the rays, 0 where nothing is hit.
        points = np.where(hits.hit[:, None], eye + hits.depth[:, None] * directions, 0.0)
        rgb = np.zeros_like(points)
        for i, mesh in enumerate(meshes):
            on = np.flatnonzero(hits.mesh_id == i)
            rgb[on] = _lit_colors(mesh, hits, on, directions[on], options)
        # Pixels: means over their rays, but the mesh of the first ray alone.
        first = hits.mesh_id.reshape(shape)[:, 0, :, 0]
        alpha = averaged(hits.hit.astype(float))[..., 0]
        depth = averaged(hits.depth)[..., 0]
        views.append((averaged(rgb), alpha, averaged(points), depth, first))
    return MeshViews(*map(np.stack, zip(*views, strict=True)))


def brightness(normals: FloatArray, options: ViewOptions = ViewOptions()) -> FloatArray:
    """Brightness (N,) in [0, 1] of a surface with normals (N, 3)."""
    return 1 - options.contrast * (1 - normals @ LIGHT) / 2


def surface_colors(
    mesh: trimesh.Trimesh, face: NDArray[np.int64], barycentric: FloatArray
) -> FloatArray | None:
    """Colors (N, 3) in [0, 1] at points of a mesh, from its texture, vertices or faces.

    Args:
        mesh: the mesh.
        face: (N,) face of each point.
        barycentric: (N, 3) coordinates on the face.

    Returns:
        None for a mesh without colors.
    """
    visual: Any = mesh.visual
    if visual is None or not visual.defined:
        return None
    if visual.kind == "face":
        return np.asarray(visual.face_colors, float)[face, :3] / 255
    if visual.kind == "texture":
        material: Any = visual.material
        image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
        if image is None or visual.uv is None or len(visual.uv) != len(mesh.vertices):
            return np.tile(np.asarray(material.main_color, float)[:3] / 255, (len(face), 1))
        uv = (np.asarray(visual.uv)[mesh.faces[face]] * barycentric[..., None]).sum(1)  # (N, 2)
        return np.asarray(uv_to_interpolated_color(uv, image), float)[:, :3] / 255
    colors = vertex_colors(mesh)
    if colors is None:
        return None
    return (colors[mesh.faces[face], :3] * barycentric[..., None]).sum(1) / 255


def _lit_colors(
    mesh: trimesh.Trimesh,
    hits: _Hits,
    on: NDArray[np.int64],
    directions: FloatArray,
    options: ViewOptions,
) -> FloatArray:
    """Lit colors (M, 3) of the rays `on` (M,) that hit a mesh, along `directions` (M, 3)."""
    face = hits.face[on]
    colors = surface_colors(mesh, face, hits.barycentric[on])
    normals = np.asarray(mesh.face_normals, float)[face]
    # The side that is seen is lit: the winding of faces may be wrong.
    away = np.sign((normals * directions).sum(-1))
    light = brightness(-away[:, None] * normals, options)
    return (np.array(GRAY) if colors is None else colors) * light[:, None]


def _rays(
    viewmat: FloatArray, K: FloatArray, width: int, height: int, samples: int
) -> tuple[FloatArray, FloatArray]:
    """Eye (3,) and ray directions (H * samples * W * samples, 3), world frame.

    A direction has length 1 along the camera's z.
    """
    # Image coordinates of the rays, then directions of depth 1.
    x, y = ((np.arange(n * samples) + 0.5) / samples for n in (width, height))
    u, v = np.meshgrid((x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1])
    R_camera_world = viewmat[:3, :3]
    directions = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ R_camera_world
    return -viewmat[:3, 3] @ R_camera_world, directions


def _cast(scene: Any, eye: FloatArray, directions: FloatArray) -> _Hits:
    """Hits of rays from one eye (3,) along directions (N, 3)."""
    rays = np.concatenate([np.broadcast_to(eye, directions.shape), directions], axis=1)  # (N, 6)
    answer = scene.cast_rays(open3d().core.Tensor(rays.astype(np.float32)))
    length = answer["t_hit"].numpy().astype(float)
    hit = np.isfinite(length)
    u, v = answer["primitive_uvs"].numpy().astype(float).T
    return _Hits(
        hit=hit,
        depth=np.where(hit, length, 0.0),
        mesh_id=np.where(hit, answer["geometry_ids"].numpy().astype(np.int64), -1),
        face=np.where(hit, answer["primitive_ids"].numpy().astype(np.int64), 0),
        barycentric=np.stack([1 - u - v, u, v], axis=-1),
    )
