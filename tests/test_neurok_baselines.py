"""Registration without a prior: rigid motions, a hinge, and invariances."""

import numpy as np
import pytest
import trimesh

from experiments.neurok.metrics import chamfer
from flowplan.geometry import exp_se3, pose, rotation_about, transform
from generators.common.sampling import surface_points
from generators.neurok.kinematics.registration import RegistrationOptions, registration, static

QUICK = RegistrationOptions(points=600, nodes=(30, 100))
BASE = trimesh.creation.box(
    [2, 1.4, 0.1], transform=pose(translation=[0, 0, -0.2])
).subdivide_to_size(0.2)
LID = trimesh.creation.box([2, 1.4, 0.1]).subdivide_to_size(0.2)
LAPTOP = trimesh.util.concatenate([BASE, LID])


def folded(angle):
    X = rotation_about([0, -0.7, -0.1], [1, 0, 0], angle)
    return trimesh.Trimesh(
        np.concatenate([BASE.vertices, transform(X, LID.vertices)]), LAPTOP.faces, process=False
    )


def with_vertices(mesh, vertices):
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


def test_static_leaves_everything():
    np.testing.assert_array_equal(static(LAPTOP, np.zeros((5, 3))), LAPTOP.vertices)


def test_the_same_shape_stays():
    target, _ = surface_points(LAPTOP, 4000, seed=5)
    moved = registration(LAPTOP, target, QUICK)
    # Other points of the same planes pull sideways a little.
    assert np.linalg.norm(moved - LAPTOP.vertices, axis=1).mean() < 0.06
    assert chamfer(with_vertices(LAPTOP, moved), LAPTOP, 2000)[0] < 0.015


def test_rigid_motion():
    X = exp_se3([0.15, -0.1, 0.1, 0.15, 0.1, 0.3])
    target = with_vertices(LAPTOP, transform(X, LAPTOP.vertices))
    moved = registration(LAPTOP, surface_points(target, 4000, seed=5)[0], QUICK)
    assert np.linalg.norm(moved - target.vertices, axis=1).mean() < 0.06  # 0.30 before
    assert chamfer(with_vertices(LAPTOP, moved), target, 2000)[0] < 0.015


def test_small_hinge():
    before, target = folded(0.3), folded(0.8)
    moved = registration(before, surface_points(target, 4000, seed=5)[0], QUICK)
    assert chamfer(before, target, 2000)[0] > 0.1
    assert chamfer(with_vertices(before, moved), target, 2000)[0] < 0.02
    assert (
        np.linalg.norm(moved - target.vertices, axis=1).mean() < 0.12
    )  # 0.18 before, and plates may slide


def test_the_order_of_the_targets_points_matters_little_and_the_seed_decides():
    before, target = folded(0.3), folded(0.8)
    points, _ = surface_points(target, 600, seed=5)
    once = registration(before, points, QUICK, seed=1)
    np.testing.assert_array_equal(registration(before, points, QUICK, seed=1), once)
    again = registration(
        before, points[::-1], QUICK, seed=1
    )  # all points are used, whatever their order
    np.testing.assert_allclose(again, once, atol=1e-3)


def test_few_points_and_small_pieces():
    nail = trimesh.creation.box([0.01, 0.01, 0.01], transform=pose(translation=[0, 0, 0.06]))
    mesh = trimesh.util.concatenate([LID, nail])
    target = mesh.vertices + np.array([0, 0, 0.1])
    moved = registration(
        mesh,
        target,
        RegistrationOptions(points=400, nodes=(5,), iterations=10, skinning=8, edges=9),
    )
    np.testing.assert_allclose(moved, target, atol=0.03)
    one = registration(
        LID, np.array([[0.0, 0, 1]]), RegistrationOptions(points=50, nodes=(1,), iterations=2)
    )
    assert np.isfinite(one).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"target: expected shape \(P, 3\)"):
        registration(LID, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="RegistrationOptions.nodes"):
        RegistrationOptions(nodes=())
    with pytest.raises(ValueError, match="RegistrationOptions.trust"):
        RegistrationOptions(trust=(0.5, 0.0))
