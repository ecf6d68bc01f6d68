"""The interfaces are built, and the stand-in for control_msgs speaks the same type as the robots'
own."""

import json
import os
from pathlib import Path

from control_msgs.action import FollowJointTrajectory, GripperCommand

# Of control_msgs 6, as ROS distributions since Kilted have it: RIHS01 is SHA-256 over names, types
# and order.
FOLLOW_JOINT_TRAJECTORY = "RIHS01_ff29901b2693f5deb847e96084a1c2cdb26e70b7c847be21859b70a55fb29cf0"


def share(package: str) -> Path:
    prefixes = [Path(prefix) for prefix in os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)]
    return next(
        prefix / "share" / package for prefix in prefixes if (prefix / "share" / package).is_dir()
    )


def test_follow_joint_trajectory_has_the_type_hash_of_ros2_control():
    description = json.loads(
        (share("control_msgs") / "action" / "FollowJointTrajectory.json").read_text()
    )
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert hashes["control_msgs/action/FollowJointTrajectory"] == FOLLOW_JOINT_TRAJECTORY


def test_error_codes_are_those_of_ros2_control():
    # Constants are outside of the hash.
    result = FollowJointTrajectory.Result
    assert (result.SUCCESSFUL, result.INVALID_GOAL, result.INVALID_JOINTS) == (0, -1, -2)
    assert (
        result.OLD_HEADER_TIMESTAMP,
        result.PATH_TOLERANCE_VIOLATED,
        result.GOAL_TOLERANCE_VIOLATED,
    ) == (-3, -4, -5)


def test_gripper_command_has_the_standard_fields():
    fields = GripperCommand.Goal().command.get_fields_and_field_types()
    assert fields == {"position": "double", "max_effort": "double"}
    told = {
        "position": "double",
        "effort": "double",
        "stalled": "boolean",
        "reached_goal": "boolean",
    }
    assert GripperCommand.Result.get_fields_and_field_types() == told
    assert GripperCommand.Feedback.get_fields_and_field_types() == told


def test_action_messages_travel_through_dds(ros):
    """Goal, feedback and result of the standard action arrive whole."""
    from rclpy.action import ActionServer

    def execute(handle):
        feedback = FollowJointTrajectory.Feedback(joint_names=handle.request.trajectory.joint_names)
        handle.publish_feedback(feedback)
        handle.succeed()
        return FollowJointTrajectory.Result(error_string="done")

    server = ActionServer(
        ros.node, FollowJointTrajectory, "controller/follow_joint_trajectory", execute
    )
    goal = FollowJointTrajectory.Goal()
    goal.trajectory.joint_names = ["a", "b"]
    seen = []
    handle = ros.send_goal(
        FollowJointTrajectory, "controller/follow_joint_trajectory", goal, seen.append
    )
    status, result = ros.result(handle)
    assert (status, result.error_string) == (4, "done")
    assert [list(feedback.joint_names) for feedback in seen] == [["a", "b"]]
    server.destroy()
