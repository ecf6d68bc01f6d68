"""ros2_control's `joint_trajectory_controller` without ROS: its rules over an injected clock and plant.

Each update samples the trajectory twice: at now, to compare with what is measured, and one period later, to command.

| what happens | what follows |
|---|---|
| a joint leaves its path tolerance on the way | ABORTED, PATH_TOLERANCE_VIOLATED; the arm holds where it is |
| the end has come and every joint is within its goal tolerance | SUCCEEDED; the arm holds the last waypoint |
| it is not, `goal_time` after the end | ABORTED, GOAL_TOLERANCE_VIOLATED; the arm holds where it is |
| the same, but `goal_time` is 0 | nothing, for ever |
| the client cancels | CANCELED, whose error code is 0; the arm holds where it is |
| another goal is accepted | ABORTED, INVALID_GOAL; the new one starts from the measured state |
| the controller is deactivated | ABORTED, INVALID_GOAL; goals are rejected |

This is the behaviour from Humble to Kilted, where a new goal replaces the old one entirely, of a controller that commands
positions, or positions and velocities. Left out are PID gains, effort, speed scaling, joints without limits that wrap
around, `cmd_timeout`, `decelerate_on_cancel`, and trajectories that come by topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Protocol

import numpy as np

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan_sim_hw.timeline import JointState, Timeline
from flowplan_sim_hw.trajectory_goal import (
    EPSILON,
    GOAL_TOLERANCE_VIOLATED,
    INVALID_GOAL,
    PATH_TOLERANCE_VIOLATED,
    SUCCESSFUL,
    GoalRules,
    Tolerance,
    TrajectoryGoal,
    Waypoint,
    reason_to_reject,
)


class Plant(Protocol):
    """The joints, in the controller's order."""

    def state(self) -> tuple[FloatArray, FloatArray]:
        """Measured positions (J,) and velocities (J,)."""

    def command(self, positions: FloatArray, velocities: FloatArray) -> None:
        """Where the joints should be at the next update, and how fast; velocities are 0 under position control."""


class Status(Enum):
    """Of a goal."""

    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    ABORTED = "aborted"


