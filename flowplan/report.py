"""What a plan is worth, in words: a feasibility report for people, before anything moves."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from flowplan.planner import Attempt, NoPlan, Plan
from flowplan.trajectory import Phase

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def feasibility(result: Plan | NoPlan, *, most: int = 12) -> str:
    """Slip, reach, clearance and limits of a plan, or where and why each attempt ended and what to try.

    Args:
        result: of flowplan.planner.plan.
        most: lines of each kind.
    """
    lines = (
        _summary(result)
        if isinstance(result, Plan)
        else [f"NO PLAN. {result.reason}", *_remedies(result)]
    )
    tried = [a for a in result.attempts if a.stage not in ("planned", "rank")]
    refused = Counter(_NUMBER.sub("..", a.reason) for a in result.attempts if a.stage == "rank")
    if refused:
        lines += ["", f"{refused.total()} contacts were refused before any was tried:"]
        lines += [f"  {count:>4}  {reason}" for reason, count in refused.most_common(most)]
    if tried:
        lines += ["", f"{len(tried)} contacts were tried in vain:"]
        lines += [_row("rank", "kind", "stage", "what was measured")]
        lines += [_row(str(a.contact), a.kind, a.stage, _measured(a)) for a in tried[:most]]
        if len(tried) > most:
            lines.append(f"  ... and {len(tried) - most} more")
    return "\n".join(lines)


def _summary(plan: Plan) -> list[str]:
    q = plan.trajectory
    during = q.phase == Phase.MANIPULATE
    kind, width = plan.contact.kind[0], 1e3 * plan.contact.width[0]
    seconds = [
        f"{phase.label} {np.ptp(q.times[q.phase == phase]):.1f} s"
        for phase in Phase
        if (q.phase == phase).any()
    ]
    return [
        f"PLAN. {kind}" + (f", fingers {width:.0f} mm apart" if kind != "push" else ""),
        f"  time       {q.times[-1]:.1f} s: " + ", ".join(seconds),
        f"  slip       {1e3 * plan.attachment.slip.max():.1f} mm RMS at most: how untrue a rigid hold is",
        f"  tracking   {1e3 * q.position_error[during].max():.1f} mm, {np.rad2deg(q.rotation_error[during].max()):.1f} deg"
        " at most off what the flow asks",
        f"  clearance  {1e3 * plan.certificate.clearance:.1f} mm at least, at {plan.certificate.worst_time:.2f} s",
        "  certified by the independent validator",
    ]


def _remedies(result: NoPlan) -> list[str]:
    seen: dict[str, int] = {}
    for attempt in result.attempts:
        if attempt.remedy:
            seen[attempt.remedy] = seen.get(attempt.remedy, 0) + 1
    return [
        f"  try: {remedy} ({count} attempts)"
        for remedy, count in sorted(seen.items(), key=lambda item: -item[1])
    ]


def _measured(a: Attempt) -> str:
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
