"""Whether an object rests where it is let go, beside the answers of analytic statics."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from flowplan.attachment.screw import Screw
from flowplan.geometry import exp_so3, pose, transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.statics import RestOptions, Solid, Supports, balance, rest_at_end
from flowplan.statics.joint import joint_load
from tests.moving_boxes import hinge, pick_and_place, slide
from tests.statics_oracle import compare

TIMES = np.linspace(0, 1, 11)


def box(name, size, center, R=None) -> SceneObject:
    return SceneObject(name, trimesh.creation.box(size), pose(R, center))


def put(mesh, X, *, obstacles=(), others=(), height=0.0) -> tuple[Scene, SceneMotion]:
    """A thing that comes from above and ends at pose X, without a turn on its way."""
    end = transform(np.asarray(X, float), mesh.vertices)
    way = np.linspace(1, 0, len(TIMES))[:, None, None] * [0.2, 0.1, 0.3]
    obj = SceneObject("thing", trimesh.Trimesh(end + way[0], mesh.faces, process=False))
    still = tuple(np.repeat(o.vertices_world[None], len(TIMES), 0) for o in others)
    scene = Scene((obj, *others), height, tuple(obstacles))
    return scene, SceneMotion(TIMES, (end + way, *still))


def rest(*placed, **options):
    return rest_at_end(*placed, 0, **options)


@pytest.mark.parametrize(("d", "h"), [(0.02, 0.08), (0.03, 0.02), (0.008, 0.09), (0.004, 0.06)])
def test_a_tilt_raises_the_center_of_mass_of_a_box_as_trigonometry_says(d, h):
    """By d sin(tilt) - h (1 - cos(tilt)) toward the near edge."""
    body = Solid(*mesh(trimesh.creation.box((2 * d, 0.2, 2 * h)), [0, 0, h]))
    tilt = 0.1
    found = balance(body, Supports((), 0.0, body), RestOptions(tilt=tilt))
    assert found.rise == pytest.approx(d * np.sin(tilt) - h * (1 - np.cos(tilt)), abs=1e-6)
    assert found.margin == pytest.approx(d, abs=1e-9)
    assert found.drop == pytest.approx(0.0, abs=1e-9)


def mesh(shape, offset):
    return np.asarray(shape.vertices) + offset, np.asarray(shape.faces)


@pytest.mark.parametrize("fine", [0, 3])
@pytest.mark.parametrize(
    ("past", "rests"), [(-0.02, True), (-0.012, True), (0.0, False), (0.01, False), (0.1, False)]
)
def test_over_the_edge_of_a_shelf_the_center_of_mass_decides(fine, past, rests):
    """Whatever the triangles of both."""
    brick, shelf = trimesh.creation.box((0.05, 0.08, 0.06)), trimesh.creation.box((0.4, 0.2, 0.02))
    for _ in range(fine):
        brick, shelf = brick.subdivide(), shelf.subdivide()
    at = pose(translation=[0.5, past, 0.23])
    thing = SceneObject("shelf", shelf, pose(translation=[0.5, -0.1, 0.19]))
    found = rest(*put(brick, at, obstacles=[thing]))
    assert found.rests == rests, found.reason
    if abs(past) < 0.04:
        assert found.margin == pytest.approx(-past, abs=1e-6)


def test_a_mesh_whose_volumes_cancel_has_the_center_of_its_surface():
    """Two boxes side by side, one of them turned inside out."""
    right = trimesh.creation.box((0.1, 0.1, 0.1), transform=pose(translation=[0.2, 0, 0]))
    wrong = trimesh.creation.box((0.1, 0.1, 0.0999))
    wrong.invert()
    both = trimesh.util.concatenate([right, wrong])
    assert both.is_watertight
    body = Solid(both.vertices, both.faces)
    assert not body.closed
    np.testing.assert_allclose(body.center, [0.1, 0, 0], atol=1e-3)
    inside_out = trimesh.creation.box((0.1, 0.1, 0.1))
    inside_out.invert()
    body = Solid(inside_out.vertices, inside_out.faces)
    assert body.closed
    assert body.volume == pytest.approx(1e-3)


@pytest.mark.parametrize(("gap", "rests"), [(0.0, True), (0.009, True), (0.011, False)])
def test_a_drop_is_measured_and_has_a_limit(gap, rests):
    found = rest(
        *put(trimesh.creation.box((0.05, 0.05, 0.1)), pose(translation=[0, 0, 0.05 + gap]))
    )
    assert found.rests == rests
    assert found.drop == pytest.approx(gap, abs=1e-9)


def test_nothing_below_is_an_infinite_fall():
    shape = trimesh.creation.box((0.05, 0.05, 0.1))
    found = rest(*put(shape, pose(translation=[0, 0, 0.05]), height=None))
    assert not found.rests
    assert np.isinf(found.drop)
    assert "nothing is below" in found.reason


@pytest.mark.parametrize(("degrees", "rests"), [(5, True), (14, True), (20, False), (35, False)])
def test_a_slope_holds_what_friction_holds(degrees, rests):
    """Friction 0.3 holds up to 16.7 degrees."""
    R = exp_so3([np.deg2rad(degrees), 0, 0])
    ramp = box("ramp", (0.5, 0.5, 0.02), [0.5, 0, 0.3], R)
    flat = trimesh.creation.box((0.08, 0.08, 0.03))
    found = rest(*put(flat, pose(R, R @ [0, 0, 0.025] + [0.5, 0, 0.3]), obstacles=[ramp]))
    assert found.rests == rests, found.reason
    assert ("slide" in found.reason) == (not rests)


@pytest.mark.parametrize("azimuth", np.deg2rad([0.0, 11.25, 20.0, 33.75]))
def test_a_slope_is_as_steep_in_every_direction(azimuth):
    """Just beyond friction, it slides whatever the direction of descent."""
    around = exp_so3([0, 0, azimuth])
    R = around @ exp_so3([np.arctan(0.306), 0, 0]) @ around.T
    ramp = box("ramp", (0.5, 0.5, 0.02), [0.5, 0, 0.3], R)
    flat = trimesh.creation.box((0.08, 0.08, 0.03))
    found = rest(*put(flat, pose(R, R @ [0, 0, 0.025] + [0.5, 0, 0.3]), obstacles=[ramp]))
    assert "slide" in found.reason


def test_what_rolls_or_balances_on_an_edge_does_not_rest():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.04)
    assert not rest(*put(ball, pose(translation=[0.5, 0, 0.04]))).rests
    can = trimesh.creation.cylinder(0.03, 0.1, sections=128)
    lying, upright = exp_so3([np.pi / 2, 0, 0]), np.eye(3)
    assert not rest(*put(can, pose(lying, [0.5, 0, 0.03]))).rests
    assert rest(*put(can, pose(upright, [0.5, 0, 0.05]))).rests
    cube = trimesh.creation.box((0.06,) * 3)
    edge = exp_so3([np.pi / 4, 0, 0])
    assert not rest(*put(cube, pose(edge, [0.5, 0, 0.03 * np.sqrt(2)]))).rests


def mug() -> trimesh.Trimesh:
    wall = trimesh.creation.annulus(0.03, 0.035, 0.08, sections=48)
    floor = trimesh.creation.cylinder(0.035, 0.005, transform=pose(translation=[0, 0, -0.0375]))
    return trimesh.util.concatenate([wall, floor])


def test_a_mug_stands_upright_and_upside_down_and_not_on_a_thin_rod():
    for turn in (0.0, np.pi):
        assert rest(*put(mug(), pose(exp_so3([turn, 0, 0]), [0.5, 0, 0.04]))).rests
    on = pose(translation=[0.5, 0, 0.24])
    for width, rests in ((0.002, False), (0.05, True)):
        rod = box("rod", (width, 0.3, 0.2), [0.5, 0, 0.1])
        assert rest(*put(mug(), on, obstacles=[rod])).rests == rests


def test_two_thin_rods_carry_what_one_does_not():
    board = trimesh.creation.box((0.1, 0.1, 0.02))
    rods = [box(f"rod {x}", (0.003, 0.3, 0.1), [0.5 + x, 0, 0.05]) for x in (-0.04, 0.04)]
    on = pose(translation=[0.5, 0, 0.11])
    assert rest(*put(board, on, obstacles=rods)).rests
    assert not rest(*put(board, on, obstacles=rods[:1])).rests


def test_what_leans_does_not_rest_and_what_hangs_does():
    slant = exp_so3([0, np.deg2rad(20), 0])
    plank = trimesh.creation.box((0.02, 0.1, 0.3))
    low = -transform(pose(slant), plank.vertices)[:, 2].min()
    x = transform(pose(slant), plank.vertices)[:, 0].max()
    wall = box("wall", (0.02, 0.5, 0.6), [x + 0.01, 0, 0.3])
    assert not rest(*put(plank, pose(slant, [0, 0, low]), obstacles=[wall])).rests
    ring = trimesh.creation.torus(0.04, 0.006)
    peg = box("peg", (0.01, 0.1, 0.01), [0.5, 0, 0.189])
    assert rest(*put(ring, pose(exp_so3([np.pi / 2, 0, 0]), [0.5, 0, 0.16]), obstacles=[peg])).rests


def test_what_carries_it_must_stay_with_its_weight_on_it():
    """A small table whose top reaches far out tips over under a brick at its rim."""
    brick = trimesh.creation.box((0.06, 0.06, 0.06))
    leg = trimesh.creation.box((0.05, 0.05, 0.19), transform=pose(translation=[0.5, 0, 0.095]))
    top = trimesh.creation.box((0.5, 0.06, 0.01), transform=pose(translation=[0.5, 0, 0.195]))
    table = SceneObject("table", trimesh.util.concatenate([leg, top]))
    middle, rim = (pose(translation=[x, 0, 0.23]) for x in (0.5, 0.7))
    assert rest(*put(brick, middle, others=[table])).rests
    found = rest(*put(brick, rim, others=[table]))
    assert not found.rests
    assert "thing on table would tip over" in found.reason


def test_what_moves_carries_only_if_it_rests_itself():
    brick = trimesh.creation.box((0.06, 0.06, 0.06))
    for height, rests in ((0.05, True), (0.15, False)):
        tray = box("tray", (0.1, 0.1, 0.1), [0.5, 0, height])
        scene, motion = put(brick, pose(translation=[0.5, 0, height + 0.08]), others=[tray])
        shift = np.linspace(0.1, 0, len(TIMES))[:, None, None] ** 2 * [0, 10.0, 0]
        moved = SceneMotion(TIMES, (motion.vertices[0], motion.vertices[1] + shift))
        found = rest(scene, moved)
        assert found.rests == rests, found.reason
        if not rests:
            assert "tray cannot carry it" in found.reason


def test_gravity_on_a_lid_is_m_g_r_times_the_sine():
    """A screen of 0.02 x 0.22 x 0.2 m, its center 0.1 m from the hinge."""
    for degrees in (30.0, 45.0, 60.0):
        scene, motion, _ = hinge(degrees)
        found = rest(scene, motion)
        weight = 9.81 * 1000.0 * 0.02 * 0.22 * 0.2
        assert found.load == pytest.approx(weight * 0.1 * np.sin(np.deg2rad(degrees)), rel=0.02)
        assert not found.rests
        assert any("1000 kg/m^3" in line for line in found.assumptions)


def test_the_torque_about_a_known_axis_is_exact():
    """A rod of 0.4 m on a hinge at its end, at angles from the vertical; and along a steep rail."""
    rod = trimesh.creation.box((0.02, 0.02, 0.4), transform=pose(translation=[0, 0, 0.2]))
    weight = 9.81 * 1000.0 * 0.02 * 0.02 * 0.4
    for degrees in (0.0, 10.0, 90.0, 170.0, 180.0):
        X = pose(exp_so3([0, np.deg2rad(degrees), 0]), [0, 0, 1])
        part = Solid(transform(X, rod.vertices), rod.faces)
        load = joint_load(part, screw("hinge", [0, 1, 0], [0, 0, 1]), (), None)
        assert load.load == pytest.approx(weight * 0.2 * np.sin(np.deg2rad(degrees)), abs=1e-9)
        assert load.stays == (degrees in (0.0, 180.0))
        rail = exp_so3([0, np.deg2rad(degrees), 0])[:, 2]
        load = joint_load(part, screw("slide", rail, [0, 0, 0]), (), None)
        assert load.load == pytest.approx(weight * abs(np.cos(np.deg2rad(degrees))), abs=1e-9)
        assert load.stays == (degrees == 90.0)


def screw(kind, direction, point) -> Screw:
    return Screw(
        kind, np.array(direction, float), np.array(point, float), 0.0, np.zeros(2),
        np.tile(np.eye(4), (2, 1, 1)), 0.0, True, np.zeros((2, 3)), np.zeros((5, 5)), np.zeros(2),
    )  # fmt: skip


def test_a_stop_holds_a_rod_that_it_is_in_the_way_of():
    """Held level on a hinge, above a block that it touches, or 5 cm above it."""
    rod = trimesh.creation.box((0.4, 0.02, 0.02), transform=pose(translation=[0.2, 0, 1]))
    part, hinged = Solid(rod.vertices, rod.faces), screw("hinge", [0, 1, 0], [0, 0, 1])
    for gap, held in ((0.0, True), (0.01, True), (0.05, False)):
        block = box("block", (0.05, 0.1, 0.2), [0.35, 0, 0.89 - gap])
        stop = (block.vertices_world, np.asarray(block.mesh.faces))
        load = joint_load(part, hinged, [stop], None)
        assert (load.stays, load.stopped) == (held, held)


def reverse(scene, motion) -> tuple[Scene, SceneMotion]:
    objects = tuple(
        SceneObject(o.name, trimesh.Trimesh(v[-1], o.mesh.faces, process=False))
        for o, v in zip(scene.objects, motion.vertices, strict=True)
    )
    return Scene(objects), SceneMotion(motion.times, tuple(v[::-1] for v in motion.vertices))


def test_a_lid_rests_closed_and_upright_and_a_drawer_anywhere():
    scene, motion, _ = hinge(89.0)
    closed = rest(scene, motion)
    assert closed.rests
    assert "stop" in closed.reason
    upright = rest(*reverse(scene, motion))
    assert upright.rests
    assert upright.load == pytest.approx(0.0, abs=1e-3)
    for way in (0.05, 0.12):
        scene, motion, _ = slide(way)
        opened = rest(scene, motion)
        assert opened.rests, opened.reason
        assert opened.load < 1e-6


def test_a_door_rests_and_a_sash_does_not():
    """The laptop on its side is a door with an upright hinge; the drawer upright is a sash."""
    scene, motion, _ = hinge(45.0)
    door = turned(scene, motion, exp_so3([np.pi / 2, 0, 0]))
    assert rest(*door).rests, rest(*door).reason
    scene, motion, _ = slide(0.12)
    sash = turned(scene, motion, exp_so3([0, np.pi / 2, 0]))
    assert not rest(*sash).rests
    assert "slide" in rest(*sash).reason


def turned(scene, motion, R) -> tuple[Scene, SceneMotion]:
    """The one object turned, its lowest point on the plane at t = 0."""
    vertices = motion.vertices[0] @ R.T
    vertices = vertices - [0, 0, vertices[0, :, 2].min()]
    obj = scene.objects[0]
    start = trimesh.Trimesh(vertices[0], obj.mesh.faces, process=False)
    return Scene((SceneObject(obj.name, start),)), SceneMotion(motion.times, (vertices,))


def test_a_base_that_slides_along_does_not_lock_the_joint():
    """A laptop that is shifted while its lid is let go half open."""
    scene, motion, _ = hinge(45.0)
    shift = np.linspace(0, 0.1, len(motion.times))[:, None, None] * [0, 1, 0]
    found = rest(scene, SceneMotion(motion.times, (motion.vertices[0] + shift,)))
    assert not found.rests
    assert found.load > 0.1


def test_a_cup_rests_on_its_coaster_and_not_in_the_air():
    scene, motion, _ = pick_and_place()
    assert rest(scene, motion).rests
    for frame in (5, 8, 11):
        short = SceneMotion(motion.times[:frame], tuple(v[:frame] for v in motion.vertices))
        assert not rest(scene, short).rests


def test_a_cloth_lies_on_the_table_and_not_over_its_end():
    grid = np.stack(np.meshgrid(np.linspace(0, 0.3, 16), np.linspace(0, 0.3, 16)), -1).reshape(
        -1, 2
    )
    faces = [(i, i + 1, i + 16) for i in range(239) if i % 16 < 15] + [
        (i + 1, i + 17, i + 16) for i in range(239) if i % 16 < 15
    ]
    sheet = trimesh.Trimesh(np.c_[grid, np.zeros(256)], faces, process=False)
    for height, rests in ((0.005, True), (0.1, False)):
        placed = put(sheet, pose(translation=[0.4, 0, height]))
        assert rest(*placed, deformable=True).rests == rests
    board = box("board", (0.4, 0.2, 0.02), [0.5, 0.05, 0.19])
    half = put(sheet, pose(translation=[0.4, 0, 0.202]), obstacles=[board])
    assert not rest(*half, deformable=True).rests


def test_large_fine_and_many_things_cost_little():
    """A floor of 1 km, a statue of 300,000 triangles and 300 boxes elsewhere change nothing."""
    brick = trimesh.creation.box((0.05, 0.08, 0.06))
    floor = box("floor", (1000, 1000, 0.1), [0, 0, -0.05])
    statue = SceneObject(
        "statue",
        trimesh.creation.icosphere(subdivisions=7, radius=0.1),
        pose(translation=[2, 0, 0]),
    )
    others = [box(f"box {i}", (0.05,) * 3, [-1 - 0.1 * (i % 20), 0.1 * i, 0]) for i in range(300)]
    placed = put(
        brick, pose(translation=[0, 0, 0.03]), obstacles=[floor, statue, *others], height=None
    )
    found = rest(*placed)
    assert found.rests, found.reason
    assert found.margin == pytest.approx(0.025, abs=1e-6)


def test_nothing_that_statics_let_go_falls_in_a_simulator():
    """Random bodies on tables, boards, beams and slopes; what is held without need is rare."""
    verdicts = compare(range(20))
    assert verdicts[True, False] == 0
    assert verdicts[True, True] > 2 * verdicts[False, True]
    assert verdicts[False, False] > 3


@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_is_the_same_wherever_the_table_is(seed):
    """Turned about the vertical and shifted together, by any amount."""
    rng = np.random.default_rng(seed)
    X = pose(exp_so3([0, 0, rng.uniform(-3, 3)]), rng.uniform(-1, 1, 3))
    for past, rests in ((-0.02, True), (0.01, False)):
        shelf = trimesh.creation.box(
            (0.4, 0.2, 0.02), transform=pose(translation=[0.5, -0.1, 0.19])
        )
        shelf.apply_transform(X)
        at = X @ pose(translation=[0.5, past, 0.23])
        scene = put(
            trimesh.creation.box((0.05, 0.08, 0.06)),
            at,
            obstacles=[SceneObject("shelf", shelf)],
            height=float(X[2, 3]),
        )
        assert rest(*scene).rests == rests


def test_noise_of_a_scan_changes_neither_verdict():
    rng = np.random.default_rng(0)
    for past, rests in ((-0.02, True), (0.012, False)):
        brick = trimesh.creation.box((0.05, 0.08, 0.06))
        for _ in range(4):
            brick = brick.subdivide()
        brick.vertices += rng.normal(0, 4e-4, brick.vertices.shape)
        shelf = box("shelf", (0.4, 0.2, 0.02), [0.5, -0.1, 0.19])
        found = rest(*put(brick, pose(translation=[0.5, past, 0.231]), obstacles=[shelf]))
        assert found.rests == rests, found.reason
