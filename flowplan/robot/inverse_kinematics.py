"""Inverse kinematics of many poses at once: damped least squares from many starts, all starts in one numpy batch.

Each start takes Levenberg-Marquardt steps  dq = J^T (J J^T + lambda I)^-1 e,  lambda = |e|^2 / 2 + bias  (Sugihara,
"Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method", IEEE T-RO 2011): gradient steps far from
the goal, Newton steps near it, and none is ever rejected. Joints at a limit that the gradient pushes further out are
frozen for that step. The first start is the configuration the caller wants to be near;
poses it does not solve restart from random ones, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import log_so3
from flowplan.robot.kinematics import nearest_turn
from flowplan.utils.checks import FloatArray

POSITION_TOLERANCE = 1e-6
"""Metres between the solved and the wanted tool origin."""
ROTATION_TOLERANCE = 1e-5
"""Radians between the solved and the wanted tool frame."""
STARTS_PER_ROUND = 4
ITERATIONS = 30
BIAS = 1e-7
"""Damping at the goal itself: above zero for singular poses, and small, or steps near them are too short to arrive."""

ToolJacobian = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def solve(
    tool_jacobian: ToolJacobian,
    X_world_tool: FloatArray,
    q_near: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    revolute: NDArray[np.bool_],
    *,
    seed: int,
    attempts: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Configurations that put the tool at each of G poses, nearest to `q_near` among those found.

    Args:
        tool_jacobian: q (B, J) -> tool poses (B, 4, 4), world-aligned Jacobians (B, 6, J).
        X_world_tool: (G, 4, 4) wanted.
        q_near: (G, J) the first start of every pose, and what ties are broken by.
        lower, upper: (J,) limits.
        revolute: (J,) joints that may be moved by whole turns.
        attempts: starts per pose at most; a pose solved in an earlier round takes no more.

    Returns:
        q (G, J) within limits, and ok (G,). Where ok is False, q is the last round's nearest miss.
    """
    rng = np.random.default_rng(seed)
    best = np.clip(q_near, lower, upper)
    ok = np.zeros(len(best), bool)
    # Starts further than one turn apart only find each other's solutions again.
    middle, half = (
        (lower + upper) / 2,
        np.where(revolute, np.minimum((upper - lower) / 2, np.pi), (upper - lower) / 2),
    )
    done = 0
    while done < attempts and not ok.all():
        count = min(STARTS_PER_ROUND if done else 1, attempts - done)
        todo = np.flatnonzero(~ok)
        starts = rng.uniform(middle - half, middle + half, (len(todo), count, len(lower)))
        if done == 0:
            starts[:, 0] = best[todo]
        done += count
        goal = np.repeat(X_world_tool[todo], count, axis=0)
        q, error = _descend(tool_jacobian, goal, starts.reshape(-1, len(lower)), lower, upper)
        near = np.repeat(q_near[todo], count, axis=0)
        q = np.where(revolute, nearest_turn(q, near, lower, upper), q)
        # Solved starts by distance to q_near; then unsolved ones, by error.
        distance = np.linalg.norm(q - near, axis=-1)
        cost = np.where(error <= 1.0, distance / (1 + distance), error).reshape(len(todo), count)
        pick = cost.argmin(axis=1)
        best[todo] = q.reshape(len(todo), count, -1)[np.arange(len(todo)), pick]
        ok[todo] = error.reshape(len(todo), count)[np.arange(len(todo)), pick] <= 1.0
    return best, ok


def _descend(
    tool_jacobian: ToolJacobian,
    goal: FloatArray,
    q: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Final configurations and errors (N,) in units of the tolerances: at most 1 is solved."""
    q = q.copy()
    error = np.full(len(q), np.inf)
    active = np.arange(len(q))
    for iteration in range(ITERATIONS + 1):
        X, J = tool_jacobian(q[active])
        e = np.empty((len(active), 6))
        e[:, :3] = goal[active, :3, 3] - X[:, :3, 3]
        e[:, 3:] = log_so3(goal[active, :3, :3] @ np.swapaxes(X[:, :3, :3], -1, -2))
        error[active] = np.maximum(
            np.linalg.norm(e[:, :3], axis=-1) / POSITION_TOLERANCE,
            np.linalg.norm(e[:, 3:], axis=-1) / ROTATION_TOLERANCE,
        )
        going = error[active] > 1.0
        if iteration == ITERATIONS or not going.any():
            break
        active, J, e = active[going], J[going], e[going]
        here = q[active]
        downhill = (e[:, None] @ J)[:, 0]
        frozen = ((here <= lower) & (downhill < 0)) | ((here >= upper) & (downhill > 0))
        J = np.where(frozen[:, None], 0.0, J)
        damping = 0.5 * np.einsum("ni,ni->n", e, e) + BIAS
        Jt = np.swapaxes(J, -1, -2)
        A = J @ Jt
        A[:, range(6), range(6)] += damping[:, None]
        q[active] = np.clip(here + (Jt @ np.linalg.solve(A, e[..., None]))[..., 0], lower, upper)
    return q, error
