"""A motion of a scene projected onto rigid parts and joints.

The meshes are cut along the borders of their parts, each part moves exactly along its joint, and an
object that the motion puts down touches the support. The result is a motion of the cut scene, which
has no webs between door and frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowplan.articulation.cutting import Cut, cut
from flowplan.articulation.estimation import Estimate, estimate_object
from flowplan.articulation.joints import Track, amounts
from flowplan.articulation.options import ArticulationOptions
from flowplan.geometry import inverse, transform
from flowplan.motion import SceneMotion
from flowplan.parts import PartJoint
from flowplan.scene import Action, Scene, SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_SETTLED = 0.02
"""Meters above or below the support from which an object is put onto it."""
_OWN_END = 0.2
"""Share of a joint's largest amount that its last one is at least, if the end is to be scaled."""


@dataclass(frozen=True, eq=False)
class ObjectProjection:
    """Report on one object.

    Attributes:
        name: the object's.
        estimate: its parts and joints; None for an object that stands still or may bend.
        projected: meters that a vertex was moved at most from the generator's motion.
        reason: why the motion was left as it is; empty if it was projected.
    """

    name: str
    estimate: Estimate | None
    projected: float
    reason: str = ""

    @property
    def projected_mm(self) -> float:
        """Millimeters that a vertex was moved at most from the generator's motion."""
        return 1e3 * self.projected


@dataclass(frozen=True, eq=False)
class Articulated:
    """A scene cut into parts, and their motion.

    Attributes:
        scene: the scene; objects that were projected are cut and have an articulation.
        motion: a motion of that scene.
        objects: a report for each object.
    """

    scene: Scene
    motion: SceneMotion
    objects: tuple[ObjectProjection, ...]


def articulate(
    scene: Scene,
    motion: SceneMotion,
    options: ArticulationOptions | None = None,
    *,
    action: Action | None = None,
    deformable: Sequence[bool] | None = None,
) -> Articulated:
    """Cut the objects of a scene into their rigid parts, and move these along their joints.

    Args:
        scene: the scene at t = 0.
        motion: any motion of it.
        options: see ArticulationOptions.
        action: handles with targets, which set how far the part that they are on moves. Defaults
            to as far as the motion goes.
        deformable: for each object, True if it may bend: it keeps its motion. Defaults to what
            the scene says; what rigid parts do not explain is left alone as well.

    Raises:
        ValueError: if the motion does not fit the scene.
    """
    counts = [len(o.mesh.vertices) for o in scene.objects]
    if [v.shape[1] for v in motion.vertices] != counts:
        raise ValueError(
            f"motion.vertices: expected {counts} vertices, as the scene's objects have, got "
            f"{[v.shape[1] for v in motion.vertices]}; give the scene that the motion was made of"
        )
    if deformable is None:
        deformable = [bool(o.deformable) for o in scene.objects]
    objects, vertices, reports = [], [], []
    for index, moving in enumerate(motion.moving()):
        obj, reason = scene.objects[index], ""
        found = None
        if not moving.any():
            reason = "stands still"
        elif deformable[index]:
            reason = "is deformable"
        else:
            found = estimate_object(scene, motion, index, options)
            if found.deformable:
                reason = f"bends: rigid parts leave {100 * found.share:.0f} % of its way over"
        if found is None or reason:
            objects.append(obj)
            vertices.append(motion.vertices[index])
            reports.append(ObjectProjection(obj.name, found, 0.0, reason))
            continue
        told = action if action is not None and action.object == obj.name else None
        made, moved, apart = _projected(scene, motion.vertices[index], obj, found, told)
        objects.append(made)
        vertices.append(moved)
        reports.append(ObjectProjection(obj.name, found, apart))
    return Articulated(
        replace(scene, objects=tuple(objects)),
        SceneMotion(motion.times, tuple(vertices)),
        tuple(reports),
    )


