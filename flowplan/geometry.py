"""Rigid transforms, rotations and the weighted rigid fit.

Poses are (..., 4, 4) homogeneous matrices named by the frames they relate:
`X_world_tool = X_world_object @ X_object_tool`. Quaternions appear only at interfaces and carry
their order in the name: `quat_wxyz`, `quat_xyzw`. Twists are (linear, angular).

scipy's Rotation offers the same conversions for one batch axis. These functions take any number of
batch axes and cost a fraction of it on the small batches that a planner works with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from flowplan.utils.checks import FloatArray


def pose(rotation: ArrayLike | None = None, translation: ArrayLike | None = None) -> FloatArray:
    """Homogeneous transforms (..., 4, 4).

    Args:
        rotation: Matrices (..., 3, 3). Defaults to the identity.
        translation: Vectors (..., 3), meters. Defaults to zero.

    Raises:
        ValueError: if the shapes are others, or their batch axes do not broadcast.
    """
    R = np.eye(3) if rotation is None else np.asarray(rotation, float)
    t = np.zeros(3) if translation is None else np.asarray(translation, float)
    try:
        batch = np.broadcast_shapes(R.shape[:-2], t.shape[:-1])
        X = np.zeros((*batch, 4, 4))
        X[..., :3, :3] = R
        X[..., :3, 3] = t
    except ValueError:
        raise ValueError(
            "pose: expected rotation (..., 3, 3) and translation (..., 3), "
            f"got {R.shape} and {t.shape}"
        ) from None
    X[..., 3, 3] = 1.0
    return X


def inverse(X: ArrayLike) -> FloatArray:
    """Inverse of rigid transforms (..., 4, 4), without a linear solve."""
    X = np.asarray(X, float)
    Rt = np.swapaxes(X[..., :3, :3], -1, -2)
    t = X[..., :3, 3, None]  # (..., 3, 1)
    return pose(Rt, -(Rt @ t)[..., 0])


def transform(X: ArrayLike, points: ArrayLike) -> FloatArray:
    """Points (..., N, 3) moved by transforms X (..., 4, 4); batch axes broadcast."""
    X = np.asarray(X, float)
    Rt = np.swapaxes(X[..., :3, :3], -1, -2)
    return np.asarray(points, float) @ Rt + X[..., None, :3, 3]


def skew(v: ArrayLike) -> FloatArray:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): skew(v) @ u = v x u."""
    v = np.asarray(v, float)
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    S = np.zeros((*v.shape, 3))
    S[..., 0, 1] = -z
    S[..., 0, 2] = y
    S[..., 1, 0] = z
    S[..., 1, 2] = -x
    S[..., 2, 0] = -y
    S[..., 2, 1] = x
    return S


