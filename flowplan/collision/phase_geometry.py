"""Obstacles of the robot before contact, while it moves the object, and after release.

The motion determines which faces of the touched object move. Static faces are obstacles throughout.
Moving faces are obstacles at their start (approach) and at their end (retreat); in between they
move with the tool. A deformable target is no obstacle: fingers slide over and under it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import fit_rigid, transform
from flowplan.motion import MOTION_THRESHOLD, SceneMotion
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh

SUPPORT = "support"
"""Name of the support plane among the obstacles."""
VOXEL = 0.01
"""Default edge length in meters of the voxels of distance fields."""
FLAT_HEIGHT = 0.015
"""Height in meters above the support below which an object lies flat."""
SHEET_THICKNESS = 0.004
"""Mean thickness in meters below which a mesh is a sheet."""

NamedMeshes: TypeAlias = "tuple[tuple[str, trimesh.Trimesh], ...]"


@dataclass(frozen=True, eq=False)
class PhaseGeometry:
    """Obstacle meshes by phase, world frame, meters; the support plane is stored as a height.

    Attributes:
        before: all objects and obstacles at t = 0, the target included.
        during: geometry that is static while the target moves, the target's own static faces
            included.
        after: all objects and obstacles at the end of the motion.
        static: those of `during` that never move.
        moving: the target's moving faces at t = 0. None if no rigid body moves with the tool: the
            target is deformable, or no face of it moves.
        support_height: z of the support plane, or None.
        support_name: name of the support plane, unlike that of any object or obstacle.
        deformable: True if the target is deformable, so that it is pinched and no obstacle.
    """

    before: NamedMeshes
    during: NamedMeshes
    after: NamedMeshes
    moving: trimesh.Trimesh | None
    support_height: float | None
    deformable: bool = False
    static: NamedMeshes = ()
    support_name: str = SUPPORT

    def support(self) -> NamedMeshes:
        """The support plane as a slab under the robot's reach, for checkers that need meshes."""
        import trimesh

        if self.support_height is None:
            return ()
        slab = trimesh.creation.box([4.0, 4.0, 0.2])
        slab.apply_translation([0.0, 0.0, self.support_height - 0.1])
        return ((self.support_name, slab),)


def phase_geometry(scene: Scene, motion: SceneMotion, target: int) -> PhaseGeometry:
    """Obstacles by phase for contact with object `target`.

    Another object that moves too (a lid that falls when a box is lifted) is present at its start,
    middle and end poses at once while the target moves: conservative, never too small.
    """
    deformable = is_deformable(scene, motion, target)
    obstacles = tuple((o.name, o.mesh_world) for o in scene.obstacles)
    before, during, after = list(obstacles), list(obstacles), list(obstacles)
    static = list(obstacles)
    moving_part = None
    for index, (obj, vertices, moves) in enumerate(
        zip(scene.objects, motion.vertices, motion.moving(), strict=True)
    ):
        faces = obj.mesh.faces
        if index == target and deformable:
            continue
        start = mesh_of_faces(vertices[0], faces)
        end = mesh_of_faces(vertices[-1], faces) if moves.any() else start
        before.append((obj.name, start))
        after.append((obj.name, end))
        if index != target:
            during.append((obj.name, start))
            if not moves.any():
                static.append((obj.name, start))
            else:
                middle = mesh_of_faces(vertices[len(vertices) // 2], faces)
                during.append((f"{obj.name} in the middle", middle))
                during.append((f"{obj.name} at the end", end))
            continue
        moving_face = _moving_faces(moves, faces)  # (F,)
        if not moving_face.all():
            fixed = (obj.name, mesh_of_faces(vertices[0], faces[~moving_face]))
            during.append(fixed)
            static.append(fixed)
        if moving_face.any():
            moving_part = mesh_of_faces(vertices[0], faces[moving_face])
    return PhaseGeometry(
        tuple(before),
        tuple(during),
        tuple(after),
        moving_part,
        scene.support_height,
        deformable,
        static=tuple(static),
        support_name=_unique(SUPPORT, [o.name for o in (*scene.objects, *scene.obstacles)]),
    )


def _moving_faces(moves: NDArray[np.bool_], faces: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask (F,) of the faces all of whose vertices move.

    A face across a joint stretches and belongs to neither side: it stays where it is at t = 0. If
    every face is such, as on a box of twelve triangles, they move.
    """
    corners = moves[faces]  # (F, 3)
    whole = np.asarray(corners.all(axis=1))
    return whole if whole.any() else np.asarray(corners.any(axis=1))


def is_deformable(scene: Scene, motion: SceneMotion, target: int) -> bool:
    """True if object `target` is deformable: as its record says, or else as guessed.

    The guess is cloth if the object lies flat on the support, its mesh is a sheet (a single open
    layer, or closed and thin), and its motion bends it. Phones, rulers and books are rigid by this
    rule: they move as rigid bodies, or are too thick. All contacts of a deformable object are
    pinches.
    """
    obj = scene.objects[target]
    if obj.deformable is not None:
        return obj.deformable
    vertices = motion.vertices[target]
    return (
        _lies_flat(vertices[0], scene.support_height)
        and _mean_thickness(vertices[0], obj.mesh.faces) < SHEET_THICKNESS
        and _bends(vertices)
    )


def _unique(name: str, taken: list[str]) -> str:
    """The name, with a number if others have it."""
    others = (f"{name} ({count})" for count in range(2, len(taken) + 3))
    return next(candidate for candidate in (name, *others) if candidate not in taken)


def mesh_in_frame(mesh: trimesh.Trimesh, X_frame_world: FloatArray) -> trimesh.Trimesh:
    """A world mesh with its vertices expressed in another frame."""
    import trimesh

    return trimesh.Trimesh(transform(X_frame_world, mesh.vertices), mesh.faces, process=False)


def _lies_flat(vertices: FloatArray, support_height: float | None) -> bool:
    """True if no vertex (V, 3) is higher than FLAT_HEIGHT above the support."""
    return support_height is not None and vertices[:, 2].max() - support_height < FLAT_HEIGHT


def _mean_thickness(vertices: FloatArray, faces: NDArray[np.int64]) -> float:
    """Mean thickness 2 V / A in meters of a plate-like mesh; near 0 for one open layer."""
    a, b, c = np.moveaxis((vertices - vertices.mean(axis=0))[faces], 1, 0)  # (F, 3) each
    normal = np.cross(b - a, c - a)
    volume = np.einsum("fi,fi->", a, normal) / 6
    area = np.linalg.norm(normal, axis=1).sum() / 2
    return float(2 * abs(volume) / max(area, 1e-12))


def _bends(vertices: FloatArray) -> bool:
    """True if vertices (T, V, 3) deviate noticeably from their best rigid motion."""
    rigid = transform(fit_rigid(vertices[:1], vertices), vertices[0])  # (T, V, 3)
    return bool(np.linalg.norm(vertices - rigid, axis=-1).max() > MOTION_THRESHOLD)


def mesh_of_faces(vertices: FloatArray, faces: NDArray[np.int64]) -> trimesh.Trimesh:
    """Mesh of some faces, without the vertices that they do not use."""
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    return mesh
