"""Rigid transforms, rotations and the weighted rigid fit.

Poses are (..., 4, 4) homogeneous matrices named by what they compose: `X_world_tool = X_world_object @ X_object_tool`.
Quaternions appear only at the edges and carry their order in the name: `quat_wxyz`, `quat_xyzw`.
Twists are (linear, angular).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def pose(rotation: ArrayLike | None = None, translation: ArrayLike | None = None) -> Array:
    """Homogeneous transforms (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3) in metres."""
    R = np.eye(3) if rotation is None else np.asarray(rotation, float)
    t = np.zeros(3) if translation is None else np.asarray(translation, float)
    batch = np.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    X = np.zeros((*batch, 4, 4))
    X[..., :3, :3] = R
    X[..., :3, 3] = t
    X[..., 3, 3] = 1.0
    return X


def inverse(X: ArrayLike) -> Array:
    """Inverse of rigid transforms (..., 4, 4), without a linear solve."""
    X = np.asarray(X, float)
    Rt = np.swapaxes(X[..., :3, :3], -1, -2)
    return pose(Rt, -(Rt @ X[..., :3, 3, None])[..., 0])


def transform(X: ArrayLike, points: ArrayLike) -> Array:
    """Points (..., N, 3) moved by X (..., 4, 4); batch axes broadcast."""
    X = np.asarray(X, float)
    return np.asarray(points, float) @ np.swapaxes(X[..., :3, :3], -1, -2) + X[..., None, :3, 3]


def skew(v: ArrayLike) -> Array:
    """Cross-product matrices (..., 3, 3): skew(v) @ u = v x u."""
    v = np.asarray(v, float)
    S = np.zeros((*v.shape, 3))
    S[..., 0, 1], S[..., 0, 2] = -v[..., 2], v[..., 1]
    S[..., 1, 0], S[..., 1, 2] = v[..., 2], -v[..., 0]
    S[..., 2, 0], S[..., 2, 1] = -v[..., 1], v[..., 0]
    return S


def cross(a: ArrayLike, b: ArrayLike) -> Array:
    """Cross products (..., 3); numpy's own spends several times as long on small batches."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    out = np.empty(np.broadcast_shapes(a.shape, b.shape))
    out[..., 0] = ay * bz - az * by
    out[..., 1] = az * bx - ax * bz
    out[..., 2] = ax * by - ay * bx
    return out


