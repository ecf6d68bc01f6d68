"""The CPU optimizer: Levenberg-Marquardt over whole joint trajectories, several seeds side by side in numpy.

Kinematics are batched numpy: compiled libraries such as pinocchio take one configuration per call from Python, which is
slower for the hundreds of configurations of a few seeds. A test compares the two to 1e-9.

    (H + lambda diag H) dq = -g,   H block-banded (flowplan.optimizers.block_banded), one factorisation per seed and step

with lambda lowered where the model keeps its promise and raised where it does not (Marquardt 1963). Every step is bent
back by what the flow residual's curvature took from it (cf. geodesic acceleration, Transtrum & Sethna 2012), so that an
arm slides along its self-motions in large steps. Joint limits hold by projection. If the trajectory asks for more than
the velocity, acceleration and jerk limits allow, a second stage adds them; if the robot still touches something,
collisions are weighed more. Seeds that fall behind are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowplan.optimizers.objective import Objective, Quadratic, Stage
from flowplan.optimizers.protocol import TrackOptions, TrackProblem, TrackSolution
from flowplan.optimizers.seeds import find_seeds
from flowplan.utils.checks import FloatArray

_LONGEST_STEP = 0.5
"""Radians (metres) that any joint may move in one step."""
_FALL_BEHIND = 4.0
"""Seeds at more than this many times the cost of the best are dropped after a few steps."""
_FINE_STRIDE = 0.2
"""Between the key poses of the seeds, in rounds after the first."""
_GOOD = 0.1
"""Cost per time below which the best seed goes on alone."""
_SETTLED, _NEGLIGIBLE = 0.03, 0.05
"""A step that gains less than this share of the cost, or this much, ends the descent."""
_FIRST_DAMPING = 1e-3
_COLLISION_FACTOR = 10.0
_MORE_STAGES = 2


@dataclass(eq=False)
class _Search:
    """The state of S seeds: where they are, the model there, and their damping."""

    q: FloatArray
    model: Quadratic
    damping: FloatArray
    steps: int = 0

    def keep(self, seeds: NDArray[np.int64]) -> None:
        self.q, self.damping, self.model = (
            self.q[seeds],
            self.damping[seeds],
            self.model.select(seeds),
        )


def optimize(
    problem: TrackProblem, options: TrackOptions | None = None, *, seed: int = 0
) -> TrackSolution:
    """The joint trajectory that follows the flow best among those that are collision-free and within limits.

    Args:
        problem: what to follow, with what, among what.
        options: see TrackOptions.
        seed: of the starts.

    Returns:
        The best solution found; `converged` says whether it is within the tolerances.
    """
    options = options or TrackOptions()
    objective = Objective(problem, options)
    rng = np.random.default_rng(seed)
    best: TrackSolution | None = None
    steps = 0
    for round_ in range(options.rounds):
        again = round_ > 0
        keep, stride = (2 * options.seeds, _FINE_STRIDE) if again else (options.seeds, 1.0)
        search = _start(
            objective, find_seeds(objective, options.starts << round_, keep, rng, stride=stride)
        )
        solution = _solve(objective, search)
        steps += search.steps
        if best is None or _worth(solution, options) < _worth(best, options):
            best = solution
        if best.converged:
            break
    assert best is not None  # there is at least one round
    return replace(best, iterations=steps)


def _start(objective: Objective, q: FloatArray) -> _Search:
    return _Search(q, objective.evaluate(q, Stage()), np.full(len(q), _FIRST_DAMPING))


def _solve(objective: Objective, search: _Search) -> TrackSolution:
    """The best of the seeds, taken through the stages that it needs."""
    budget, share, stage = objective.options.iterations, objective.options.limit_share, Stage()
    _descend(objective, search, stage, budget)
    solution = _measure(objective, search)
    for _ in range(_MORE_STAGES):
        touches = (
            min(
                solution.clearance.min() - objective.options.clearance,
                solution.held_clearance.min(),
            )
            < 0
        )
        hurries = not stage.limits and objective.rates.fastest(search.q[0]) > 1
        if not touches and not hurries:
            break
        stage = Stage(
            stage.collision * (_COLLISION_FACTOR if touches else 1.0), stage.limits or hurries
        )
        if hurries:
            objective.slow_down(
                objective.slowed * float(objective.rates.demanded(search.q, share)[0])
            )
        search.model = objective.evaluate(search.q, stage)
        search.damping[:] = _FIRST_DAMPING
        _descend(objective, search, stage, budget)
        solution = _measure(objective, search)
    return solution


def _descend(objective: Objective, search: _Search, stage: Stage, iterations: int) -> None:
    """Take up to `iterations` steps with every seed; end with the best one alone."""
    robot, layout = objective.problem.robot, objective.layout
    for _ in range(iterations):
        model = search.model
        damped = model.matrix.copy()
        damped[:, 0] *= 1 + search.damping[:, None]
        damped[:, 0] += 1e-9
        dq = np.nan_to_num(
            np.clip(layout.solve(damped, -model.gradient), -_LONGEST_STEP, _LONGEST_STEP)
        )
        damped_dq = search.damping[:, None, None] * model.matrix[:, 0].reshape(dq.shape) * dq
        predicted = np.maximum(np.einsum("stj,stj->s", dq, damped_dq - model.gradient), 1e-12)
        expected = model.residual + (model.rows @ dq[..., None])[..., 0]
        q = objective.onto_path(search.q + dq, expected)
        if objective.problem.q_start is not None:
            q[:, 0] = objective.problem.q_start
        q = np.clip(q, robot.lower, robot.upper)
        tried = objective.evaluate(q, stage)
        better = tried.cost < model.cost
        gain = model.cost - tried.cost
        search.damping = np.clip(search.damping * _damping_factor(gain / predicted), 1e-9, 1e6)
        search.q = np.where(better[:, None, None], q, search.q)
        search.model = tried.where(better, model)
        search.steps += 1
        cost = search.model.cost
        best = int(np.argmin(cost))
        settled = better & (gain < _SETTLED * cost + _NEGLIGIBLE)
        if settled[best] or search.damping[best] >= 1e6:
            break
        good = cost[best] < _GOOD * q.shape[1]
        ahead = np.arange(len(cost)) == best if good else cost < _FALL_BEHIND * cost[best]
        if not ahead.all():
            search.keep(np.flatnonzero(ahead))
    search.keep(np.array([np.argmin(search.model.cost)]))


def _damping_factor(ratio: FloatArray) -> FloatArray:
    """Factor (S,) on the damping where a step gained this share of what the model promised."""
    return np.select([ratio > 0.75, ratio > 0.25, ratio > 0.0], [0.1, 0.5, 2.0], 8.0)


def _measure(objective: Objective, search: _Search) -> TrackSolution:
    q, cost = search.q[0], float(search.model.cost[0])
    options, body = objective.options, objective.body
    T = len(q)
    X = objective.problem.robot.tool_pose(q)
    position, rotation = objective.position_error(X), objective.rotation_error(X)
    between = np.concatenate([q, 0.5 * (q[1:] + q[:-1])])
    margins = np.concatenate([body.margin, np.minimum(body.margin[1:], body.margin[:-1])])
    robot, held = (_with_halfway(c, T) for c in body.clearance(between, margins))
    converged = (
        position.max() <= options.converged_position_error
        and rotation.max() <= options.converged_rotation_error
        and robot.min() >= options.clearance
        and held.min() >= -options.clearance_tolerance
    )
    slowdown = max(1.0, objective.slowed * objective.rates.fastest(q))
    return TrackSolution(q, position, rotation, robot, held, slowdown, bool(converged), 0, cost)


def _with_halfway(values: FloatArray, T: int) -> FloatArray:
    out = values[:T].copy()
    np.minimum(out[:-1], values[T:], out=out[:-1])
    return out


def _worth(s: TrackSolution, options: TrackOptions) -> tuple[bool, float]:
    """Less is better: converged first, then by what is most out of tolerance."""
    if s.converged:
        return False, s.cost
    return True, max(
        s.position_error.max() / options.converged_position_error,
        s.rotation_error.max() / options.converged_rotation_error,
        (options.clearance - min(s.clearance.min(), s.held_clearance.min()))
        / options.clearance_tolerance,
    )
