"""Controllers as ROS 2 actions: FollowJointTrajectory and GripperCommand.

As in ros2_control, a monitor checks the goals at a fixed rate, publishes feedback and delivers
results: the end of a goal reaches its client up to one period after the controller has acted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from control_msgs.action import FollowJointTrajectory, GripperCommand
from control_msgs.msg import JointTolerance
from flowplan_ros.conversions import duration_to_msg, seconds
from flowplan_ros.turn import yield_to_executor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectoryPoint

from flowplan_sim_hw.gripper import GripperHandle
from flowplan_sim_hw.pace import Pace
from flowplan_sim_hw.timeline import JointState
from flowplan_sim_hw.trajectory_controller import GoalHandle, Status
from flowplan_sim_hw.trajectory_goal import Tolerance, TrajectoryGoal, Waypoint

StampToTime = Callable[[Time], float]
"""Simulated seconds of a stamp."""
TimeToStamp = Callable[[float], Time]
"""Stamp of simulated seconds."""


class _HasStatus(Protocol):
    status: Status


Handle = TypeVar("Handle", bound=_HasStatus)


class Port(Protocol[Handle]):
    """Controller in the messages of its action."""

    def accept(self, request: Any) -> Handle:
        """Accept a goal; ValueError rejects it."""

    def cancel(self, handle: Handle) -> None:
        """Stop a goal."""

    def feedback(self, handle: Handle) -> Any:
        """Feedback message, or None if there is none yet."""

    def result(self, handle: Handle) -> Any:
        """Result message of a goal that has ended."""


class ControllerAction(Generic[Handle]):
    """Action server of one controller. `monitor` has to be called regularly."""

    def __init__(self, node: Node, action_type: Any, name: str, port: Port[Handle]) -> None:
        self._node, self._port = node, port
        self._taken: Handle | None = None  # between rclpy's two callbacks for one goal
        self._goals: dict[bytes, tuple[ServerGoalHandle, Handle]] = {}
        self._delivered: set[bytes] = set()
        self._server = ActionServer(
            node,
            action_type,
            name,
            self._execute,
            goal_callback=self._decide,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
        )

    def monitor(self, *, mute: bool = False) -> None:
        """Publish feedback (unless mute) and deliver results."""
        # Goals that have ended become results, running ones give feedback.
        for key, (goal, handle) in self._goals.items():
            if handle.status is not Status.EXECUTING:
                self._delivered.add(key)
            elif not mute and (feedback := self._port.feedback(handle)) is not None:
                goal.publish_feedback(feedback)

    def _decide(self, request: Any) -> GoalResponse:
        try:
            self._taken = self._port.accept(request)
        except ValueError as error:
            self._node.get_logger().warning(f"goal rejected: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, goal: ServerGoalHandle) -> None:
        assert self._taken is not None
        self._goals[bytes(goal.goal_id.uuid)] = (goal, self._taken)
        self._taken = None
        goal.execute()

    def _cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        self._port.cancel(self._goals[bytes(goal.goal_id.uuid)][1])
        return CancelResponse.ACCEPT

    async def _execute(self, goal: ServerGoalHandle) -> Any:
        key = bytes(goal.goal_id.uuid)
        # The result waits for the monitor, as in ros2_control.
        while key not in self._delivered:
            await yield_to_executor()
        self._delivered.remove(key)
        _, handle = self._goals.pop(key)
        if handle.status is Status.SUCCEEDED:
            goal.succeed()
        elif handle.status is Status.CANCELED:
            goal.canceled()
        else:
            goal.abort()
        return self._port.result(handle)


class ArmPort:
    """FollowJointTrajectory of a paced simulation."""

    def __init__(self, pace: Pace, to_time: StampToTime, to_stamp: TimeToStamp) -> None:
        self._pace, self._to_time, self._to_stamp = pace, to_time, to_stamp

    def accept(self, request: FollowJointTrajectory.Goal) -> GoalHandle:
        goal = self._goal(request)
        with self._pace.held() as simulation:
            return simulation.joints.accept(goal)

    def cancel(self, handle: GoalHandle) -> None:
        with self._pace.held() as simulation:
            simulation.joints.cancel(handle)

    def feedback(self, handle: GoalHandle) -> FollowJointTrajectory.Feedback | None:
        # Replaced as a whole by the physics thread: read it once.
        now = handle.feedback
        if now is None:
            return None
        with self._pace.held() as simulation:
            names = list(simulation.joints.joint_names)
        msg = FollowJointTrajectory.Feedback(joint_names=names, index=now.index)
        msg.header.stamp = self._to_stamp(now.time)
        msg.desired, msg.actual, msg.error = (
            _point(state) for state in (now.desired, now.actual, now.error)
        )
        for point in (msg.desired, msg.actual):
            point.time_from_start = duration_to_msg(now.elapsed)
        return msg

    def result(self, handle: GoalHandle) -> FollowJointTrajectory.Result:
        return FollowJointTrajectory.Result(
            error_code=handle.error_code, error_string=handle.error_string
        )

    def _goal(self, request: FollowJointTrajectory.Goal) -> TrajectoryGoal:
        # A stamp of zero starts the trajectory at once.
        trajectory = request.trajectory
        stamp = trajectory.header.stamp
        return TrajectoryGoal(
            joint_names=list(trajectory.joint_names),
            waypoints=[
                Waypoint(
                    seconds(p.time_from_start), p.positions, p.velocities, p.accelerations, p.effort
                )
                for p in trajectory.points
            ],
            start=self._to_time(stamp) if stamp.sec or stamp.nanosec else None,
            path_tolerance=_tolerances(request.path_tolerance),
            goal_tolerance=_tolerances(request.goal_tolerance),
            goal_time_tolerance=seconds(request.goal_time_tolerance),
        )


class GripperPort:
    """GripperCommand of a paced simulation."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def accept(self, request: GripperCommand.Goal) -> GripperHandle:
        with self._pace.held() as simulation:
            return simulation.gripper.accept(request.command.position, request.command.max_effort)

    def cancel(self, handle: GripperHandle) -> None:
        with self._pace.held() as simulation:
            simulation.gripper.cancel(handle)

    def feedback(self, handle: GripperHandle) -> GripperCommand.Feedback:
        return _filled(GripperCommand.Feedback(), handle)

    def result(self, handle: GripperHandle) -> GripperCommand.Result:
        return _filled(GripperCommand.Result(), handle)


def _filled(msg: Any, handle: GripperHandle) -> Any:
    msg.position, msg.effort = float(handle.opening), float(handle.effort)
    msg.stalled, msg.reached_goal = handle.stalled, handle.reached_goal
    return msg


def _tolerances(given: list[JointTolerance]) -> dict[str, Tolerance]:
    return {t.name: Tolerance(t.position, t.velocity, t.acceleration) for t in given}


def _point(state: JointState) -> JointTrajectoryPoint:
    # Buffers are taken whole, without a check of each number.
    parts = (state.positions, state.velocities, state.accelerations)
    positions, velocities, accelerations = (
        array("d", np.asarray(part, float).tobytes()) for part in parts
    )
    return JointTrajectoryPoint(
        positions=positions, velocities=velocities, accelerations=accelerations
    )
