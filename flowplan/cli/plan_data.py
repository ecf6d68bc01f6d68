"""Plans, and reasons why there is none, as data for `flowplan plan --json`. SI units."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowplan.motion_quality import MotionReport
from flowplan.planner import Attempt, Ending, NoPlan, Plan
from flowplan.trajectory import Phase


def plan_data(result: Plan | NoPlan) -> dict[str, Any]:
    """The feasibility report as values that JSON can hold."""
    found = isinstance(result, Plan)
    return {
        "planned": found,
        "reason": "" if isinstance(result, Plan) else result.reason,
        "plan": _plan(result) if isinstance(result, Plan) else None,
        "motion": None if result.motion is None else motion_data(result.motion),
        "assumptions": list(result.assumptions),
        "attempts": [_attempt(attempt) for attempt in result.attempts],
    }


def motion_data(report: MotionReport) -> dict[str, Any]:
    """Report on a motion as values that JSON can hold."""
    return {
        "target": report.target,
        "tool_speed_m_s": report.tool_speed,
        "tool_speed_limit_m_s": report.tool_speed_limit,
        "reasons": list(report.reasons),
        "objects": [
            {
                "name": q.name,
                "deformable": q.deformable,
                "moves": q.moves,
                "parts": q.parts,
                "way_m": q.way,
                "residual_m": q.residual,
                "residual_share": q.residual_share,
                "projected_m": q.projected,
                "stretch_m": q.stretch,
                "strain": q.strain,
                "tear_m": q.tear,
                "penetration_m": q.penetration,
                "penetration_allowed_m": q.penetration_allowed,
                "penetration_time_s": q.penetration_time,
                "penetration_with": q.penetration_with,
                "gap_m": _finite(q.gap),
                "speed_m_s": q.speed,
                "jitter_m": q.jitter,
                "reason": q.reason,
            }
            for q in report.objects
        ],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    q = plan.trajectory
    # Errors count while the robot manipulates; other phases follow no flow.
    manipulated = q.phase == Phase.MANIPULATE
    return {
        "contact": {
            "kind": plan.contact.kind[0],
            "X_world_tool": np.asarray(plan.contact.X_world_tool[0]).tolist(),
            "gripper_width_m": float(plan.contact.width[0]),
        },
        "duration_s": float(q.times[-1]),
        "phase_durations_s": {
            phase.label: float(np.ptp(q.times[q.phase == phase]))
            for phase in Phase
            if (q.phase == phase).any()
        },
        "max_slip_m": float(plan.attachment.slip.max()),
        "max_position_error_m": float(q.position_error[manipulated].max()),
        "max_rotation_error_rad": float(q.rotation_error[manipulated].max()),
        "clearance_m": float(plan.certificate.clearance),
        "clearance_time_s": float(plan.certificate.worst_time),
        "ending": _ending(plan.ending),
    }


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        "released": ending.released,
        "reason": ending.reason,
        "rests": ending.rests,
        "drop_m": _finite(ending.drop),
        "contact_margin_m": _finite(ending.margin),
        "joint_load": float(ending.load),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "contact": int(attempt.contact),
        "kind": attempt.kind,
        "stage": attempt.stage,
        "reason": attempt.reason,
        "remedy": attempt.remedy,
        "slip_m": _measured(attempt.slip),
        "reachable": _measured(attempt.reachable),
        "clearance_m": _measured(attempt.clearance),
        "position_error_m": _measured(attempt.position_error),
        "time_s": _measured(attempt.time),
    }


def _finite(value: float) -> float | None:
    """None if there is no such distance."""
    return float(value) if np.isfinite(value) else None


def _measured(value: float) -> float | None:
    """None if it was not measured."""
    # Measurements that were not made are negative.
    return None if value < 0 else float(value)
