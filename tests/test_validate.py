"""Validator against closed forms and brute force, with a planar arm of boxes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import coal
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from flowplan.geometry import pose, rotation_about, transform
from flowplan.paths.time_parameterization import TimedPath, follow, retime
from flowplan.robot import load_robot
from flowplan.trajectory import Trajectory
from flowplan.validation.collision_geometry import mesh_body, signed_distance, winding_number
from flowplan.validation.joint_limits import differences
from flowplan.validation.validator import HELD, PhaseWorld, ValidationOptions, Validator, validate

LENGTHS = (0.5, 0.4, 0.3)
THICK = 0.02
FAST = ValidationOptions(limit_tolerance=1e6)  # geometry alone: nothing here is too fast


class Planar:
    """Three boxes in the plane z = 0 with joints about z; link i spans 0 to LENGTHS[i] along x."""

    name = "planar"
    base_link = "base"
    link_names = ("base", "link1", "link2", "link3")
    joint_names = ("joint1", "joint2", "joint3")
    lower, upper = np.full(3, -4.0), np.full(3, 4.0)
    velocity, acceleration, jerk = np.full(3, 2.0), np.full(3, 10.0), np.full(3, 200.0)
    tool_link = "link3"
    X_link_tool = pose(None, [LENGTHS[2], 0.0, 0.0])
    ignored_link_pairs = frozenset(
        frozenset(p) for p in (("base", "link1"), ("link1", "link2"), ("link2", "link3"))
    )
    gripper = SimpleNamespace(
        joints=(),
        table_width=np.array([0.0, 0.1]),
        table_joints=np.zeros((2, 0)),
        max_width=0.1,
        finger_links=(),
        hand_links=("link3",),
    )

    def __init__(self, urdf_path: Path, X_world_base: np.ndarray | None = None) -> None:
        self.urdf_path = urdf_path
        self.X_world_base = np.eye(4) if X_world_base is None else X_world_base


@pytest.fixture(scope="module")
def urdf(tmp_path_factory):
    parts = ['<robot name="planar"><link name="base"/>']
    for i, length in enumerate(LENGTHS, 1):
        parts.append(
            f'<link name="link{i}"><collision><origin xyz="{length / 2} 0 0"/>'
            f'<geometry><box size="{length} {THICK} {THICK}"/></geometry></collision></link>'
        )
        parent, along = ("base", 0.0) if i == 1 else (f"link{i - 1}", LENGTHS[i - 2])
        parts.append(
            f'<joint name="joint{i}" type="revolute">'
            f'<parent link="{parent}"/><child link="link{i}"/>'
            f'<origin xyz="{along} 0 0"/><axis xyz="0 0 1"/>'
            '<limit lower="-4" upper="4" velocity="2" effort="1"/></joint>'
        )
    path = tmp_path_factory.mktemp("planar") / "planar.urdf"
    path.write_text("".join([*parts, "</robot>"]))
    return path


@pytest.fixture(scope="module")
def arm(urdf):
    return Planar(urdf)


def moving(q, *, names=Planar.joint_names, dt=0.01, phase=2, grip=0.0) -> Trajectory:
    """Samples q (S, J) at equal steps in one phase, derivatives by differences."""
    q = np.atleast_2d(np.asarray(q, float))
    qd = np.gradient(q, dt, axis=0)
    S = len(q)
    zero = np.zeros(S)
    phases = np.broadcast_to(phase, S)
    return Trajectory(
        names,
        np.arange(S) * dt,
        q,
        qd,
        np.gradient(qd, dt, axis=0),
        zero + grip,
        phases,
        zero,
        zero,
        zero,
    )


def timed(path: TimedPath, names=Planar.joint_names) -> Trajectory:
    zero = np.zeros(len(path.times))
    return Trajectory(
        names, path.times, path.q, path.qd, path.qdd, zero, zero + 2, zero, zero, zero
    )


def box(size, center) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(center)


def world(*meshes, held=None, touch=()) -> dict[int, PhaseWorld]:
    named = tuple((f"block{i}", m) for i, m in enumerate(meshes))
    return {2: PhaseWorld(named, held, frozenset(touch))}


# The stretched arm rotates about the origin; a box blocks it at 90 degrees. The arm's upper side
# first touches the corner (X, Y) where the corner's distance from the arm's axis, which is
# Y cos t - X sin t, equals half the thickness.
X, Y = 0.05, 0.5
BLOCK = box((2 * X, 0.1, 0.1), (0.0, Y + 0.05, 0.0))
TOUCH = np.arccos(0.5 * THICK / np.hypot(X, Y)) - np.arctan2(X, Y)


def turned(angles) -> np.ndarray:
    angles = np.asarray(angles, float)
    return np.stack([angles, np.zeros_like(angles), np.zeros_like(angles)], 1)


@pytest.mark.parametrize("short", [0.2, 0.02, 0.002])
def test_clearance_before_contact_is_the_closed_form(arm, short):
    end = TOUCH - short
    certificate = validate(arm, moving(turned(np.linspace(0, end, 50))), world(BLOCK), FAST)
    assert certificate.ok
    # At the end the corner is at this distance from the arm's side, and nowhere before any nearer.
    truth = Y * np.cos(end) - X * np.sin(end) - 0.5 * THICK
    assert certificate.clearance == pytest.approx(truth, abs=1e-6)
    assert certificate.worst_time == pytest.approx(0.49)
    assert certificate.closest[1] == "block0"


@pytest.mark.parametrize("far", [0.002, 0.02, 0.2])
def test_contact_is_found_and_named(arm, far):
    certificate = validate(arm, moving(turned(np.linspace(0, TOUCH + far, 50))), world(BLOCK), FAST)
    assert not certificate.ok
    assert "manipulate phase, t = 0." in certificate.reasons[0]
    assert "link2 and block0 overlap by" in " ".join(certificate.reasons)
    assert certificate.clearance < 0


def test_depth_is_the_closed_form(arm):
    # Straight up, the arm lies in the middle of the block: X + THICK / 2 to either side.
    certificate = validate(arm, moving(turned(np.linspace(0, np.pi / 2, 50))), world(BLOCK), FAST)
    assert certificate.clearance == pytest.approx(-(X + THICK / 2), abs=1e-6)


@pytest.mark.parametrize("samples", [2, 3, 10])
@pytest.mark.parametrize("angle", [0.3, 1.1, 1.7, 2.9])
def test_a_thin_wall_between_two_samples_is_not_tunnelled(arm, samples, angle):
    wall = box((0.2, 0.001, 0.2), (1.0, 0.0, 0.0)).apply_transform(
        rotation_about([0, 0, 0], [0, 0, 1], angle)
    )
    sweep = moving(turned(np.linspace(0, np.pi, samples)))
    assert not validate(arm, sweep, world(wall), FAST).ok
    beyond = wall.copy().apply_scale(1.5)
    assert validate(arm, sweep, world(beyond), FAST).ok


def test_margin_is_asked_for(arm):
    path = moving(turned(np.linspace(0, TOUCH - 0.02, 50)))
    near = validate(arm, path, world(BLOCK), FAST).clearance
    assert validate(arm, path, world(BLOCK), replace(FAST, margin=near - 1e-4)).ok
    refused = validate(arm, path, world(BLOCK), replace(FAST, margin=near + 1e-4))
    assert not refused.ok
    assert "come within" in refused.reasons[0]


def rectangles(q: np.ndarray) -> np.ndarray:
    """Corners (S, 3, 4, 2) of the links at q (S, 3), by plane trigonometry."""
    at, angle, out = np.zeros((len(q), 2)), np.zeros(len(q)), []
    for i, length in enumerate(LENGTHS):
        angle = angle + q[:, i]
        x = np.stack([np.cos(angle), np.sin(angle)], -1)
        y = np.stack([-x[:, 1], x[:, 0]], -1)
        corners = [(0, -1), (length, -1), (length, 1), (0, 1)]
        out.append(np.stack([at + a * x + 0.5 * THICK * b * y for a, b in corners], 1))
        at = at + length * x
    return np.stack(out, 1)


def overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """True where convex polygons p, q (S, 4, 2) overlap, by separating axes."""
    apart = np.zeros(len(p), bool)
    for polygon in (p, q):
        edge = np.roll(polygon, -1, axis=1) - polygon
        normal = np.stack([edge[..., 1], -edge[..., 0]], -1)
        a, b = p @ normal.swapaxes(1, 2), q @ normal.swapaxes(1, 2)
        apart |= ((a.max(1) < b.min(1)) | (b.max(1) < a.min(1))).any(1)
    return ~apart


def test_agrees_with_brute_force_on_random_motions(arm):
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(60):
        ends = rng.uniform(-2.5, 2.5, (3, 3))
        q = np.concatenate([np.linspace(a, b, 6) for a, b in pairwise(ends)])
        center, size, turn = (
            rng.uniform(-1.2, 1.2, 2),
            rng.uniform(0.02, 0.3, 2),
            rng.uniform(0, np.pi),
        )
        rotation = rotation_about([0, 0, 0], [0, 0, 1], turn)
        block = box((*size, 0.1), (0, 0, 0)).apply_transform(pose(rotation[:3, :3], [*center, 0.0]))
        dense = np.stack([np.interp(np.linspace(0, 11, 2000), np.arange(12), c) for c in q.T], 1)
        links = rectangles(dense)
        half = 0.5 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
        corners = np.broadcast_to(half @ rotation[:2, :2].T + center, (len(dense), 4, 2))
        hit = np.any([overlap(links[:, i], corners) for i in range(3)], axis=0) | overlap(
            links[:, 0], links[:, 2]
        )
        certificate = validate(arm, moving(q), world(block), FAST)
        if (
            abs(certificate.clearance) > 1e-3
        ):  # grazing by less than a thousandth: either verdict is right
            assert certificate.ok == (not hit.any())
            verdicts.append(certificate.ok)
    assert 0.2 < np.mean(verdicts) < 0.8


def test_the_arm_is_kept_from_itself(arm):
    folded = np.array([0.0, 2.8, 2.8])
    certificate = validate(arm, moving(np.linspace([0.0, 0.0, 0.0], folded, 20)), world(), FAST)
    assert not certificate.ok
    assert "link1 and link3 overlap" in certificate.reasons[0]
    assert validate(arm, moving(np.linspace([0.0, 0.0, 0.0], 0.4 * folded, 20)), world(), FAST).ok


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_obstacles_and_where_the_world_stands_do_not_matter(urdf, seed):
    rng = np.random.default_rng(seed)
    blocks = [box(rng.uniform(0.05, 0.2, 3), [*rng.uniform(-1, 1, 2), 0.0]) for _ in range(4)]
    q = np.linspace(rng.uniform(-2, 2, 3), rng.uniform(-2, 2, 3), 8)
    plain = validate(Planar(urdf), moving(q), world(*blocks), FAST)
    order = rng.permutation(4)
    shuffled = {2: PhaseWorld(tuple((f"block{i}", blocks[i]) for i in order))}
    again = validate(Planar(urdf), moving(q), shuffled, FAST)
    X_new_old = rotation_about(rng.normal(size=3), rng.normal(size=3), rng.uniform(0, 6))
    moved = [b.copy().apply_transform(X_new_old) for b in blocks]
    elsewhere = validate(Planar(urdf, X_new_old), moving(q), world(*moved), FAST)
    for other in (again, elsewhere):
        assert other.ok == plain.ok
        assert other.clearance == pytest.approx(plain.clearance, abs=1e-5)
        assert len(other.reasons) == len(plain.reasons)


def test_the_inside_of_a_concave_obstacle_is_free_and_of_a_solid_one_is_not(arm):
    ring = trimesh.creation.annulus(1.3, 1.4, 0.5, sections=256)
    still = moving(np.linspace([0.0, 0, 0], [1.0, 0.3, 0.3], 8))
    free = validate(arm, still, world(ring), FAST)
    assert free.ok
    assert free.clearance == pytest.approx(1.3 - np.hypot(sum(LENGTHS), THICK / 2), abs=2e-3)
    # A closed shell around the whole arm, without contact, made concave by a box beside it.
    solid = trimesh.util.concatenate([box((4, 4, 4), (0, 0, 0)), box((1, 1, 1), (5, 0, 0))])
    assert not validate(arm, still, world(solid), FAST).ok


def test_an_open_sheet_is_an_obstacle(arm):
    sheet = trimesh.Trimesh(
        [[-0.2, 0.9, -0.2], [0.2, 0.9, -0.2], [0.0, 0.9, 0.3]], [[0, 1, 2]], process=False
    )
    assert not validate(arm, moving(turned([0.0, np.pi])), world(sheet), FAST).ok


def test_winding_number_of_a_closed_mesh():
    ball = trimesh.creation.icosphere(subdivisions=2)
    assert winding_number(ball.triangles, np.array([0.3, 0.1, -0.2])) == pytest.approx(1.0)
    assert winding_number(ball.triangles, np.array([1.3, 0.1, -0.2])) == pytest.approx(
        0.0, abs=1e-12
    )


def test_allowed_contacts_and_phases(arm):
    path = moving(turned(np.linspace(0, TOUCH + 0.1, 50)))
    links = [("link1", "block0"), ("link2", "block0"), ("link3", "block0")]
    assert validate(arm, path, world(BLOCK, touch=links), FAST).ok
    assert not validate(arm, path, world(BLOCK, touch=links[:1]), FAST).ok
    two = moving(turned(np.linspace(0, TOUCH + 0.1, 50)), phase=np.repeat([0, 2], [45, 5]))
    clear, blocked = PhaseWorld(), PhaseWorld((("block", BLOCK),))
    assert validate(arm, two, {0: clear, 2: clear}, FAST).ok
    assert validate(arm, two, {0: blocked, 2: clear}, FAST).ok
    late = validate(arm, two, {0: clear, 2: blocked}, FAST)
    assert [r.split(",")[0] for r in late.reasons] == ["manipulate phase"] * len(late.reasons)
    assert not late.ok


@pytest.mark.parametrize(("sink", "ok"), [(0.003, True), (0.008, False)])
def test_the_held_object_may_rest_on_something_but_not_sink_into_it(arm, sink, ok):
    held = box((0.1, 0.1, 0.1), (0.05, 0.0, 0.0))  # from the tool origin on
    reach = sum(LENGTHS) + 0.1
    shelf = box((0.1, 1.0, 1.0), (reach - sink + 0.05, 0.0, 0.0))
    still = moving(turned(np.zeros(5)))
    certificate = validate(arm, still, world(shelf, held=held), FAST)
    assert certificate.ok == ok
    if not ok:
        assert f"{HELD} and block0 overlap by 8.0 mm (5.0 mm allowed)" in certificate.reasons[0]
        assert validate(arm, still, world(shelf, held=held, touch=[(HELD, "block0")]), FAST).ok


def test_fingers_that_open_into_a_wall_are_seen():
    panda = load_robot("panda")
    q = np.tile(panda.home, (20, 1))
    grip = np.linspace(0.0, panda.gripper.max_width, 20)
    path = replace(moving(q, names=panda.joint_names), grip=grip)
    X = panda.tool_pose(panda.home[None])[0]
    wall = box(
        (0.02, 0.02, 0.02), (0, 0, 0)
    )  # beside the fingertips, outside where they are when shut
    wall.apply_transform(X @ pose(None, [0.0, 0.05, 0.0]))
    assert validate(panda, replace(path, grip=0 * grip), world(wall), FAST).ok
    refused = validate(panda, path, world(wall), FAST)
    assert not refused.ok
    assert "finger" in refused.reasons[0]


def test_no_point_moves_farther_than_the_bound():
    # All results rest on this bound: compare it with the path length of every body's points.
    panda = load_robot("panda")
    validator = Validator(panda)
    rng = np.random.default_rng(1)
    for _ in range(5):
        q = panda.home + np.cumsum(rng.normal(scale=0.2, size=(4, 7)), axis=0)
        path = validator._path(q, np.zeros(len(q)))
        sweep = validator._sweep(
            PhaseWorld((("far", box((1, 1, 1), (9, 9, 9))),)), path, ValidationOptions()
        )
        ends = sweep._add(np.array([0.3, 2.6]))
        bound = sweep._motion(ends[:1], ends[1:])[0]
        between = sweep._add(np.linspace(0.3, 2.6, 100))
        for p, (a, b) in enumerate(zip(sweep.pairs.a, sweep.pairs.b, strict=True)):
            distance = np.array([sweep._measure(i, p, np.inf) for i in between])
            assert distance.min() >= 0.5 * (distance[0] + distance[-1] - bound[p]) - 1e-6
            if b >= sweep.count:
                points = transform(sweep.pose[between, a], sweep.bodies[a].points)
                length = np.linalg.norm(np.diff(points, axis=0), axis=-1).sum(0).max()
                assert length <= bound[p] + 1e-9
                assert bound[p] <= 6 * length + 0.05  # tight enough to be useful


def test_a_lawful_motion_passes_and_each_lie_is_named(arm):
    path = timed(retime(np.array([[0.0, 0.0, 0.0], [0.5, 0.3, -0.2], [1.0, 0.2, 0.4]]), arm))
    assert validate(arm, path, world()).ok
    middle = len(path.times) // 2

    def changed(name: str, value) -> str:
        certificate = validate(arm, replace(path, **{name: value}), world())
        assert not certificate.ok
        return " | ".join(certificate.reasons)

    def bumped(name: str, amount: float) -> np.ndarray:
        out = np.array(getattr(path, name))
        out[middle, 1] += amount
        return out

    assert "joint2 acceleration exceeds" in changed("q", bumped("q", 2e-3))
    assert "joint2 jerk exceeds" in changed("q", bumped("q", 2e-4))
    assert "joint2 stated velocity is" in changed("qd", bumped("qd", 0.2))
    assert "joint2 stated velocity exceeds" in changed("qd", bumped("qd", 5.0))
    assert "joint2 stated acceleration is" in changed("qdd", bumped("qdd", 8.0))
    assert "joint2 stated acceleration exceeds" in changed("qdd", bumped("qdd", 50.0))
    assert "stated velocity is" in changed("qd", 0.5 * path.qd)
    assert "velocity exceeds" in changed("times", 0.5 * path.times)
    assert "joint2 is 0.1 above its upper limit" in changed(
        "q", bumped("q", 4.1 - path.q[middle, 1])
    )
    assert "fingers open" in changed("grip", np.full(len(path.times), 0.2))
    assert "fingers close" in changed("grip", np.full(len(path.times), -0.2))
    assert f"t = {path.times[middle]:.2f}" in changed("q", bumped("q", 2e-3))


def test_a_start_in_full_motion_is_a_jump(arm):
    q = np.linspace([0.0, 0, 0], [1.0, 0, 0], 101)  # 1 rad/s at once
    steady = replace(moving(q), qdd=np.zeros_like(q))
    assert not validate(arm, steady, world()).ok
    assert validate(arm, steady, world(), ValidationOptions(at_rest=False)).ok


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_whatever_timing_makes_is_within_limits(urdf, seed, count):
    rng = np.random.default_rng(seed)
    arm = Planar(urdf)
    q = np.cumsum(rng.normal(scale=0.2, size=(count, 3)), axis=0)
    for path in (retime(q, arm), follow(0.2 * np.arange(count), q, arm)):
        reasons = validate(arm, timed(path), world()).reasons
        assert not [r for r in reasons if "overlap" not in r]


def test_differences_never_exceed_the_true_derivative():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.002, 0.1, 200))
    for order, (_, values) in enumerate(
        differences(times, np.sin(3 * times)[:, None], at_rest=False), 1
    ):
        assert np.abs(values).max() <= 3.0**order + 1e-9
        assert np.abs(values).max() > 0.98 * 3.0**order
    cubic = differences(times, 2.0 * times[:, None] ** 3, at_rest=False)[2][1]
    np.testing.assert_allclose(cubic, 12.0, rtol=1e-4)


def test_convexity_of_bodies():
    assert mesh_body(box((1, 2, 3), (0, 0, 0))).surface is None
    assert mesh_body(trimesh.creation.icosphere()).surface is None
    assert mesh_body(trimesh.creation.annulus(0.5, 1.0, 0.2)).surface is not None
    lidless = box((1, 1, 1), (0, 0, 0))
    lidless.update_faces(lidless.face_normals[:, 2] < 0.5)
    assert mesh_body(lidless).surface is not None


def test_the_quick_answer_for_two_concave_bodies_is_a_bound_on_the_true_one():
    rng = np.random.default_rng(0)
    a, b = (
        mesh_body(trimesh.creation.annulus(0.05, 0.07, 0.1)),
        mesh_body(trimesh.creation.annulus(0.2, 0.25, 0.1)),
    )
    quick_says_free = 0
    for _ in range(100):
        turn = rotation_about([0, 0, 0], rng.normal(size=3), rng.uniform(0, 3))
        X = coal.Transform3s(turn[:3, :3], rng.uniform(-0.3, 0.3, 3))
        truth = signed_distance(a, X, b, coal.Transform3s(), 1.0)
        quick = signed_distance(a, X, b, coal.Transform3s(), 1.0, 0.0)
        assert quick <= truth + 1e-5  # GJK stops at a millionth
        quick_says_free += quick > 0
    assert quick_says_free > 50


@pytest.mark.parametrize("sides", [32, 256, 2000])
def test_flat_faces_of_many_corners(sides):
    plate = mesh_body(trimesh.creation.cylinder(0.1, 0.02, sections=sides))
    ball = mesh_body(trimesh.creation.icosphere(subdivisions=4, radius=0.05))
    for direction, distance in (
        ([0, 0, 1], 0.06),
        ([0, 0, -1], 0.06),
        ([1, 0, 0], 0.15),
        ([0, 1, 0], 0.15),
    ):
        X = coal.Transform3s(np.eye(3), (distance + 0.01) * np.array(direction, float))
        assert signed_distance(ball, X, plate, coal.Transform3s(), 1.0) == pytest.approx(
            0.01, abs=1e-3
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda arm: validate(arm, moving(turned([0, 0.1])), {}),
            "worlds: expected one for phase 2",
        ),
        (
            lambda arm: validate(arm, moving(turned([0, 0.1]), names=("a", "b", "c")), world()),
            "trajectory.joint_names",
        ),
        (
            lambda arm: validate(arm, moving(turned([0, 0.1])), world(touch=[("hand", "x")])),
            "no link 'hand' in planar",
        ),
        (lambda _: PhaseWorld((("a", BLOCK), ("a", BLOCK))), "'a' is there twice"),
        (lambda _: PhaseWorld((("a", trimesh.Trimesh()),)), "expected a finite mesh"),
        (lambda _: ValidationOptions(resolution=0), "ValidationOptions.resolution"),
    ],
)
def test_bad_input_is_named(arm, call, message):
    with pytest.raises(ValueError, match=message):
        call(arm)
