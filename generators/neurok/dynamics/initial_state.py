"""Initial state of an action: latents whose particles have given positions and velocities.

Equation 42 of NeuROK, min |x_0 - F(z_0)|^2 + |x'_0 - J z'_0|^2 over the particles of a region, one
term after the other: the first by Levenberg-Marquardt, the second, linear in z'_0, at its solution.
That is the joint minimum if the positions can be met.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.neurok.dynamics.system import System, particle_masses
from generators.neurok.latent_space.derivatives import (
    Positions,
    decoded,
    derivatives,
    forward_attention,
)


def initial_velocity(
    positions: Positions,
    z: Tensor,
    points: NDArray[np.int64],
    velocities: FloatArray,
    *,
    weights: Tensor | None = None,
    cutoff: float = 1e-8,
) -> Tensor:
    """The latent velocity (k,) that best gives some particles their velocities.

    Least squares over those particles; what they leave open is decided by the least kinetic energy
    of the object, as under an impulse on those particles. Neither depends on the parameterization
    of z.

    Args:
        positions: the decoder.
        z: (k,) coordinates.
        points: (H,) indices of particles.
        velocities: (H, 3) of those.
        weights: (n,) relative masses of all particles; None for equal ones.
        cutoff: see `DynamicsOptions`.
    """
    x = decoded(positions, z)
    index, goal = _on_particles("velocities", points, velocities, x)
    with forward_attention():
        masses = particle_masses(weights, x, 1.0)
        state = System(derivatives(positions, z), masses, cutoff=cutoff).at(z.double())
    if state is None or not float(state.values.max()) > 0:
        raise ValueError(
            "positions: expected particles that move with z, got no finite derivative; check the "
            "decoder"
        )
    J = _rows_of(state.J, index)  # (3H, k)
    # With z' = S y, S = M^(-1/2), the kinetic energy is |y|^2 / 2, which a pseudo-inverse
    # minimizes.
    S = state.vectors / state.values.sqrt()
    return (S @ torch.linalg.pinv(J @ S, rtol=cutoff**0.5) @ goal).to(z.dtype)


def initial_coordinates(
    positions: Positions,
    z: Tensor,
    points: NDArray[np.int64],
    targets: FloatArray,
    *,
    iterations: int = 50,
) -> Tensor:
    """The coordinates (k,) that best place some particles at their targets.

    Args:
        positions: the decoder.
        z: (k,) the start; what those particles leave open stays near it.
        points: (H,) indices of particles.
        targets: (H, 3) positions for them.
        iterations: largest number of trial steps.
    """
    index, goal = _on_particles("targets", points, targets, decoded(positions, z))
    derivative = derivatives(positions, z)
    best = trial = z.double()
    cost, damping = np.inf, 1e-3
    identity = torch.eye(len(z)).to(best)
    H, gradient = identity, torch.zeros_like(best)
    for _ in range(iterations):
        with forward_attention():
            x, J = derivative.linearize(trial)
        residual = x[index].reshape(-1) - goal
        reached = float(residual @ residual)
        if reached < cost:
            # Accept the step; relinearize.
            settled = cost - reached < 1e-12 * reached or reached < 1e-28
            best, cost, damping = trial, reached, damping / 5
            A = _rows_of(J, index)
            H, gradient = A.T @ A, A.T @ residual
            if settled:
                break
        else:
            damping *= 4
        if damping > 1e12:
            break
        weight = damping * H.diagonal().mean().clamp_min(1e-30)
        trial = best - torch.linalg.solve(H + weight * identity, gradient)
    return best.to(z.dtype)


def _rows_of(J: Tensor, index: Tensor) -> Tensor:
    """Rows (3H, k) of a Jacobian (3n, k) that belong to particles (H,)."""
    k = J.shape[1]
    return J.reshape(-1, 3, k)[index].reshape(-1, k)


def _on_particles(
    name: str, points: NDArray[np.int64], values: FloatArray, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Indices (H,) of particles of x (n, 3), and their wanted values, flat (3H,)."""
    points = checks.array("points", points, ("H",), dtype=np.int64)
    values = checks.array(name, values, (len(points), 3), hint="give one row per entry of points")
    if points.min() < 0 or points.max() >= len(x):
        raise ValueError(
            f"points: expected indices below {len(x)}, got {points.min()} to {points.max()}"
        )
    index = torch.as_tensor(np.array(points), device=x.device)
    return index, torch.as_tensor(np.array(values)).to(x).reshape(-1)
