"""Antipodal proposals: contact with the object, and collisions with everything else."""

import numpy as np
import pytest
import trimesh
from grasp_fixtures import BoxGripper, cup, scanned

from flowplan.geometry import exp_so3, inverse, pose, transform
from flowplan.grasp.antipodal import antipodal_pairs
from flowplan.grasp.candidates import best_first, merge, no_candidates, spread
from flowplan.grasp.contact import close_pads
from flowplan.grasp.gripper_clearance import Boxes, clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.propose import (
    GraspOptions,
    grasp_proposal,
    propose_grasps,
)
from flowplan.grasp.surface import object_cloud, sample_surface
from flowplan.scene import Scene, SceneObject

GRIPPER = BoxGripper()


def standing(mesh, name="thing", at=(0.5, 0.1), turn=0.3):
    return SceneObject(name, mesh, pose(exp_so3([0, 0, turn]), [*at, -mesh.bounds[0, 2]]))


def in_boxes(X, boxes, points):
    """Reference for clear_of_points: one pose, one box at a time."""
    hit = np.zeros(len(X), bool)
    for g in range(len(X)):
        local = transform(inverse(X[g]), points)
        for low, high in zip(boxes.lower[g], boxes.upper[g], strict=True):
            hit[g] |= np.any(np.all((local > low) & (local < high), axis=1))
    return hit


def random_poses(count, rng, scale=0.1):
    return pose(exp_so3(rng.normal(size=(count, 3)) * 1.5), rng.normal(0, scale, (count, 3)))


def test_surface_points_are_even_and_on_the_surface():
    box = trimesh.creation.box([0.1, 0.2, 0.3])
    surface = sample_surface(box, 2200, np.random.default_rng(0))
    assert np.abs(np.abs(surface.points / [0.05, 0.1, 0.15]).max(1) - 1).max() < 1e-9
    assert surface.area * 2200 == pytest.approx(box.area)
    on_top = np.sum(surface.normals[:, 2] > 0.9)
    assert on_top == pytest.approx(2200 * 0.02 / box.area, abs=2)


def test_surface_of_an_inside_out_mesh_has_outward_normals():
    ball = trimesh.creation.icosphere(3, 0.05)
    inside_out = trimesh.Trimesh(ball.vertices, ball.faces[:, ::-1], process=False)
    surface = sample_surface(inside_out, 500, np.random.default_rng(0))
    assert np.all(np.sum(surface.normals * surface.points, axis=1) > 0)


def test_collision_check_agrees_with_the_readable_one():
    rng = np.random.default_rng(0)
    X = random_poses(200, rng)
    boxes = gripper_boxes(GRIPPER, rng.uniform(0, 0.08, 200)).approached(0.03)
    for count in (3, 40, 2500):
        points = rng.normal(0, 0.08, (count, 3))
        assert np.array_equal(clear_of_points(X, boxes, points), ~in_boxes(X, boxes, points))
    far = np.array([4.0, -3.0, 2.0])  # float32 must be exact enough away from the world's origin
    moved = X.copy()
    moved[:, :3, 3] += far
    assert np.array_equal(
        clear_of_points(moved, boxes, points + far), clear_of_points(X, boxes, points)
    )
    assert clear_of_points(X, boxes, np.zeros((0, 3))).all()


def test_swept_boxes_contain_every_box_on_the_way():
    rng = np.random.default_rng(1)
    points = rng.normal(0, 0.06, (3000, 3))
    X = np.eye(4)[None]
    start, end = gripper_boxes(GRIPPER, np.array([0.08])), gripper_boxes(GRIPPER, np.array([0.02]))
    sweep = start.hull(end).approached(0.05)
    swept = points[in_each(sweep, points)]
    for width in (0.02, 0.05, 0.08):
        for back in (0.0, 0.02, 0.05):
            here = gripper_boxes(GRIPPER, np.array([width]))
            shifted = Boxes(here.lower - [0, 0, back], here.upper - [0, 0, back])
            inside = points[in_each(shifted, points)]
            assert {tuple(p) for p in inside} <= {tuple(p) for p in swept}
    assert not in_boxes(X, start, points[~in_each(sweep, points)]).any()


