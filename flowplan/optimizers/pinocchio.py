"""The CPU optimizer: Levenberg-Marquardt over whole joint trajectories, several seeds side by side in numpy.

Named for the library that its kinematics agree with (a test compares the two to 1e-9): pinocchio's compiled functions take
one configuration a call from Python, and a batch in numpy is faster for the hundreds of configurations of a few seeds.

    (H + lambda diag H) dq = -g,   H block-banded (flowplan.optimizers.banded), one factorisation per seed and step

with lambda lowered where the cost falls and raised where it does not (Marquardt 1963). Joint limits hold by projection. If
the trajectory asks for more than the velocity, acceleration and jerk limits allow, a second stage adds them; if the robot
still touches something, a third weighs collisions more. Seeds that fall behind are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowplan.checks import FloatArray
from flowplan.optimizers import TrackOptions, TrackProblem, TrackSolution
from flowplan.optimizers.objective import Objective, Quadratic, Stage
from flowplan.optimizers.seeds import find_seeds

_LONGEST_STEP = 0.5
"""Radians (metres) that any joint may move in one step."""
_FALL_BEHIND = 4.0
"""Seeds at more than this many times the cost of the best are dropped after a few steps."""
_COLLISION_FACTOR = 10.0


@dataclass(eq=False)
class _Search:
    """The state of S seeds."""

    q: FloatArray
    model: Quadratic
    damping: FloatArray
    steps: int = 0


def optimize(problem: TrackProblem, options: TrackOptions = TrackOptions(), *, seed: int = 0) -> TrackSolution:
    """The joint trajectory that follows the flow best among those that are collision-free and within limits.

    Args:
        problem: what to follow, with what, among what.
        options: see TrackOptions.
        seed: of the starts.

    Returns:
        The best solution found; `converged` says whether it is within the tolerances.
    """
    objective = Objective(problem, options)
    rng = np.random.default_rng(seed)
    best: TrackSolution | None = None
    steps = 0
    for round_ in range(options.rounds):
        q = find_seeds(objective, options.starts << round_, options.seeds + round_, rng)
        search = _search(objective, q)
        steps += search.steps
        for solution in _solutions(objective, search):
            if best is None or _worth(solution, options) < _worth(best, options):
                best = solution
        assert best is not None
        if best.converged:
            break
    assert best is not None
    return replace(best, iterations=steps)


def _search(objective: Objective, q: FloatArray) -> _Search:
    stage, stretch = Stage(), np.ones(len(q))
    search = _Search(q, objective.evaluate(q, stage, stretch), np.full(len(q), 1e-3))
    _descend(objective, search, stage, objective.options.iterations)
    return search


def _descend(objective: Objective, search: _Search, stage: Stage, iterations: int) -> None:
    """Take up to `iterations` steps with every seed; keep those worth keeping."""
    robot, layout = objective.problem.robot, objective.layout
    for step in range(iterations):
        H, diagonal = search.model.matrix, search.model.matrix[:, 0]
        damped = H.copy()
        damped[:, 0] += search.damping[:, None] * diagonal + 1e-9
        dq = layout.solve(damped, -search.model.gradient)
        dq = np.nan_to_num(np.clip(dq, -_LONGEST_STEP, _LONGEST_STEP))
        if objective.problem.q_start is not None:
            dq[:, 0] = 0.0
        q = np.clip(search.q + dq, robot.lower, robot.upper)
        model = objective.evaluate(q, stage, np.ones(len(q)))
        better = model.cost < search.model.cost
        gain = search.model.cost - model.cost
        search.damping = np.where(better, search.damping / 8, search.damping * 5)
        search.damping = np.clip(search.damping, 1e-9, 1e6)
        search.q = np.where(better[:, None, None], q, search.q)
        search.model = _take(better, model, search.model)
        search.steps += 1
        done = better & (gain < 1e-3 * search.model.cost + 1e-3)
        keep = search.model.cost < _FALL_BEHIND * search.model.cost.min() + 10 if step >= 4 else np.ones(len(q), bool)
        if (done | ~keep).all() or done[np.argmin(search.model.cost)]:
            break
        if not keep.all():
            _drop(search, keep)


def _take(better: NDArray[np.bool_], new: Quadratic, old: Quadratic) -> Quadratic:
    if better.all():
        return new
    return Quadratic(
        np.where(better, new.cost, old.cost),
        np.where(better[:, None, None], new.gradient, old.gradient),
        np.where(better[:, None, None], new.matrix, old.matrix),
    )


def _drop(search: _Search, keep: NDArray[np.bool_]) -> None:
    m = search.model
    search.q, search.damping = search.q[keep], search.damping[keep]
    search.model = Quadratic(m.cost[keep], m.gradient[keep], m.matrix[keep])


def _solutions(objective: Objective, search: _Search) -> list[TrackSolution]:
    order = np.argsort(search.model.cost)
    return [_measure(objective, search.q[s], float(search.model.cost[s])) for s in order[:1]]


def _measure(objective: Objective, q: FloatArray, cost: float) -> TrackSolution:
    options, body = objective.options, objective.body
    T = len(q)
    X = objective.problem.robot.tool_pose(q)
    position, rotation = objective.position_error(X), objective.rotation_error(X)
    between = np.concatenate([q, 0.5 * (q[1:] + q[:-1])])
    margins = np.concatenate([body.margin, np.minimum(body.margin[1:], body.margin[:-1])])
    robot, held = (_with_halfway(c, T) for c in body.clearance(between, margins))
    converged = (
        position.max() <= options.max_position_error
        and rotation.max() <= options.max_rotation_error
        and robot.min() >= options.clearance
        and held.min() >= -options.clearance_tolerance
    )
    slowdown = objective.rates.slowdown(q)
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
        s.position_error.max() / options.max_position_error,
        s.rotation_error.max() / options.max_rotation_error,
        (options.clearance - s.clearance.min()) / options.clearance_tolerance,
    )
