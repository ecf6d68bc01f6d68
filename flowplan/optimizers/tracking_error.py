"""Deviation of tool poses from the flow of a track problem.

The planner measures every optimizer's solution by it, so an optimizer is not trusted with its own
errors.
"""

from __future__ import annotations

import numpy as np

from flowplan.attachment.moments import alignment_residual
from flowplan.optimizers.protocol import TrackProblem
from flowplan.utils.checks import FloatArray


def tracking_error(
    problem: TrackProblem, X_world_tool: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Errors of tool poses (T, 4, 4), one pose per time of the problem.

    Returns:
        position: (T,) meters between the center of the held patch and its target; 0 if unseen.
        rotation: (T,) radians, over the observed rotations.
    """
    moments, X_star = problem.attachment.moments, problem.attachment.X_world_tool

    # Offset of the patch's center, which turns with the tool.
    rotated = (X_world_tool[:, :3, :3] - X_star[:, :3, :3]) @ moments.source_mean[..., None]
    offset = rotated[..., 0] + X_world_tool[:, :3, 3] - X_star[:, :3, 3]  # (T, 3)
    position = np.where(moments.weight > 0, np.linalg.norm(offset, axis=-1), 0.0)

    # Vector part of the relative quaternion, twice, along the observed axes.
    observed = observed_rotations(problem.attachment.K)
    residual, _ = alignment_residual(
        X_world_tool, X_star, moments.source_mean, np.ones(len(X_star)), observed
    )
    half_sine = np.minimum(np.linalg.norm(residual[:, 3:], axis=-1) / 2, 1.0)
    return position, 2 * np.arcsin(half_sine)


def observed_rotations(K: FloatArray) -> FloatArray:
    """Projections (T, 3, 3) onto the rotations that the flow determines, by its stiffness K."""
    values, vectors = np.linalg.eigh(K)
    observed = values > 1e-9 * values[:, -1:]  # (T, 3)
    return (vectors * observed[:, None, :]) @ np.swapaxes(vectors, 1, 2)
