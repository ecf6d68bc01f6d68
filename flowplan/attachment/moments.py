"""Second moments of a tracked patch: sufficient statistics for rigid fits to any number of points.

Points b_k of the patch in the tool frame, their positions y_k in the flow, weights w_k, and

    W = sum w,  b = mean_w(b_k),  y = mean_w(y_k),
    S = sum w (b_k - b)(y_k - y)^T,  C = sum w (b_k - b)(b_k - b)^T,  s2 = sum w |y_k - y|^2.

The alignment energy of a tool pose (R, t) is then, exactly,

    E(R, t) = sum w |R b_k + t - y_k|^2 = W |R b + t - y|^2 + tr C + s2 - 2 tr(R S).

With S = U D V^T, R* = V diag(1, 1, det) U^T (Kabsch 1976), A = R* S and K = tr(A) I - A, a positive
semidefinite matrix, and with q_v the vector part of the unit quaternion of R R*^T,

    E(R, t) = E_min + W |R b + t - y|^2 + 4 q_v^T K q_v,   E_min = tr C + s2 - 2 tr A.

Six residuals therefore stand for the whole patch. The square root of an eigenvalue of K / W is the
lever arm (m) with which the patch observes rotation about that eigenvector. Collinear points, or a
single point, leave K rank-deficient: the rotation that they do not observe costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.geometry import pose, quat_wxyz_from_matrix, skew
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted moments of one patch at T times.

    Attributes:
        weight: (T,) sum of the point weights; 0 if no point is visible.
        count: (T,) effective number of points, W^2 / sum w^2.
        source_mean: (T, 3) weighted mean of the points in the tool frame, meters.
        target_mean: (T, 3) weighted mean of their positions in the flow, world frame, meters.
        S: (T, 3, 3) cross moment, tool frame by world frame, m^2.
        C: (T, 3, 3) moment of the points in the tool frame, m^2.
        s2: (T,) moment of the positions in the flow, m^2.
    """

    weight: FloatArray
    count: FloatArray
    source_mean: FloatArray
    target_mean: FloatArray
    S: FloatArray
    C: FloatArray
    s2: FloatArray

    def __post_init__(self) -> None:
        T = len(self.weight)
        shapes: dict[str, tuple[int, ...]] = {
            "weight": (T,),
            "count": (T,),
            "source_mean": (T, 3),
            "target_mean": (T, 3),
            "S": (T, 3, 3),
            "C": (T, 3, 3),
            "s2": (T,),
        }
        for name, shape in shapes.items():
            value = checks.array(f"Moments.{name}", getattr(self, name), shape)
            object.__setattr__(self, name, value)

    def energy(self, X_world_tool: FloatArray) -> FloatArray:
        """Alignment energy E (T,) in m^2 of tool poses (T, 4, 4)."""
        R, t = X_world_tool[:, :3, :3], X_world_tool[:, :3, 3]
        offset = np.einsum("tij,tj->ti", R, self.source_mean) + t - self.target_mean
        aligned = np.einsum("tij,tji->t", R, self.S)  # tr(R S)
        spread = np.trace(self.C, axis1=1, axis2=2) + self.s2 - 2 * aligned
        return self.weight * (offset**2).sum(-1) + spread


def point_moments(
    source: FloatArray, targets: FloatArray, weights: FloatArray, around: FloatArray | None = None
) -> Moments:
    """Moments of points in one pass, with the points on the last axis for vectorization.

    Args:
        source: (3, K) points in the tool frame, meters.
        targets: (T, 3, K) their positions in the flow, world frame, meters.
        weights: (T, K) non-negative.
        around: (T, 4, 4) poses near the best ones. The sums run over the residuals about them,
            which keeps the digits of a small slip. Defaults to the identity.
    """
    X = np.broadcast_to(np.eye(4), (len(targets), 4, 4)) if around is None else around
    R, t = X[:, :3, :3], X[:, :3, 3]
    residual = targets - R @ source
    residual -= t[..., None]
    return residual_moments(source, residual, weights, X)


