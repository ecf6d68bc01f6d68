from dataclasses import replace

import numpy as np
import pytest
import trimesh

from flowplan.collision.distance_field import DistanceField, _as_box, distance_field
from flowplan.collision.phase_geometry import _mean_thickness, is_deformable, phase_geometry
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.geometry import exp_so3, inverse, pose, rotation_about, transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject

LOWER, UPPER = np.array([-0.5, -0.5, -0.2]), np.array([0.5, 0.5, 0.8])


def box_distance(points, X, size):
    d = np.abs(transform(inverse(X), points)) - np.asarray(size) / 2
    return np.linalg.norm(np.maximum(d, 0), axis=-1) + np.minimum(d.max(axis=-1), 0)


def somewhere(count=4000, seed=0):
    return np.random.default_rng(seed).uniform(LOWER + 0.01, UPPER - 0.01, (count, 3))


@pytest.fixture(scope="module")
def boxes():
    X = [pose(exp_so3([0.3, 0.4, 0.5]), [0.1, 0.1, 0.3]), pose(None, [-0.2, 0.0, 0.1])]
    sizes = [[0.2, 0.1, 0.3], [0.1, 0.3, 0.1]]
    meshes = [trimesh.creation.box(s, transform=x) for s, x in zip(sizes, X, strict=True)]
    return meshes, lambda p: np.minimum(
        *[box_distance(p, x, s) for x, s in zip(X, sizes, strict=True)]
    )


def test_boxes_against_their_formula(boxes):
    meshes, exact = boxes
    field = distance_field(meshes, lower=LOWER, upper=UPPER, voxel=0.01)
    p = somewhere()
    d = exact(p)
    found, _ = field.query(p)
    np.testing.assert_allclose(found, np.minimum(d, 0.3), atol=0.008)
    assert np.abs(found - d)[np.abs(d) < 0.03].mean() < 5e-4


def test_a_solid_mesh_is_signed_and_an_open_one_a_shell():
    ball = trimesh.creation.icosphere(4, 0.15)
    ball.apply_translation([0.0, 0.0, 0.3])
    p = somewhere()
    d = np.linalg.norm(p - [0, 0, 0.3], axis=1) - 0.15
    solid = distance_field([ball], lower=LOWER, upper=UPPER, voxel=0.02)
    np.testing.assert_allclose(solid.distance(p), np.minimum(d, 0.3), atol=0.01)
    half = ball.copy()
    half.update_faces(half.triangles_center[:, 2] > 0.3)
    open_field = distance_field([half], lower=LOWER, upper=UPPER, voxel=0.02)
    above = (p[:, 2] > 0.32) & (d < 0.25)
    np.testing.assert_allclose(open_field.distance(p[above]), np.abs(d[above]) - 0.01, atol=0.012)
    assert open_field.distance(np.array([[0.0, 0.0, 0.45]]))[0] < 0


def test_overlapping_closed_parts_of_one_mesh_stay_solid():
    a = trimesh.creation.icosphere(3, 0.12)
    b = trimesh.creation.icosphere(3, 0.12)
    b.apply_translation([0.08, 0.0, 0.0])
    both = trimesh.util.concatenate([a, b])
    both.apply_translation([0.0, 0.0, 0.3])
    field = distance_field([both], lower=LOWER, upper=UPPER, voxel=0.01)
    assert field.distance(np.array([[0.04, 0.0, 0.3]]))[0] < -0.05


def test_support_plane_is_exact_and_endless(boxes):
    field = distance_field([], lower=LOWER, upper=UPPER, voxel=0.05, support_height=0.1)
    p = np.array([[0.0, 0.0, 0.15], [0.0, 0.0, 0.05], [9.0, 9.0, 0.2], [9.0, 9.0, -3.0]])
    d, g = field.query(p)
    np.testing.assert_allclose(d, [0.05, -0.05, 0.1, -3.1], atol=1e-12)
    np.testing.assert_array_equal(g, np.broadcast_to([0.0, 0.0, 1.0], (4, 3)))
    np.testing.assert_allclose(field.distance(p), d, atol=1e-12)


