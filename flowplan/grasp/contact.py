"""Contacts between the pads of a closing parallel gripper and a surface.

A pad is a rectangle in the tool's x-z plane that moves along y. It stops at the foremost surface
point below it; every point within `compliance` behind that one (rubber, skin, dents of a scan)
shares the load. The mean normal of this patch measures how flat the pad lies, and its spread the
resistance against twisting and tipping.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowplan.grasp.surface import unit_vectors
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_MIN_FACING = 0.3
"""Cosine between a surface normal and the pad's direction from which a point can meet the pad."""
_DEPTH_POINTS = 2000
"""Number of surface points, about, that the depth in the hand is measured on."""
_DEPTH_MARGIN = 0.002
"""Margin beside the pads within which the object counts as between them, meters."""
_DEPTH_CHUNK = 64
"""Poses processed at once by `depth_in_hand`: small enough for the cache."""


@dataclass(frozen=True, eq=False)
class PadContacts:
    """Contacts of both pads after G closings, tool frame. Side 0 is the finger at -y, 1 at +y.

    Attributes:
        touch: (G,) True if both pads meet the surface.
        center: (G, 2, 3) center of each patch, meters.
        normal: (G, 2, 3) unit, out of the object.
        area: (G, 2) area of each patch, square meters.
        spread: (G, 2, 2) RMS extent of each patch along the tool's x and z, meters.
        width: (G,) distance between the pads in contact, meters.
        offset: (G,) y of the midpoint between the pads in contact, meters.
    """

    touch: NDArray[np.bool_]
    center: FloatArray
    normal: FloatArray
    area: FloatArray
    spread: FloatArray
    width: FloatArray
    offset: FloatArray

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> PadContacts:
        """A subset of the closings."""
        return PadContacts(*(getattr(self, f.name)[index] for f in fields(self)))

    def centered(self) -> PadContacts:
        """The same contacts in a tool frame moved to the midpoint between the pads."""
        shift = np.array([0.0, 1.0, 0.0]) * self.offset[:, None, None]
        return replace(self, center=self.center - shift, offset=np.zeros_like(self.offset))

    @property
    def tilt(self) -> FloatArray:
        """(G, 2) angle between each patch's normal and the pad's, radians."""
        return np.arccos(np.clip(self.normal[..., 1] * [-1.0, 1.0], -1, 1))

    def as_points(self) -> tuple[FloatArray, FloatArray]:
        """Each patch as four hard contacts: points and outward normals (G, 8, 3).

        A stiff flat pad pushes along its own normal, also on an edge or a curved surface.
        """
        corners = 1.0 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
        offset = np.zeros((len(self.touch), 2, 4, 3))
        offset[..., ::2] = corners * self.spread[:, :, None, :]
        points = (self.center[:, :, None] + offset).reshape(-1, 8, 3)
        normals = np.zeros((len(points), 8, 3))
        normals[..., 1] = np.repeat([-1.0, 1.0], 4)
        return points, normals

    def alignment(self, gripper: Gripper, friction: float) -> FloatArray:
        """(G,) contact quality of the worse pad, in [0, 1]; 0 without contact.

        Margin of the patch normal to the friction cone, times the root of the covered pad area.
        """
        align = np.clip(1 - np.tan(np.minimum(self.tilt, 1.5)) / friction, 0, 1)
        cover = np.clip(self.area / (gripper.pad_size[0] * gripper.pad_size[1]), 0, 1)
        return np.where(self.touch, np.min(align * np.sqrt(cover), axis=-1), 0.0)


def pad_center_z(gripper: Gripper, widths: FloatArray) -> FloatArray:
    """(...,) z of the pads' center in the tool frame at finger openings, meters.

    It varies with the opening if the fingers swing.
    """
    return np.interp(widths, gripper.table_width, gripper.table_pad_z)


