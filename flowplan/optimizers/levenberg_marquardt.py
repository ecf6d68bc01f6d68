"""Levenberg-Marquardt over whole joint trajectories on the CPU, several seeds side by side in
numpy.

Each step solves

    (H + lambda diag H) dq = -g

with H block-banded (flowplan.optimizers.block_banded), one factorization per seed. The damping
lambda falls when the quadratic model predicts the cost well and rises when it does not (Marquardt
1963). Each step is corrected for the curvature of the flow residual (compare geodesic acceleration,
Transtrum & Sethna 2012), so that an arm moves along its self-motions in large steps. Joint limits
hold by projection. If the trajectory exceeds velocity, acceleration or jerk limits, a second stage
adds their cost; if the robot is still in collision, collisions get a larger weight. Seeds that fall
behind are dropped.

Kinematics are batched numpy: compiled libraries such as pinocchio take one configuration per call
from Python, which is slower for the hundreds of configurations of a few seeds. A test compares the
two to 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowplan.optimizers.objective import CostWeights, Objective, Quadratic
from flowplan.optimizers.protocol import TrackOptions, TrackProblem, TrackSolution
from flowplan.optimizers.seeds import find_seeds
from flowplan.optimizers.tracking_error import tracking_error
from flowplan.utils.checks import FloatArray

_MAX_STEP = 0.5
"""Largest joint motion of one step in radians (meters)."""
_DROP_RATIO = 4.0
"""Seeds whose cost exceeds that of the best by this factor are dropped."""
_FINE_STRIDE = 0.2
"""Relative spacing of the seeds' key poses in rounds after the first."""
_GOOD_COST = 0.1
"""Cost per time below which only the best seed is kept."""
_SETTLED_SHARE, _SETTLED_COST = 0.03, 0.05
"""The descent ends with a step that gains less than this share of the cost plus this cost."""
_INITIAL_DAMPING = 1e-3
_MIN_DAMPING, _MAX_DAMPING = 1e-9, 1e6
_COLLISION_FACTOR = 10.0
"""Factor on the collision weight for each further stage."""
_FURTHER_STAGES = 2
"""Maximum number of stages after the first."""


@dataclass(eq=False)
class _Search:
    """State of S seeds.

    Attributes:
        q: (S, T, J) trajectories.
        model: quadratic model of the cost there.
        damping: (S,) lambda of each seed.
        steps: number of steps taken.
    """

    q: FloatArray
    model: Quadratic
    damping: FloatArray
    steps: int = 0

    def keep(self, seeds: NDArray[np.int64]) -> None:
        """Drop all other seeds."""
        self.q = self.q[seeds]
        self.damping = self.damping[seeds]
        self.model = self.model.select(seeds)


def optimize(
    problem: TrackProblem, options: TrackOptions | None = None, *, seed: int = 0
) -> TrackSolution:
    """The joint trajectory that follows the flow best without collision and within limits.

    Args:
        problem: see TrackProblem.
        options: see TrackOptions. Defaults to TrackOptions().
        seed: Random seed of the starts.

    Returns:
        The best solution found; `converged` is true if it is within the tolerances.
    """
    options = options or TrackOptions()
    objective = Objective(problem, options)
    rng = np.random.default_rng(seed)
    best: TrackSolution | None = None
    steps = 0
    for round_ in range(options.rounds):
        # Rounds after the first use more seeds that follow the path more closely.
        keep = options.seeds if round_ == 0 else 2 * options.seeds
        stride = 1.0 if round_ == 0 else _FINE_STRIDE
        q = find_seeds(objective, options.starts << round_, keep, rng, stride=stride)
        search = _Search(q, objective.evaluate(q, CostWeights()), _initial_damping(q))
        solution = _solve(objective, search)
        steps += search.steps
        if best is None or _rank(solution, options) < _rank(best, options):
            best = solution
        if best.converged:
            break
    assert best is not None  # there is at least one round
    return replace(best, iterations=steps)


def _initial_damping(q: FloatArray) -> FloatArray:
    return np.full(len(q), _INITIAL_DAMPING)


def _solve(objective: Objective, search: _Search) -> TrackSolution:
    """The best of the seeds after as many stages as it needs."""
    options, weights = objective.options, CostWeights()
    _descend(objective, search, weights)
    solution = _measure(objective, search)
    for _ in range(_FURTHER_STAGES):
        robot_gap = solution.clearance.min() - options.clearance
        in_collision = min(robot_gap, solution.held_clearance.min()) < 0
        exceeds_rate_limits = not weights.limits and objective.rates.fastest(search.q[0]) > 1
        if not in_collision and not exceeds_rate_limits:
            break
        collision = weights.collision * (_COLLISION_FACTOR if in_collision else 1.0)
        weights = CostWeights(collision, weights.limits or exceeds_rate_limits)
        if exceeds_rate_limits:
            demanded = objective.rates.demanded(search.q, options.limit_share)
            objective.slow_down(objective.slowdown * float(demanded[0]))
        # The costs have changed: start from the same trajectory with a new model.
        search.model = objective.evaluate(search.q, weights)
        search.damping[:] = _INITIAL_DAMPING
        _descend(objective, search, weights)
        solution = _measure(objective, search)
    return solution