def residual_moments(
    source: FloatArray, residual: FloatArray, weights: FloatArray, X: FloatArray
) -> Moments:
    """Moments from residuals about given poses.

    Args:
        source: (3, K) points in the tool frame, meters.
        residual: (T, 3, K) targets minus X source, meters.
        weights: (T, K) non-negative.
        X: (T, 4, 4) the poses of the residuals.
    """
    # All sums over points as two matrix products.
    x, y, z = source
    products = [np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z]
    features = np.stack(products, axis=-1)  # (K, 10)
    sums = weights @ features  # (T, 10)
    weighted = residual * weights[:, None]  # (T, 3, K)
    cross = weighted @ features[:, :4]  # (T, 3, 4): sum w r [1, b]
    square = np.einsum("tck,tck->t", weighted, residual)

    # Weighted means of points b and residuals r; zero in frames without any weight.
    W = sums[:, 0]
    seen = W > 0
    inverse = np.where(seen, 1.0 / np.where(seen, W, 1.0), 0.0)
    b = sums[:, 1:4] * inverse[:, None]  # (T, 3)
    r = cross[:, :, 0] * inverse[:, None]  # (T, 3)

    # Central moments: C of the points, B = sum w (b_k - b)(r_k - r)^T.
    raw_C = sums[:, [[4, 5, 6], [5, 7, 8], [6, 8, 9]]]  # (T, 3, 3)
    raw_B = np.swapaxes(cross[:, :, 1:], 1, 2)  # (T, 3, 3)
    C = raw_C - W[:, None, None] * b[:, :, None] * b[:, None, :]
    B = raw_B - W[:, None, None] * b[:, :, None] * r[:, None, :]

    # S and s2 by their definitions, with y_k - y = R (b_k - b) + (r_k - r).
    R, t = X[:, :3, :3], X[:, :3, 3]
    S = C @ np.swapaxes(R, 1, 2) + B
    trace_C = np.trace(C, axis1=1, axis2=2)
    trace_RB = np.einsum("tij,tji->t", R, B)
    s2 = trace_C + 2 * trace_RB + square - W * (r**2).sum(-1)

    target_mean = np.einsum("tij,tj->ti", R, b) + t + r
    squares = np.einsum("tk,tk->t", weights, weights)
    count = np.where(seen, W**2 / np.where(seen, squares, 1.0), 0.0)
    return Moments(W, count, b, target_mean * seen[:, None], S, C, np.maximum(s2, 0.0))


@dataclass(frozen=True, eq=False)
class RigidFit:
    """Best rigid motion of a patch.

    Attributes:
        X_world_tool: (T, 4, 4) poses that minimize the energy, with the least rotation since the
            frame before if the patch does not observe it.
        K: (T, 3, 3) rotation stiffness, world axes, m^2, with exact zeros for unobserved rotations.
        slip: (T,) sqrt(E_min / W), RMS distance (m) of the points from the rigid motion.
    """

    X_world_tool: FloatArray
    K: FloatArray
    slip: FloatArray


def rigid_fit(moments: Moments, R_first: FloatArray, *, min_lever: float) -> RigidFit:
    """Best rigid motion (Kabsch per frame) with its rotation stiffness.

    Args:
        moments: Moments of the patch.
        R_first: (3, 3) rotation from which unobserved rotations are continued.
        min_lever: Meters; a rotation about an axis closer to all points than this is unobserved.
    """
    # Best rotation per frame from the singular values d of S, the last one signed.
    U, d, Vt = np.linalg.svd(moments.S)
    V = np.swapaxes(Vt, 1, 2)
    sign = np.sign(np.linalg.det(U) * np.linalg.det(V))
    one = np.ones_like(sign)
    d = d * np.stack([one, one, sign], axis=-1)
    reflection = np.where(np.arange(3) == 2, sign[:, None], 1.0)  # (T, 3)
    R = (V * reflection[:, None, :]) @ np.swapaxes(U, 1, 2)
    E_min = np.trace(moments.C, axis1=1, axis2=2) + moments.s2 - 2 * d.sum(-1)

    # The stiffness about singular axis i is the sum of the other two values. If d1 + d2 is below
    # the lever arm, only the direction of the first axis is observed; if d0 + d2 is too, nothing.
    least = moments.weight * min_lever**2
    no_roll = d[:, 1] + d[:, 2] <= least
    nothing = d[:, 0] + d[:, 2] <= least
    d = np.where(no_roll[:, None] & (np.arange(3) > 0), 0.0, d)
    d = np.where(nothing[:, None], 0.0, d)
    if no_roll.any():
        observed_S = (U * d[:, None, :]) @ Vt
        R = _least_rotation(R, observed_S, no_roll, R_first)

    # K = tr(A) I - A with A = R S; translation and slip from the means.
    A = (V * d[:, None, :]) @ Vt
    K = d.sum(-1)[:, None, None] * np.eye(3) - A
    seen = moments.weight > 0
    t = moments.target_mean - np.einsum("tij,tj->ti", R, moments.source_mean)
    slip = np.sqrt(np.maximum(E_min, 0.0) / np.where(seen, moments.weight, 1.0))
    return RigidFit(pose(R, t), K, slip)


