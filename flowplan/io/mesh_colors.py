"""Colors of meshes in files and pictures, RGB or RGBA in 0..255."""

from __future__ import annotations

from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

PALETTE: tuple[tuple[int, int, int], ...] = (
    (76, 120, 168),
    (242, 142, 43),
    (89, 161, 79),
    (225, 87, 89),
    (118, 183, 178),
    (175, 122, 161),
    (237, 201, 72),
)
"""Colors, in turn, of objects without colors of their own (Tableau)."""

OBSTACLE = (150, 150, 150)
"""Color of obstacles without colors of their own."""


def vertex_colors(mesh: trimesh.Trimesh) -> NDArray[np.uint8] | None:
    """RGBA colors (V, 4) of a mesh: its own, or its texture's at every vertex; None without any."""
    visual: Any = mesh.visual
    if visual is None or not visual.defined:
        return None
    if visual.kind == "texture":
        if visual.uv is None or len(visual.uv) != len(mesh.vertices):
            return None
        visual = visual.to_color()
    # One color for all vertices, or one each.
    colors = np.asarray(visual.vertex_colors, np.uint8)
    return np.array(np.broadcast_to(colors, (len(mesh.vertices), 4)))