def exp_so3(w: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) in radians (Rodrigues)."""
    w = np.asarray(w, float)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    S = skew(w)
    # sinc keeps the small-angle limit exact: sin(a)/a and (1 - cos a)/a^2 = sinc(a/2)^2 / 2.
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + a * S + b * (S @ S)


def log_so3(R: ArrayLike) -> Array:
    """Rotation vectors (..., 3) in radians, angle in [0, pi]; stable near 0 and near pi (through the quaternion)."""
    q = quat_wxyz_from_matrix(R)
    v = q[..., 1:]
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(norm, q[..., :1])
    scale = np.where(norm > 1e-12, angle / np.where(norm > 1e-12, norm, 1.0), 2.0)
    return v * scale


def exp_se3(twist: ArrayLike) -> Array:
    """Transforms (..., 4, 4) of twists (..., 6) = (linear m, angular rad)."""
    twist = np.asarray(twist, float)
    v, w = twist[..., :3], twist[..., 3:]
    return pose(exp_so3(w), (_left_jacobian(w) @ v[..., None])[..., 0])


def log_se3(X: ArrayLike) -> Array:
    """Twists (..., 6) = (linear m, angular rad) with exp_se3(log_se3(X)) = X."""
    X = np.asarray(X, float)
    w = log_so3(X[..., :3, :3])
    v = np.linalg.solve(_left_jacobian(w), X[..., :3, 3, None])[..., 0]
    return np.concatenate([v, w], axis=-1)


def _left_jacobian(w: Array) -> Array:
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    S = skew(w)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    c = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) + b * S + c * (S @ S)


def interpolate(X_a: ArrayLike, X_b: ArrayLike, s: ArrayLike) -> Array:
    """Poses between X_a and X_b (4, 4) at fractions s (S,): straight line in position, constant-rate rotation."""
    X_a, X_b, s = np.asarray(X_a, float), np.asarray(X_b, float), np.asarray(s, float)
    w = log_so3(X_a[:3, :3].T @ X_b[:3, :3])
    return pose(
        X_a[:3, :3] @ exp_so3(s[..., None] * w),
        X_a[:3, 3] + s[..., None] * (X_b[:3, 3] - X_a[:3, 3]),
    )


def rotation_about(axis_point: ArrayLike, axis: ArrayLike, angle: ArrayLike) -> Array:
    """Transforms (..., 4, 4) turning by `angle` (...,) rad about the line through `axis_point` along `axis` (3,)."""
    p = np.asarray(axis_point, float)
    a = np.asarray(axis, float)
    R = exp_so3(np.asarray(angle, float)[..., None] * (a / np.linalg.norm(a)))
    return pose(R, p - R @ p)


def matrix_from_quat_wxyz(quat_wxyz: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4), normalised first."""
    q = np.asarray(quat_wxyz, float)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def matrix_from_quat_xyzw(quat_xyzw: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of quaternions in x, y, z, w order (PyBullet, ROS, scipy)."""
    return matrix_from_quat_wxyz(np.roll(np.asarray(quat_xyzw, float), 1, axis=-1))


def quat_wxyz_from_matrix(R: ArrayLike) -> Array:
    """Unit quaternions (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    R = np.asarray(R, float)
    d = np.diagonal(R, axis1=-2, axis2=-1)
    trace = d.sum(-1)
    # Four candidate quaternions, each scaled by one component; the best conditioned has the largest of them.
    q = np.empty((*R.shape[:-2], 4, 4))
    q[..., 0, 0] = 1 + trace
    for i in range(3):
        q[..., i + 1, i + 1] = 1 - trace + 2 * d[..., i]
    q[..., 0, 1] = q[..., 1, 0] = R[..., 2, 1] - R[..., 1, 2]
    q[..., 0, 2] = q[..., 2, 0] = R[..., 0, 2] - R[..., 2, 0]
    q[..., 0, 3] = q[..., 3, 0] = R[..., 1, 0] - R[..., 0, 1]
    q[..., 1, 2] = q[..., 2, 1] = R[..., 0, 1] + R[..., 1, 0]
    q[..., 1, 3] = q[..., 3, 1] = R[..., 0, 2] + R[..., 2, 0]
    q[..., 2, 3] = q[..., 3, 2] = R[..., 1, 2] + R[..., 2, 1]
    best = np.argmax(np.diagonal(q, axis1=-2, axis2=-1), axis=-1)
    out = np.take_along_axis(q, best[..., None, None], axis=-2)[..., 0, :]
    out = out / np.linalg.norm(out, axis=-1, keepdims=True)
    return np.where(out[..., :1] < 0, -out, out)


def quat_xyzw_from_matrix(R: ArrayLike) -> Array:
    """Unit quaternions (..., 4) in x, y, z, w order."""
    return np.roll(quat_wxyz_from_matrix(R), -1, axis=-1)


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> Array:
    """X_world_camera (4, 4) of a camera at `eye` that sees `target`: z forward, x right, y down (OpenCV)."""
    eye, target, up = (np.asarray(v, float) for v in (eye, target, up))
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, up)
    if np.linalg.norm(x) < 1e-9:  # looking along `up`: any right-hand direction does
        x = np.cross(z, [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    return pose(np.stack([x, np.cross(z, x), z], axis=-1), eye)


def angle_between(R_a: ArrayLike, R_b: ArrayLike) -> Array:
    """Rotation angle (...,) in radians that takes R_a to R_b."""
    return np.linalg.norm(
        log_so3(np.swapaxes(np.asarray(R_a, float), -1, -2) @ np.asarray(R_b, float)), axis=-1
    )


def fit_rigid(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """X (..., 4, 4) minimising sum_i w_i |X source_i - target_i|^2 over rigid motions (Kabsch, with reflection guard).

    Args:
        source, target: (..., K, 3) matching points; batch axes broadcast.
        weights: (..., K) non-negative; all ones if not given. They must not all be zero.
    """
    p, y = np.broadcast_arrays(np.asarray(source, float), np.asarray(target, float))
    w = (
        np.ones(p.shape[:-1])
        if weights is None
        else np.broadcast_to(np.asarray(weights, float), p.shape[:-1])
    )
    total = w.sum(-1)[..., None]
    if np.any(total <= 0):
        raise ValueError(
            "weights: expected a positive sum for every fit, got all zeros; give some point weight"
        )
    p_mean = (w[..., None] * p).sum(-2) / total
    y_mean = (w[..., None] * y).sum(-2) / total
    S = np.swapaxes(w[..., None] * (p - p_mean[..., None, :]), -1, -2) @ (y - y_mean[..., None, :])
    U, _, Vt = np.linalg.svd(S)
    V = np.swapaxes(Vt, -1, -2)
    sign = np.ones((*S.shape[:-2], 3))
    sign[..., 2] = np.sign(np.linalg.det(V) * np.linalg.det(U))
    R = (V * sign[..., None, :]) @ np.swapaxes(U, -1, -2)
    return pose(R, y_mean - (R @ p_mean[..., None])[..., 0])
