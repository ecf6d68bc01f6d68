"""Drag: the states in which handles follow paths (eq. 43), by damped Gauss-Newton.

    min over q_t of  E_t ||x_t - F(q_t)||^2

Small terms decide what the paths leave open: the rest of the object stays where it is unless it
must move (a redescending penalty, so that what must move is let go), q stays near the prior and
changes smoothly. The frames are solved one after the other at a few key times, each from the last,
then all together as one block-tridiagonal system.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowplan.utils import checks
from generators.neurok.kinematics.gauss_newton import (
    jacobian,
    next_damping,
    robust_weight,
    solve_damped,
)
from generators.neurok.latent_space.space import KinematicSpace
from generators.neurok.options import DragOptions

_FIRST_DAMPING = 1e-3
_JOINT_DAMPING = 1e-4
_CONVERGED = 0.98  # ratio of costs above which a key time is solved


@torch.no_grad()
def drag(
    space: KinematicSpace,
    handles: Tensor,
    paths: Tensor,
    body: Tensor,
    options: DragOptions = DragOptions(),
) -> Tensor:
    """States (T, k) in which handles follow their paths; the first is the rest state.

    Args:
        space: the object's states.
        handles: (H, 3) points of the object at rest, normalized frame.
        paths: (T, H, 3) wanted positions at each time; `handles` in the first frame.
        body: (M, 3) points all over the object, which stay at rest as far as the handles allow.
        options: see DragOptions.
    """
    checks.array("handles", handles.cpu().numpy(), ("H", 3))
    checks.array(
        "paths",
        paths.cpu().numpy(),
        ("T", len(handles), 3),
        hint="one position of every handle at every time",
    )
    # An even choice of handles.
    count = min(len(handles), options.handles)
    chosen = torch.linspace(0, len(handles) - 1, count).round().long()
    problem = _Drag(space, handles[chosen].to(space.rest), body.to(space.rest), options)
    paths = paths[:, chosen].to(space.rest)

    # Key times at even distances of the handles' travel: without motion there is nothing to solve.
    steps = (paths[1:] - paths[:-1]).norm(dim=-1).mean(1)
    travel = torch.cat([paths.new_zeros(1), steps.cumsum(0)])  # (T,)
    if travel[-1] < 1e-9:
        return space.rest.expand(len(paths), -1).clone()
    even = torch.linspace(0, 1, options.key_times).to(travel) * travel[-1] * (1 - 1e-6)
    keys = torch.searchsorted(travel, even).clamp(max=len(paths) - 1)
    keys = torch.unique(torch.cat([keys.new_zeros(1), keys]))

    at_keys = problem.solve_in_turn(paths[keys], travel[keys])
    q = _interpolate(travel, travel[keys], at_keys)
    return problem.solve_together(q, paths, keys)


class _Drag:
    """Cost of a drag: errors of the handles, displacements of the body, distance from rest."""

    def __init__(
        self, space: KinematicSpace, handles: Tensor, body: Tensor, options: DragOptions
    ) -> None:
        self.space, self.options = space, options
        self.points = torch.cat([handles, body])
        self.tracked = space.tracked(self.points)
        self.count = len(handles), max(len(body), 1)
        self.body = body

    def cost(self, q: Tensor, paths: Tensor) -> Tensor:
        """Costs (B,) of states q (B, k) for wanted positions (B, H, 3)."""
        options, (H, M) = self.options, self.count
        x = self.tracked(q)  # (B, H + M, 3)
        missed = (x[:, :H] - paths).square().sum((1, 2)) / H
        moved = (x[:, H:] - self.body).square().sum(2)
        held = (moved / (1 + moved / options.let_go**2)).sum(1) / M
        from_rest = (q - self.space.rest).square().sum(1)
        return missed + options.stay * held + options.prior * from_rest

    def system(self, q: Tensor, x: Tensor, J: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss-Newton matrices (B, k, k) and gradients (B, k), halves of the cost's own.

        Args:
            q: (B, k) states.
            x: (B, H + M, 3) positions there.
            J: (B, H + M, 3, k) their derivatives.
            paths: (B, H, 3) wanted positions.
        """
        options, (H, M) = self.options, self.count
        r = x - torch.cat([paths, self.body.expand(len(x), -1, -1)], dim=1)
        # Weights of the residuals: equal for handles, redescending for the body.
        held = options.stay / M * robust_weight(r[:, H:].norm(dim=2), options.let_go)
        w = torch.cat([held.new_full((len(x), H), 1 / H), held], dim=1)[..., None]
        # Normal equations.
        wJ = (w[..., None] * J).flatten(1, 2)  # (B, 3 (H + M), k)
        J = J.flatten(1, 2)
        matrix = wJ.mT @ J + options.prior * torch.eye(q.shape[1]).to(q)
        gradient = (wJ.mT @ r.flatten(1)[..., None])[..., 0]
        return matrix, gradient + options.prior * (q - self.space.rest)

    def solve_in_turn(self, paths: Tensor, travel: Tensor) -> Tensor:
        """States (K, k) at the key times, each found from those before it.

        Args:
            paths: (K, H, 3) wanted positions.
            travel: (K,) distance traveled until then.
        """
        q = [self.space.rest]
        for i in range(1, len(paths)):
            start = q[-1]
            if i > 1:  # extrapolate the last two
                ahead, before = travel[i] - travel[i - 1], travel[i - 1] - travel[i - 2]
                start = start + (q[-1] - q[-2]) * ahead / before
            goal = paths[i][None]
            # From the extrapolated state or from the last one, whichever is better.
            both = torch.stack([start, q[-1]])
            best = self.cost(both, goal.expand(2, -1, -1)).argmin()
            q.append(self._solve(both[best][None], goal)[0])
        return torch.stack(q)

    def _solve(self, q: Tensor, goal: Tensor) -> Tensor:
        """The state (1, k) for wanted positions (1, H, 3), from a start q (1, k)."""
        damping = q.new_full((1, 1), _FIRST_DAMPING)
        now = self.cost(q, goal)
        matrix = gradient = q.new_zeros(0)
        accepted = True
        for _ in range(self.options.steps):
            # A rejected step is tried again shorter, with the Jacobian at hand.
            if accepted:
                x, J = self.tracked(q), jacobian(self.tracked, q)
                matrix, gradient = self.system(q, x, J, goal)
            trial = q - solve_damped(matrix, gradient, damping)
            then = self.cost(trial, goal)
            better = then < now
            accepted = bool(better)
            q = torch.where(better[:, None], trial, q)
            damping = next_damping(damping, better)
            if accepted and bool(then > _CONVERGED * now):
                break
            now = torch.minimum(now, then)
        return q

    def solve_together(self, q: Tensor, paths: Tensor, keys: Tensor) -> Tensor:
        """States (T, k) solved together; Jacobians are interpolated in time.

        Args:
            q: (T, k) start.
            paths: (T, H, 3) wanted positions.
            keys: (K,) indices of the frames whose Jacobians are computed.
        """
        coupling = self.options.smooth * (len(q) - 1)
        times = torch.arange(len(q)).to(q)
        damping = _JOINT_DAMPING

        def total(q: Tensor) -> Tensor:
            rate = (q[1:] - q[:-1]).square().sum()
            return self.cost(q, paths).sum() / len(q) + coupling * rate

        now = total(q)
        for _ in range(self.options.joint_steps):
            J = _interpolate(times, times[keys], jacobian(self.tracked, q[keys]))
            matrix, gradient = self.system(q, self.tracked(q), J, paths)
            scale = matrix.diagonal(dim1=-2, dim2=-1)
            matrix = (matrix + torch.diag_embed(damping * scale)) / len(q)
            gradient = _with_chain(gradient / len(q), q, coupling)
            # The first state is the object at rest: it is no unknown.
            step = solve_chain(matrix[1:], gradient[1:], coupling)
            trial = torch.cat([q[:1], q[1:] - step])
            then = total(trial)
            if then < now:
                q, now, damping = trial, then, damping / 10
            else:
                damping *= 100
        return q


