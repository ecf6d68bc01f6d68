"""Inverse kinematics in a space of states: the state that best fits a target, by damped Gauss-Newton.

- `fit_shape`: the target is a point set of the same object in another pose (6.1, E.1). What corresponds to what is
  unknown, so every step matches nearest neighbours both ways (the symmetric Chamfer distance), most of each residual
  counted along the target's normal (Segal et al. 2009), from several starts at once.
- `drag`: some points are led along paths (eq. 43), min over q_t of E_t ||x_t - F(q_t)||^2. What the paths leave open is
  decided by small terms: the rest of the object stays where it is unless it must move (a redescending penalty, so that
  what must move is let go), q stays near the prior and changes smoothly. The frames are followed one after the other at
  a few key times, each from the last, then solved all together as one block-tridiagonal system.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from flowplan.utils import checks
from generators.neurok.latent_space.space import KinematicSpace
from generators.neurok.latent_space.tracked_points import Followed


@dataclass(frozen=True)
class FitOptions:
    """How the state that fits a point set is looked for; lengths are in the normalised frame."""

    starts: int = 48
    """States looked at first: the rest state and draws from the prior."""
    kept: int = 2
    """Starts that are followed at least: the rest state, the guesses, and the best draws to make up the number."""
    tries: int = 4
    """Gauss-Newton steps after which only the best of them is followed further."""
    iterations: int = 15
    """Gauss-Newton steps at most."""
    points: int = 400
    """Points of the object that are matched."""
    target_points: int = 1500
    """Points of the target that are matched: no network sees them, so they cost little."""
    curvature_points: int = 64
    """Of those, from how many a step's curvature is judged."""
    kernel: tuple[float, float] = (0.4, 0.05)
    """Distance beyond which a match counts as wrong, at the first and at the last step (Geman-McClure)."""
    sideways: float = 0.1
    """Share of a residual's square across the target's normal that counts."""
    prior: float = 1e-7
    """Weight of the squared distance from the prior's mean, beside mean squared distances. Posteriors lie some 20 from
    it: at 1e-5 they cost more than a lid that is left open."""
    newton_dimension: int = 128
    """Spaces of more dimensions are searched by L-BFGS, which needs no Jacobian."""


@dataclass(frozen=True, eq=False)
class ShapeFit:
    """A state fitted to a point set.

    Attributes:
        q: (k,) the state.
        distance: symmetric Chamfer distance reached, the mean of both directions' mean distances, normalised frame.
        start_distance: the same in the rest state.
    """

    q: Tensor
    distance: float
    start_distance: float


@dataclass(frozen=True)
class DragOptions:
    """What decides the states that handles' paths leave open; lengths are in the normalised frame."""

    key_times: int = 8
    """Frames that are followed one after the other, before all are solved together."""
    steps: int = 8
    """Gauss-Newton steps at each of them, at most."""
    joint_steps: int = 2
    """Gauss-Newton steps of all frames together."""
    handles: int = 24
    """Handles that are followed at most, evenly picked from the list: more say little else."""
    stay: float = 0.05
    """Weight of the squared distance of the body's points from where they were, beside the handles' from their paths."""
    let_go: float = 0.05
    """Distance beyond which a point that moves is hardly held back any more."""
    prior: float = 1e-7
    """Weight of the squared distance from the rest state."""
    smooth: float = 1e-7
    """Weight of the squared rate of change of the state per unit of the whole time."""


def jacobian(followed: Followed, q: Tensor) -> Tensor:
    """Derivatives (B, M, 3, k) of the positions of followed points at q (B, k).

    A network in float32 is run in bfloat16: half the time, and a Jacobian right to a percent steers as well.
    """
    with torch.autocast(q.device.type, torch.bfloat16, enabled=q.dtype == torch.float32):
        return followed.linearise(q)[1]


# --- a point set of the same object in another pose ---------------------------------------------------------------


