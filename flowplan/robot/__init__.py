"""Robot arms with two-finger grippers: configuration files, kinematics, inverse kinematics."""

from flowplan.robot.robot import Robot, load_robot

__all__ = ["Robot", "load_robot"]
