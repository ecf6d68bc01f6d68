"""Said once where ROS 2 is not set up: its tests are skipped."""

import importlib.util

import pytest


def test_ros_is_set_up():
    missing = [
        name
        for name in ("rclpy", "flowplan_msgs", "control_msgs")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: the ROS tests need `make ros`, then `. "
            "build/ros/environment.sh`"
        )
