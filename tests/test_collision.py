import numpy as np
import pytest
import trimesh

from flowplan.collision.distance_field import DistanceField, distance_field
from flowplan.collision.sphere_cover import sphere_cover
from flowplan.geometry import exp_so3, inverse, pose, transform

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
