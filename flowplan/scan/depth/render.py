"""What an ideal depth camera would see of some meshes, by casting one ray a pixel (Open3D)."""

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
    """A depth frame without noise, of meshes in the world frame.

    Args:
        intrinsics: (3, 3).
        X_world_camera: (4, 4), OpenCV convention.

    Returns:
        DepthFrame whose mask holds i + 1 where meshes[i] is seen, and 0 where nothing is.
    """
    if not meshes:
        raise ValueError("meshes: expected at least one mesh to look at, got none")
    blank = DepthFrame(
        np.zeros((height, width), np.float32), np.asarray(intrinsics), np.asarray(X_world_camera)
    )
    X = blank.X_world_camera
    directions = (
        blank.rays @ X[:3, :3].T
    )  # one metre along the optical axis each, so that a ray's length is its depth
    rays = np.concatenate([np.broadcast_to(X[:3, 3], directions.shape), directions], axis=-1)
    hits = raycasting_scene(*meshes).cast_rays(open3d().core.Tensor(rays.astype(np.float32)))
    depth = hits["t_hit"].numpy()
    seen = np.isfinite(depth)
    mask = np.where(seen, hits["geometry_ids"].numpy().astype(np.int32) + 1, 0)
    return DepthFrame(np.where(seen, depth, 0).astype(np.float32), blank.intrinsics, X, mask=mask)
