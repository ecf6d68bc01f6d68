"""Force margin and robustness of grasps.

A hard contact at p with inward normal n and friction mu, pushing with at most unit normal force,
can apply every wrench (f, tau / rho) = (n + t, (p - c) x (n + t) / rho) with |t| <= mu and t
orthogonal to n. Here c is the reference point (the center of mass) and rho a length that makes
torques comparable with forces. The support function of the convex hull of these wrenches,

    h(u) = max(0, max_i [n_i . v_i + mu |v_i - (n_i . v_i) n_i|]),
    v_i = u_f + (u_tau x (p_i - c)) / rho,

has a closed form, so no friction cone needs to be cut into edges. Ferrari and Canny (ICRA 1992)
rate a grasp by epsilon = min_{|u| = 1} h(u), the largest wrench that it resists in every
direction. Weight and inertia act on the center of mass without a torque about it, so `force_margin`
takes the section of the hull by the force axes instead: the minimum of h over |u_f| = 1 and any
u_tau, which is never below epsilon.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from flowplan.geometry import exp_so3, pose
from flowplan.grasp.contact import GraspPoses
from flowplan.grasp.surface import unit_vectors
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_FRICTION_RANGE = (0.6, 1.2)
"""Range of the friction coefficient relative to its nominal value, for the robustness."""


def force_margin(
    points: ArrayLike,
    normals: ArrayLike,
    *,
    friction: float,
    center: ArrayLike,
    length: float,
    starts: int = 16,
    iterations: int = 24,
) -> FloatArray:
    """(G,) force at `center` in the worst direction that a grasp resists per unit normal force.

    Args:
        points: (G, C, 3) contact points, meters. A patch is given as several hard contacts.
        normals: (G, C, 3) unit, into the object.
        friction: Coulomb coefficient.
        center: (3,) or (G, 3) point that the force acts on, meters.
        length: Length rho that torques are divided by, meters. It only scales the search.
        starts: Number of descents, from the best of a fixed set of directions.
        iterations: Steps of each descent. The result is an upper bound: usually a few per cent
            above the minimum, more for poor grasps.
    """
    p = np.asarray(points, float)
    n = np.asarray(normals, float)
    c = np.broadcast_to(np.asarray(center, float), (len(p), 3))
    arm = (p - c[:, None]) / length  # (G, C, 3)
    if arm.shape[1] < 2:
        return np.zeros(len(arm))  # one contact cannot even balance its own push

    # The best start directions of each grasp.
    directions = _start_directions()
    value = _support(np.broadcast_to(directions, (len(arm), *directions.shape)), arm, n, friction)
    height = value[0].max(-1)  # (G, D)
    lowest = height.min(1)
    u = directions[np.argpartition(height, starts, axis=1)[:, :starts]]  # (G, S, 6)

    for step in np.geomspace(2.0, 0.02, iterations):
        h, wrench = _support(u, arm, n, friction)
        lowest = np.minimum(lowest, h.max(-1).min(1))
        u = _descend(u, h, wrench, step)
    h, _ = _support(u, arm, n, friction)
    lowest = np.minimum(lowest, h.max(-1).min(1))
    return np.maximum(lowest, 0.0)


def _descend(u: FloatArray, h: FloatArray, wrench: FloatArray, step: float) -> FloatArray:
    """One proximal step on max_i h_i from directions u (G, S, 6), with h (G, S, C) and gradients.

    The maximum of smooth pieces has its minimum on a crease, where plain descent zigzags. A
    proximal step over the two highest pieces follows the crease: it minimizes
    max_i(h_i + t_i . d) + |d|^2 / (2 step) over the step d.
    """
    # The two highest pieces and their gradients.
    top = np.argsort(-h, axis=-1)[..., :2]  # (G, S, 2)
    h1, h2 = np.moveaxis(np.take_along_axis(h, top, -1), -1, 0)
    tangent = np.take_along_axis(wrench, top[..., None], -2)  # (G, S, 2, 6)
    # Project onto the tangent space of the unit sphere of forces.
    sphere = u[:, :, None, :3]
    tangent[..., :3] -= np.sum(tangent[..., :3] * sphere, -1, keepdims=True) * sphere
    t1, t2 = np.moveaxis(tangent, -2, 0)
    # The convex combination of both gradients that solves the proximal problem.
    difference = t1 - t2
    squared = np.maximum(np.sum(difference**2, -1), 1e-12)
    weight = ((h1 - h2) / step - np.sum(t2 * difference, -1)) / squared
    u = u - step * (t2 + np.clip(weight, 0, 1)[..., None] * difference)
    # Back onto the sphere.
    u[..., :3] = unit_vectors(u[..., :3])
    return u


def _support(
    u: FloatArray, arm: FloatArray, n: FloatArray, friction: float
) -> tuple[FloatArray, FloatArray]:
    """Support h_i(u) (G, D, C) of each contact for directions u (G, D, 6), and its gradient.

    The gradients (G, D, C, 6) are the wrenches that attain the support.
    """
    u_force, u_torque = u[:, :, None, :3], u[:, :, None, 3:]  # (G, D, 1, 3)
    n, arm = n[:, None], arm[:, None]  # (G, 1, C, 3)
    v = u_force + np.cross(u_torque, arm)  # (G, D, C, 3)
    # Normal and tangential parts of v.
    along = np.sum(v * n, -1)
    tangential = v - along[..., None] * n
    length = np.sqrt(np.sum(tangential**2, -1))  # (G, D, C)
    # The contact force on the cone's boundary in the direction of v, and its torque.
    scale = friction / np.maximum(length, 1e-12)
    force = n + scale[..., None] * tangential
    torque = np.cross(arm, force)
    return along + friction * length, np.concatenate([force, torque], -1)


@cache
def _start_directions() -> FloatArray:
    """(D, 6) pure forces to start from: the axes in both directions, and a fixed random set."""
    random = unit_vectors(np.random.default_rng(0).normal(size=(48, 3)))
    forces = np.concatenate([np.eye(3), -np.eye(3), random])
    out = np.zeros((len(forces), 6))
    out[:, :3] = forces
    out.setflags(write=False)
    return out


def robustness(
    poses: GraspPoses,
    gripper: Gripper,
    rng: np.random.Generator,
    *,
    count: int,
    friction: float,
    compliance: float,
    position_error: float,
    rotation_error: float,
) -> FloatArray:
    """(G,) mean pad alignment over `count` disturbed poses and frictions, in [0, 1].

    All grasps are disturbed by the same errors.

    Args:
        poses: The grasps.
        gripper: Gripper with the pads.
        rng: Random generator.
        count: Number of disturbances.
        friction: Nominal Coulomb coefficient.
        compliance: Depth behind the foremost point that still bears load, meters.
        position_error: Standard deviation along each axis, meters.
        rotation_error: Standard deviation about each axis, radians.
    """
    total = np.zeros(len(poses))
    for _ in range(count):
        turn = exp_so3(rotation_error * rng.normal(size=3))
        error = pose(turn, position_error * rng.normal(size=3))
        disturbed = friction * rng.uniform(*_FRICTION_RANGE)
        pads = poses.close(poses.X_world_tool @ error, poses.pair, gripper, compliance)
        total += pads.alignment(gripper, disturbed)
    return total / count
