"""Shared inputs of all attempts of one plan; distance fields and validator worlds by phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.phase_geometry import SUPPORT, NamedMeshes, PhaseGeometry, mesh_in_frame
from flowplan.geometry import inverse
from flowplan.grasp import ContactCandidates
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.optimizers import Optimizer
from flowplan.planner.options import GeometryOptions, PlanOptions
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.trajectory import Phase
from flowplan.utils.checks import FloatArray
from flowplan.validation.validator import HELD, PhaseWorld


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


def distance_fields(around: PhaseGeometry, robot: Robot, options: GeometryOptions) -> Fields:
    """Distance fields of all phases over one region: the robot's base and all objects, padded."""
    # One region for all phases; slack below a deformable object, which touches its support.
    base = robot.X_world_base[:3, 3]
    meshes = [mesh for _, mesh in (*around.before, *around.after)]
    corners = np.concatenate([base[None], *[mesh.bounds for mesh in meshes]])
    support = around.support_height
    if support is not None and around.deformable:
        support -= options.pinch_slack

    def field(named: NamedMeshes) -> DistanceField:
        return distance_field(
            [mesh for _, mesh in named],
            lower=corners.min(axis=0) - options.padding,
            upper=corners.max(axis=0) + options.padding,
            voxel=options.voxel,
            support_height=support,
        )

    return Fields(field(around.before), field(around.during), field(around.after))


def held_mesh(problem: Problem, contact: ContactCandidates) -> trimesh.Trimesh | None:
    """The rigid part that a grasp carries, tool frame; None for pushes and pinches."""
    if problem.around.moving is None or contact.kind[0] != "grasp":
        return None
    return mesh_in_frame(problem.around.moving, inverse(contact.X_world_tool[0]))


def phase_worlds(problem: Problem, contact: ContactCandidates) -> dict[int, PhaseWorld]:
    """Obstacles, held object and intended contacts of each phase, for the validator."""
    robot, around = problem.robot, problem.around
    name = problem.scene.objects[problem.target].name
    support = around.support()
    # The base stands on the support, and the fingers touch the target.
    touch = {(robot.base_link, SUPPORT)} | {(link, name) for link in robot.gripper.finger_links}
    before = PhaseWorld((*around.before, *support), None, frozenset(touch))
    after = PhaseWorld((*around.after, *support), None, frozenset(touch))
    held = held_mesh(problem, contact)
    if held is not None:
        touch |= {(HELD, other) for other in _contacts_in_flow(problem)}
    during = PhaseWorld((*around.during, *support), held, frozenset(touch))
    return {
        Phase.APPROACH: before,
        Phase.GRIP: during,
        Phase.MANIPULATE: during,
        Phase.RELEASE: during,
        Phase.RETREAT: after,
    }


def _contacts_in_flow(problem: Problem) -> list[str]:
    """Names of the obstacles that the moving part touches at the ends of the flow itself: its
    hinge, its support.

    The robot does not cause these contacts, and the generator is responsible for their physics.
    """
    around, distance = problem.around, problem.options.geometry.contact_distance
    vertices = problem.motion.vertices[problem.target]
    moving = problem.motion.moving()[problem.target]
    ends = np.concatenate([vertices[0, moving], vertices[-1, moving]])  # (2 V', 3)
    touched = [name for name, mesh in around.during if _is_near(mesh, ends, distance)]
    if around.support_height is not None and ends[:, 2].min() < around.support_height + distance:
        touched.append(SUPPORT)
    return touched


def _is_near(mesh: trimesh.Trimesh, points: FloatArray, distance: float) -> bool:
    """True if a point (P, 3) is near a mesh, measured to its vertices and face centers."""
    marks = np.concatenate([mesh.vertices, mesh.triangles_center])  # (V + F, 3)
    spacing = float(np.sqrt(mesh.area_faces.max()))
    return bool(cKDTree(marks).query(points)[0].min() < distance + spacing)
