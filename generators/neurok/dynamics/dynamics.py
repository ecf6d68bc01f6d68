"""Motion of an object in the latent space of its decoder: what NeuROK's theorem 1 becomes over time (appendix B.8).

Symplectic Euler (eqs. 47-49) is the paper's scheme: velocity first, then position by the new velocity. Where M is
constant it is symplectic and its energy error bounded; in curved coordinates the velocity also enters C, evaluated at
the old one, and the error is only of first order in the step.

Leapfrog is that of the particles, kept on the decoder's range (RATTLE: Andersen 1983). The discrete Lagrangian
m |F(z') - F(z)|^2 / 2h - h V makes a step of it,

    J^T m (F(z') - F(z)) / h = M z_dot + h/2 J^T f,    M' z_dot' = J'^T m (F(z') - F(z)) / h + h/2 J'^T f'

f all forces at either end. C does not appear: the first equation, solved for z' with the M at hand and a few decodings,
holds what it stands for. The scheme is symplectic, of second order, and sees z through F(z) alone, so its decoded
motion is the same in any coordinates; and where a direction of z that moves little has nowhere left to go, particles
that cannot follow stay behind, where velocities of z would run away. A Jacobian of a network is most of a step, so the
longer steps that it allows are most of the speed.

After each step: reflection at the bounds of z, restitution where a contact is active, damping (appendix B.7). Energy is
accounted for: what forces put in and those three take out is `work`, and energy beyond that is how divergence shows.

Units are whatever the positions come in: metres with gravity 9.81, or the normalised frame with 9.81 / (m per unit).
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
from generators.neurok.dynamics.contact import HalfSpace, Obstacle, SelfCollision
from generators.neurok.dynamics.forces import Force, ForceField
from generators.neurok.dynamics.system import Local, System, particle_masses
from generators.neurok.latent_space.derivatives import (
    Positions,
    decoded,
    derivatives,
    forward_attention,
)

_RESTITUTION_STEP = 5e-4  # the paper's rule is per step, at this one


@dataclass(frozen=True)
class DynamicsOptions:
    """The object, the world it is in, and how its motion is integrated."""

    step: float = 5e-4
    """Seconds per step at most; a whole number of equal steps leads from each saved time to the next."""
    scheme: str = "symplectic_euler"
    """"symplectic_euler", the paper's; or "leapfrog", which bears steps ten times as long and decoders that are only
    nearly smooth."""
    mass: float = 1.0
    """Kilograms of the whole object."""
    gravity: tuple[float, float, float] = (0.0, 0.0, -9.81)
    """Acceleration of a falling body."""
    uniform_force: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Newtons on the whole object, shared by mass, at all times: the potential of eq. 41."""
    spring: float = 0.0
    """Stiffness of the edge springs of eq. 13, 1/s^2 per kilogram: k_e / m."""
    neighbours: int = 8
    """Springs from each particle to the nearest ones in the rest shape."""
    self_collision: SelfCollision | None = None
    """How the object keeps from passing through itself; None lets it."""
    restitution: float = 1.0
    """In (0, 1]: the velocity is multiplied by it for every 5e-4 s that something touches (the paper's rule at the
    paper's step, whatever the step); 1 is elastic."""
    damping: float = 0.0
    """1/s: velocities fall by exp(-damping t)."""
    cutoff: float = 1e-8
    """Eigenvalues of M below this part of the largest count as zero. Below 1e-10 the noise of a float32 decoder
    passes for a direction."""
    latent_inertia: float = 0.0
    """Mass of each coordinate as a part of the mean eigenvalue of M at the start: 0 is theorem 1 as it stands; more
    steadies a network whose M has no gap between the directions that count and those that do not."""
    energy_excess: float = 1.0
    """The run has diverged when the energy exceeds what is accounted for by this part of the largest kinetic energy
    so far."""
    trace: bool = False
    """Record the derivatives once and replay them: several times faster where the decoder is small. It must then do
    the same operations at every z."""

    def __post_init__(self) -> None:
        for name in ("step", "mass", "energy_excess"):
            checks.positive(f"DynamicsOptions.{name}", getattr(self, name))
        for name in ("spring", "damping", "latent_inertia", "cutoff"):
            checks.positive(f"DynamicsOptions.{name}", getattr(self, name), zero=True)
        for name in ("gravity", "uniform_force"):
            checks.array(f"DynamicsOptions.{name}", getattr(self, name), (3,))
        checks.choice("DynamicsOptions.scheme", self.scheme, ("symplectic_euler", "leapfrog"))
        if not 0 < self.restitution <= 1:
            raise ValueError(
                f"DynamicsOptions.restitution: expected a number in (0, 1], got {self.restitution!r}"
            )
        if self.cutoff >= 1:
            raise ValueError(
                f"DynamicsOptions.cutoff: expected a part of the largest eigenvalue, got {self.cutoff!r}"
            )
        if self.neighbours < 1:
            raise ValueError(
                f"DynamicsOptions.neighbours: expected at least 1, got {self.neighbours}"
            )


