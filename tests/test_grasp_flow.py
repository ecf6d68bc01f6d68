"""Pushes, pinches and the ranking with the flow, on motions with known geometry."""

import numpy as np
import pytest
import trimesh
from grasp_fixtures import BoxGripper, scanned

from flowplan.collision.phase_geometry import phase_geometry
from flowplan.geometry import angle_between, exp_so3, inverse, pose, rotation_about, transform
from flowplan.grasp import merge, propose_grasps, propose_pinches, propose_pushes, rank_with_flow
from flowplan.grasp.candidates import best_first
from flowplan.grasp.gripper_clearance import gripper_boxes, lowest_point
from flowplan.grasp.pinch import PinchOptions, pinch_proposal
from flowplan.grasp.push import PushOptions, push_proposal
from flowplan.grasp.rank import RankOptions, patch_motion
from flowplan.motion import SceneMotion, sample_flow
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject

GRIPPER = BoxGripper()
TIMES = np.linspace(0, 2, 21)
HINGE = np.array([-0.125, 0.0, 0.022])


def laptop(facing=0.0, at=(0.55, 0.0), start=100.0, end=5.0):
    """A base and a lid closing about its back edge; `facing` 0 turns the hinge to the robot."""
    base = scanned(trimesh.creation.box([0.25, 0.32, 0.02]), noise=0)
    lid = scanned(trimesh.creation.box([0.25, 0.32, 0.008]), noise=0)
    base.apply_translation([0, 0, 0.01])
    lid.apply_translation([0, 0, 0.026])
    count = len(base.vertices)
    closed = np.concatenate([base.vertices, lid.vertices])
    X = pose(exp_so3([0, 0, facing]), [*at, 0])
    frames = []
    for angle in np.deg2rad(np.linspace(start, end, len(TIMES))):
        moved = closed.copy()
        moved[count:] = transform(rotation_about(HINGE, [0, -1, 0], angle), moved[count:])
        frames.append(transform(X, moved))
    mesh = trimesh.Trimesh(
        transform(inverse(X), frames[0]),
        np.concatenate([base.faces, lid.faces + count]),
        process=False,
    )
    return Scene((SceneObject("laptop", mesh, X),)), SceneMotion(TIMES, (np.array(frames),))


def cloth(at=(0.5, 0.0), size=0.24, n=25):
    """A square folded along its diagonal: the corner at +x +y moves to the opposite one."""
    g = np.linspace(-size / 2, size / 2, n)
    x, y = np.meshgrid(g, g, indexing="ij")
    vertices = np.stack([x.ravel() + at[0], y.ravel() + at[1], np.full(n * n, 0.003)], axis=1)
    i = np.arange(n * n).reshape(n, n)
    quads = np.stack([i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]], axis=-1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    over = vertices[:, 0] - at[0] + vertices[:, 1] - at[1] > 0
    frames = []
    for angle in np.linspace(0, 0.98 * np.pi, len(TIMES)):
        moved = vertices.copy()
        moved[over] = transform(rotation_about([*at, 0.004], [1, -1, 0], angle), moved[over])
        frames.append(moved)
    return Scene(
        (SceneObject("cloth", trimesh.Trimesh(vertices, faces, process=False)),)
    ), SceneMotion(TIMES, (np.array(frames),))


def carried(at=(0.45, 0.15), to=(0.1, -0.3), lift=0.12, turn=0.8):
    """A box, and a motion that lifts, moves and turns it."""
    box = SceneObject("box", trimesh.creation.box([0.05, 0.05, 0.1]), pose(translation=[*at, 0.05]))
    frames = []
    for s in np.linspace(0, 1, len(TIMES)):
        about = rotation_about([*at, 0], [0, 0, 1], turn * s)
        shift = pose(translation=[to[0] * s, to[1] * s, lift * np.sin(np.pi * s)])
        frames.append(transform(shift @ about, box.vertices_world))
    return Scene((box,)), SceneMotion(TIMES, (np.array(frames),))


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


