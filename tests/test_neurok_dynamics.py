"""Latent dynamics on closed-form decoders: against scipy's DOP853, and invariances."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from flowplan.collision.distance_field import DistanceField
from generators.neurok.dynamics import simulation
from generators.neurok.dynamics.contact import (
    HalfSpace,
    Obstacle,
    SelfCollision,
    self_repulsion,
    separated_pairs,
)
from generators.neurok.dynamics.forces import Force, Region
from generators.neurok.dynamics.initial_state import initial_coordinates, initial_velocity
from generators.neurok.dynamics.potentials import springs
from generators.neurok.dynamics.simulation import Environment, simulate
from generators.neurok.dynamics.system import System, particle_masses
from generators.neurok.latent_space.derivatives import Derivatives, derivatives, forward_attention
from generators.neurok.options import DynamicsOptions

G = 9.81
LEAPFROG = DynamicsOptions(scheme="leapfrog", step=1e-2, trace=True)
FLOATING = replace(LEAPFROG, gravity=(0.0, 0.0, 0.0))
TWO_D = torch.tensor([[1.0, 0, 0], [0, 0, -1.0]], dtype=torch.float64)
"""(sin, cos) of an angle from straight down to a point of the xz plane."""


@pytest.fixture(autouse=True)
def _each_decoder_is_recorded_once(monkeypatch):
    def once(positions, z, *, trace):
        return (
            recorded(positions, len(z))
            if trace and z.dtype == torch.float64
            else derivatives(positions, z)
        )

    monkeypatch.setattr(simulation, "derivatives", once)


@cache
def recorded(positions, size):
    return derivatives(positions, torch.full((size,), 0.1, dtype=torch.float64), trace=True)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def hanging(angles):
    """Unit vectors (k, 3) at angles (k,) from straight down."""
    return torch.sin(angles[:, None] + t(0.0, np.pi / 2)) @ TWO_D


@cache
def rod(*lengths):
    """A pendulum of particles at `lengths` along a rigid rod; z is its angle."""
    along = t(*lengths)[:, None]
    return lambda z: along * hanging(z)


def double_pendulum(z):
    """Two unit rods with a particle at each end; z are the angles from straight down."""
    return t(1.0, 0.0, 1.0, 1.0).reshape(2, 2) @ hanging(z)


def slider_crank(z, r=0.5, l=1.2):
    """Crank pin and slider; z is the crank's angle from the slider's line."""
    s, c = torch.sin(z), torch.cos(z)
    slider = r * c + torch.sqrt(l**2 - (r * s) ** 2)
    zero = torch.zeros_like(s)
    return torch.stack([torch.cat([r * c, zero, r * s]), torch.cat([slider, zero, zero])])


def truth(acceleration, times, q, qdot):
    """(T, k) coordinates by DOP853."""
    k = len(q)
    done = solve_ivp(
        lambda _, y: np.concatenate([y[k:], acceleration(y[:k], y[k:])]),
        (times[0], times[-1]), np.concatenate([q, qdot]), "DOP853", times, rtol=1e-11, atol=1e-11,
    )  # fmt: skip
    return done.y[:k].T


def double_pendulum_acceleration(q, w):
    """Two unit masses on unit rods: the textbook's mass matrix and forces."""
    c, s = np.cos(q[0] - q[1]), np.sin(q[0] - q[1])
    M = np.array([[2, c], [c, 1]])
    return np.linalg.solve(
        M, [-s * w[1] ** 2 - 2 * G * np.sin(q[0]), s * w[0] ** 2 - G * np.sin(q[1])]
    )


def decode(positions, z):
    return torch.stack([positions(torch.tensor(row)) for row in z]).numpy()


TIMES = np.linspace(0, 1.0, 11)


@pytest.mark.parametrize(
    "lengths", [(1.0,), tuple(np.linspace(0.05, 1.0, 20))], ids=["point", "rod"]
)
def test_pendulum_swings_as_the_equation_says(lengths):
    ratio = sum(lengths) / sum(np.square(lengths))
    expected = truth(lambda q, w: -G * ratio * np.sin(q), TIMES, [2.5], [0.0])
    run = simulate(rod(*lengths), TIMES, t(2.5), options=LEAPFROG)
    assert np.abs(run.z - expected).max() < 2e-3
    assert run.failure is None
    assert (run.rank == 1).all()


