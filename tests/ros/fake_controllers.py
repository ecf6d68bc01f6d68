"""An arm's and a gripper's controller that do as they are told, or go wrong in the way that
parameter `fault` names.

A process of its own for the tests of the executor. The arm is where its trajectory says; the
fingers meet something 30 mm thick. `fault` holds for the motion or the grip whose number (from 0)
parameter `at` says; setting any parameter begins to count anew and puts the arm back at `start`.
"""

import os
import time
from array import array

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from flowplan_ros.conversions import seconds
from flowplan_ros.server import spin
from flowplan_ros.turn import yield_to_executor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from sensor_msgs.msg import JointState

OPEN, THICKNESS = 0.08, 0.03


class FakeControllers(Node):
    def __init__(self):
        super().__init__("fake_controllers")
        self.declare_parameter("joints", ["a"])
        self.declare_parameter("start", [0.0])
        self.declare_parameter("fault", "")
        self.declare_parameter("at", 0)
        self.add_post_set_parameters_callback(lambda changed: self.reset())
        self.reset()
        self.states = self.create_publisher(JointState, "joint_states", 10)
        self.timer = self.create_timer(0.01, self.publish)
        actions = (
            (FollowJointTrajectory, "panda_arm_controller/follow_joint_trajectory", self.move),
            (GripperCommand, "panda_gripper/gripper_cmd", self.close),
        )
        self.servers = [
            ActionServer(
                self, kind, name, run, goal_callback=self.decide, cancel_callback=self.may_cancel
            )
            for kind, name, run in actions
        ]

    def reset(self):
        self.joints = self.get_parameter("joints").value
        self.q = np.array(self.get_parameter("start").value)
        self.fault, self.at = self.get_parameter("fault").value, self.get_parameter("at").value
        self.counts = {"move": -1, "grip": -1}
        self.life = object()  # what began in an earlier one ends
        self.mute = self.fault == "no states"
        self.opening = OPEN

    def faulty(self, what, fault):
        return self.fault == f"{what} {fault}" and self.counts[what] == self.at

    def decide(self, goal):
        what = "move" if isinstance(goal, FollowJointTrajectory.Goal) else "grip"
        self.counts[what] += 1
        return GoalResponse.REJECT if self.faulty(what, "rejected") else GoalResponse.ACCEPT

    def may_cancel(self, handle):
        return CancelResponse.REJECT if self.faulty("move", "deaf") else CancelResponse.ACCEPT

    def publish(self):
        if not self.mute:
            message = JointState(name=self.joints, position=array("d", self.q))
            message.header.stamp = self.get_clock().now().to_msg()
            self.states.publish(message)

    async def move(self, handle):
        trajectory = handle.request.trajectory
        times = np.array([seconds(point.time_from_start) for point in trajectory.points])
        path = np.array([point.positions for point in trajectory.points])
        order = [list(trajectory.joint_names).index(name) for name in self.joints]
        begun, fed, life = time.monotonic(), 0.0, self.life
        result = FollowJointTrajectory.Result()
        while (elapsed := time.monotonic() - begun) < times[-1]:
            await yield_to_executor()
            if handle.is_cancel_requested:
                handle.canceled()
                return result
            if life is not self.life:
                handle.abort()
                return result
            late = elapsed > 0.2
            if late and self.faulty("move", "aborted"):
                result.error_code, result.error_string = (
                    result.PATH_TOLERANCE_VIOLATED,
                    "path tolerance of a joint",
                )
                handle.abort()
                return result
            if late and self.faulty("move", "dead"):
                os._exit(1)
            self.mute = self.mute or (late and self.faulty("move", "blind"))
            if late and (self.faulty("move", "stuck") or self.faulty("move", "deaf")):
                begun = time.monotonic() - 0.3  # for ever
            else:
                self.q = np.array([np.interp(elapsed, times, path[:, j]) for j in order])
            if time.monotonic() - fed > 0.05:
                fed = time.monotonic()
                feedback = FollowJointTrajectory.Feedback(joint_names=trajectory.joint_names)
                feedback.error.positions = array("d", [0.002] * len(order))
                if not (late and self.faulty("move", "silent")):
                    handle.publish_feedback(feedback)
        self.q = path[-1][order]
        handle.succeed()
        return result

    async def close(self, handle):
        target, begun = handle.request.command.position, time.monotonic()
        while time.monotonic() - begun < 0.2 or self.faulty("grip", "stuck"):
            await yield_to_executor()
            if handle.is_cancel_requested:
                handle.canceled()
                return GripperCommand.Result(position=self.opening)
        held = target < THICKNESS and not self.faulty("grip", "empty")
        self.opening = THICKNESS if held else target
        if self.faulty("grip", "half"):
            self.opening = 0.5 * target
        if held and self.faulty("grip", "stalled"):
            handle.abort()
        else:
            handle.succeed()
        return GripperCommand.Result(position=self.opening, stalled=held, reached_goal=not held)


if __name__ == "__main__":
    spin(FakeControllers)
