"""Benchmark of scan_node's clouds: depth images of a hundred thousand points at the rate of a
camera.

Camera and subscriber are in this process. An image is lost if no cloud with its stamp arrives.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from flowplan_ros.conversions import pose_to_msg, seconds
from flowplan_ros.points import depth_to_image, intrinsics_to_info
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from flowplan_sim_hw.bring_up import BringUp, node_context

WIDTH, HEIGHT = 400, 250
RATE = 10.0
"""Images per second."""
_PATIENCE = 120.0  # seconds for the node to become active
_LAST = 2.0  # seconds for the last clouds to arrive


def cloud_rate(images: int = 100) -> tuple[int, list[float]]:
    """Number of lost images, and the seconds from image to cloud of the others."""
    with BringUp(("scan_node",), {"cameras": ["camera"]}):
        context, node = node_context("cloud_rate")
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            return _measure(node, executor, images)
        finally:
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()


def _measure(node: Any, executor: SingleThreadedExecutor, images: int) -> tuple[int, list[float]]:
    arrived: dict[int, float] = {}  # stamp in nanoseconds -> time sent

    def take(cloud: PointCloud2) -> None:
        if cloud.width * cloud.height != WIDTH * HEIGHT:
            raise RuntimeError(
                f"a cloud has {cloud.width * cloud.height} points, the image {WIDTH * HEIGHT}"
            )
        arrived[round(1e9 * seconds(cloud.header.stamp))] = time.monotonic()

    def spin(done: Any, timeout: float) -> bool:
        end = time.monotonic() + timeout
        while not done() and time.monotonic() < end:
            executor.spin_once(timeout_sec=min(0.02, max(0.0, end - time.monotonic())))
        return bool(done())

    change = node.create_client(ChangeState, "scan_node/change_state")
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        ready = spin(change.service_is_ready, _PATIENCE)
        future = (
            change.call_async(ChangeState.Request(transition=Transition(id=number)))
            if ready
            else None
        )
        if future is None or not spin(future.done, _PATIENCE) or not future.result().success:
            raise RuntimeError("scan_node did not become active")
    node.create_subscription(PointCloud2, "points", take, 10)
    send = [node.create_publisher(kind, f"camera/{topic}", 10) for kind, topic in _TOPICS]
    # The node receives images once it has noticed a subscriber.
    if not spin(lambda: all(publisher.get_subscription_count() for publisher in send), _PATIENCE):
        raise RuntimeError("scan_node does not receive the camera's images")
    depth = np.full((HEIGHT, WIDTH), 1.0) + 0.1 * np.random.default_rng(0).random((HEIGHT, WIDTH))
    sent: dict[int, float] = {}
    begun = time.monotonic()
    for i in range(images):
        spin(lambda: False, begun + i / RATE - time.monotonic())
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id="camera_optical_frame")
        messages = _messages(depth, header)
        sent[round(1e9 * seconds(header.stamp))] = time.monotonic()
        for publisher, message in zip(send, messages, strict=True):
            publisher.publish(message)
    spin(lambda: len(arrived) >= images, _LAST)
    return len(sent.keys() - arrived.keys()), [
        arrived[stamp] - sent[stamp] for stamp in sent.keys() & arrived.keys()
    ]


_TOPICS = ((PoseStamped, "pose"), (CameraInfo, "depth/camera_info"), (Image, "depth/image"))


def _messages(depth: np.ndarray, header: Header) -> tuple[PoseStamped, CameraInfo, Image]:
    K = np.array([[300.0, 0.0, WIDTH / 2], [0.0, 300.0, HEIGHT / 2], [0.0, 0.0, 1.0]])
    pose = PoseStamped(
        header=Header(stamp=header.stamp, frame_id="world"), pose=pose_to_msg(np.eye(4))
    )
    return pose, intrinsics_to_info(K, HEIGHT, WIDTH, header), depth_to_image(depth, header)
