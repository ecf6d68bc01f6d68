"""Batched kinematics of a serial arm: vectorized over the batch, a Python loop over joints only.

A revolute joint's transform is linear in (1, sin q, cos q), a prismatic one's in (1, q)
(Rodrigues), so all local transforms of a batch are one matrix product with constants, and J
products chain them. Every link, sphere and tool is constant in one of the J + 1 moving frames
("bodies": body 0 is the base, body j + 1 follows joint j), so all points come from one further
product. The velocity of a point x carried by joint j, with axis a through the point o, is linear
in x:

    dx/dq_j = a x (x - o) = [skew(a) | o x a] (x, 1)    (revolute)
    dx/dq_j = a                                         (prismatic)

This makes the Jacobians of all points one batched product too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowplan.geometry import pose, skew
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray


def joint_transform(joint: Joint, position: float) -> FloatArray:
    """X_parent_child (4, 4) of one joint at `position` (rad or m).

    This is the readable form of what `Chain` does for a batch.
    """
    S = skew(joint.axis)
    if joint.kind == "revolute":
        # Rodrigues: R = I + sin(q) S + (1 - cos(q)) S^2.
        R = np.eye(3) + np.sin(position) * S + (1 - np.cos(position)) * S @ S
        return joint.X_parent_joint @ pose(R)
    slide = joint.axis * position if joint.kind == "prismatic" else np.zeros(3)
    return joint.X_parent_joint @ pose(None, slide)


def tree_poses(
    joints: Sequence[Joint], root: str, positions: Mapping[str, float]
) -> dict[str, FloatArray]:
    """X_root_link (4, 4) of a link and of all links below it.

    Args:
        joints: parents before children.
        root: a link.
        positions: by joint name, rad or m. Defaults to 0.
    """
    poses = {root: np.eye(4)}
    for joint in joints:
        if joint.parent in poses:
            X_parent_child = joint_transform(joint, positions.get(joint.name, 0.0))
            poses[joint.child] = poses[joint.parent] @ X_parent_child
    return poses


@dataclass(frozen=True, eq=False)
class ArmState:
    """Tool poses, sphere centers and their Jacobians at B configurations.

    Attributes:
        X_world_tool: (B, 4, 4).
        tool_jacobian: (B, 6, J) velocity of the tool origin (rows 0 to 2) and angular velocity
            (rows 3 to 5), world axes.
        centers: (B, K, 3) collision spheres, world frame, meters.
        sphere_jacobian: (B, K, 3, J) derivatives of the centers.
    """

    X_world_tool: FloatArray
    tool_jacobian: FloatArray
    centers: FloatArray
    sphere_jacobian: FloatArray


class Chain:
    """Constants of a serial arm, and the batched products with them.

    Args:
        joints: the tree's joints, parents before children.
        arm: names of the J joints that move, base to tip; all others are fixed at 0.
        X_world_base: (4, 4) pose of `base`.
        base: link that carries the arm.
    """

    def __init__(
        self, joints: Sequence[Joint], arm: Sequence[str], X_world_base: FloatArray, base: str
    ) -> None:
        by_child = {j.child: j for j in joints}
        self.size = len(arm)
        self.revolute = np.array([_named(joints, name).kind == "revolute" for name in arm])
        self.axes = np.stack([_named(joints, name).axis for name in arm])
        # X_body_joint of every arm joint includes the fixed joints between it and the one before.
        constants = np.zeros((self.size, 3, 16))
        previous = base
        for j, name in enumerate(arm):
            joint = _named(joints, name)
            X = joint.X_parent_joint
            link = joint.parent
            while link != previous:
                between = by_child[link]
                X = joint_transform(between, 0.0) @ X
                link = between.parent
            if j == 0:
                X = X_world_base @ X
            constants[j] = _coefficients(X, joint)
            previous = joint.child
        self.constants = constants
        self.X_world_base = X_world_base

    def bodies(self, q: FloatArray) -> FloatArray:
        """World poses (J + 1, B, 4, 4) of the bodies at q (B, J); body 0 is the base."""
        qt = q.T  # (J, B)
        # (1, sin q, cos q) of a revolute joint, (1, q, 0) of a prismatic one.
        features = np.empty((self.size, len(q), 3))
        features[..., 0] = 1.0
        if self.revolute.all():
            features[..., 1] = np.sin(qt)
            features[..., 2] = np.cos(qt)
        else:
            turning = self.revolute[:, None]
            features[..., 1] = np.where(turning, np.sin(qt), qt)
            features[..., 2] = np.where(turning, np.cos(qt), 0.0)
        # Local transforms of all joints, then their products along the arm. The first one starts
        # in the world.
        local = (features @ self.constants).reshape(self.size, len(q), 4, 4)
        X = np.empty((self.size + 1, len(q), 4, 4))
        X[0] = self.X_world_base
        X[1] = local[0]
        for j in range(1, self.size):
            np.matmul(X[j], local[j], out=X[j + 1])
        return X

    def place(self, X_bodies: FloatArray, constant: FloatArray) -> FloatArray:
        """Constant vectors of the bodies, moved to the world.

        Args:
            X_bodies: (J + 1, B, 4, 4) from `bodies`.
            constant: (4 (J + 1), C) columns, each with a homogeneous vector in the four rows of the
                body that carries it, and zeros elsewhere.

        Returns:
            (B, 3, C) products with the upper rows of the bodies' poses.
        """
        J1, B = X_bodies.shape[:2]
        rows = X_bodies[:, :, :3].transpose(1, 2, 0, 3).reshape(B * 3, J1 * 4)
        return (rows @ constant).reshape(B, 3, constant.shape[1])

    def screws(self, X_bodies: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Joint screws in the world.

        Args:
            X_bodies: (J + 1, B, 4, 4) from `bodies`.

        Returns:
            W (B, 4, 3, J) with dx/dq = sum_k (x, 1)_k W_k, and the angular velocities (B, 3, J).
        """
        frames = X_bodies[1:]
        # Axis and origin of each joint in the world.
        a = (frames[..., :3, :3] @ self.axes[:, None, :, None])[..., 0]  # (J, B, 3)
        a = a.transpose(2, 1, 0)  # (3, B, J)
        o = frames[..., :3, 3].transpose(2, 1, 0)  # (3, B, J)
        W = np.zeros((a.shape[1], 4, 3, self.size))
        # The constant part W_3: o x a of a revolute joint, a of a prismatic one.
        if self.revolute.all():
            spin = a
            W[:, 3, 0] = o[1] * a[2] - o[2] * a[1]
            W[:, 3, 1] = o[2] * a[0] - o[0] * a[2]
            W[:, 3, 2] = o[0] * a[1] - o[1] * a[0]
        else:
            spin = a * self.revolute
            W[:, 3] = np.where(self.revolute, np.cross(o, a, axis=0), a).transpose(1, 0, 2)
        # The part that is linear in x: skew(a), written entry by entry.
        W[:, 0, 1] = spin[2]
        W[:, 1, 0] = -spin[2]
        W[:, 2, 0] = spin[1]
        W[:, 0, 2] = -spin[1]
        W[:, 1, 2] = spin[0]
        W[:, 2, 1] = -spin[0]
        return W, spin.transpose(1, 0, 2)

    def tool_jacobian(
        self, screws: tuple[FloatArray, FloatArray], origin: FloatArray
    ) -> FloatArray:
        """Jacobians (B, 6, J) at the tool origins (B, 3), world axes, from `screws`."""
        W, spin = screws
        x = np.ones((len(origin), 1, 4))  # homogeneous
        x[:, 0, :3] = origin
        out = np.empty((len(origin), 6, self.size))
        out[:, :3] = (x @ W.reshape(len(W), 4, 3 * self.size)).reshape(len(W), 3, self.size)
        out[:, 3:] = spin
        return out

    def point_jacobian(
        self, screws: tuple[FloatArray, FloatArray], points: FloatArray, carried: FloatArray
    ) -> FloatArray:
        """Jacobians (B, K, 3, J) of points (B, K, 3), world axes.

        Args:
            screws: from `screws`.
            points: world frame, meters.
            carried: (K, 3 J), 1 if joint j moves point k, else 0.
        """
        W, _ = screws
        B, K = points.shape[:2]
        x = np.ones((B, K, 4))  # homogeneous
        x[..., :3] = points
        J = x @ W.reshape(B, 4, 3 * self.size)  # (B, K, 3 J)
        J *= carried
        return J.reshape(B, K, 3, self.size)