@dataclass(frozen=True)
class ControllerOptions:
    """Parameters of the controller, by ros2_control's names."""

    command_velocities: bool = False
    """The hardware takes velocities beside positions. Only then do velocity tolerances count."""
    interpolate_from_desired_state: bool = False
    """A new trajectory starts from what was last commanded, not from what is measured."""
    splines: bool = True
    """Interpolate; otherwise the target jumps to each waypoint in turn."""
    goal_time: Annotated[float, Interval(0, 3600)] = 0.0
    """Seconds after the end within which the joints must be there; 0 waits for ever."""
    stopped_velocity_tolerance: Annotated[float, Interval(0, 10)] = 0.01
    """Velocity that counts as standing at the end, rad/s; 0 for any."""
    trajectory: Annotated[float, Interval(0, 10)] = 0.0
    """Radians a joint may be off on the way; 0 for any."""
    goal: Annotated[float, Interval(0, 10)] = 0.0
    """Radians a joint may be off at the end; 0 for any."""
    rules: GoalRules = field(default_factory=GoalRules)
    """Which goals are taken."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class Feedback:
    """Of a goal, after an update.

    Attributes:
        time: seconds of the controller's clock.
        elapsed: seconds since the trajectory's start.
        desired: what the trajectory says.
        actual: what is measured; no accelerations.
        error: desired - actual, in what the tolerances are applied to.
        index: of the waypoint that comes next.
    """

    time: float
    elapsed: float
    desired: JointState
    actual: JointState
    error: JointState
    index: int


@dataclass(eq=False)
class GoalHandle:
    """A goal that was accepted, and what has become of it."""

    goal: TrajectoryGoal
    status: Status = Status.EXECUTING
    error_code: int = SUCCESSFUL
    error_string: str = ""
    feedback: Feedback | None = None

    def end(self, status: Status, error_code: int = SUCCESSFUL, error_string: str = "") -> None:
        """Make it terminal; the status comes last, for who looks at it from another thread."""
        self.error_code, self.error_string = error_code, error_string
        self.status = status


@dataclass(frozen=True, eq=False)
class _Limits:
    """Resolved tolerances: (J,) each, 0 for no limit."""

    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray

    def violated(self, error: JointState) -> FloatArray:
        """(J,) by which factor each joint is beyond its limits; 0 within them."""
        worst = np.zeros(len(self.position))
        for limit, value in (
            (self.position, error.positions),
            (self.velocity, error.velocities),
            (self.acceleration, error.accelerations),
        ):
            beyond = (limit > 0) & (np.abs(value) > limit)
            worst[beyond] = np.maximum(worst, np.abs(value) / np.where(limit > 0, limit, 1.0))[
                beyond
            ]
        return worst


@dataclass(frozen=True, eq=False)
class _Pursuit:
    """A goal that is being followed, and what applies to it."""

    handle: GoalHandle
    path: _Limits
    goal: _Limits
    goal_time: float


@dataclass(eq=False)
class _Motion:
    """A trajectory on its way: to be followed from the next update on, then followed.

    Attributes:
        waypoints: for all joints, in the controller's order; all there is to a motion that only holds.
        start: seconds; None for when it is first followed.
        pursuit: whose it is; None while holding: a stand is not checked.
        timeline: None until it is first followed.
    """

    waypoints: list[Waypoint]
    start: float | None = None
    pursuit: _Pursuit | None = None
    timeline: Timeline | None = None


class TrajectoryController:
    """One controller. Every method must be called from one thread at a time.

    Attributes:
        joint_names: J names.
        options: parameters.
        active: whether it controls the plant and takes goals.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        plant: Plant,
        clock: Callable[[], float],
        options: ControllerOptions = ControllerOptions(),
        *,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """A controller that is not active yet.

        Args:
            joint_names: in the plant's order.
            plant: what is controlled.
            clock: seconds.
            options: parameters.
            warn: told in one line what a client should know but does not fail for.
        """
        self.joint_names = tuple(joint_names)
        self.options = options
        self.active = False
        self._plant, self._clock, self._warn = plant, clock, warn
        self._actual, self._velocity = plant.state()
        self._commanded = Waypoint(0.0, self._actual, self._velocity)
        self._motion = self._hold(self._actual)
        self._handle: GoalHandle | None = None

    def activate(self) -> None:
        """Take over, holding where the joints are."""
        self._actual, self._velocity = self._plant.state()
        self._commanded = Waypoint(0.0, self._actual, np.zeros(len(self._actual)))
        self._motion = self._hold(self._actual)
        self.active = True

    def deactivate(self) -> None:
        """Abort the goal, if there is one, and leave the plant with its last command."""
        self._end(
            Status.ABORTED, INVALID_GOAL, "Current goal cancelled during deactivate transition."
        )
        self.active = False

    def reason_to_reject(self, goal: TrajectoryGoal) -> str:
        """Why a goal would be rejected now; empty if it would not."""
        if not self.active:
            return "the controller is not active"
        return reason_to_reject(goal, self.joint_names, self._clock(), self.options.rules)

    def accept(self, goal: TrajectoryGoal) -> GoalHandle:
        """Follow a goal from the next update on; one that is under way is preempted.

        Raises:
            ValueError: when it is to be rejected; a goal under way then goes on.
        """
        reason = self.reason_to_reject(goal)
        if reason:
            raise ValueError(reason)
        self._end(Status.ABORTED, INVALID_GOAL, "Current goal preempted by new incoming action.")
        handle = GoalHandle(goal)
        self._motion = _Motion(self._in_own_order(goal), goal.start, self._pursuit_of(handle))
        self._handle = handle
        return handle

    def cancel(self, handle: GoalHandle) -> None:
        """Stop a goal; one that has ended already stays as it is."""
        if handle is self._handle:
            self._end(Status.CANCELED)
            self._motion = self._hold(self._actual)

    def update(self, period: float) -> None:
        """One cycle of control: measure, compare, command.

        Args:
            period: seconds until the next one.
        """
        if not self.active:
            return
        now, motion = self._clock(), self._motion
        self._actual, self._velocity = self._plant.state()
        first = motion.timeline is None
        timeline = motion.timeline = motion.timeline or self._begin(motion, now)
        here, next_ = timeline.at(now), timeline.at(now + period)
        underway = next_.following < len(motion.waypoints)
        error = self._error(here.state)
        pursuit = motion.pursuit
        if pursuit is not None:
            actual = JointState(self._actual, self._velocity, np.zeros(len(self._actual)))
            pursuit.handle.feedback = Feedback(
                now, now - timeline.start, here.state, actual, error, here.following
            )
            # A trajectory may be over when it is first looked at: even then the way there is checked once.
            if (underway or first) and self._off_the_path(pursuit, error):
                return
            if not underway and self._at_the_end(
                pursuit, timeline.last, error, next_.since - period
            ):
                return
        self._commanded = Waypoint(0.0, next_.state.positions, next_.state.velocities)
        velocities = (
            next_.state.velocities
            if self.options.command_velocities
            else np.zeros(len(self._actual))
        )
        self._plant.command(next_.state.positions, velocities)

    def _off_the_path(self, pursuit: _Pursuit, error: JointState) -> bool:
        off = pursuit.path.violated(error)
        if not off.any():
            return False
        text = f"Aborted due to path tolerance violation of {self._describe(off, error)}"
        self._end(Status.ABORTED, PATH_TOLERANCE_VIOLATED, text)
        self._motion = self._hold(self._actual)
        return True

    def _at_the_end(
        self, pursuit: _Pursuit, last: Waypoint, error: JointState, late: float
    ) -> bool:
        """Judge a trajectory that is over since `late` seconds; whether this update must not command any more."""
        off = pursuit.goal.violated(error)
        if not off.any():
            self._end(Status.SUCCEEDED, error_string="Goal successfully reached!")
            self._motion = self._hold(last.positions, last.velocities)
        elif pursuit.goal_time > 0 and late > pursuit.goal_time:
            text = f"Aborted due to goal_time_tolerance exceeding by {late:f} seconds: {self._describe(off, error)}"
            self._end(Status.ABORTED, GOAL_TOLERANCE_VIOLATED, text)
            self._motion = self._hold(self._actual)
            return True
        return False

    def _describe(self, off: FloatArray, error: JointState) -> str:
        j = int(np.argmax(off))
        return f"{self.joint_names[j]}, off by {error.positions[j]:.4f} and {error.velocities[j]:.4f} a second"

    def _end(self, status: Status, error_code: int = SUCCESSFUL, error_string: str = "") -> None:
        if self._handle is not None:
            self._handle.end(status, error_code, error_string)
            self._handle = None

    def _hold(self, positions: FloatArray, velocities: FloatArray | None = None) -> _Motion:
        return _Motion(
            [
                Waypoint(
                    0.0, positions, np.zeros(len(positions)) if velocities is None else velocities
                )
            ]
        )

    def _begin(self, motion: _Motion, now: float) -> Timeline:
        before = Waypoint(0.0, self._actual, self._velocity)
        if self.options.interpolate_from_desired_state:
            before = self._commanded
        return Timeline(now, before, motion.waypoints, motion.start, splines=self.options.splines)

    def _error(self, desired: JointState) -> JointState:
        zeros = np.zeros(len(self._actual))
        velocities = (
            desired.velocities - self._velocity if self.options.command_velocities else zeros
        )
        return JointState(desired.positions - self._actual, velocities, zeros)

    def _in_own_order(self, goal: TrajectoryGoal) -> list[Waypoint]:
        """The goal's waypoints for all joints of the controller, in its order."""
        columns = [self.joint_names.index(name) for name in goal.joint_names]
        J = len(self.joint_names)

        def spread(given: FloatArray, others: FloatArray) -> FloatArray:
            if not len(given):
                return given
            out = others.copy()
            out[columns] = given
            return out

        still = np.zeros(J)
        return [
            Waypoint(
                point.time,
                spread(point.positions, self._commanded.positions),
                spread(point.velocities, still),
                spread(point.accelerations, still),
            )
            for point in goal.waypoints
        ]

    def _pursuit_of(self, handle: GoalHandle) -> _Pursuit:
        """The goal's tolerances over the controller's own; its own alone where the goal's make no sense."""
        goal, options, zeros = handle.goal, self.options, np.zeros(len(self.joint_names))
        path = _Limits(zeros + options.trajectory, zeros, zeros)
        end = _Limits(zeros + options.goal, zeros + options.stopped_velocity_tolerance, zeros)
        default = _Pursuit(handle, path, end, options.goal_time)
        try:
            return _Pursuit(
                handle,
                self._resolve(path, goal.path_tolerance, "path_tolerance"),
                self._resolve(end, goal.goal_tolerance, "goal_tolerance"),
                _either(options.goal_time, goal.goal_time_tolerance, "goal_time_tolerance"),
            )
        except ValueError as error:
            self._warn(f"{error}; the controller's default tolerances apply to the whole goal")
            return default

    def _resolve(self, default: _Limits, asked: Mapping[str, Tolerance], name: str) -> _Limits:
        limits = {
            part: getattr(default, part).copy() for part in ("position", "velocity", "acceleration")
        }
        for joint, tolerance in asked.items():
            if joint not in self.joint_names:
                raise ValueError(f"{name}: {joint!r} is not one of the controller's joints")
            j = self.joint_names.index(joint)
            for part, values in limits.items():
                values[j] = _either(values[j], getattr(tolerance, part), f"{name}[{joint}].{part}")
        return _Limits(**limits)


def _either(default: float, asked: float, name: str) -> float:
    """The limit that holds where a goal asks for `asked`; 0 for none."""
    if asked > 0:
        return float(asked)
    if asked == 0:
        return float(default)
    if abs(asked + 1) < EPSILON:
        return 0.0
    raise ValueError(
        f"{name}: got {asked:g}, expected a positive limit, 0 for the default or -1 for none"
    )