def test_the_papers_scheme_at_the_papers_step():
    expected = truth(lambda q, w: -G * np.sin(q), TIMES[:3], [2.5], [1.0])
    run = simulate(rod(1.0), TIMES[:3], t(2.5), t(1.0), options=DynamicsOptions(trace=True))
    assert np.abs(run.z - expected).max() < 1e-3


def test_symplectic_euler_is_of_first_order_and_leapfrog_of_second():
    expected = truth(double_pendulum_acceleration, TIMES, [1.2, 0.4], [0.5, -1.0])

    def error(scheme, step):
        options = DynamicsOptions(mass=2.0, step=step, scheme=scheme, trace=True)
        return np.abs(
            simulate(double_pendulum, TIMES, t(1.2, 0.4), t(0.5, -1.0), options=options).z
            - expected
        ).max()

    euler = [error("symplectic_euler", h) for h in (1e-2, 5e-3)]
    leapfrog = [error("leapfrog", h) for h in (2e-2, 1e-2)]
    assert 1.8 < euler[0] / euler[1] < 2.2
    assert 3.5 < leapfrog[0] / leapfrog[1] < 4.5
    assert euler[1] < 0.03
    assert leapfrog[1] < 2e-3


def test_slider_crank_turns_as_the_equation_says():
    r, l = 0.5, 1.2

    def acceleration(q, w):
        s, c = np.sin(q), np.cos(q)
        root = np.sqrt(l**2 - (r * s) ** 2)
        first = -r * s - r**2 * s * c / root
        second = -r * c - r**2 * (c**2 - s**2) / root - r**4 * s**2 * c**2 / root**3
        return -(first * second * w**2 + G * r * c) / (r**2 + first**2)

    run = simulate(
        slider_crank, TIMES, t(0.3), t(6.0), options=replace(LEAPFROG, mass=2.0, step=5e-3)
    )
    assert np.abs(run.z - truth(acceleration, TIMES, [0.3], [6.0])).max() < 2e-3
    assert np.abs(run.total - run.total[0]).max() < 1e-3 * run.kinetic.max()


def test_energy_stays_bounded_over_ten_seconds_and_drifts_where_it_should(monkeypatch):
    times = np.linspace(0, 10, 41)

    def error(positions, z, options):
        run = simulate(positions, times, z, options=options)
        assert run.failure is None
        return (run.total - run.total[0]) / run.kinetic.max()

    leapfrog = np.abs(error(double_pendulum, t(1.2, 0.4), replace(LEAPFROG, mass=2.0)))
    assert leapfrog.max() < 0.01
    assert leapfrog[21:].max() < 2 * leapfrog[:21].max() + 1e-4
    euler = DynamicsOptions(step=1e-2, trace=True)
    wobble = np.abs(error(rod(1.0), t(2.0), euler))
    assert wobble.max() < 0.05
    assert wobble[21:].max() < 1.2 * wobble[:21].max()

    def explicit(self, time, h):  # z by the old velocity: not symplectic
        old = self.v
        acceleration = self.system.acceleration(
            self.state, old, self.system.force(self.state, old, time)
        )
        self.state, self.v = self.system.at(self.state.z + h * old), old + h * acceleration
        return True

    monkeypatch.setattr(simulation._Simulation, "_symplectic_euler", explicit)
    assert error(rod(1.0), t(2.0), euler)[-1] > 5 * wobble.max()


def test_without_the_coriolis_term_the_double_pendulum_is_wrong(monkeypatch):
    expected = truth(double_pendulum_acceleration, TIMES, [1.2, 0.4], [0.0, 0.0])
    monkeypatch.setattr(Derivatives, "along", lambda self, z, v: torch.zeros(2, 3))
    run = simulate(
        double_pendulum,
        TIMES,
        t(1.2, 0.4),
        options=DynamicsOptions(mass=2.0, step=1e-2, trace=True),
    )
    assert np.abs(run.z - expected).max() > 0.1


