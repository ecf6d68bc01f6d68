"""The simulated robot over real DDS: goals move it, cancel holds it, its cameras see, its faults
show."""

import json
import os
import signal
import time

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory, GripperCommand
from flowplan_msgs.msg import Instruction
from flowplan_ros.conversions import pose_from_msg
from flowplan_ros.points import depth_from_image, intrinsics_from_info
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

from flowplan.io.instruction import parse_instruction
from flowplan.laws import Hinge
from flowplan.robot import load_robot
from flowplan.scan import DepthFrame, ScanOptions, scan_frames

ARM, GRIPPER = "panda_arm_controller/follow_joint_trajectory", "panda_gripper/gripper_cmd"
PANDA = load_robot("panda")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Client:
    """A test's hands on a started simulated robot."""

    def __init__(self, ros, parameters=None):
        self.ros = ros
        self.process = ros.start(
            "sim_node", {"camera.count": 0} | (parameters or {}), package="flowplan_sim_hw"
        )
        self.states = ros.subscribe(JointState, "joint_states")
        ros.wait_for(lambda: self.states, what="joint states")

    def measured(self):
        """Positions and velocities of the arm in the next joint state."""
        count = len(self.states)
        self.ros.wait_for(lambda: len(self.states) > count, what="another joint state")
        msg = self.states[-1]
        columns = [list(msg.name).index(name) for name in PANDA.joint_names]
        return np.array(msg.position)[columns], np.array(msg.velocity)[columns]

    def goal(self, q, seconds=1.0, names=PANDA.joint_names):
        goal = FollowJointTrajectory.Goal()
        goal.trajectory.joint_names = list(names)
        whole, rest = divmod(round(seconds * 1e9), 10**9)
        point = JointTrajectoryPoint(
            positions=list(map(float, q)), time_from_start=Duration(sec=whole, nanosec=rest)
        )
        goal.trajectory.points = [point]
        return goal

    def send(self, goal, on_feedback=None):
        return self.ros.send_goal(FollowJointTrajectory, ARM, goal, on_feedback)

    def grip(self, position, max_effort=0.0):
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = position, max_effort
        return self.ros.result(self.ros.send_goal(GripperCommand, GRIPPER, goal))

    def set(self, name, value):
        kinds = {
            bool: (ParameterType.PARAMETER_BOOL, "bool_value"),
            str: (ParameterType.PARAMETER_STRING, "string_value"),
        }
        kind, slot = kinds.get(type(value), (ParameterType.PARAMETER_INTEGER, "integer_value"))
        request = SetParameters.Request(
            parameters=[Parameter(name=name, value=ParameterValue(type=kind, **{slot: value}))]
        )
        return self.ros.call(SetParameters, "sim_node/set_parameters", request).results[0]


