"""Contacts with the moving object: pinches if it is deformable, else grasps and pushes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowplan.collision.phase_geometry import is_deformable
from flowplan.grasp import ContactCandidates, merge, propose_grasps, propose_pinches, propose_pushes
from flowplan.motion import MOTION_THRESHOLD, SceneMotion
from flowplan.planner.options import PlanOptions
from flowplan.robot import Robot
from flowplan.scene import Scene


def moved_object(scene: Scene, motion: SceneMotion) -> int:
    """Index of the object whose vertices move farthest.

    Raises:
        ValueError: if nothing moves.
    """
    farthest = [float(np.linalg.norm(v - v[0], axis=-1).max()) for v in motion.vertices]
    if max(farthest) < MOTION_THRESHOLD:
        raise ValueError(
            f"motion.vertices: nothing moves (largest displacement {1e3 * max(farthest):.2f} mm); "
            f"give a motion of more than {1e3 * MOTION_THRESHOLD:g} mm"
        )
    return int(np.argmax(farthest))


def propose_contacts(
    scene: Scene, motion: SceneMotion, robot: Robot, target: int, options: PlanOptions, *, seed: int
) -> ContactCandidates:
    """Pinches of object `target` if it is deformable, else grasps and pushes of its moving part."""
    obj, gripper = scene.objects[target], robot.gripper
    if is_deformable(scene, motion, target):
        return propose_pinches(scene, motion, target, gripper, options.pinch, seed=seed)
    # Only the moving part is grasped, if the object has parts at rest.
    found = []
    if options.contact in ("any", "grasp"):
        moving = motion.moving()[target][obj.mesh.faces].all(axis=1)  # (F,)
        part = None if moving.all() else np.asarray(moving)
        found.append(propose_grasps(obj, scene, gripper, options.grasp, seed=seed, faces=part))
    if options.contact in ("any", "push"):
        found.append(propose_pushes(scene, motion, target, gripper, options.push, seed=seed))
    return merge(found)


def as_pinches(contacts: ContactCandidates) -> ContactCandidates:
    """The same contacts with pinches for grasps: a deformable object is held at one point."""
    kinds = tuple("pinch" if kind == "grasp" else kind for kind in contacts.kind)
    return contacts if kinds == contacts.kind else replace(contacts, kind=kinds)
