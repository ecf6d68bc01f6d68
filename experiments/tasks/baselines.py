"""Baselines of the planner: random grasps, and rigid fits per frame followed by inverse kinematics.

`random_grasp` replaces only the choice of the grasp: collision-free antipodal grasps of the object
in random order, without joint ranking. `kabsch_ik` keeps the choice of the grasp and drops the
optimizer: the pose of each frame is the rigid fit (Kabsch) of the object's moving points, each pose
is reached by inverse kinematics from the previous configuration, approach and retreat are straight
lines in joint space, and nothing is checked. Dream2Flow and NovaFlow plan in a similar way.
"""

from __future__ import annotations

import numpy as np

from flowplan.collision.phase_geometry import phase_geometry
from flowplan.geometry import fit_rigid
from flowplan.grasp import ContactCandidates, propose_grasps, rank_with_flow
from flowplan.motion import MOTION_THRESHOLD, SceneMotion, sample_flow
from flowplan.paths.compose import compose
from flowplan.paths.time_parameterization import follow
from flowplan.planner import PlanOptions, moved_object, propose_contacts
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.trajectory import Trajectory
from flowplan.utils.checks import FloatArray

_LINE_POINTS = 50
"""Waypoints of approach and retreat."""


def random_grasps(
    scene: Scene, motion: SceneMotion, robot: Robot, *, seed: int
) -> ContactCandidates:
    """Collision-free antipodal grasps anywhere on the object that moves, in random order."""
    obj = scene.objects[moved_object(scene, motion)]
    grasps = propose_grasps(obj, scene, robot.gripper, seed=seed)
    order = np.random.default_rng(seed).permutation(len(grasps))
    return ContactCandidates(
        grasps.X_world_tool[order],
        grasps.width[order],
        np.zeros(len(grasps)),
        tuple(grasps.kind[i] for i in order),
        grasps.object_id[order],
    )


def kabsch_ik(
    scene: Scene, motion: SceneMotion, robot: Robot, *, seed: int
) -> tuple[Trajectory | None, str]:
    """Unchecked trajectory of the best ranked grasp along the rigid fits, or None and a reason."""
    options = PlanOptions(contact="grasp")
    target = moved_object(scene, motion)
    contacts = propose_contacts(scene, motion, robot, target, options, seed=seed)
    flow = sample_flow(scene, motion, points_per_object=options.flow_points, seed=seed)
    around = phase_geometry(scene, motion, target)
    ranked, _ = rank_with_flow(contacts, flow, around, robot)
    if not len(ranked):
        found = "no proposed grasp is within reach" if len(contacts) else "no grasp was proposed"
        return None, found
    contact = ranked.select([0])

    # Rigid motion of the moving points, with the tool attached.
    points = flow.of_object(target).points  # (T, N, 3)
    moving = np.linalg.norm(points - points[0], axis=-1).max(axis=0) > MOTION_THRESHOLD
    X_moved = fit_rigid(points[0, moving], points[:, moving])  # (T, 4, 4)
    track = _inverse_kinematics(robot, X_moved @ contact.X_world_tool[0], seed)

    # Straight lines from home and back.
    line = np.linspace(0.0, 1.0, _LINE_POINTS)[:, None]
    into = robot.home + line * (track[0] - robot.home)
    out = track[-1] + line * (robot.home - track[-1])
    along = follow(flow.times, track, robot, options.clock)
    zero = np.zeros(len(track))
    trajectory = compose(
        robot,
        contact,
        into,
        along,
        out,
        clock=options.clock,
        dwell=options.dwell,
        tracking_error=(zero, zero),
    )
    return trajectory, ""


def _inverse_kinematics(robot: Robot, X_world_tool: FloatArray, seed: int) -> FloatArray:
    """Configurations (T, J) for tool poses (T, 4, 4); unreachable ones repeat the previous."""
    q = [robot.inverse_kinematics(X_world_tool[:1], seed=seed)[0][0]]
    for X in X_world_tool[1:]:
        near, ok = robot.inverse_kinematics(X[None], seed=seed, q_near=q[-1])
        q.append(near[0] if ok[0] else q[-1])
    return np.array(q)
