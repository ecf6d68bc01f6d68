"""Kinds of overlap that certificates refuse besides those of whole acts, and bounds of their
cost."""

from __future__ import annotations

from dataclasses import replace

import coal
import numpy as np
import pytest
import trimesh

from flowplan.collision.distance_field import distance_field
from flowplan.geometry import pose
from flowplan.grasp import GraspOptions, propose_grasps
from flowplan.grasp.gripper_clearance import gripper_boxes, lowest_point
from flowplan.motion import SceneMotion
from flowplan.planner import PlanOptions, SizeLimits, attempt, plan
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from flowplan.trajectory import Trajectory
from flowplan.validation import validator as validator_module
from flowplan.validation.collision_geometry import mesh_body, signed_distance
from flowplan.validation.phase_world import Mover, PhaseWorld
from flowplan.validation.validator import Validator, validate


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


def at_rest(robot, samples: int = 5) -> Trajectory:
    """The arm at home for four seconds."""
    still, none = np.zeros((samples, len(robot.home))), np.zeros(samples)
    return Trajectory(
        robot.joint_names, np.arange(float(samples)), still + robot.home, still, still, none,
        np.full(samples, 2), none, none, none,
    )  # fmt: skip


@pytest.mark.parametrize(("aside", "certified"), [(0.0, False), (0.4, True)])
def test_what_moves_into_the_base_is_refused(panda, aside, certified):
    ball = trimesh.creation.icosphere(2, 0.04)
    way = np.linspace([1.0, aside, 0.07], [0.0, aside, 0.07], 5)
    mover = Mover("ball", ball, pose(translation=way))
    verdict = validate(panda, at_rest(panda), {2: PhaseWorld(movers=(mover,))})
    assert verdict.ok == certified, verdict.reasons
    if not certified:
        assert "panda_link0 and ball overlap" in " ".join(verdict.reasons)


def test_what_stands_in_the_base_is_the_scene_s_affair(panda):
    """A base is bolted to something."""
    plate = trimesh.creation.box([0.3, 0.3, 0.02])
    assert validate(panda, at_rest(panda), {2: PhaseWorld((("plate", plate),))}).ok


@pytest.mark.parametrize("name", ["panda", "ur5e"])
@pytest.mark.parametrize("height", [0.08, 0.25])
def test_no_proposed_grasp_comes_up_through_the_support(name, height):
    """A board that reaches over the edge of its base could be taken from below."""
    gripper, options = load_robot(name).gripper, GraspOptions()
    foot = trimesh.creation.box([0.02, 0.02, height])
    foot.apply_translation([0, 0, height / 2])
    board = trimesh.creation.box([0.16, 0.03, 0.03])
    board.apply_translation([0, 0, height])
    thing = SceneObject("thing", trimesh.util.concatenate([foot, board]))
    found = propose_grasps(thing, Scene((thing,), 0.0), gripper, options)
    boxes = gripper_boxes(gripper, found.width)
    assert len(found)
    for back in np.linspace(0, options.approach, 7):
        X = found.X_world_tool @ pose(translation=[0, 0, -back])
        assert lowest_point(X, boxes).min() > 0
    upward = found.X_world_tool[:, 2, 2] > 0.3
    assert upward.any() == (height == 0.25)


def test_boxes_of_the_gripper_contain_its_links_where_they_touch_first(panda):
    """What is swept for proposals is at least as large as the fingers are."""
    for robot in (panda, load_robot("ur5e")):
        gripper = robot.gripper
        for width in (0.0, 0.04, gripper.max_width):
            boxes = gripper_boxes(gripper, np.array([width]))
            X = robot.fk(robot.home[None], width)[0]
            tool = robot.tool_pose(robot.home[None])[0]
            for link in gripper.finger_links:
                mesh = robot.collision_meshes[link]
                X_tool_link = np.linalg.inv(tool) @ X[robot.link_names.index(link)]
                points = np.asarray(mesh.vertices) @ X_tool_link[:3, :3].T + X_tool_link[:3, 3]
                tip = points[:, 2].max()
                assert tip < boxes.upper[0, :, 2].max() + 2e-3


def brick_motion(duration: float = 2.0, frames: int = 11):
    brick = trimesh.creation.box([0.05, 0.04, 0.08])
    obj = SceneObject("brick", brick, pose(translation=[0.45, -0.1, 0.041]))
    rise = np.linspace(0.0, 0.1, frames)[:, None, None] * np.array([0.0, 0.0, 1.0])
    times = np.linspace(0.0, duration, frames)
    return Scene((obj,)), SceneMotion(times, (obj.vertices_world + rise,))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SizeLimits(duration=1.0), r"motion\.times: 2 s are more than the 1 .* size\.duration"),
        (SizeLimits(frames=10), r"motion\.times: 11 frames .* size\.frames"),
        (SizeLimits(faces=11), r"scene: 12 triangles .* size\.faces"),
    ],
)
def test_sizes_beyond_the_limits_are_refused_in_one_line(panda, limits, message):
    scene, motion = brick_motion()
    with pytest.raises(ValueError, match=message) as error:
        plan(scene, motion, panda, options=PlanOptions(size=limits))
    assert "\n" not in str(error.value)