def test_coriolis_term_is_the_christoffel_symbols_sum():
    z, v = t(0.7, -0.4), t(1.3, 0.8)

    def metric(s):
        J = torch.func.jacfwd(double_pendulum)(s).reshape(-1, 2)
        return J.T @ J

    d = torch.func.jacfwd(metric)(z)  # d[i, j, k] = dG_ij / dz_k
    symbols = 0.5 * (d + d.transpose(1, 2) - d.permute(2, 0, 1))
    expected = torch.einsum("ijk,j,k->i", symbols, v, v)
    with forward_attention():
        kinematics = derivatives(double_pendulum, z)
        _, J = kinematics.linearize(z)
        got = J.T @ kinematics.along(z, v).reshape(-1)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_redundant_coordinates_move_the_particle_as_one_would():
    def free(z):  # x = u + v
        return torch.stack([z.sum(), 0 * z[0], 0 * z[0]])[None]

    # Any split of the speed is the same motion, and the fibre u - v is left alone.
    run = simulate(free, TIMES, t(0.2, 0.1), t(3.0, -1.0), options=FLOATING)
    np.testing.assert_allclose(decode(free, run.z)[:, 0, 0], 0.3 + 2.0 * TIMES, atol=1e-12)
    np.testing.assert_allclose(run.z[:, 0] - run.z[:, 1], 0.1, atol=1e-12)
    assert (run.rank == 1).all()
    np.testing.assert_allclose(run.kinetic, 2.0, atol=1e-12)


@pytest.mark.parametrize(
    ("scheme", "step", "inertia"),
    [("symplectic_euler", 1e-3, 0.0), ("leapfrog", 5e-3, 0.0), ("leapfrog", 5e-3, 1e-6)],
)
def test_redundant_nonlinear_coordinates_of_a_pendulum(scheme, step, inertia):
    def redundant(z):
        return rod(1.0)(z[:1] + z[1:2] + 0.3 * torch.sin(2 * z[:1]) * z[1:2] + 0.5 * z[2:] ** 2)

    z = t(0.9, 0.4, 0.3)
    start = torch.atan2(*redundant(z)[0, [0, 2]] * t(1, -1)).item()
    expected = truth(lambda q, w: -G * np.sin(q), TIMES, [start], [0.0])[:, 0]
    options = replace(LEAPFROG, scheme=scheme, step=step, latent_inertia=inertia)
    run = simulate(redundant, TIMES, z, options=options)
    x = decode(redundant, run.z)[:, 0]
    assert np.abs(x[:, 0] - np.sin(expected)).max() < 3e-3
    assert np.abs(x[:, 2] + np.cos(expected)).max() < 3e-3
    assert run.failure is None


@pytest.mark.parametrize(("scheme", "exact"), [("symplectic_euler", 0.05), ("leapfrog", 1e-7)])
def test_motion_does_not_depend_on_the_parameterization(scheme, exact):
    def skewed(s):  # angles by an invertible nonlinear map
        return torch.stack(
            [s[0] + 0.4 * torch.sin(s[1]), 0.5 * s[1] + 0.1 * s[1] ** 3 - 0.2 * s[0]]
        )

    s, sdot = t(0.8, 0.5), t(-1.0, 2.0)
    z, zdot = torch.func.jvp(skewed, (s,), (sdot,))
    options = DynamicsOptions(
        scheme=scheme, step=5e-3, mass=2.0, uniform_force=(3.0, 0.0, 0.0), trace=True
    )
    push = [Force([0.0, 0.0, 8.0], points=[1], start=0.2, end=0.7, ramp=0.2)]
    a = simulate(
        double_pendulum, TIMES, z, zdot, environment=Environment(forces=push), options=options
    )
    b = simulate(
        lambda r: double_pendulum(skewed(r)),
        TIMES,
        s,
        sdot,
        environment=Environment(forces=push),
        options=options,
    )
    there, here = decode(double_pendulum, a.z), decode(lambda r: double_pendulum(skewed(r)), b.z)
    np.testing.assert_allclose(here, there, atol=exact)
    np.testing.assert_allclose(b.kinetic, a.kinetic, atol=20 * exact)


def system_of(positions, z, **parts):
    x = positions(z)
    return System(derivatives(positions, z), particle_masses(None, x, 2.0), **parts)