def in_each(boxes, points):
    return np.any(
        [
            np.all((points > lo) & (points < hi), 1)
            for lo, hi in zip(boxes.lower[0], boxes.upper[0], strict=True)
        ],
        axis=0,
    )


def test_lowest_point_is_that_of_the_corners():
    rng = np.random.default_rng(2)
    X = random_poses(30, rng)
    boxes = gripper_boxes(GRIPPER, np.full(30, 0.04))
    signs = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).T.reshape(-1, 1, 3)
    for g in range(30):
        corners = np.where(signs, boxes.upper[g], boxes.lower[g]).reshape(-1, 3)
        assert lowest_point(X, boxes)[g] == pytest.approx(transform(X[g], corners)[:, 2].min())


def test_pads_on_a_slab_measure_its_thickness_and_lie_flat():
    rng = np.random.default_rng(0)
    xz = rng.uniform(-0.02, 0.02, (2, 400, 2))
    points = np.stack(
        [xz[..., 0], np.broadcast_to([[-0.012], [0.018]], (2, 400)), xz[..., 1]], axis=-1
    )[None]
    normals = np.zeros_like(points)
    normals[0, 0, :, 1], normals[0, 1, :, 1] = -1, 1
    pads = close_pads(points, normals, 0.04**2 / 400, GRIPPER, 0.002)
    assert pads.touch.all()
    assert pads.width[0] == pytest.approx(0.03)
    assert pads.offset[0] == pytest.approx(0.003)
    assert pads.tilt.max() < 1e-6
    assert pads.area == pytest.approx(np.prod(GRIPPER.pad_size), rel=0.25)
    behind = points + np.array(
        [[[0, 0.005, 0]], [[0, -0.005, 0]]]
    )  # a second layer that the pads do not reach
    both = close_pads(
        np.concatenate([points, behind], axis=2),
        np.concatenate([normals] * 2, axis=2),
        0.04**2 / 400,
        GRIPPER,
        0.002,
    )
    assert np.allclose(both.area, pads.area)
    assert np.allclose(both.width, pads.width)
    assert pads.centered().offset[0] == 0
    off = close_pads(points + np.array([0.2, 0, 0]), normals, 1e-6, GRIPPER, 0.002)
    assert not off.touch.any()
    assert off.alignment(GRIPPER, 0.5)[0] == 0


def test_pairs_on_a_ball_go_through_its_middle_region():
    ball = standing(trimesh.creation.icosphere(4, 0.03))
    rng = np.random.default_rng(0)
    pairs = antipodal_pairs(ball, object_cloud(ball, GRIPPER, rng), rng, samples=3000, friction=0.3)
    assert len(pairs) > 1000
    middle = 0.5 * (pairs.first + pairs.second)
    # A chord within both friction cones passes the center within r sin(arctan mu).
    away = np.linalg.norm(middle - ball.X_world_object[:3, 3], axis=1)
    assert away.max() < 0.03 * np.sin(np.arctan(0.3)) + 1e-3


def test_a_cup_is_found_by_its_wall_and_across_its_opening():
    thing = standing(cup())
    rng = np.random.default_rng(0)
    pairs = antipodal_pairs(
        thing, object_cloud(thing, GRIPPER, rng), rng, samples=3000, friction=0.5
    )
    assert np.sum(pairs.width < 0.006) > 50
    assert np.sum(np.abs(pairs.width - 0.07) < 0.004) > 50