def test_ten_hours_are_refused_before_anything_is_computed(panda):
    with pytest.raises(ValueError, match="36000 s are more than the 600"):
        plan(*brick_motion(36_000.0), panda)


def test_many_bodies_are_refused(panda):
    scene, motion = brick_motion()
    cube = trimesh.creation.box([0.01] * 3)
    far = tuple(SceneObject(f"c{i}", cube, pose(translation=[5, i, 0])) for i in range(4))
    options = PlanOptions(size=SizeLimits(bodies=4))
    with pytest.raises(ValueError, match="scene: 5 bodies"):
        plan(replace(scene, obstacles=far), motion, panda, options=options)


def test_bodies_that_are_kept_are_bounded_by_their_triangles(panda, monkeypatch):
    monkeypatch.setattr(validator_module, "_CACHED_FACES", 100)
    checker = Validator(panda)
    cubes = [trimesh.creation.box([0.1 + 0.01 * i] * 3) for i in range(20)]
    bodies = [checker.body(cube) for cube in cubes]
    assert checker.body(cubes[-1]) is bodies[-1]
    assert checker.body(cubes[0]) is not bodies[0]
    assert sum(faces for _, faces in checker._bodies.values()) <= 100
    large = trimesh.creation.icosphere(3)
    assert checker.body(large) is checker.body(large)  # alone it is kept, however large


@pytest.mark.parametrize("depth", [-0.02, 0.02])
def test_a_hull_of_many_corners_is_measured_as_a_surface(panda, depth):
    """The verdict is the same as for a coarse sphere."""
    hand = panda.tool_pose(panda.home[None])[0, :3, 3]
    verdicts = []
    for fine in (3, 6):
        ball = trimesh.creation.icosphere(fine, 0.05)
        ball.apply_translation(hand + np.array([0.0, 0.0, depth - 0.0595]))
        verdicts.append(validate(panda, at_rest(panda), {2: PhaseWorld((("ball", ball),))}))
    assert mesh_body(ball).surface is not None
    assert verdicts[0].ok == verdicts[1].ok == (depth < 0)


@pytest.mark.parametrize("fine", [0, 4])
@pytest.mark.parametrize("depth", [0.001, 0.015])
def test_a_card_in_a_thick_body_is_as_deep_as_it_has_gone_in(fine, depth):
    """Its faces are never farther than half its thickness from its outside."""
    card = trimesh.creation.box([0.06, 0.006, 0.08])
    thick, side = trimesh.creation.box([0.3, 0.3, 0.1]), trimesh.creation.box([0.02, 0.3, 0.2])
    side.apply_translation([0.16, 0, 0.05])
    body = trimesh.util.concatenate([thick, side])
    for _ in range(fine):
        body = body.subdivide()
    X = coal.Transform3s(np.eye(3), np.array([0.0, 0.0, 0.09 - depth]))
    still = coal.Transform3s()
    concave = mesh_body(body)
    assert concave.surface is not None
    found = signed_distance(mesh_body(card), X, concave, still, 0.0, -0.02)
    assert found == pytest.approx(-depth, abs=1e-4)
    assert signed_distance(concave, still, mesh_body(card), X, 0.0) == pytest.approx(found)


def test_a_field_over_another_is_that_of_all():
    a, b = trimesh.creation.box([0.1] * 3), trimesh.creation.icosphere(2, 0.05)
    b.apply_translation([0.1, 0.1, 0.0])
    grid = {"lower": np.full(3, -0.3), "upper": np.full(3, 0.3), "voxel": 0.02}
    whole = distance_field([a, b], **grid)
    first = distance_field([a], **grid)
    np.testing.assert_array_equal(distance_field([b], others=first, **grid).values, whole.values)
    with pytest.raises(ValueError, match="others"):
        distance_field([b], others=first, **(grid | {"voxel": 0.01}))


@pytest.mark.parametrize("aside", [0.0, 0.01])
def test_what_is_held_stands_where_the_fingers_closed(panda, monkeypatch, aside):
    """The tool is a centimeter off its pose along the flow; the object does not jump with it."""
    scene, motion = brick_motion()
    seen = []
    real = attempt.phase_worlds

    def shifted(problem, contact, attachment, along):
        J = panda.tool_jacobian(along.q)[1]
        step = np.linalg.pinv(J) @ np.array([aside, 0, 0, 0, 0, 0])
        worlds = real(problem, contact, attachment, replace(along, q=along.q + step))
        X = panda.tool_pose(along.q[:1] + step[:1])[0]
        seen.append((worlds, X))
        return worlds

    monkeypatch.setattr(attempt, "phase_worlds", shifted)
    plan(scene, motion, panda, options=PlanOptions(contact="grasp", candidates=1))
    worlds, X = seen[0]
    held = worlds[2].held.vertices @ X[:3, :3].T + X[:3, 3]
    np.testing.assert_allclose(held, scene.objects[0].vertices_world, atol=1e-9)
    left = dict(worlds[4].obstacles)["brick"].vertices
    rise = left - scene.objects[0].vertices_world
    assert rise[:, 2].mean() == pytest.approx(0.1, abs=0.01)