def test_pushes_stand_behind_the_lid_and_lean_on_it():
    scene, motion = laptop()
    pushes = propose_pushes(scene, motion, 0, GRIPPER)
    assert len(pushes) > 30
    assert set(pushes.kind) == {"push"}
    assert np.all(pushes.width == 0)
    # At 100 degrees the lid's outer face points to -x and slightly down.
    outward = transform(rotation_about([0, 0, 0], [0, -1, 0], np.deg2rad(100)), [[0, 0, 1]])[0]
    surface = transform(rotation_about(HINGE, [0, -1, 0], np.deg2rad(100)), [[0.0, 0, 0.03]])[0] + [
        0.55,
        0,
        0,
    ]
    boxes = gripper_boxes(GRIPPER, np.zeros(len(pushes)))
    signs = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).T.reshape(-1, 1, 3)
    corners = np.where(signs, boxes.upper[0], boxes.lower[0]).reshape(-1, 3)
    for X in pushes.X_world_tool:
        height = (transform(X, corners) - surface) @ outward
        assert height.min() == pytest.approx(PushOptions().offset, abs=1.5e-3)
        assert X[:3, 2] @ outward < 0.1  # approaches the surface, if at a slant
    # Leverage: the best contacts are far from the hinge, the worst near it.
    hinge = transform(pose(translation=[0.55, 0, 0]), HINGE[None])[0]
    away = np.linalg.norm((pushes.X_world_tool[:, :3, 3] - hinge)[:, [0, 2]], axis=1)
    assert away[:10].min() > 0.2
    assert away[:10].min() > away[-10:].max()


def test_reversed_motions_reverse_the_pushes():
    scene, motion = laptop()
    back = SceneMotion(TIMES, (motion.vertices[0][::-1],))
    mesh = trimesh.Trimesh(back.vertices[0][0], scene.objects[0].mesh.faces, process=False)
    opened = Scene((SceneObject("laptop", mesh),))
    pushes = push_proposal(opened, back, 0, GRIPPER)
    # To open it, a finger would have to fit under a lid 2 mm above its base.
    assert len(pushes.candidates) == 0
    assert "free" in pushes.reason


def test_a_drawer_front_is_pushed_straight_in():
    box = SceneObject(
        "drawer",
        scanned(trimesh.creation.box([0.2, 0.3, 0.1]), noise=0),
        pose(translation=[0.6, 0, 0.1]),
    )
    motion = SceneMotion(TIMES, (box.vertices_world + np.outer(TIMES, [0.05, 0, 0])[:, None],))
    pushes = propose_pushes(Scene((box,)), motion, 0, GRIPPER)
    assert len(pushes)
    assert np.all(pushes.X_world_tool[:, 0, 3] < 0.5)


def test_what_does_not_move_cannot_be_pushed():
    scene, motion = laptop()
    still = SceneMotion(TIMES, (np.repeat(motion.vertices[0][:1], len(TIMES), axis=0),))
    proposal = push_proposal(scene, still, 0, GRIPPER)
    assert len(proposal.candidates) == 0
    assert "no candidate left after 'moving surface points'" in proposal.reason


def test_pinches_hold_the_corner_that_moves_farthest_and_keep_off_the_table():
    scene, motion = cloth()
    pinches = propose_pinches(scene, motion, 0, GRIPPER)
    assert len(pinches) > 10
    corner = np.array([0.62, 0.12])
    assert np.linalg.norm(pinches.X_world_tool[0, :2, 3] - corner) < 0.025
    low = lowest_point(pinches.X_world_tool, gripper_boxes(GRIPPER, pinches.width))
    assert np.allclose(low, PinchOptions().clearance)
    assert np.all(pinches.X_world_tool[:, 2, 2] < -0.5)  # from above
    assert np.all(pinches.width <= PinchOptions().opening)
    # Places are rated by their displacement: 0.34 m at the corner, less near the fold.
    from_fold = (pinches.X_world_tool[:, :2, 3] - [0.5, 0]).sum(1)
    assert from_fold[:5].min() > from_fold[-10:].max()
    # Only on the half that moves.
    assert np.all((pinches.X_world_tool[:, :2, 3] - [0.5, 0]).sum(1) > -0.03)


