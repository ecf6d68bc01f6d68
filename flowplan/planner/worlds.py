"""Surroundings of the robot in each phase, as the independent validator takes them.

While the target moves, everything else that moves is swept along its own path: other objects, and
the target itself where it is pushed and not held.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trimesh
from trimesh.intersections import slice_faces_plane

from flowplan.attachment import Attachment
from flowplan.collision.phase_geometry import mesh_in_frame, mesh_of_faces
from flowplan.geometry import exp_so3, fit_rigid, log_so3, pose, transform
from flowplan.grasp import ContactCandidates
from flowplan.motion import SceneMotion
from flowplan.motion_quality import rigid_parts
from flowplan.paths.time_parameterization import TimedPath
from flowplan.planner.problem import Problem, held_mesh
from flowplan.robot.gripper import Gripper
from flowplan.scene import Scene
from flowplan.trajectory import Phase
from flowplan.utils.checks import FloatArray
from flowplan.validation.phase_world import HELD, Mover, PhaseWorld

_MOST_PARTS = 6
"""Rigid parts that stand for another object that moves."""


def phase_worlds(
    problem: Problem, contact: ContactCandidates, attachment: Attachment, along: TimedPath
) -> dict[int, PhaseWorld]:
    """Obstacles, held object, movers and intended contacts of each phase.

    Args:
        problem: Scene, motion and obstacles.
        contact: The contact (one candidate).
        attachment: Its times are those of the waypoints.
        along: The timed manipulation.
    """
    robot, around = problem.robot, problem.around
    name = problem.scene.objects[problem.target].name
    support = around.support()
    # The base stands on the support. Fingers that come and go do not touch the target yet.
    touch = {(robot.base_link, around.support_name)}
    before = PhaseWorld((*around.before, *support), None, frozenset(touch))
    fixed = name in {other for other, _ in around.static}

    # What is held is where it stood when the fingers closed, and stays where they open: the tool
    # is there, and not quite at its pose along the flow. A part is joined to the rest of its own
    # object, which leads it.
    X_first, X_last = robot.tool_pose(along.q[[0, -1]])
    held = held_mesh(problem, contact, X_first)
    left = around.after
    if held is not None and not fixed:
        put = mesh_in_frame(held, X_last)
        left = tuple((other, put if other == name else mesh) for other, mesh in left)
    after = PhaseWorld((*left, *support), None, frozenset(touch))
    if held is not None:
        touch.add((HELD, name))
    movers = list(problem.movers)
    if contact.kind[0] == "push" and around.moving is not None:
        pushed = _pushed(problem, f"{name}, moving part" if fixed else name)
        movers.append(pushed)
        touch |= {(link, pushed.name) for link in robot.gripper.finger_links}
        touch.add((pushed.name, name))
    opening = None if held is None else held_width(held, robot.gripper, float(contact.width[0]))

    # Frame of the motion at each sample of the manipulation.
    seconds = np.interp(along.waypoint, np.arange(len(attachment.times)), attachment.times)
    times = problem.motion.times
    frame = np.interp(seconds, times, np.arange(len(times)))

    def world(frames: FloatArray) -> PhaseWorld:
        moving = tuple(_at(mover, frames) for mover in movers)
        return PhaseWorld((*around.static, *support), held, frozenset(touch), moving, opening)

    return {
        Phase.APPROACH: before,
        Phase.GRIP: world(frame[:1]),
        Phase.MANIPULATE: world(frame),
        Phase.RELEASE: world(frame[-1:]),
        Phase.RETREAT: after,
    }


def held_width(held: trimesh.Trimesh, gripper: Gripper, most: float) -> float:
    """Opening in meters at which fingers stop at a held mesh (tool frame), at most `most`.

    The extent along the closing axis y of what is between the pads.
    """
    x, z = 0.5 * np.asarray(gripper.pad_size, float)
    center = gripper.pad_z(most)
    normals = np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]], float)
    origins = np.array([[-x, 0, 0], [x, 0, 0], [0, 0, center - z], [0, 0, center + z]], float)
    vertices, faces = np.asarray(held.vertices, float), np.asarray(held.faces)
    for normal, origin in zip(normals, origins, strict=True):
        if len(faces):
            vertices, faces, _ = slice_faces_plane(vertices, faces, normal, origin)
    if not len(faces):
        return most
    return float(min(np.ptp(vertices[faces.ravel(), 1]), most))


def other_movers(scene: Scene, motion: SceneMotion, target: int) -> Iterator[Mover]:
    """All objects but the target that move, as rigid parts with their poses at every frame."""
    for index, (obj, moves) in enumerate(zip(scene.objects, motion.moving(), strict=True)):
        if index == target or not moves.any():
            continue
        vertices = motion.vertices[index]
        parts = rigid_parts(vertices, most=_MOST_PARTS)
        owner = parts.label[obj.mesh.faces[:, 0]]  # (F,)
        for part in np.unique(owner):
            mesh = mesh_of_faces(vertices[0], obj.mesh.faces[owner == part])
            name = obj.name if (owner == part).all() else f"{obj.name}, part {part + 1}"
            tolerance = float(parts.residual[parts.label == part].max(initial=0.0))
            yield _centered(name, mesh, parts.X_world[part], tolerance, guarded=False)


def _pushed(problem: Problem, name: str) -> Mover:
    """The moving part of the target, with its poses at every frame."""
    vertices = problem.motion.vertices[problem.target]
    moving = problem.motion.moving()[problem.target]
    X_world = fit_rigid(vertices[0, moving], vertices[:, moving])  # (T, 4, 4)
    left = transform(X_world, vertices[0, moving]) - vertices[:, moving]
    tolerance = float(np.linalg.norm(left, axis=-1).max())
    assert problem.around.moving is not None
    return _centered(name, problem.around.moving, X_world, tolerance, guarded=True)


def _at(mover: Mover, frames: FloatArray) -> Mover:
    """The mover with its poses at fractional frames (S,): turned by slerp, its origin on lines."""
    X = np.asarray(mover.X_world)
    low = np.clip(frames.astype(int), 0, len(X) - 2)
    share = (frames - low)[:, None]
    R, t = X[:, :3, :3], X[:, :3, 3]
    turn = log_so3(np.swapaxes(R[low], -1, -2) @ R[low + 1])  # (S, 3)
    poses = pose(R[low] @ exp_so3(share * turn), (1 - share) * t[low] + share * t[low + 1])
    return Mover(mover.name, mover.mesh, poses, mover.tolerance, mover.guarded)


def _centered(
    name: str, mesh: trimesh.Trimesh, X_world: FloatArray, tolerance: float, *, guarded: bool
) -> Mover:
    """A mover whose own frame is at its center, from a mesh at t = 0 and its motion since."""
    center = mesh.bounds.mean(axis=0)
    own = trimesh.Trimesh(mesh.vertices - center, mesh.faces, process=False)
    return Mover(name, own, X_world @ pose(translation=center), tolerance, guarded)
