"""An object as a mechanical system in latent coordinates: theorem 1 of NeuROK at one z (B.3-B.5).

A decoder F takes latent coordinates z (k,) to particles x (n, 3) of masses m_i. With J = dF/dz and
the diagonal mass matrix m, the particles' Lagrangian pulled back to z gives

    M(z) z'' + C(z, z') + J^T grad V = J^T F_ext,    M = J^T m J = m G    (eqs. 30, 39, 40)

C, which the paper writes with the Christoffel symbols of G, is J^T m D^2F[z', z']: differentiate
J^T m x' = J^T m J z', and the sum of the symbols is the pullback of the particles' acceleration at
z'' = 0. So no tensor of third order is needed, and all forces share one product with J^T.

Redundant coordinates. If k exceeds the degrees of freedom of the object, M is singular, and so are
the forces: all of them are J^T of something. Acceleration and velocity are therefore taken within
the range of M, by its eigenvectors above `cutoff`. What is dropped moves no particle, so the
decoded motion is that of minimal coordinates (theorem 2) and z does not drift along the fiber. A
network's M has no such gap: its small eigenvalues are directions that move particles a little and z
a lot. For those there is `inertia`, a mass of the coordinates themselves: it adds inertia |z'|^2 /
2 to the kinetic energy and nothing to C, so energy is still conserved, that of a slightly heavier
object; with a high threshold, which eigenvalues cross, or a damped inverse it would not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.neurok.dynamics.forces import ForceField
from generators.neurok.dynamics.potentials import Potential
from generators.neurok.latent_space.derivatives import Derivatives

_ROUNDS = 12  # largest number of decodings in which a step is solved
_TOLERANCE = 1e-4  # relative residual of the momentum, for a float32 decoder
_TOLERANCE_DOUBLE = 1e-10


@dataclass(frozen=True, eq=False)
class LocalState:
    """The system at one z, in double precision.

    Attributes:
        z: (k,).
        x: (n, 3) particles.
        J: (3n, k).
        metric: (k, k) M, latent inertia included.
        vectors, values: (k, r), (r,) eigenvectors and eigenvalues of M above the cutoff.
        potential: joules, contacts included.
        contact: joules of contacts alone: above zero if something touches.
        gradient: (n, 3) of the potential by positions.
    """

    z: Tensor
    x: Tensor
    J: Tensor
    metric: Tensor
    vectors: Tensor
    values: Tensor
    potential: float
    contact: float
    gradient: Tensor

    def kinetic(self, v: Tensor) -> float:
        """Kinetic energy at a velocity (k,), joules."""
        return 0.5 * float(v @ self.metric @ v)

    def pull_back(self, forces: Tensor) -> Tensor:
        """Pullback J^T f (k,) of forces or momenta (n, 3) of the particles (eq. 39)."""
        return self.J.T @ forces.reshape(-1)

    def solve(self, momentum: Tensor) -> Tensor:
        """M^-1 within the range of M: velocity (k,) of a momentum, acceleration of a force."""
        return self.vectors @ ((self.vectors.T @ momentum) / self.values)

    def effective(self, v: Tensor) -> Tensor:
        """The component of a velocity (k,) that moves particles."""
        return self.vectors @ (self.vectors.T @ v)


@dataclass(frozen=True, eq=False)
class System:
    """An object, and the forces on it.

    Attributes:
        derivatives: of its decoder.
        masses: (n,) kilograms.
        inertia: kilograms of each coordinate.
        cutoff: eigenvalues of M below this share of the largest count as zero.
        potentials, contacts, fields: forces on its particles.
    """

    derivatives: Derivatives
    masses: Tensor
    inertia: float = 0.0
    cutoff: float = 1e-8
    potentials: Sequence[Potential] = ()
    contacts: Sequence[Potential] = ()
    fields: Sequence[ForceField] = ()

    def at(self, z: Tensor) -> LocalState | None:
        """The system at z (k,) in double precision; None if the decoder overflows."""
        # Mass matrix.
        x, J = self.derivatives.linearize(z)
        metric = J.T @ (self.masses.repeat_interleave(3)[:, None] * J)
        metric.diagonal().add_(self.inertia)
        if not (torch.isfinite(metric).all() and torch.isfinite(x).all()):
            return None
        # Its range.
        values, vectors = torch.linalg.eigh(metric)
        keep = values > self.cutoff * values[-1]
        # Potentials.
        smooth, slope = _sum(self.potentials, x)
        contact, push = _sum(self.contacts, x)
        return LocalState(
            z, x, J, metric, vectors[:, keep], values[keep], smooth + contact, contact, slope + push
        )

    def force(self, state: LocalState, v: Tensor, time: float) -> Tensor:
        """Forces (n, 3) on the particles beyond the potentials, at a velocity (k,)."""
        total = torch.zeros_like(state.x)
        if self.fields:
            velocity = (state.J @ v).reshape(-1, 3)
            for field in self.fields:
                total = total + field(state.x, velocity, time)
        return total

    def acceleration(self, state: LocalState, v: Tensor, force: Tensor) -> Tensor:
        """z'' (k,) of eq. 47 at a velocity (k,) under `force` (n, 3)."""
        bend = self.derivatives.along(state.z, v)
        net = force - state.gradient - self.masses[:, None] * bend
        return state.solve(state.pull_back(net))

    def reach(self, start: LocalState, moment: Tensor) -> Tensor:
        """z' (k,) such that J^T m (F(z') - F(z)) + inertia (z' - z) = `moment` (k,).

        J is taken at the start z. Broyden's method in coordinates in which the start's M is the
        identity: the deviation is of the order of the step. If a direction has no solution (its
        particles cannot go that far), the nearest point found counts, and the other directions go
        on without it; a z' at which the decoder overflows is returned.
        """
        S = start.vectors / start.values.sqrt()
        residual = S.T @ moment
        best = torch.zeros_like(start.values)
        double = self.derivatives.dtype != torch.float32
        relative = _TOLERANCE_DOUBLE if double else _TOLERANCE
        tolerance = relative * float(residual.norm())
        inverse, stalled = torch.eye(len(residual)).to(residual), 0
        step = residual
        for _ in range(_ROUNDS):
            # Residual after the step.
            z = start.z + S @ (best + step)
            travel = self.derivatives.decode(z) - start.x
            momentum = start.pull_back(self.masses[:, None] * travel)
            left = S.T @ (moment - momentum - self.inertia * (z - start.z))
            if not torch.isfinite(left).all():
                return z
            # Broyden's update of the inverse Jacobian.
            change = inverse @ (residual - left)
            along = float(step @ change)
            if abs(along) > 1e-12 * float(step @ step):
                inverse = inverse + torch.outer(step - change, step @ inverse) / along
            if left.norm() < residual.norm():
                # Accepted; slow progress counts as a stall.
                stalled = stalled + 1 if left.norm() > 0.7 * residual.norm() else 0
                best, residual, step = best + step, left, inverse @ left
            else:
                # Too far in some directions: shorten those; then, if that fails, all others too.
                stalled += 1
                rest = step if stalled == 1 else step / 4
                step = torch.where(left.abs() > residual.abs(), step / 8, rest)
            if residual.norm() <= tolerance or stalled > 3:
                break
        return start.z + S @ best


def _sum(potentials: Sequence[Potential], x: Tensor) -> tuple[float, Tensor]:
    """Energy and gradient (n, 3) of all potentials."""
    energy, gradient = 0.0, torch.zeros_like(x)
    for potential in potentials:
        part, slope = potential(x)
        energy, gradient = energy + float(part), gradient + slope
    return energy, gradient


def particle_masses(weights: Tensor | None, x: Tensor, total: float) -> Tensor:
    """Masses (n,) that add up to `total` kilograms, in proportion to `weights` (n,), or equal."""
    if weights is None:
        return torch.full((len(x),), total / len(x), dtype=x.dtype, device=x.device)
    weights = torch.as_tensor(weights).to(x)
    if weights.shape != x.shape[:1] or not (torch.isfinite(weights) & (weights > 0)).all():
        remark = "" if weights.shape != x.shape[:1] else " with some that are not"
        raise ValueError(
            f"weights: expected {len(x)} positive numbers, one per particle, got shape "
            f"{tuple(weights.shape)}{remark}"
        )
    return total * weights / weights.sum()
