"""Mesh driving against closed forms: rigid, hinged and bent motions, seams, outliers, pieces."""

import numpy as np
import pytest
import trimesh

from flowplan.geometry import exp_se3, pose, quat_wxyz_from_matrix, rotation_about, transform
from generators.common.drive_options import DriveOptions
from generators.common.mesh_driving import drive_mesh

rng = np.random.default_rng(7)
T = 5


def dual_quaternions(X):
    r, t = quat_wxyz_from_matrix(X[..., :3, :3]), X[..., :3, 3]
    w, v = r[..., :1], r[..., 1:]
    dual = np.concatenate([-(t * v).sum(-1, keepdims=True), w * t + np.cross(t, v)], -1) / 2
    return np.concatenate([r, dual], -1)


REST = dual_quaternions(pose())


def box(extents, center, edge=0.2):
    return trimesh.creation.box(extents, transform=pose(translation=center)).subdivide_to_size(edge)


def sampled(mesh, count=2000):
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points), np.asarray(faces)


BASE, LID = (
    box([2, 1.4, 1.0], [0, 0, -0.2]),
    box([2, 1.4, 0.1], [0, 0, 0.35]),
)  # the lid lies on the base
BOX = trimesh.util.concatenate([BASE, LID])
POINTS, POINT_FACES = sampled(BOX)
OPEN = rotation_about([0, -0.7, 0.3], [1, 0, 0], np.linspace(0, -1.5, T))
IN_LID = np.arange(len(BOX.vertices)) >= len(BASE.vertices)
OPENED = np.where(IN_LID[:, None], transform(OPEN, BOX.vertices), BOX.vertices)


def box_deformation():
    out = np.tile(REST, (T, len(POINTS), 1))
    out[:, len(BASE.faces) <= POINT_FACES] = dual_quaternions(OPEN)[:, None]
    return out


def error(vertices, true):
    return np.linalg.norm(vertices - true, axis=-1).max(0)


def test_rest_returns_the_vertices_themselves():
    moved = drive_mesh(BOX.vertices, BOX.faces, POINTS, np.tile(REST, (3, len(POINTS), 1)))
    assert moved.shape == (3, len(BOX.vertices), 3)
    np.testing.assert_array_equal(moved, np.broadcast_to(BOX.vertices, moved.shape))


@pytest.mark.parametrize("angle", [0.3, 3.1, 3.2, 6.0])  # past half a turn quaternions change sign
def test_rigid_motion_is_exact(angle):
    X = np.stack([pose(), exp_se3([0.3, -0.2, 0.5, *(angle * np.array([0.6, 0.0, 0.8]))])])
    q = np.tile(dual_quaternions(X)[:, None], (1, len(POINTS), 1))
    q *= rng.choice([-1, 1], q.shape[:2])[..., None]  # a motion has two dual quaternions
    np.testing.assert_allclose(
        drive_mesh(BOX.vertices, BOX.faces, POINTS, q), transform(X, BOX.vertices), atol=2e-6
    )


def test_displacements_move_without_turning():
    shift = np.array([[0, 0, 0], [0.1, 0.2, -0.3]])
    moved = drive_mesh(BOX.vertices, BOX.faces, POINTS, np.repeat(shift[:, None], len(POINTS), 1))
    np.testing.assert_allclose(moved, BOX.vertices + shift[:, None], atol=1e-6)


def test_a_lid_that_lies_on_its_box_does_not_smear():
    moved = drive_mesh(BOX.vertices, BOX.faces, POINTS, box_deformation(), point_faces=POINT_FACES)
    assert error(moved, OPENED).max() < 0.02  # only next to the hinge, where both parts move alike
    far = np.abs(BOX.vertices[:, 1] + 0.7) > 0.2
    assert error(moved, OPENED)[far].max() < 1e-5


def test_a_thin_gap_is_found_without_knowing_the_faces_of_points():
    lid = trimesh.Trimesh(LID.vertices + np.array([0, 0, 0.02]), LID.faces, process=False)
    mesh = trimesh.util.concatenate([BASE, lid])
    points, faces = sampled(mesh)
    q = np.tile(REST, (T, len(points), 1))
    q[:, faces >= len(BASE.faces)] = dual_quaternions(OPEN)[:, None]
    true = np.where(IN_LID[:, None], transform(OPEN, mesh.vertices), mesh.vertices)
    assert error(drive_mesh(mesh.vertices, mesh.faces, points, q), true).max() < 0.03


