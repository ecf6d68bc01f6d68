"""Viser nodes of meshes, points and gripper symbols, and interpolation of what moves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from flowplan.geometry import quat_wxyz_from_matrix, transform
from flowplan.grasp import ContactCandidates
from flowplan.utils.checks import FloatArray

Color = tuple[int, int, int]
"""RGB in 0..255."""

Show = Callable[[float], None]
"""Moves a part of the scene to its state at a time of the robot's clock, seconds."""

_MIN_MOVE = 1e-6
"""Smallest change of a position (m) or quaternion that is sent to the browser."""
_POINT_SIZE = 0.004
"""Diameter of points, meters."""
_TOO_BRIGHT = 180
"""Level of the darkest channel from which a color does not stand out from the floor."""


def add_mesh(
    scene: viser.SceneApi,
    name: str,
    mesh: trimesh.Trimesh,
    color: Color,
    vertex_colors: NDArray[np.uint8] | None = None,
) -> Any:
    """A mesh node in one color, or in the colors (V, 4) of its vertices."""
    if vertex_colors is not None:
        colored = trimesh.Trimesh(
            mesh.vertices, mesh.faces, vertex_colors=vertex_colors, process=False
        )
        return scene.add_mesh_trimesh(name, colored)
    return scene.add_mesh_simple(
        name,
        np.asarray(mesh.vertices),
        np.asarray(mesh.faces),
        color=color,
        flat_shading=True,
        side="double",
    )


def add_points(scene: viser.SceneApi, name: str, points: FloatArray, color: Color) -> Any:
    """A node of points (N, 3), meters."""
    return scene.add_point_cloud(
        name, points, color, point_size=_POINT_SIZE, point_shape="circle", precision="float32"
    )


def add_grippers(
    scene: viser.SceneApi,
    name: str,
    contacts: ContactCandidates,
    colors: NDArray[np.uint8],
    thickness: float,
) -> Any:
    """A node of gripper symbols at G contacts, in colors (G, 3), with lines in pixels."""
    pairs = zip(contacts.width, contacts.kind, strict=True)
    # Symbols in the tool frame, placed at the contacts.
    symbols = np.stack([gripper_symbol(width, kind == "push") for width, kind in pairs])
    lines = transform(contacts.X_world_tool[:, None], symbols)  # (G, 4, 2, 3)
    shades = np.broadcast_to(colors[:, None, None].astype(np.uint8), lines.shape)
    return scene.add_line_segments(
        name,
        lines.reshape(-1, 2, 3),
        shades.reshape(-1, 2, 3),
        thickness=thickness,
        thickness_units="screen",
    )


def gripper_symbol(width: float, push: bool) -> FloatArray:
    """Lines (4, 2, 3) of a gripper in its tool frame, meters: fingers, palm and stem.

    The fingers are closed for a push.
    """
    # Half the drawn opening, and z of fingertips, palm and wrist.
    half = 0.008 if push else max(width, 0.01) / 2
    tips, palm, wrist = 0.0, -0.045, -0.09
    return np.array(
        [
            [[0, half, palm], [0, half, tips]],
            [[0, -half, palm], [0, -half, tips]],
            [[0, half, palm], [0, -half, palm]],
            [[0, 0, palm], [0, 0, wrist]],
        ]
    )


def place(node: Any, X_world_node: FloatArray) -> None:
    """Move a node to a pose; nothing is sent if it is there already."""
    position, wxyz = X_world_node[:3, 3], quat_wxyz_from_matrix(X_world_node[:3, :3])
    if np.abs(position - node.position).max() > _MIN_MOVE:
        node.position = position
    if np.abs(wxyz - node.wxyz).max() > _MIN_MOVE:
        node.wxyz = wxyz


def frame_at(times: FloatArray, t: float) -> tuple[int, float]:
    """Index of the frame before time t (never the last), and the fraction towards the next."""
    before = np.searchsorted(times, t, side="right") - 1
    k = int(np.clip(before, 0, len(times) - 2))
    fraction = (t - times[k]) / (times[k + 1] - times[k])
    return k, float(np.clip(fraction, 0, 1))


def value_at(times: FloatArray, values: FloatArray, t: float) -> FloatArray:
    """Values (T, ...) interpolated linearly at time t."""
    k, fraction = frame_at(times, t)
    return values[k] + fraction * (values[k + 1] - values[k])


def evenly(count: int, most: float) -> NDArray[np.int64]:
    """Indices of up to `most` of `count` items, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, count - 1, int(most)).astype(int))


def color_ramp(colors: tuple[Color, ...], fraction: FloatArray) -> NDArray[np.uint8]:
    """Colors (..., 3) at fractions (...) of the way through `colors`."""
    # Each channel by itself.
    at = np.linspace(0, 1, len(colors))
    channels = [np.interp(fraction, at, channel) for channel in np.array(colors).T]
    return np.stack(channels, axis=-1).astype(np.uint8)


def mean_color(vertex_colors: NDArray[np.uint8], otherwise: Color) -> Color:
    """Mean of the colors (V, 4) of a mesh, or `otherwise` if it is as bright as the floor."""
    r, g, b = (int(c) for c in vertex_colors[:, :3].mean(0))
    return (r, g, b) if min(r, g, b) < _TOO_BRIGHT else otherwise
