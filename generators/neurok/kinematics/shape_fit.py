"""Inverse kinematics to a point set: the state in which the object matches it (6.1, E.1).

The target is a point set of the same object in another pose; correspondences are unknown. Every
step of a damped Gauss-Newton search matches nearest neighbors both ways (the symmetric Chamfer
distance), with most of each residual counted along the target's normal (Segal et al. 2009), from
several starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from generators.neurok.kinematics.gauss_newton import (
    jacobian,
    next_damping,
    robust_weight,
    solve_damped,
)
from generators.neurok.latent_space.space import KinematicSpace
from generators.neurok.latent_space.tracked_points import TrackedPoints

_FIRST_DAMPING = 1e-3


@dataclass(frozen=True)
class FitOptions:
    """Search for the state that fits a point set; lengths are in the normalized frame."""

    starts: Annotated[int, Interval(1, 10_000)] = 48
    """Candidate starts: the rest state and samples of the prior."""
    kept: Annotated[int, Interval(1, 10_000)] = 2
    """Least number of starts that are followed: the rest state, the initial states, and the best
    samples to make up the number."""
    tries: Annotated[int, Interval(0, 10_000)] = 4
    """Gauss-Newton steps after which only the best start is followed further."""
    iterations: Annotated[int, Interval(1, 10_000)] = 15
    """Largest number of Gauss-Newton steps."""
    points: Annotated[int, Interval(1, 100_000)] = 400
    """Points of the object that are matched."""
    target_points: Annotated[int, Interval(1, 100_000)] = 1500
    """Points of the target that are matched: no network sees them, so they cost little."""
    curvature_points: Annotated[int, Interval(1, 100_000)] = 64
    """Points of the object from which a step's curvature is estimated."""
    kernel: tuple[Annotated[float, Interval(1e-6, 100)], Annotated[float, Interval(1e-6, 100)]] = (
        0.4,
        0.05,
    )
    """Distance beyond which a match counts as wrong, at the first and at the last step
    (Geman-McClure)."""
    sideways: Annotated[float, Interval(0, 1)] = 0.1
    """Share of a residual's square across the target's normal that counts."""
    prior: Annotated[float, Interval(0, 1)] = 1e-7
    """Weight of the squared distance from the prior's mean, beside mean squared distances.
    Posteriors are at a distance of some 20: at 1e-5 that costs more than a lid left open."""
    newton_dimension: Annotated[int, Interval(0, 10**6)] = 128
    """Largest dimension of a space searched by Gauss-Newton; larger ones are searched by L-BFGS,
    which needs no Jacobian."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class ShapeFit:
    """A state fitted to a point set.

    Attributes:
        q: (k,) the state.
        distance: symmetric Chamfer distance reached, the mean of both directions' mean distances,
            normalized frame.
        start_distance: the same in the rest state.
    """

    q: Tensor
    distance: float
    start_distance: float


@torch.no_grad()
def fit_shape(
    space: KinematicSpace,
    points: Tensor,
    target: Tensor,
    options: FitOptions = FitOptions(),
    *,
    initial: Tensor | None = None,
    seed: int = 0,
) -> ShapeFit:
    """The state in which the object matches a point set best.

    Args:
        space: the object's states.
        points: (M, 3) evenly spread over the object's surface at rest, normalized frame.
        target: (P, 3) evenly spread over its surface in the other pose, in the same frame.
        options: see FitOptions.
        initial: (G, k) further states to start from (see
            `generators.neurok.kinematics.initialization`).
        seed: random seed of the starts, and of the points if there are more than are matched.
    """
    checks.array("points", points.cpu().numpy(), ("M", 3))
    checks.array("target", target.cpu().numpy(), ("P", 3))
    generator = torch.Generator().manual_seed(seed)
    source = _subset(points, options.points, generator).to(space.rest)
    goal = _subset(target, options.target_points, generator).to(space.rest)
    tracked = space.tracked(source)

    # Starts: the rest state, the initial states, and the best samples of the prior.
    always = space.rest[None]
    if initial is not None:
        always = torch.cat([always, initial.to(space.rest)])
    starts = always
    if len(always) < options.kept:
        noise = torch.randn(options.starts - 1, space.dim, generator=generator).to(space.rest)
        draws = space.mean + noise
        best = _chamfer(tracked(draws), goal).argsort()[: options.kept - len(always)]
        starts = torch.cat([always, draws[best]])

    search = _newton if space.dim <= options.newton_dimension else _quasi_newton
    found = search(space, starts, source, goal, options)
    found = torch.cat([always, found])  # the result is never worse than a start
    reached = _chamfer(tracked(found), goal)
    nearest = int(reached.argmin())
    return ShapeFit(found[nearest], float(reached[nearest]), float(reached[0]))


def _subset(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random subset (count, 3) of points (N, 3)."""
    chosen = torch.randperm(len(points), generator=generator)[:count]
    return points[chosen.to(points.device)]


