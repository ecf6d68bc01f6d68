"""Simulation of an object in the latent space of its decoder: NeuROK's theorem 1 over time (B.8).

Symplectic Euler (eqs. 47-49) is the paper's scheme: velocity first, then position by the new
velocity. If M is constant it is symplectic and its energy error bounded; in curved coordinates the
velocity also enters C, evaluated at the old one, and the error is only of first order in the step.

Leapfrog is that of the particles, constrained to the decoder's range (RATTLE: Andersen 1983). The
discrete Lagrangian m |F(z') - F(z)|^2 / 2h - h V makes a step of it,

    J^T m (F(z') - F(z)) / h = M z_dot + h/2 J^T f
    M' z_dot' = J'^T m (F(z') - F(z)) / h + h/2 J'^T f'

with f all forces at either end. C does not appear: the first equation, solved for z' with the M at
hand and a few decodings, contains what it stands for. The scheme is symplectic, of second order,
and sees z through F(z) alone, so its decoded motion is the same in any coordinates; and if a
direction of z that moves little has nowhere left to go, particles that cannot follow stay behind,
where velocities of z would grow without bound. A Jacobian of a network is most of a step, so the
longer steps that it allows are most of the speed.

After each step: reflection at the bounds of z, restitution if a contact is active, damping (B.7).
Energy is accounted for: what forces put in and those three take out is `work`, and energy beyond
that is the criterion of divergence.

Units are those of the positions: meters with gravity 9.81, or the normalized frame with
9.81 / (meters per unit).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowplan.motion import Progress, silent
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.neurok.dynamics import potentials
from generators.neurok.dynamics.contact import HalfSpace, Obstacle, self_repulsion
from generators.neurok.dynamics.forces import Force, ForceField
from generators.neurok.dynamics.system import LocalState, System, particle_masses
from generators.neurok.latent_space.derivatives import (
    Positions,
    decoded,
    derivatives,
    forward_attention,
)
from generators.neurok.options import DynamicsOptions

_RESTITUTION_STEP = 5e-4  # the paper's rule is per step, and this is its step
_REMEDY = "take a shorter step, softer contacts, or some latent_inertia"

Row = tuple[FloatArray, FloatArray, float, float, float, int, int]
"""z, zdot, kinetic, potential, work, contacts, rank at one time, see LatentTrajectory."""


@dataclass(frozen=True, eq=False)
class LatentTrajectory:
    """A motion in latent space, at the requested times, or those of them before it diverged.

    Attributes:
        times: (T,) seconds.
        z: (T, k) latent coordinates.
        zdot: (T, k) their velocities, 1/s.
        kinetic: (T,) joules, that of a latent inertia included.
        potential: (T,) joules: gravity, uniform force, springs and contacts.
        work: (T,) joules that forces have done since the start, less what restitution, damping and
            reflection have removed: the integrator should conserve total - work.
        contacts: (T,) steps with an active contact since the last saved time.
        rank: (T,) number of directions of z that move particles.
        failure: reason of an early end, with the measurement; None if there is none.
    """

    times: FloatArray
    z: FloatArray
    zdot: FloatArray
    kinetic: FloatArray
    potential: FloatArray
    work: FloatArray
    contacts: NDArray[np.int64]
    rank: NDArray[np.int64]
    failure: str | None = None

    def __post_init__(self) -> None:
        z = checks.array("LatentTrajectory.z", self.z, ("T", "k"))
        object.__setattr__(self, "z", z)
        object.__setattr__(self, "zdot", checks.array("LatentTrajectory.zdot", self.zdot, z.shape))
        for name in ("times", "kinetic", "potential", "work", "contacts", "rank"):
            dtype = np.int64 if name in ("contacts", "rank") else np.float64
            field, value = f"LatentTrajectory.{name}", getattr(self, name)
            checked = checks.array(field, value, z.shape[:1], dtype=dtype)
            object.__setattr__(self, name, checked)

    @property
    def total(self) -> FloatArray:
        """(T,) kinetic and potential energy, joules."""
        return self.kinetic + self.potential


@dataclass(frozen=True, eq=False)
class Environment:
    """Forces on an object beyond the potentials of the options, and limits of its motion.

    Attributes:
        rest: (n, 3) particles of the rest shape, for springs, regions and self-collision. Defaults
            to the particles at the start.
        weights: (n,) relative masses of the particles. Defaults to equal ones.
        forces: force fields.
        obstacles: solids.
        bounds: lower and upper (k,) coordinates between which the decoder is trusted: a coordinate
            that leaves them is reflected, its velocity reversed. None for no bounds.
    """

    rest: Tensor | None = None
    weights: Tensor | None = None
    forces: Sequence[Force | ForceField] = ()
    obstacles: Sequence[HalfSpace | Obstacle] = ()
    bounds: tuple[Tensor, Tensor] | None = None


def simulate(
    positions: Positions,
    times: FloatArray,
    z: Tensor,
    zdot: Tensor | None = None,
    *,
    environment: Environment = Environment(),
    options: DynamicsOptions = DynamicsOptions(),
    progress: Progress = silent,
) -> LatentTrajectory:
    """The motion of an object from a state, under gravity, springs, forces and contacts.

    Args:
        positions: the decoder; called with z's dtype, on its device.
        times: (T,) seconds from 0 at which the state is saved.
        z: (k,) coordinates at the start.
        zdot: (k,) velocities at the start, 1/s; see `initial_velocity`. Defaults to rest.
        environment: see Environment.
        options: see DynamicsOptions.
        progress: called at every saved time.

    Returns:
        The states at `times`; fewer of them if `failure` is set.

    Raises:
        ValueError: for arguments that do not match each other.
    """
    times = checks.times("times", times)
    x = decoded(positions, z)
    zdot = torch.zeros_like(z) if zdot is None else _like("zdot", zdot, z)
    limits = None if environment.bounds is None else _bounds(environment.bounds, z)
    with forward_attention():
        system = _system(positions, z, x, environment, options)
        run = _Simulation(system, limits, z.double(), zdot.double(), float(times[-1]), options)
        rows, failure = [run.row(0)], None
        for index in range(1, len(times)):
            failure, contacts = run.advance(float(times[index - 1]), float(times[index]))
            if failure is not None:
                break
            rows.append(run.row(contacts))
            progress(index / (len(times) - 1), f"simulated {times[index]:.2f} s")
    zs, zdots, kinetic, potential, work, touched, rank = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return LatentTrajectory(
        times[: len(rows)], zs, zdots, kinetic, potential, work, touched, rank, failure
    )


def _system(
    positions: Positions,
    z: Tensor,
    x: Tensor,
    environment: Environment,
    options: DynamicsOptions,
) -> System:
    """The object with particles x (n, 3) at the start z (k,), and all forces on it."""
    rest = x if environment.rest is None else _like("rest", environment.rest, x)
    masses = particle_masses(environment.weights, x, options.mass)

    # Mean eigenvalue of M at the start, which latent inertia is relative to.
    derivative = derivatives(positions, z, trace=options.trace)
    _, J = derivative.linearize(z)
    mean = float((masses.repeat_interleave(3)[:, None] * J**2).sum()) / len(z)
    if not 0 < mean < math.inf:
        raise ValueError(
            "positions: expected particles that move with z, got a mean squared derivative of "
            f"{mean:g} at the start; give the decoder the coordinates that it depends on"
        )

    # Smooth potentials: gravity with the uniform force, and springs.
    fall = x.new_tensor(options.gravity) + x.new_tensor(options.uniform_force) / options.mass
    smooth = [potentials.uniform(torch.outer(masses, fall))]
    if options.spring > 0:
        smooth.append(potentials.springs(rest, masses, options.spring, options.neighbors))

    contacts = [obstacle.potential(masses, options.step) for obstacle in environment.obstacles]
    if options.self_collision is not None:
        contacts.append(self_repulsion(options.self_collision, rest, masses, options.step))
    fields = [f.field(rest, masses) if isinstance(f, Force) else f for f in environment.forces]
    inertia = options.latent_inertia * mean
    return System(derivative, masses, inertia, options.cutoff, smooth, contacts, fields)


class _Simulation:
    """State of a simulation, and the balance of its energy."""

    def __init__(
        self,
        system: System,
        bounds: tuple[Tensor, Tensor] | None,
        z: Tensor,
        v: Tensor,
        duration: float,
        options: DynamicsOptions,
    ) -> None:
        state = system.at(z)
        assert state is not None  # the start was checked
        self.system, self.bounds, self.options = system, bounds, options
        self.state: LocalState = state
        self.v = state.effective(v)
        self.kinetic = state.kinetic(self.v)
        self.initial_energy = self.kinetic + state.potential
        self.work = 0.0
        # Largest kinetic energy. A motion of z by less than 1e-3 in the whole time is no scale to
        # measure excess energy by.
        self.largest = max(self.kinetic, 0.5e-6 * float(state.metric.trace()) / duration**2)

    def row(self, contacts: int) -> Row:
        """The current state as a row of the trajectory."""
        z, v = self.state.z.cpu().numpy(), self.v.cpu().numpy()
        rank = len(self.state.values)
        return z, v, self.kinetic, self.state.potential, self.work, contacts, rank

    def advance(self, start: float, end: float) -> tuple[str | None, int]:
        """Step from one saved time to the next.

        Returns:
            Reason of a failure, or None; and the number of steps with an active contact.
        """
        count = max(1, math.ceil((end - start) / self.options.step - 1e-9))
        h = (end - start) / count
        euler = self.options.scheme == "symplectic_euler"
        step = self._symplectic_euler if euler else self._leapfrog
        contacts = 0
        for index in range(count):
            time = start + index * h
            if not (step(time, h) and self._settle(h)):
                reason = "particles or their derivatives are not finite"
                return f"diverged at {time + h:.4g} s: {reason}; {_REMEDY}", 0
            contacts += self.state.contact > 0
            excess = self.kinetic + self.state.potential - self.work - self.initial_energy
            self.largest = max(self.largest, self.kinetic)
            if not excess <= self.options.energy_excess * self.largest:
                reason = (
                    f"{excess:.3g} J that nothing accounts for, at a kinetic energy of "
                    f"{self.kinetic:.3g} J"
                )
                return f"diverged at {time + h:.4g} s: {reason}; {_REMEDY}", 0
        return None, contacts

    def _symplectic_euler(self, time: float, h: float) -> bool:
        """One step of `h` seconds; False if the decoder overflows."""
        state = self.state
        force = self.system.force(state, self.v, time)
        # Velocity first, then position by the new velocity.
        v = self.v + h * self.system.acceleration(state, self.v, force)
        self.work += h * float(force.reshape(-1) @ (state.J @ v))
        after = self.system.at(state.z + h * v)
        if after is None:
            return False
        self.state, self.v = after, v
        return True

    def _leapfrog(self, time: float, h: float) -> bool:
        """One step of `h` seconds; False if the decoder overflows."""
        system, start = self.system, self.state
        # Momentum after half a step of the forces at the start, and the position that it leads to.
        force = system.force(start, self.v, time)
        momentum = start.metric @ self.v + h / 2 * start.pull_back(force - start.gradient)
        after = system.at(system.reach(start, h * momentum))
        if after is None:
            return False

        # The same momentum there, and half a step of the forces there. Forces that depend on the
        # velocity need a second iteration.
        travel = after.x - start.x
        momentum = (
            after.pull_back(system.masses[:, None] * travel / h)
            + system.inertia * (after.z - start.z) / h
        )
        v = after.solve(momentum)
        for _ in range(2 if system.fields else 1):
            later = system.force(after, v, time + h)
            v = after.solve(momentum + h / 2 * after.pull_back(later - after.gradient))
        self.work += float(((force + later) / 2 * travel).sum())
        self.state, self.v = after, v
        return True

    def _settle(self, h: float) -> bool:
        """Reflection, restitution and damping after a step; False if the decoder overflows."""
        before = self.state.kinetic(self.v) + self.state.potential
        if self.bounds is not None:
            z, v = _reflect(self.state.z, self.v, *self.bounds)
            state = self.state if z is self.state.z else self.system.at(z)
            if state is None:
                return False
            self.state, self.v = state, v
        scale = math.exp(-self.options.damping * h)
        if self.state.contact > 0:
            scale *= self.options.restitution ** (h / _RESTITUTION_STEP)
        # No velocity along directions that move no particle.
        self.v = scale * self.state.effective(self.v)
        self.kinetic = self.state.kinetic(self.v)
        self.work += self.kinetic + self.state.potential - before
        return True


def _reflect(z: Tensor, v: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates mirrored into their bounds, and their velocities turned inwards."""
    below, above = z < lower, z > upper
    if not (below | above).any():
        return z, v
    mirrored = torch.where(below, 2 * lower - z, torch.where(above, 2 * upper - z, z))
    inwards = torch.where(below, v.abs(), torch.where(above, -v.abs(), v))
    return mirrored.clamp(lower, upper), inwards


def _bounds(bounds: tuple[Tensor, Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper (k,) bounds, checked, in double precision."""
    lower = _like("bounds[0]", bounds[0], z).double()
    upper = _like("bounds[1]", bounds[1], z).double()
    if not ((lower <= z) & (z <= upper) & (lower < upper)).all():
        raise ValueError(
            "bounds: expected lower < upper with the start between them; widen them or start inside"
        )
    return lower, upper


def _like(name: str, value: Tensor, example: Tensor) -> Tensor:
    """`value` as a finite tensor of the example's shape, dtype and device."""
    out = torch.as_tensor(value).to(example)
    if out.shape != example.shape or not torch.isfinite(out).all():
        remark = "" if out.shape != example.shape else " with NaN or infinity"
        raise ValueError(
            f"{name}: expected finite numbers of shape {tuple(example.shape)}, got shape "
            f"{tuple(out.shape)}{remark}"
        )
    return out
