"""Rules of ros2_control's gripper action controller, without ROS, over an injected clock and
fingers.

| event | result |
|---|---|
| the opening is within `goal_tolerance` of the command | SUCCEEDED, reached_goal |
| fingers at rest elsewhere for `stall_timeout` | stalled: SUCCEEDED or ABORTED (`allow_stalling`) |
| the client cancels | CANCELED; the fingers hold |
| another goal is accepted | ABORTED; the real one tries CANCELED, which ROS refuses |
| the controller is deactivated | ABORTED; goals are rejected |

Fingers that close on an object stall: with `allow_stalling` a grasp is `stalled`, and
`reached_goal` means that nothing was between them. Position is the gap between the fingertips in
meters, as in control_msgs; some drivers use the position of one finger's joint instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan_sim_hw.trajectory_controller import Status


class Fingers(Protocol):
    """Fingers that the controller drives."""

    def opening(self) -> float:
        """Measured gap, meters."""

    def effort(self) -> float:
        """Force of the fingers, newtons."""

    def command(self, opening: float, effort: float) -> None:
        """Move to a gap (meters) with at most `effort` newtons."""


@dataclass(frozen=True)
class GripperOptions:
    """Parameters of the controller, with ros2_control's names."""

    goal_tolerance: Annotated[float, Interval(1e-5, 0.1)] = 0.002
    """Deviation of the opening that counts as reached, meters."""
    stall_velocity_threshold: Annotated[float, Interval(1e-5, 1)] = 0.001
    """Speed of fingers at rest, m/s."""
    stall_timeout: Annotated[float, Interval(0.01, 60)] = 0.25
    """Time at rest that makes a stall, seconds."""
    allow_stalling: bool = True
    """A stall is a success, as for grasps. ros2_control's default is False."""
    max_effort: Annotated[float, Interval(0.1, 1000)] = 70.0
    """Effort of goals that name none, and the largest of those that do, newtons."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(eq=False)
class GripperHandle:
    """Accepted goal and its state.

    Attributes:
        position: requested gap, meters.
        max_effort: newtons.
        status: as for trajectories.
        stalled: the fingers came to rest elsewhere than requested.
        reached_goal: the fingers are at the requested gap.
        opening: gap at the last update, meters.
        effort: force at the last update, newtons.
    """

    position: float
    max_effort: float
    status: Status = Status.EXECUTING
    stalled: bool = False
    reached_goal: bool = False
    opening: float = 0.0
    effort: float = 0.0


class GripperController:
    """One gripper. All methods must be called from one thread at a time.

    Attributes:
        options: parameters.
        active: True while it drives the fingers and accepts goals.
    """

    def __init__(
        self,
        fingers: Fingers,
        clock: Callable[[], float],
        options: GripperOptions = GripperOptions(),
    ) -> None:
        self.options = options
        self.active = False
        self._fingers, self._clock = fingers, clock
        self._handle: GripperHandle | None = None
        self._opening = fingers.opening()
        self._target, self._effort = self._opening, options.max_effort
        self._last_update: float | None = None
        self._last_movement = clock()

    def activate(self) -> None:
        """Take over, holding the fingers."""
        self._target, self._effort = self._fingers.opening(), self.options.max_effort
        self.active = True

    def deactivate(self) -> None:
        """Abort a goal, and leave the fingers with their last command."""
        self._end(Status.ABORTED)
        self.active = False

    def reason_to_reject(self, position: float, max_effort: float) -> str:
        """Reason to reject a goal now; empty if there is none."""
        if not self.active:
            return "the controller is not active"
        if not np.isfinite(position):
            return f"command.position: expected meters, got {position}"
        if not (np.isfinite(max_effort) and max_effort >= 0):
            expected = "newtons, or 0 for the gripper's own"
            return f"command.max_effort: expected {expected}, got {max_effort}"
        return ""

    def accept(self, position: float, max_effort: float = 0.0) -> GripperHandle:
        """Drive the fingers to `position` meters with at most `max_effort` newtons; 0 for the
        gripper's own.

        Raises:
            ValueError: if it is rejected; a goal under way then goes on.
        """
        reason = self.reason_to_reject(position, max_effort)
        if reason:
            raise ValueError(reason)
        self._end(Status.ABORTED)
        # Zero effort asks for the gripper's own; no goal exceeds it.
        limit = self.options.max_effort
        self._target, self._effort = float(position), min(float(max_effort) or limit, limit)
        self._handle = GripperHandle(self._target, self._effort, opening=self._opening)
        self._last_movement = self._clock()
        return self._handle

    def cancel(self, handle: GripperHandle) -> None:
        """Stop a goal; one that has ended stays as it is."""
        if handle is self._handle:
            self._target = self._opening
            self._end(Status.CANCELED)

    def update(self) -> None:
        """One control cycle."""
        if not self.active:
            return
        # Speed since the last update: slow fingers may be stalled.
        now, opening = self._clock(), self._fingers.opening()
        if self._last_update is not None and now > self._last_update:
            speed = abs(opening - self._opening) / (now - self._last_update)
            if speed > self.options.stall_velocity_threshold:
                self._last_movement = now
        # Command, then compare.
        self._last_update, self._opening = now, opening
        self._fingers.command(self._target, self._effort)
        self._judge(now)

    def _judge(self, now: float) -> None:
        if self._handle is None:
            return
        handle = self._handle
        handle.opening, handle.effort = self._opening, self._fingers.effort()
        # Arrived, or at rest elsewhere for too long.
        if abs(self._target - self._opening) < self.options.goal_tolerance:
            handle.reached_goal = True
            self._end(Status.SUCCEEDED)
        elif now - self._last_movement > self.options.stall_timeout:
            handle.stalled = True
            self._end(Status.SUCCEEDED if self.options.allow_stalling else Status.ABORTED)

    def _end(self, status: Status) -> None:
        if self._handle is not None:
            self._handle.status = status
            self._handle = None