def _projected(
    scene: Scene, vertices: FloatArray, obj: SceneObject, found: Estimate, action: Action | None
) -> tuple[SceneObject, FloatArray, float]:
    """The object cut into parts, its motion (T, V', 3), and how far a vertex was moved, meters."""
    pieces = cut(obj.mesh, found.articulation.part)
    amount = dict(found.amount)
    if action is not None and action.targets is not None:
        amount |= _told(obj, found, action)
    X_object = _part_motions(found, amount)  # (P, T, 4, 4)
    X = obj.X_world_object @ X_object @ inverse(obj.X_world_object)
    start = transform(obj.X_world_object, pieces.mesh.vertices)
    moved = np.stack([_place(X[:, t], pieces, start) for t in range(X.shape[1])])
    if scene.support_height is not None and not _stands(X[0]):
        moved = _settled(moved, scene.support_height)
    known = pieces.source >= 0
    apart = np.linalg.norm(moved[:, known] - vertices[:, pieces.source[known]], axis=-1)
    articulation = replace(found.articulation, part=pieces.part)
    cut_obj = replace(obj, mesh=pieces.mesh, articulation=articulation)
    return cut_obj, moved, float(apart.max())


def _part_motions(found: Estimate, amount: dict[str, FloatArray]) -> FloatArray:
    """Motion (P, T, 4, 4) of every part along its joint, object frame."""
    X = np.array(found.X_object)
    for joint in found.articulation.joints:
        if joint.kind != "free":
            X[joint.child] = X[joint.parent] @ joint.displacement(amount[joint.name])
    return X


def _place(X: FloatArray, pieces: Cut, start: FloatArray) -> FloatArray:
    """Vertices (V', 3) moved with their parts by X (P, 4, 4)."""
    R, t = X[pieces.owner, :3, :3], X[pieces.owner, :3, 3]
    out: FloatArray = np.einsum("vij,vj->vi", R, start) + t
    return out


def _stands(X: FloatArray) -> bool:
    """True if a motion (T, 4, 4) is none."""
    return bool(np.abs(X - np.eye(4)).max() < 1e-12)


def _settled(moved: FloatArray, support_height: float) -> FloatArray:
    """The motion (T, V, 3) that ends on the support, if it nearly does."""
    gap = float(moved[-1, :, 2].min()) - support_height
    if not abs(gap) <= _SETTLED:
        return moved
    # The correction grows with the way that is done.
    way = np.linalg.norm(moved - moved[0], axis=-1).mean(axis=1)  # (T,)
    share = np.minimum(way / max(float(way[-1]), 1e-12), 1.0)
    out = moved.copy()
    out[..., 2] -= gap * share[:, None]
    return out


def _told(obj: SceneObject, found: Estimate, action: Action) -> dict[str, FloatArray]:
    """Amounts (T,) of the joint of the part that the handles are on, scaled to reach the targets.

    Empty if the handles are on the root, or on a part that moves freely.
    """
    checks.array("Action.targets", action.targets, action.handles.shape)
    X_object_world = inverse(obj.X_world_object)
    handles = transform(X_object_world, action.handles)
    targets = transform(X_object_world, np.asarray(action.targets))
    part = _part_at(obj, found, handles)
    joint = next((j for j in found.articulation.joints if j.child == part), None)
    if joint is None or joint.kind == "free":
        return {}
    end = _amount_to(joint, handles, transform(inverse(found.X_object[joint.parent, -1]), targets))
    own = found.amount[joint.name]
    largest = float(np.abs(own).max())
    if abs(own[-1]) >= _OWN_END * largest > 0:
        return {joint.name: own * (end / own[-1])}
    # The motion returns: its end says nothing about its size.
    return {}


def _part_at(obj: SceneObject, found: Estimate, handles: FloatArray) -> int:
    """The part that most handles (H, 3) are on, object frame."""
    from scipy.spatial import cKDTree

    face = cKDTree(obj.mesh.triangles_center).query(handles)[1]
    return int(np.bincount(found.articulation.part[face]).argmax())


def _amount_to(joint: PartJoint, handles: FloatArray, targets: FloatArray) -> float:
    """The amount that takes handles (H, 3) nearest to targets (H, 3), as the parent sees them."""
    track = Track(handles, np.stack([handles, targets]), np.ones(len(handles)))
    return float(amounts(joint, track)[-1])
