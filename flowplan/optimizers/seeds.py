"""Initial trajectories: configurations that reach the first pose, carried along the path.

A table of random configurations, made once per robot, gives starts whose tool is already near the
first pose. Damped least squares brings them to it. Those that arrive are carried along a few key
poses, one step each (continuation), so that each stays on its own branch of the inverse kinematics.
The seeds are the best of them that differ, ranked by distance from the path, depth in obstacles,
and joint travel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import angle_between, skew
from flowplan.optimizers.clearance import self_clearance
from flowplan.optimizers.objective import Objective
from flowplan.robot import Robot
from flowplan.utils.checks import FloatArray

_TABLE_SIZE = 2048
_LEVER = 0.3
"""Meters per radian that weigh rotations against translations."""
_START_NOISE = 0.05
"""Meters of random distance, so that different seeds of the generator select different starts."""
_REACH_STEPS, _MAX_REACH_STEP = 10, 0.5
"""Number of steps to the first pose, and the largest joint motion of each in radians (meters)."""
_ARRIVED, _NEARLY = 0.01, 0.02
"""Errors in meters of configurations that have reached the first pose, or nearly."""
_CARRY_STEP = 0.6
"""Largest joint motion in radians (meters) from one key pose to the next."""
_KEY_SHIFT, _KEY_TURN = 0.06, 0.3
"""Meters and radians between key poses."""
_MAX_KEYS = 24
"""Maximum number of key poses at the usual spacing."""
_RANKED_TIMES = 6
"""Maximum number of key times at which candidates are ranked."""
_ALIKE = 0.25
"""Radians: trajectories that differ by less at all times are the same seed."""


@lru_cache(maxsize=16)
def _table(robot: Robot) -> tuple[FloatArray, FloatArray]:
    """Random configurations (N, J) without self-collision, and their tool poses (N, 4, 4)."""
    from scipy.stats import qmc  # imported here: scipy.stats takes long to load

    lower, upper = robot.lower, robot.upper
    middle, half = (lower + upper) / 2, np.minimum((upper - lower) / 2, np.pi)
    unit = qmc.Sobol(len(lower), seed=0).random(_TABLE_SIZE)
    q = middle + (2 * unit - 1) * half
    free = [self_clearance(robot, part) > 0 for part in np.array_split(q, 16)]
    q = q[np.concatenate(free)]
    return q, robot.tool_pose(q)


def find_seeds(
    objective: Objective, starts: int, keep: int, rng: np.random.Generator, *, stride: float = 1.0
) -> FloatArray:
    """Initial trajectories (S, T, J), S <= keep, the most promising first. Sets the objective's
    slowdown to suit them.

    Args:
        objective: objective of the problem.
        starts: number of configurations that are brought to the first pose.
        keep: maximum number of seeds.
        rng: random generator for the choice of starts.
        stride: relative spacing of key poses. Smaller values follow the path more closely near
            singularities, where a wrist turns over within a few times.
    """
    problem = objective.problem
    objective.slow_down(1.0)
    keys = key_times(problem.attachment.X_world_tool, stride)

    # Candidates at the first pose, carried along the key poses.
    if problem.q_start is None:
        first = _first_configurations(objective, starts, rng)
    else:
        first = problem.q_start[None]
    path = _carry(objective, first, keys)  # (A, M, J)

    # The best ones that differ from each other, interpolated to all times.
    chosen: list[int] = []
    for a in _rank(objective, path, keys):
        if len(chosen) < keep and all(np.abs(path[a] - path[b]).max() > _ALIKE for b in chosen):
            chosen.append(int(a))
    q = _interpolate(path[chosen], keys, len(problem.times))

    # A path through key times alone has the flow's speed, and none of its jitter.
    demanded = objective.rates.demanded(q, objective.options.limit_share)
    objective.slow_down(float(demanded.min()))

    # One correction towards the poses between the key times.
    q = objective.onto_path(q, np.zeros((*q.shape[:2], 6)))
    q = np.clip(q, problem.robot.lower, problem.robot.upper)
    if problem.q_start is not None:
        q[:, 0] = problem.q_start
    return q


def key_times(X: FloatArray, stride: float = 1.0) -> NDArray[np.int64]:
    """Indices (M,) of times evenly spaced along tool poses (T, 4, 4), including both ends."""
    shift = np.linalg.norm(np.diff(X[:, :3, 3], axis=0), axis=-1) / (_KEY_SHIFT * stride)
    turn = angle_between(X[:-1, :3, :3], X[1:, :3, :3]) / (_KEY_TURN * stride)
    steps = np.maximum(shift, turn) + 1e-9
    way = np.concatenate([[0.0], np.cumsum(steps)])  # (T,), in units of the spacing
    count = int(np.clip(np.ceil(way[-1]) + 1, 3, _MAX_KEYS / stride))
    index = np.searchsorted(way, np.linspace(0, way[-1] * (1 - 1e-12), count))
    return np.unique(np.concatenate([[0], index, [len(X) - 1]]))


def _first_configurations(
    objective: Objective, starts: int, rng: np.random.Generator
) -> FloatArray:
    """Distinct configurations (A, J) at the first pose, or the closest ones if none reaches it."""
    robot = objective.problem.robot
    goal = objective.X_star[0]

    # Home, and the table's configurations with the closest tool poses.
    q, X = _table(robot)
    shift = np.linalg.norm(X[:, :3, 3] - goal[:3, 3], axis=-1)
    # The Frobenius distance of rotations is 2 sqrt(2) sin(angle / 2).
    turn = np.linalg.norm(X[:, :3, :3] - goal[:3, :3], axis=(1, 2)) / np.sqrt(2)
    order = np.argsort(shift + _LEVER * turn + _START_NOISE * rng.random(len(q)))
    q = np.concatenate([robot.home[None], q[order[: max(starts - 1, 1)]]])

    # Damped least squares to the first pose, until half of them have arrived.
    index = np.zeros(len(q), np.int64)
    for step in range(_REACH_STEPS):
        q, error = _step(objective, q, index, _MAX_REACH_STEP)
        if step >= _REACH_STEPS // 2 and np.mean(error < _ARRIVED) > 0.5:
            break

    order = np.argsort(error)
    arrived = error[order] < _NEARLY
    q = q[order][arrived] if arrived.any() else q[order[:4]]
    distinct: list[int] = []
    for i in range(len(q)):
        if all(np.abs(q[i] - q[j]).max() > _ALIKE for j in distinct):
            distinct.append(i)
    return q[distinct]


def _step(
    objective: Objective, q: FloatArray, index: NDArray[np.int64], max_step: float
) -> tuple[FloatArray, FloatArray]:
    """One damped least-squares step of q (A, J) to the poses at `index` (A,), and the errors (A,)
    before it.

    Unobserved rotations do not count. Errors are in meters, rotations weighed by the lever.
    """
    robot = objective.problem.robot
    X, J = robot.tool_jacobian(q)
    goal = objective.X_star[index]  # (A, 4, 4)

    # Position error of the patch's center.
    center = objective.source_mean[index][..., None]
    arm = (X[:, :3, :3] @ center)[..., 0]
    wanted = (goal[:, :3, :3] @ center)[..., 0]

    # Rotation error. The skew part of a rotation is sin(angle) times its axis; no logarithm is
    # needed here.
    observed = objective.observed[index]  # (A, 3, 3)
    M = goal[:, :3, :3] @ np.swapaxes(X[:, :3, :3], 1, 2)
    off_diagonal = [M[:, 2, 1] - M[:, 1, 2], M[:, 0, 2] - M[:, 2, 0], M[:, 1, 0] - M[:, 0, 1]]
    turn = 0.5 * np.stack(off_diagonal, axis=1)

    e = np.empty((len(q), 6))
    e[:, :3] = goal[:, :3, 3] + wanted - X[:, :3, 3] - arm
    e[:, 3:] = _LEVER * (observed @ turn[..., None])[..., 0]
    A = np.empty_like(J)
    A[:, :3] = J[:, :3] - skew(arm) @ J[:, 3:]
    A[:, 3:] = _LEVER * (observed @ J[:, 3:])

    # dq = A^T (A A^T + damping)^-1 e, with damping in proportion to the squared error.
    AT = np.swapaxes(A, 1, 2)
    error = np.einsum("ai,ai->a", e, e)
    gram = A @ AT
    gram[:, range(6), range(6)] += 0.5 * error[:, None] + 1e-5
    dq = (AT @ np.linalg.solve(gram, e[..., None]))[..., 0]
    size = np.abs(dq).max(axis=1, keepdims=True)
    dq *= np.minimum(1.0, max_step / np.maximum(size, 1e-12))
    return np.clip(q + dq, robot.lower, robot.upper), np.sqrt(error)


def _carry(objective: Objective, first: FloatArray, keys: NDArray[np.int64]) -> FloatArray:
    """Configurations (A, M, J) at the key times, each one step from the extrapolation."""
    path = np.empty((len(first), len(keys), first.shape[1]))
    q = first
    for m, t in enumerate(keys):
        if m:
            motion = q - path[:, m - 2] if m > 1 else 0.0
            q, _ = _step(objective, q + motion, np.full(len(q), t), _CARRY_STEP)
        path[:, m] = q
    return path


def _rank(objective: Objective, path: FloatArray, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order (A,) of paths (A, M, J), best first."""
    some = slice(None, None, -(-len(keys) // _RANKED_TIMES))
    path, keys = path[:, some], keys[some]
    A, M, J = path.shape
    flat = path.reshape(-1, J)
    _, error = _step(objective, flat, np.tile(keys, A), 0.0)
    margins = np.tile(objective.collision.margin[keys], (A, 1))
    robot, held = objective.collision.clearance(flat, margins)

    # Scores in meters, roughly: distance from the path, depth in obstacles, and a little for each
    # radian of travel.
    off_path = np.maximum(error.reshape(A, M) - 0.01, 0.0).max(axis=1)
    depth = np.maximum(-np.minimum(robot, held), 0.0).reshape(A, M)
    travel = np.abs(np.diff(path, axis=1)).max(axis=2).sum(axis=1)
    score = off_path + 2 * depth.mean(axis=1) + 0.01 * travel
    return np.argsort(score)


def _interpolate(path: FloatArray, keys: NDArray[np.int64], T: int) -> FloatArray:
    """Cubic Hermite interpolation (S, T, J) of paths (S, M, J) at the key times."""
    # Cell of each time, its width, and the fraction of it that has passed.
    t = np.arange(T)
    cell = np.clip(np.searchsorted(keys, t, side="right") - 1, 0, len(keys) - 2)
    width = (keys[cell + 1] - keys[cell]).astype(float)
    f, width = ((t - keys[cell]) / width)[:, None], width[:, None]

    # Linear interpolation, plus a cubic that gives both ends their slopes.
    slope = np.gradient(path, keys, axis=1)
    a, b = path[:, cell], path[:, cell + 1]
    chord = b - a
    bend = (1 - f) * (width * slope[:, cell] - chord) - f * (width * slope[:, cell + 1] - chord)
    return a + f * (b - a) + f * (1 - f) * bend