def close_pads(
    points: FloatArray, normals: FloatArray, area: float, gripper: Gripper, compliance: float
) -> PadContacts:
    """Contacts after closing the pads on surface points.

    Args:
        points: (G, 2, K, 3) tool frame, meters: points near the contact of side 0 and of side 1.
        normals: (G, 2, K, 3) out of the object.
        area: Area that each point represents, square meters.
        gripper: Gripper with the pads. The pads' height is that at the mean distance between the
            points of both sides.
        compliance: Depth behind the foremost point that still bears load, meters.
    """
    side = np.array([-1.0, 1.0])[None, :, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]  # (G, 2, K)

    # Points below each pad that face it.
    pad_x, pad_z = gripper.pad_size
    distance = y[:, 1].mean(-1) - y[:, 0].mean(-1)
    pad_center = pad_center_z(gripper, distance)[:, None, None]
    facing = normals[..., 1] * side > _MIN_FACING
    below = (np.abs(x) < 0.5 * pad_x) & (np.abs(z - pad_center) < 0.5 * pad_z)

    # Each pad stops at its foremost point.
    height = np.where(below & facing, side * y, -np.inf)  # (G, 2, K)
    front = height.max(-1)  # (G, 2)
    touch = np.isfinite(front).all(-1)
    front = np.where(np.isfinite(front), front, 0.0)

    # Points within the compliance form the patch.
    patch = (height > front[..., None] - compliance).astype(float)
    count = np.maximum(patch.sum(-1), 1.0)
    center = np.einsum("gsk,gskc->gsc", patch, points) / count[..., None]
    normal = unit_vectors(np.einsum("gsk,gskc->gsc", patch, normals))

    # RMS extent of the patch, with that of the square around each point.
    offsets = (points - center[..., None, :])[..., ::2]
    variance = np.einsum("gsk,gskc->gsc", patch, offsets**2) / count[..., None]
    rms = np.sqrt(variance + area / 12)

    midpoint = 0.5 * (front[:, 1] - front[:, 0])
    return PadContacts(touch, center, normal, patch.sum(-1) * area, rms, front.sum(-1), midpoint)


@dataclass(frozen=True, eq=False)
class GraspPoses:
    """G tool poses of grasps, and the surface around the contact pairs that they came from.

    Attributes:
        X_world_tool: (G, 4, 4).
        pair: (G,) index of the contact pair of each pose.
        near, near_normals: (P, 2, K, 3) surface points and normals around both contacts of every
            pair, world frame.
        area: Area that one of these points represents, square meters.
        pads: Contacts of the closed pads; None until they are computed.
    """

    X_world_tool: FloatArray
    pair: NDArray[np.int64]
    near: FloatArray
    near_normals: FloatArray
    area: float
    pads: PadContacts | None = None

    def __len__(self) -> int:
        return len(self.X_world_tool)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> GraspPoses:
        """A subset of the poses."""
        pads = None if self.pads is None else self.pads.select(index)
        X, pair = self.X_world_tool[index], self.pair[index]
        return replace(self, X_world_tool=X, pair=pair, pads=pads)

    @property
    def closed(self) -> PadContacts:
        """Contacts of the closed pads.

        Raises:
            ValueError: If they have not been computed yet.
        """
        if self.pads is None:
            raise ValueError("GraspPoses.pads: expected contacts, got None; close the pads first")
        return self.pads

    def close(
        self, X_world_tool: FloatArray, pair: NDArray[np.int64], gripper: Gripper, compliance: float
    ) -> PadContacts:
        """Contacts after closing at tool poses (n, 4, 4), on the surface around pairs (n,)."""
        R = X_world_tool[:, None, :3, :3]
        origin = X_world_tool[:, None, None, :3, 3]
        points = (self.near[pair] - origin) @ R  # (n, 2, K, 3), tool frame
        return close_pads(points, self.near_normals[pair] @ R, self.area, gripper, compliance)


def depth_in_hand(
    X_world_tool: FloatArray, widths: FloatArray, points: FloatArray, gripper: Gripper
) -> FloatArray:
    """(G,) depth of the object between the closed fingers, meters.

    Measured from the pads' center towards the palm.

    Args:
        X_world_tool: (G, 4, 4).
        widths: (G,) distance between the closed pads, meters.
        points: (M, 3) points on the object's surface, world frame; some 2000 of them are used.
        gripper: Gripper with the pads.
    """
    few = points[:: max(1, len(points) // _DEPTH_POINTS)]
    half = 0.5 * widths[:, None] + _DEPTH_MARGIN
    pad_center = pad_center_z(gripper, widths)
    out = np.empty(len(X_world_tool))
    for start in range(0, len(out), _DEPTH_CHUNK):
        rows = slice(start, start + _DEPTH_CHUNK)
        # Points in the tool frame.
        R = X_world_tool[rows, :3, :3]
        offset = np.einsum("gij,gi->gj", R, X_world_tool[rows, :3, 3])
        local = np.swapaxes(R, 1, 2) @ few.T - offset[:, :, None]  # (g, 3, M)
        # The lowest z of those between the fingers.
        in_x = np.abs(local[:, 0]) < 0.5 * gripper.pad_size[0]
        in_y = np.abs(local[:, 1]) < half[rows]
        z = np.where(in_x & in_y, local[:, 2], pad_center[rows, None])
        out[rows] = pad_center[rows] - z.min(-1)
    return out