def test_pinches_need_a_moving_edge():
    scene, motion = cloth()
    still = SceneMotion(TIMES, (np.repeat(motion.vertices[0][:1], len(TIMES), axis=0),))
    assert "moving surface points" in pinch_proposal(scene, still, 0, GRIPPER).reason


def test_a_rigid_patch_is_carried_by_the_motion_itself():
    scene, motion = carried()
    flow = sample_flow(scene, motion)
    grasps = propose_grasps(scene.objects[0], scene, GRIPPER)
    frames = np.array([0, 10, 20])
    X, slip = patch_motion(grasps, flow, frames, 0.06)
    assert slip.max() < 1e-9
    true = rotation_about([0.45, 0.15, 0], [0, 0, 1], 0.8)
    true[:3, 3] += [0.1, -0.3, 0]
    assert np.allclose(X[:, 2], true @ grasps.X_world_tool, atol=1e-9)
    assert np.array_equal(X[:, 0], grasps.X_world_tool)


def test_patch_motion_agrees_with_the_attachment():
    from flowplan.attachment import attach

    scene, motion = laptop()
    flow = sample_flow(scene, motion)
    pushes = propose_pushes(scene, motion, 0, GRIPPER).select(np.arange(4))
    X, slip = patch_motion(pushes, flow, np.arange(len(TIMES)), 0.06)
    for g in range(4):
        reference = attach(flow, pushes.X_world_tool[g], object_id=0)
        assert (
            np.linalg.norm(X[g, :, :3, 3] - reference.X_world_tool[:, :3, 3], axis=1).max() < 2e-3
        )
        assert angle_between(X[g, :, :3, :3], reference.X_world_tool[:, :3, :3]).max() < 0.01
        assert abs(slip[g] - reference.slip.max()) < 1e-3


def test_a_patch_that_stretches_slips():
    scene, motion = carried()
    start = motion.vertices[0]
    stretch = 1 + 0.8 * TIMES[:, None, None] / TIMES[-1] * [1, 0, 0]
    middle = start[0].mean(0)
    rubber = SceneMotion(TIMES, ((start[:1] - middle) * stretch + middle,))
    grasps = propose_grasps(scene.objects[0], scene, GRIPPER)
    _, slip = patch_motion(grasps, sample_flow(scene, rubber), np.array([0, 20]), 0.06)
    # Not for every contact: the robust fit may lock onto a face that moves rigidly.
    assert np.median(slip) > 0.003


def test_ranked_grasps_reach_all_along_and_reports_cover_every_candidate(panda):
    scene, motion = carried()
    flow = sample_flow(scene, motion)
    grasps = propose_grasps(scene.objects[0], scene, panda.gripper)
    ranked, reports = rank_with_flow(grasps, flow, phase_geometry(scene, motion, 0), panda)
    assert len(reports) == len(grasps)
    assert len(ranked) == sum(not r.reasons for r in reports) > 5
    for report in reports:
        assert bool(report.reasons) == (report.score == 0)
        assert (report.reachable == 1) == (report.first_unreachable == -1)
    true = rotation_about([0.45, 0.15, 0], [0, 0, 1], 0.8)
    true[:3, 3] += [0.1, -0.3, 0]
    for X in (ranked.X_world_tool, true @ ranked.X_world_tool):
        assert panda.inverse_kinematics(X)[1].all()
    # Each is one of the candidates, possibly turned by 180 degrees about its approach axis.
    flipped = grasps.X_world_tool @ np.diag([-1.0, -1, 1, 1])
    every = np.concatenate([grasps.X_world_tool, flipped])
    assert np.abs(ranked.X_world_tool[:, None] - every).max((2, 3)).min(1).max() < 1e-9


