"""Feasibility report of a planning result, as text for people."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from flowplan.motion_quality import MotionReport
from flowplan.planner import Attempt, NoPlan, Plan
from flowplan.trajectory import Phase

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def feasibility(result: Plan | NoPlan, *, most: int = 12) -> str:
    """Quality of a plan, or the reasons for none; with all failed attempts and remedies.

    Args:
        result: result of flowplan.planner.plan.
        most: maximum number of lines of each kind.
    """
    if isinstance(result, Plan):
        lines = _summary(result)
    else:
        lines = [f"NO PLAN. {result.reason}", *_remedies(result)]
    if result.motion is not None:
        lines += motion_lines(result.motion)
    lines += [f"  assumed    {assumption}" for assumption in result.assumptions]

    # Refusals that differ in their numbers alone count as one.
    refused = Counter(_NUMBER.sub("..", a.reason) for a in result.attempts if a.stage == "rank")
    if refused:
        lines += ["", f"{refused.total()} contacts were refused before any was tried:"]
        lines += [f"  {count:>4}  {reason}" for reason, count in refused.most_common(most)]

    # Attempts that failed later, one a line.
    tried = [a for a in result.attempts if a.stage not in ("planned", "rank")]
    if tried:
        lines += ["", f"{len(tried)} contacts were attempted without success:"]
        lines += [_row("rank", "kind", "stage", "measurements")]
        lines += [_row(str(a.contact), a.kind, a.stage, _measurements(a)) for a in tried[:most]]
        if len(tried) > most:
            lines.append(f"  ... and {len(tried) - most} more")
    return "\n".join(lines)


def _summary(plan: Plan) -> list[str]:
    q = plan.trajectory
    # Errors off the flow, in mm and degrees.
    during = q.phase == Phase.MANIPULATE
    position = 1e3 * q.position_error[during].max()
    rotation = np.rad2deg(q.rotation_error[during].max())
    clearance, worst_time = 1e3 * plan.certificate.clearance, plan.certificate.worst_time
    slip = 1e3 * plan.attachment.slip.max()
    kind, width = plan.contact.kind[0], 1e3 * plan.contact.width[0]
    opening = "" if kind == "push" else f", fingers {width:.0f} mm apart"
    seconds = [
        f"{phase.label} {np.ptp(q.times[q.phase == phase]):.1f} s"
        for phase in Phase
        if (q.phase == phase).any()
    ]
    return [
        f"PLAN. {kind}{opening}",
        f"  time       {q.times[-1]:.1f} s: {', '.join(seconds)}",
        f"  slip       at most {slip:.1f} mm RMS deviation from rigid motion",
        f"  tracking   at most {position:.1f} mm and {rotation:.1f} deg off the flow",
        f"  clearance  at least {clearance:.1f} mm, at {worst_time:.2f} s",
        f"  ending     {_ending(plan)}",
        "  certified by the independent validator",
    ]


def motion_lines(report: MotionReport) -> list[str]:
    """Report on a motion: one line for each object that moves, and one on its speed."""
    lines = []
    for q in report.objects:
        if not q.moves:
            continue
        parts = [f"{q.name}: {1e3 * q.way:.0f} mm"]
        if q.deformable:
            parts.append(f"deformable, stretches {100 * q.strain:.0f} %")
        else:
            parts.append(f"{q.parts} rigid part{'s' * (q.parts != 1)}")
            bent = f"bends {1e3 * q.residual:.1f} mm ({100 * q.residual_share:.0f} % of its way)"
            parts.append(bent + (f", moved {1e3 * q.projected:.0f} mm" if q.projected else ""))
            parts.append(f"comes apart {1e3 * q.tear:.1f} mm")
        if q.penetration_with:
            parts.append(f"overlaps {q.penetration_with} by {1e3 * q.penetration:.1f} mm")
        parts.append(f"ends {1e3 * q.gap:.0f} mm above ground" if q.gap else "ends in contact")
        parts.append(f"jitters {1e3 * q.jitter:.2f} mm")
        lines.append(f"  motion     {', '.join(parts)}")
    limit, asked = report.tool_speed_limit, report.tool_speed
    if limit:
        slower = f"slowed down, or timed anew with timing='fast': the arm reaches {limit:.2f}"
        lines.append(
            f"  speed      up to {asked:.2f} m/s asked, "
            + (f"about {limit:.2f} reached by the arm" if asked <= limit else slower)
        )
    return lines


def _ending(plan: Plan) -> str:
    """State of the hand at the end, and the reason."""
    ending, pushed = plan.ending, plan.contact.kind[0] == "push"
    if ending.released:
        state = "the hand leaves" if pushed else "released"
    else:
        state = "in contact" if pushed else "holding"
    return f"{state}: {ending.reason}" if ending.reason else state


def _remedies(result: NoPlan) -> list[str]:
    """Distinct remedies, the most frequent first."""
    counts = Counter(attempt.remedy for attempt in result.attempts if attempt.remedy)
    return [f"  try: {remedy} ({count} attempts)" for remedy, count in counts.most_common()]


def _measurements(a: Attempt) -> str:
    parts = [a.reason]
    if a.time >= 0:
        parts.append(f"at {a.time:.2f} s of the flow")
    if a.slip >= 0:
        parts.append(f"slip {1e3 * a.slip:.1f} mm")
    if a.reachable >= 0:
        parts.append(f"reach {100 * a.reachable:.0f} %")
    if a.clearance >= 0:
        parts.append(f"clearance {1e3 * a.clearance:.0f} mm")
    return ", ".join(parts)


def _row(rank: str, kind: str, stage: str, text: str) -> str:
    return f"  {rank:>4}  {kind:<6} {stage:<9} {text}"
