"""What the robot must not touch: before it makes contact, while the flow is followed, and after it has let go.

A motion tells which faces of the touched object move. Those that do not are obstacles throughout; those that do are
obstacles where they start (approach) and where they end (retreat), and in between they go with the tool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.geometry import transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene

SUPPORT = "support"
SHEET_THICKNESS = 0.015
"""An object no higher than this above its support is a sheet: fingers slide over and under it, so nothing avoids it."""

Named = tuple[tuple[str, trimesh.Trimesh], ...]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """World meshes by phase, world frame, metres; the support plane is kept apart as a height.

    Attributes:
        before: everything at t = 0, the target included.
        during: what stays where it is while the target moves, the target's own unmoving faces included.
        after: everything at the end of the motion.
        moving: the target's moving faces at t = 0, or None when it is a sheet (no rigid body goes with the tool).
        support_height: z of the support plane, or None.
    """

    before: Named
    during: Named
    after: Named
    moving: trimesh.Trimesh | None
    support_height: float | None

    def support(self) -> Named:
        """The support as a slab under the robot's reach, for checkers that want meshes."""
        if self.support_height is None:
            return ()
        slab = trimesh.creation.box([4.0, 4.0, 0.2])
        slab.apply_translation([0.0, 0.0, self.support_height - 0.1])
        return ((SUPPORT, slab),)


def surroundings(scene: Scene, motion: SceneMotion, target: int) -> Surroundings:
    """Sort the scene's geometry by when it is in the way of touching object `target`.

    Another object that moves too (a lid that falls when a box is lifted) is in the way at its start, in its middle and
    at its end, all three at once: wider than need be, never narrower.
    """
    obstacles = tuple((o.name, o.mesh_world) for o in scene.obstacles)
    before, during, after = list(obstacles), list(obstacles), list(obstacles)
    moving_part = None
    for index, (obj, vertices, moves) in enumerate(
        zip(scene.objects, motion.vertices, motion.moving(), strict=True)
    ):
        faces = obj.mesh.faces
        start, end = _mesh(vertices[0], faces), _mesh(vertices[-1], faces)
        if index != target:
            before.append((obj.name, start))
            after.append((obj.name, end))
            during.append((obj.name, start))
            if moves.any():
                during.append(
                    (f"{obj.name} in the middle", _mesh(vertices[len(vertices) // 2], faces))
                )
                during.append((f"{obj.name} at the end", end))
            continue
        if is_sheet(vertices[0], scene.support_height):
            continue
        before.append((obj.name, start))
        after.append((obj.name, end))
        moving_face = moves[faces].any(axis=1)
        if not moving_face.all():
            during.append((obj.name, _mesh(vertices[0], faces[~moving_face])))
        if moving_face.any():
            moving_part = _mesh(vertices[0], faces[moving_face])
    return Surroundings(
        tuple(before), tuple(during), tuple(after), moving_part, scene.support_height
    )


def is_sheet(vertices: NDArray[np.float64], support_height: float | None) -> bool:
    """Does an object of these vertices (V, 3) lie flat on its support?"""
    return (
        support_height is not None
        and float(vertices[:, 2].max()) - support_height < SHEET_THICKNESS
    )


def in_frame(mesh: trimesh.Trimesh, X_frame_world: NDArray[np.float64]) -> trimesh.Trimesh:
    """A world mesh, its vertices expressed in another frame."""
    return trimesh.Trimesh(transform(X_frame_world, mesh.vertices), mesh.faces, process=False)


def _mesh(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> trimesh.Trimesh:
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    return mesh