def _chamfer(x: Tensor, goal: Tensor) -> Tensor:
    """Symmetric Chamfer distances (B,) of x (B, M, 3) and goal (P, 3): means of both directions."""
    d = torch.cdist(x, goal.expand(len(x), -1, -1))  # (B, M, P)
    return (d.amin(2).mean(1) + d.amin(1).mean(1)) / 2


def _robust_chamfer(x: Tensor, goal: Tensor, kernel: float) -> Tensor:
    """The same (B,) with Geman-McClure's d^2 / (1 + d^2 / kernel^2) instead of the distance."""
    squared = torch.cdist(x, goal.expand(len(x), -1, -1)).square()
    total = torch.zeros(()).to(squared)
    for nearest in (squared.amin(2), squared.amin(1)):
        total = total + (nearest / (1 + nearest / kernel**2)).mean(1)
    return total / 2


def _newton(
    space: KinematicSpace, q: Tensor, source: Tensor, goal: Tensor, options: FitOptions
) -> Tensor:
    """States (B, k) after damped Gauss-Newton from q (B, k)."""
    metric = _plane_metric(goal, options.sideways)  # (P, 3, 3)
    tracked = space.tracked(source)
    few = space.tracked(source[: options.curvature_points])
    prior = options.prior * torch.eye(space.dim).to(q)
    damping = q.new_full((len(q), 1), _FIRST_DAMPING)
    J = q.new_zeros(0)
    q, x = _recorded(tracked, q)

    def cost(state: Tensor, positions: Tensor, kernel: float) -> Tensor:
        distance = (state - space.mean).square().sum(1)
        return _robust_chamfer(positions, goal, kernel) + options.prior * distance

    for i, kernel in enumerate(np.geomspace(*options.kernel, options.iterations)):
        # From some step on, only the best start.
        if i == options.tries and len(q) > 1:
            best = _chamfer(x.detach(), goal).argmin()
            q, x = _recorded(tracked, q[best][None])
            damping = damping[best][None]

        # The gradient is of all points, one backward pass; the far more expensive curvature is
        # estimated from a few of them, and again only every second step.
        if i % 2 == 0 or i == options.tries:
            J = jacobian(few, q.detach())  # (B, M', 3, k)
        W, r = _matches(x.detach(), goal, metric, kernel)
        (g,) = torch.autograd.grad(x, q, r, retain_graph=True)
        g = g + options.prior * (q - space.mean)
        H = _curvature(J, W) * (len(source) / J.shape[1])

        # Trial step, accepted separately for each start.
        trial, y = _recorded(tracked, q - solve_damped(H + prior, g, damping))
        now = cost(q, x.detach(), kernel)
        then = cost(trial, y.detach(), kernel)
        better = then < now
        damping = next_damping(damping, better)
        if better.all():
            q, x = trial, y
        elif better.any():
            q, x = _recorded(tracked, torch.where(better[:, None], trial, q))
    return q.detach()


