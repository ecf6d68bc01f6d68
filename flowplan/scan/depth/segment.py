"""Segmentation: the support, the objects, and the pixels that tell nothing.

The support is the largest horizontal plane by RANSAC (Fischler and Bolles 1981), with draws enough
for a plane that holds a twentieth of the points. Points above it fall into clusters (DBSCAN, Ester
et al. 1996), largest first. If the frames have masks, these define the objects, and the clusters
only drop scattered points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import pose
from flowplan.scan.depth.frames import DepthFrame
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

UNKNOWN = -1
"""Label of a pixel without information: no return, a depth edge, or scattered noise."""
SUPPORT = 0
"""Label of a pixel that shows the support, or anything else that is not an object."""
PLANES = 5
"""Horizontal planes that are tried for the support, largest first."""
TILTED_PLANES = 3
"""Planes of any tilt that are found, to tell whether z is up."""
FEWEST_POINTS = 30
"""Planes are not fitted to fewer points."""
SMALLEST_SHARE = 0.2
"""A horizontal plane of fewer points than this share of a tilted one's is no support."""
DRAWS = 20_000
"""Planes through three points that are tried for each horizontal plane."""
FEW_DRAWS = 2000
"""The same for large planes of any tilt."""
NEIGHBORS = 64
"""Half of the draws take their points from so many neighbors."""
SCORED = 1000
"""Points that every draw is scored by; the best draws are scored by all."""
FINALISTS = 50
"""Draws that are scored by all points."""
UPRIGHT, SIDEWAYS, RIVAL = 0.6, 0.5, 0.5
"""A plane at least RIVAL times as large as a horizontal one, whose normal agrees with the images'
upward direction by UPRIGHT where the horizontal one's agrees by less than SIDEWAYS (cosines), means
that the world's z axis is not up."""


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
    points: FloatArray,
    cameras: FloatArray,
    *,
    thickness: float,
    tilt: float,
    seed: int,
    upward: FloatArray | None = None,
) -> Support:
    """The largest horizontal plane among points, fitted by RANSAC and then by least squares.

    Poses whose world frame has another axis than z up turn a wall or the side of an object into a
    horizontal plane. Such a plane is far smaller than the tilted support, or lies above the
    cameras, or another large plane lies below the cameras' images.

    Args:
        points: (P, 3) world frame, meters.
        cameras: (C, 3) positions of the cameras, world frame, meters.
        thickness: distance within which a point belongs to the plane, meters.
        tilt: largest angle between the plane and the horizontal, radians.
        seed: random seed.
        upward: (C, 3) upward directions of the cameras' images, world frame.

    Raises:
        ValueError: if none of the five largest horizontal planes is of notable size and below most
            cameras.
    """
    cloud = _thinned(points, 2 * thickness)
    rng = np.random.default_rng(seed)
    # Large planes of any tilt, which tell whether z is up.
    tilted: list[tuple[Support, int]] = []
    for support, count, _ in _planes(cloud, thickness, TILTED_PLANES, rng, draws=FEW_DRAWS):
        if abs(support.normal[2]) < np.cos(tilt):
            tilted.append((support, count))
    largest_tilted = max((count for _, count in tilted), default=0)
    # Horizontal ones, the largest that can be a support.
    tried = [
        f"{np.degrees(np.arccos(s.normal[2])):.0f} deg ({count} points)" for s, count in tilted
    ]
    for support, count, angle in _planes(cloud, thickness, PLANES, rng, tilt):
        if np.mean(support.height_of(cameras) < -thickness) > 0.5:
            fault = "above the cameras"
        elif count < SMALLEST_SHARE * largest_tilted:
            fault = "small"
        elif _other_is_up(support, count, tilted, cameras, upward):
            fault = "beside a plane below the images"
        else:
            return _refine(points, support, thickness)
        tried.append(f"{np.degrees(angle):.0f} deg ({count} points, {fault})")
    raise ValueError(
        "frames: no horizontal support plane among planes tilted by "
        f"{', '.join(tried) or 'anything'}; "
        "turn the poses so that z is up, give the support height, or scan without a support"
    )


