"""Collision check of the volume that a gripper sweeps against points and the support plane.

A box translated along one of its axes sweeps a longer box. In the tool frame the approach is a
translation along z and the closing of a finger one along y, so the swept volume of both is again
a set of axis-aligned boxes, and a point collides if it lies inside one of them: no distance
queries, no sampling along the way. Boxes rotated relative to the tool frame are replaced by their
axis-aligned hulls, which are larger, so the check is conservative.

Points are transformed to all tool frames by float32 matrix products. A first pass over every
eighth point rejects most colliding poses at an eighth of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_WIDTH_STEP = 0.002
"""Step that openings are rounded up to before the boxes are computed, meters."""
_SUBSAMPLE = 8
"""The first pass checks every so many-th point."""
_BLOCK = 2048
"""Points checked at once."""
_CHUNK = 20_000
"""Point-pose pairs checked at once: small enough for the cache of one core."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Axis-aligned boxes in the tool frame, one set for each of G poses.

    Attributes:
        lower, upper: (G, B, 3) corners, meters.
    """

    lower: FloatArray
    upper: FloatArray

    def select(self, index: NDArray[np.int64]) -> Boxes:
        """The boxes of a subset of the poses."""
        return Boxes(self.lower[index], self.upper[index])

    def grown(self, margin: float) -> Boxes:
        """Boxes with every face moved outward by `margin` meters (inward if negative)."""
        return Boxes(self.lower - margin, self.upper + margin)

    def approached(self, distance: float) -> Boxes:
        """Volume swept while the tool approaches along its z from `distance` meters away."""
        lower = self.lower.copy()
        lower[..., 2] -= distance
        return Boxes(lower, self.upper)

    def advanced(self, distance: FloatArray) -> Boxes:
        """Volume swept while each box moves on along z by its own distance (B,), meters."""
        upper = self.upper.copy()
        upper[..., 2] += distance
        return Boxes(self.lower, upper)

    def hull(self, other: Boxes) -> Boxes:
        """Volume swept by each box between this opening and that of `other`."""
        return Boxes(np.minimum(self.lower, other.lower), np.maximum(self.upper, other.upper))


def gripper_boxes(gripper: Gripper, widths: FloatArray) -> Boxes:
    """The gripper's boxes at G finger openings (m), as axis-aligned hulls in the tool frame."""
    steps = np.ceil(np.asarray(widths, float) / _WIDTH_STEP - 1e-6).astype(np.int64)
    distinct, which = np.unique(steps, return_inverse=True)
    lower, upper = [], []
    for step in distinct:
        X, extents = gripper.boxes(min(float(step * _WIDTH_STEP), gripper.max_width))
        half = 0.5 * np.einsum("bij,bj->bi", np.abs(X[:, :3, :3]), extents)
        lower.append(X[:, :3, 3] - half)
        upper.append(X[:, :3, 3] + half)
    if not lower:
        return Boxes(np.zeros((0, 1, 3)), np.zeros((0, 1, 3)))
    return Boxes(np.stack(lower)[which], np.stack(upper)[which])


def clear_of_points(
    X_world_tool: FloatArray, boxes: Boxes, points: FloatArray
) -> NDArray[np.bool_]:
    """(G,) True if no point lies inside the boxes placed at the tool pose.

    Args:
        X_world_tool: (G, 4, 4).
        boxes: Boxes of the same G poses.
        points: (M, 3) world frame, meters.
    """
    clear = np.ones(len(X_world_tool), bool)
    if not len(points):
        return clear
    # Coordinates relative to the points' center: float32 is exact enough near it, but not a few
    # meters away from the world's origin.
    origin = points.mean(0)
    homogeneous = np.ones((4, len(points)), np.float32)
    homogeneous[:3] = (points - origin).T
    # A coarse pass over some points first, then all of them block by block.
    parts = [homogeneous[:, ::_SUBSAMPLE].copy()]
    for start in range(0, len(points), _BLOCK):
        parts.append(homogeneous[:, start : start + _BLOCK].copy())
    for part in parts:
        rows = np.flatnonzero(clear)
        size = max(1, _CHUNK // part.shape[1])
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            clear[chunk] = ~_any_inside(X_world_tool[chunk], boxes.select(chunk), origin, part)
    return clear


def _any_inside(
    X: FloatArray, boxes: Boxes, origin: FloatArray, homogeneous: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(G,) True if any point origin + homogeneous[:3] lies inside any box of the pose."""
    # Affine maps to coordinates q in which every box is the cube |q| < 1.
    R = X[:, :3, :3]
    shift = np.einsum("gij,gi->gj", R, origin - X[:, :3, 3])
    scale = 2 / np.maximum(boxes.upper - boxes.lower, 1e-9)  # (G, B, 3)
    A = np.empty((*scale.shape, 4), np.float32)
    A[..., :3] = scale[..., None] * np.swapaxes(R, 1, 2)[:, None]
    A[..., 3] = scale * (shift[:, None] - 0.5 * (boxes.lower + boxes.upper))
    # One small product per pose: BLAS would spread a large product of this shape over threads and,
    # on a busy machine, wait for them a hundred times longer than it computes.
    q = (A.reshape(len(X), -1, 4) @ homogeneous).reshape(*scale.shape, -1)  # (G, B, 3, M)
    # Chebyshev distance from the cube's center, below one inside.
    np.abs(q, out=q)
    distance = np.maximum(q[:, :, 0], q[:, :, 1])
    np.maximum(distance, q[:, :, 2], out=distance)
    return distance.min((1, 2)) < 1


def lowest_point(X_world_tool: FloatArray, boxes: Boxes) -> FloatArray:
    """(G,) smallest world z of the boxes placed at each tool pose, meters."""
    z_axis = X_world_tool[:, None, 2, :3]  # (G, 1, 3), world z in the tool frame
    center = 0.5 * (boxes.lower + boxes.upper)
    half = 0.5 * (boxes.upper - boxes.lower)
    lowest = np.sum(z_axis * center, -1) - np.sum(np.abs(z_axis) * half, -1)  # (G, B)
    return X_world_tool[:, 2, 3] + lowest.min(1)
