"""Goals of a joint trajectory controller, and reasons to reject them.

The rules are those of ros2_control's `joint_trajectory_controller`. Three harmful goals that it
accepts are rejected here, so that a client that sends them is found before it meets a robot: a
joint named twice (another one would move to wherever it last went), accelerations without
velocities (it commands zeros), and numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flowplan.utils.checks import FloatArray

SUCCESSFUL, INVALID_GOAL, PATH_TOLERANCE_VIOLATED, GOAL_TOLERANCE_VIOLATED = 0, -1, -4, -5
"""Error codes of control_msgs/action/FollowJointTrajectory."""

EPSILON = float(np.finfo(np.float32).eps)  # largest value that counts as zero

_NONE = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Waypoint:
    """Desired state of the joints at one time. Quantities that are not given have no entries.

    Attributes:
        time: seconds from the trajectory's start.
        positions: (J,) rad or m, in the order of the goal's joint names.
        velocities: (J,) or (0,).
        accelerations: (J,) or (0,).
        effort: (J,) or (0,).
    """

    time: float
    positions: FloatArray = field(default_factory=lambda: _NONE)
    velocities: FloatArray = field(default_factory=lambda: _NONE)
    accelerations: FloatArray = field(default_factory=lambda: _NONE)
    effort: FloatArray = field(default_factory=lambda: _NONE)

    def __post_init__(self) -> None:
        for name in ("positions", "velocities", "accelerations", "effort"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), float))


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of a joint. In a goal, 0 is the controller's default and -1 no limit."""

    position: float = 0.0
    """Radians or meters."""
    velocity: float = 0.0
    """Per second."""
    acceleration: float = 0.0
    """Per second squared."""


@dataclass(frozen=True, eq=False)
class TrajectoryGoal:
    """Goal of FollowJointTrajectory as it arrives.

    Attributes:
        joint_names: names of the waypoints' entries.
        waypoints: waypoints in order of time.
        start: start time, seconds of the controller's clock; None for at once (a stamp of zero).
        path_tolerance: by joint, during the motion.
        goal_tolerance: by joint, at the end.
        goal_time_tolerance: seconds after the end in which the joints must arrive; 0 and -1 as in
            Tolerance.
    """

    joint_names: Sequence[str]
    waypoints: Sequence[Waypoint]
    start: float | None = None
    path_tolerance: Mapping[str, Tolerance] = field(default_factory=dict)
    goal_tolerance: Mapping[str, Tolerance] = field(default_factory=dict)
    goal_time_tolerance: float = 0.0


@dataclass(frozen=True)
class GoalRules:
    """Goals accepted beyond complete trajectories of positions that end at rest."""

    allow_partial_joints_goal: bool = False
    """Goals may leave joints out; these hold their last command."""
    allow_integration_in_goal_trajectories: bool = False
    """Positions may be left out; they are integrated from velocities or accelerations."""
    allow_nonzero_velocity_at_trajectory_end: bool = False
    """The last waypoint may have a velocity."""


def reason_to_reject(
    goal: TrajectoryGoal, joint_names: Sequence[str], now: float, rules: GoalRules
) -> str:
    """Reason for a controller of these joints to reject the goal; empty if there is none."""
    return (
        _about_joints(goal, joint_names, rules)
        or _about_the_end(goal, now, rules)
        or _about_waypoints(goal, rules)
    )


def _about_joints(goal: TrajectoryGoal, joint_names: Sequence[str], rules: GoalRules) -> str:
    given = list(goal.joint_names)
    if not given:
        return "joint_names: empty"
    if not goal.waypoints:
        return "points: empty"
    for name in given:
        if name not in joint_names:
            return f"joint_names: {name!r} is not one of the controller's joints"
    if len(set(given)) < len(given):
        return "joint_names: a joint is named twice"
    if len(given) != len(joint_names) and not rules.allow_partial_joints_goal:
        missing = [name for name in joint_names if name not in given]
        return f"joint_names: {', '.join(missing)} missing, and partial goals are not allowed"
    return ""


def _about_the_end(goal: TrajectoryGoal, now: float, rules: GoalRules) -> str:
    # The trajectory ends at rest, and not before now.
    last = goal.waypoints[-1]
    if not rules.allow_nonzero_velocity_at_trajectory_end and np.any(
        np.abs(last.velocities) > EPSILON
    ):
        return "points: the last velocity is not zero"
    if goal.start is not None and goal.start + last.time < now:
        return f"header.stamp: the trajectory ended {now - goal.start - last.time:.3f} s ago"
    return ""


def _about_waypoints(goal: TrajectoryGoal, rules: GoalRules) -> str:
    count, previous = len(goal.joint_names), -np.inf
    for i, point in enumerate(goal.waypoints):
        # NaN is refused as well.
        if not point.time > previous:
            return (
                f"points[{i}].time_from_start: {point.time:g} s does not come after {previous:g} s"
            )
        previous = point.time
        # Quantities: one finite number a joint, or none.
        sizes = {
            name: len(getattr(point, name)) for name in ("positions", "velocities", "accelerations")
        }
        for name, size in sizes.items():
            if size not in (0, count):
                return f"points[{i}].{name}: {size} entries for {count} joints"
            if not np.all(np.isfinite(getattr(point, name))):
                return f"points[{i}].{name}: not finite"
        # With integration any quantity will do; without it, positions.
        if rules.allow_integration_in_goal_trajectories and not any(sizes.values()):
            return f"points[{i}]: neither positions, velocities nor accelerations"
        if not rules.allow_integration_in_goal_trajectories:
            if not sizes["positions"]:
                return f"points[{i}].positions: missing"
            if sizes["accelerations"] and not sizes["velocities"]:
                return f"points[{i}].velocities: missing beside accelerations"
        if len(point.effort):
            return f"points[{i}].effort: this controller commands positions"
    return ""