def test_one_fused_surface_tears_only_at_the_seam():
    # A U on its side, as a scan sees a laptop: two plates joined along one edge, all one watertight
    # surface.
    profile = np.array(
        [
            [-0.7, 0],
            [0.7, 0],
            [0.7, 0.1],
            [-0.6, 0.1],
            [-0.6, 0.15],
            [0.7, 0.15],
            [0.7, 0.25],
            [-0.7, 0.25],
        ]
    )
    mesh = trimesh.creation.extrude_triangulation(
        profile, [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 7], [4, 5, 6], [4, 6, 7]], 1.0
    ).subdivide_to_size(0.08)
    assert mesh.is_watertight
    assert mesh.body_count == 1
    points, faces = sampled(mesh)
    X = rotation_about([-0.65, 0.125, 0], [0, 0, 1], np.linspace(0, 1.5, T))
    upper = mesh.triangles_center[faces, 1] > 0.125
    q = np.tile(REST, (T, len(points), 1))
    q[:, upper] = dual_quaternions(X)[:, None]
    true = np.where(
        (mesh.vertices[:, 1] > 0.125)[:, None], transform(X, mesh.vertices), mesh.vertices
    )
    away = mesh.vertices[:, 0] > -0.45
    wrong = error(drive_mesh(mesh.vertices, mesh.faces, points, q), true)
    assert wrong[away].max() < 1e-5
    assert wrong.max() < 0.35  # the seam stretches, it does not fly off


def test_smooth_bend():
    mesh = box([2, 0.4, 0.1], [0, 0, 0], 0.1)
    points, faces = sampled(mesh)

    def frames(x):  # (T, n, 4, 4): a beam of curvature k; a cross-section at s turns by k s
        curvature = np.linspace(0, 1.2, T)[:, None]
        turn = curvature * x[:, 0]
        k = np.where(curvature == 0, 1.0, curvature)
        along = np.where(curvature == 0, x[:, 0], np.sin(turn) / k)
        up = np.where(curvature == 0, 0.0, (1 - np.cos(turn)) / k)
        R = rotation_about(np.zeros(3), [0, -1, 0], turn)[..., :3, :3]
        middle = np.stack([x[:, 0], np.zeros(len(x)), np.zeros(len(x))], -1)
        arc = np.stack([along, np.zeros_like(along), up], -1)
        return pose(R, arc - (R @ middle[:, :, None])[..., 0])

    moved = drive_mesh(
        mesh.vertices, mesh.faces, points, dual_quaternions(frames(points)), point_faces=faces
    )
    true = np.einsum("tvij,vj->tvi", frames(mesh.vertices)[..., :3, :3], mesh.vertices)
    true = true + frames(mesh.vertices)[..., :3, 3]
    assert error(moved, true).max() < 0.006
    assert error(moved, true).mean() < 0.001


def test_outliers_among_the_driving_points_are_rejected():
    q = box_deformation()
    wrong = rng.random(len(POINTS)) < 0.1
    q[:, wrong] = dual_quaternions(exp_se3(rng.normal(0, 0.5, (T, wrong.sum(), 6))))
    moved = drive_mesh(BOX.vertices, BOX.faces, POINTS, q, point_faces=POINT_FACES)
    # The mean of the neighbors would be off by a tenth of the outliers' half a unit almost
    # everywhere.
    assert np.median(error(moved, OPENED)) < 1e-5
    assert np.mean(error(moved, OPENED) > 0.02) < 0.01


def test_scatter_is_averaged_where_no_two_motions_agree():
    noise = exp_se3(
        np.concatenate(
            [rng.normal(0, 0.05, (T, len(POINTS), 3)), np.zeros((T, len(POINTS), 3))], -1
        )
    )
    moved = drive_mesh(BOX.vertices, BOX.faces, POINTS, dual_quaternions(noise @ OPEN[:, None]))
    rms = np.sqrt(((moved - transform(OPEN, BOX.vertices)) ** 2).mean())
    assert rms < 0.8 * 0.05  # a third of sixteen, the near ones counting more


def test_a_needle_follows_its_own_points_and_not_the_dial_around_it():
    dial, needle = box([2, 2, 0.1], [0, 0, 0]), box([0.7, 0.03, 0.02], [0.3, 0, 0.07], 0.1)
    mesh = trimesh.util.concatenate([dial, needle])
    points, faces = sampled(mesh)
    of_needle = faces >= len(dial.faces)
    assert 3 <= of_needle.sum() < 40
    turn = rotation_about([0, 0, 0], [0, 0, 1], np.linspace(0, 2.0, T))
    q = np.tile(REST, (T, len(points), 1))
    q[:, of_needle] = dual_quaternions(turn)[:, None]
    in_needle = np.arange(len(mesh.vertices)) >= len(dial.vertices)
    true = np.where(in_needle[:, None], transform(turn, mesh.vertices), mesh.vertices)
    moved = drive_mesh(mesh.vertices, mesh.faces, points, q, point_faces=faces)
    assert error(moved, true).max() < 0.02
    # Its three points are further from a short needle's corners than a vote's worth of the dial's.
    short = trimesh.creation.box([0.34, 0.03, 0.02], transform=pose(translation=[0.3, 0, 0.07]))
    mesh = trimesh.util.concatenate([dial, short])
    few = np.concatenate(
        [points[~of_needle], [[0.29, 0, 0.08], [0.3, 0.01, 0.08], [0.31, 0, 0.08]]]
    )
    q = np.concatenate(
        [q[:, ~of_needle], np.repeat(dual_quaternions(turn)[:, None], 3, axis=1)], axis=1
    )
    moved = drive_mesh(mesh.vertices, mesh.faces, few, q)
    np.testing.assert_allclose(
        moved[:, len(dial.vertices) :], transform(turn, short.vertices), atol=1e-5
    )


