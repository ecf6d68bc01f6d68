"""Requirements on a mesh before anything is computed with it."""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


class NoFacesError(ValueError):
    """A mesh has no face."""


def require_surface(field: str, mesh: trimesh.Trimesh) -> None:
    """Refuse a mesh without faces, finite vertices or an extent.

    Raises:
        ValueError: one line that names `field`.
    """
    if len(mesh.faces) == 0:
        raise NoFacesError(f"{field}: has no faces; if it is a point cloud, use load_points")
    checks.array(
        f"{field}: vertices",
        mesh.vertices,
        ("V", 3),
        hint="export it again, or delete the broken vertices",
    )
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError(
            f"{field}: faces: name vertex {int(mesh.faces.max())} of {len(mesh.vertices)}; "
            "the file is damaged"
        )
    require_reach(f"{field}: vertices", mesh.vertices)
    if np.count_nonzero(mesh.extents > 1e-9 * mesh.extents.max()) < 2:
        raise NoFacesError(
            f"{field}: vertices: all lie in one point or on one line, so no face has an area; "
            "export it again"
        )


def require_reach(field: str, points: FloatArray) -> None:
    """Refuse coordinates that single precision cannot tell apart.

    Raises:
        ValueError: one line that names `field`.
    """
    reach = float(np.abs(points).max())
    if reach > 1e6:
        raise ValueError(
            f"{field}: reach out to {reach:.3g}, expected at most 1e6; "
            "move them to the origin, or the file is damaged"
        )
