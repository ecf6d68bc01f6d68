"""The true fall of a lid: against the equation of a compound pendulum, its impacts, and forces on
it."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sim_envs.falling_lid import LidOptions, Push, RigidInertia, falling_lid

URDF = """
<robot name="box">
  <link name="base"><visual><geometry><mesh filename="is_not_there.obj"/></geometry></visual></link>
  <link name="lid">
    <inertial><origin xyz="0 -0.1 0.01"/><mass value="0.4"/>
      <inertia ixx="0.002" iyy="0.004" izz="0.005" ixy="0" ixz="0" iyz="0"/></inertial>
  </link>
  <joint name="hinge" type="revolute">
    <parent link="base"/><child link="lid"/><origin xyz="0 0.15 0.2" rpy="0 0 0"/>
    <axis xyz="-1 0 0"/><limit lower="0" upper="2" effort="30" velocity="2"/>
  </joint>
</robot>
"""
G = 9.81
HEAVY = RigidInertia(0.9, [0.01, -0.2, 0.03], np.diag([0.012, 0.02, 0.03]))
FREE = np.linspace(0, 0.2, 11)


@pytest.fixture
def box(tmp_path):
    path = tmp_path / "box.urdf"
    path.write_text(URDF)
    return path


def pendulum(mass, center, inertia, angle, times, torque=lambda q: 0.0):
    """(T,) angles; the center of mass is at (y, z) from the hinge when closed."""
    y, z = center
    about_hinge = inertia + mass * (y**2 + z**2)

    def slope(_, s):
        # Opening by q lifts the center to z cos(q) - y sin(q).
        return [
            s[1],
            (mass * G * (z * np.sin(s[0]) + y * np.cos(s[0])) + torque(s[0])) / about_hinge,
        ]

    return solve_ivp(slope, (0, times[-1]), [angle, 0], "DOP853", times, rtol=1e-10, atol=1e-10).y[
        0
    ]


@pytest.mark.parametrize(
    ("inertia", "mass", "center", "about"),
    [(None, 0.4, (-0.1, 0.01), 0.002), (HEAVY, 0.9, (-0.2, 0.03), 0.012)],
)
def test_a_lid_falls_as_a_compound_pendulum(box, inertia, mass, center, about):
    fall = falling_lid(box, 1.2, FREE, inertia=inertia)
    expected = pendulum(mass, center, about, 1.2, FREE)
    assert expected[-1] < 1.1
    np.testing.assert_allclose(fall.angle, expected, atol=1e-3)
    c, s = np.cos(fall.angle), np.sin(fall.angle)
    y, z = center
    np.testing.assert_allclose(
        fall.center[:, 1:], np.stack([0.15 + y * c + z * s, 0.2 + z * c - y * s], 1), atol=1e-6
    )
    np.testing.assert_allclose(fall.link_poses["lid"][:, 1:3, 2], np.stack([s, c], 1), atol=1e-6)
    np.testing.assert_allclose(
        fall.link_poses["base"], np.broadcast_to(np.eye(4), (11, 4, 4)), atol=1e-9
    )


def test_a_force_on_the_lid_does_what_the_equation_says(box):
    fall = falling_lid(box, 1.2, FREE, push=Push([0, 0, 6.0]))
    expected = pendulum(
        0.4, (-0.1, 0.01), 0.002, 1.2, FREE, lambda q: 6.0 * (0.1 * np.cos(q) - 0.01 * np.sin(q))
    )
    assert expected[-1] > 1.2
    np.testing.assert_allclose(fall.angle, expected, atol=1e-3)
    edge = falling_lid(box, 0.5, FREE, push=Push([0, 0, 2.0], point=[0, -0.2, 0]))
    turning = pendulum(0.4, (-0.1, 0.01), 0.002, 0.5, FREE, lambda q: 2.0 * 0.2 * np.cos(q))
    np.testing.assert_allclose(edge.angle, turning, atol=1e-3)


def test_it_bounces_off_the_rim_and_comes_to_rest(box):
    times = np.linspace(0, 0.6, 1201)
    fall = falling_lid(box, 0.6, times, options=LidOptions(restitution=0.5))
    hit = int(np.searchsorted(times, fall.impacts[0]))
    assert fall.velocity[hit + 1] == pytest.approx(-0.5 * fall.velocity[hit - 2], rel=0.03)
    assert np.ptp(fall.angle[hit : int(np.searchsorted(times, fall.impacts[1]))]) == pytest.approx(
        0.15, abs=0.02
    )
    assert (fall.angle >= 0).all()
    assert len(fall.impacts) < 20
    assert fall.angle[-1] == pytest.approx(0, abs=1e-4)


def test_past_the_vertical_it_falls_open(box):
    fall = falling_lid(box, 1.8, np.linspace(0, 0.5, 6), options=LidOptions(restitution=0.0))
    assert fall.angle[-1] == pytest.approx(2.0)
    assert len(fall.impacts) == 1


def test_friction_holds_a_lid_and_a_weak_push_leaves_it_closed(box):
    held = falling_lid(box, 1.2, FREE, options=LidOptions(friction=0.4))
    np.testing.assert_allclose(held.angle, 1.2, atol=1e-3)
    rise = [
        np.ptp(falling_lid(box, 0.0, FREE, push=Push([0, 0, f], end=0.05)).angle)
        for f in (2.0, 6.0, 9.0)
    ]
    assert rise[0] < 1e-3 < 0.05 < rise[1] < rise[2]


def test_what_is_no_box_is_refused(box):
    with pytest.raises(ValueError, match=r"angle: expected one within \[0, 2\] rad, got 2.5"):
        falling_lid(box, 2.5, FREE)
    box.write_text(URDF.replace("revolute", "prismatic"))
    with pytest.raises(
        ValueError,
        match=r"expected one joint that moves, a revolute one with limits, got hinge \(pri",
    ):
        falling_lid(box, 0.5, FREE)
    with pytest.raises(ValueError, match="LidOptions.restitution: expected 0 to 1"):
        LidOptions(restitution=1.5)
    with pytest.raises(ValueError, match=r"Push.end: expected a time after start 1 s, got 0.5 s"):
        Push([0, 0, 1.0], start=1.0, end=0.5)