@pytest.mark.parametrize(
    "mesh", [scanned(trimesh.creation.box([0.05, 0.08, 0.12])), scanned(cup())]
)
def test_grasps_are_collision_free_above_the_support_and_close_on_the_object(mesh):
    thing = standing(mesh)
    scene = Scene((thing,))
    grasps = propose_grasps(thing, scene, GRIPPER, seed=3)
    assert len(grasps) == 100
    assert np.all((grasps.width > 0) & (grasps.width <= GRIPPER.max_width))
    boxes = gripper_boxes(GRIPPER, grasps.width)
    assert lowest_point(grasps.X_world_tool, boxes).min() > 0
    fresh = transform(
        thing.X_world_object, sample_surface(mesh, 20_000, np.random.default_rng(9)).points
    )
    assert in_boxes(grasps.X_world_tool, boxes, fresh).mean() < 0.02
    # Part of the object is between the pads, and both pads meet it at the same time.
    for X, width in zip(grasps.X_world_tool[:20], grasps.width[:20], strict=True):
        local = transform(inverse(X), fresh)
        held = local[(np.abs(local) < [0.00875, 0.5 * width, 0.009]).all(1), 1]
        assert held.min() < 0 < held.max()
        assert abs(held.min() + held.max()) < 0.004


def test_the_palm_stays_clear_of_what_is_in_front_of_it():
    thing = standing(trimesh.creation.box([0.05, 0.05, 0.16]))
    points = transform(
        thing.X_world_object, sample_surface(thing.mesh, 20_000, np.random.default_rng(9)).points
    )
    for gap in (0.007, 0.02):
        grasps = propose_grasps(
            thing, Scene((thing,)), GRIPPER, GraspOptions(palm_clearance=gap), seed=3
        )
        centers, sizes = GRIPPER.boxes(0.08)
        ahead = []
        for X in grasps.X_world_tool:
            local = transform(inverse(X), points) - centers[2, :3, 3]
            in_front = (np.abs(local[:, :2]) < sizes[2, :2] / 2).all(1) & (local[:, 2] > 0)
            ahead.append(local[in_front, 2].min() - sizes[2, 2] / 2)
        # The deepest grasp uses all of the clearance, up to the spacing of the object's points.
        assert gap - 0.005 < min(ahead) < gap + 0.01


def test_grasps_keep_away_from_a_close_neighbor():
    thing = standing(trimesh.creation.box([0.04, 0.04, 0.1]), turn=0.0)
    alone = propose_grasps(thing, Scene((thing,)), GRIPPER)
    wall = SceneObject(
        "wall", trimesh.creation.box([0.02, 0.3, 0.3]), pose(translation=[0.545, 0.1, 0.15])
    )
    beside = propose_grasps(thing, Scene((thing,), obstacles=(wall,)), GRIPPER)
    points = transform(
        wall.X_world_object, sample_surface(wall.mesh, 20_000, np.random.default_rng(0)).points
    )

    def hits(grasps):
        boxes = gripper_boxes(GRIPPER, grasps.width)
        return in_boxes(grasps.X_world_tool, boxes, points).mean()

    assert hits(alone) > 0.1
    assert hits(beside) < 0.02


def test_the_best_grasps_are_near_the_center_of_mass():
    rod = standing(trimesh.creation.box([0.3, 0.03, 0.03]))
    grasps = propose_grasps(rod, Scene((rod,)), GRIPPER)
    away = np.linalg.norm(grasps.X_world_tool[:, :3, 3] - rod.X_world_object[:3, 3], axis=1)
    assert away[:10].mean() < 0.025
    assert away[:10].mean() < away[-10:].mean()


def test_only_the_allowed_faces_are_held():
    mesh = trimesh.util.concatenate(
        [trimesh.creation.box([0.04, 0.04, 0.06]), trimesh.creation.box([0.04, 0.04, 0.06])]
    )
    mesh.vertices[8:, 0] += 0.2
    thing = standing(mesh, turn=0.0)
    grasps = propose_grasps(thing, Scene((thing,)), GRIPPER, faces=np.arange(24) >= 12)
    assert len(grasps)
    assert np.all(
        np.abs(transform(inverse(thing.X_world_object), grasps.X_world_tool[:, :3, 3])[:, 0] - 0.2)
        < 0.05
    )
    with pytest.raises(ValueError, match=r"faces: expected shape \(24,\)"):
        propose_grasps(thing, Scene((thing,)), GRIPPER, faces=np.ones(5, bool))