def _named(joints: Sequence[Joint], name: str) -> Joint:
    return next(j for j in joints if j.name == name)


def _coefficients(X: FloatArray, joint: Joint) -> FloatArray:
    """Constants C (3, 16) of a joint with (1, sin q, cos q) C = X_body_child.

    Prismatic joints use (1, q, 0) instead.
    """
    S = skew(joint.axis)
    out = np.zeros((3, 4, 4))
    if joint.kind == "revolute":
        # Rodrigues, sorted by factor: R = (I + S^2) + sin(q) S - cos(q) S^2.
        out[0] = X @ pose(np.eye(3) + S @ S)
        out[1, :3, :3] = X[:3, :3] @ S
        out[2, :3, :3] = -X[:3, :3] @ S @ S
    else:
        out[0] = X
        out[1, :3, 3] = X[:3, :3] @ joint.axis
    return out.reshape(3, 16)


def nearest_turn(
    q: FloatArray, near: FloatArray, lower: FloatArray, upper: FloatArray
) -> FloatArray:
    """Configurations q (..., J) rad, moved by whole turns as close to `near` as limits allow."""
    turn = 2 * np.pi
    turns = np.round((near - q) / turn)
    fewest = np.ceil((lower - q) / turn - 1e-12)
    most = np.floor((upper - q) / turn + 1e-12)
    turns = np.clip(turns, fewest, most)
    return np.clip(q + turn * turns, lower, upper)
