"""Overlaps that a motion itself demands: with the support, obstacles and other objects.

The rigid parts of all objects that move are swept along their ways as the validator sweeps what a
robot carries (flowplan.validation), with the same allowances: contact that the start or the end has
is allowed there, to its own depth and a tolerance. Of a deformable object the vertices are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.collision.phase_geometry import SUPPORT, mesh_of_faces
from flowplan.geometry import pose
from flowplan.motion import SceneMotion
from flowplan.motion_quality.grouping import RigidParts
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray
from flowplan.validation.collision_geometry import Body, mesh_body
from flowplan.validation.contact_allowance import most_allowed, stretches
from flowplan.validation.continuous_collision import (
    BodyPath,
    JointPath,
    MovingBodies,
    Pairs,
    Sweep,
    Violation,
)
from flowplan.validation.options import ValidationOptions

_AT_REST = 1e-4
"""Meters that a part that moves leaves its place by."""
_SLAB = 0.2
"""Meters; thickness of the support."""


@dataclass(frozen=True)
class Penetration:
    """Deepest overlap of an object beyond what is allowed.

    Attributes:
        depth: Meters; 0 if there is none.
        allowed: Meters that are allowed then.
        time: Seconds.
        other: Name of what it overlaps.
    """

    depth: float = 0.0
    allowed: float = 0.0
    time: float = 0.0
    other: str = ""


@dataclass(frozen=True, eq=False)
class _Part:
    """A rigid body of an object: its index, its mesh at t = 0, and its motion since (T, 4, 4)."""

    owner: int
    mesh: trimesh.Trimesh
    X_world: FloatArray


class _NoJoints:
    """The joints of a world without a robot."""

    supports = np.zeros((1, 1), bool)
    axis = np.zeros((1, 3))
    revolute = np.zeros(1, bool)
    length = np.zeros(1)

    def joint_poses(self, positions: FloatArray) -> FloatArray:
        """Identity (m, 1, 4, 4)."""
        return np.tile(np.eye(4), (len(positions), 1, 1, 1))


def penetrations(
    scene: Scene,
    motion: SceneMotion,
    parts: Sequence[RigidParts | None],
    options: ValidationOptions,
) -> list[Penetration]:
    """For each object, the deepest overlap beyond what is allowed.

    Args:
        scene: Objects, obstacles and support.
        motion: Motion of the objects, rigid up to the residuals of their parts.
        parts: Rigid parts of each object; None for a deformable one.
        options: Allowances.
    """
    found = [Penetration() for _ in scene.objects]
    movers, fixed = _bodies(scene, motion, parts)
    for owner, violation in _violations(movers, fixed, scene, motion, options):
        time = float(np.interp(violation.x, np.arange(len(motion.times)), motion.times))
        depth, allowed = max(-violation.distance, 0.0), max(-violation.threshold, 0.0)
        if depth > found[owner].depth:
            found[owner] = Penetration(depth, allowed, time, violation.names[1])
    if scene.support_height is not None:
        for index, vertices in enumerate(motion.vertices):
            if parts[index] is None:
                found[index] = _soft(vertices, motion.times, scene.support_height, options)
    return found


def _bodies(
    scene: Scene, motion: SceneMotion, parts: Sequence[RigidParts | None]
) -> tuple[list[_Part], list[tuple[int, str, trimesh.Trimesh]]]:
    """Parts that move, and what stands still: owner (-1 for obstacles), name and mesh."""
    movers: list[_Part] = []
    fixed = [(-1, o.name, o.mesh_world) for o in scene.obstacles]
    for owner, (obj, vertices, found) in enumerate(
        zip(scene.objects, motion.vertices, parts, strict=True)
    ):
        if found is None:
            continue
        faces, start = np.asarray(obj.mesh.faces), vertices[0]
        label = found.label[faces]  # (F, 3)
        for index, X in enumerate(found.X_world):
            # Faces across two parts stretch and belong to neither.
            own = faces[(label == index).all(axis=1)]
            if not len(own):
                continue
            mesh = mesh_of_faces(start, own)
            moved = mesh.vertices @ np.swapaxes(X[:, :3, :3], -1, -2) + X[:, None, :3, 3]
            if np.linalg.norm(moved - mesh.vertices, axis=-1).max() > _AT_REST:
                movers.append(_Part(owner, mesh, X))
            else:
                fixed.append((owner, obj.name, mesh))
    return movers, fixed


def _violations(
    movers: Sequence[_Part],
    fixed: list[tuple[int, str, trimesh.Trimesh]],
    scene: Scene,
    motion: SceneMotion,
    options: ValidationOptions,
) -> list[tuple[int, Violation]]:
    """Overlaps of all moving parts beyond what is allowed, with the objects that they are of."""
    if not movers:
        return []
    owners = [part.owner for part in movers] + [owner for owner, _, _ in fixed]
    standing = [(name, mesh_body(mesh)) for _, name, mesh in fixed]
    if scene.support_height is not None:
        standing.append((SUPPORT, _slab(scene.support_height, movers)))
        owners.append(-1)

    # Every part about its own center.
    centers = [pose(translation=part.mesh.bounds.mean(axis=0)) for part in movers]
    bodies = tuple(
        mesh_body(_shifted(part.mesh, -X[:3, 3])) for part, X in zip(movers, centers, strict=True)
    )
    paths = tuple(
        BodyPath(part.X_world @ X, body)
        for part, X, body in zip(movers, centers, bodies, strict=True)
    )
    count, last = len(movers), len(motion.times) - 1
    moving = MovingBodies(
        tuple(scene.objects[part.owner].name for part in movers),
        bodies,
        np.zeros(count, int),
        np.tile(np.eye(4), (count, 1, 1)),
    )
    rest = JointPath(np.zeros((last + 1, 1)), np.zeros((last + 1, 1)))

    def sweep(pairs: Pairs) -> Sweep:
        return Sweep(_NoJoints(), rest, moving, tuple(standing), pairs, options.resolution, paths)

    found: list[tuple[int, Violation]] = []
    for a, part in enumerate(movers):
        others = [
            b for b, owner in enumerate(owners) if owner != part.owner and (b > a or b >= count)
        ]
        if not others:
            continue
        b = np.array(others)
        everything = (*bodies, *(body for _, body in standing))
        one, no = np.full(len(b), a), np.zeros(len(b), bool)
        pairs = Pairs(one, b, np.zeros(len(b)), no)
        span, index = (0.0, float(last)), np.arange(len(b))
        ends = [sweep(pairs).distances(x, index, options.contact_distance) for x in span]
        most = np.array([most_allowed(bodies[a], everything[i], options) for i in b])
        poses = paths[a].poses(np.arange(last + 1.0))
        for stretch in stretches(ends[0], ends[1], most, poses, bodies[a], span, options):
            swept = sweep(Pairs(one, b, -stretch.allowed, no))
            swept.run(stretch.start, stretch.end, options.spacing)
            found += [(part.owner, violation) for violation in swept.violations.values()]
    return found


def _soft(
    vertices: FloatArray, times: FloatArray, support_height: float, options: ValidationOptions
) -> Penetration:
    """Depth of a deformable object (T, V, 3) below the support, beyond that of its start."""
    depth = support_height - vertices[..., 2].min(axis=1)  # (T,)
    allowed = min(max(depth[0], 0.0) + options.contact_tolerance, options.held_depth)
    worst = int(np.argmax(depth))
    if depth[worst] <= allowed:
        return Penetration()
    return Penetration(float(depth[worst]), float(allowed), float(times[worst]), SUPPORT)


def _slab(support_height: float, movers: Sequence[_Part]) -> Body:
    """The support under the ways of all parts."""
    ends = np.concatenate(
        [
            part.mesh.vertices @ np.swapaxes(part.X_world[:, :3, :3], -1, -2)
            + part.X_world[:, None, :3, 3]
            for part in movers
        ],
        axis=1,
    ).reshape(-1, 3)
    low, high = ends.min(axis=0) - 1.0, ends.max(axis=0) + 1.0
    center = [*0.5 * (low + high)[:2], support_height - 0.5 * _SLAB]
    slab = trimesh.creation.box([*(high - low)[:2], _SLAB])
    return mesh_body(slab.apply_translation(center))


def _shifted(mesh: trimesh.Trimesh, by: FloatArray) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices + by, mesh.faces, process=False)
