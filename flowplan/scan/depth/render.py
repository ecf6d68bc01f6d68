"""Ideal depth images of meshes, by casting one ray per pixel (Open3D)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.utils.open3d_loader import open3d


def render_frame(
    meshes: Sequence[trimesh.Trimesh],
    intrinsics: ArrayLike,
    X_world_camera: ArrayLike,
    *,
    width: int = 320,
    height: int = 240,
) -> DepthFrame:
    """A depth frame without noise.

    Args:
        meshes: in the world frame.
        intrinsics: (3, 3).
        X_world_camera: (4, 4), OpenCV convention.
        width, height: image size, pixels.

    Returns:
        DepthFrame whose mask is i + 1 at pixels that see meshes[i], and 0 elsewhere.
    """
    if not meshes:
        raise ValueError("meshes: expected at least one mesh to render, got none")
    blank = DepthFrame(
        np.zeros((height, width), np.float32), np.asarray(intrinsics), np.asarray(X_world_camera)
    )
    X = blank.X_world_camera
    # Rays of one meter along the optical axis, so that their parameter is the depth.
    directions = blank.rays @ X[:3, :3].T
    rays = np.concatenate([np.broadcast_to(X[:3, 3], directions.shape), directions], axis=-1)
    hits = raycasting_scene(*meshes).cast_rays(open3d().core.Tensor(rays.astype(np.float32)))
    depth = hits["t_hit"].numpy()
    seen = np.isfinite(depth)
    mask = np.where(seen, hits["geometry_ids"].numpy().astype(np.int32) + 1, 0)
    return DepthFrame(np.where(seen, depth, 0).astype(np.float32), blank.intrinsics, X, mask=mask)
