"""Where a trajectory optimizer starts: configurations that reach the first pose, carried along the path.

A table of random configurations, made once per robot, gives starts whose tool is already near the first pose. Damped
least squares brings them there; those that arrive are carried along a few key poses, one step each (continuation), so
that each stays on its own branch of the inverse kinematics. The seeds are the best of them that differ: by how far off
the path they are, how deep they are in obstacles, and how far they travel.
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

_TABLE = 2048
_REACHING_STEPS = 10
_LEVER = 0.3
"""Metres per radian, where a rotation is weighed against a translation."""
_KEY_SHIFT, _KEY_TURN = 0.06, 0.3
"""Metres and radians between key poses."""
_RANKED_TIMES = 6
"""Key times at which candidates are judged, at most."""
_ALIKE = 0.25
"""Radians: trajectories that nowhere differ by more are one seed."""


@lru_cache(maxsize=16)
def _table(robot: Robot) -> tuple[FloatArray, FloatArray]:
    """Random configurations (N, J) within limits that keep the links apart, and their tool poses (N, 4, 4)."""
    from scipy.stats import qmc  # imported here: scipy.stats takes long to load

    lower, upper = robot.lower, robot.upper
    middle, half = (lower + upper) / 2, np.minimum((upper - lower) / 2, np.pi)
    unit = qmc.Sobol(len(lower), seed=0).random(_TABLE)
    q = middle + (2 * unit - 1) * half
    q = q[np.concatenate([self_clearance(robot, part) > 0 for part in np.array_split(q, 16)])]
    return q, robot.tool_pose(q)


def find_seeds(
    objective: Objective, starts: int, keep: int, rng: np.random.Generator, *, stride: float = 1.0
) -> FloatArray:
    """Trajectories (S, T, J) to start from, S <= keep, the most promising first; sets the objective's clock by them.

    Args:
        objective: of the problem.
        starts: configurations that reach for the first pose.
        keep: seeds wanted.
        rng: where starts beyond the table's nearest come from.
        stride: between key poses, as a share of the usual: shorter ones keep to the path near singularities, where a
            wrist turns over within a few times.
    """
    problem = objective.problem
    objective.slow_down(1.0)
    keys = key_times(problem.attachment.X_world_tool, stride)
    first = (
        _first_configurations(objective, starts, rng)
        if problem.q_start is None
        else problem.q_start[None]
    )
    path = _carry(objective, first, keys)  # (A, M, J)
    chosen: list[int] = []
    for a in _rank(objective, path, keys):
        if len(chosen) < keep and all(np.abs(path[a] - path[b]).max() > _ALIKE for b in chosen):
            chosen.append(int(a))
    q = _densify(path[chosen], keys, len(problem.times))
    # Through the key times alone the path has the flow's speed and not yet its jitter.
    objective.slow_down(float(objective.rates.demanded(q, objective.options.limit_share).min()))
    q = np.clip(
        objective.onto_path(q, np.zeros((*q.shape[:2], 6))),
        problem.robot.lower,
        problem.robot.upper,
    )
    if problem.q_start is not None:
        q[:, 0] = problem.q_start
    return q


def key_times(X: FloatArray, stride: float = 1.0) -> NDArray[np.int64]:
    """Indices (M,) of times that are about equally far apart along tool poses (T, 4, 4), both ends among them."""
    shift = np.linalg.norm(np.diff(X[:, :3, 3], axis=0), axis=-1) / (_KEY_SHIFT * stride)
    turn = angle_between(X[:-1, :3, :3], X[1:, :3, :3]) / (_KEY_TURN * stride)
    way = np.concatenate([[0.0], np.cumsum(np.maximum(shift, turn) + 1e-9)])
    count = int(np.clip(np.ceil(way[-1]) + 1, 3, 24 / stride))
    index = np.searchsorted(way, np.linspace(0, way[-1] * (1 - 1e-12), count))
    return np.unique(np.concatenate([[0], index, [len(X) - 1]]))


def _first_configurations(
    objective: Objective, starts: int, rng: np.random.Generator
) -> FloatArray:
    robot = objective.problem.robot
    goal = objective.X_star[0]
    q, X = _table(robot)
    away = np.linalg.norm(X[:, :3, 3] - goal[:3, 3], axis=-1)
    # The Frobenius distance of rotations is 2 sqrt(2) sin(angle / 2).
    turned = np.linalg.norm(X[:, :3, :3] - goal[:3, :3], axis=(1, 2)) / np.sqrt(2)
    order = np.argsort(away + _LEVER * turned + 0.05 * rng.random(len(q)))
    q = np.concatenate([robot.home[None], q[order[: max(starts - 1, 1)]]])
    index = np.zeros(len(q), np.int64)
    for step in range(_REACHING_STEPS):
        q, error = _step(objective, q, index, 0.5)
        if step >= _REACHING_STEPS // 2 and np.mean(error < 0.01) > 0.5:
            break
    order = np.argsort(error)
    arrived = error[order] < 0.02
    q = q[order][arrived] if arrived.any() else q[order[:4]]
    distinct: list[int] = []
    for i in range(len(q)):
        if all(np.abs(q[i] - q[j]).max() > _ALIKE for j in distinct):
            distinct.append(i)
    return q[distinct]


def _step(
    objective: Objective, q: FloatArray, index: NDArray[np.int64], longest: float
) -> tuple[FloatArray, FloatArray]:
    """One damped least-squares step of q (A, J) towards the poses at `index` (A,), and the errors (A,) before it.

    Rotations count by how well the flow shows them: one that it leaves free does not pull.
    """
    robot = objective.problem.robot
    X, J = robot.tool_jacobian(q)
    goal = objective.X_star[index]
    arm = (X[:, :3, :3] @ objective.source_mean[index][..., None])[..., 0]
    wanted = (goal[:, :3, :3] @ objective.source_mean[index][..., None])[..., 0]
    shown = objective.shown[index]
    # The skew part of a rotation is sin(angle) times its axis: on the way there no logarithm is needed.
    M = goal[:, :3, :3] @ np.swapaxes(X[:, :3, :3], 1, 2)
    turn = 0.5 * np.stack(
        [M[:, 2, 1] - M[:, 1, 2], M[:, 0, 2] - M[:, 2, 0], M[:, 1, 0] - M[:, 0, 1]], axis=1
    )
    e = np.empty((len(q), 6))
    e[:, :3] = goal[:, :3, 3] + wanted - X[:, :3, 3] - arm
    e[:, 3:] = _LEVER * (shown @ turn[..., None])[..., 0]
    A = np.empty_like(J)
    A[:, :3] = J[:, :3] - skew(arm) @ J[:, 3:]
    A[:, 3:] = _LEVER * (shown @ J[:, 3:])
    AT = np.swapaxes(A, 1, 2)
    error = np.einsum("ai,ai->a", e, e)
    gram = A @ AT
    gram[:, range(6), range(6)] += 0.5 * error[:, None] + 1e-5
    dq = (AT @ np.linalg.solve(gram, e[..., None]))[..., 0]
    size = np.abs(dq).max(axis=1, keepdims=True)
    dq *= np.minimum(1.0, longest / np.maximum(size, 1e-12))
    return np.clip(q + dq, robot.lower, robot.upper), np.sqrt(error)


def _carry(objective: Objective, first: FloatArray, keys: NDArray[np.int64]) -> FloatArray:
    path = np.empty((len(first), len(keys), first.shape[1]))
    q = first
    for m, t in enumerate(keys):
        if m:
            q, _ = _step(
                objective, q + (q - path[:, m - 2] if m > 1 else 0.0), np.full(len(q), t), 0.6
            )
        path[:, m] = q
    return path


def _rank(objective: Objective, path: FloatArray, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    some = slice(None, None, -(-len(keys) // _RANKED_TIMES))
    path, keys = path[:, some], keys[some]
    A, M, J = path.shape
    flat = path.reshape(-1, J)
    _, error = _step(objective, flat, np.tile(keys, A), 0.0)
    robot, held = objective.body.clearance(flat, np.tile(objective.body.margin[keys], (A, 1)))
    depth = np.maximum(-np.minimum(robot, held), 0.0).reshape(A, M)
    travel = np.abs(np.diff(path, axis=1)).max(axis=2).sum(axis=1)
    # In metres, roughly: off the path, in an obstacle, and a little for every radian travelled.
    score = (
        np.maximum(error.reshape(A, M) - 0.01, 0.0).max(axis=1)
        + 2 * depth.mean(axis=1)
        + 0.01 * travel
    )
    return np.argsort(score)


def _densify(path: FloatArray, keys: NDArray[np.int64], T: int) -> FloatArray:
    """Cubic Hermite interpolation of paths (S, M, J) at the key times."""
    t = np.arange(T)
    cell = np.clip(np.searchsorted(keys, t, side="right") - 1, 0, len(keys) - 2)
    width = (keys[cell + 1] - keys[cell]).astype(float)
    f, width = ((t - keys[cell]) / width)[:, None], width[:, None]
    slope = np.gradient(path, keys, axis=1)
    a, b = path[:, cell], path[:, cell + 1]
    bend = (1 - f) * (width * slope[:, cell] - (b - a)) - f * (width * slope[:, cell + 1] - (b - a))
    return a + f * (b - a) + f * (1 - f) * bend
