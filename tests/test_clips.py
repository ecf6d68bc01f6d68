"""Rotations of vertices against motions in closed form; simulated cloth and plants."""

import numpy as np
import pytest
import trimesh

from flowplan.geometry import angle_between, exp_so3, matrix_from_quat_wxyz, pose, rotation_about, transform
from generators.neurok.clips import Clip, vertex_rotations


def sheet(n=21, size=1.0):
    """A flat grid of n x n vertices in the plane z = 0, x and y from 0 to `size`."""
    x, y = np.meshgrid(np.linspace(0, size, n), np.linspace(0, size, n), indexing="ij")
    i = np.arange(n * n).reshape(n, n)
    a, b, c, d = (k.ravel() for k in (i[:-1, :-1], i[1:, :-1], i[1:, 1:], i[:-1, 1:]))
    return np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], 1), np.concatenate(
        [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    )


def error(found, expected):
    """Largest angle (rad) between quat_wxyz (V, 4) and rotations (..., 3, 3)."""
    return angle_between(matrix_from_quat_wxyz(found), np.broadcast_to(expected, (len(found), 3, 3))).max()


@pytest.mark.parametrize("shape", ["solid", "flat", "sliver"])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 1.0, np.pi - 1e-6, np.pi])
def test_a_rigid_motion_is_exact_however_large(shape, angle):
    if shape == "solid":
        mesh = trimesh.creation.cylinder(0.1, 0.5)
        vertices, faces = mesh.vertices, mesh.faces
    else:
        vertices, faces = sheet(5)
        vertices = vertices * ([1, 1, 1] if shape == "flat" else [1, 1e-3, 1])
    R = exp_so3(angle * np.array([2, -1, 2]) / 3)
    found = vertex_rotations(vertices, transform(pose(R, [0.3, -2, 1]), vertices), faces)
    assert np.all(found[:, 0] >= 0)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert error(found, R) < 1e-7


def test_rigid_pieces_of_one_mesh_turn_on_their_own():
    lid, box = trimesh.creation.box([0.3, 0.2, 0.02]), trimesh.creation.box([0.3, 0.2, 0.1])
    X = rotation_about([0, 0.1, 0.05], [1, 0, 0], 1.3)
    vertices = np.concatenate([box.vertices, lid.vertices + np.array([0, 0, 0.06])])
    moved = np.concatenate([box.vertices, transform(X, lid.vertices + np.array([0, 0, 0.06]))])
    found = vertex_rotations(vertices, moved, np.concatenate([box.faces, lid.faces + 8]))
    assert error(found[:8], np.eye(3)) < 1e-7
    assert error(found[8:], X[:3, :3]) < 1e-7


def test_a_hinge_within_one_mesh_is_exact_off_the_line_and_between_on_it():
    vertices, faces = sheet(21)
    turning = vertices[:, 0] > 0.5 + 1e-9
    X = rotation_about([0.5, 0, 0], [0, 1, 0], -0.8)
    moved = np.where(turning[:, None], transform(X, vertices), vertices)
    found = vertex_rotations(vertices, moved, faces)
    assert error(found[vertices[:, 0] < 0.5 - 1e-9], np.eye(3)) < 1e-7
    assert error(found[turning], X[:3, :3]) < 1e-7
    line = np.isclose(vertices[:, 0], 0.5) & (vertices[:, 1] > 0.01) & (vertices[:, 1] < 0.99)
    half = exp_so3([0, -0.4, 0])
    assert error(found[line], half) < 0.03  # the diagonals all lean one way


def test_a_bend_turns_with_its_arc_and_converges_with_the_square_of_the_spacing():
    errors = []
    for n in (11, 21, 41):
        vertices, faces = sheet(n)
        turn = -1.5 * vertices[:, 0]  # a unit sheet rolled on a cylinder of radius 1 / 1.5
        moved = np.stack([np.sin(1.5 * vertices[:, 0]), vertices[:, 1], 1 - np.cos(1.5 * vertices[:, 0])], 1)
        moved[:, [0, 2]] /= 1.5
        found = vertex_rotations(vertices, moved, faces)
        inside = np.all((vertices[:, :2] > 1e-9) & (vertices[:, :2] < 1 - 1e-9), axis=1)
        expected = exp_so3(turn[:, None] * [0, 1, 0])
        errors.append(angle_between(matrix_from_quat_wxyz(found), expected)[inside].max())
    assert errors[-1] < 2e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_stretch_and_scale_leave_the_rotation():
    mesh = trimesh.creation.icosphere(2)
    R = exp_so3([0.3, 1.0, -0.5])
    assert error(vertex_rotations(mesh.vertices, 2.5 * mesh.vertices @ R.T, mesh.faces), R) < 1e-7
    flat, faces = sheet(5)
    assert error(vertex_rotations(flat, (flat * [1.4, 1, 1]) @ R.T, faces), R) < 0.1


def test_what_has_no_neighbourhood_turns_like_the_nearest_that_has():
    mesh = trimesh.creation.box([1, 1, 1])
    X = rotation_about([0, 0, 0], [0, 0, 1], 0.7)
    # Two lone points, one by the turning box and one by the still one; a face without area on the turning one.
    extra = np.array([[0.6, 0, 0], [3.4, 0, 0], [0.5, 0.5, 0.9]])
    vertices = np.concatenate([mesh.vertices, mesh.vertices + np.array([4, 0, 0]), extra])
    faces = np.concatenate([mesh.faces, mesh.faces + 8, [[0, 18, 18]]])
    moved = vertices.copy()
    on = [*range(8), 16, 18]
    moved[on] = transform(X, vertices[on])
    found = vertex_rotations(vertices, moved, faces)
    still = np.setdiff1d(np.arange(len(vertices)), on)
    assert error(found[on], X[:3, :3]) < 1e-7
    assert error(found[still], np.eye(3)) < 1e-7
    shrunk = vertex_rotations(mesh.vertices, 0 * mesh.vertices, mesh.faces)
    np.testing.assert_array_equal(shrunk, np.tile([1.0, 0, 0, 0], (8, 1)))


def test_a_clip_checks_what_it_is_given():
    vertices, faces = sheet(3)
    frames = np.stack([vertices, vertices + 1])
    clip = Clip("sheet", frames, faces)
    assert len(clip) == 2
    assert error(clip.rotations(0, 1), np.eye(3)) < 1e-7
    with pytest.raises(ValueError, match=r"Clip\[sheet\]\.vertices: expected at least 2 frames, got 1"):
        Clip("sheet", frames[:1], faces)
    with pytest.raises(ValueError, match=r"Clip\[sheet\]\.faces: expected indices of 9 vertices, got 1 to 9"):
        Clip("sheet", frames, faces + 1)
    with pytest.raises(ValueError, match=r"Clip\[sheet\]\.vertices: 54 of 54 values are not finite"):
        Clip("sheet", np.full_like(frames, np.nan), faces)
