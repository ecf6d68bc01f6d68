"""Camera poses from a pose topic of each camera, or from tf2.

tf2 is not among the packages that this project can be tested with: `TfPoses` follows its
documentation.
"""

from __future__ import annotations

from typing import Protocol

from geometry_msgs.msg import Pose, PoseStamped
from rclpy.node import Node
from std_msgs.msg import Header

from flowplan.utils.checks import FloatArray
from flowplan_ros.conversions import frame_of, pose_from_msg


class Poses(Protocol):
    """Source of camera poses."""

    def __call__(self, camera: str, header: Header) -> FloatArray:
        """X_world_camera (4, 4), OpenCV convention, of the camera of an image with this header.

        Raises:
            ValueError: if it is not known.
        """


class TopicPoses:
    """Newest message on `CAMERA/pose`: a PoseStamped of the optical frame in the frame `frame`."""

    def __init__(self, node: Node, cameras: tuple[str, ...], frame: str) -> None:
        self._node, self._frame = node, frame
        self._newest: dict[str, PoseStamped] = {}
        self._subscriptions = [
            node.create_subscription(
                PoseStamped, f"{camera}/pose", lambda msg, c=camera: self._keep(c, msg), 10
            )
            for camera in cameras
        ]

    def __call__(self, camera: str, header: Header) -> FloatArray:
        """See Poses."""
        if camera not in self._newest:
            raise ValueError(
                f"{camera}/pose: nothing came; publish the camera's pose, or set pose_source to tf"
            )
        msg = self._newest[camera]
        frame_of(msg.header, self._frame, f"{camera}/pose")
        return pose_from_msg(msg.pose, f"{camera}/pose.pose")

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _keep(self, camera: str, msg: PoseStamped) -> None:
        self._newest[camera] = msg


class TfPoses:
    """Transform from an image's optical frame (REP 103) to the frame `frame` at the time of the
    image."""

    def __init__(self, node: Node, frame: str) -> None:
        try:
            import tf2_ros
        except ImportError:
            raise ValueError(
                "pose_source: no tf2_ros; install ros-DISTRO-tf2-ros-py, or set it to topic"
            ) from None
        self._frame, self._error = frame, tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def __call__(self, camera: str, header: Header) -> FloatArray:
        """See Poses."""
        try:
            found = self._buffer.lookup_transform(
                self._frame, header.frame_id, header.stamp
            ).transform
        except self._error as error:
            raise ValueError(
                f"{camera}: no transform from {header.frame_id!r} to {self._frame!r}: {error}"
            ) from None
        pose = Pose(orientation=found.rotation)
        pose.position.x, pose.position.y, pose.position.z = (
            getattr(found.translation, axis) for axis in "xyz"
        )
        return pose_from_msg(pose, f"{camera}: transform")

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()
