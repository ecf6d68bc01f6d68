"""An arm's and a gripper's controller that do as they are told, or go wrong in the way that
parameter `fault` names.

A process of its own for the tests of the executor. The arm is where its trajectory says; the
fingers meet something 30 mm thick. `fault` holds for the motion or the grip whose number (from 0)
parameter `at` says; setting any parameter begins to count anew and puts the arm back at `start`.
The joint states may be wrong in the ways of WRONG_STATES: from the beginning ("states KIND"), or
from the middle of a motion or a grip ("move KIND", "grip KIND"). The latched topic `goals` tells in
JSON how many motions and grips were accepted, and how many goals were canceled.
"""

import json
import os
import time
from array import array

import numpy as np
from control_msgs.action import FollowJointTrajectory, GripperCommand
from flowplan_ros.conversions import seconds
from flowplan_ros.server import LATCHED, spin
from flowplan_ros.turn import yield_to_executor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

OPEN, THICKNESS = 0.08, 0.03
NAN, INF = float("nan"), float("inf")
# What happens to the positions, and to the stamp in seconds.
WRONG_STATES = {
    "all NaN": (lambda q: [NAN] * len(q), 0),
    "one NaN": (lambda q: [*q[:3], NAN, *q[4:]], 0),
    "infinite": (lambda q: [-INF, *q[1:]], 0),
    "future": (lambda q: q, 5),
    "old": (lambda q: q, -5),
    "before 1970": (lambda q: q, -(2**31)),
}
WRONG_POSITIONS = {"NaN": NAN, "inf": INF, "-inf": -INF, "huge": 1e9}


class FakeControllers(Node):
    def __init__(self):
        super().__init__("fake_controllers")
        self.declare_parameter("joints", ["a"])
        self.declare_parameter("start", [0.0])
        self.declare_parameter("fault", "")
        self.declare_parameter("at", 0)
        self.add_post_set_parameters_callback(lambda changed: self.reset())
        self.goals = self.create_publisher(String, "goals", LATCHED)
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
        self.counts, self.canceled = {"move": -1, "grip": -1}, 0
        kind = self.fault.removeprefix("states ")
        self.wrong = kind if kind != self.fault else ""
        self.life = object()  # what began in an earlier one ends
        self.mute = self.fault == "no states"
        self.opening = OPEN
        self.tell()

    def tell(self):
        goals = {what: 1 + count for what, count in self.counts.items()}
        goals |= {"canceled": self.canceled, "fault": self.fault}
        self.goals.publish(String(data=json.dumps(goals)))

    def end_canceled(self, handle):
        self.canceled += 1
        self.tell()
        handle.canceled()

    def spoil(self, what, late):
        """The joint states become wrong in the middle of a motion or a grip."""
        kind = self.fault.removeprefix(f"{what} ")
        if late and kind in WRONG_STATES and self.faulty(what, kind):
            self.wrong = kind

    def faulty(self, what, fault):
        return self.fault == f"{what} {fault}" and self.counts[what] == self.at

    def decide(self, goal):
        what = "move" if isinstance(goal, FollowJointTrajectory.Goal) else "grip"
        self.counts[what] += 1
        self.tell()
        return GoalResponse.REJECT if self.faulty(what, "rejected") else GoalResponse.ACCEPT

    def may_cancel(self, handle):
        return CancelResponse.REJECT if self.faulty("move", "deaf") else CancelResponse.ACCEPT

    def publish(self):
        if not self.mute:
            change, shift = WRONG_STATES.get(self.wrong, (lambda q: q, 0))
            message = JointState(name=self.joints, position=array("d", change(list(self.q))))
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.stamp.sec = max(message.header.stamp.sec + shift, -(2**31))
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
                self.end_canceled(handle)
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
            self.spoil("move", late)
            self.mute = self.mute or (late and self.faulty("move", "blind"))
            if late and (self.faulty("move", "stuck") or self.faulty("move", "deaf")):
                begun = time.monotonic() - 0.3  # for ever
            else:
                self.q = np.array([np.interp(elapsed, times, path[:, j]) for j in order])
            if time.monotonic() - fed > 0.05:
                fed = time.monotonic()
                feedback = FollowJointTrajectory.Feedback(joint_names=trajectory.joint_names)
                feedback.error.positions = array("d", [0.002] * len(order))
                for kind, value in WRONG_POSITIONS.items():
                    if late and self.faulty("move", f"error {kind}"):
                        feedback.error.positions[2] = value
                if not (late and self.faulty("move", "silent")):
                    handle.publish_feedback(feedback)
        self.q = path[-1][order]
        handle.succeed()
        return result

    async def close(self, handle):
        target, begun = handle.request.command.position, time.monotonic()
        # A grip during which the joint states become wrong takes long enough to be stopped.
        spoiled = any(self.faulty("grip", kind) for kind in WRONG_STATES)
        while (elapsed := time.monotonic() - begun) < (2.0 if spoiled else 0.2) or self.faulty(
            "grip", "stuck"
        ):
            await yield_to_executor()
            self.spoil("grip", elapsed > 0.1)
            if handle.is_cancel_requested:
                self.end_canceled(handle)
                return GripperCommand.Result(position=self.opening)
        held = target < THICKNESS and not self.faulty("grip", "empty")
        self.opening = THICKNESS if held else target
        if self.faulty("grip", "half"):
            self.opening = 0.5 * target
        if held and self.faulty("grip", "stalled"):
            handle.abort()
        else:
            handle.succeed()
        position = self.opening
        for kind, value in WRONG_POSITIONS.items():
            if self.faulty("grip", f"result {kind}"):
                position = value
        return GripperCommand.Result(position=position, stalled=held, reached_goal=not held)


if __name__ == "__main__":
    spin(FakeControllers)
