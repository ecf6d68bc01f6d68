"""Options of an execution: when a plan may be executed, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class ExecutionOptions:
    """Conditions for executing a plan, and for stopping it."""

    velocity_scaling: Annotated[float, Interval(0.01, 1)] = 1.0
    """Largest share of the planned speed. A goal may ask for less, not for more: the plan was
    certified at its own speed."""
    dry_run: bool = False
    """Show every plan and move nothing, whatever the goal says."""
    confirm: bool = True
    """Wait for the operator to confirm each plan (service `~/confirm`) before anything moves."""
    confirm_timeout: Annotated[float, Interval(1, 3600)] = 60.0
    """Seconds to wait for the operator."""
    max_age: Annotated[float, Interval(1, 86_400)] = 120.0
    """Seconds after its certification for which a plan is valid: obstacles may have moved since."""
    start_tolerance: Annotated[float, Interval(1e-4, 0.2)] = 0.01
    """Largest joint deviation from the start of a motion, radians or meters."""
    lead_in: Annotated[float, Interval(0.02, 5)] = 0.2
    """Seconds to move from the measured state to the first point, so that the target never
    jumps."""
    response_timeout: Annotated[float, Interval(0.1, 60)] = 1.0
    """Seconds in which a controller must answer a goal."""
    state_timeout: Annotated[float, Interval(0.05, 10)] = 0.5
    """Seconds without joint states, or without a controller's feedback, until a motion is
    stopped."""
    watchdog_factor: Annotated[float, Interval(1, 10)] = 1.1
    """Multiple of its planned duration that a motion may take, plus the slack."""
    watchdog_slack: Annotated[float, Interval(0, 60)] = 0.5
    """Seconds that a motion may take beyond that."""
    stop_timeout: Annotated[float, Interval(0.1, 10)] = 1.0
    """Seconds to wait for a controller to report that it has stopped."""
    gripper_timeout: Annotated[float, Interval(0.1, 60)] = 5.0
    """Seconds in which the fingers must arrive."""
    opening_tolerance: Annotated[float, Interval(1e-4, 0.05)] = 0.005
    """Largest deviation of the fingers from the commanded opening, meters."""
    min_grasp: Annotated[float, Interval(0, 0.1)] = 0.002
    """Opening below which the fingers closed on nothing, meters; 0 for objects as thin as cloth."""

    def __post_init__(self) -> None:
        bounds.check(self)
