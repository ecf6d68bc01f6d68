"""The volume a gripper sweeps on its way to a grasp, against points and the support plane.

A translation along an axis of a box sweeps a longer box. In the tool frame the approach is a translation along z and
the closing of a finger one along y, so the swept volume of both is again a handful of axis-aligned boxes, and a point
collides when it lies in one of them: no distance queries, no sampling along the way. Boxes that are turned against the
tool frame are replaced by their axis-aligned hulls, which are larger: a grasp is then refused too early, never too
late.

Points of all grasps go to the tool frames in one float32 matrix product; a first look at every eighth point refuses
most grasps that collide at an eighth of the price.
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
"""Metres: boxes are looked up at openings rounded up to this."""
_BLOCK = 2048
"""Points handled at once."""
_CHUNK = 20_000
"""Point-pose pairs handled at once: what stays in the cache of one core."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Axis-aligned boxes in the tool frame, a set for each of G poses.

    Attributes:
        lower, upper: (G, B, 3) corners, metres.
    """

    lower: FloatArray
    upper: FloatArray

    def select(self, index: NDArray[np.int64]) -> Boxes:
        """The boxes of some of the poses."""
        return Boxes(self.lower[index], self.upper[index])

    def grown(self, margin: float) -> Boxes:
        """Every face moved outward by `margin` metres (inward where negative)."""
        return Boxes(self.lower - margin, self.upper + margin)

    def approached(self, distance: float) -> Boxes:
        """What the boxes sweep while the tool comes along its z from `distance` metres away."""
        lower = self.lower.copy()
        lower[..., 2] -= distance
        return Boxes(lower, self.upper)

    def advanced(self, distance: FloatArray) -> Boxes:
        """What the boxes sweep while each of them goes on along z by its own distance (B,), metres."""
        upper = self.upper.copy()
        upper[..., 2] += distance
        return Boxes(self.lower, upper)

    def hull(self, other: Boxes) -> Boxes:
        """What each box sweeps between this opening and that of `other`."""
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
    """(G,) True where none of the points (M, 3), world frame, lies in the boxes carried by the tool pose."""
    clear = np.ones(len(X_world_tool), bool)
    if not len(points):
        return clear
    origin = points.mean(
        0
    )  # float32 is fine near it, and not at a few metres from the world's origin
    homogeneous = np.ones((4, len(points)), np.float32)
    homogeneous[:3] = (points - origin).T
    blocks = range(0, len(points), _BLOCK)
    for part in [
        homogeneous[:, ::8].copy(),
        *(homogeneous[:, i : i + _BLOCK].copy() for i in blocks),
    ]:
        rows = np.flatnonzero(clear)
        size = max(1, _CHUNK // part.shape[1])
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            clear[chunk] = ~_any_inside(X_world_tool[chunk], boxes.select(chunk), origin, part)
    return clear


def _any_inside(
    X: FloatArray, boxes: Boxes, origin: FloatArray, homogeneous: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(G,) does any of the points origin + homogeneous[:3] lie in any box?"""
    # Coordinates in which every box is the cube |q| < 1, so that one product and three comparisons do for any of them.
    R = X[:, :3, :3]
    shift = np.einsum("gij,gi->gj", R, origin - X[:, :3, 3])
    scale = 2 / np.maximum(boxes.upper - boxes.lower, 1e-9)  # (G, B, 3)
    A = np.empty((*scale.shape, 4), np.float32)
    A[..., :3] = scale[..., None] * np.swapaxes(R, 1, 2)[:, None]
    A[..., 3] = scale * (shift[:, None] - 0.5 * (boxes.lower + boxes.upper))
    # One small product per pose, on purpose: BLAS would share a large one of this shape among threads, and on a busy
    # machine wait for them a hundred times longer than it computes.
    q = (A.reshape(len(X), -1, 4) @ homogeneous).reshape(*scale.shape, -1)  # (G, B, 3, M)
    np.abs(q, out=q)
    depth = np.maximum(q[:, :, 0], q[:, :, 1])
    np.maximum(depth, q[:, :, 2], out=depth)
    return depth.min((1, 2)) < 1


def lowest_point(X_world_tool: FloatArray, boxes: Boxes) -> FloatArray:
    """(G,) smallest world z of the boxes carried by each tool pose, metres."""
    row = X_world_tool[:, None, 2, :3]  # (G, 1, 3)
    centre = 0.5 * (boxes.lower + boxes.upper)
    half = 0.5 * (boxes.upper - boxes.lower)
    return X_world_tool[:, 2, 3] + (np.sum(row * centre, -1) - np.sum(np.abs(row) * half, -1)).min(
        1
    )