def test_generalized_force_does_the_virtual_work():
    z, dz = t(0.7, -0.4), t(0.3, 0.9)
    force = Force([1.0, 2.0, 3.0], points=[1]).field(double_pendulum(z), t(1.0, 1.0))
    with forward_attention():
        system = system_of(double_pendulum, z, fields=[force])
        local = system.at(z)
        F = system.force(local, torch.zeros_like(z), 0.0)
        pulled = local.J.T @ F.reshape(-1)
    h = 1e-6
    work = (F * (double_pendulum(z + h * dz) - double_pendulum(z - h * dz))).sum() / (2 * h)
    torch.testing.assert_close(pulled @ dz, work, rtol=1e-8, atol=1e-8)


def test_a_uniform_force_is_a_potential_and_a_generalized_force():
    vector = (2.0, 0.0, 5.0)
    as_potential = simulate(
        double_pendulum,
        TIMES,
        t(0.5, 0.2),
        options=replace(LEAPFROG, uniform_force=vector, step=5e-3),
    )
    as_force = simulate(
        double_pendulum,
        TIMES,
        t(0.5, 0.2),
        environment=Environment(forces=[Force(vector)]),
        options=replace(LEAPFROG, step=5e-3),
    )
    np.testing.assert_allclose(as_potential.z, as_force.z, atol=1e-12)
    # The potential's energy is conserved by itself, the force's with the work that it does.
    np.testing.assert_allclose(as_potential.total, as_potential.total[0], atol=1e-3)
    np.testing.assert_allclose(as_force.total - as_force.work, as_force.total[0], atol=1e-3)
    assert np.abs(as_force.work).max() > 0.1


def test_a_gravity_of_zero_leaves_what_falls_nothing_to_do():
    run = simulate(double_pendulum, TIMES, t(0.5, 0.2), options=FLOATING)
    np.testing.assert_allclose(run.z, np.tile([0.5, 0.2], (len(TIMES), 1)), atol=1e-14)


# A box of particles that only moves up and down: z is its height.
CUBE = torch.tensor(
    [[x, y, h] for x in (0, 1.0) for y in (0, 1.0) for h in (0, 1.0)], dtype=torch.float64
)


FLOOR = HalfSpace(0.0, stiffness=1e4)


def cube(z):
    return CUBE + z * t(0.0, 0.0, 1.0)


def free(z):
    return CUBE + z


def test_windows_and_ramps():
    # Impulse over mass: a window of half a second at 4 N, whose ramps of minimum jerk are worth
    # half of themselves.
    for ramp in (0.0, 0.1):
        force = Force([0.0, 0.0, 4.0], start=0.2, end=0.7, ramp=ramp)
        run = simulate(
            cube, TIMES, t(0.0), environment=Environment(forces=[force]), options=FLOATING
        )
        np.testing.assert_allclose(run.zdot[-1], 4 * (0.5 - ramp), rtol=1e-3)
        np.testing.assert_allclose(run.zdot[:2], 0.0, atol=1e-12)
        np.testing.assert_allclose(run.zdot[-4:], run.zdot[-1:].repeat(4, 0))
    assert force.strength(0.25) == pytest.approx(0.5)
    assert [force.strength(s) for s in (0.1, 0.2, 0.45, 0.7)] == [0, 0, 1, 0]


def test_regions_choose_particles_by_frame():
    top = Region([-1, -1, 0.9], [2, 2, 1.1])
    field = Force([0, 0, 6.0], region=top).field(CUBE, t(*[1.0] * 8))
    moved = field(CUBE + t(0, 0, 5.0), torch.zeros_like(CUBE), 0.0)
    torch.testing.assert_close(
        moved[:, 2], 1.5 * CUBE[:, 2]
    )  # the rest shape's top, wherever it is now
    field = Force([0, 0, 6.0], region=Region(top.lower, top.upper, "world")).field(
        CUBE, t(*[1.0] * 8)
    )
    assert field(CUBE + t(0, 0, 5.0), torch.zeros_like(CUBE), 0.0).abs().max() == 0
    below = field(CUBE + t(0, 0, 1.0), torch.zeros_like(CUBE), 0.0)
    torch.testing.assert_close(below[:, 2], 1.5 * (1 - CUBE[:, 2]))


