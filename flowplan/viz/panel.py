"""Phases, joints against their limits, and the feasibility report, as HTML for page and live view.

Everything is inline: styles are attributes, plots are SVG, nothing is loaded. Elements of the class
`flowplan-now` are lines that stand at the current time.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan.viz import clearance
from flowplan.viz.nodes import evenly
from flowplan.viz.run import Run

PHASE_COLORS = {
    Phase.APPROACH: "#8fb8e8",
    Phase.GRIP: "#f2c14e",
    Phase.MANIPULATE: "#7bc48f",
    Phase.RELEASE: "#f2c14e",
    Phase.RETREAT: "#b8a8dc",
}
MARK = "rgb({}, {}, {})".format(*clearance.COLOR)
"""CSS color of the least clearance."""
NOW = "#111"

_WIDTH, _HEIGHT, _GAP = 300.0, 40.0, 16.0
"""Size of one plot, and the space above it for its title, pixels."""
_LEAST = 220.0
"""Least width of a plot beside another, pixels."""
_NARROW = 0.06
"""Share of the bar below which a phase has no room for its name."""
_POINTS = 400
"""Points of a curve, at most."""
_FONT = "system-ui,sans-serif"


@dataclass(frozen=True)
class Span:
    """One phase on the time bar.

    Attributes:
        phase: the phase.
        start, end: seconds; the end is the start of the next phase.
    """

    phase: Phase
    start: float
    end: float


def phase_spans(trajectory: Trajectory) -> list[Span]:
    """Phases of a trajectory in order, without gaps."""
    present = [Phase(number) for number in np.unique(trajectory.phase)]
    starts = [float(trajectory.times[trajectory.phase == p][0]) for p in present]
    ends = [*starts[1:], float(trajectory.times[-1])]
    return [Span(*span) for span in zip(present, starts, ends, strict=True)]


def phase_bar(run: Run, duration: float) -> str:
    """Bar of the phases over `duration` seconds, with a tick at the least clearance.

    Empty without a trajectory.
    """
    if run.trajectory is None:
        return ""
    pieces = []
    for span in phase_spans(run.trajectory):
        label = span.phase.label
        seconds = f"{label}, {span.start:.2f} to {span.end:.2f} s"
        if span.end - span.start < _NARROW * duration:
            label = ""
        style = (
            f"position:absolute;top:0;height:100%;overflow:hidden;white-space:nowrap;"
            f"text-align:center;left:{_percent(span.start, duration)};"
            f"width:{_percent(span.end - span.start, duration)};"
            f"background:{PHASE_COLORS[span.phase]}"
        )
        pieces.append(f'<span title="{seconds}" style="{style}">{label}</span>')
    if text := clearance.label(run):
        assert run.certificate is not None
        style = (
            "position:absolute;top:-4px;height:calc(100% + 8px);width:3px;margin-left:-1px;"
            f"left:{_percent(run.certificate.worst_time, duration)};background:{MARK}"
        )
        title = html.escape(f"least clearance: {text}")
        pieces.append(f'<span title="{title}" style="{style}"></span>')
    return (
        f'<div style="position:relative;height:14px;font:10px/14px {_FONT};color:#222">'
        f"{''.join(pieces)}</div>"
    )


def joint_plots(run: Run, duration: float) -> str:
    """Plots of every joint's position and velocity against its limits; empty without a trajectory.

    Args:
        run: Trajectory and robot.
        duration: Seconds that the time axis covers.
    """
    if run.trajectory is None or run.robot is None:
        return ""
    plots = "".join(_plots(run.robot, run.trajectory, run, duration))
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 14px">{plots}</div>'


def report_text(run: Run) -> str:
    """The feasibility report as preformatted text; empty if there is none."""
    if not run.report:
        return ""
    style = "margin:0;white-space:pre-wrap;font:11px/1.45 ui-monospace,monospace;color:#222"
    return f'<pre style="{style}">{html.escape(run.report)}</pre>'


def notes(run: Run) -> str:
    """Lines on what could not be shown; empty if there are none."""
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in run.notes)
    return f'<div style="color:#a33;max-width:34em">{lines}</div>' if lines else ""


def _plots(robot: Robot, trajectory: Trajectory, run: Run, duration: float) -> Iterator[str]:
    """One SVG a quantity, of all joints below each other."""
    slides = {joint.name for joint in robot.joints if joint.kind == "prismatic"}
    units = ["m" if name in slides else "rad" for name in robot.joint_names]
    for quantity, values, lower, upper, per in (
        ("position", trajectory.q, robot.lower, robot.upper, ""),
        ("velocity", trajectory.qd, -robot.velocity, robot.velocity, "/s"),
    ):
        curves = [
            _Curve(f"{name} {quantity}", units[i] + per, values[:, i], lower[i], upper[i])
            for i, name in enumerate(robot.joint_names)
        ]
        rows = "".join(_plot(i, curve, run, duration) for i, curve in enumerate(curves))
        height = len(curves) * (_HEIGHT + _GAP)
        now = (
            f'<line class="flowplan-now" x1="0" x2="0" y1="0" y2="{height:g}" stroke="{NOW}" '
            'stroke-width="1"/>'
        )
        yield (
            f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" '
            f'style="flex:1 1 {_LEAST:g}px;max-width:{_WIDTH:g}px;font:9px {_FONT}" '
            f'xmlns="http://www.w3.org/2000/svg">{rows}{now}</svg>'
        )


@dataclass(frozen=True, eq=False)
class _Curve:
    """One quantity of one joint.

    Attributes:
        title: joint and quantity.
        unit: unit of the values.
        values: (S,) at the trajectory's samples.
        lower, upper: limits.
    """

    title: str
    unit: str
    values: FloatArray
    lower: float
    upper: float


def _plot(row: int, curve: _Curve, run: Run, duration: float) -> str:
    """One curve over time: phases behind it, limits dashed, extent and limits in the title."""
    assert run.trajectory is not None
    times, values = run.trajectory.times, curve.values
    top = row * (_HEIGHT + _GAP) + _GAP
    # The limits are in view, with a margin of a twentieth of their distance.
    margin = 0.05 * (curve.upper - curve.lower)
    low, high = curve.lower - margin, curve.upper + margin

    def across(t: float) -> float:
        return _WIDTH * t / max(duration, 1e-9)

    def up(value: float) -> float:
        return float(top + _HEIGHT * (high - value) / max(high - low, 1e-9))

    parts = [
        f'<rect x="{across(s.start):.1f}" y="{top:g}" '
        f'width="{across(s.end) - across(s.start):.1f}" height="{_HEIGHT:g}" '
        f'fill="{PHASE_COLORS[s.phase]}" opacity="0.25"/>'
        for s in phase_spans(run.trajectory)
    ]
    parts += [
        f'<line x1="0" x2="{_WIDTH:g}" y1="{up(limit):.1f}" y2="{up(limit):.1f}" stroke="#c33" '
        'stroke-dasharray="4 3" stroke-width="0.8"/>'
        for limit in (curve.lower, curve.upper)
    ]
    if run.certificate is not None and run.certificate.closest:
        x = across(run.certificate.worst_time)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{top + _HEIGHT:g}" '
            f'stroke="{MARK}" stroke-width="1"/>'
        )
    at = evenly(len(values), _POINTS)
    points = " ".join(f"{across(times[i]):.1f},{up(float(values[i])):.1f}" for i in at)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#1d4ed8" stroke-width="1.2"/>')
    extent = f"{values.min():.2f} to {values.max():.2f} {curve.unit}"
    limits = f"limits {curve.lower:.2f} to {curve.upper:.2f}"
    title = f"{html.escape(curve.title)}: {extent}; {limits}"
    parts.append(f'<text x="0" y="{top - 4:g}" fill="#222">{title}</text>')
    return "".join(parts)


def _percent(seconds: float, duration: float) -> str:
    """Share of a duration, for CSS."""
    return f"{100 * seconds / max(duration, 1e-9):.3f}%"