def _descend(objective: Objective, search: _Search, weights: CostWeights) -> None:
    """Take steps with every seed until the best one settles; keep that one alone."""
    for _ in range(objective.options.iterations):
        model = search.model
        dq, predicted = _damped_step(objective, search)

        # Correct the step for the residual's curvature, then project onto the constraints.
        expected = model.residual + (model.rows @ dq[..., None])[..., 0]  # (S, T, 6)
        q = _feasible(objective, objective.onto_path(search.q + dq, expected))

        # Accept the step of each seed whose cost it lowers, and adapt the damping.
        tried = objective.evaluate(q, weights)
        better = tried.cost < model.cost
        gain = model.cost - tried.cost
        damping = search.damping * _damping_factor(gain / predicted)
        search.damping = np.clip(damping, _MIN_DAMPING, _MAX_DAMPING)
        search.q = np.where(better[:, None, None], q, search.q)
        search.model = tried.where(better, model)
        search.steps += 1

        # Stop when the best seed gains next to nothing, or no step lowers its cost.
        cost = search.model.cost
        best = int(np.argmin(cost))
        settled = better & (gain < _SETTLED_SHARE * cost + _SETTLED_COST)
        if settled[best] or search.damping[best] >= _MAX_DAMPING:
            break

        # Drop seeds that fall behind, or all but the best once that is good.
        good = cost[best] < _GOOD_COST * q.shape[1]
        kept = np.arange(len(cost)) == best if good else cost < _DROP_RATIO * cost[best]
        if not kept.all():
            search.keep(np.flatnonzero(kept))
    search.keep(np.array([np.argmin(search.model.cost)]))


def _damped_step(objective: Objective, search: _Search) -> tuple[FloatArray, FloatArray]:
    """Steps (S, T, J) of the damped quadratic model, and the gains (S,) that it predicts."""
    model, damping = search.model, search.damping
    damped = model.matrix.copy()
    damped[:, 0] *= 1 + damping[:, None]  # row 0 of the banded storage is the diagonal
    damped[:, 0] += 1e-9
    dq = objective.layout.solve(damped, -model.gradient)
    dq = np.nan_to_num(np.clip(dq, -_MAX_STEP, _MAX_STEP))

    # With H dq = -g - lambda diag(H) dq, the predicted gain is dq . (lambda diag(H) dq - g).
    diagonal = model.matrix[:, 0].reshape(dq.shape)
    damped_dq = damping[:, None, None] * diagonal * dq
    predicted = np.einsum("stj,stj->s", dq, damped_dq - model.gradient)
    return dq, np.maximum(predicted, 1e-12)


def _feasible(objective: Objective, q: FloatArray) -> FloatArray:
    """Trajectories q (S, T, J) with the required start, within the joint limits."""
    problem = objective.problem
    if problem.q_start is not None:
        q[:, 0] = problem.q_start
    return np.clip(q, problem.robot.lower, problem.robot.upper)


def _damping_factor(ratio: FloatArray) -> FloatArray:
    """Factor (S,) on the damping for a ratio (S,) of actual to predicted gain."""
    return np.select([ratio > 0.75, ratio > 0.25, ratio > 0.0], [0.1, 0.5, 2.0], 8.0)


def _measure(objective: Objective, search: _Search) -> TrackSolution:
    """The first seed's trajectory with its errors and clearances."""
    q, cost = search.q[0], float(search.model.cost[0])
    options, collision = objective.options, objective.collision
    T = len(q)
    X = objective.problem.robot.tool_pose(q)
    position, rotation = tracking_error(objective.problem, X)

    # Clearances at the times and halfway between them.
    halfway = 0.5 * (q[1:] + q[:-1])
    margin = collision.margin
    margins = np.concatenate([margin, np.minimum(margin[1:], margin[:-1])])
    at_samples = collision.clearance(np.concatenate([q, halfway]), margins)
    robot, held = (_with_halfway(clearance, T) for clearance in at_samples)

    converged = (
        position.max() <= options.converged_position_error
        and rotation.max() <= options.converged_rotation_error
        and robot.min() >= options.clearance
        and held.min() >= -options.clearance_tolerance
    )
    slowdown = max(1.0, objective.slowdown * objective.rates.fastest(q))
    return TrackSolution(q, position, rotation, robot, held, slowdown, bool(converged), 0, cost)


def _with_halfway(values: FloatArray, T: int) -> FloatArray:
    """Smaller of each of the first T values and the following halfway value."""
    out = values[:T].copy()
    np.minimum(out[:-1], values[T:], out=out[:-1])
    return out


def _rank(s: TrackSolution, options: TrackOptions) -> tuple[bool, float]:
    """Sort key, best first: converged solutions by cost, then others by worst violation."""
    if s.converged:
        return False, s.cost
    missing = options.clearance - min(s.clearance.min(), s.held_clearance.min())
    return True, max(
        s.position_error.max() / options.converged_position_error,
        s.rotation_error.max() / options.converged_rotation_error,
        missing / options.clearance_tolerance,
    )