@torch.no_grad()
def fit_shape(
    space: KinematicSpace,
    points: Tensor,
    target: Tensor,
    options: FitOptions = FitOptions(),
    *,
    guesses: Tensor | None = None,
    seed: int = 0,
) -> ShapeFit:
    """The state in which the object looks most like a point set.

    Args:
        space: the object's states.
        points: (M, 3) evenly spread over the object's surface at rest, normalised frame.
        target: (P, 3) evenly spread over its surface in the other pose, in the same frame.
        options: see FitOptions.
        guesses: (G, k) states that are followed too (see `generators.neurok.kinematics.initialization`).
        seed: of the starts, and of the points where there are more than the options say.
    """
    checks.array("points", points.cpu().numpy(), ("M", 3))
    checks.array("target", target.cpu().numpy(), ("P", 3))
    generator = torch.Generator().manual_seed(seed)
    source = _some(points, options.points, generator).to(space.rest)
    goal = _some(target, options.target_points, generator).to(space.rest)
    at = space.followed(source)
    always = kept = (
        space.rest[None]
        if guesses is None
        else torch.cat([space.rest[None], guesses.to(space.rest)])
    )
    if len(always) < options.kept:
        draws = torch.randn(options.starts - 1, space.dim, generator=generator).to(space.rest)
        draws = space.mean + draws
        best = _chamfer(at(draws), goal).argsort()[: options.kept - len(always)]
        kept = torch.cat([always, draws[best]])
    search = _newton if space.dim <= options.newton_dimension else _quasi_newton
    found = search(space, kept, source, goal, options)
    found = torch.cat([always, found])  # nothing is worse than what it began with
    reached = _chamfer(at(found), goal)
    nearest = int(reached.argmin())
    return ShapeFit(found[nearest], float(reached[nearest]), float(reached[0]))


