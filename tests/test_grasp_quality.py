"""Force margin: closed cases, invariances, and agreement with a linear program."""

import numpy as np
import pytest
from scipy.optimize import linprog

from flowplan.geometry import exp_so3
from flowplan.grasp.quality import force_margin

POINTS = np.array([[0.0, -0.03, 0.0], [0.0, 0.03, 0.0]])
INWARD = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
CORNERS = np.array([[x, 0, z] for x in (-0.006, 0.006) for z in (-0.006, 0.006)])
PAD_POINTS = np.concatenate([CORNERS + POINTS[0], CORNERS + POINTS[1]])
PAD_NORMALS = np.repeat(INWARD, 4, axis=0)


def margin(points=PAD_POINTS, normals=PAD_NORMALS, *, friction=0.5, center=(0, 0, 0), **more):
    found = force_margin(
        points[None],
        normals[None],
        friction=friction,
        center=np.array(center, float),
        length=0.04,
        **more,
    )
    return float(found[0])


def by_linear_program(points, normals, *, friction, center, edges=16, directions=60):
    """Reference: the least over force directions of the largest force that cut cones resist."""
    angle = 2 * np.pi * np.arange(edges) / edges
    wrenches = []
    for p, n in zip(points, normals, strict=True):
        t1 = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
        t1 /= np.linalg.norm(t1)
        t2 = np.cross(n, t1)
        force = n + friction * (np.cos(angle)[:, None] * t1 + np.sin(angle)[:, None] * t2)
        torque = np.cross(p - center, force) / 0.04
        wrenches.append(np.concatenate([force, torque], axis=1))
    wrenches = np.concatenate(wrenches).T  # (6, K)
    d = np.random.default_rng(0).normal(size=(directions, 3))
    d = np.concatenate([np.eye(3), -np.eye(3), d / np.linalg.norm(d, axis=1, keepdims=True)])
    least = np.inf
    for direction in d:
        # Largest s with s * direction as a combination of wrenches whose weights sum to one.
        balance = np.column_stack([wrenches, -np.concatenate([direction, np.zeros(3)])])
        total = np.append(np.ones(wrenches.shape[1]), 0)[None]
        cost = np.append(np.zeros(wrenches.shape[1]), -1)
        found = linprog(cost, total, [1.0], balance, np.zeros(6), bounds=(0, None))
        least = min(least, -found.fun)
    return least


def test_force_margin_of_a_pad_pair_at_the_center_is_friction():
    """Four hard contacts on each side, no lever arm: any tangential force up to mu is held."""
    assert margin(friction=0.4) == pytest.approx(0.4, rel=1e-3)
    assert margin(friction=0.4, center=(0, 0, 0.05)) < 0.3 * margin(friction=0.4)
    far, near = (margin(friction=0.4, center=(0, 0, z)) for z in (0.08, 0.03))
    assert far < near < margin(friction=0.4)


def test_it_grows_with_friction_and_with_the_patch():
    center = (0, 0, 0.04)
    assert margin(friction=0.3, center=center) < margin(friction=0.6, center=center)
    small = np.concatenate([0.5 * CORNERS + POINTS[0], 0.5 * CORNERS + POINTS[1]])
    assert margin(small, center=center) < margin(center=center)


def test_one_contact_and_contacts_that_push_past_each_other_have_none():
    assert margin(POINTS[:1], INWARD[:1]) == 0
    # 46 degrees; the friction cone has 27.
    askew = np.array([[np.sin(0.8), np.cos(0.8), 0], [np.sin(0.8), -np.cos(0.8), 0]])
    assert margin(POINTS, askew) == 0


def test_it_does_not_depend_on_the_frame():
    R = exp_so3([0.3, -1.1, 0.7])
    t = np.array([0.4, -2.0, 1.0])
    center = np.array([0.0, 0.0, 0.03])
    moved = margin(PAD_POINTS @ R.T + t, PAD_NORMALS @ R.T, center=center @ R.T + t)
    assert moved == pytest.approx(margin(center=center), rel=0.05)


def test_it_agrees_with_a_linear_program():
    rng = np.random.default_rng(0)
    ratio = []
    for _ in range(6):
        points = PAD_POINTS * rng.uniform(0.4, 1.3) + rng.normal(0, 0.003, (8, 3))
        normals = PAD_NORMALS + rng.normal(0, 0.12, (8, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        center = rng.normal(0, 0.01, 3)
        reference = by_linear_program(points, normals, friction=0.5, center=center)
        found = margin(points, normals, friction=0.5, center=center, iterations=60)
        ratio.append(found / reference)
    # Cut cones lie inside the true ones, and finitely many directions miss the worst one.
    assert min(ratio) > 0.9
    assert max(ratio) < 1.12
