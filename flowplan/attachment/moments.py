"""Second moments of a tracked patch: all that a rigid fit needs to know of any number of points.

Held points b_k in the tool frame, where the flow takes them y_k in the world, weights w_k, and for one time

    W = sum w,  b = mean_w(b_k),  y = mean_w(y_k),
    S = sum w (b_k - b)(y_k - y)^T,  C = sum w (b_k - b)(b_k - b)^T,  s2 = sum w |y_k - y|^2.

The alignment energy of a tool pose (R, t) is then, exactly,

    E(R, t) = sum w |R b_k + t - y_k|^2 = W |R b + t - y|^2 + tr C + s2 - 2 tr(R S).

With S = U D V^T, R* = V diag(1, 1, det) U^T (Kabsch 1976), A = R* S and K = tr(A) I - A, a positive semidefinite
matrix, and with q_v the vector part of the unit quaternion of R R*^T,

    E(R, t) = E_min + W |R b + t - y|^2 + 4 q_v^T K q_v,   E_min = tr C + s2 - 2 tr A.

So six residuals stand for the whole patch, and sqrt of an eigenvalue of K / W is the lever arm (m) with which the
patch shows a rotation about that eigenvector. Points on a line, or one point, leave K rank-deficient: the rotation
that they do not show costs nothing.
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
        weight: (T,) sum of the point weights; 0 where no point is seen.
        count: (T,) effective number of points, W^2 / sum w^2.
        source_mean: (T, 3) weighted mean of the points in the tool frame, metres.
        target_mean: (T, 3) weighted mean of where the flow takes them, world frame, metres.
        S: (T, 3, 3) cross moment, tool frame by world frame, m^2.
        C: (T, 3, 3) moment of the points in the tool frame, m^2.
        s2: (T,) moment of the targets, m^2.
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
            "weight": (T,), "count": (T,), "source_mean": (T, 3), "target_mean": (T, 3),
            "S": (T, 3, 3), "C": (T, 3, 3), "s2": (T,),
        }  # fmt: skip
        for name, shape in shapes.items():
            object.__setattr__(
                self, name, checks.array(f"Moments.{name}", getattr(self, name), shape)
            )

    def energy(self, X_world_tool: FloatArray) -> FloatArray:
        """E (T,) of tool poses (T, 4, 4), m^2: the weighted sum of squared distances to the flow."""
        R, t = X_world_tool[:, :3, :3], X_world_tool[:, :3, 3]
        gap = np.einsum("tij,tj->ti", R, self.source_mean) + t - self.target_mean
        spread = (
            np.trace(self.C, axis1=1, axis2=2) + self.s2 - 2 * np.einsum("tij,tji->t", R, self.S)
        )
        return self.weight * (gap**2).sum(-1) + spread


def point_moments(
    source: FloatArray, targets: FloatArray, weights: FloatArray, around: FloatArray | None = None
) -> Moments:
    """Moments of points in one pass, with the points on the last axis (the layout that vectorises).

    Args:
        source: (3, K) tool frame, metres.
        targets: (T, 3, K) world frame, metres.
        weights: (T, K) non-negative.
        around: (T, 4, 4) poses near the best ones; the sums run over what is left of the targets after them, which
            keeps the digits of a small slip. The first frame's frame where not given.
    """
    X = np.broadcast_to(np.eye(4), (len(targets), 4, 4)) if around is None else around
    R, t = X[:, :3, :3], X[:, :3, 3]
    residual = targets - R @ source
    residual -= t[..., None]
    return residual_moments(source, residual, weights, X)


def residual_moments(
    source: FloatArray, residual: FloatArray, weights: FloatArray, X: FloatArray
) -> Moments:
    """Moments from residuals (T, 3, K) of the targets about X source, where a caller has them already."""
    x, y, z = source
    features = np.stack(
        [np.ones_like(x), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z], axis=-1
    )  # (K, 10)
    sums = weights @ features  # (T, 10)
    weighted = residual * weights[:, None]
    cross = weighted @ features[:, :4]  # (T, 3, 4): sum w r [1, b]
    square = np.einsum("tck,tck->t", weighted, residual)

    W = sums[:, 0]
    seen = W > 0
    inverse = np.where(seen, 1.0 / np.where(seen, W, 1.0), 0.0)
    b = sums[:, 1:4] * inverse[:, None]
    C = (
        sums[:, [[4, 5, 6], [5, 7, 8], [6, 8, 9]]]
        - W[:, None, None] * b[:, :, None] * b[:, None, :]
    )
    r = cross[:, :, 0] * inverse[:, None]
    B = (
        np.swapaxes(cross[:, :, 1:], 1, 2) - W[:, None, None] * b[:, :, None] * r[:, None, :]
    )  # sum w (b_k-b)(r_k-r)^T
    R, t = X[:, :3, :3], X[:, :3, 3]
    # y_k - y = R (b_k - b) + (r_k - r), put into the definitions of S and s2.
    S = C @ np.swapaxes(R, 1, 2) + B
    trace_RB = np.einsum("tij,tji->t", R, B)
    s2 = np.trace(C, axis1=1, axis2=2) + 2 * trace_RB + square - W * (r**2).sum(-1)
    y = np.einsum("tij,tj->ti", R, b) + t + r
    squares = np.einsum("tk,tk->t", weights, weights)
    count = np.where(seen, W**2 / np.where(seen, squares, 1.0), 0.0)
    return Moments(W, count, b, y * seen[:, None], S, C, np.maximum(s2, 0.0))


@dataclass(frozen=True, eq=False)
class RigidFit:
    """The best rigid motion of a patch.

    Attributes:
        X_world_tool: (T, 4, 4) poses that minimise the energy, turning no more than needed where the patch shows no
            rotation.
        K: (T, 3, 3) rotation stiffness, world axes, m^2, with exact zeros where rotation is not observed.
        slip: (T,) sqrt(E_min / W): RMS distance (m) of the points from the rigid motion.
    """

    X_world_tool: FloatArray
    K: FloatArray
    slip: FloatArray


def rigid_fit(moments: Moments, R_first: FloatArray, *, min_lever: float) -> RigidFit:
    """The best rigid motion (Kabsch per frame), and how well the patch shows it.

    Args:
        moments: of the patch.
        R_first: (3, 3) rotation that unobserved rotations are carried on from.
        min_lever: metres; rotations about an axis that the points are closer to than this count as unobserved.
    """
    U, d, Vt = np.linalg.svd(moments.S)
    V = np.swapaxes(Vt, 1, 2)
    sign = np.sign(np.linalg.det(U) * np.linalg.det(V))
    d = d * np.stack([np.ones_like(sign), np.ones_like(sign), sign], axis=-1)
    R = (V * np.where(np.arange(3) == 2, sign[:, None], 1.0)[:, None, :]) @ np.swapaxes(U, 1, 2)
    E_min = np.trace(moments.C, axis1=1, axis2=2) + moments.s2 - 2 * d.sum(-1)

    # Stiffness about singular axis i is the sum of the other two values. About the first it is d1 + d2: when that is
    # below the lever arm, only the direction of the first axis is seen; when d0 + d2 is too, nothing is.
    least = moments.weight * min_lever**2
    blind_axis = d[:, 1] + d[:, 2] <= least
    blind = d[:, 0] + d[:, 2] <= least
    d = np.where(blind_axis[:, None] & (np.arange(3) > 0), 0.0, d)
    d = np.where(blind[:, None], 0.0, d)
    if blind_axis.any():
        R = _transport(R, (U * d[:, None, :]) @ Vt, blind_axis, R_first)
    A = (V * d[:, None, :]) @ Vt
    K = d.sum(-1)[:, None, None] * np.eye(3) - A
    seen = moments.weight > 0
    t = moments.target_mean - np.einsum("tij,tj->ti", R, moments.source_mean)
    slip = np.sqrt(np.maximum(E_min, 0.0) / np.where(seen, moments.weight, 1.0))
    return RigidFit(pose(R, t), K, slip)


def _transport(
    R: FloatArray, S: FloatArray, deficient: FloatArray, R_first: FloatArray
) -> FloatArray:
    # Of all rotations of the same energy the one nearest the frame before: maximise tr(R S) + eps tr(R R_prev^T).
    R = R.copy()
    previous = R_first
    for t in range(len(R)):
        if deficient[t]:
            eps = max(1e-7 * np.abs(S[t]).max(), 1e-30)
            U, _, Vt = np.linalg.svd(S[t] + eps * previous.T)
            R[t] = Vt.T @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ U.T
        previous = R[t]
    return R


def alignment_residual(
    X: FloatArray,
    X_star: FloatArray,
    source_mean: FloatArray,
    root_weight: FloatArray,
    root_K: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Six residuals whose square is E - E_min, and their Gauss-Newton Jacobian.

    Args:
        X: (..., T, 4, 4) tool poses.
        X_star: (T, 4, 4) best poses.
        source_mean: (T, 3) tool frame, metres.
        root_weight: (T,) sqrt(W).
        root_K: (T, 3, 3) symmetric square root of K.

    Returns:
        residual (..., T, 6): sqrt(W) (R b + t - y) and 2 K^(1/2) q_v, with q the quaternion of R R*^T, q_w >= 0.
        G (..., T, 6, 6): its derivative along a world-aligned twist (velocity of the tool origin, angular velocity),
            sqrt(W) [I, -[R b]x] over [0, K^(1/2) (q_w I - [q_v]x)].
    """
    arm = (X[..., :3, :3] @ source_mean[..., None])[..., 0]
    target = (X_star[..., :3, :3] @ source_mean[..., None])[..., 0] + X_star[..., :3, 3]
    q_w, q_v = _half_turn(X[..., :3, :3] @ np.swapaxes(X_star[..., :3, :3], -1, -2))
    residual = np.empty((*arm.shape[:-1], 6))
    residual[..., :3] = root_weight[..., None] * (arm + X[..., :3, 3] - target)
    residual[..., 3:] = 2 * (root_K @ q_v[..., None])[..., 0]
    G = np.zeros((*arm.shape[:-1], 6, 6))
    G[..., [0, 1, 2], [0, 1, 2]] = root_weight[..., None]
    G[..., :3, 3:] = -root_weight[..., None, None] * skew(arm)
    G[..., 3:, 3:] = root_K @ (q_w[..., None] * np.eye(3) - skew(q_v))
    return residual, G


def _half_turn(R: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scalar (..., 1) and vector part (..., 3) of the quaternions, with a quick way for turns well short of a half."""
    square = 1 + R[..., 0, 0] + R[..., 1, 1] + R[..., 2, 2]
    if square.min() < 1.0:
        q = quat_wxyz_from_matrix(R)
        return q[..., :1], q[..., 1:]
    q_w = 0.5 * np.sqrt(square)[..., None]
    skew_part = np.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1
    )
    return q_w, skew_part / (4 * q_w)


def symmetric_root(K: FloatArray) -> FloatArray:
    """Square roots (..., 3, 3) of symmetric positive semidefinite matrices (..., 3, 3)."""
    values, vectors = np.linalg.eigh(K)
    root = np.sqrt(np.maximum(values, 0.0))
    return (vectors * root[..., None, :]) @ np.swapaxes(vectors, -1, -2)