def test_gradient_against_finite_differences(boxes):
    field = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02)
    p = somewhere(500)
    u = (p - LOWER) / 0.02
    p = p[
        (np.abs(u - np.round(u)) > 0.02).all(axis=1)
    ]  # the interpolant has kinks at the samples' planes
    _, g = field.query(p)
    h = 1e-5
    for axis in range(3):
        step = h * np.eye(3)[axis]
        slope = (field.query(p + step)[0] - field.query(p - step)[0]) / (2 * h)
        np.testing.assert_allclose(g[:, axis], slope, atol=2e-3)


def test_gradient_points_away_from_the_obstacle(boxes):
    field = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02)
    p = somewhere(2000)
    d, g = field.query(p)
    near = np.abs(d) < 0.2
    assert np.median(np.linalg.norm(g[near], axis=1)) == pytest.approx(1.0, abs=0.05)
    moved = field.distance(p[near] + 0.01 * g[near])
    assert np.mean(moved > d[near]) > 0.97


def test_distance_query_and_bound_agree(boxes):
    field = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02, support_height=0.0)
    p = np.concatenate([somewhere(), somewhere() * 3, [LOWER, UPPER]])
    d, _ = field.query(p)
    np.testing.assert_allclose(field.distance(p), d, atol=1e-7)
    bound = field.lower_bound(p)
    assert np.all(bound <= d + 1e-6)
    assert np.median(d - bound) < 0.04
    assert field.query(p.reshape(2, -1, 3))[1].shape == (2, len(p) // 2, 3)


def test_outside_the_grid_the_border_answers(boxes):
    field = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02)
    d, g = field.query(np.array([[0.1, 0.1, 5.0], [0.1, 0.1, 0.8]]))
    assert d[0] == d[1]
    assert g[0, 2] == 0.0
    assert np.isfinite(field.distance(np.array([[1e6, -1e6, 1e6]]))).all()


def test_moving_the_world_moves_the_field(boxes):
    shift = np.array([0.3, -0.2, 0.1])
    here = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02)
    moved = [m.copy().apply_translation(shift) for m in boxes[0]]
    there = distance_field(moved, lower=LOWER + shift, upper=UPPER + shift, voxel=0.02)
    np.testing.assert_allclose(there.values, here.values, atol=1e-6)


@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.box([0.1, 0.05, 0.2]),
        trimesh.creation.cylinder(0.03, 0.15),
        trimesh.creation.icosphere(3, 0.05),
        trimesh.Trimesh([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]]),
    ],
    ids=["box", "cylinder", "ball", "triangle"],
)
def test_sphere_cover_contains_the_surface_without_much_overhang(mesh):
    overhang = []
    for count in (4, 32):
        spheres = sphere_cover(mesh, count)
        assert len(spheres) <= count
        points = trimesh.sample.sample_surface(mesh, 2000, seed=1)[0]
        gap = np.linalg.norm(points[:, None] - spheres[:, :3], axis=2) - spheres[:, 3]
        assert gap.min(axis=1).max() < 4e-3
        overhang.append(spheres[:, 3].max())
    assert overhang[1] <= overhang[0]
    np.testing.assert_array_equal(sphere_cover(mesh, 8), sphere_cover(mesh, 8))