def test_moving_the_world_moves_the_grasps():
    mesh = scanned(trimesh.creation.box([0.05, 0.08, 0.12]))
    a = standing(mesh, at=(0.5, 0.1), turn=0.0)
    b = standing(mesh, at=(-0.2, 0.4), turn=0.9)
    first, second = (propose_grasps(o, Scene((o,)), GRIPPER) for o in (a, b))
    local = [inverse(o.X_world_object) @ g.X_world_tool for o, g in ((a, first), (b, second))]
    # The same seed draws the same rays, and rolls start from "down" in both, so the poses agree in
    # the object frame, except for a few that depend on rounding errors.
    same = np.abs(local[0][:, None] - local[1][None]).max((2, 3)).min(1) < 1e-3
    assert same[:5].all()
    assert same.mean() > 0.8


def test_one_seed_one_answer():
    thing = standing(scanned(cup()))
    first, second = (propose_grasps(thing, Scene((thing,)), GRIPPER, seed=5) for _ in range(2))
    assert np.array_equal(first.X_world_tool, second.X_world_tool)
    assert not np.array_equal(
        first.X_world_tool, propose_grasps(thing, Scene((thing,)), GRIPPER, seed=6).X_world_tool
    )


@pytest.mark.parametrize(
    ("mesh", "stage"),
    [
        (trimesh.creation.box([0.2, 0.2, 0.2]), "no wider than the gripper"),
        (
            trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False),
            "surface points",
        ),
        (
            trimesh.Trimesh([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]], process=False),
            "antipodal pairs",
        ),
    ],
)
def test_nothing_to_hold_is_an_empty_answer_with_a_reason(mesh, stage):
    thing = SceneObject("thing", mesh)
    proposal = grasp_proposal(thing, Scene((thing,)), GRIPPER)
    assert len(proposal.candidates) == 0
    assert stage in proposal.reason.split("(")[0] + proposal.reason
    assert f"no candidate left after '{stage}" in proposal.reason


def test_an_open_bowl_shell_and_a_noisy_scan_still_give_grasps():
    ball = trimesh.creation.icosphere(4, 0.06)
    shell = ball.submesh([np.flatnonzero(ball.triangles_center[:, 2] < 0)], append=True)
    thick = trimesh.util.concatenate(
        [shell, trimesh.Trimesh(shell.vertices * 0.93, shell.faces[:, ::-1])]
    )
    thing = standing(thick)
    assert not thick.is_watertight
    assert len(propose_grasps(thing, Scene((thing,)), GRIPPER)) > 20


def test_spread_takes_no_two_alike_and_fills_up():
    X = pose(
        exp_so3([[0, 0, 0], [0, 0, np.pi], [0, 0, 0.5], [0, 0, 0]]),
        [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0.1, 0, 0]],
    )
    score = np.array([1.0, 0.9, 0.8, 0.7])
    assert spread(X, score, 3, distance=0.02, angle=0.2).tolist() == [
        0,
        2,
        3,
    ]  # a turn by 180 degrees gives the same grasp
    assert spread(X, score, 4, distance=0.02, angle=0.2).tolist() == [0, 1, 2, 3]


def test_merge_keeps_the_best_first():
    X = pose(translation=np.zeros((2, 3)))
    a = best_first(X, np.zeros(2), np.array([0.1, 0.9]), "grasp", 0)
    b = best_first(X, np.zeros(2), np.array([0.5, 0.2]), "push", 0)
    both = merge([a, no_candidates(), b])
    assert both.kind == ("grasp", "push", "push", "grasp")
    assert len(merge([])) == 0


@pytest.mark.parametrize("field", ["count", "samples", "perturbations"])
def test_bad_options_are_named(field):
    with pytest.raises(ValueError, match=f"GraspOptions.{field}"):
        GraspOptions(**{field: 0})