def cross(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """Cross products (..., 3), several times as fast as numpy's on small batches."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    out = np.empty(np.broadcast_shapes(a.shape, b.shape))
    out[..., 0] = ay * bz - az * by
    out[..., 1] = az * bx - ax * bz
    out[..., 2] = ax * by - ay * bx
    return out


def exp_so3(w: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) in radians (Rodrigues)."""
    w = np.asarray(w, float)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    S = skew(w)
    # R = I + sin(a)/a S + (1 - cos a)/a^2 S^2, where sinc keeps the small-angle limits exact:
    # (1 - cos a)/a^2 = sinc(a/2)^2 / 2.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * S + second * (S @ S)


def log_so3(R: ArrayLike) -> FloatArray:
    """Rotation vectors (..., 3) of rotation matrices (..., 3, 3).

    Computed from the quaternion, hence accurate near 0 and near pi.

    Returns:
        Vectors in radians, of length at most pi.
    """
    q = quat_wxyz_from_matrix(R)
    v = q[..., 1:]
    norm = np.linalg.norm(v, axis=-1, keepdims=True)  # sin(angle / 2)
    angle = 2 * np.arctan2(norm, q[..., :1])
    # Near the identity angle / norm tends to 2.
    turns = norm > 1e-12
    scale = np.where(turns, angle / np.where(turns, norm, 1.0), 2.0)
    return v * scale


def exp_se3(twist: ArrayLike) -> FloatArray:
    """Transforms (..., 4, 4) of twists (..., 6) = (linear m, angular rad)."""
    twist = np.asarray(twist, float)
    v, w = twist[..., :3], twist[..., 3:]
    translation = (_left_jacobian(w) @ v[..., None])[..., 0]
    return pose(exp_so3(w), translation)


def log_se3(X: ArrayLike) -> FloatArray:
    """Twists (..., 6) = (linear m, angular rad) with exp_se3(log_se3(X)) = X."""
    X = np.asarray(X, float)
    w = log_so3(X[..., :3, :3])
    v = np.linalg.solve(_left_jacobian(w), X[..., :3, 3, None])[..., 0]
    return np.concatenate([v, w], axis=-1)


def _left_jacobian(w: FloatArray) -> FloatArray:
    """Left Jacobians (..., 3, 3) of SO(3) at rotation vectors (..., 3)."""
    # J = I + (1 - cos a)/a^2 S + (a - sin a)/a^3 S^2
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    S = skew(w)
    first = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    # The second coefficient cancels at small angles: its Taylor series takes over.
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    closed_form = (safe - np.sin(safe)) / safe**3
    series = 1 / 6 - angle**2 / 120
    second = np.where(small, series, closed_form)
    return np.eye(3) + first * S + second * (S @ S)


def interpolate(X_a: ArrayLike, X_b: ArrayLike, s: ArrayLike) -> FloatArray:
    """Poses (S, 4, 4) between two: a straight line in position, constant-rate rotation.

    Args:
        X_a, X_b: Poses (4, 4) at s = 0 and s = 1.
        s: Fractions (S,).
    """
    X_a, X_b = np.asarray(X_a, float), np.asarray(X_b, float)
    s = np.asarray(s, float)[..., None]
    R_a, p_a = X_a[:3, :3], X_a[:3, 3]
    w = log_so3(R_a.T @ X_b[:3, :3])
    rotation = R_a @ exp_so3(s * w)
    position = p_a + s * (X_b[:3, 3] - p_a)
    return pose(rotation, position)


def rotation_about(axis_point: ArrayLike, axis: ArrayLike, angle: ArrayLike) -> FloatArray:
    """Transforms (..., 4, 4) that rotate about a line.

    Args:
        axis_point: Point (3,) on the line, meters.
        axis: Direction (3,) of the line, of any length.
        angle: Angles (...,) in radians, right-handed about `axis`.
    """
    p = np.asarray(axis_point, float)
    a = np.asarray(axis, float)
    unit = a / np.linalg.norm(a)
    R = exp_so3(np.asarray(angle, float)[..., None] * unit)
    return pose(R, p - R @ p)


def matrix_from_quat_wxyz(quat_wxyz: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), which are normalized first."""
    q = np.asarray(quat_wxyz, float)
    unit = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, x, y, z = np.moveaxis(unit, -1, 0)
    R = np.empty((*q.shape[:-1], 3, 3))
    R[..., 0, 0] = 1 - 2 * (y * y + z * z)
    R[..., 0, 1] = 2 * (x * y - w * z)
    R[..., 0, 2] = 2 * (x * z + w * y)
    R[..., 1, 0] = 2 * (x * y + w * z)
    R[..., 1, 1] = 1 - 2 * (x * x + z * z)
    R[..., 1, 2] = 2 * (y * z - w * x)
    R[..., 2, 0] = 2 * (x * z - w * y)
    R[..., 2, 1] = 2 * (y * z + w * x)
    R[..., 2, 2] = 1 - 2 * (x * x + y * y)
    return R


def matrix_from_quat_xyzw(quat_xyzw: ArrayLike) -> FloatArray:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in x, y, z, w order.

    The order of PyBullet, ROS and scipy.
    """
    return matrix_from_quat_wxyz(np.roll(np.asarray(quat_xyzw, float), 1, axis=-1))


def quat_wxyz_from_matrix(R: ArrayLike) -> FloatArray:
    """Unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    R = np.asarray(R, float)
    diagonal = np.diagonal(R, axis1=-2, axis2=-1)
    trace = diagonal.sum(-1)
    # Row i of `candidates` is the quaternion times 4 q_i; all rows describe the same rotation.
    candidates = np.empty((*R.shape[:-2], 4, 4))
    candidates[..., 0, 0] = 1 + trace
    for i in range(3):
        candidates[..., i + 1, i + 1] = 1 - trace + 2 * diagonal[..., i]
    products = {
        (0, 1): R[..., 2, 1] - R[..., 1, 2],
        (0, 2): R[..., 0, 2] - R[..., 2, 0],
        (0, 3): R[..., 1, 0] - R[..., 0, 1],
        (1, 2): R[..., 0, 1] + R[..., 1, 0],
        (1, 3): R[..., 0, 2] + R[..., 2, 0],
        (2, 3): R[..., 1, 2] + R[..., 2, 1],
    }
    for (i, j), product in products.items():
        candidates[..., i, j] = product
        candidates[..., j, i] = product
    # The best conditioned row has the largest diagonal entry.
    scale = np.diagonal(candidates, axis1=-2, axis2=-1)
    best = np.argmax(scale, axis=-1)[..., None, None]
    q = np.take_along_axis(candidates, best, axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0, -q, q)


def quat_xyzw_from_matrix(R: ArrayLike) -> FloatArray:
    """Unit quaternions (..., 4) in x, y, z, w order, w >= 0, of rotation matrices (..., 3, 3)."""
    return np.roll(quat_wxyz_from_matrix(R), -1, axis=-1)


def matrix_from_rpy(rpy: ArrayLike) -> FloatArray:
    """Rotation matrix (3, 3) of URDF's roll, pitch and yaw (3,) in radians.

    The angles turn about the fixed x, then y, then z axis: R = Rz(yaw) Ry(pitch) Rx(roll).
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def rpy_from_matrix(R: ArrayLike, *, gimbal_tolerance: float = 1e-9) -> FloatArray:
    """URDF's roll, pitch and yaw (3,) in radians of a rotation matrix (3, 3).

    At a pitch of +-90 degrees only the sum or difference of roll and yaw is defined: yaw is 0 then.

    Args:
        R: The rotation.
        gimbal_tolerance: cos(pitch) below which the pitch counts as +-90 degrees.
    """
    R = np.asarray(R, float)
    horizontal = np.hypot(R[0, 0], R[1, 0])  # cos(pitch)
    pitch = np.arctan2(-R[2, 0], horizontal)
    if horizontal < gimbal_tolerance:
        return np.array([np.arctan2(-R[1, 2], R[1, 1]), pitch, 0.0])
    roll = np.arctan2(R[2, 1], R[2, 2])
    yaw = np.arctan2(R[1, 0], R[0, 0])
    return np.array([roll, pitch, yaw])


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> FloatArray:
    """Pose X_world_camera (4, 4) of a camera: z forward, x right, y down (OpenCV).

    Args:
        eye: Position (3,) of the camera, world frame, meters.
        target: Point (3,) on the optical axis.
        up: Direction (3,) that points up in the image.
    """
    eye, target, up = (np.asarray(v, float) for v in (eye, target, up))
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, up)
    if np.linalg.norm(x) < 1e-9:  # looking along `up`: any direction may be right
        x = np.cross(z, [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    return pose(np.stack([x, y, z], axis=-1), eye)


def angle_between(R_a: ArrayLike, R_b: ArrayLike) -> FloatArray:
    """Rotation angles (...,) in radians from R_a to R_b (..., 3, 3)."""
    Rt_a = np.swapaxes(np.asarray(R_a, float), -1, -2)
    relative = Rt_a @ np.asarray(R_b, float)
    return np.linalg.norm(log_so3(relative), axis=-1)


def fit_rigid(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """Rigid motions X (..., 4, 4) that minimize sum_i w_i |X source_i - target_i|^2.

    Kabsch's closed form, restricted to proper rotations (no reflections).

    Args:
        source, target: Matching points (..., K, 3); batch axes broadcast.
        weights: Non-negative weights (..., K), not all zero. Defaults to ones.

    Raises:
        ValueError: If the weights of a fit are all zero.
    """
    p, y = np.broadcast_arrays(np.asarray(source, float), np.asarray(target, float))
    if weights is None:
        w = np.ones(p.shape[:-1])
    else:
        w = np.broadcast_to(np.asarray(weights, float), p.shape[:-1])
    total = w.sum(-1)[..., None]
    if np.any(total <= 0):
        raise ValueError(
            "weights: expected a positive sum for every fit, got all zeros; give some point weight"
        )
    # Both point sets about their weighted means.
    p_mean = (w[..., None] * p).sum(-2) / total
    y_mean = (w[..., None] * y).sum(-2) / total
    p_centered = w[..., None] * (p - p_mean[..., None, :])
    y_centered = y - y_mean[..., None, :]
    # Cross-covariance S = U D V^T; the best rotation is V diag(1, 1, det) U^T.
    S = np.swapaxes(p_centered, -1, -2) @ y_centered  # (..., 3, 3)
    U, _, Vt = np.linalg.svd(S)
    V = np.swapaxes(Vt, -1, -2)
    sign = np.ones((*S.shape[:-2], 3))
    sign[..., 2] = np.sign(np.linalg.det(V) * np.linalg.det(U))
    R = (V * sign[..., None, :]) @ np.swapaxes(U, -1, -2)
    return pose(R, y_mean - (R @ p_mean[..., None])[..., 0])
