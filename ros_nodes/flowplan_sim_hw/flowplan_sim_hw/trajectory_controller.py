"""Rules of ros2_control's `joint_trajectory_controller`, without ROS, over an injected clock and
plant.

Each update samples the trajectory twice: now, to compare with the measured state, and one period
later, to command.

| event | result |
|---|---|
| a joint leaves its path tolerance | ABORTED, PATH_TOLERANCE_VIOLATED; the arm holds |
| at the end every joint is within its goal tolerance | SUCCEEDED; the arm holds the last waypoint |
| it is not, `goal_time` after the end | ABORTED, GOAL_TOLERANCE_VIOLATED; the arm holds |
| the same, but `goal_time` is 0 | nothing, forever |
| the client cancels | CANCELED with error code 0; the arm holds |
| another goal is accepted | ABORTED, INVALID_GOAL; the new one starts from the measured state |
| the controller is deactivated | ABORTED, INVALID_GOAL; goals are rejected |

This is the behavior from Humble to Kilted, where a new goal replaces the old one entirely, of a
controller that commands positions, or positions and velocities. Left out are PID gains, effort,
speed scaling, continuous joints, `cmd_timeout`, `decelerate_on_cancel`, and trajectories by topic.
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
    """Joints in the controller's order."""

    def state(self) -> tuple[FloatArray, FloatArray]:
        """Measured positions (J,) and velocities (J,)."""

    def command(self, positions: FloatArray, velocities: FloatArray) -> None:
        """Command positions and velocities for the next update; velocities are 0 under position
        control."""


class Status(Enum):
    """Status of a goal."""

    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"
    ABORTED = "aborted"


