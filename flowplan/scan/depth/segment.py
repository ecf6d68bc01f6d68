"""Which pixels show the support and which show one object or another.

The support is the largest plane by RANSAC (Fischler and Bolles 1981) that is horizontal; what rises above it falls into
clusters (DBSCAN, Ester et al. 1996), largest first. Where frames carry masks, the masks say what is an object and the
clusters only drop what is scattered.
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
"""Label of a pixel that says nothing: no return, a depth edge, or scattered noise."""
SUPPORT = 0
"""Label of a pixel that shows the support or whatever is not an object."""


@dataclass(frozen=True, eq=False)
class Support:
    """The plane that objects stand on.

    Attributes:
        normal: (3,) unit, upwards, world frame.
        center: (3,) a point of the plane amid what was seen of it, world frame, metres.
    """

    normal: FloatArray
    center: FloatArray

    def height_of(self, points: FloatArray) -> FloatArray:
        """Height (...,) of points (..., 3) above the plane, metres."""
        return (points - self.center) @ self.normal

    @property
    def X_world_support(self) -> FloatArray:
        """(4, 4) frame at `center` with z along the normal and x as close to the world's as can be."""
        x = np.array([1.0, 0.0, 0.0]) - self.normal[0] * self.normal
        x /= np.linalg.norm(x)
        return pose(np.stack([x, np.cross(self.normal, x), self.normal], axis=-1), self.center)


def trusted_pixels(frame: DepthFrame, edge_jump: float) -> NDArray[np.bool_]:
    """(H, W): returned, and no neighbour is nearer by more than `edge_jump` metres.

    The far side of a depth edge is where a sensor mixes foreground and background ("flying" pixels) and where its
    shadow falls; the near side is kept, or thin things would vanish.
    """
    depth = frame.depth
    padded = np.pad(np.where(depth > 0, depth, np.inf), 1, constant_values=np.inf)
    height, width = depth.shape
    nearest = np.full(depth.shape, np.inf)
    for row in range(3):
        for column in range(3):
            nearest = np.minimum(nearest, padded[row : row + height, column : column + width])
    trusted = (depth > 0) & (depth - nearest <= edge_jump)
    return trusted if frame.confidence is None else trusted & (frame.confidence > 0)


def find_support(points: FloatArray, *, thickness: float, tilt: float, seed: int) -> Support:
    """The largest horizontal plane among points (P, 3), fitted by RANSAC and then by least squares.

    Args:
        thickness: distance within which a point belongs to the plane, metres.
        tilt: largest angle between the plane and the horizontal, radians.

    Raises:
        ValueError: when none of the five largest planes is horizontal.
    """
    o3d = open3d()
    o3d.utility.random.seed(seed)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points)).voxel_down_sample(
        2 * thickness
    )
    total, tried = len(cloud.points), []
    for _ in range(5):
        if len(cloud.points) < 30:
            break
        plane, members = cloud.segment_plane(thickness, 3, 300)
        normal = np.asarray(plane[:3]) * (1 if plane[2] >= 0 else -1)
        angle = float(np.arccos(np.clip(normal[2], -1, 1)))
        if angle <= tilt:
            center = np.asarray(cloud.points)[members].mean(0)
            return _refine(points, Support(normal, center), thickness)
        tried.append(f"{np.degrees(angle):.0f} deg ({100 * len(members) / total:.0f} %)")
        cloud = cloud.select_by_index(members, invert=True)
    raise ValueError(
        f"frames: no horizontal support plane among planes tilted by {', '.join(tried) or 'anything'}; "
        "turn the poses so that z is up, give the support height, or scan without a support"
    )


def _refine(points: FloatArray, support: Support, thickness: float) -> Support:
    """Two rounds of least squares over the full resolution, the second over the nearer half of the band."""
    for band in (thickness, thickness / 2):
        near = points[np.abs(support.height_of(points)) < band]
        if len(near) < 30:
            return support
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
    """Labels (H, W) a frame from its mask; masked pixels well below the support are unknown."""
    labels = []
    for mask, sure, height in zip(masks, trusted, heights, strict=True):
        label = np.where(sure, np.maximum(mask, SUPPORT), UNKNOWN).astype(np.int32)
        label[(label > SUPPORT) & (height < -band)] = UNKNOWN
        labels.append(label)
    return labels


def label_by_height(
    trusted: Sequence[NDArray[np.bool_]], heights: Sequence[FloatArray], band: float
) -> list[NDArray[np.int32]]:
    """Labels (H, W) a frame: 1 for what rises above the support by `band` metres, SUPPORT for what does not."""
    return [
        np.where(sure, np.where(height > band, 1, SUPPORT), UNKNOWN).astype(np.int32)
        for sure, height in zip(trusted, heights, strict=True)
    ]


def cluster(points: FloatArray, *, gap: float, cell: float) -> NDArray[np.int64]:
    """Cluster numbers (P,) of points (P, 3), by number of occupied cells, largest first; -1 for scattered ones.

    Args:
        gap: points farther apart than this are not neighbours, metres.
        cell: points within a cell of this size are taken as one, metres.
    """
    if len(points) == 0:
        return np.zeros(0, np.int64)
    cells, member = np.unique(np.floor(points / cell).astype(np.int64), axis=0, return_inverse=True)
    member = member.ravel()
    o3d = open3d()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector((cells + 0.5) * cell))
    found = np.asarray(cloud.cluster_dbscan(gap, 6), np.int64)
    if found.max(initial=-1) < 0:
        return np.full(len(points), -1)
    order = np.argsort(-np.bincount(found[found >= 0]), kind="stable")
    rank = np.empty(len(order) + 1, np.int64)
    rank[order] = np.arange(len(order))
    rank[-1] = -1
    return rank[found[member]]
