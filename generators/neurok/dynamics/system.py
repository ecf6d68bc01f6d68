"""An object as a mechanical system in latent coordinates: theorem 1 of NeuROK at one z (appendices B.3-B.5).

A decoder F takes latent coordinates z (k,) to particles x (n, 3) of masses m_i. With J = dF/dz and the diagonal mass
matrix m, the particles' Lagrangian pulled back to z gives

    M(z) z'' + C(z, z') + J^T grad V = J^T F_ext,    M = J^T m J = m G    (eqs. 30, 39, 40)

C, which the paper writes with the Christoffel symbols of G, is J^T m D^2F[z', z']: differentiate J^T m x' = J^T m J z'
and what the symbols add up to is the pull of the particles' acceleration at z'' = 0. So no tensor of third order is
needed, and all forces share one product with J^T.

Redundant coordinates. Where k exceeds the freedom of the object, M is singular, and so are the forces: all of them
are J^T of something. Acceleration and velocity are therefore taken within the range of M, by its eigenvectors above
`cutoff`. What is dropped moves no particle, so the decoded motion is that of minimal coordinates (theorem 2) and z does
not wander along the fibre. A network's M has no such gap: its small eigenvalues are directions that move particles a
little and z a lot. For those there is `inertia`, a mass of the coordinates themselves: it adds inertia |z'|^2 / 2 to
the kinetic energy and nothing to C, so energy is conserved still, that of a slightly heavier object; with a high
threshold, which eigenvalues cross, or a damped inverse it would not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generators.neurok.dynamics.forces import ForceField
from generators.neurok.dynamics.potentials import Potential
from generators.neurok.latent_space.derivatives import Derivatives

_ROUNDS = 12
"""Decodings at most in which one step is solved."""
_TOLERANCE = 1e-4
"""Part of the momentum that a step may lack, where rounding hides less."""


@dataclass(frozen=True, eq=False)
class Local:
    """What is known at one z, in double precision.

    Attributes:
        z: (k,).
        x: (n, 3) particles.
        J: (3n, k).
        metric: (k, k) M, latent inertia included.
        vectors, values: (k, r), (r,) eigenvectors and eigenvalues of M that count.
        potential: joules, contacts included.
        contact: joules of contacts alone: above zero when something touches.
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
        """Joules at a velocity (k,)."""
        return 0.5 * float(v @ self.metric @ v)

    def pull_back(self, forces: Tensor) -> Tensor:
        """What forces or momenta of the particles (n, 3) are to the coordinates: J^T (k,) of them (eq. 39)."""
        return self.J.T @ forces.reshape(-1)

    def solve(self, momentum: Tensor) -> Tensor:
        """The velocity (k,) of a momentum M v, or the acceleration under a force, within the range of M."""
        return self.vectors @ ((self.vectors.T @ momentum) / self.values)

    def effective(self, v: Tensor) -> Tensor:
        """The part of a velocity (k,) that moves particles."""
        return self.vectors @ (self.vectors.T @ v)


@dataclass(frozen=True, eq=False)
class System:
    """An object and what acts on it.

    Attributes:
        derivatives: of its decoder.
        masses: (n,) kilograms.
        inertia: kilograms of each coordinate.
        cutoff: eigenvalues of M below this part of the largest count as zero.
        potentials, contacts, fields: what acts on its particles.
    """

    derivatives: Derivatives
    masses: Tensor
    inertia: float = 0.0
    cutoff: float = 1e-8
    potentials: Sequence[Potential] = ()
    contacts: Sequence[Potential] = ()
    fields: Sequence[ForceField] = ()

    def at(self, z: Tensor) -> Local | None:
        """The system at z (k,) in double precision; None where the decoder has overflowed."""
        x, J = self.derivatives.linearise(z)
        metric = J.T @ (self.masses.repeat_interleave(3)[:, None] * J)
        metric.diagonal().add_(self.inertia)
        if not (torch.isfinite(metric).all() and torch.isfinite(x).all()):
            return None
        values, vectors = torch.linalg.eigh(metric)
        keep = values > self.cutoff * values[-1]
        smooth, slope = _sum(self.potentials, x)
        contact, push = _sum(self.contacts, x)
        return Local(
            z, x, J, metric, vectors[:, keep], values[keep], smooth + contact, contact, slope + push
        )

    def force(self, local: Local, v: Tensor, time: float) -> Tensor:
        """(n, 3) what pushes the particles beyond the potentials, at a velocity (k,)."""
        total = torch.zeros_like(local.x)
        if self.fields:
            velocity = (local.J @ v).reshape(-1, 3)
            for field in self.fields:
                total = total + field(local.x, velocity, time)
        return total

    def acceleration(self, local: Local, v: Tensor, force: Tensor) -> Tensor:
        """z'' (k,) of eq. 47 at a velocity (k,) under `force` (n, 3)."""
        bend = self.derivatives.along(local.z, v)
        pull = force - local.gradient - self.masses[:, None] * bend
        return local.solve(local.pull_back(pull))

    def reach(self, start: Local, moment: Tensor) -> Tensor:
        """z' (k,) such that J^T m (F(z') - F(z)) + inertia (z' - z) = `moment` (k,), J at the start z.

        Broyden's method in coordinates in which the start's M is the identity: what that lacks is of the order of the
        step. Where a direction has no answer (its particles cannot go that far), the nearest that was found, and the
        others go on without it; a z' where the decoder overflows is returned.
        """
        S = start.vectors / start.values.sqrt()
        best, lack = torch.zeros_like(start.values), S.T @ moment
        tolerance = (_TOLERANCE if self.derivatives.dtype == torch.float32 else 1e-10) * float(
            lack.norm()
        )
        solve, stalled = torch.eye(len(lack)).to(lack), 0
        step = lack
        for _ in range(_ROUNDS):
            z = start.z + S @ (best + step)
            travel = self.derivatives.decode(z) - start.x
            left = S.T @ (
                moment
                - start.pull_back(self.masses[:, None] * travel)
                - self.inertia * (z - start.z)
            )
            if not torch.isfinite(left).all():
                return z
            change = solve @ (lack - left)
            along = float(step @ change)
            if abs(along) > 1e-12 * float(step @ step):
                solve = solve + torch.outer(step - change, step @ solve) / along
            if left.norm() < lack.norm():
                stalled = stalled + 1 if left.norm() > 0.7 * lack.norm() else 0
                best, lack, step = best + step, left, solve @ left
            else:  # too far in some directions; then, maybe, in others through them
                stalled += 1
                step = torch.where(
                    left.abs() > lack.abs(), step / 8, step if stalled == 1 else step / 4
                )
            if lack.norm() <= tolerance or stalled > 3:
                break
        return start.z + S @ best


def _sum(potentials: Sequence[Potential], x: Tensor) -> tuple[float, Tensor]:
    energy, gradient = 0.0, torch.zeros_like(x)
    for potential in potentials:
        part, slope = potential(x)
        energy, gradient = energy + float(part), gradient + slope
    return energy, gradient


def particle_masses(weights: Tensor | None, x: Tensor, total: float) -> Tensor:
    """(n,) kilograms that add up to `total`: equal ones, or as `weights` (n,) are to each other."""
    if weights is None:
        return torch.full((len(x),), total / len(x), dtype=x.dtype, device=x.device)
    weights = torch.as_tensor(weights).to(x)
    if weights.shape != x.shape[:1] or not (torch.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights: expected {len(x)} positive numbers, one per particle, got shape {tuple(weights.shape)}"
            + ("" if weights.shape != x.shape[:1] else " with some that are not")
        )
    return total * weights / weights.sum()
