"""How large a disturbance a set of contacts resists: the Ferrari-Canny measure with soft fingers.

A contact at p with inward normal n, pushing with at most unit normal force, can produce every wrench
(f, tau / rho) = (f, (p - c) x f / rho + m n / rho) with f = n + t, t orthogonal to n, and the elliptical friction limit
of Howe and Cutkosky (1996), |t|^2 / mu^2 + m^2 / (mu r)^2 <= 1. Here c is the reference point (the centre of mass), rho
a length that makes torques comparable with forces, and r the radius of torsion of the contact patch (0: a hard finger).
Ferrari and Canny (ICRA 1992) call epsilon the radius of the largest ball about the origin inside the convex hull of all
contacts' wrenches: the worst disturbance that normal forces summing to one still resist.

The hull's support function has a closed form, so no friction cone needs to be cut into edges,

    h(u) = max(0, max_i [n_i . v_i + mu sqrt(|v_i - (n_i . v_i) n_i|^2 + (r_i n_i . u_tau / rho)^2)]),
    v_i = u_f + (u_tau x (p_i - c)) / rho,

and epsilon = min_{|u|=1} h(u). `epsilon` minimises it by batched descent from many directions; `epsilon_by_hull` is the
readable reference on discretised cones, through qhull. `force_margin` asks for less, and more to the point of holding
an object up: only forces at the centre of mass.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull, QhullError

from flowplan.utils.checks import FloatArray

_LATITUDES = (-60.0, -30.0, 0.0, 30.0, 60.0)


def contact_wrenches(
    points: ArrayLike,
    normals: ArrayLike,
    *,
    friction: float,
    torsion_radius: ArrayLike,
    centre: ArrayLike,
    length: float,
    edges: int = 16,
) -> FloatArray:
    """Wrenches (K, 6) that contacts at unit normal force can produce, torque over `length`.

    Args:
        points: (C, 3) contact points, metres.
        normals: (C, 3) unit, into the object.
        friction: Coulomb coefficient.
        torsion_radius: (C,) metres; friction torque about the normal is at most friction * radius * normal force.
        centre: (3,) point that torques are taken about.
        length: metres that a torque is divided by.
        edges: directions that the friction circle is cut into.
    """
    points, normals = np.asarray(points, float), np.asarray(normals, float)
    radius = np.broadcast_to(np.asarray(torsion_radius, float), len(points))
    # Points of the friction ellipsoid: all force on its equator, all torsion at its poles.
    angle = np.concatenate(
        [2 * np.pi * np.arange(edges) / edges + 0.1 * k for k in range(len(_LATITUDES))]
    )
    latitude = np.repeat(np.deg2rad(_LATITUDES), edges)
    hard = latitude == 0
    rows = []
    for p, n, r in zip(points, normals, radius, strict=True):
        t1 = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
        t1 /= np.linalg.norm(t1)
        t2 = np.cross(n, t1)
        keep = hard if r == 0 else slice(None)
        a, b = angle[keep], latitude[keep]
        tangent = (
            friction * np.cos(b)[:, None] * (np.cos(a)[:, None] * t1 + np.sin(a)[:, None] * t2)
        )
        twist = friction * r * np.sin(b)
        if r > 0:
            tangent, twist = (
                np.concatenate([tangent, np.zeros((2, 3))]),
                np.append(twist, [friction * r, -friction * r]),
            )
        force = n + tangent
        torque = np.cross(p - np.asarray(centre, float), force) + twist[:, None] * n
        rows.append(np.concatenate([force, torque / length], axis=1))
    return np.concatenate(rows)


def epsilon_by_hull(wrenches: ArrayLike) -> float:
    """Distance from the origin to the nearest facet of the convex hull of wrenches (K, 6); 0 when it is not inside."""
    try:
        # Joggled input (QJ): wrenches of flat faces are coplanar in bulk, and merging such facets fails in 6-D.
        offsets = ConvexHull(np.asarray(wrenches, float), qhull_options="QJ").equations[:, -1]
    except QhullError:
        return 0.0  # flat hull: some wrench cannot be resisted at all
    return max(0.0, float(-offsets.max()))


def epsilon(
    points: ArrayLike,
    normals: ArrayLike,
    *,
    friction: float,
    torsion_radius: ArrayLike,
    centre: ArrayLike,
    length: float,
    starts: int = 16,
    iterations: int = 24,
) -> FloatArray:
    """Ferrari-Canny epsilon (G,) of G grasps with C contacts each, exact friction cones.

    Args:
        points: (G, C, 3) contact points, metres.
        normals: (G, C, 3) unit, into the object.
        friction: Coulomb coefficient.
        torsion_radius: (G, C) metres.
        centre: (3,) or (G, 3) point that torques are taken about.
        length: metres that a torque is divided by.
        starts, iterations: descents from the best directions of a fixed set, and their steps. What they find is
            an upper bound: usually a few per cent above the minimum, more for poor grasps.
    """
    p = np.asarray(points, float)
    n = np.asarray(normals, float)
    arm = (p - np.broadcast_to(np.asarray(centre, float), (len(p), 3))[:, None]) / length
    r = np.broadcast_to(np.asarray(torsion_radius, float), p.shape[:2]) / length
    return _smallest_support(arm, n, r, friction, 6, starts, iterations)


def force_margin(
    points: ArrayLike,
    normals: ArrayLike,
    *,
    friction: float,
    centre: ArrayLike,
    length: float,
    starts: int = 16,
    iterations: int = 24,
) -> FloatArray:
    """Force at `centre`, from the worst direction, that G grasps resist for each newton of normal force, (G,).

    Weight and inertia pull at the centre of mass and bring no torque about it, so what holds an object against them is
    not the whole ball of epsilon but its section by the force axes: min over |u_f| = 1 and any u_tau of h(u), which is
    never less than epsilon.

    Args: as for `epsilon`; contacts are hard fingers, a patch is given as several of them. `length` only scales the
        search.
    """
    p = np.asarray(points, float)
    arm = (p - np.broadcast_to(np.asarray(centre, float), (len(p), 3))[:, None]) / length
    hard = np.zeros(p.shape[:2])
    return _smallest_support(arm, np.asarray(normals, float), hard, friction, 3, starts, iterations)


def _smallest_support(
    arm: FloatArray,
    n: FloatArray,
    r: FloatArray,
    friction: float,
    unit: int,
    starts: int,
    iterations: int,
) -> FloatArray:
    """min h(u) (G,) over directions u whose first `unit` components have length one, never below zero."""
    if arm.shape[1] < 2:
        return np.zeros(len(arm))  # one contact cannot even balance its own push
    seeds = _directions(unit)
    value = _support(np.broadcast_to(seeds, (len(arm), *seeds.shape)), arm, n, r, friction)[0].max(
        -1
    )
    u = seeds[np.argpartition(value, starts, axis=1)[:, :starts]]  # (G, S, 6)
    lowest = value.min(1)
    for step in np.geomspace(2.0, 0.02, iterations):
        h, gradient = _support(u, arm, n, r, friction)
        lowest = np.minimum(lowest, h.max(-1).min(1))
        # h is the largest of smooth pieces and its minimum lies on a crease, where plain descent zigzags. A proximal
        # step over the two highest pieces follows the crease: it minimises max_i(h_i + t_i . d) + |d|^2 / (2 step).
        top = np.argsort(-h, axis=-1)[..., :2]  # (G, S, 2)
        h1, h2 = np.moveaxis(np.take_along_axis(h, top, -1), -1, 0)
        tangent = np.take_along_axis(gradient, top[..., None], -2)  # (G, S, 2, 6)
        sphere = u[:, :, None, :unit]
        tangent[..., :unit] -= np.sum(tangent[..., :unit] * sphere, -1, keepdims=True) * sphere
        t1, t2 = np.moveaxis(tangent, -2, 0)
        gap = t1 - t2
        weight = ((h1 - h2) / step - np.sum(t2 * gap, -1)) / np.maximum(np.sum(gap**2, -1), 1e-12)
        u = u - step * (t2 + np.clip(weight, 0, 1)[..., None] * gap)
        u[..., :unit] /= np.maximum(np.linalg.norm(u[..., :unit], axis=-1, keepdims=True), 1e-12)
    lowest = np.minimum(lowest, _support(u, arm, n, r, friction)[0].max(-1).min(1))
    return np.maximum(lowest, 0.0)


def _support(
    u: FloatArray, arm: FloatArray, n: FloatArray, r: FloatArray, friction: float
) -> tuple[FloatArray, FloatArray]:
    """Each contact's h_i(u) (G, D, C) for unit directions u (G, D, 6), and the wrenches (G, D, C, 6) that attain it."""
    uf, ut = u[:, :, None, :3], u[:, :, None, 3:]  # (G, D, 1, 3)
    n, arm, r = n[:, None], arm[:, None], r[:, None]  # (G, 1, C, 3), (G, 1, C)
    v = uf + np.cross(ut, arm)  # (G, D, C, 3)
    along = np.sum(v * n, -1)
    tangential = v - along[..., None] * n
    twist = r * np.sum(ut * n, -1)
    limit = np.sqrt(np.sum(tangential**2, -1) + twist**2)  # (G, D, C)
    scale = friction / np.maximum(limit, 1e-12)
    force = n + scale[..., None] * tangential
    torque = np.cross(arm, force) + (scale * twist * r)[..., None] * n
    return along + friction * limit, np.concatenate([force, torque], -1)


@cache
def _directions(unit: int) -> FloatArray:
    """Directions in wrench space to start from: the first `unit` axes both ways and a fixed random set, else zero."""
    random = np.random.default_rng(0).normal(size=(16 * unit, unit))
    spheres = np.concatenate(
        [np.eye(unit), -np.eye(unit), random / np.linalg.norm(random, axis=1, keepdims=True)]
    )
    out = np.zeros((len(spheres), 6))
    out[:, :unit] = spheres
    out.setflags(write=False)
    return out
