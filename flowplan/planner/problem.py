"""Shared inputs of all attempts of one plan; distance fields and validator worlds by phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.phase_geometry import PhaseGeometry, mesh_in_frame
from flowplan.geometry import inverse
from flowplan.grasp import ContactCandidates
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.optimizers import Optimizer
from flowplan.planner.options import GeometryOptions, PlanOptions
from flowplan.planner.records import Ending
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.utils.checks import FloatArray
from flowplan.validation.phase_world import Mover

_LARGE = 1.5
"""Meters; a mesh with a longer side is large, such as a wall or a floor."""
_BEYOND = 0.6
"""Meters beyond base and objects to which the distance fields follow large meshes."""


@dataclass(frozen=True, eq=False)
class Fields:
    """Distance to the obstacles before, during and after the motion."""

    before: DistanceField
    during: DistanceField
    after: DistanceField


@dataclass(frozen=True, eq=False)
class Problem:
    """Inputs that all attempts of one plan share.

    Attributes:
        scene: the world at t = 0.
        motion: desired motion of the objects.
        flow: tracks to follow.
        robot: the arm.
        start: (J,) configuration at the start.
        target: index of the object to touch.
        around: obstacles by phase.
        fields: distances to them.
        options: all options.
        optimizer: trajectory optimizer.
        seed: Random seed.
        ending: what happens to the object at the end.
        movers: all other objects that move.
    """

    scene: Scene
    motion: SceneMotion
    flow: ObjectFlow
    robot: Robot
    start: FloatArray
    target: int
    around: PhaseGeometry
    fields: Fields
    options: PlanOptions
    optimizer: Optimizer
    seed: int
    ending: Ending
    movers: tuple[Mover, ...]


def distance_fields(around: PhaseGeometry, robot: Robot, options: GeometryOptions) -> Fields:
    """Distance fields of all phases over one region: the robot's base and all objects, padded.

    Of a mesh larger than a room's furniture, the region contains only what is near all others, and
    nothing that is out of the arm's reach.
    """
    # One region for all phases; slack below a deformable object, which touches its support.
    base, reach = robot.X_world_base[:3, 3], _reach(robot)
    bounds = [mesh.bounds for _, mesh in (*around.before, *around.after)]
    large = [np.ptp(b, axis=0).max() > _LARGE for b in bounds]
    corners = np.concatenate(
        [base[None], *[b for b, is_large in zip(bounds, large, strict=True) if not is_large]]
    )
    corners = np.clip(corners, base - reach, base + reach)
    low, high = corners.min(axis=0) - _BEYOND, corners.max(axis=0) + _BEYOND
    clipped = [np.clip(b, low, high) for b, is_large in zip(bounds, large, strict=True) if is_large]
    corners = np.concatenate([corners, *clipped])
    support = around.support_height
    if support is not None and around.deformable:
        support -= options.pinch_slack

    def field(meshes: list[trimesh.Trimesh], others: DistanceField | None = None) -> DistanceField:
        return distance_field(
            meshes,
            lower=corners.min(axis=0) - options.padding,
            upper=corners.max(axis=0) + options.padding,
            voxel=options.voxel,
            support_height=support,
            others=others,
        )

    # Whatever stands still in all phases is sampled once.
    phases = [[mesh for _, mesh in named] for named in (around.before, around.during, around.after)]
    everywhere = set.intersection(*({id(mesh) for mesh in meshes} for meshes in phases))
    still = field([mesh for mesh in phases[0] if id(mesh) in everywhere])
    before, during, after = (
        field([mesh for mesh in meshes if id(mesh) not in everywhere], still) for meshes in phases
    )
    return Fields(before, during, after)


def _reach(robot: Robot) -> float:
    """Upper bound in meters of the distance of the arm's last link and gripper from its base."""
    total = float(robot.gripper.max_width)
    for joint in robot.joints:
        total += float(np.linalg.norm(joint.X_parent_joint[:3, 3]))
        if joint.kind == "prismatic":
            total += max(abs(joint.lower), abs(joint.upper))
    return total


def held_mesh(
    problem: Problem, contact: ContactCandidates, X_world_tool: FloatArray | None = None
) -> trimesh.Trimesh | None:
    """The rigid part that a grasp carries, tool frame; None for pushes and pinches.

    Args:
        problem: Scene and motion.
        contact: The contact (one candidate).
        X_world_tool: (4, 4) tool pose where the fingers close. Defaults to the contact's.
    """
    if problem.around.moving is None or contact.kind[0] != "grasp":
        return None
    X = contact.X_world_tool[0] if X_world_tool is None else X_world_tool
    return mesh_in_frame(problem.around.moving, inverse(X))
