"""What stands beside the planner in every table: random grasps, and a rigid fit per frame followed by inverse kinematics.

`random_grasp` keeps everything but the choice of the grasp: collision-free antipodal grasps of the object, in random
order, without the joint ranking. `kabsch_ik` keeps the choice and drops the optimizer: the pose of each frame is the
rigid fit (Kabsch) of the object's moving points, each is reached by inverse kinematics near the one before, the way
there is a straight line in joint space, and nobody checks any of it. Dream2Flow and NovaFlow plan much like that.
"""

from __future__ import annotations

import numpy as np

from flowplan.collision.phase_geometry import phase_geometry
from flowplan.geometry import fit_rigid
from flowplan.grasp import ContactCandidates
from flowplan.grasp.propose import GraspOptions, propose_grasps
from flowplan.grasp.rank import rank_with_flow
from flowplan.motion import MOTION_THRESHOLD, SceneMotion, sample_flow
from flowplan.paths.compose import compose
from flowplan.paths.time_parameterization import follow
from flowplan.planner import PlanOptions, moved_object, propose_contacts
from flowplan.robot import Robot
from flowplan.scene import Scene
from flowplan.trajectory import Trajectory


def random_grasps(
    scene: Scene, motion: SceneMotion, robot: Robot, *, seed: int
) -> ContactCandidates:
    """Collision-free antipodal grasps anywhere on the object that moves, in random order."""
    obj = scene.objects[moved_object(scene, motion)]
    grasps = propose_grasps(obj, scene, robot.gripper, GraspOptions(), seed=seed)
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
    """The best ranked grasp, carried by the rigid fit of each frame; unchecked. None, and why, where nothing is graspable."""
    options = PlanOptions(contact="grasp")
    target = moved_object(scene, motion)
    contacts = propose_contacts(scene, motion, robot, target, options, seed=seed)
    flow = sample_flow(scene, motion, points_per_object=options.flow_points, seed=seed)
    around = phase_geometry(scene, motion, target)
    ranked, _ = rank_with_flow(contacts, flow, around, robot)
    if not len(ranked):
        return None, "no proposed grasp is within reach" if len(
            contacts
        ) else "no grasp was proposed"
    contact = ranked.select([0])
    points = flow.of_object(target).points
    moving = np.linalg.norm(points - points[0], axis=-1).max(axis=0) > MOTION_THRESHOLD
    X_world_tool = fit_rigid(points[0, moving], points[:, moving]) @ contact.X_world_tool[0]
    q = [robot.inverse_kinematics(X_world_tool[:1], seed=seed)[0][0]]
    for X in X_world_tool[1:]:
        near, ok = robot.inverse_kinematics(X[None], seed=seed, q_near=q[-1])
        q.append(near[0] if ok[0] else q[-1])
    track, zero = np.array(q), np.zeros(len(q))
    line = np.linspace(0.0, 1.0, 50)[:, None]
    into = robot.home + line * (track[0] - robot.home)
    out = track[-1] + line * (robot.home - track[-1])
    along = follow(flow.times, track, robot, options.clock)
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