def _least_rotation(
    R: FloatArray, S: FloatArray, deficient: FloatArray, R_first: FloatArray
) -> FloatArray:
    """Rotations (T, 3, 3) of the same energy, each as near as possible to the frame before."""
    # Maximize tr(R S) + eps tr(R R_prev^T) in the frames that leave a rotation open.
    R = R.copy()
    previous = R_first
    for t in range(len(R)):
        if deficient[t]:
            eps = max(1e-7 * np.abs(S[t]).max(), 1e-30)
            U, _, Vt = np.linalg.svd(S[t] + eps * previous.T)
            proper = np.diag([1.0, 1.0, np.linalg.det(U @ Vt)])
            R[t] = Vt.T @ proper @ U.T
        previous = R[t]
    return R


def alignment_residual(
    X: FloatArray,
    X_star: FloatArray,
    source_mean: FloatArray,
    root_weight: FloatArray,
    root_K: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Six residuals whose squared norm is E - E_min, and their Gauss-Newton Jacobian.

    Args:
        X: (..., T, 4, 4) tool poses.
        X_star: (T, 4, 4) best poses.
        source_mean: (T, 3) mean of the points, tool frame, meters.
        root_weight: (T,) sqrt(W).
        root_K: (T, 3, 3) symmetric square root of K.

    Returns:
        residual (..., T, 6): sqrt(W) (R b + t - y) and 2 K^(1/2) q_v, where q is the quaternion of
            R R*^T with q_w >= 0.
        G (..., T, 6, 6): Derivative along a world-aligned twist (velocity of the tool origin,
            angular velocity), sqrt(W) [I, -[R b]x] over [0, K^(1/2) (q_w I - [q_v]x)].
    """
    b = source_mean[..., None]  # (T, 3, 1)
    R, R_star = X[..., :3, :3], X_star[..., :3, :3]
    arm = (R @ b)[..., 0]
    target = (R_star @ b)[..., 0] + X_star[..., :3, 3]
    q_w, q_v = _quaternion(R @ np.swapaxes(R_star, -1, -2))

    residual = np.empty((*arm.shape[:-1], 6))
    residual[..., :3] = root_weight[..., None] * (arm + X[..., :3, 3] - target)
    residual[..., 3:] = 2 * (root_K @ q_v[..., None])[..., 0]

    G = np.zeros((*arm.shape[:-1], 6, 6))
    G[..., [0, 1, 2], [0, 1, 2]] = root_weight[..., None]
    G[..., :3, 3:] = -root_weight[..., None, None] * skew(arm)
    G[..., 3:, 3:] = root_K @ (q_w[..., None] * np.eye(3) - skew(q_v))
    return residual, G


def _quaternion(R: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scalar (..., 1) and vector parts (..., 3) of the unit quaternions of R, w >= 0."""
    square = 1 + R[..., 0, 0] + R[..., 1, 1] + R[..., 2, 2]  # (2 q_w)^2
    if square.min() < 1.0:
        q = quat_wxyz_from_matrix(R)
        return q[..., :1], q[..., 1:]
    # All angles are at most 120 degrees: division by q_w is safe, and fast.
    q_w = 0.5 * np.sqrt(square)[..., None]
    x = R[..., 2, 1] - R[..., 1, 2]
    y = R[..., 0, 2] - R[..., 2, 0]
    z = R[..., 1, 0] - R[..., 0, 1]
    return q_w, np.stack([x, y, z], -1) / (4 * q_w)


def symmetric_root(K: FloatArray) -> FloatArray:
    """Square roots (..., 3, 3) of symmetric positive semidefinite matrices (..., 3, 3)."""
    values, vectors = np.linalg.eigh(K)
    root = np.sqrt(np.maximum(values, 0.0))
    return (vectors * root[..., None, :]) @ np.swapaxes(vectors, -1, -2)