def test_a_motion_that_leaves_the_reach_is_refused_with_the_time(panda):
    scene, motion = carried(to=(1.2, 0.0))
    flow = sample_flow(scene, motion)
    grasps = propose_grasps(scene.objects[0], scene, panda.gripper).select(np.arange(20))
    ranked, reports = rank_with_flow(grasps, flow, phase_geometry(scene, motion, 0), panda)
    assert len(ranked) == 0
    assert all("out of reach from" in r.reasons[0] for r in reports)
    started = [r for r in reports if r.reachable > 0]
    assert started
    assert all(0 < r.first_unreachable <= 2 for r in started)
    assert all(r.reachable < 1 for r in reports)


def test_the_arm_may_not_jump_to_another_branch(panda):
    scene, motion = carried()
    flow = sample_flow(scene, motion)
    grasps = propose_grasps(scene.objects[0], scene, panda.gripper).select(np.arange(20))
    ranked, _ = rank_with_flow(grasps, flow, phase_geometry(scene, motion, 0), panda)
    stiff, reports = rank_with_flow(
        grasps, flow, phase_geometry(scene, motion, 0), panda, RankOptions(jump=0.01)
    )
    assert len(ranked)
    assert not len(stiff)
    assert all("out of reach" in r.reasons[0] for r in reports)


def test_a_motion_into_an_obstacle_is_refused(panda):
    scene, motion = carried(lift=0.0, turn=0.0, to=(0.0, -0.3))
    wall = SceneObject(
        "wall", trimesh.creation.box([0.6, 0.04, 0.6]), pose(translation=[0.45, -0.02, 0.3])
    )
    walled = Scene(scene.objects, obstacles=(wall,))
    flow = sample_flow(scene, motion)
    grasps = propose_grasps(scene.objects[0], scene, panda.gripper).select(np.arange(20))
    free, _ = rank_with_flow(grasps, flow, phase_geometry(scene, motion, 0), panda)
    blocked, reports = rank_with_flow(grasps, flow, phase_geometry(walled, motion, 0), panda)
    assert len(free)
    assert not len(blocked)
    assert any("inside the surroundings" in reason for r in reports for reason in r.reasons)


@pytest.mark.parametrize("robot", ["panda", "ur5e"])
def test_closing_a_lid_and_folding_a_cloth_are_feasible(robot):
    arm = load_robot(robot)
    scene, motion = laptop()
    contacts = merge([propose_pushes(scene, motion, 0, arm.gripper)])
    assert (
        len(
            rank_with_flow(
                contacts, sample_flow(scene, motion), phase_geometry(scene, motion, 0), arm
            )[0]
        )
        > 5
    )
    scene, motion = cloth()
    pinches = propose_pinches(scene, motion, 0, arm.gripper)
    assert (
        len(
            rank_with_flow(
                pinches, sample_flow(scene, motion), phase_geometry(scene, motion, 0), arm
            )[0]
        )
        > 5
    )


def test_nothing_to_rank_and_mixed_objects(panda):
    scene, motion = carried()
    flow = sample_flow(scene, motion)
    none = propose_grasps(scene.objects[0], scene, panda.gripper).select([])
    assert rank_with_flow(none, flow, phase_geometry(scene, motion, 0), panda)[1] == ()
    X = pose(translation=np.zeros((1, 3)))
    mixed = merge([best_first(X, np.zeros(1), np.ones(1), "grasp", i) for i in (0, 1)])
    with pytest.raises(
        ValueError, match=r"candidates.object_id: expected one object, got \[0, 1\]"
    ):
        rank_with_flow(mixed, flow, phase_geometry(scene, motion, 0), panda)


@pytest.mark.parametrize("bad", [{"times": 1}, {"restarts": -1}, {"slip_factor": 0.0}])
def test_bad_rank_options_are_named(bad):
    with pytest.raises(ValueError, match=f"RankOptions.{next(iter(bad))}"):
        RankOptions(**bad)