def _planes(
    cloud: FloatArray,
    thickness: float,
    most: int,
    rng: np.random.Generator,
    tilt: float = np.pi,
    draws: int = DRAWS,
) -> Iterator[tuple[Support, int, float]]:
    """Planes, their numbers of points and their tilts, largest first; each without the others'."""
    for _ in range(most):
        found = None
        if len(cloud) >= FEWEST_POINTS:
            found = largest_plane(cloud, thickness, rng, tilt=tilt, draws=draws)
        if found is None:
            return
        support, members = found
        yield support, int(members.sum()), float(np.arccos(np.clip(support.normal[2], -1, 1)))
        cloud = cloud[~members]


def _other_is_up(
    support: Support,
    count: int,
    others: Sequence[tuple[Support, int]],
    cameras: FloatArray,
    upward: FloatArray | None,
) -> bool:
    """True if another large plane, with the cameras above it, lies below the images' content."""
    if upward is None:
        return False
    mean = upward.mean(0)
    length = float(np.linalg.norm(mean))
    if length < SIDEWAYS:  # cameras are held in different ways
        return False
    for other, size in others:
        side = 1.0 if np.mean(other.height_of(cameras)) >= 0 else -1.0
        agrees = side * float(other.normal @ mean) / length >= UPRIGHT
        if agrees and size >= RIVAL * count and support.normal @ mean / length < SIDEWAYS:
            return True
    return False


def _thinned(points: FloatArray, cell: float) -> FloatArray:
    """Means (Q, 3) of the points in each cell of a grid."""
    cells = np.floor((points - points.min(0)) / cell).astype(np.int64)
    _, member = np.unique(cells, axis=0, return_inverse=True)
    member = member.ravel()
    sums = np.stack([np.bincount(member, points[:, axis]) for axis in range(3)], axis=-1)
    return sums / np.bincount(member)[:, None]


def largest_plane(
    points: FloatArray,
    thickness: float,
    rng: np.random.Generator,
    *,
    tilt: float = np.pi,
    draws: int = DRAWS,
) -> tuple[Support, NDArray[np.bool_]] | None:
    """The plane, facing up, within `thickness` meters of which most points (P, 3) lie.

    Args:
        points: (P, 3) meters.
        thickness: meters.
        rng: draws the planes that are tried.
        tilt: largest angle to the horizontal, radians.
        draws: number of planes that are tried.

    Returns:
        The plane and its members (P,); None if no draw was as flat, or all points are on one line.
    """
    normals, offsets = _draws(points, rng, draws)
    flat = np.abs(normals[:, 2]) >= np.cos(min(tilt, np.pi / 2))
    normals, offsets = normals[flat], offsets[flat]
    if not len(normals):
        return None
    # Members among some of the points for all planes, among all points for the best.
    some = points[rng.permutation(len(points))[:SCORED]].astype(np.float32)
    parts = [np.array_split(a.astype(np.float32), 20) for a in (normals, offsets)]
    scores = np.concatenate(
        [(np.abs(n @ some.T - o[:, None]) < thickness).sum(1) for n, o in zip(*parts, strict=True)]
    )
    best = np.argsort(-scores, kind="stable")[:FINALISTS]
    counts = [int((np.abs(points @ normals[i] - offsets[i]) < thickness).sum()) for i in best]
    winner = best[int(np.argmax(counts))]
    members = np.abs(points @ normals[winner] - offsets[winner]) < thickness
    # The plane of least squares through its members.
    center = points[members].mean(0)
    _, axes = np.linalg.eigh((points[members] - center).T @ (points[members] - center))
    normal = axes[:, 0] * (1 if axes[2, 0] >= 0 else -1)
    return Support(normal, center), members


def _draws(
    points: FloatArray, rng: np.random.Generator, count: int
) -> tuple[FloatArray, FloatArray]:
    """Unit normals (D, 3) and offsets (D,) of planes through three points each.

    In half of the draws the three are neighbors, which lie in one plane far more often where there
    are many.
    """
    far = rng.integers(len(points), size=(count // 2, 3))
    first = rng.integers(len(points), size=count - len(far))
    _, neighbors = cKDTree(points).query(points[first], k=min(NEIGHBORS, len(points)))
    columns = rng.integers(neighbors.shape[1], size=(len(first), 2))
    near = np.column_stack([first, np.take_along_axis(neighbors, columns, axis=1)])
    corner = points[np.concatenate([far, near])]  # (D, 3, 3)
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    wide = lengths > 1e-12
    normals = normals[wide] / lengths[wide, None]
    return normals, np.einsum("dc,dc->d", normals, corner[wide, 0])


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