def test_a_piece_without_driving_points_follows_what_is_near():
    screw = box([0.02, 0.02, 0.02], [0.3, 0.3, 0.41])
    mesh = trimesh.util.concatenate([BOX, screw])
    moved = drive_mesh(
        mesh.vertices, mesh.faces, POINTS, box_deformation(), point_faces=POINT_FACES
    )
    true = transform(OPEN, screw.vertices)
    np.testing.assert_allclose(moved[:, len(BOX.vertices) :], true, atol=1e-5)


def test_the_order_of_points_vertices_and_faces_does_not_matter():
    q = box_deformation()
    whole = drive_mesh(BOX.vertices, BOX.faces, POINTS, q, point_faces=POINT_FACES)
    order = rng.permutation(len(POINTS))
    again = drive_mesh(
        BOX.vertices, BOX.faces, POINTS[order], q[:, order], point_faces=POINT_FACES[order]
    )
    np.testing.assert_allclose(again, whole, atol=1e-5)
    vertex, face = rng.permutation(len(BOX.vertices)), rng.permutation(len(BOX.faces))
    faces = np.argsort(vertex)[BOX.faces][face]
    again = drive_mesh(
        BOX.vertices[vertex], faces, POINTS, q, point_faces=np.argsort(face)[POINT_FACES]
    )
    np.testing.assert_allclose(again, whole[:, vertex], atol=1e-5)


def test_a_moved_and_turned_object_moves_the_answer():
    X = exp_se3([0.2, -0.1, 0.3, 0.4, 0.8, -0.3])
    q = dual_quaternions(X @ OPEN @ np.linalg.inv(X))
    turned = box_deformation()
    turned[:, len(BASE.faces) <= POINT_FACES] = q[:, None]
    moved = drive_mesh(
        transform(X, BOX.vertices), BOX.faces, transform(X, POINTS), turned, point_faces=POINT_FACES
    )
    whole = drive_mesh(BOX.vertices, BOX.faces, POINTS, box_deformation(), point_faces=POINT_FACES)
    np.testing.assert_allclose(moved, transform(X, whole), atol=1e-4)


def test_few_points_one_face_and_vertices_of_no_face():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
    q = np.tile(dual_quaternions(exp_se3([0.1, 0.2, 0.3, 0, 0, 0.4])), (1, 1, 1))
    true = transform(exp_se3([0.1, 0.2, 0.3, 0, 0, 0.4]), vertices)
    np.testing.assert_allclose(
        drive_mesh(vertices, [[0, 1, 2]], [[0.3, 0.3, 0]], q)[0], true, atol=5e-6
    )
    np.testing.assert_allclose(
        drive_mesh(vertices, np.empty((0, 3)), [[0.3, 0.3, 0]], q)[0], true, atol=5e-6
    )


def test_driving_points_in_one_place():
    vertices, faces = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]
    moved = drive_mesh(vertices, faces, np.zeros((20, 3)), np.tile(REST, (2, 20, 1)))
    np.testing.assert_array_equal(moved, np.broadcast_to(vertices, (2, 3, 3)))


def test_bad_input_is_named():
    v, f, x = BOX.vertices, BOX.faces, POINTS
    q = np.tile(REST, (T, len(x), 1))
    with pytest.raises(ValueError, match=r"deformation: expected \(T, 2000, 8\)"):
        drive_mesh(v, f, x, q[:, 1:])
    with pytest.raises(ValueError, match="not finite"):
        drive_mesh(v, f, x, q * np.nan)
    with pytest.raises(ValueError, match="length zero"):
        drive_mesh(v, f, x, q * 0)
    with pytest.raises(ValueError, match="faces: name vertex"):
        drive_mesh(v[:-1], f, x, q)
    with pytest.raises(ValueError, match="point_faces: expected"):
        drive_mesh(v, f, x, q, point_faces=POINT_FACES[1:])
    with pytest.raises(ValueError, match="DriveOptions.inlier_ratio"):
        DriveOptions(inlier_ratio=0)
    with pytest.raises(ValueError, match="DriveOptions.neighbors"):
        DriveOptions(neighbors=0)
