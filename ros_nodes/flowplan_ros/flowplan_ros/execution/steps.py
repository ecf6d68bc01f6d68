"""Steps of a plan: one controller's work each, from rest to rest."""

from __future__ import annotations

import numpy as np

from flowplan.trajectory import Phase, Trajectory
from flowplan_ros.execution.records import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionRequest,
    GripperStep,
)

_AT_REST = 1e-3  # rad/s or m/s: a piece that starts or ends faster than this is not at rest
_SAME_OPENING = 1e-4  # meters: fingers closer than this to their target are not sent there


def effective_scaling(asked: float, allowed: float) -> float:
    """Velocity scaling of a goal (0: the executor's own), at most what the executor allows."""
    if not 0 <= asked <= 1:
        line = f"velocity_scaling: expected 0 (the node's own) to 1, got {asked:g}"
        raise ExecutionEnded(Code.BAD_GOAL, line)
    return min(asked or allowed, allowed)


def steps(
    request: ExecutionRequest, scaling: float, lead_in: float
) -> tuple[GripperStep | ArmStep, ...]:
    """Cut of a plan into steps for one controller each.

    Args:
        request: the plan.
        scaling: share of the planned speed, above 0 to 1.
        lead_in: seconds from the measured state to the first point of each motion.

    Raises:
        ExecutionEnded: BAD_GOAL if fingers and arm would have to move at once, or a piece does not
            begin and end at rest.
    """
    trajectory = request.trajectory
    out: list[GripperStep | ArmStep] = []
    opening: float | None = None
    for phase in np.unique(trajectory.phase).tolist():
        chosen = trajectory.phase == phase
        fingers_move = phase in (Phase.GRIP, Phase.RELEASE)
        target = _target_opening(trajectory.grip[chosen], phase, fingers_move)
        # The fingers first: a phase of the arm expects them in place.
        if opening is None or not abs(target - opening) <= _SAME_OPENING:
            holding = request.holds and phase == Phase.GRIP
            out.append(GripperStep(phase, target, holding, np.inf if opening is None else opening))
            opening = target
        if not fingers_move and chosen.sum() > 1:
            out.append(_arm_step(trajectory, phase, scaling, lead_in))
    return tuple(out)


def _target_opening(grip: np.ndarray, phase: int, fingers_move: bool) -> float:
    """Opening at the end of a phase, which may change only while the arm rests."""
    if fingers_move:
        return float(grip[-1])
    if np.ptp(grip) <= _SAME_OPENING:
        return float(grip[0])
    line = (
        f"plan.grip: the fingers move in the {Phase(phase).label} phase; they may only move at rest"
    )
    raise ExecutionEnded(Code.BAD_GOAL, line)


def _arm_step(trajectory: Trajectory, phase: int, scaling: float, lead_in: float) -> ArmStep:
    """The arm's motion in one phase, slowed down by `scaling`."""
    chosen = trajectory.phase == phase
    times, q, qd, qdd = (
        np.array(getattr(trajectory, name)[chosen]) for name in ("times", "q", "qd", "qdd")
    )
    # Both ends of the piece are at rest.
    fastest = np.abs(qd[[0, -1]]).max()
    if not fastest <= _AT_REST:
        raise ExecutionEnded(
            Code.BAD_GOAL,
            f"plan.trajectory: the {Phase(phase).label} phase begins or ends at {fastest:.3g} "
            "rad/s; "
            "expected rest",
        )
    # Controllers refuse a last velocity that is not exactly zero.
    qd[[0, -1]] = 0.0
    # Slower by `scaling`: velocities by its first power, accelerations by its square.
    times = lead_in + (times - times[0]) / scaling
    return ArmStep(phase, trajectory.joint_names, times, q, qd * scaling, qdd * scaling**2)
