"""What a parallel gripper's pads meet when they close.

A pad is a rectangle in the tool's x-z plane that comes in along y. It stops at the point that sticks out furthest
towards it; everything within `compliance` behind that point (rubber, skin, dents of a scan) shares the load. The mean
normal of that patch says how well the pad lies on, and its spread how well it resists being twisted or tipped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper


@dataclass(frozen=True, eq=False)
class PadContacts:
    """The contacts of both pads, for G closings; side 0 is the finger at -y, side 1 the one at +y. Tool frame.

    Attributes:
        touch: (G,) both pads meet something.
        centre: (G, 2, 3) centre of each patch, metres.
        normal: (G, 2, 3) unit, out of the object.
        area: (G, 2) square metres of the patch.
        spread: (G, 2, 2) metres RMS of each patch along the tool's x and z.
        width: (G,) metres between the pads when both touch.
        offset: (G,) metres along y from the tool's origin to the middle between the touching pads.
    """

    touch: NDArray[np.bool_]
    centre: FloatArray
    normal: FloatArray
    area: FloatArray
    spread: FloatArray
    width: FloatArray
    offset: FloatArray

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> PadContacts:
        """Some of the closings."""
        return PadContacts(*(getattr(self, f.name)[index] for f in fields(self)))

    def centred(self) -> PadContacts:
        """The same contacts seen from a tool that has moved to the middle between the pads."""
        shift = np.array([0.0, 1.0, 0.0]) * self.offset[:, None, None]
        return replace(self, centre=self.centre - shift, offset=np.zeros_like(self.offset))

    @property
    def tilt(self) -> FloatArray:
        """(G, 2) radians between each patch's normal and the pad's."""
        return np.arccos(np.clip(self.normal[..., 1] * [-1.0, 1.0], -1, 1))

    def as_points(self) -> tuple[FloatArray, FloatArray]:
        """Each patch as four hard contacts, points and normals (G, 8, 3), the normals out of the object.

        A stiff flat pad pushes along its own normal, whatever edge or curve of the object it has met.
        """
        corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        offset = np.zeros((len(self.touch), 2, 4, 3))
        offset[..., ::2] = corners * self.spread[:, :, None, :]
        points = (self.centre[:, :, None] + offset).reshape(-1, 8, 3)
        normals = np.zeros((len(points), 8, 3))
        normals[..., 1] = np.repeat([-1.0, 1.0], 4)
        return points, normals

    def lies_on(self, gripper: Gripper, friction: float) -> FloatArray:
        """(G,) in [0, 1]: the worse pad's margin to the friction cone, times the root of its covered share."""
        align = np.clip(1 - np.tan(np.minimum(self.tilt, 1.5)) / friction, 0, 1)
        cover = np.clip(self.area / (gripper.pad_size[0] * gripper.pad_size[1]), 0, 1)
        return np.where(self.touch, np.min(align * np.sqrt(cover), axis=-1), 0.0)


def pad_middle(gripper: Gripper, widths: FloatArray) -> FloatArray:
    """z (...,) of the pads' centre in the tool frame at finger openings (m); it moves where fingers swing."""
    return np.interp(widths, gripper.table_width, gripper.table_pad_z)


def close_pads(
    points: FloatArray, normals: FloatArray, area: float, gripper: Gripper, compliance: float
) -> PadContacts:
    """Close the pads on surface points around both contacts.

    Args:
        points: (G, 2, K, 3) tool frame, metres: points near the contact of side 0 and of side 1.
        normals: (G, 2, K, 3) out of the object.
        area: square metres that each point stands for.
        gripper: its pads; where they swing, their height is that at the opening between the points' middles.
        compliance: metres behind the foremost point that still bear load.
    """
    side = np.array([-1.0, 1.0])[None, :, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    pad_x, pad_z = gripper.pad_size
    middle = pad_middle(gripper, y[:, 1].mean(-1) - y[:, 0].mean(-1))[:, None, None]
    facing = normals[..., 1] * side > 0.3
    under = (np.abs(x) < 0.5 * pad_x) & (np.abs(z - middle) < 0.5 * pad_z)
    level = np.where(
        under & facing, side * y, -np.inf
    )  # how far each point sticks out towards its pad
    front = level.max(-1)  # (G, 2)
    touch = np.isfinite(front).all(-1)
    front = np.where(np.isfinite(front), front, 0.0)
    patch = (level > front[..., None] - compliance).astype(float)
    count = np.maximum(patch.sum(-1), 1.0)
    centre = np.einsum("gsk,gskc->gsc", patch, points) / count[..., None]
    normal = np.einsum("gsk,gskc->gsc", patch, normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    offsets = (points - centre[..., None, :])[..., ::2]
    rms = np.sqrt(np.einsum("gsk,gskc->gsc", patch, offsets**2) / count[..., None] + area / 12)
    shift = 0.5 * (front[:, 1] - front[:, 0])
    return PadContacts(touch, centre, normal, patch.sum(-1) * area, rms, front.sum(-1), shift)


def depth_in_hand(
    X_world_tool: FloatArray, widths: FloatArray, points: FloatArray, gripper: Gripper
) -> FloatArray:
    """(G,) metres from the pads' middle towards the palm that the object reaches between the closed fingers.

    Args:
        X_world_tool: (G, 4, 4).
        widths: (G,) metres between the pads, closed.
        points: (M, 3) of the object's surface, world frame; some 2000 of them are looked at.
        gripper: its pads.
    """
    few = points[:: max(1, len(points) // 2000)]
    half = 0.5 * widths[:, None] + 0.002
    middle = pad_middle(gripper, widths)
    out = np.empty(len(X_world_tool))
    for start in range(0, len(out), 64):  # in pieces that stay in the cache
        rows = slice(start, start + 64)
        R = X_world_tool[rows, :3, :3]
        offset = np.einsum("gij,gi->gj", R, X_world_tool[rows, :3, 3])
        local = np.swapaxes(R, 1, 2) @ few.T - offset[:, :, None]  # (g, 3, M)
        between = (np.abs(local[:, 0]) < 0.5 * gripper.pad_size[0]) & (
            np.abs(local[:, 1]) < half[rows]
        )
        out[rows] = middle[rows] - np.where(between, local[:, 2], middle[rows, None]).min(-1)
    return out