def test_a_force_of_any_kind_as_a_function():
    # Linear drag: z' = v0 exp(-c t).
    run = simulate(
        cube,
        TIMES,
        t(0.0),
        t(2.0),
        environment=Environment(forces=[lambda x, v, time: -3 * v / 8]),
        options=FLOATING,
    )
    np.testing.assert_allclose(run.zdot[:, 0], 2 * np.exp(-3 * TIMES), atol=5e-4)
    np.testing.assert_allclose(run.kinetic - run.work, 2.0, atol=5e-3)


def test_bigger_force_bigger_motion():
    height = []
    for newtons in (5.0, 15.0, 25.0, 35.0):
        force = Force([0.0, 0.0, newtons], end=0.2)
        run = simulate(
            cube,
            TIMES,
            t(0.0),
            environment=Environment(forces=[force], obstacles=[FLOOR]),
            options=replace(LEAPFROG, step=4e-3),
        )
        height.append(run.z.max())
    assert height[0] < 1e-3  # less than its weight
    assert np.all(np.diff(height) > 0)


def test_damping_is_exponential():
    run = simulate(cube, TIMES, t(0.0), t(2.0), options=replace(FLOATING, damping=1.7))
    np.testing.assert_allclose(run.zdot[:, 0], 2 * np.exp(-1.7 * TIMES), rtol=1e-9)
    np.testing.assert_allclose(run.total - run.work, run.total[0], rtol=1e-9)


def test_initial_velocity_of_consistent_particles_is_exact():
    z, zdot = t(0.6, -0.3), t(1.5, -2.0)
    x, velocity = torch.func.jvp(double_pendulum, (z,), (zdot,))
    got = initial_velocity(double_pendulum, z, [0, 1], velocity.numpy())
    torch.testing.assert_close(got, zdot, rtol=1e-9, atol=1e-9)
    guess = initial_coordinates(double_pendulum, t(0.0, 0.0), [0, 1], x.numpy())
    torch.testing.assert_close(guess, z, rtol=1e-9, atol=1e-9)


def test_initial_velocity_is_least_squares_where_it_cannot_be_met():
    z = t(0.6, -0.3)
    asked = np.array([[1.0, 2.0, -0.5], [0.3, 0.1, 4.0]])
    got = initial_velocity(double_pendulum, z, [0, 1], asked)
    J = torch.func.jacfwd(double_pendulum)(z).reshape(-1, 2).numpy()
    np.testing.assert_allclose(got, np.linalg.lstsq(J, asked.ravel())[0], atol=1e-9)


def test_initial_velocity_leaves_the_rest_to_the_least_kinetic_energy():
    # A blow on the middle joint alone: the second mass has the speed that costs least, M_21 w1 +
    # M_22 w2 = 0.
    z = t(0.6, -0.3)
    J = torch.func.jacfwd(double_pendulum)(z).reshape(2, 3, 2)
    blow = (J[0] @ t(1.0, 0.0)).numpy()[None]
    got = initial_velocity(double_pendulum, z, [0], blow)
    np.testing.assert_allclose(got, [1.0, -np.cos(0.9)], atol=1e-9)

    def redundant(s):
        return double_pendulum(torch.stack([s[0] + s[2], s[1] * (1 + s[0]) + s[2] ** 2]))

    s = t(0.5, -0.2, 0.1)
    q = torch.stack([s[0] + s[2], s[1] * (1 + s[0]) + s[2] ** 2])
    blow = np.array([[0.4, 0.0, -1.0]])
    velocity = [torch.func.jvp(f, (a,), (initial_velocity(f, a, [0], blow),))[1]
                for f, a in ((double_pendulum, q), (redundant, s))]  # fmt: skip
    torch.testing.assert_close(*velocity, rtol=1e-8, atol=1e-8)


FALL = np.linspace(0, 0.8, 33)