def test_a_goal_moves_the_arm_and_cancel_holds_it(ros):
    client = Client(ros)
    feedback = []
    target = PANDA.home + 0.2
    # By name, in whatever order.
    handle = client.send(client.goal(target[::-1], 1.0, PANDA.joint_names[::-1]), feedback.append)
    status, result = ros.result(handle)
    assert (status, result.error_code) == (
        GoalStatus.STATUS_SUCCEEDED,
        FollowJointTrajectory.Result.SUCCESSFUL,
    )
    np.testing.assert_allclose(client.measured()[0], target, atol=1e-3)
    assert 10 <= len(feedback) <= 25
    assert list(feedback[0].joint_names) == list(PANDA.joint_names)
    halfway = feedback[len(feedback) // 2]
    np.testing.assert_allclose(halfway.actual.positions, halfway.desired.positions, atol=5e-3)
    np.testing.assert_allclose(
        np.array(halfway.desired.positions) - halfway.actual.positions,
        halfway.error.positions,
        atol=1e-12,
    )

    handle = client.send(client.goal(PANDA.home, 2.0))
    ros.wait_for(
        lambda: client.measured()[0][0] < target[0] - 0.05, what="the arm to be on its way"
    )
    asked = time.monotonic()
    ros.wait(handle.cancel_goal_async())
    ros.wait_for(lambda: np.abs(client.measured()[1]).max() < 0.01, what="the arm to stand")
    assert (
        time.monotonic() - asked < 1.0
    )  # far from the end of the motion; how fast it is, is measured elsewhere
    held = client.measured()[0]
    status, result = ros.result(handle)
    assert (status, result.error_code) == (
        GoalStatus.STATUS_CANCELED,
        FollowJointTrajectory.Result.SUCCESSFUL,
    )
    for _ in range(20):
        np.testing.assert_allclose(client.measured()[0], held, atol=2e-3)
    assert np.abs(held - PANDA.home).max() > 0.05
    assert client.process.stop() == 0


def test_goals_that_are_turned_down_preempted_and_aborted(ros):
    client = Client(ros)
    for goal in (
        client.goal([0.0]),
        client.goal(PANDA.home, names=[f"x{name}" for name in PANDA.joint_names]),
        FollowJointTrajectory.Goal(),
    ):
        assert not client.send(goal).accepted
    over = client.goal(PANDA.home, 1.0)
    over.trajectory.header.stamp.sec = 1
    assert not client.send(over).accepted
    soon = client.goal(PANDA.home, 0.1)
    soon.trajectory.header.stamp = (ros.node.get_clock().now() + _seconds(0.2)).to_msg()
    handle = client.send(soon)
    assert handle.accepted
    assert ros.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED

    old = client.send(client.goal(PANDA.home + 0.2, 5.0))
    new = client.send(client.goal(PANDA.home + 0.1, 0.5))
    status, result = ros.result(old)
    assert (status, result.error_code) == (
        GoalStatus.STATUS_ABORTED,
        FollowJointTrajectory.Result.INVALID_GOAL,
    )
    assert ros.result(new)[0] == GoalStatus.STATUS_SUCCEEDED

    assert client.set("fault.stuck_joint", "panda_joint4").successful
    status, result = ros.result(client.send(client.goal(PANDA.home - 0.3, 1.0)))
    assert (status, result.error_code) == (
        GoalStatus.STATUS_ABORTED,
        FollowJointTrajectory.Result.PATH_TOLERANCE_VIOLATED,
    )
    assert "panda_joint4" in result.error_string
    assert not client.set("fault.stuck_joint", "elbow").successful
    assert client.set("fault.stuck_joint", "").successful

    assert client.set("fault.inactive", True).successful
    count = len(client.states)
    ros.wait_for(lambda: len(client.states) > count + 5, what="the fault to take effect")
    assert not client.send(client.goal(PANDA.home)).accepted
    client.set("fault.inactive", False)

    assert client.set("fault.mute", True).successful
    ros.wait_for(lambda: _quiet(ros, client.states), what="the joint states to cease")
    assert not client.set("camera.count", 3).successful


def _stamp(msg):
    return msg.header.stamp.sec, msg.header.stamp.nanosec


def _seconds(value):
    from rclpy.duration import Duration

    return Duration(seconds=value)


def _quiet(ros, messages):
    """Whether nothing comes in a third of a second."""
    count, end = len(messages), time.monotonic() + 0.3
    while time.monotonic() < end:
        ros.executor.spin_once(timeout_sec=0.02)
    return len(messages) == count


def test_the_gripper_and_a_crash(ros):
    client = Client(ros, {"camera.count": 1})
    status, result = client.grip(0.02)
    assert (status, result.reached_goal, result.stalled) == (
        GoalStatus.STATUS_SUCCEEDED,
        True,
        False,
    )
    assert result.position == pytest.approx(0.02, abs=0.003)
    assert client.measured() is not None
    fingers = [
        p
        for n, p in zip(client.states[-1].name, client.states[-1].position, strict=True)
        if "finger" in n
    ]
    assert sum(fingers) == pytest.approx(result.position, abs=0.004)
    client.set("fault.jammed_gripper", True)
    status, result = client.grip(0.08)
    assert (status, result.reached_goal, result.stalled) == (
        GoalStatus.STATUS_SUCCEEDED,
        False,
        True,
    )
    client.set("fault.jammed_gripper", False)
    assert client.grip(0.08)[1].reached_goal
    os.kill(client.process.popen.pid, signal.SIGKILL)  # the node alone: its cameras go with it
    client.process.wait_end()


def test_the_task_is_told_judged_and_reset(ros):
    client = Client(ros, {"seed": 3})
    instructions = ros.subscribe(Instruction, "task/instruction", LATCHED)  # a late joiner
    ros.wait_for(lambda: instructions, what="the instruction")
    assert instructions[0].kind == Instruction.DOCUMENT
    assert json.loads(instructions[0].text)["prompt"] == "close the laptop"
    verdict = ros.call(Trigger, "task/success")
    assert not verdict.success
    assert "lid_angle" in verdict.message
    handle = client.send(client.goal(PANDA.home + 0.3, 3.0))
    assert client.set("seed", 4).successful
    assert ros.call(Trigger, "task/reset").success
    assert ros.result(handle)[0] == GoalStatus.STATUS_ABORTED
    np.testing.assert_allclose(client.measured()[0], PANDA.home, atol=1e-2)
    ros.wait_for(lambda: len(instructions) > 1, what="the instruction of the new episode")
    assert instructions[1].text != instructions[0].text
    assert (
        ros.result(client.send(client.goal(PANDA.home + 0.1, 0.5)))[0]
        == GoalStatus.STATUS_SUCCEEDED
    )


def test_the_cameras_see_the_laptop(ros):
    count = 4
    client = Client(ros, {"camera.count": count, "camera.rate": 5.0})
    heard = [
        (
            ros.subscribe(Image, f"camera_{i}/depth/image"),
            ros.subscribe(CameraInfo, f"camera_{i}/depth/camera_info"),
            ros.subscribe(PoseStamped, f"camera_{i}/pose"),
            ros.subscribe(Image, f"camera_{i}/color/image"),
        )
        for i in range(count)
    ]

    def of_one_time():
        """The newest images, infos and poses of every camera, when they carry one stamp."""
        newest = [[topic[-1] for topic in camera if topic] for camera in heard]
        complete = all(len(camera) == 4 for camera in newest)
        return (
            newest
            if complete and len({_stamp(msg) for camera in newest for msg in camera}) == 1
            else None
        )

    frames = []
    for i, (depth, info, pose, color) in enumerate(
        ros.wait_for(of_one_time, 60.0, what="images of one time")
    ):
        assert depth.header.frame_id == info.header.frame_id == f"camera_{i}_optical_frame"
        assert pose.header.frame_id == "world"
        assert (color.encoding, len(color.data)) == ("rgb8", 320 * 240 * 3)
        frames.append(
            DepthFrame(
                depth_from_image(depth), intrinsics_from_info(info), pose_from_msg(pose.pose)
            )
        )
    scene = scan_frames(frames, ScanOptions(names=("laptop",)))
    assert scene.support_height == pytest.approx(0.0, abs=0.005)
    instructions = ros.subscribe(Instruction, "task/instruction", LATCHED)
    ros.wait_for(lambda: instructions, what="the instruction")
    laws, action = parse_instruction(json.loads(instructions[0].text), scene, "task/instruction")
    assert isinstance(laws[0], Hinge)
    vertices = scene.objects[0].vertices_world
    assert np.linalg.norm(vertices[:, None] - action.handles, axis=-1).min(axis=0).max() < 0.02
    assert client.process.stop() == 0


def test_simulated_time_may_run_faster(ros):
    client = Client(ros, {"use_sim_time": True, "real_time_factor": 5.0})
    clocks = ros.subscribe(Clock, "/clock")
    began = time.monotonic()
    handle = client.send(client.goal(PANDA.home + 0.1, 5.0))
    assert ros.result(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    assert time.monotonic() - began < 4.0
    passed = [c.clock.sec + 1e-9 * c.clock.nanosec for c in clocks]
    assert passed[-1] - passed[0] > 3.0
    assert passed == sorted(passed)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"task": "fold_cloth"}, "task: got 'fold_cloth'"),
        ({"seed": -1}, "seed"),
        ({"fault.stuck_joint": "x"}, "'x'"),
    ],
)
def test_bad_parameters_end_the_node_with_one_line(ros, parameters, words):
    process = ros.start("sim_node", parameters, package="flowplan_sim_hw")
    assert process.wait_end() == 1
    assert words in process.output()
    assert "Traceback" not in process.output()
