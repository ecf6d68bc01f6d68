"""Transforms against closed forms, at zero angle, half turns and reflections too."""

import numpy as np
import pytest
from scipy.linalg import expm
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


def test_cross_products_agree_with_numpy_and_broadcast():
    a, b = rng.normal(size=(4, 1, 3)), rng.normal(size=(5, 3))
    np.testing.assert_allclose(g.cross(a, b), np.cross(a, b), atol=1e-15)
    np.testing.assert_allclose((g.skew(a) @ b[..., None])[..., 0], np.cross(a, b), atol=1e-15)


@pytest.mark.parametrize("angle", [1e-6, 9e-5, 1.1e-4, 0.02, 1.0, 2.5, np.pi - 1e-3])
def test_exp_of_a_twist_agrees_with_a_matrix_exponential(angle):
    # A turn of up to pi while moving 2 m: both coefficients of the left Jacobian count.
    for axis in rng.normal(size=(5, 3)):
        w, v = angle * axis / np.linalg.norm(axis), rng.normal(size=3)
        generator = np.zeros((4, 4))
        generator[:3, :3] = [[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]]
        generator[:3, 3] = v
        X = g.exp_se3([*v, *w])
        np.testing.assert_allclose(X, expm(generator), atol=1e-12)
        np.testing.assert_allclose(g.log_se3(X), [*v, *w], atol=1e-8)


def test_the_left_jacobian_has_its_value_at_every_angle():
    # About z, J is the mean of the rotations by s * angle, s from 0 to 1: integrals of cos and sin.
    for angle in (0.0, 3e-5, 9.9e-5, 1.01e-4, 1e-2, 0.9, 3.0):
        J = g._left_jacobian(np.array([0.0, 0.0, angle]))
        along = np.sinc(angle / np.pi)  # sin(a) / a
        aside = np.sin(angle / 2) * np.sinc(angle / (2 * np.pi))  # (1 - cos(a)) / a
        expected = [[along, -aside, 0], [aside, along, 0], [0, 0, 1]]
        # Below 1e-4 the series leaves out terms of the fourth order, far below rounding.
        np.testing.assert_allclose(J, expected, atol=1e-12)


def test_logarithms_keep_small_turns_and_half_turns():
    # Down to a turn that a matrix cannot tell from none.
    for angle in (1e-15, 1e-9, 1e-6):
        w = angle * np.array([0.6, 0.0, -0.8])
        np.testing.assert_allclose(g.log_so3(g.exp_so3(w)), w, rtol=1e-6)
    # Half a turn about each axis: the quaternion's w is 0, and its largest entry differs.
    for axis in np.eye(3):
        w = g.log_so3(2 * np.outer(axis, axis) - np.eye(3))
        np.testing.assert_allclose(np.abs(w), np.pi * axis, atol=1e-12)


def test_quaternions_have_a_positive_real_part_and_any_batch_axes():
    R = Rotation.random(24, random_state=3).as_matrix()
    q = g.quat_wxyz_from_matrix(R)
    assert (q[:, 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1.0, atol=1e-12)
    xyzw = Rotation.from_matrix(R).as_quat(canonical=True)
    np.testing.assert_allclose(g.quat_xyzw_from_matrix(R), xyzw, atol=1e-9)
    batch = R.reshape(2, 4, 3, 3, 3)
    np.testing.assert_array_equal(g.quat_wxyz_from_matrix(batch), q.reshape(2, 4, 3, 4))
    np.testing.assert_array_equal(g.quat_xyzw_from_matrix(batch).reshape(24, 4), np.roll(q, -1, 1))
    # A quaternion of any length is the same rotation.
    lengths = rng.uniform(0.1, 9.0, size=(2, 4, 3, 1))
    np.testing.assert_allclose(
        g.matrix_from_quat_wxyz(lengths * q.reshape(2, 4, 3, 4)), batch, atol=1e-12
    )
    np.testing.assert_allclose(
        g.matrix_from_quat_xyzw(np.roll(lengths * q.reshape(2, 4, 3, 4), -1, -1)), batch, atol=1e-12
    )


def test_interpolation_goes_straight_and_the_short_way_round():
    A = g.pose(Rotation.from_euler("z", 0.3).as_matrix(), [1.0, 0.0, 2.0])
    B = g.pose(Rotation.from_euler("z", 1.5).as_matrix(), [2.0, -1.0, 2.5])
    X = g.interpolate(A, B, np.array([0.25, 0.5]))
    np.testing.assert_allclose(X[:, :3, 3], [[1.25, -0.25, 2.125], [1.5, -0.5, 2.25]])
    np.testing.assert_allclose(
        X[:, :3, :3], Rotation.from_rotvec([[0, 0, 0.6], [0, 0, 0.9]]).as_matrix(), atol=1e-12
    )


def test_turning_about_a_line_is_right_handed_whatever_the_axis_length():
    # A quarter turn about a vertical line through (1, 2): east of it goes north of it.
    X = g.rotation_about([1.0, 2.0, 5.0], [0, 0, 7.0], [[np.pi / 2, -np.pi / 2]])
    assert X.shape == (1, 2, 4, 4)
    np.testing.assert_allclose(
        g.transform(X[0], [[2.0, 2.0, 0.0]])[:, 0], [[1, 3, 0], [1, 1, 0]], atol=1e-12
    )


def test_look_at_has_its_axes_as_a_camera_has():
    # Looking along +y with z up: x to the right is world +x, y down is world -z.
    X = g.look_at([0, -2, 1], [0, 5, 1])
    np.testing.assert_allclose(X[:3, :3].T, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)
    # Straight down: a frame of some direction, but a proper one.
    X = g.look_at([0.3, 0.1, 2], [0.3, 0.1, 0])
    np.testing.assert_allclose(X[:3, 2], [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(X[:3, :3] @ X[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(X[:3, :3]) == pytest.approx(1)


def test_angles_between_rotations_are_those_of_scipy_with_batch_axes():
    A, B = (Rotation.random(6, random_state=k) for k in (5, 6))
    angles = g.angle_between(A.as_matrix().reshape(2, 3, 3, 3), B.as_matrix().reshape(2, 3, 3, 3))
    np.testing.assert_allclose(angles.ravel(), (A.inv() * B).magnitude(), atol=1e-12)


def test_a_weighted_fit_minimizes_its_sum_of_squares():
    p, y = rng.normal(size=(2, 3, 9, 3))
    w = rng.uniform(0.1, 3.0, size=(3, 9))
    X = g.fit_rigid(p, y, w)

    def cost(X):
        return (w * ((g.transform(X, p) - y) ** 2).sum(-1)).sum(-1)

    # No small motion of the answer does better.
    for twist in 1e-3 * np.concatenate([np.eye(6), -np.eye(6), rng.normal(size=(20, 6))]):
        assert (cost(g.exp_se3(twist) @ X) > cost(X)).all()
    # Weights in units of their own do not matter, and equal ones are none.
    np.testing.assert_allclose(g.fit_rigid(p, y, 7 * w), X, atol=1e-12)
    np.testing.assert_allclose(g.fit_rigid(p, y, np.full(9, 2.0)), g.fit_rigid(p, y), atol=1e-12)
    with pytest.raises(ValueError, match="weights: expected a positive sum"):
        g.fit_rigid(p, y, np.arange(3)[:, None] * np.ones(9))