def test_a_bounce_keeps_its_energy_or_loses_it():
    options = replace(LEAPFROG, step=2e-3)
    run = simulate(cube, FALL, t(0.5), environment=Environment(obstacles=[FLOOR]), options=options)
    np.testing.assert_allclose(run.total, run.total[0], rtol=0.02)
    landing = np.sqrt(2 * 0.5 / G)
    assert FALL[np.nonzero(run.contacts)[0][0]] == pytest.approx(landing, abs=0.025)
    assert run.z.min() > -0.03
    late = landing + 0.1 < FALL
    assert run.z[late].max() == pytest.approx(0.5, abs=0.01)
    lossy = simulate(
        cube,
        FALL,
        t(0.5),
        environment=Environment(obstacles=[FLOOR]),
        options=replace(options, restitution=0.98),
    )
    assert 0.02 < lossy.z[late].max() < 0.45
    # What it lost is accounted for.
    np.testing.assert_allclose(lossy.total - lossy.work, lossy.total[0], rtol=0.02)
    longer = simulate(
        cube,
        FALL,
        t(0.5),
        environment=Environment(obstacles=[FLOOR]),
        options=replace(options, restitution=0.98, step=4e-3),
    )
    assert longer.z[late].max() == pytest.approx(lossy.z[late].max(), rel=0.1)


def test_obstacles_by_any_distance_push_alike():
    heights = np.broadcast_to(np.linspace(-2, 2, 9), (9, 9, 9)).astype(np.float32)
    field = DistanceField([-2, -2, -2], 0.5, heights)
    x, masses = CUBE - t(0.3, 0.2, 0.15), torch.linspace(1, 2, 8, dtype=torch.float64)
    energy, gradient = HalfSpace(0.0, margin=0.2, stiffness=7.0).potential(masses, 0.01)(x)
    assert energy > 0
    for distance in (field, lambda p: p[:, 2]):
        other, slope = Obstacle(distance, margin=0.2, stiffness=7.0).potential(masses, 0.01)(x)
        torch.testing.assert_close(other, energy)
        torch.testing.assert_close(slope, gradient)
    run = simulate(
        cube,
        TIMES[:6],
        t(0.1),
        environment=Environment(obstacles=[Obstacle(field, stiffness=1e4)]),
        options=LEAPFROG,
    )
    assert run.z.min() > -0.05


def test_margin_and_direction_of_a_half_space():
    plane = HalfSpace(1.0, normal=[0, 0, 2.0], margin=0.1, stiffness=10.0)
    energy, gradient = plane.potential(t(2.0), 0.01)(t(0.0, 0.0, 1.05)[None])
    assert energy.item() == pytest.approx(10 * 2 * 0.05**2)
    torch.testing.assert_close(gradient, t(0.0, 0.0, -2 * 10 * 2 * 0.05)[None])


def test_gradients_of_springs_and_self_collision():
    rng = np.random.default_rng(0)
    rest = torch.as_tensor(rng.uniform(-1, 1, (12, 3)))
    masses = torch.as_tensor(rng.uniform(0.5, 2, 12))
    x = torch.as_tensor(rng.uniform(-0.5, 0.5, (12, 3))).requires_grad_()
    for potential in (
        springs(rest, masses, 30.0, 4),
        self_repulsion(SelfCollision(0.4, 0.5, 20.0), rest, masses, 0.01),
    ):
        energy, gradient = potential(x)
        assert energy > 0
        torch.testing.assert_close(gradient, torch.autograd.grad(energy, x)[0])
        turned = torch.linalg.qr(torch.as_tensor(rng.normal(size=(3, 3))))[0]
        torch.testing.assert_close(potential(x @ turned + 0.3)[0], energy)
    assert springs(rest, masses, 30.0, 4)(rest)[0] == 0


def test_edge_springs_are_equation_thirteen():
    rest = t(0.0, 1.0, 3.0, 3.5)[:, None] * t(1.0, 0, 0)
    x = t(0.0, 1.5, 3.0, 3.25)[:, None] * t(1.0, 0, 0)
    # nearest one of each: 0-1, 1-0, 2-3, 3-2; stretches 0.5 twice and -0.25 twice; k_e = 8 m
    energy, _ = springs(rest, t(1.0, 1.0, 1.0, 1.0), 8.0, 1)(x)
    assert energy.item() == pytest.approx(4 * (2 * 0.5**2 + 2 * 0.25**2))


