"""ros2_control's gripper action controller without ROS: its rules over an injected clock and fingers.

| what happens | what follows |
|---|---|
| the opening is within `goal_tolerance` of the command | SUCCEEDED, reached_goal |
| the fingers have stood still for `stall_timeout` elsewhere | stalled: SUCCEEDED if `allow_stalling`, else ABORTED |
| the client cancels | CANCELED; the fingers hold where they are |
| another goal is accepted | ABORTED; the real one tries CANCELED, which ROS refuses where nobody asked for it |
| the controller is deactivated | ABORTED; goals are rejected |

Fingers that close on a thing stall, so with `allow_stalling` a grasp is `stalled`, and `reached_goal` means that there
was nothing between them. Position is the gap between the fingertips in metres, as control_msgs has it; some drivers mean
the position of one finger's joint instead.
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
    """What the gripper controller drives."""

    def opening(self) -> float:
        """Measured gap, metres."""

    def effort(self) -> float:
        """Newtons the fingers press with."""

    def command(self, opening: float, effort: float) -> None:
        """Go to a gap, metres, pressing with no more than `effort` newtons."""


@dataclass(frozen=True)
class GripperOptions:
    """Parameters of the controller, by ros2_control's names."""

    goal_tolerance: Annotated[float, Interval(1e-5, 0.1)] = 0.002
    """Metres the opening may be off when it counts as reached."""
    stall_velocity_threshold: Annotated[float, Interval(1e-5, 1)] = 0.001
    """Metres per second below which the fingers count as standing."""
    stall_timeout: Annotated[float, Interval(0.01, 60)] = 0.25
    """Seconds of standing that make a stall."""
    allow_stalling: bool = True
    """A stall is a success: the way to grasp things. ros2_control's default is that it is not."""
    max_effort: Annotated[float, Interval(0.1, 1000)] = 70.0
    """Newtons, for goals that name none, and the most for those that do."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(eq=False)
class GripperHandle:
    """A goal that was accepted, and what has become of it.

    Attributes:
        position: gap asked for, metres.
        max_effort: newtons.
        status: as for trajectories.
        stalled: the fingers stood still elsewhere than asked.
        reached_goal: they are where they were asked to be.
        opening: metres, as of the last update.
        effort: newtons, as of the last update.
    """

    position: float
    max_effort: float
    status: Status = Status.EXECUTING
    stalled: bool = False
    reached_goal: bool = False
    opening: float = 0.0
    effort: float = 0.0


class GripperController:
    """One gripper. Every method must be called from one thread at a time.

    Attributes:
        options: parameters.
        active: whether it drives the fingers and takes goals.
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
        """Take over, holding the fingers where they are."""
        self._target, self._effort = self._fingers.opening(), self.options.max_effort
        self.active = True

    def deactivate(self) -> None:
        """Abort the goal, if there is one, and leave the fingers with their last command."""
        self._end(Status.ABORTED)
        self.active = False

    def reason_to_reject(self, position: float, max_effort: float) -> str:
        """Why a goal would be rejected now; empty if it would not."""
        if not self.active:
            return "the controller is not active"
        if not np.isfinite(position):
            return f"command.position: expected metres, got {position}"
        if not (np.isfinite(max_effort) and max_effort >= 0):
            return f"command.max_effort: expected newtons, or 0 for the gripper's own, got {max_effort}"
        return ""

    def accept(self, position: float, max_effort: float = 0.0) -> GripperHandle:
        """Drive the fingers `position` metres apart with at most `max_effort` newtons; 0 for the gripper's own.

        Raises:
            ValueError: when it is to be rejected; a goal under way then goes on.
        """
        reason = self.reason_to_reject(position, max_effort)
        if reason:
            raise ValueError(reason)
        self._end(Status.ABORTED)
        limit = self.options.max_effort
        self._target, self._effort = float(position), min(float(max_effort) or limit, limit)
        self._handle = GripperHandle(self._target, self._effort, opening=self._opening)
        self._last_movement = self._clock()
        return self._handle

    def cancel(self, handle: GripperHandle) -> None:
        """Stop a goal; one that has ended already stays as it is."""
        if handle is self._handle:
            self._target = self._opening
            self._end(Status.CANCELED)

    def update(self) -> None:
        """One cycle of control."""
        if not self.active:
            return
        now, opening = self._clock(), self._fingers.opening()
        if self._last_update is not None and now > self._last_update:
            speed = abs(opening - self._opening) / (now - self._last_update)
            if speed > self.options.stall_velocity_threshold:
                self._last_movement = now
        self._last_update, self._opening = now, opening
        self._fingers.command(self._target, self._effort)
        self._judge(now)

    def _judge(self, now: float) -> None:
        if self._handle is None:
            return
        handle = self._handle
        handle.opening, handle.effort = self._opening, self._fingers.effort()
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