def _some(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return points[torch.randperm(len(points), generator=generator)[:count].to(points.device)]


def _chamfer(x: Tensor, goal: Tensor) -> Tensor:
    """(B,) mean of the mean distances x (B, M, 3) -> goal (P, 3) and back."""
    d = torch.cdist(x, goal.expand(len(x), -1, -1))
    return (d.amin(2).mean(1) + d.amin(1).mean(1)) / 2


def _robust(x: Tensor, goal: Tensor, kernel: float) -> Tensor:
    """(B,) the same with Geman-McClure's d^2 / (1 + d^2 / kernel^2) for the distance."""
    d = torch.cdist(x, goal.expand(len(x), -1, -1)).square()
    return (
        sum(
            ((n / (1 + n / kernel**2)).mean(1) for n in (d.amin(2), d.amin(1))),
            torch.zeros(()).to(d),
        )
        / 2
    )


def _newton(
    space: KinematicSpace, q: Tensor, source: Tensor, goal: Tensor, options: FitOptions
) -> Tensor:
    metric = _plane_metric(goal, options.sideways)
    follow = space.followed(source)
    few = space.followed(source[: options.curvature_points])
    damping = q.new_full((len(q), 1), 1e-3)
    J = q.new_zeros(0)
    q, x = _taped(follow, q)
    for i, kernel in enumerate(np.geomspace(*options.kernel, options.iterations)):
        if i == options.tries and len(q) > 1:
            best = _chamfer(x.detach(), goal).argmin()
            q, x = _taped(follow, q[best][None])
            damping = damping[best][None]
        # The gradient is of all points, one backward pass; the curvature, far dearer, is judged from a few of them,
        # and again only every second step.
        if i % 2 == 0 or i == options.tries:
            J = jacobian(few, q.detach())
        W, r = _pull(x.detach(), goal, metric, kernel)
        (g,) = torch.autograd.grad(x, q, r, retain_graph=True)
        g = g + options.prior * (q - space.mean)
        H = _curvature(J, W) * (len(source) / J.shape[1])
        trial, y = _taped(
            follow, q - _solve_damped(H + options.prior * torch.eye(space.dim).to(q), g, damping)
        )
        now, then = (
            _robust(x, goal, kernel) + options.prior * (s - space.mean).square().sum(1)
            for s, x in ((q, x.detach()), (trial, y.detach()))
        )
        better = then < now
        damping = _damped(damping, better)
        if better.all():
            q, x = trial, y
        elif better.any():
            q, x = _taped(follow, torch.where(better[:, None], trial, q))
    return q.detach()


def _taped(follow: Followed, q: Tensor) -> tuple[Tensor, Tensor]:
    """A state, and where it takes the points, from which gradients can be taken."""
    q = q.detach().requires_grad_(True)
    with torch.enable_grad():
        return q, follow(q)


def _curvature(J: Tensor, W: Tensor) -> Tensor:
    """(B, k, k) sum of J^T W J over the points of J (B, M, 3, k), the first of W (B, N, 3, 3)."""
    WJ = W[:, : J.shape[1]] @ J
    return J.flatten(1, 2).mT @ WJ.flatten(1, 2)


def _solve_damped(H: Tensor, g: Tensor, damping: Tensor) -> Tensor:
    """Levenberg-Marquardt steps (B, k) for curvatures (B, k, k), gradients (B, k) and dampings (B, 1)."""
    scale = H.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * scale.amax(-1, keepdim=True) + 1e-30
    return torch.linalg.solve(H + torch.diag_embed(damping * scale + floor), g)


def _keep_better(
    q: Tensor, trial: Tensor, now: Tensor, then: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    better = then < now
    return torch.where(better[:, None], trial, q), _damped(damping, better)


def _damped(damping: Tensor, better: Tensor) -> Tensor:
    return torch.where(better[:, None], damping / 10, damping * 30).clamp(1e-8, 1e8)


def _pull(x: Tensor, goal: Tensor, metric: Tensor, kernel: float) -> tuple[Tensor, Tensor]:
    """Of every point x (B, M, 3): the sum of its matches' metrics (B, M, 3, 3) and of metric times residual (B, M, 3).

    A point is matched to the goal point nearest to it, and to all that it is the nearest to.
    """
    d = torch.cdist(x, goal.expand(len(x), -1, -1))
    there, back = d.argmin(2), d.argmin(1)  # (B, M) into goal, (B, P) into x
    W_there = metric[there] * _trust(d.amin(2), kernel)[..., None, None] / (2 * x.shape[1])
    W_back = metric * _trust(d.amin(1), kernel)[..., None, None] / (2 * len(goal))
    owner = back[..., None].expand(-1, -1, 3)
    r_there = (W_there @ (x - goal[there])[..., None])[..., 0]
    r_back = (W_back @ (x.gather(1, owner) - goal)[..., None])[..., 0]
    W = W_there.flatten(2).scatter_add(1, back[..., None].expand(-1, -1, 9), W_back.flatten(2))
    return W.unflatten(2, (3, 3)), r_there.scatter_add(1, owner, r_back)


def _trust(distance: Tensor, kernel: float) -> Tensor:
    return (1 + (distance / kernel).square()).reciprocal().square()


def _plane_metric(goal: Tensor, sideways: float, neighbours: int = 10) -> Tensor:
    """(P, 3, 3): counts a residual in full along the normal of the points (P, 3), and partly across it."""
    points = goal.double().cpu().numpy()
    near = points[
        cKDTree(points).query(points, min(neighbours, len(points)))[1].reshape(len(points), -1)
    ]
    spread = near - near.mean(1, keepdims=True)
    normal = np.linalg.eigh(spread.swapaxes(1, 2) @ spread)[1][..., 0]
    return torch.as_tensor(
        sideways * np.eye(3) + (1 - sideways) * normal[:, :, None] * normal[:, None, :]
    ).to(goal)


def _quasi_newton(
    space: KinematicSpace, q: Tensor, source: Tensor, goal: Tensor, options: FitOptions
) -> Tensor:
    follow = space.followed(source)
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
                loss = _robust(follow(q), goal, kernel).sum()
                loss = loss + options.prior * (q - space.mean).square().sum()
                loss.backward()
            return loss

        search.step(closure)
    return q.detach()


# --- points that are led along paths ------------------------------------------------------------------------------


@torch.no_grad()
def drag(
    space: KinematicSpace,
    handles: Tensor,
    paths: Tensor,
    body: Tensor,
    options: DragOptions = DragOptions(),
) -> Tensor:
    """The states in which handles follow their paths (eq. 43); the first is the rest state.

    Args:
        space: the object's states.
        handles: (H, 3) points of the object at rest, normalised frame.
        paths: (T, H, 3) where they should be at each time; the first frame is where they are.
        body: (M, 3) points all over the object, which stay where they are as far as the handles let them.
        options: see DragOptions.

    Returns:
        (T, k).
    """
    checks.array("handles", handles.cpu().numpy(), ("H", 3))
    checks.array(
        "paths",
        paths.cpu().numpy(),
        ("T", len(handles), 3),
        hint="one position of every handle at every time",
    )
    every = torch.linspace(0, len(handles) - 1, min(len(handles), options.handles)).round().long()
    pull = _Pull(space, handles[every].to(space.rest), body.to(space.rest), options)
    paths = paths[:, every].to(space.rest)
    # Along the way the handles travel rather than along time: where nothing moves there is nothing to follow.
    travel = torch.cat(
        [paths.new_zeros(1), (paths[1:] - paths[:-1]).norm(dim=-1).mean(1).cumsum(0)]
    )
    if travel[-1] < 1e-9:
        return space.rest.expand(len(paths), -1).clone()
    keys = torch.searchsorted(
        travel, torch.linspace(0, 1, options.key_times).to(travel) * travel[-1] * (1 - 1e-6)
    )
    keys = torch.unique(torch.cat([keys.new_zeros(1), keys.clamp(max=len(paths) - 1)]))
    at_keys = pull.follow(paths[keys], travel[keys])
    q = _interpolate(travel, travel[keys], at_keys)
    return pull.together(q, paths, keys)


class _Pull:
    """The cost of a drag: what pulls on the handles and what holds the body."""

    def __init__(
        self, space: KinematicSpace, handles: Tensor, body: Tensor, options: DragOptions
    ) -> None:
        self.space, self.options = space, options
        self.points = torch.cat([handles, body])
        self.at = space.followed(self.points)
        self.count = len(handles), max(len(body), 1)
        self.body = body

    def cost(self, q: Tensor, paths: Tensor) -> Tensor:
        """(B,) of states q (B, k) for handles at paths (B, H, 3)."""
        o, (H, M) = self.options, self.count
        x = self.at(q)
        far = (x[:, :H] - paths).square().sum((1, 2)) / H
        moved = (x[:, H:] - self.body).square().sum(2)
        held = (moved / (1 + moved / o.let_go**2)).sum(1) / M
        return far + o.stay * held + o.prior * (q - self.space.rest).square().sum(1)

    def system(self, q: Tensor, x: Tensor, J: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss-Newton matrices (B, k, k) and gradients (B, k), halves of the cost's own."""
        o, (H, M) = self.options, self.count
        r = x - torch.cat([paths, self.body.expand(len(x), -1, -1)], dim=1)
        held = o.stay / M * _trust(r[:, H:].norm(dim=2), o.let_go)
        w = torch.cat([held.new_full((len(x), H), 1 / H), held], dim=1)[..., None]
        J, wJ = J.flatten(1, 2), (w[..., None] * J).flatten(1, 2)
        matrix = wJ.mT @ J + o.prior * torch.eye(q.shape[1]).to(q)
        return matrix, (wJ.mT @ r.flatten(1)[..., None])[..., 0] + o.prior * (q - self.space.rest)

    def follow(self, paths: Tensor, travel: Tensor) -> Tensor:
        """States (K, k) at the key times, each found from those before it."""
        q = [self.space.rest]
        for i in range(1, len(paths)):
            start = q[-1]
            if i > 1:
                start = start + (q[-1] - q[-2]) * (travel[i] - travel[i - 1]) / (
                    travel[i - 1] - travel[i - 2]
                )
            # From where the last two point to, or from the last one, whichever is nearer.
            both = torch.stack([start, q[-1]])
            goal = paths[i][None]
            at = both[self.cost(both, goal.expand(2, -1, -1)).argmin()][None]
            damping = at.new_full((1, 1), 1e-3)
            now = self.cost(at, goal)
            matrix = gradient = at.new_zeros(0)
            moved = True
            for _ in range(self.options.steps):
                if moved:  # a refused step is tried again shorter, with the Jacobian that is there
                    x, J = self.at(at), jacobian(self.at, at)
                    matrix, gradient = self.system(at, x, J, goal)
                trial = at - _solve_damped(matrix, gradient, damping)
                then = self.cost(trial, goal)
                moved = bool(then < now)
                at, damping = _keep_better(at, trial, now, then, damping)
                if moved and bool(then > 0.98 * now):
                    break
                now = torch.minimum(now, then)
            q.append(at[0])
        return torch.stack(q)

    def together(self, q: Tensor, paths: Tensor, keys: Tensor) -> Tensor:
        """States (T, k) solved together; Jacobians between the key times are interpolated in time."""
        coupling = self.options.smooth * (len(q) - 1)
        times = torch.arange(len(q)).to(q)
        damping = 1e-4

        def total(q: Tensor) -> Tensor:
            return self.cost(q, paths).sum() / len(q) + coupling * (q[1:] - q[:-1]).square().sum()

        now = total(q)
        for _ in range(self.options.joint_steps):
            J = _interpolate(times, times[keys], jacobian(self.at, q[keys]))
            matrix, gradient = self.system(q, self.at(q), J, paths)
            scale = matrix.diagonal(dim1=-2, dim2=-1)
            matrix = (matrix + torch.diag_embed(damping * scale)) / len(q)
            # The first state is the object as it is: it is no unknown.
            step = solve_chain(
                matrix[1:], _with_chain(gradient / len(q), q, coupling)[1:], coupling
            )
            trial = torch.cat([q[:1], q[1:] - step])
            then = total(trial)
            if then < now:
                q, now, damping = trial, then, damping / 10
            else:
                damping *= 100
        return q


def _with_chain(gradient: Tensor, q: Tensor, coupling: float) -> Tensor:
    step = torch.zeros_like(q)
    step[1:] += q[1:] - q[:-1]
    step[:-1] -= q[1:] - q[:-1]
    return gradient + coupling * step


def solve_chain(matrix: Tensor, right: Tensor, coupling: float) -> Tensor:
    """x (T, k) of the chain  A_t x_t - c (x_{t-1} - x_t) - c (x_{t+1} - x_t) = b_t  with x_{-1} = 0 and a free end.

    Args:
        matrix: (T, k, k) symmetric positive definite A_t.
        right: (T, k) b_t.
        coupling: c >= 0.
    """
    T, k = right.shape
    eye = torch.eye(k).to(matrix)
    degree = [2.0] * (T - 1) + [1.0]
    factors: list[Tensor] = []
    rows: list[Tensor] = []
    for t in range(T):  # block elimination downwards, then substitution back up
        block, b = matrix[t] + coupling * degree[t] * eye, right[t]
        if t:
            before = coupling * torch.cholesky_inverse(factors[-1])
            block, b = block - coupling * before, b + before @ rows[-1]
        factors.append(torch.linalg.cholesky(block))
        rows.append(b)
    x = right.new_zeros(T + 1, k)
    for t in reversed(range(T)):
        x[t] = torch.cholesky_solve((rows[t] + coupling * x[t + 1])[:, None], factors[t])[:, 0]
    return x[:T]


def _interpolate(at: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """values (K, ...) given at known (K,) ascending, linearly interpolated to `at` (T,)."""
    right = torch.searchsorted(known, at.contiguous()).clamp(1, len(known) - 1)
    left = right - 1
    s = ((at - known[left]) / (known[right] - known[left])).clamp(0, 1)
    s = s.reshape(-1, *[1] * (values.ndim - 1))
    return (1 - s) * values[left] + s * values[right]