def _with_chain(gradient: Tensor, q: Tensor, coupling: float) -> Tensor:
    """Gradient (T, k) with that of the smoothness term."""
    step = torch.zeros_like(q)
    step[1:] += q[1:] - q[:-1]
    step[:-1] -= q[1:] - q[:-1]
    return gradient + coupling * step


def solve_chain(matrix: Tensor, right: Tensor, coupling: float) -> Tensor:
    """Solution of a block-tridiagonal system with a constant coupling of neighbors.

    x (T, k) of  A_t x_t - c (x_{t-1} - x_t) - c (x_{t+1} - x_t) = b_t  with x_{-1} = 0 and a free
    end.

    Args:
        matrix: (T, k, k) symmetric positive definite A_t.
        right: (T, k) b_t.
        coupling: c >= 0.
    """
    T, k = right.shape
    eye = torch.eye(k).to(matrix)
    degree = [2.0] * (T - 1) + [1.0]

    # Block elimination forward.
    factors: list[Tensor] = []
    rows: list[Tensor] = []
    for t in range(T):
        block, b = matrix[t] + coupling * degree[t] * eye, right[t]
        if t:
            before = coupling * torch.cholesky_inverse(factors[-1])
            block, b = block - coupling * before, b + before @ rows[-1]
        factors.append(torch.linalg.cholesky(block))
        rows.append(b)

    # Substitution backward.
    x = right.new_zeros(T + 1, k)
    for t in reversed(range(T)):
        known = rows[t] + coupling * x[t + 1]
        x[t] = torch.cholesky_solve(known[:, None], factors[t])[:, 0]
    return x[:T]


def _interpolate(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of values (K, ...) at known (K,), ascending, to `at` (T,)."""
    right = torch.searchsorted(known, at.contiguous()).clamp(1, len(known) - 1)
    left = right - 1
    s = ((at - known[left]) / (known[right] - known[left])).clamp(0, 1)
    s = s.reshape(-1, *[1] * (values.ndim - 1))
    return (1 - s) * values[left] + s * values[right]
