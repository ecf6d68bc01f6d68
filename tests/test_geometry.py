"""Transforms against closed forms, at zero angle, half turns and reflections too."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flowplan import geometry as g

rng = np.random.default_rng(0)


def random_poses(count: int) -> np.ndarray:
    return g.exp_se3(rng.normal(size=(count, 6)))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 0.3, np.pi / 2, np.pi - 1e-7, np.pi])
def test_exp_and_log_agree_with_scipy_at_every_angle(angle):
    axis = rng.normal(size=(20, 3))
    w = angle * axis / np.linalg.norm(axis, axis=1, keepdims=True)
    R = g.exp_so3(w)
    np.testing.assert_allclose(R, Rotation.from_rotvec(w).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(g.exp_so3(g.log_so3(R)), R, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(g.log_so3(R), axis=1), angle, atol=1e-7)


def test_a_twist_is_the_derivative_of_its_motion():
    X, twist, h = random_poses(1)[0], rng.normal(size=6), 1e-6
    step = g.inverse(X) @ (X @ g.exp_se3(h * twist))
    np.testing.assert_allclose(g.log_se3(step) / h, twist, atol=1e-6)


def test_se3_round_trips_near_identity_and_far_from_it():
    for scale in (1e-10, 1e-4, 1.0):
        twist = scale * rng.uniform(
            -1, 1, size=(50, 6)
        )  # angles below pi, where the logarithm is unique
        np.testing.assert_allclose(g.log_se3(g.exp_se3(twist)), twist, atol=1e-9)


def test_inverse_and_transform_compose():
    X, Y = random_poses(5), random_poses(5)
    p = rng.normal(size=(5, 7, 3))
    np.testing.assert_allclose(X @ g.inverse(X), np.broadcast_to(np.eye(4), X.shape), atol=1e-12)
    np.testing.assert_allclose(g.transform(X @ Y, p), g.transform(X, g.transform(Y, p)), atol=1e-12)


def test_quaternions_carry_their_order():
    R = Rotation.random(30, random_state=1).as_matrix()
    xyzw = Rotation.from_matrix(R).as_quat(canonical=True)
    np.testing.assert_allclose(np.abs((g.quat_xyzw_from_matrix(R) * xyzw).sum(1)), 1, atol=1e-12)
    np.testing.assert_allclose(g.matrix_from_quat_xyzw(xyzw), R, atol=1e-12)
    np.testing.assert_allclose(g.matrix_from_quat_wxyz(np.roll(xyzw, 1, axis=1)), R, atol=1e-12)


def test_rotation_about_a_line_keeps_the_line():
    point, axis = np.array([0.4, -0.1, 0.2]), np.array([0.0, 2.0, 1.0])
    X = g.rotation_about(point, axis, np.linspace(-3, 3, 7))
    on_line = point + np.array([[-1.0], [0.0], [2.5]]) * axis
    np.testing.assert_allclose(
        g.transform(X, on_line), np.broadcast_to(on_line, (7, 3, 3)), atol=1e-12
    )


def test_interpolation_ends_where_it_should_and_turns_at_constant_rate():
    A, B = random_poses(2)
    X = g.interpolate(A, B, np.linspace(0, 1, 5))
    np.testing.assert_allclose(X[[0, -1]], [A, B], atol=1e-9)
    steps = g.angle_between(X[:-1, :3, :3], X[1:, :3, :3])
    np.testing.assert_allclose(steps, steps[0], atol=1e-9)


def test_look_at_sees_its_target_on_the_optical_axis():
    for eye in ([1.0, 2.0, 1.5], [0.0, 0.0, 2.0]):
        X_world_camera = g.look_at(eye, [0.1, 0.0, 0.2] if eye[0] else [0, 0, 0])
        target = g.transform(g.inverse(X_world_camera), [[0.1, 0.0, 0.2] if eye[0] else [0, 0, 0]])[
            0
        ]
        np.testing.assert_allclose(target[:2], 0, atol=1e-12)
        assert target[2] > 0
        assert np.linalg.det(X_world_camera[:3, :3]) == pytest.approx(1)
    assert g.look_at([1, 0, 1], [0, 0, 1])[2, 1] == pytest.approx(-1)  # y looks down


def test_rigid_fit_recovers_the_motion_and_never_reflects():
    X = random_poses(10)
    p = rng.normal(size=(10, 6, 3))
    np.testing.assert_allclose(g.fit_rigid(p, g.transform(X, p)), X, atol=1e-9)
    mirrored = p * [1, 1, -1]
    assert np.allclose(np.linalg.det(g.fit_rigid(p, mirrored)[:, :3, :3]), 1)
    flat = p * [1, 1, 0]  # planar points leave the reflection open: the guard decides
    np.testing.assert_allclose(g.fit_rigid(flat, g.transform(X, flat)), X, atol=1e-7)


def test_rigid_fit_weights_and_refuses_none():
    X, p = random_poses(1)[0], rng.normal(size=(8, 3))
    y = g.transform(X, p)
    y[0] += 5.0
    np.testing.assert_allclose(g.fit_rigid(p, y, np.arange(8) > 0), X, atol=1e-9)
    with pytest.raises(ValueError, match="weights"):
        g.fit_rigid(p, y, np.zeros(8))


def test_roll_pitch_yaw_agree_with_scipy_and_round_trip():
    R = Rotation.random(20, random_state=2)
    for matrix, rpy in zip(R.as_matrix(), R.as_euler("xyz"), strict=True):
        np.testing.assert_allclose(g.rpy_from_matrix(matrix), rpy, atol=1e-12)
        np.testing.assert_allclose(g.matrix_from_rpy(rpy), matrix, atol=1e-12)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_at_a_pitch_of_90_degrees_yaw_is_zero(pitch):
    R = g.matrix_from_rpy([0.4, pitch, -0.9])
    rpy = g.rpy_from_matrix(R)
    assert rpy[2] == 0
    np.testing.assert_allclose(g.matrix_from_rpy(rpy), R, atol=1e-12)


def test_a_pose_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match=r"translation \(\.\.\., 3\), got \(3, 3\) and \(2,\)"):
        g.pose(translation=[1, 2])
