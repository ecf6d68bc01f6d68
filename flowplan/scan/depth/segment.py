"""Segmentation: the support, the objects, and the pixels that tell nothing.

The support is the largest horizontal plane by RANSAC (Fischler and Bolles 1981). Points above it
fall into clusters (DBSCAN, Ester et al. 1996), largest first. If the frames have masks, these
define the objects, and the clusters only drop scattered points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import pose
from flowplan.scan.depth.frames import DepthFrame
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

UNKNOWN = -1
"""Label of a pixel without information: no return, a depth edge, or scattered noise."""
SUPPORT = 0
"""Label of a pixel that shows the support, or anything else that is not an object."""
PLANES = 5
"""Planes that are tried for the support, largest first."""
FEWEST_POINTS = 30
"""Planes are not fitted to fewer points."""
SMALLEST_SHARE = 0.2
"""A horizontal plane of fewer points than this share of a tilted one's is no support."""


@dataclass(frozen=True, eq=False)
class Support:
    """The plane that objects stand on.

    Attributes:
        normal: (3,) unit, upward, world frame.
        center: (3,) center of its visible points, world frame, meters.
    """

    normal: FloatArray
    center: FloatArray

    def height_of(self, points: FloatArray) -> FloatArray:
        """Height (...,) of points (..., 3) above the plane, meters."""
        return (points - self.center) @ self.normal

    @property
    def X_world_support(self) -> FloatArray:
        """Frame (4, 4) at `center`, z along the normal, x the projection of the world's x axis."""
        x = np.array([1.0, 0.0, 0.0]) - self.normal[0] * self.normal
        x /= np.linalg.norm(x)
        return pose(np.stack([x, np.cross(self.normal, x), self.normal], axis=-1), self.center)


def trusted_pixels(frame: DepthFrame, edge_jump: float) -> NDArray[np.bool_]:
    """Pixels (H, W) that returned and have no neighbor nearer by more than `edge_jump` meters.

    On the far side of a depth edge a sensor mixes foreground and background ("flying" pixels) and
    casts its shadow. The near side is kept, or thin objects would vanish.
    """
    depth = frame.depth
    padded = np.pad(np.where(depth > 0, depth, np.inf), 1, constant_values=np.inf)
    height, width = depth.shape
    # Least depth of the 3 x 3 pixels around each.
    nearest = np.full(depth.shape, np.inf)
    for row in range(3):
        for column in range(3):
            nearest = np.minimum(nearest, padded[row : row + height, column : column + width])
    trusted = (depth > 0) & (depth - nearest <= edge_jump)
    return trusted if frame.confidence is None else trusted & (frame.confidence > 0)


def find_support(
    points: FloatArray, cameras: FloatArray, *, thickness: float, tilt: float, seed: int
) -> Support:
    """The largest horizontal plane among points, fitted by RANSAC and then by least squares.

    Poses whose world frame has another axis than z up turn the side of an object into a horizontal
    plane. Such a plane is far smaller than the tilted support, or lies above the cameras.

    Args:
        points: (P, 3) world frame, meters.
        cameras: (C, 3) positions of the cameras, world frame, meters.
        thickness: distance within which a point belongs to the plane, meters.
        tilt: largest angle between the plane and the horizontal, radians.
        seed: random seed.

    Raises:
        ValueError: if none of the five largest planes is horizontal, of notable size and below
            most cameras.
    """
    o3d = open3d()
    o3d.utility.random.seed(seed)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud = cloud.voxel_down_sample(2 * thickness)
    total, tried, largest_tilted = len(cloud.points), [], 0
    for _ in range(PLANES):
        if len(cloud.points) < FEWEST_POINTS:
            break
        plane, members = cloud.segment_plane(thickness, 3, 300)
        normal = np.asarray(plane[:3]) * (1 if plane[2] >= 0 else -1)
        angle = float(np.arccos(np.clip(normal[2], -1, 1)))
        fault = ""
        if angle <= tilt:
            center = np.asarray(cloud.points)[members].mean(0)
            support = Support(normal, center)
            if np.mean(support.height_of(cameras) < -thickness) > 0.5:
                fault = ", above the cameras"
            elif len(members) < SMALLEST_SHARE * largest_tilted:
                fault = ", small"
            else:
                return _refine(points, support, thickness)
        else:
            largest_tilted = max(largest_tilted, len(members))
        # Go on with the points off this plane.
        tried.append(f"{np.degrees(angle):.0f} deg ({100 * len(members) / total:.0f} %{fault})")
        cloud = cloud.select_by_index(members, invert=True)
    raise ValueError(
        "frames: no horizontal support plane among planes tilted by "
        f"{', '.join(tried) or 'anything'}; "
        "turn the poses so that z is up, give the support height, or scan without a support"
    )


def _refine(points: FloatArray, support: Support, thickness: float) -> Support:
    """The plane after two least-squares fits to the points (P, 3) near it.

    The second one takes only the nearer half of the band.
    """
    for band in (thickness, thickness / 2):
        near = points[np.abs(support.height_of(points)) < band]
        if len(near) < FEWEST_POINTS:
            return support
        # The normal is the direction of least spread.
        center = near.mean(0)
        _, axes = np.linalg.eigh((near - center).T @ (near - center))
        normal = axes[:, 0] * (1 if axes[2, 0] >= 0 else -1)
        support = Support(normal, center)
    return support


def label_by_mask(
    masks: Sequence[NDArray[np.int32]],
    trusted: Sequence[NDArray[np.bool_]],
    heights: Sequence[FloatArray],
    band: float,
) -> list[NDArray[np.int32]]:
    """Labels (H, W) of each frame from its mask.

    Masked pixels lower than the support by more than `band` meters are unknown.
    """
    labels = []
    for mask, sure, height in zip(masks, trusted, heights, strict=True):
        label = np.where(sure, np.maximum(mask, SUPPORT), UNKNOWN).astype(np.int32)
        label[(label > SUPPORT) & (height < -band)] = UNKNOWN
        labels.append(label)
    return labels


def label_by_height(
    trusted: Sequence[NDArray[np.bool_]], heights: Sequence[FloatArray], band: float
) -> list[NDArray[np.int32]]:
    """Labels (H, W) of each frame: 1 above the support by more than `band` meters, else SUPPORT."""
    return [
        np.where(sure, np.where(height > band, 1, SUPPORT), UNKNOWN).astype(np.int32)
        for sure, height in zip(trusted, heights, strict=True)
    ]


def cluster(points: FloatArray, *, gap: float, cell: float) -> NDArray[np.int64]:
    """Cluster numbers (P,) of points, largest first by occupied cells; -1 for scattered points.

    Args:
        points: (P, 3) meters.
        gap: points farther apart than this are not neighbors, meters.
        cell: points in a cell of this size count as one, meters.
    """
    if len(points) == 0:
        return np.zeros(0, np.int64)
    # One point per occupied cell makes clusters independent of the density of points.
    cells, member = np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_inverse=True)
    member = member.ravel()
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector((cells + 0.5) * cell))
    found = np.asarray(cloud.cluster_dbscan(gap, 6), np.int64)
    if found.max(initial=-1) < 0:
        return np.full(len(points), -1)
    # Number the clusters by size; the last entry of `rank` is for scattered points.
    order = np.argsort(-np.bincount(found[found >= 0]), kind="stable")
    rank = np.empty(len(order) + 1, np.int64)
    rank[order] = np.arange(len(order))
    rank[-1] = -1
    return rank[found[member]]
