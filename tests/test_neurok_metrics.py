"""Chamfer distances and overlaps of shapes for which both are known in closed form."""

import numpy as np
import pytest
import trimesh

from experiments.neurok.metrics import (
    MetricOptions,
    chamfer,
    occupancy,
    shape_error,
    volume_overlap,
)
from flowplan.geometry import exp_se3, pose, transform
from generators.common.sampling import surface_points

CUBE = trimesh.creation.box([1, 1, 1])


def moved(mesh, X):
    return trimesh.Trimesh(transform(X, mesh.vertices), mesh.faces, process=False)


def ball(radius):
    return trimesh.creation.icosphere(5, radius)


def test_a_shape_is_at_no_distance_from_itself():
    e = shape_error(CUBE, CUBE.subdivide(), MetricOptions(points=2000, cells=40))
    assert e.cd_l1 < 1e-6
    assert e.cd_l2 < 1e-6
    assert e.iou == 1.0


def test_concentric_spheres():
    l1, l2 = chamfer(ball(1.0), ball(0.9), 4000)
    assert l1 == pytest.approx(0.1, abs=1e-3)
    assert l2 == pytest.approx(0.1, abs=1e-3)
    assert volume_overlap(ball(1.0), ball(0.9), 100) == pytest.approx(0.9**3, abs=3e-3)


def test_a_plate_beside_a_plate():
    # Where squares of side 1 are shifted by s within their plane, points on the s that stick out
    # are at 0..s.
    s = 0.4
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    l1, l2 = chamfer(square, moved(square, pose(translation=[s, 0, 0])), 200_000)
    assert l1 == pytest.approx(s**2 / 2, rel=0.01)
    assert l2 == pytest.approx(np.sqrt(s**3 / 3), rel=0.01)


def test_different_directions_are_averaged():
    # A point-like triangle at distance 1 of a far larger one: there 1, back the mean distance from
    # the square's points.
    square = trimesh.creation.box([2, 2, 1e-6])
    dot = trimesh.Trimesh(1e-6 * np.eye(3) + [0, 0, 1], [[0, 1, 2]])
    l1, l2 = chamfer(dot, square, 100_000)
    rng = np.random.default_rng(0)
    back = np.sqrt((rng.uniform(-1, 1, (100_000, 2)) ** 2).sum(1) + 1)
    assert l1 == pytest.approx((1 + back.mean()) / 2, rel=0.01)
    assert l2 == pytest.approx(np.sqrt((1 + (back**2).mean()) / 2), rel=0.01)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 1.5])
def test_overlap_of_shifted_cubes(shift):
    overlap = max(1 - shift, 0)
    other = moved(CUBE, pose(translation=[0, shift, 0]))
    assert volume_overlap(CUBE, other, 120) == pytest.approx(overlap / (2 - overlap), abs=0.01)


def test_overlap_and_distance_do_not_depend_on_the_frame():
    X, a, b = (
        exp_se3([0.3, -0.2, 0.1, 0.5, 0.9, -0.4]),
        CUBE,
        moved(CUBE, exp_se3([0.1, 0.2, 0, 0.1, 0.2, 0.3])),
    )
    here, there = (shape_error(moved(a, Y), moved(b, Y)) for Y in (pose(), X))
    assert there.cd_l1 == pytest.approx(here.cd_l1, abs=1e-5)
    assert there.cd_l2 == pytest.approx(here.cd_l2, abs=1e-5)
    assert there.iou == pytest.approx(here.iou, abs=0.01)
    swapped = shape_error(b, a)
    assert swapped.iou == here.iou
    assert swapped.cd_l1 == pytest.approx(here.cd_l1, abs=1e-3)


def volume(mesh, cells=64):
    voxel = 2.0 / cells
    grid = np.full(3, -1 + voxel * 0.463)
    return np.count_nonzero(occupancy(mesh, grid, voxel, (cells,) * 3)) * voxel**3


def test_pieces_that_cross_count_once_and_cavities_stay_empty():
    other = moved(CUBE, pose(translation=[0.5, 0, 0]))
    assert volume(trimesh.util.concatenate([CUBE, other])) == pytest.approx(1.5, rel=0.03)
    hollow = trimesh.creation.box([0.6] * 3)
    hollow.invert()
    assert volume(trimesh.util.concatenate([CUBE, hollow])) == pytest.approx(1 - 0.6**3, rel=0.05)


def test_a_hole_is_closed_and_orientation_does_not_matter():
    up = CUBE.face_normals[:, 2] < 0.5
    open_box = trimesh.Trimesh(CUBE.vertices, CUBE.faces[up], process=False)
    assert volume(open_box) == pytest.approx(1.0, rel=0.03)
    inverted = trimesh.Trimesh(CUBE.vertices, CUBE.faces[:, ::-1], process=False)
    assert volume(inverted) == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("missing", [[0, 2], [0, 5], [3, 5]])  # by face normal: -x -y -z +x +y +z
def test_two_holes_are_closed(missing):
    side = np.argmax(CUBE.face_normals @ np.vstack([-np.eye(3), np.eye(3)]).T, axis=1)
    frame = trimesh.Trimesh(CUBE.vertices, CUBE.faces[~np.isin(side, missing)], process=False)
    assert volume(frame) == pytest.approx(1.0, rel=0.03)


def test_part_of_a_shape_outside_the_grid_is_not_folded_in():
    assert volume(moved(CUBE, pose(translation=[1.0, 0, 0]))) == pytest.approx(0.5, rel=0.05)
    assert volume(moved(CUBE, pose(translation=[-1.0, 0, 0]))) == pytest.approx(0.5, rel=0.05)


def test_two_sheets_overlap_in_nothing():
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    assert volume_overlap(square, square, 20) == 0.0


def test_points_lie_on_their_faces_and_follow_the_seed():
    points, faces = surface_points(CUBE, 500, seed=3)
    on = np.abs(
        np.einsum("nc,nc->n", points - CUBE.triangles_center[faces], CUBE.face_normals[faces])
    )
    assert on.max() < 1e-9
    np.testing.assert_array_equal(points, surface_points(CUBE, 500, seed=3)[0])
    assert np.abs(points - surface_points(CUBE, 500, seed=4)[0]).max() > 0.1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="mesh: has no area"):
        surface_points(trimesh.Trimesh(), 10, seed=0)
    with pytest.raises(ValueError, match="MetricOptions.cells"):
        MetricOptions(cells=0)