def test_bad_input_is_one_line_that_names_the_field():
    empty = trimesh.Trimesh()
    broken = trimesh.creation.box([1, 1, 1])
    broken.vertices[0] = np.nan
    for mesh in (empty, broken):
        with pytest.raises(ValueError, match=r"meshes\[0\]: expected a finite mesh with faces"):
            distance_field([mesh], lower=LOWER, upper=UPPER, voxel=0.02)
        with pytest.raises(ValueError, match=r"mesh: expected a finite mesh with faces"):
            sphere_cover(mesh, 3)
    with pytest.raises(ValueError, match=r"voxel: .* voxels; take larger"):
        distance_field([], lower=LOWER, upper=UPPER, voxel=0.001)
    with pytest.raises(ValueError, match=r"upper: expected a corner above lower"):
        distance_field([], lower=UPPER, upper=LOWER, voxel=0.1)
    with pytest.raises(ValueError, match=r"count: expected at least 1"):
        sphere_cover(trimesh.creation.box(), 0)
    with pytest.raises(ValueError, match=r"DistanceField.values: expected at least 2 voxels"):
        DistanceField(LOWER, 0.1, np.zeros((1, 2, 2), np.float32))


def test_the_lower_bound_is_the_nearest_sample_less_one_and_a_half_voxels(boxes):
    field = distance_field(boxes[0], lower=LOWER, upper=UPPER, voxel=0.02)
    shape = field.values.shape
    # At the samples themselves, the last along each axis too.
    index = np.random.default_rng(3).integers(0, shape, (200, 3))
    index[:3] = [[shape[0] - 1, 4, 5], [4, shape[1] - 1, 5], [4, 5, shape[2] - 1]]
    bound = field.lower_bound(field.origin + 0.02 * index)
    np.testing.assert_allclose(bound, field.values[tuple(index.T)] - 0.03, atol=1e-6)


