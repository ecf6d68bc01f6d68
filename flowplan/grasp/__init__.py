"""Where a gripper may touch an object, and which touch suits the motion that is asked."""

from flowplan.grasp.records import Grasps, Kind

__all__ = ["Grasps", "Kind"]
