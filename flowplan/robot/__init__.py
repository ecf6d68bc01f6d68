"""Robot arms with two-finger grippers: robot files, kinematics, inverse kinematics."""

from flowplan.robot.config_file import load_robot
from flowplan.robot.robot import Robot

__all__ = ["Robot", "load_robot"]