def test_a_box_is_known_at_any_pose_and_a_skewed_one_is_no_box():
    box = trimesh.creation.box([0.2, 0.1, 0.3], transform=pose(exp_so3([0.3, 0.4, 0.5]), [0, 0, 1]))
    X, half = _as_box(box)
    corners = np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=-1).reshape(-1, 3) * half
    ours, theirs = transform(X, corners), np.asarray(box.vertices)
    gaps = np.linalg.norm(ours[:, None] - theirs, axis=-1)
    np.testing.assert_allclose(gaps.min(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(np.sort(half), [0.05, 0.1, 0.15], atol=1e-9)
    skewed = trimesh.creation.box([0.2, 0.1, 0.3])
    skewed.vertices = np.asarray(skewed.vertices) + 0.5 * skewed.vertices[:, 2:] * [1.0, 0.0, 0.0]
    assert _as_box(skewed) is None
    # Its field is that of its own faces: half a meter off, and where the box would have been.
    field = distance_field([skewed], lower=LOWER, upper=UPPER, voxel=0.01)
    upper_face, cut_corner = [[0.075, 0.0, 0.2]], [[-0.09, 0.0, 0.14]]
    assert field.distance(np.array(upper_face))[0] == pytest.approx(0.05, abs=2e-3)
    assert field.distance(np.array(cut_corner))[0] > 0.05


def test_more_spheres_cover_more_closely():
    mesh = trimesh.creation.box([0.4, 0.1, 0.1])
    few, many = (sphere_cover(mesh, count=count) for count in (1, 16))
    assert len(few) == 1
    assert 8 <= len(many) <= 16
    assert many[:, 3].max() < 0.6 * few[0, 3]


def sheet_motion(height, bend):
    """A sheet of 30 cm at a height, one half of which folds up by `bend` radians."""
    sheet = trimesh.creation.box([0.3, 0.3, 0.002])
    sheet = sheet.subdivide().subdivide()
    obj = SceneObject("sheet", sheet, pose(None, [0.5, 0.0, height + 0.001]))
    start = obj.vertices_world
    turned = transform(rotation_about([0.5, 0.0, height], [0, -1, 0], bend), start)
    end = np.where(start[:, :1] > 0.5, turned, start)
    return Scene((obj,), 0.0), SceneMotion([0.0, 1.0], (np.stack([start, end]),))


def test_cloth_is_guessed_by_its_place_its_thickness_and_its_bend():
    assert is_deformable(*sheet_motion(0.0, 1.0), 0)
    # In the air; stiff; or told.
    assert not is_deformable(*sheet_motion(0.2, 1.0), 0)
    assert not is_deformable(*sheet_motion(0.0, 0.0), 0)
    scene, motion = sheet_motion(0.2, 1.0)
    told = Scene((replace(scene.objects[0], deformable=True),), 0.0)
    assert is_deformable(told, motion, 0)
    # Without a support nothing lies on it.
    assert not is_deformable(Scene(scene.objects, None), sheet_motion(0.0, 1.0)[1], 0)


def test_the_support_is_a_slab_whose_top_is_at_its_height():
    scene, motion = sheet_motion(0.0, 0.3)
    scene = Scene(scene.objects, 0.15, (SceneObject("support", trimesh.creation.box([0.1] * 3)),))
    around = phase_geometry(scene, motion, 0)
    ((name, slab),) = around.support()
    assert name == "support (2)"
    np.testing.assert_allclose(slab.bounds, [[-2, -2, -0.05], [2, 2, 0.15]], atol=1e-9)
    assert phase_geometry(Scene(scene.objects, None), motion, 0).support() == ()


def test_each_phase_has_what_is_there():
    # A lid folds over a standing half, beside a ball that rolls away and a post that stands.
    lid, folding = sheet_motion(0.1, 1.2)
    ball = SceneObject("ball", trimesh.creation.icosphere(1, 0.05), pose(None, [0, 0.4, 0.05]))
    post = SceneObject("post", trimesh.creation.box([0.1] * 3), pose(None, [0, -0.4, 0.05]))
    wall = SceneObject("wall", trimesh.creation.box([0.1] * 3), pose(None, [1.0, 0, 0.05]))
    objects = (replace(lid.objects[0], deformable=False), ball, post)
    scene = Scene(objects, 0.0, (wall,))
    way = np.linspace(0, 0.3, 3)[:, None, None] * [0.0, 1.0, 0.0]
    sheet = folding.vertices[0]
    motion = SceneMotion(
        [0.0, 1.0, 2.0],
        (
            np.stack([sheet[0], 0.5 * (sheet[0] + sheet[1]), sheet[1]]),
            ball.vertices_world + way,
            np.broadcast_to(post.vertices_world, (3, 8, 3)),
        ),
    )
    around = phase_geometry(scene, motion, 0)
    names = [[name for name, _ in part] for part in (around.before, around.during, around.after)]
    assert names[0] == names[2] == ["wall", "sheet", "ball", "post"]
    assert names[1] == [
        "wall", "sheet", "ball", "ball in the middle", "ball at the end", "post",
    ]  # fmt: skip
    assert [name for name, _ in around.static] == ["wall", "sheet", "post"]
    during, after = dict(around.during), dict(around.after)
    np.testing.assert_allclose(during["ball in the middle"].bounds.mean(0), [0, 0.55, 0.05])
    np.testing.assert_allclose(after["ball"].bounds.mean(0), [0, 0.7, 0.05])
    # The half that stands is an obstacle, the other one moves with the hand.
    assert during["sheet"].bounds[1, 0] < 0.6
    assert around.moving.bounds[0, 0] >= 0.5 - 1e-9
    assert not around.deformable


def test_the_thickness_of_a_plate_is_twice_its_volume_over_its_area():
    plate = trimesh.creation.box([0.3, 0.2, 0.01], transform=pose(exp_so3([0.3, 1, 0]), [1, 2, 3]))
    expected = 2 * 0.3 * 0.2 * 0.01 / (2 * (0.3 * 0.2 + 0.3 * 0.01 + 0.2 * 0.01))
    assert _mean_thickness(plate.vertices, plate.faces) == pytest.approx(expected)
    # One open layer has no volume.
    layer = plate.faces[plate.face_normals @ pose(exp_so3([0.3, 1, 0]))[:3, 2] > 0.9]
    assert (
        _mean_thickness(plate.vertices[np.unique(layer)], np.searchsorted(np.unique(layer), layer))
        < 1e-12
    )