@dataclass(frozen=True, eq=False)
class LatentTrajectory:
    """A motion in latent space, at the times asked for, or those of them that came before it diverged.

    Attributes:
        times: (T,) seconds.
        z: (T, k) latent coordinates.
        zdot: (T, k) their velocities, 1/s.
        kinetic: (T,) joules, that of a latent inertia included.
        potential: (T,) joules: gravity, uniform force, springs and contacts.
        work: (T,) joules that forces have done since the start, less what restitution, damping and reflection have
            taken: total - work is what the integrator should keep.
        contacts: (T,) steps since the last saved time in which a contact was active.
        rank: (T,) directions of z that move particles.
        failure: why it ends early, with what was measured; None when it does not.
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
            value = checks.array(
                f"LatentTrajectory.{name}", getattr(self, name), z.shape[:1], dtype=dtype
            )
            object.__setattr__(self, name, value)

    @property
    def total(self) -> FloatArray:
        """(T,) kinetic and potential energy, joules."""
        return self.kinetic + self.potential


def simulate(
    positions: Positions,
    times: FloatArray,
    z: Tensor,
    zdot: Tensor | None = None,
    *,
    rest: Tensor | None = None,
    weights: Tensor | None = None,
    forces: Sequence[Force | ForceField] = (),
    obstacles: Sequence[HalfSpace | Obstacle] = (),
    bounds: tuple[Tensor, Tensor] | None = None,
    options: DynamicsOptions = DynamicsOptions(),
    progress: Progress = silent,
) -> LatentTrajectory:
    """The motion of an object from a state, under gravity, springs, forces and contacts.

    Args:
        positions: the decoder; called with z's dtype, on its device.
        times: (T,) seconds from 0 at which the state is saved.
        z: (k,) coordinates at the start.
        zdot: (k,) velocities at the start, 1/s; None is at rest. See `initial_velocity`.
        rest: (n, 3) particles of the rest shape, for springs, regions and self-collision; None is where they start.
        weights: (n,) relative masses of the particles; None is equal ones.
        forces: what pushes, beyond the potentials of the options.
        obstacles: what the object does not pass through.
        bounds: lower and upper (k,) coordinates between which the decoder is trusted: a coordinate that leaves them is
            reflected, its velocity turned around. None is no bounds.
        progress: told at every saved time.

    Returns:
        The states at `times`; fewer of them where `failure` says why.

    Raises:
        ValueError: for arguments that do not fit each other.
    """
    times = checks.times("times", times)
    x = decoded(positions, z)
    zdot = torch.zeros_like(z) if zdot is None else _like("zdot", zdot, z)
    limits = None if bounds is None else _bounds(bounds, z)
    with forward_attention():
        system = _system(positions, z, x, rest, weights, forces, obstacles, options)
        run = _Run(system, limits, z.double(), zdot.double(), float(times[-1]), options)
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
    rest: Tensor | None,
    weights: Tensor | None,
    forces: Sequence[Force | ForceField],
    obstacles: Sequence[HalfSpace | Obstacle],
    options: DynamicsOptions,
) -> System:
    rest = x if rest is None else _like("rest", rest, x)
    masses = particle_masses(weights, x, options.mass)
    derivative = derivatives(positions, z, trace=options.trace)
    _, J = derivative.linearise(z)
    mean = float((masses.repeat_interleave(3)[:, None] * J**2).sum()) / len(z)
    if not 0 < mean < math.inf:
        raise ValueError(
            f"positions: expected particles that move with z, got a mean squared derivative of {mean:g} at the start; "
            "give the decoder the coordinates that it depends on"
        )
    fall = x.new_tensor(options.gravity) + x.new_tensor(options.uniform_force) / options.mass
    smooth = [potentials.uniform(torch.outer(masses, fall))]
    if options.spring > 0:
        smooth.append(potentials.springs(rest, masses, options.spring, options.neighbours))
    contacts = [obstacle.potential(masses, options.step) for obstacle in obstacles]
    if options.self_collision is not None:
        contacts.append(options.self_collision.potential(rest, masses, options.step))
    fields = [f.field(rest, masses) if isinstance(f, Force) else f for f in forces]
    return System(
        derivative, masses, options.latent_inertia * mean, options.cutoff, smooth, contacts, fields
    )


class _Run:
    """The state of one simulation: where it is, and the account of its energy."""

    def __init__(
        self,
        system: System,
        bounds: tuple[Tensor, Tensor] | None,
        z: Tensor,
        v: Tensor,
        duration: float,
        options: DynamicsOptions,
    ) -> None:
        local = system.at(z)
        assert local is not None  # the start was checked
        self.system, self.bounds, self.options = system, bounds, options
        self.local: Local = local
        self.v = local.effective(v)
        self.kinetic = local.kinetic(self.v)
        self.account = self.kinetic + local.potential
        self.work = 0.0
        # What moves z by less than 1e-3 in all the time is not a motion to measure an excess by.
        self.largest = max(self.kinetic, 0.5e-6 * float(local.metric.trace()) / duration**2)

    def row(self, contacts: int) -> tuple[FloatArray, FloatArray, float, float, float, int, int]:
        """z, zdot, kinetic, potential, work, contacts, rank."""
        z, v = self.local.z.cpu().numpy(), self.v.cpu().numpy()
        return z, v, self.kinetic, self.local.potential, self.work, contacts, len(self.local.values)

    def advance(self, start: float, end: float) -> tuple[str | None, int]:
        """From one saved time to the next: why it failed, if it did, and the steps with an active contact."""
        count = max(1, math.ceil((end - start) / self.options.step - 1e-9))
        h = (end - start) / count
        step = (
            self._symplectic_euler if self.options.scheme == "symplectic_euler" else self._leapfrog
        )
        contacts = 0
        for index in range(count):
            time = start + index * h
            if not (step(time, h) and self._settle(h)):
                return (
                    f"diverged at {time + h:.4g} s: particles or their derivatives are not finite; {_REMEDY}",
                    0,
                )
            contacts += self.local.contact > 0
            excess = self.kinetic + self.local.potential - self.work - self.account
            self.largest = max(self.largest, self.kinetic)
            if not excess <= self.options.energy_excess * self.largest:
                return (
                    f"diverged at {time + h:.4g} s: {excess:.3g} J that nothing accounts for, at a kinetic energy of "
                    f"{self.kinetic:.3g} J; {_REMEDY}"
                ), 0
        return None, contacts

    def _symplectic_euler(self, time: float, h: float) -> bool:
        force = self.system.force(self.local, self.v, time)
        v = self.v + h * self.system.acceleration(self.local, self.v, force)
        self.work += h * float(force.reshape(-1) @ (self.local.J @ v))
        local = self.system.at(self.local.z + h * v)
        if local is None:
            return False
        self.local, self.v = local, v
        return True

    def _leapfrog(self, time: float, h: float) -> bool:
        system, start = self.system, self.local
        force = system.force(start, self.v, time)
        momentum = start.metric @ self.v + h / 2 * start.pull_back(force - start.gradient)
        local = system.at(system.reach(start, h * momentum))
        if local is None:
            return False
        travel = local.x - start.x
        momentum = (
            local.pull_back(system.masses[:, None] * travel / h)
            + system.inertia * (local.z - start.z) / h
        )
        v = local.solve(momentum)
        for _ in range(
            2 if system.fields else 1
        ):  # once more for forces that depend on the velocity
            later = system.force(local, v, time + h)
            v = local.solve(momentum + h / 2 * local.pull_back(later - local.gradient))
        self.work += float(((force + later) / 2 * travel).sum())
        self.local, self.v = local, v
        return True

    def _settle(self, h: float) -> bool:
        """What follows a step: reflection, restitution, damping, and no velocity along what moves no particle."""
        before = self.local.kinetic(self.v) + self.local.potential
        if self.bounds is not None:
            z, v = _reflect(self.local.z, self.v, *self.bounds)
            local = self.local if z is self.local.z else self.system.at(z)
            if local is None:
                return False
            self.local, self.v = local, v
        scale = math.exp(-self.options.damping * h)
        if self.local.contact > 0:
            scale *= self.options.restitution ** (h / _RESTITUTION_STEP)
        self.v = scale * self.local.effective(self.v)
        self.kinetic = self.local.kinetic(self.v)
        self.work += self.kinetic + self.local.potential - before
        return True


_REMEDY = "take a shorter step, softer contacts, or some latent_inertia"


def _reflect(z: Tensor, v: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates back within their bounds, as in a mirror, and their velocities turned inwards."""
    below, above = z < lower, z > upper
    if not (below | above).any():
        return z, v
    mirrored = torch.where(below, 2 * lower - z, torch.where(above, 2 * upper - z, z))
    return mirrored.clamp(lower, upper), torch.where(
        below, v.abs(), torch.where(above, -v.abs(), v)
    )


def _bounds(bounds: tuple[Tensor, Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    lower, upper = (
        _like("bounds[0]", bounds[0], z).double(),
        _like("bounds[1]", bounds[1], z).double(),
    )
    if not ((lower <= z) & (z <= upper) & (lower < upper)).all():
        raise ValueError(
            "bounds: expected lower < upper with the start between them; widen them or start inside"
        )
    return lower, upper


def _like(name: str, value: Tensor, example: Tensor) -> Tensor:
    """`value` as a finite tensor of the example's shape, dtype and device."""
    out = torch.as_tensor(value).to(example)
    if out.shape != example.shape or not torch.isfinite(out).all():
        raise ValueError(
            f"{name}: expected finite numbers of shape {tuple(example.shape)}, got shape {tuple(out.shape)}"
            + ("" if out.shape != example.shape else " with NaN or infinity")
        )
    return out