def test_a_spring_swings_at_its_frequency():
    def pair(z):  # two particles of 0.5 kg, z apart: V = 2 * (m k / 2)(z - 1)^2, reduced mass m / 2
        return torch.stack([-0.5 * z, 0.5 * z]) * t(1.0, 0, 0)

    options = replace(FLOATING, spring=50.0, step=5e-3)
    run = simulate(pair, TIMES, t(1.2), environment=Environment(rest=pair(t(1.0))), options=options)
    np.testing.assert_allclose(run.z[:, 0], 1 + 0.2 * np.cos(np.sqrt(200.0) * TIMES), atol=2e-3)


def test_particles_of_one_object_do_not_pass_through_each_other():
    def scissors(z):  # two rods from one pivot, apart by 2 z
        a, b = (
            0.2 + 0.2 * torch.arange(5, dtype=torch.float64)[:, None] * hanging(s * z)
            for s in (1, -1)
        )
        return torch.cat([a, b])

    rest = scissors(t(1.2))
    touch = SelfCollision(reach=0.15, apart=0.3, stiffness=1e4)
    pairs = separated_pairs(touch, rest)
    assert not pairs[0, [0, 1, 5, 6]].any()  # what is near the pivot is not kept from it
    assert pairs[4, 9]
    assert not pairs[9, 4]
    options = replace(FLOATING, self_collision=touch, step=4e-3)
    closing = simulate(scissors, TIMES, t(1.2), t(-2.0), options=options)
    assert closing.z.min() > 0
    assert closing.zdot[-1, 0] == pytest.approx(2.0, rel=0.02)
    through = simulate(scissors, TIMES, t(1.2), t(-2.0), options=FLOATING)
    assert through.z.min() < 0


def test_bounds_reflect():
    run = simulate(
        cube,
        TIMES,
        t(0.0),
        t(1.0),
        environment=Environment(bounds=(t(-0.1), t(0.5))),
        options=FLOATING,
    )
    there = np.where(TIMES <= 0.5, TIMES, 1 - TIMES)
    np.testing.assert_allclose(run.z[:, 0], there, atol=1e-3)
    np.testing.assert_allclose(run.total - run.work, run.total[0], atol=1e-9)


def test_leapfrog_outlives_a_direction_that_ends():
    # Beside a falling height, a soft coordinate whose particles can move by 0.01 at most, and then
    # no further.
    def soft(z):
        return cube(z[:1]) + 0.01 * torch.sin(z[1:]) * t(1.0, 0.0, 0.0)

    run = simulate(soft, TIMES, t(1.0, 0.3), options=replace(LEAPFROG, uniform_force=(1.0, 0, 0)))
    assert run.failure is None
    np.testing.assert_allclose(run.z[:, 0], 1 - G * TIMES**2 / 2, atol=1e-6)
    euler = simulate(
        soft,
        TIMES,
        t(1.0, 0.3),
        options=replace(FLOATING, scheme="symplectic_euler", uniform_force=(1.0, 0, 0)),
    )
    assert euler.failure is not None


def test_divergence_is_reported_and_nothing_broken_is_returned():
    stiff = replace(FLOATING, spring=1e6)
    rng = np.random.default_rng(1)
    modes = torch.as_tensor(rng.normal(size=(8, 3, 4)))
    run = simulate(
        lambda z: CUBE + modes @ z,
        TIMES,
        t(0.1, 0, 0, 0),
        environment=Environment(rest=CUBE),
        options=stiff,
    )
    assert "diverged at" in run.failure
    assert "nothing accounts for" in run.failure
    assert 1 <= len(run.times) < len(TIMES)
    edge = torch.tensor(torch.nan).double()
    blown = simulate(
        lambda z: cube(torch.where(z < 0.5, z, edge)), TIMES, t(0.0), t(1.0), options=FLOATING
    )
    assert len(blown.times) == 5
    assert "not finite" in blown.failure
    for result in (run, blown):
        assert all(
            np.isfinite(getattr(result, n)).all()
            for n in ("z", "zdot", "kinetic", "potential", "work")
        )