def _recorded(tracked: TrackedPoints, q: Tensor) -> tuple[Tensor, Tensor]:
    """A state, and positions of the points there, recorded for autograd."""
    q = q.detach().requires_grad_(True)
    with torch.enable_grad():
        return q, tracked(q)


def _curvature(J: Tensor, W: Tensor) -> Tensor:
    """Sum (B, k, k) of J^T W J over the points of J.

    Args:
        J: (B, M, 3, k) derivatives.
        W: (B, N, 3, 3) metrics, of which the first M belong to J.
    """
    WJ = W[:, : J.shape[1]] @ J
    return J.flatten(1, 2).mT @ WJ.flatten(1, 2)


def _matches(x: Tensor, goal: Tensor, metric: Tensor, kernel: float) -> tuple[Tensor, Tensor]:
    """Matches of each point, summed: a point matches its nearest goal point, and those nearest to
    it.

    Args:
        x: (B, M, 3) points.
        goal: (P, 3) goal points.
        metric: (P, 3, 3) of the goal points.
        kernel: see FitOptions.

    Returns:
        The sum of the matches' metrics (B, M, 3, 3), and of metric times residual (B, M, 3).
    """
    d = torch.cdist(x, goal.expand(len(x), -1, -1))  # (B, M, P)
    forth, back = d.argmin(2), d.argmin(1)  # (B, M) into goal, (B, P) into x

    # Weighted metrics of both directions.
    weight_forth = robust_weight(d.amin(2), kernel)[..., None, None]
    weight_back = robust_weight(d.amin(1), kernel)[..., None, None]
    W_forth = metric[forth] * weight_forth / (2 * x.shape[1])  # (B, M, 3, 3)
    W_back = metric * weight_back / (2 * len(goal))  # (B, P, 3, 3)

    # Residuals of both directions.
    owner = back[..., None].expand(-1, -1, 3)
    r_forth = (W_forth @ (x - goal[forth])[..., None])[..., 0]
    r_back = (W_back @ (x.gather(1, owner) - goal)[..., None])[..., 0]

    # Sums over the matches of each point.
    owner_9 = back[..., None].expand(-1, -1, 9)
    W = W_forth.flatten(2).scatter_add(1, owner_9, W_back.flatten(2))
    return W.unflatten(2, (3, 3)), r_forth.scatter_add(1, owner, r_back)


def _plane_metric(goal: Tensor, sideways: float, neighbors: int = 10) -> Tensor:
    """Metrics (P, 3, 3): full weight along the normal of points (P, 3), partial weight across
    it."""
    points = goal.double().cpu().numpy()
    count = min(neighbors, len(points))
    near = points[cKDTree(points).query(points, count)[1].reshape(len(points), -1)]
    # The normal is the direction of least spread.
    spread = near - near.mean(1, keepdims=True)
    normal = np.linalg.eigh(spread.swapaxes(1, 2) @ spread)[1][..., 0]
    outer = normal[:, :, None] * normal[:, None, :]
    return torch.as_tensor(sideways * np.eye(3) + (1 - sideways) * outer).to(goal)


def _quasi_newton(
    space: KinematicSpace, q: Tensor, source: Tensor, goal: Tensor, options: FitOptions
) -> Tensor:
    """States (B, k) after L-BFGS from q (B, k)."""
    tracked = space.tracked(source)
    for kernel in np.geomspace(*options.kernel, 3):
        q = q.detach().requires_grad_(True)
        search = torch.optim.LBFGS(
            [q], max_iter=2 * options.iterations, line_search_fn="strong_wolfe"
        )

        def closure(
            q: Tensor = q, kernel: float = kernel, search: torch.optim.Optimizer = search
        ) -> Tensor:
            search.zero_grad()
            with torch.enable_grad():
                loss = _robust_chamfer(tracked(q), goal, kernel).sum()
                loss = loss + options.prior * (q - space.mean).square().sum()
                loss.backward()
            return loss

        search.step(closure)
    return q.detach()
