"""What a certificate covers: each harmful act is refused, and its harmless twin is certified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.collision.phase_geometry import mesh_in_frame, phase_geometry
from flowplan.geometry import inverse, pose
from flowplan.motion import SceneMotion
from flowplan.motion_quality import MotionOptions, motion_report, rigid_parts
from flowplan.planner import NoPlan, Plan, PlanOptions, plan
from flowplan.planner.worlds import held_width
from flowplan.report import feasibility
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from flowplan.trajectory import Phase
from flowplan.validation.phase_world import PhaseWorld
from flowplan.validation.validator import validate
from tests.moving_boxes import hinge, pick_and_place, slide

GRASP, PUSH = PlanOptions(contact="grasp"), PlanOptions(contact="push")
Case = tuple[Scene, SceneMotion, PlanOptions]


@pytest.fixture(scope="module")
def panda():
    return load_robot("panda")


def box(name, size, center, fine=0) -> SceneObject:
    mesh = trimesh.creation.box(size)
    for _ in range(fine):
        mesh = mesh.subdivide()
    return SceneObject(name, mesh, pose(translation=center))


def carried(thing, by, lift, obstacles=(), options=GRASP) -> Case:
    """The thing goes `by`, without turning, on an arch `lift` high, in three seconds."""
    t = np.linspace(0.0, 1.0, 41)
    s = t**3 * (10 - 15 * t + 6 * t**2)
    way = s[:, None] * np.asarray(by) + (4 * lift * s * (1 - s))[:, None] * [0, 0, 1]
    motion = SceneMotion(3 * t, (thing.vertices_world[None] + way[:, None],))
    return Scene((thing,), 0.0, tuple(obstacles)), motion, options


def tall(y=-0.10, fine=2):
    return box("brick", (0.05, 0.04, 0.16), (0.45, y, 0.081), fine)


def low(fine=2):
    return box("brick", (0.05, 0.04, 0.08), (0.45, -0.10, 0.041), fine)


def into_the_table(drop) -> Case:
    brick = box("brick", (0.05, 0.04, 0.14), (0.45, -0.10, 0.071), 2)
    return carried(brick, [0, 0.2, -drop], 0.0 if drop else 0.03)


def dip(lift) -> Case:
    return carried(tall(-0.15), [0, 0.3, 0], lift)


def wall(fine, x, options=GRASP) -> Case:
    obstacle = box("wall", (0.6, 0.003, 0.08), (0.45 + x, 0, 0.04), fine)
    return carried(tall(), [0, 0.2, 0], 0.03, [obstacle], options)


def pushed(y) -> Case:
    block = box("block", (0.06, 0.12, 0.10), (0.45, -0.1, 0.051), 2)
    obstacle = box("wall", (0.3, 0.003, 0.08), (0.45, y, 0.04), 4)
    return carried(block, [0, 0.2, 0], 0.0, [obstacle], PUSH)


def card(x) -> Case:
    thing = box("card", (0.08, 0.006, 0.12), (0.45, -0.15, 0.061), 3)
    plate = box("plate", (0.06, 0.002, 0.07), (0.45 + x, 0, 0.035), 5)
    return carried(thing, [0, 0.3, 0], 0.03, [plate])


def torn(aside, fine=2) -> Case:
    brick = low(fine)
    upper = np.where(brick.vertices_world[:, 2:] > 0.05, 1.0, 0.0)
    way = np.linspace(0, 1, 41)[:, None, None] * [0, aside, 0]
    vertices = brick.vertices_world[None] + (upper if aside > 0 else 1.0) * np.abs(way)
    vertices = vertices + (0.0 if aside > 0 else 1.0) * _arch(0.1)
    return Scene((brick,), 0.0), SceneMotion(np.linspace(0, 3, 41), (vertices,)), GRASP


def _arch(height):
    s = np.linspace(0, 1, 41)
    return (4 * height * s * (1 - s))[:, None, None] * [0, 0, 1]


CASES = {
    "into the table": (lambda: into_the_table(0.04), lambda: into_the_table(0.0)),
    "dips into the table": (lambda: dip(-0.05), lambda: dip(0.05)),
    "through a wall of 12 triangles": (lambda: wall(0, 0.0), lambda: wall(0, -0.6)),
    "through a fine wall": (lambda: wall(5, 0.0), lambda: wall(5, -0.6)),
    "pushed through a wall": (lambda: pushed(0.05), lambda: pushed(0.30)),
    "a card through a plate": (lambda: card(0.0), lambda: card(0.15)),
    "a torn brick": (lambda: torn(0.1), lambda: torn(-0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_harmful_act_is_refused(panda, name):
    scene, motion, options = CASES[name][0]()
    found = plan(scene, motion, panda, options=options)
    assert isinstance(found, NoPlan), feasibility(found)
    words = {"a torn brick": "brick tears", "into the table": "brick and support overlap"}
    words |= {"dips into the table": "brick and support overlap"}
    words |= {"pushed through a wall": "block and wall overlap"}
    words |= {"a card through a plate": "card and plate overlap"}
    assert [attempt.stage for attempt in found.attempts] == ["motion"]
    assert words.get(name, "brick and wall overlap") in found.reason


@pytest.mark.parametrize("name", [name for name in CASES if name != "a torn brick"])
def test_the_sweep_refuses_it_too(panda, name):
    """Without the motion's own limits, no contact's trajectory is certified."""
    scene, motion, options = CASES[name][0]()
    options = replace(options, motion=MotionOptions(check=False))
    found = plan(scene, motion, panda, options=options)
    assert isinstance(found, NoPlan), feasibility(found)


@pytest.mark.parametrize("name", CASES)
def test_its_harmless_twin_is_certified(panda, name):
    scene, motion, options = CASES[name][1]()
    found = plan(scene, motion, panda, options=options)
    assert isinstance(found, Plan), feasibility(found)


def with_ball(panda, sideways: float) -> tuple[Scene, SceneMotion, Plan]:
    """A brick, and a ball that flies through the hand at a quarter of the way, or beside it.

    With the plan for the brick alone.
    """
    small = low()
    scene, motion, options = carried(small, [0, 0.25, 0], 0.10)
    base = plan(scene, motion, panda, options=options)
    assert isinstance(base, Plan)
    during = np.flatnonzero(base.trajectory.phase == Phase.MANIPULATE)
    quarter = base.trajectory.q[during[len(during) // 4]]
    hand = panda.tool_pose(quarter[None])[0][:3, 3] + [sideways, 0, 0.10]
    away = hand + np.array([0.21, 0, 0.05])
    share = np.linspace(0, 1, len(motion.times))
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.04)
    ball = SceneObject("ball", sphere, pose(translation=away))
    marks, ends = [0, 0.15, 0.22, 0.28, 0.35, 1], (away, away, hand, hand, away, away)
    way = np.stack([np.interp(share, marks, [e[i] for e in ends]) for i in range(3)], axis=1)
    flown = ball.vertices_world[None] - away + way[:, None]
    both = SceneMotion(motion.times, (motion.vertices[0], flown))
    return Scene((small, ball), 0.0), both, base


@pytest.mark.parametrize(("sideways", "certified"), [(0.0, False), (0.25, True)])
def test_another_moving_object_is_swept(panda, sideways, certified):
    """By the contact of the plan without the ball; another contact may avoid it."""
    scene, motion, base = with_ball(panda, sideways)
    options = PlanOptions(rank=False, motion=MotionOptions(max_gap=1.0))
    found = plan(scene, motion, panda, options=options, contacts=base.contact)
    assert isinstance(found, Plan) == certified, feasibility(found)
    if not certified:
        assert "panda_hand and ball overlap" in found.reason


def test_an_object_that_flies_by_itself_is_refused(panda):
    scene, motion, _ = with_ball(panda, 0.0)
    found = plan(scene, motion, panda, options=GRASP)
    assert isinstance(found, NoPlan)
    assert "ball floats" in found.reason


@pytest.mark.parametrize("corner", [False, True])
def test_the_verdict_does_not_depend_on_triangles(panda, corner):
    """The same trajectory past the same wall, with or without a corner, in few triangles and in
    many, has the same reasons."""
    scene, motion, options = wall(0, -0.6)
    found = plan(scene, motion, panda, options=options)
    assert isinstance(found, Plan)
    held = mesh_in_frame(scene.objects[0].mesh_world, inverse(found.contact.X_world_tool[0]))
    reasons = []
    for fine in (0, 3, 5):
        mesh = box("wall", (0.6, 0.003, 0.12), (0.45, 0, 0.06), fine).mesh_world
        if corner:
            side = box("side", (0.003, 0.1, 0.12), (0.75, 0.04, 0.06), fine).mesh_world
            mesh = trimesh.util.concatenate([mesh, side])
        world, empty = PhaseWorld((("wall", mesh),), held), PhaseWorld()
        worlds = {phase: empty for phase in Phase} | {Phase.MANIPULATE: world}
        verdict = validate(panda, found.trajectory, worlds)
        assert not verdict.ok
        assert any("held and wall overlap" in reason for reason in verdict.reasons)
        reasons.append({" ".join(r.split(": ")[1].split()[:4]) for r in verdict.reasons})
    assert reasons[0] == reasons[1] == reasons[2]


@pytest.mark.parametrize(
    ("size", "center"),
    [
        ((4.0, 0.02, 0.3), (0.0, 0.4, 0.15)),
        ((1000.0, 0.1, 1000.0), (0.0, -1.0, 0.0)),
        ((1000.0, 1000.0, 1000.0), (0.0, 0.0, -500.3)),
    ],
)
def test_an_obstacle_may_be_wide_and_have_the_name_of_the_support(panda, size, center):
    for name in ("wide", "support"):
        scene, motion, options = carried(low(), [0, 0.25, 0], 0.1, [box(name, size, center)])
        found = plan(scene, motion, panda, options=options)
        assert isinstance(found, Plan), feasibility(found)
        around = phase_geometry(scene, motion, 0)
        assert around.support_name not in {name for name, _ in around.during}


def test_held_width_is_that_of_what_is_between_the_pads(panda):
    gripper = panda.gripper
    bar = trimesh.creation.box((0.2, 0.05, 0.2))
    assert held_width(bar, gripper, 0.08) == pytest.approx(0.05)
    far = trimesh.creation.box((0.2, 0.07, 0.1)).apply_translation([0, 0, 0.2])
    assert held_width(trimesh.util.concatenate([bar, far]), gripper, 0.08) == pytest.approx(0.05)
    assert held_width(far, gripper, 0.08) == 0.08


@pytest.mark.parametrize("build", [hinge, slide, pick_and_place])
def test_rigid_and_articulated_motions_have_good_reports(build):
    scene, motion, moves = build()
    report = motion_report(scene, motion)
    assert not report.reasons
    assert max(quality.residual for quality in report.objects) < 1e-6
    parts = rigid_parts(motion.vertices[0])
    assert len(np.unique(parts.label)) == len(np.unique(moves[0]))


@pytest.mark.parametrize("fine", [2, 4])
def test_a_torn_brick_ends_at_the_motion(panda, fine):
    scene, motion, options = torn(0.1, fine)
    found = plan(scene, motion, panda, options=options)
    assert isinstance(found, NoPlan)
    assert [a.stage for a in found.attempts] == ["motion"]
    assert "brick tears: a part comes off by 100 mm" in found.reason
    assert "motion.max_tear" in found.reason
    assert found.motion is not None
    assert found.motion.objects[0].tear == pytest.approx(0.1, abs=1e-3)


def test_a_body_that_bends_is_refused_unless_it_is_deformable():
    brick = tall(fine=3)
    start = brick.vertices_world
    height = (start[:, 2:] / 0.16) ** 2
    bent = start + np.linspace(0, 1, 21)[:, None, None] * height * [0.15, 0, 0]
    motion = SceneMotion(np.linspace(0, 2, 21), (bent,))
    (reason,) = motion_report(Scene((brick,)), motion, MotionOptions(parts=1)).reasons
    assert "brick bends" in reason
    soft = Scene((replace(brick, deformable=True),))
    assert not motion_report(soft, motion, MotionOptions(max_strain=2.0, max_tear=1.0)).reasons