def test_a_recorded_decoder_moves_as_the_original_in_float32():
    weight = torch.nn.Linear(2, 6)

    def network(z):
        tokens = torch.tanh(weight(z)).reshape(1, 2, 3)
        return double_pendulum(
            z.double()
        ).float() + 0.1 * torch.nn.functional.scaled_dot_product_attention(
            tokens, tokens, tokens
        ).squeeze(0)

    z = torch.tensor([0.5, 0.2])
    times = np.linspace(0, 0.05, 3)
    a, b = (
        simulate(network, times, z, options=DynamicsOptions(trace=trace, step=5e-3))
        for trace in (True, False)
    )
    np.testing.assert_allclose(a.z, b.z, atol=1e-5)
    assert np.ptp(a.z[:, 0]) > 1e-3


def test_weights_are_relative_masses():
    lengths = np.array([0.5, 1.0])
    run = simulate(
        rod(*lengths),
        TIMES,
        t(0.4),
        environment=Environment(weights=t(3.0, 1.0)),
        options=replace(LEAPFROG, mass=7.0),
    )
    ratio = (lengths * [3, 1]).sum() / (lengths**2 * [3, 1]).sum()
    assert (
        np.abs(run.z - truth(lambda q, w: -G * ratio * np.sin(q), TIMES, [0.4], [0.0])).max() < 2e-3
    )
    assert run.potential[0] == pytest.approx(-7 * G * np.cos(0.4) * (3 * 0.5 + 1) / 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(cube, TIMES, t(0.0)[None]), "z: expected a floating-point tensor (k,)"),
        (lambda: simulate(cube, TIMES, t(np.nan)), "z: expected finite"),
        (lambda: simulate(cube, TIMES + 1, t(0.0)), "times: expected times[0] = 0"),
        (
            lambda: simulate(cube, TIMES, t(0.0), t(0.0, 1.0)),
            "zdot: expected finite numbers of shape (1,)",
        ),
        (
            lambda: simulate(lambda z: CUBE, TIMES, t(0.0)),
            "positions: expected particles that move with z",
        ),
        (
            lambda: simulate(lambda z: CUBE.T * z, TIMES, t(1.0)),
            "positions: expected particles (n, 3)",
        ),
        (
            lambda: simulate(cube, TIMES, t(0.0), environment=Environment(weights=t(1.0))),
            "weights: expected 8 positive numbers",
        ),
        (
            lambda: simulate(cube, TIMES, t(0.0), environment=Environment(rest=CUBE[:3])),
            "rest: expected finite numbers of shape (8, 3)",
        ),
        (
            lambda: simulate(cube, TIMES, t(0.0), environment=Environment(bounds=(t(1.0), t(2.0)))),
            "bounds: expected lower < upper",
        ),
        (
            lambda: simulate(
                cube, TIMES, t(0.0), environment=Environment(forces=[Force([1, 0, 0], points=[8])])
            ),
            "Force.points: expected ind",
        ),
        (
            lambda: simulate(
                cube,
                TIMES,
                t(0.0),
                environment=Environment(forces=[Force([1, 0, 0], region=Region([5] * 3, [6] * 3))]),
            ),
            "Force.region: no particle",
        ),
        (lambda: Force([1, 0, 0], start=1.0, end=1.0), "Force.end"),
        (lambda: Force([1, 0, 0], end=1.0, ramp=0.6), "Force.ramp"),
        (lambda: Region([0] * 3, [1, 1, 0]), "Region.upper"),
        (lambda: Region([0] * 3, [1] * 3, "body"), "Region.frame"),
        (lambda: DynamicsOptions(step=0.0), "DynamicsOptions.step"),
        (lambda: DynamicsOptions(restitution=0.0), "DynamicsOptions.restitution"),
        (lambda: DynamicsOptions(scheme="rk4"), "DynamicsOptions.scheme"),
        (lambda: SelfCollision(reach=0.2, apart=0.1), "SelfCollision.apart"),
        (lambda: HalfSpace(0.0, normal=[0, 0, 0]), "HalfSpace.normal"),
        (
            lambda: initial_velocity(cube, t(0.0), [9], [[0, 0, 1]]),
            "points: expected indices below 8",
        ),
        (
            lambda: initial_velocity(cube, t(0.0), [1], [[0, 0]]),
            "velocities: expected shape (1, 3)",
        ),
    ],
)
def test_a_callers_mistake_is_one_line(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