@dataclass(frozen=True)
class ControllerOptions:
    """Parameters of the controller, with ros2_control's names."""

    command_velocities: bool = False
    """The hardware takes velocities beside positions. Only then velocity tolerances count."""
    interpolate_from_desired_state: bool = False
    """A new trajectory starts from the last command, not from the measured state."""
    splines: bool = True
    """Interpolate; otherwise the target jumps to each waypoint."""
    goal_time: Annotated[float, Interval(0, 3600)] = 0.0
    """Seconds after the end in which the joints must arrive; 0 waits forever."""
    stopped_velocity_tolerance: Annotated[float, Interval(0, 10)] = 0.01
    """Speed of a joint at rest at the end, rad/s; 0 for any."""
    trajectory: Annotated[float, Interval(0, 10)] = 0.0
    """Path tolerance of a joint, rad; 0 for any."""
    goal: Annotated[float, Interval(0, 10)] = 0.0
    """Goal tolerance of a joint, rad; 0 for any."""
    rules: GoalRules = field(default_factory=GoalRules)
    """Rules for accepting goals."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class Feedback:
    """Feedback of a goal after an update.

    Attributes:
        time: seconds of the controller's clock.
        elapsed: seconds since the trajectory's start.
        desired: desired state.
        actual: measured state, without accelerations.
        error: desired - actual, of the quantities with tolerances.
        index: index of the next waypoint.
    """

    time: float
    elapsed: float
    desired: JointState
    actual: JointState
    error: JointState
    index: int


@dataclass(eq=False)
class GoalHandle:
    """Accepted goal and its state."""

    goal: TrajectoryGoal
    status: Status = Status.EXECUTING
    error_code: int = SUCCESSFUL
    error_string: str = ""
    feedback: Feedback | None = None

    def end(self, status: Status, error_code: int = SUCCESSFUL, error_string: str = "") -> None:
        """End the goal; the status is set last, for readers in other threads."""
        self.error_code, self.error_string = error_code, error_string
        self.status = status


@dataclass(frozen=True, eq=False)
class _Limits:
    """Resolved tolerances: (J,) each, 0 for no limit."""

    position: FloatArray
    velocity: FloatArray
    acceleration: FloatArray

    def violated(self, error: JointState) -> FloatArray:
        """Factor (J,) by which each joint exceeds its limits; 0 within them."""
        worst = np.zeros(len(self.position))
        for limit, value in (
            (self.position, error.positions),
            (self.velocity, error.velocities),
            (self.acceleration, error.accelerations),
        ):
            size = np.abs(value)
            beyond = (limit > 0) & (size > limit)
            # A limit of 0 is none: its factor is not used.
            factor = size / np.where(limit > 0, limit, 1.0)
            worst[beyond] = np.maximum(worst, factor)[beyond]
        return worst


@dataclass(frozen=True, eq=False)
class _Pursuit:
    """Goal that is being followed, and its tolerances."""

    handle: GoalHandle
    path: _Limits
    goal: _Limits
    goal_time: float


@dataclass(eq=False)
class _Motion:
    """Trajectory to be followed from the next update on, or under way.

    Attributes:
        waypoints: waypoints of all joints, in the controller's order.
        start: start time, seconds; None for the next update.
        pursuit: its goal; None while holding, which is not checked.
        timeline: None before the first update.
    """

    waypoints: list[Waypoint]
    start: float | None = None
    pursuit: _Pursuit | None = None
    timeline: Timeline | None = None


class TrajectoryController:
    """One controller. All methods must be called from one thread at a time.

    Attributes:
        joint_names: names of the J joints.
        options: parameters.
        active: True while it controls the plant and accepts goals.
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
            joint_names: names in the plant's order.
            plant: controlled joints.
            clock: clock, seconds.
            options: parameters.
            warn: callback with a line that a client should know but does not fail for.
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
        """Take over, holding the joints."""
        self._actual, self._velocity = self._plant.state()
        self._commanded = Waypoint(0.0, self._actual, np.zeros(len(self._actual)))
        self._motion = self._hold(self._actual)
        self.active = True

    def deactivate(self) -> None:
        """Abort a goal, and leave the plant with its last command."""
        self._end(
            Status.ABORTED, INVALID_GOAL, "Current goal canceled during deactivate transition."
        )
        self.active = False

    def reason_to_reject(self, goal: TrajectoryGoal) -> str:
        """Reason to reject a goal now; empty if there is none."""
        if not self.active:
            return "the controller is not active"
        return reason_to_reject(goal, self.joint_names, self._clock(), self.options.rules)

    def accept(self, goal: TrajectoryGoal) -> GoalHandle:
        """Follow a goal from the next update on; it preempts one under way.

        Raises:
            ValueError: if it is rejected; a goal under way then goes on.
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
        """Stop a goal; one that has ended stays as it is."""
        if handle is self._handle:
            self._end(Status.CANCELED)
            self._motion = self._hold(self._actual)

    def update(self, period: float) -> None:
        """One control cycle: measure, compare, command.

        Args:
            period: seconds to the next one.
        """
        if not self.active:
            return
        # Measure, and sample the trajectory now and one period later.
        now, motion = self._clock(), self._motion
        self._actual, self._velocity = self._plant.state()
        first = motion.timeline is None
        timeline = motion.timeline = motion.timeline or self._begin(motion, now)
        here, next_ = timeline.at(now), timeline.at(now + period)
        # Over once no waypoint follows the next sample.
        underway = next_.following < len(motion.waypoints)
        # Compare with the goal, if there is one: path, then end.
        error = self._error(here.state)
        pursuit = motion.pursuit
        if pursuit is not None:
            actual = JointState(self._actual, self._velocity, np.zeros(len(self._actual)))
            pursuit.handle.feedback = Feedback(
                now, now - timeline.start, here.state, actual, error, here.following
            )
            # A trajectory may be over at its first update: its path is still checked once.
            if (underway or first) and self._off_the_path(pursuit, error):
                return
            if not underway and self._at_the_end(
                pursuit, timeline.last, error, next_.since - period
            ):
                return
        # Command the state of the next update.
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
        # The worst joint explains the violation.
        text = f"Aborted due to path tolerance violation of {self._describe(off, error)}"
        self._end(Status.ABORTED, PATH_TOLERANCE_VIOLATED, text)
        self._motion = self._hold(self._actual)
        return True

    def _at_the_end(
        self, pursuit: _Pursuit, last: Waypoint, error: JointState, late: float
    ) -> bool:
        """Check a trajectory that is over since `late` seconds; True if this update must not
        command."""
        off = pursuit.goal.violated(error)
        if not off.any():
            self._end(Status.SUCCEEDED, error_string="Goal successfully reached!")
            self._motion = self._hold(last.positions, last.velocities)
        elif pursuit.goal_time > 0 and late > pursuit.goal_time:
            what = self._describe(off, error)
            text = f"Aborted due to goal_time_tolerance exceeding by {late:f} seconds: {what}"
            self._end(Status.ABORTED, GOAL_TOLERANCE_VIOLATED, text)
            self._motion = self._hold(self._actual)
            return True
        return False

    def _describe(self, off: FloatArray, error: JointState) -> str:
        j = int(np.argmax(off))
        position, velocity = error.positions[j], error.velocities[j]
        return f"{self.joint_names[j]}, off by {position:.4f} and {velocity:.4f} a second"

    def _end(self, status: Status, error_code: int = SUCCESSFUL, error_string: str = "") -> None:
        if self._handle is not None:
            self._handle.end(status, error_code, error_string)
            self._handle = None

    def _hold(self, positions: FloatArray, velocities: FloatArray | None = None) -> _Motion:
        still = np.zeros(len(positions))
        return _Motion([Waypoint(0.0, positions, still if velocities is None else velocities)])

    def _begin(self, motion: _Motion, now: float) -> Timeline:
        before = Waypoint(0.0, self._actual, self._velocity)
        if self.options.interpolate_from_desired_state:
            before = self._commanded
        return Timeline(now, before, motion.waypoints, motion.start, splines=self.options.splines)

    def _error(self, desired: JointState) -> JointState:
        # Accelerations are not measured, velocities only count if they are commanded.
        zeros = np.zeros(len(self._actual))
        velocities = (
            desired.velocities - self._velocity if self.options.command_velocities else zeros
        )
        return JointState(desired.positions - self._actual, velocities, zeros)

    def _in_own_order(self, goal: TrajectoryGoal) -> list[Waypoint]:
        """Waypoints of the goal for all joints of the controller, in its order."""
        # Joints that the goal leaves out keep their last command, at rest.
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
        """Tolerances of the goal over the controller's own; the latter alone if the goal's are
        invalid."""
        goal, options, zeros = handle.goal, self.options, np.zeros(len(self.joint_names))
        # Velocities have a limit at the end alone, where the joints must rest.
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
        # The goal's tolerances replace the controller's, joint by joint.
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
    """Limit for a requested tolerance `asked`; 0 for none."""
    if asked > 0:
        return float(asked)
    if asked == 0:
        return float(default)
    if abs(asked + 1) < EPSILON:
        return 0.0
    raise ValueError(
        f"{name}: got {asked:g}, expected a positive limit, 0 for the default or -1 for none"
    )
