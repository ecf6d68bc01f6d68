"""Robot of a node, and the place of its base: parameters that several nodes share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.geometry import matrix_from_quat_xyzw, pose
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True)
class PlacedRobotOptions:
    """Robot, and its base in the frame of scenes and plans."""

    robot: str = "panda"
    """Name of a robot configuration, or path of a .toml file."""
    base_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position of the robot's base in the frame of scenes and plans, meters."""
    base_quat_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """Orientation of the base: unit quaternion x y z w."""

    def __post_init__(self) -> None:
        checks.array("base_position", self.base_position, (3,))
        length = float(np.linalg.norm(self.base_quat_xyzw))
        if not abs(length - 1) < 1e-3:
            raise ValueError(
                f"base_quat_xyzw: expected a unit quaternion, got length {length:.4g}; normalize it"
            )

    @property
    def X_world_base(self) -> FloatArray:
        """Pose (4, 4) of the base."""
        return pose(matrix_from_quat_xyzw(self.base_quat_xyzw), self.base_position)


FIXED = ("robot", "base_position", "base_quat_xyzw")
"""Their names: parameters that a node reads when it is configured."""
