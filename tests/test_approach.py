"""Approach and retreat: straight last centimeters, paths around walls, measured refusals, seeds."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from scipy.interpolate import BSpline

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.geometry import angle_between, pose
from flowplan.paths import approach as module
from flowplan.paths.approach import ApproachOptions, approach, retreat
from flowplan.paths.time_parameterization import retime
from flowplan.robot import Robot, load_robot
from flowplan.trajectory import Trajectory
from flowplan.validation.validator import PhaseWorld, validate

DOWN = np.diag([1.0, -1.0, -1.0])
LOWER, UPPER = np.array([-0.4, -0.9, -0.1]), np.array([1.0, 0.9, 1.1])


@pytest.fixture(scope="module")
def panda() -> Robot:
    return load_robot("panda")


def box(size, center) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(center)


def field(*meshes, shift=(0.0, 0.0, 0.0)) -> DistanceField:
    moved = [m.copy().apply_translation(shift) for m in meshes]
    return distance_field(
        moved, lower=LOWER + shift, upper=UPPER + shift, voxel=0.025, support_height=float(shift[2])
    )


def contact(robot: Robot, at=(0.5, 0.1, 0.1)) -> np.ndarray:
    """Configuration whose tool points down at a position above the table."""
    X = robot.X_world_base @ pose(DOWN, at)
    q, ok = robot.inverse_kinematics(X[None], q_near=robot.home)
    assert ok[0]
    return q[0]


def dense(q: np.ndarray) -> np.ndarray:
    return np.concatenate([np.linspace(a, b, 8) for a, b in pairwise(q)])


def certificate(robot: Robot, q: np.ndarray, *meshes):
    timed = retime(q, robot)
    zero = np.zeros(len(timed.times))
    trajectory = Trajectory(
        robot.joint_names,
        timed.times,
        timed.q,
        timed.qd,
        timed.qdd,
        zero + robot.gripper.max_width,
        zero,
        zero,
        zero,
        zero,
    )
    table = ("table", box((4, 4, 0.2), (0, 0, -0.1)))
    world = PhaseWorld((table, *((f"block{i}", m) for i, m in enumerate(meshes))), None)
    return validate(robot, trajectory, {0: world})


def assert_last_part_is_straight(robot: Robot, q: np.ndarray, length: float) -> None:
    X = robot.tool_pose(q)
    # Meters before the contact, along the tool's z.
    back = (X[-1, :3, 3] - X[:, :3, 3]) @ X[-1, :3, 2]
    last = int(np.flatnonzero((back > length) | (back < -1e-6))[-1]) + 1
    across = X[-1, :3, 3] - X[last:, :3, 3] - back[last:, None] * X[-1, :3, 2]
    assert np.linalg.norm(across, axis=1).max() < 2e-4
    assert angle_between(X[last:, :3, :3], X[-1, :3, :3]).max() < 1e-3
    assert np.all(np.diff(back[last:]) < 0)
    assert back[last] > 0.8 * length  # there is such a part


def test_open_table(panda):
    q_contact = contact(panda)
    reach = approach(panda, panda.home, q_contact, field(), field())
    assert reach.reason == ""
    np.testing.assert_allclose(reach.q[[0, -1]], [panda.home, q_contact], atol=1e-12)
    assert_last_part_is_straight(panda, reach.q, 0.085)
    assert np.all((reach.q >= panda.lower) & (reach.q <= panda.upper))
    assert np.abs(np.diff(reach.q, axis=0)).max() < 0.1
    assert certificate(panda, reach.q).ok


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_around_a_wall(panda, seed):
    # From one side of a wall to the other: the straight line in the joints goes through it.
    wall = box((0.5, 0.04, 0.45), (0.55, 0.0, 0.225))
    start, end = contact(panda, (0.5, -0.3, 0.25)), contact(panda, (0.5, 0.3, 0.1))
    world = field(wall)
    space = module._FreeSpace(panda, world, 0.0, None)
    assert not space.free(dense(np.stack([start, end])))
    reach = approach(panda, start, end, world, world, seed=seed)
    assert reach.reason == ""
    assert space.free(dense(reach.q))
    assert certificate(panda, reach.q, wall).ok
    again = approach(panda, start, end, world, world, seed=seed)
    np.testing.assert_array_equal(reach.q, again.q)


def test_a_retreat_is_an_approach_backwards(panda):
    q_contact = contact(panda)
    into = approach(panda, panda.home, q_contact, field(), field())
    out = retreat(panda, q_contact, panda.home, field(), field())
    np.testing.assert_array_equal(out.q, into.q[::-1])


def test_a_retreat_without_a_way_home_backs_off(panda):
    q_contact = contact(panda)
    elsewhere = contact(panda, (0.4, -0.5, 0.3))
    blocked = field(box((0.1, 0.1, 0.1), (0.4, -0.5, 0.3)))
    out = retreat(panda, q_contact, elsewhere, blocked, blocked)
    assert out.reason == ""
    X = panda.tool_pose(out.q[[0, -1]])
    np.testing.assert_allclose(X[1, :3, 3], X[0, :3, 3] - 0.1 * X[0, :3, 2], atol=1e-3)


def test_a_target_is_left_out_of_the_straight_part_only(panda):
    # A can between the open fingers blocks the hand from above, unless it is the target.
    q_contact = contact(panda, (0.5, 0.1, 0.08))
    can = box((0.06, 0.03, 0.12), (0.5, 0.1, 0.06))
    assert approach(panda, panda.home, q_contact, field(can), field()).reason == ""
    assert (
        "straight way to the contact: "
        in approach(panda, panda.home, q_contact, field(can), field(can)).reason
    )


def test_a_shelf_above_makes_the_straight_part_shorter(panda):
    q_contact = contact(panda, (0.5, 0.0, 0.1))
    spheres = panda.spheres(q_contact[None])[0]
    over = np.linalg.norm(spheres[:, :2] - [0.5, 0.0], axis=1) < 0.04
    top = (spheres[:, 2] + panda.sphere_radius)[over].max()
    shelf = field(box((0.06, 0.06, 0.02), (0.5, 0.0, top + 0.07)))
    straight, stopped = module._back_off(panda, q_contact, shelf, ApproachOptions(), None)
    assert 0.03 < 0.01 * (len(straight) - 1) < 0.09
    assert "mm from the world" in stopped
    reach = approach(panda, panda.home, q_contact, shelf, shelf)
    assert reach.reason == ""
    assert module._FreeSpace(panda, shelf, 0.0, None).free(dense(reach.q))
    asked = ApproachOptions(shortest=0.095)
    assert "of 95 mm" in approach(panda, panda.home, q_contact, shelf, shelf, asked).reason


@pytest.mark.parametrize(
    ("blocks", "near_too", "options", "reason"),
    [
        (
            [box((0.2, 0.2, 0.2), (0.5, 0.1, 0.1))],
            True,
            {},
            "overlaps the world or itself by .* at the contact",
        ),
        ([box((0.2, 0.2, 0.02), (0.5, 0.1, 0.35))], False, {}, "standing off, the open hand is"),
        ([box((0.2, 0.2, 0.2), (0.3, 0.0, 0.6))], False, {}, "at the start the robot overlaps"),
        (
            [box((0.02, 1.8, 1.0), (0.42, 0.0, 0.5))],
            False,
            {"edges": 30, "margin": 0.0},
            "standing off|no free way|start",
        ),
    ],
)
def test_refusals_are_measured(panda, blocks, near_too, options, reason):
    world = field(*blocks)
    reach = approach(
        panda,
        panda.home,
        contact(panda),
        world,
        world if near_too else field(),
        replace(ApproachOptions(), **options),
    )
    assert len(reach.q) == 0
    assert re.search(reason, reach.reason)


def test_giving_up_is_a_reason(panda):
    wall = field(box((0.5, 0.04, 0.45), (0.55, 0.0, 0.225)))
    start, end = contact(panda, (0.5, -0.3, 0.25)), contact(panda, (0.5, 0.3, 0.1))
    reach = approach(panda, start, end, wall, wall, ApproachOptions(edges=1))
    assert (
        reach.reason
        == "no free way found from the start to where the hand stands off (1 edges tried)"
    )


def test_out_of_reach_is_a_reason(panda):
    # Straight up from the table: at some height the arm is stretched, or a joint is at its limit.
    reach = approach(
        panda,
        panda.home,
        contact(panda),
        field(),
        field(),
        ApproachOptions(distance=1.2, shortest=1.1),
    )
    assert re.search(
        r"straight way to the contact: \d+ of 1100 mm, then (out of|panda_joint\d at)", reach.reason
    )


def test_moving_robot_and_world_together_changes_nothing(panda):
    wall = box((0.5, 0.04, 0.45), (0.55, 0.0, 0.225))
    start, end = contact(panda, (0.5, -0.3, 0.25)), contact(panda, (0.5, 0.3, 0.1))
    shift = np.array([0.25, -0.5, 0.125])
    here = approach(panda, start, end, field(wall), field(wall), seed=1)
    moved = replace(panda, X_world_base=pose(None, shift))
    there = approach(moved, start, end, field(wall, shift=shift), field(wall, shift=shift), seed=1)
    np.testing.assert_allclose(here.q, there.q, atol=1e-6)


@pytest.mark.parametrize(
    "q",
    [
        [2.867, -1.188, 0.784, -2.473, -0.472, 2.8, -0.016],
        [0.115, -0.258, -2.662, -2.489, 2.579, 0.595, 2.04],
    ],
)
def test_a_joint_at_its_limit_gives_way_to_the_others(panda, q):
    # The least motion that backs off would reach a joint limit within two centimeters.
    nothing = DistanceField(LOWER, 1.0, np.full((2, 2, 2), 9.0))
    path, stopped = module._back_off(panda, np.array(q), nothing, ApproachOptions(), None)
    assert stopped == ""
    assert np.all((path >= panda.lower) & (path <= panda.upper))


def test_b_spline_is_the_textbooks():
    rng = np.random.default_rng(0)
    control = rng.normal(size=(8, 3))
    padded = np.concatenate(
        [[2 * control[0] - control[1]], control, [2 * control[-1] - control[-2]]]
    )
    truth = BSpline(np.arange(14.0), padded, 3)(np.arange(3.0, 10.01, 0.5))
    np.testing.assert_allclose(module._b_spline(control), truth, atol=1e-12)


def test_a_corner_is_rounded_less_where_there_is_no_room():
    corners, after = (
        np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]),
        np.array([[1.0, 1.0], [1.0, 1.01]]),
    )

    def nearest(room: float) -> float:
        """Distance of the path from a corner that it may deviate from by `room` at most."""
        box = SimpleNamespace(lower=np.full(2, -2.0), upper=np.full(2, 2.0))
        space = SimpleNamespace(
            robot=box, free=lambda q: bool(np.all((q[:, 1] < room) | (q[:, 0] > 1 - room)))
        )
        path = module._rounded(space, corners, after)
        assert space.free(path)
        np.testing.assert_array_equal(path[[0, -1]], [corners[0], after[-1]])
        return float(np.linalg.norm(path - corners[1], axis=1).min())

    assert nearest(1.0) > nearest(0.012) > 0
    assert nearest(1e-4) == 0  # no room at all: the corner itself


def test_rounded_corners():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    control = module._dense(corners, 0.1)
    path = module._b_spline(control)
    np.testing.assert_allclose(path[[0, -1]], corners[[0, -1]], atol=1e-12)
    straight = path[path[:, 0] < 0.8]
    np.testing.assert_allclose(straight[:, 1], 0.0, atol=1e-12)
    off = np.linalg.norm(path - corners[1], axis=1).min()
    assert 0 < off <= 0.1 / 3
    # C2: second differences change by little from point to point, where a corner would make a jump.
    turn = np.linalg.norm(np.diff(path, 2, axis=0), axis=1)
    sharp = np.linalg.norm(np.diff(module._dense(corners, 0.05), 2, axis=0), axis=1)
    assert turn.max() < 0.5 * sharp.max()


def test_shortcuts_keep_ends_and_freedom(panda):
    wall = box((0.5, 0.04, 0.45), (0.55, 0.0, 0.225))
    space = module._FreeSpace(panda, field(wall), 0.0, None)
    start, end = contact(panda, (0.5, -0.3, 0.25)), contact(panda, (0.5, 0.3, 0.25))
    corners = module._sampled_path(space, start, end, 2000, 0)
    assert corners is not None
    detour = np.concatenate([corners[:1], corners[:1] + 0.05, corners])
    shorter = module._shortcut(space, detour, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(shorter[[0, -1]], [start, end])
    assert space.free(dense(shorter))

    def length(q):
        return np.linalg.norm(np.diff(q, axis=0), axis=1).sum()

    assert length(shorter) < length(detour)


def test_bad_input_is_named(panda):
    with pytest.raises(ValueError, match="q_contact"):
        approach(panda, panda.home, np.zeros(3), field(), field())
    with pytest.raises(ValueError, match=r"ApproachOptions\.distance"):
        ApproachOptions(distance=0.0)
