"""Inverse kinematics of many poses at once, by damped least squares from many starts in one batch.

Each start takes Levenberg-Marquardt steps

    dq = J^T (J J^T + lambda I)^-1 e,      lambda = |e|^2 / 2 + bias

(Sugihara, "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method", IEEE T-RO
2011): gradient steps far from the goal, Newton steps near it, and no step is ever rejected. A joint
at a limit is frozen for a step that would push it further out. The first start is the configuration
that the caller wants to be near; poses that it does not solve restart from random ones, a few at a
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import log_so3
from flowplan.robot.kinematics import nearest_turn
from flowplan.utils.checks import FloatArray

POSITION_TOLERANCE = 1e-6
"""Meters between the solved and the wanted tool origin."""
ROTATION_TOLERANCE = 1e-5
"""Radians between the solved and the wanted tool frame."""
STARTS_PER_ROUND = 4
"""Random starts of each unsolved pose in one batch."""
ITERATIONS = 30
"""Steps of each start."""
BIAS = 1e-7
"""Damping at the goal itself: positive for singular poses, small for fast convergence near it."""

ToolJacobian = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""q (B, J) -> tool poses (B, 4, 4) and world-aligned Jacobians (B, 6, J)."""


class JointRange(NamedTuple):
    """Position limits.

    Attributes:
        lower, upper: (J,) rad or m.
        revolute: (J,) true for joints that may be moved by whole turns.
    """

    lower: FloatArray
    upper: FloatArray
    revolute: NDArray[np.bool_]


def solve(
    tool_jacobian: ToolJacobian,
    X_world_tool: FloatArray,
    q_near: FloatArray,
    limits: JointRange,
    *,
    seed: int,
    attempts: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Configurations that put the tool at each of G poses, the nearest to `q_near` of those found.

    Args:
        tool_jacobian: forward kinematics of the arm.
        X_world_tool: (G, 4, 4) wanted poses.
        q_near: (G, J) first start of each pose; among solutions, the nearest to it is taken.
        limits: of the J joints.
        seed: random seed of the restarts.
        attempts: maximum number of starts per pose; a solved pose takes no more.

    Returns:
        q (G, J) within limits, and ok (G,). If ok is False, q is the last round's nearest miss.
    """
    rng = np.random.default_rng(seed)
    best = np.clip(q_near, limits.lower, limits.upper)  # (G, J)
    ok = np.zeros(len(best), bool)
    start_lower, start_upper = _start_range(limits)
    J = best.shape[1]
    done = 0
    while done < attempts and not ok.all():
        # One start in the first round, a few random ones in each further round.
        count = min(STARTS_PER_ROUND if done else 1, attempts - done)
        todo = np.flatnonzero(~ok)  # (U,)
        starts = rng.uniform(start_lower, start_upper, (len(todo), count, J))
        if done == 0:
            starts[:, 0] = best[todo]
        done += count
        goal = np.repeat(X_world_tool[todo], count, axis=0)  # (U count, 4, 4)
        q, error = _descend(tool_jacobian, goal, starts.reshape(-1, J), limits)
        near = np.repeat(q_near[todo], count, axis=0)
        turned = nearest_turn(q, near, limits.lower, limits.upper)
        q = np.where(limits.revolute, turned, q)
        # Solved starts rank by distance to q_near, below 1; unsolved ones by error, above 1.
        distance = np.linalg.norm(q - near, axis=-1)
        cost = np.where(error <= 1.0, distance / (1 + distance), error)
        pick = cost.reshape(len(todo), count).argmin(axis=1)
        row = np.arange(len(todo))
        best[todo] = q.reshape(len(todo), count, J)[row, pick]
        ok[todo] = error.reshape(len(todo), count)[row, pick] <= 1.0
    return best, ok


def _start_range(limits: JointRange) -> tuple[FloatArray, FloatArray]:
    """Limits (J,) of random starts.

    Starts more than one turn apart only find each other's solutions again.
    """
    lower, upper, revolute = limits
    middle = (lower + upper) / 2
    half = (upper - lower) / 2
    half = np.where(revolute, np.minimum(half, np.pi), half)
    return middle - half, middle + half


def _descend(
    tool_jacobian: ToolJacobian, goal: FloatArray, q: FloatArray, limits: JointRange
) -> tuple[FloatArray, FloatArray]:
    """Levenberg-Marquardt steps from N starts.

    Args:
        tool_jacobian: forward kinematics of the arm.
        goal: (N, 4, 4) wanted poses.
        q: (N, J) starts.
        limits: of the joints.

    Returns:
        Final configurations (N, J), and errors (N,) in units of the tolerances: solved up to 1.
    """
    q = q.copy()
    error = np.full(len(q), np.inf)
    active = np.arange(len(q))  # starts that have not converged
    for iteration in range(ITERATIONS + 1):
        X, J = tool_jacobian(q[active])
        e = _pose_error(goal[active], X)
        error[active] = np.maximum(
            np.linalg.norm(e[:, :3], axis=-1) / POSITION_TOLERANCE,
            np.linalg.norm(e[:, 3:], axis=-1) / ROTATION_TOLERANCE,
        )
        going = error[active] > 1.0
        if iteration == ITERATIONS or not going.any():
            break
        # Only starts that have not converged take another step.
        active, J, e = active[going], J[going], e[going]
        q[active] = _step(q[active], J, e, limits)
    return q, error


def _pose_error(goal: FloatArray, X: FloatArray) -> FloatArray:
    """Position and rotation (N, 6) from poses X to goals (N, 4, 4), world axes, m and rad."""
    e = np.empty((len(X), 6))
    e[:, :3] = goal[:, :3, 3] - X[:, :3, 3]
    e[:, 3:] = log_so3(goal[:, :3, :3] @ np.swapaxes(X[:, :3, :3], -1, -2))
    return e


def _step(q: FloatArray, J: FloatArray, e: FloatArray, limits: JointRange) -> FloatArray:
    """Configurations (N, J) after one damped step, within limits."""
    lower, upper, _ = limits
    # Freeze the joints at a limit that the descent direction J^T e pushes further out.
    downhill = (e[:, None] @ J)[:, 0]  # (N, J)
    below = (q <= lower) & (downhill < 0)
    above = (q >= upper) & (downhill > 0)
    J = np.where((below | above)[:, None], 0.0, J)
    # Solve (J J^T + lambda I) x = e; the step is J^T x.
    damping = 0.5 * np.einsum("ni,ni->n", e, e) + BIAS
    Jt = np.swapaxes(J, -1, -2)
    A = J @ Jt  # (N, 6, 6)
    A[:, range(6), range(6)] += damping[:, None]
    dq = (Jt @ np.linalg.solve(A, e[..., None]))[..., 0]
    return np.clip(q + dq, lower, upper)
