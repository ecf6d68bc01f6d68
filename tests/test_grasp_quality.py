"""Wrench-space quality: closed cases, invariances, and the fast path against qhull."""

import numpy as np
import pytest

from flowplan.geometry import exp_so3
from flowplan.grasp.quality import contact_wrenches, epsilon, epsilon_by_hull, force_margin

POINTS = np.array([[0.0, -0.03, 0.0], [0.0, 0.03, 0.0]])
INWARD = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])


def quality(
    points=POINTS,
    normals=INWARD,
    *,
    friction=0.5,
    torsion=0.006,
    centre=(0, 0, 0),
    length=0.03,
    **more,
):
    return float(
        epsilon(
            points[None],
            normals[None],
            friction=friction,
            torsion_radius=torsion,
            centre=np.array(centre, float),
            length=length,
            **more,
        )[0]
    )


def test_two_antipodal_hard_contacts_cannot_resist_a_twist_about_their_line():
    assert quality(torsion=0.0) < 1e-6


@pytest.mark.parametrize(
    ("friction", "torsion", "length"), [(0.5, 0.006, 0.03), (0.3, 0.004, 0.03), (0.8, 0.002, 0.05)]
)
def test_two_soft_contacts_on_a_sphere_are_limited_by_torsion(friction, torsion, length):
    """The weakest wrench is a pure twist about the line: mu r / rho."""
    got = quality(friction=friction, torsion=torsion, length=length)
    assert got == pytest.approx(friction * torsion / length, rel=1e-3)


def test_it_grows_with_friction_and_with_the_patch():
    assert quality(friction=0.3) < quality(friction=0.6)
    assert quality(torsion=0.003) < quality(torsion=0.006)


def test_one_contact_and_contacts_that_push_past_each_other_have_none():
    assert quality(POINTS[:1], INWARD[:1]) == 0
    askew = np.array(
        [[np.sin(0.8), np.cos(0.8), 0], [np.sin(0.8), -np.cos(0.8), 0]]
    )  # 46 deg, the cone has 27
    assert quality(normals=askew) == 0


def test_it_does_not_depend_on_the_frame():
    R = exp_so3([0.3, -1.1, 0.7])
    t = np.array([0.4, -2.0, 1.0])
    moved = quality(POINTS @ R.T + t, INWARD @ R.T, centre=t)
    assert moved == pytest.approx(quality(), rel=0.05)


def test_fast_path_agrees_with_the_hull():
    rng = np.random.default_rng(0)
    ratio = []
    for _ in range(12):
        points = POINTS * rng.uniform(0.4, 1.3) + rng.normal(0, 0.003, (2, 3))
        normals = INWARD + rng.normal(0, 0.12, (2, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        centre, torsion = rng.normal(0, 0.01, 3), rng.uniform(0.003, 0.01, 2)
        wrenches = contact_wrenches(
            points,
            normals,
            friction=0.5,
            torsion_radius=torsion,
            centre=centre,
            length=0.05,
            edges=16,
        )
        reference = epsilon_by_hull(wrenches)
        ratio.append(
            quality(points, normals, torsion=torsion, centre=centre, length=0.05) / reference
        )
    # The hull of a cut cone lies inside the true one, so the fast path may exceed it; never the other way round.
    assert min(ratio) > 0.99
    assert np.median(ratio) < 1.12


def test_force_margin_of_a_pad_pair_at_the_centre_is_friction():
    """Four hard contacts on each side, no lever arm: any tangential force up to mu per newton is held."""
    corners = np.array([[x, 0, z] for x in (-0.006, 0.006) for z in (-0.006, 0.006)])
    points = np.concatenate([corners + POINTS[0], corners + POINTS[1]])
    normals = np.repeat(INWARD, 4, axis=0)

    def margin(centre):
        return float(
            force_margin(
                points[None],
                normals[None],
                friction=0.4,
                centre=np.array(centre, float),
                length=0.04,
            )[0]
        )

    assert margin((0, 0, 0)) == pytest.approx(0.4, rel=1e-3)
    assert margin((0, 0, 0.05)) < 0.3 * margin((0, 0, 0))
    assert margin((0, 0, 0.08)) < margin((0, 0, 0.03)) < margin((0, 0, 0))


def test_force_margin_is_never_below_epsilon():
    rng = np.random.default_rng(1)
    points = POINTS + rng.normal(0, 0.004, (20, 4, 2, 3))
    points = points.reshape(20, 8, 3)
    normals = np.tile(INWARD, (20, 4, 1))
    centre = rng.normal(0, 0.02, (20, 3))
    whole = epsilon(
        points, normals, friction=0.5, torsion_radius=0.0, centre=centre, length=0.04, iterations=60
    )
    forces = force_margin(points, normals, friction=0.5, centre=centre, length=0.04, iterations=60)
    assert np.all(forces > 0.95 * whole)
