"""Tears, overlaps, speed and jitter of motions, against closed forms."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.cli.plan_data import motion_data
from flowplan.geometry import pose, rotation_about, transform
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.motion_quality import MotionOptions, motion_report, rigid_parts
from flowplan.motion_quality.seams import settle_seams
from flowplan.motion_quality.smoothness import jitter, speed, tool_speed_limit
from flowplan.motion_quality.tearing import largest_opening
from flowplan.planner import NoPlan
from flowplan.report import feasibility, motion_lines
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from tests.moving_boxes import hinge, slide

S = np.linspace(0, 1, 21)[:, None, None]


def box(size, center=(0, 0, 0)):
    return trimesh.creation.box(size).apply_translation(center)


def fine(mesh, edge):
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, edge)
    return trimesh.Trimesh(vertices, faces)


def union(*meshes, edge=0.02):
    return fine(trimesh.boolean.union(meshes), edge)


def together(*meshes):
    return trimesh.util.concatenate(meshes)


def opened(mesh, moves, by=None, axis=None):
    """Opening of a mesh whose vertices `moves` go `by`, or turn about (point, direction, angle)."""
    start = np.asarray(mesh.vertices)
    moves = np.asarray(moves(start))
    if axis is not None:
        point, direction, angle = axis
        X = rotation_about(point, direction, angle * S[:, 0, 0])
        vertices = np.where(moves[:, None], transform(X, start), start)
    else:
        vertices = start + moves[:, None] * S * np.asarray(by)
    return largest_opening(mesh, start, rigid_parts(vertices)).distance


def upper(height):
    return lambda v: v[:, 2] > height


def brick(edge=0.012):
    return fine(box((0.05, 0.04, 0.08)), edge)


def soup():
    mesh = brick()
    mesh.unmerge_vertices()
    return mesh


def mug():
    """A vessel with an inside: wall and bottom."""
    wall = trimesh.creation.annulus(0.035, 0.04, 0.09, sections=32)
    bottom = trimesh.creation.cylinder(0.04, 0.01, sections=32)
    return fine(together(wall, bottom.apply_translation([0, 0, -0.045])), 0.01)


def open_mug():
    """The outside of a mug, as a scan has it."""
    mesh = fine(trimesh.creation.cylinder(0.04, 0.1, sections=32), 0.01)
    return mesh.submesh([np.flatnonzero(mesh.triangles_center[:, 2] < 0.0499)], append=True)


def cabinet(join):
    walls = [box((0.3, 0.3, 0.02), (0, 0, z)) for z in (0, 0.3)]
    walls += [box((0.3, 0.02, 0.32), (0, y, 0.15)) for y in (-0.15, 0.15)]
    return fine(join([*walls, box((0.02, 0.32, 0.32), (0.15, 0, 0.15))]), 0.03)


def chest(depth=0.03):
    """A case with the front of a drawer or a door, fused into one surface."""
    front = box((depth, 0.24, 0.2), (-0.15, 0, 0.15))
    return union(box((0.3, 0.3, 0.3), (0, 0, 0.15)), front)


def front(v):
    return v[:, 0] < -0.155


TORN = {
    "aside": (brick, upper(0), [0, 0.1, 0], 0.1),
    "aside, a little": (brick, upper(0), [0, 0.015, 0], 0.015),
    "up": (brick, upper(0), [0, 0, 0.05], 0.05),
    "up, coarse": (lambda: box((0.05, 0.04, 0.08)), upper(0), [0, 0, 0.06], 0.06),
    "aside, coarse": (lambda: box((0.05, 0.04, 0.08)), upper(0), [0, 0.1, 0], 0.1),
    "separate triangles": (soup, upper(0), [0, 0.1, 0], 0.1),
    "a mug's upper half": (mug, upper(0.01), [0, 0, 0.05], 0.05),
    "a scanned mug's upper half": (open_mug, upper(0.01), [0, 0, 0.05], 0.05),
    "a mug's halves": (mug, lambda v: v[:, 0] > 0, [0.05, 0, 0], None),
    "a wall of panels": (lambda: cabinet(together_list), lambda v: v[:, 1] > 0.139, [0, 0.1, 0], None),
    "a wall of one piece": (
        lambda: cabinet(trimesh.boolean.union), lambda v: v[:, 1] > 0.139, [0, 0.1, 0], None,
    ),
    "half a cabinet": (
        lambda: cabinet(trimesh.boolean.union), lambda v: v[:, 0] < 0, [-0.12, 0, 0], None,
    ),
    "a drawer beyond its depth": (chest, front, [-0.35, 0, 0], None),
    "a door off its hinges": (chest, front, [0, 0.35, 0], None),
    "a lid off its base": (
        lambda: together(fine(box((0.2, 0.3, 0.02)), 0.015), fine(box((0.2, 0.3, 0.02), (0, 0, 0.021)), 0.015)),
        upper(0.0105), [0, 0, 0.06], 0.06,
    ),
}  # fmt: skip


def together_list(meshes):
    return together(*meshes)


@pytest.mark.parametrize("name", TORN)
def test_what_comes_off_is_torn(name):
    make, moves, by, amount = TORN[name]
    found = opened(make(), moves, by)
    assert found > 0.012
    if amount is not None:
        assert found == pytest.approx(amount, abs=4e-3)


WHOLE = {
    "a drawer fused with its case": (chest, front, [-0.15, 0, 0], None),
    "a sliding door": (chest, front, [0, 0.1, 0], None),
    "a door": (chest, front, None, ([-0.15, 0.12, 0], [0, 0, 1], -1.4)),
    "a lid on one closed skin": (
        lambda: fine(box((0.2, 0.3, 0.1)), 0.015), upper(0.03),
        None, ([0.1, 0, 0.03], [0, 1, 0], 1.5),
    ),
    "a knob": (
        lambda: union(box((0.1, 0.1, 0.05)), trimesh.creation.cylinder(0.02, 0.04).apply_translation([0, 0, 0.04]), edge=0.008),
        upper(0.03), None, ([0, 0, 0], [0, 0, 1], 1.5),
    ),
    "two slabs on a hinge": (
        lambda: together(fine(box((0.2, 0.3, 0.02)), 0.015), fine(box((0.2, 0.3, 0.02), (0, 0, 0.021)), 0.015)),
        upper(0.0105), None, ([0.1, 0, 0.0105], [0, 1, 0], 1.6),
    ),
    "at rest": (brick, upper(0), [0, 0, 0], None),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_a_joint_is_not(name):
    make, moves, by, axis = WHOLE[name]
    assert opened(make(), moves, by, axis) < 6e-3


@pytest.mark.parametrize("build", [hinge, slide])
def test_parts_of_their_own_are_not_torn_either(build):
    scene, motion, _ = build()
    mesh, (vertices,) = scene.objects[0].mesh, motion.vertices
    assert largest_opening(mesh, vertices[0], rigid_parts(vertices)).distance < 2e-3


def test_a_seam_moves_to_the_joint():
    """A bar on a hinge, whose lower part is dragged along below the hinge."""
    bar = fine(box((0.02, 0.02, 0.3)), 0.008)
    start = np.asarray(bar.vertices)
    X = rotation_about([0, 0, 0.02], [0, 1, 0], 0.6 * S[:, 0, 0])
    vertices = np.where((start[:, 2] > -0.03)[:, None], transform(X, start), start)
    parts = rigid_parts(vertices)
    before = largest_opening(bar, start, parts).distance
    settled = settle_seams(parts, vertices, bar.edges_unique)
    after = largest_opening(bar, start, settled).distance
    assert before > 0.015
    assert after < 0.007
    changed = start[settled.label != parts.label, 2]
    assert changed.min() > -0.035
    assert changed.max() < 0.03


def block(size, center, name="block", **kind):
    mesh = trimesh.creation.box(size).subdivide().subdivide()
    return SceneObject(name, mesh, pose(translation=center), **kind)


def moved(things, ways, support=0.0, obstacles=()):
    """Scene and motion of things that go straight by their ways, in two seconds."""
    vertices = tuple(
        thing.vertices_world + S * np.asarray(way, float)
        for thing, way in zip(things, ways, strict=True)
    )
    return Scene(tuple(things), support, tuple(obstacles)), SceneMotion(2 * S[:, 0, 0], vertices)


@pytest.mark.parametrize(
    ("start", "drop", "depth"),
    [
        (0.0, 0.03, 0.03),
        (0.001, 0.03, 0.029),
        (0.0, 0.008, 0.008),
        (0.0, 0.0008, 0),
        (-0.002, 0.0, 0),
    ],
)
def test_depth_in_the_support(start, drop, depth):
    thing = block((0.1, 0.08, 0.06), (0.4, 0, 0.03 + start))
    scene, motion = moved([thing], [(0.1, 0, -drop)])
    found = motion_report(scene, motion).objects[0]
    assert found.penetration == pytest.approx(depth, abs=2e-4)
    assert found.penetration_with == ("support" if depth else "")
    assert bool(found.reason) == bool(depth)
    if depth:
        assert found.penetration_time == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(("y", "hit"), [(0.0, True), (0.5, False)])
def test_what_passes_through_a_thin_wall(y, hit):
    """However thin, and however few the frames."""
    wall = SceneObject(
        "wall", trimesh.creation.box((0.002, 0.4, 0.3)), pose(translation=[0.5, y, 0.15])
    )
    thing = block((0.05, 0.05, 0.05), (0.4, 0, 0.026))
    scene, motion = moved([thing], [(0.3, 0, 0.02)], obstacles=(wall,))
    few = SceneMotion(motion.times[::20], (motion.vertices[0][::20],))
    for made in (motion, few):
        found = motion_report(scene, made).objects[0]
        assert (found.penetration_with == "wall") == hit
        assert ("block and wall overlap" in found.reason) == hit


def test_two_things_that_meet_in_the_middle():
    a, b = block((0.05,) * 3, (0.3, 0, 0.03), "a"), block((0.05,) * 3, (0.6, 0, 0.03), "b")
    scene, motion = moved([a, b], [(0.3, 0, 0), (-0.3, 0, 0)])
    assert "a and b overlap" in motion_report(scene, motion).reasons[0]
    scene, motion = moved([a, b], [(0.3, 0, 0), (0.3, 0, 0)])
    assert not motion_report(scene, motion).reasons


@pytest.mark.parametrize(("rise", "floats"), [(0.0, False), (0.1, True)])
def test_what_floats_at_the_end_counts(rise, floats):
    """The robot may hold the thing that moves farthest; flight on the way is no matter."""
    target, other = (
        block((0.05,) * 3, (0.3, 0, 0.025), "a"),
        block((0.05,) * 3, (0.6, 0, 0.025), "b"),
    )
    scene, motion = moved([target, other], [(0.1, 0.1, 0.1), (0, 0.05, rise)])
    flight = motion.vertices[1] + 4 * 0.1 * S * (1 - S) * np.array([0, 0, 1.0])
    motion = SceneMotion(motion.times, (motion.vertices[0], flight))
    report = motion_report(scene, motion)
    assert report.target == "a"
    assert report.objects[0].gap == pytest.approx(0.1, abs=1e-6)
    assert report.objects[1].gap == pytest.approx(rise, abs=1e-6)
    assert [("floats" in q.reason) for q in report.objects] == [False, floats]


@pytest.mark.parametrize(("grow", "reason"), [(0.1, ""), (0.5, "stretches by 50 %")])
def test_strain_of_a_sheet(grow, reason):
    sheet = trimesh.creation.box((0.2, 0.2, 0.001)).subdivide().subdivide().subdivide()
    thing = SceneObject("cloth", sheet, pose(translation=[0.4, 0, 0.01]), deformable=True)
    start = thing.vertices_world
    wide = start + S * grow * (start - start.mean(0)) * [1, 0, 0]
    report = motion_report(
        Scene((thing,)), SceneMotion(2 * S[:, 0, 0], (wide,)), MotionOptions(max_tear=1)
    )
    assert report.objects[0].strain == pytest.approx(grow, rel=1e-3)
    assert reason in report.objects[0].reason
    assert bool(report.objects[0].reason) == bool(reason)


def test_speed_is_that_of_the_fastest_vertex():
    times = np.array([0.0, 0.5, 0.6])
    vertices = np.zeros((3, 4, 3))
    vertices[1, :, 0], vertices[2, :, 0] = 0.1, 0.1
    vertices[2, 3, 1] = 0.07
    assert speed(times, vertices) == pytest.approx(0.7)


def test_jitter_is_the_standard_deviation_of_noise():
    t = np.linspace(0, 1, 200)[:, None, None]
    cubic = np.concatenate([t, t**2, t**3], axis=-1) * np.ones((1, 300, 1))
    assert jitter(cubic) < 1e-12
    noise = np.random.default_rng(0).normal(scale=1e-3, size=cubic.shape)
    assert jitter(cubic + noise) == pytest.approx(1e-3, rel=0.05)
    assert jitter(np.zeros((9, 5, 3))) == 0.0


def test_the_tool_reaches_the_speed_that_it_is_said_to():
    """In no direction less: the joints' rates that move it stay within their limits."""
    robot = load_robot("panda")
    limit = tool_speed_limit(robot)
    _, J = robot.tool_jacobian(robot.home[None])
    worst = 0.0
    for direction in np.random.default_rng(0).normal(size=(200, 3)):
        twist = np.append(limit * direction / np.linalg.norm(direction), np.zeros(3))
        rates = np.linalg.lstsq(J[0], twist, rcond=None)[0]
        worst = max(worst, float((np.abs(rates) / robot.velocity).max()))
    assert 0.6 < worst < 1.15


def test_the_report_is_told_saved_and_printed(tmp_path):
    scene, motion, _ = hinge()
    report = motion_report(scene, motion, robot=load_robot("panda"))
    data = json.loads(json.dumps(motion_data(report)))
    assert data["objects"][0]["parts"] == 2
    assert data["tool_speed_m_s"] == pytest.approx(report.tool_speed)
    saved = npz.load(npz.save(tmp_path / "no.npz", NoPlan((), (), report)), NoPlan)
    assert saved.motion == report
    (line, fast) = motion_lines(report)
    assert "laptop: " in line
    assert "2 rigid parts" in line
    assert "m/s asked" in fast
    assert line in feasibility(saved)
    slow = replace(report, tool_speed_limit=0.01)
    assert "timing='fast'" in motion_lines(slow)[1]
