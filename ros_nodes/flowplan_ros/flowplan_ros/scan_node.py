"""Service `scan`: current depth images fused into a scene of objects on their support.

The topics of a camera are below its name: `CAMERA/depth/image` (32FC1 or 16UC1, rectified),
`CAMERA/depth/camera_info` and, unless tf2 is used, `CAMERA/pose`. Images are received only while
they are needed: during a scan, and while somebody listens to the live cloud on `points`. The
scanned scene is published for late subscribers too.

A scan is refused while the arm moves or its state is not known. The robot's own points are removed,
and fixed obstacles, which a file lists, become the scene's obstacles; the live cloud is what the
cameras see. An object in the hand is seen as an object.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
from flowplan_msgs.msg import ErrorCode
from flowplan_msgs.msg import Scene as SceneMsg
from flowplan_msgs.srv import Scan
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2
from std_msgs.msg import Header

from flowplan.robot import load_robot
from flowplan.robot.gripper import Gripper
from flowplan.scan import DepthFrame, ScanOptions
from flowplan.scene import Scene, SceneObject
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan_ros import conversions, jobs, placed_robot
from flowplan_ros.arm_history import ArmHistory, ArmOptions
from flowplan_ros.placed_robot import PlacedRobotOptions
from flowplan_ros.points import cloud_to_msg, depth_from_image, intrinsics_from_info
from flowplan_ros.server import LATCHED, Failure, ServerNode, spin
from flowplan_ros.transforms import TfPoses, TopicPoses
from flowplan_ros.worker import Canceled, Crashed, Worker

_SPARE = 5  # images that a camera may be ahead of the slowest
_DELAY = 5.0  # seconds that an image may be on its way
JOINT_STATES = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Quality of service of joint states: a late one is of no use, and a burst is kept."""


@dataclass(frozen=True)
class ScanNodeOptions(PlacedRobotOptions):
    """Parameters of scan_node. Objects are named from the robot's base outward."""

    cameras: tuple[str, ...] = ("camera",)
    """Names of the depth cameras, the prefix of their topics."""
    frame: str = "world"
    """Frame of the scene."""
    pose_source: Literal["topic", "tf"] = "topic"
    """Source of the cameras' poses: a PoseStamped on CAMERA/pose, or tf2."""
    images: Annotated[int, Interval(1, 100)] = 1
    """Images per camera in a scan; more reduce the noise."""
    image_timeout: Annotated[float, Interval(0.1, 600.0)] = 5.0
    """Seconds to wait for them."""
    slop: Annotated[float, Interval(0.0, 60.0)] = 0.1
    """Largest time between images of different cameras, seconds."""
    obstacles: str = ""
    """File of the fixed obstacles: a .toml list of boxes and meshes, or a mesh file in meters.
    Empty for none."""
    obstacle_margin: Annotated[float, Interval(0.0, 0.2)] = 0.01
    """Points nearer to a fixed obstacle than this are the obstacle's, meters."""
    warm_up_timeout: Annotated[float, Interval(1.0, 3600.0)] = 120.0
    """Seconds that loading the scanner may take."""
    arm: ArmOptions = field(default_factory=ArmOptions)
    """The robot in the images."""
    scan: ScanOptions = field(default_factory=ScanOptions)
    """Options of the fusion."""

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.check(self)
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(
                f"cameras: expected different names and at least one, got {list(self.cameras)}"
            )


class Feed:
    """Newest images of one camera while they are received, and its newest camera info."""

    def __init__(self, node: ScanNode, camera: str) -> None:
        self.camera = camera
        self.images: deque[tuple[float, Image]] = deque()  # time of arrival, image
        self._node = node
        self._info: CameraInfo | None = None
        self._subscriptions: list[Subscription] = []

    def open(self) -> None:
        """Start to receive."""
        if self._subscriptions:
            return
        self.images = deque(maxlen=self._node.options.images + _SPARE)
        for kind, topic, take in (
            (Image, "image", self._take),
            (CameraInfo, "camera_info", self._know),
        ):
            name = f"{self.camera}/depth/{topic}"
            self._subscriptions.append(
                self._node.create_subscription(kind, name, take, self._quality(name))
            )

    def _quality(self, topic: str) -> QoSProfile:
        """Quality of service of the publishers: best effort loses images of cameras that publish at
        once."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        sure = publishers and all(
            p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers
        )
        return QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE if sure else ReliabilityPolicy.BEST_EFFORT,
        )

    def close(self) -> None:
        """Stop receiving."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._info = None  # the camera may be reconfigured until it is next needed
        self.images.clear()

    def since(self, came: float) -> list[Image]:
        """Images that arrived at this time or later, oldest first."""
        return [image for when, image in self.images if when >= came]

    def nearest(self, when: float, came: float) -> list[Image]:
        """The same images, the stamp nearest to `when` first."""
        return sorted(
            self.since(came), key=lambda image: abs(conversions.seconds(image.header.stamp) - when)
        )

    def missing(self, came: float, count: int) -> str:
        """Description of what is missing; empty if nothing is."""
        got = len(self.since(came))
        lacks = [f"{self.camera}/depth/image ({got} of {count})"] if got < count else []
        lacks += [f"{self.camera}/depth/camera_info"] if self._info is None else []
        return " and ".join(lacks)

    def frame(self, image: Image) -> DepthFrame:
        """Depth frame of an image.

        Raises:
            ValueError: for an image, info or pose that cannot be used.
        """
        assert self._info is not None  # checked by `missing`
        where = f"{self.camera}/depth"
        if (image.height, image.width) != (self._info.height, self._info.width):
            raise ValueError(
                f"{where}/camera_info: is of {self._info.width} x {self._info.height} pixels, "
                f"the image of {image.width} x {image.height}; remap it to the image's own"
            )
        depth = depth_from_image(image, f"{where}/image")
        K = intrinsics_from_info(self._info, f"{where}/camera_info")
        return DepthFrame(depth, K, self._node.poses(self.camera, image.header))

    def _take(self, msg: Image) -> None:
        self.images.append((time.monotonic(), msg))
        self._node.show()

    def _know(self, msg: CameraInfo) -> None:
        self._info = msg


class ScanNode(ServerNode[ScanNodeOptions]):
    """Node that scans."""

    worker: Worker
    poses: TopicPoses | TfPoses
    _arm_joints: tuple[str, ...]
    _gripper: Gripper

    def __init__(self) -> None:
        fixed = (*placed_robot.FIXED, "cameras", "frame", "pose_source", "obstacles")
        super().__init__("scan_node", ScanNodeOptions(), leave_out=("scan.names",), fixed=fixed)
        self._feeds: list[Feed] = []
        self._history = ArmHistory(self.date, 0.0)
        self._scanning = False
        self._shown = 0.0  # arrival of the newest image in the live cloud
        self._scene = self.create_lifecycle_publisher(SceneMsg, "scene", LATCHED)
        self._scene_points = self.create_lifecycle_publisher(PointCloud2, "scene/points", LATCHED)
        self._points = self.create_lifecycle_publisher(PointCloud2, "points", 10)
        # A scan waits for images, whose callbacks are in the node's own group.
        self.create_service(
            Scan, "scan", self._serve, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.create_subscription(JointState, "joint_states", self._remember, JOINT_STATES)
        self.create_timer(0.2, self._listen)

    def configure(self) -> None:
        """Load the scanner, and connect to the cameras' poses."""
        options = self.options
        robot = load_robot(options.robot, options.X_world_base)
        self._arm_joints, self._gripper = robot.joint_names, robot.gripper
        # Images of a scan are at most as old as it waits for them, and as the network delays them.
        self._history = ArmHistory(self.date, options.image_timeout + options.arm.settle + _DELAY)
        self.poses = (
            TfPoses(self, options.frame)
            if options.pose_source == "tf"
            else TopicPoses(self, options.cameras, options.frame)
        )
        try:
            setup = partial(
                jobs.warm_scanner, options.robot, options.X_world_base, options.obstacles
            )
            self.worker = self.start_worker(setup, options.warm_up_timeout)
        except ValueError:
            self.poses.close()
            raise
        self._feeds = [Feed(self, camera) for camera in options.cameras]

    def cleanup(self) -> None:
        """Undo `configure`."""
        for feed in self._feeds:
            feed.close()
        self._feeds = []
        self.poses.close()
        self.worker.close()

    def deactivate(self) -> None:
        """End a running scan."""
        self.worker.cancel()

    def _remember(self, msg: JointState) -> None:
        """Joint states for the images to come."""
        if self.active and self.options.arm.remove:
            self._history.take(msg)

    def _listen(self) -> None:
        """Receive images while somebody needs them."""
        wanted = self.active and (self._scanning or self._points.get_subscription_count() > 0)
        for feed in self._feeds:
            feed.open() if wanted else feed.close()

    async def _serve(self, request: Scan.Request, response: Scan.Response) -> Scan.Response:
        self._scanning = True
        try:
            self.ready()
            self._listen()
            scene, header, seconds = await self._scan(request.names)
            response.scene = conversions.scene_to_msg(scene, header)
            response.scan_time = conversions.duration_to_msg(seconds)
            self._publish(scene, header, response.scene)
        except Failure as failure:
            response.error_code, response.error_msg = failure.code, str(failure)
        except Canceled:
            response.error_code, response.error_msg = (
                ErrorCode.NOT_READY,
                "the node was deactivated",
            )
        except Crashed as crash:
            response.error_code, response.error_msg = ErrorCode.INTERNAL, str(crash)
        except Exception as error:  # a service that raises never answers
            self.get_logger().error(traceback.format_exc())
            response.error_code = ErrorCode.INTERNAL
            response.error_msg = f"{type(error).__name__}: {error}; see the node's log"
        finally:
            self._scanning = False
        return response

    async def _scan(self, names: Sequence[str]) -> tuple[Scene, Header, float]:
        if len(set(names)) < len(names) or "" in names:
            raise Failure(ErrorCode.BAD_GOAL, f"names: expected different names, got {list(names)}")
        # Images of one time, as depth frames in the world.
        images = await self._images()
        try:
            frames = [feed.frame(image) for feed, taken in images for image in taken]
        except ValueError as error:
            raise Failure(ErrorCode.NO_IMAGES, str(error)) from None
        stamps = [conversions.seconds(image.header.stamp) for _, taken in images for image in taken]
        known = jobs.Known(
            self._arms(stamps), self.options.arm.margin, self.options.obstacle_margin
        )
        try:
            scene, seconds = await self.worker.call(
                jobs.scan_depth,
                *(frames, known, self.options.scan),
                on_progress=lambda fraction, word: None,
            )
        except ValueError as error:
            raise Failure(ErrorCode.NOTHING_SEEN, str(error)) from None
        # The scene is as old as its oldest image.
        stamp = min(
            (image.header.stamp for _, taken in images for image in taken), key=conversions.seconds
        )
        return self._named(scene, names), Header(stamp=stamp, frame_id=self.options.frame), seconds

    def _arms(self, stamps: Sequence[float]) -> list[tuple[FloatArray, float | None]] | None:
        """Configuration (J,) and opening of the robot at each image; None if it is out of view."""
        if not self.options.arm.remove:
            return None
        out: list[tuple[FloatArray, float | None]] = []
        for stamp in stamps:
            q = self._history.at(self._arm_joints, stamp)
            opening = self._gripper.width_at(self._history.at(self._gripper.joints, stamp))
            out.append((np.array([q[name] for name in self._arm_joints]), opening))
        return out

    def _unrest(self, came: float) -> tuple[int, str] | None:
        """Code and reason why the arm did not stand still for the images, or None.

        Raises:
            Failure: if it moved: more joint states do not undo that.
        """
        options = self.options
        if not options.arm.remove:
            return None
        stamps = [
            conversions.seconds(image.header.stamp)
            for _, taken in self._chosen(came)
            for image in taken
        ]
        unrest = self._history.unrest(self._arm_joints, min(stamps), max(stamps), options.arm)
        if unrest is None:
            return None
        if unrest.moved:
            raise Failure(ErrorCode.ARM_MOVES, f"{unrest.reason}; scan when the arm stands still")
        return ErrorCode.NO_STATE, f"joint_states: {unrest.reason}"

    async def _images(self) -> list[tuple[Feed, list[Image]]]:
        """Images of each camera from one time, received after this call."""
        options, begun = self.options, time.monotonic()

        def lacking() -> tuple[int, str] | None:
            # Enough images of every camera, close in time, with known poses.
            missing = [
                words for feed in self._feeds if (words := feed.missing(begun, options.images))
            ]
            if not missing and (apart := self._apart(begun)) > options.slop:
                missing = [
                    f"images of one time: they lie {apart:.3f} s apart (slop {options.slop:g})"
                ]
            if missing:
                return ErrorCode.NO_IMAGES, ", ".join(missing)
            try:
                for feed in self._feeds:
                    self.poses(feed.camera, feed.images[-1][1].header)
            except ValueError as error:
                return ErrorCode.NO_TRANSFORM, str(error)
            return self._unrest(begun)

        if not await self.until(lambda: not self.active or not lacking(), options.image_timeout):
            code, words = lacking() or (ErrorCode.NO_IMAGES, "images of one time")
            raise Failure(code, f"not within {options.image_timeout:g} s: {words}")
        self.ready()
        return self._chosen(begun)

    def _chosen(self, came: float) -> list[tuple[Feed, list[Image]]]:
        """Images around the latest time that all cameras share."""
        when = self._when(came)
        return [(feed, feed.nearest(when, came)[: self.options.images]) for feed in self._feeds]

    def _when(self, came: float) -> float:
        """Latest stamp for which every camera may have an image."""
        return min(conversions.seconds(feed.since(came)[-1].header.stamp) for feed in self._feeds)

    def _apart(self, came: float) -> float:
        when = self._when(came)
        return max(
            abs(conversions.seconds(feed.nearest(when, came)[0].header.stamp) - when)
            for feed in self._feeds
        )

    def _named(self, scene: Scene, names: Sequence[str]) -> Scene:
        """Objects, nearest to the robot first."""
        fixed = [obstacle.name for obstacle in scene.obstacles]
        if taken := [name for name in names if name in fixed]:
            raise Failure(
                ErrorCode.BAD_GOAL, f"names: {taken[0]!r} is a fixed obstacle; give another"
            )
        if len(scene.objects) < len(names):
            raise Failure(
                ErrorCode.NOTHING_SEEN,
                f"names: {len(names)} objects were asked for, {len(scene.objects)} seen; clear "
                "the view, or ask for fewer",
            )
        # Objects by their horizontal distance to the robot.
        here = np.asarray(self.options.base_position)

        def distance(obj: SceneObject) -> float:
            offset = obj.X_world_object[:3, 3] - here  # (3,)
            return float(np.linalg.norm(offset[:2]))

        # Requested names first, then free numbered ones.
        free = (
            name
            for name in (f"object_{i}" for i in itertools.count())
            if name not in names and name not in fixed
        )
        ordered = sorted(scene.objects, key=distance)
        called = itertools.chain(names, free)
        return replace(
            scene, objects=tuple(replace(o, name=n) for o, n in zip(ordered, called, strict=False))
        )

    def _publish(self, scene: Scene, header: Header, msg: SceneMsg) -> None:
        self._scene.publish(msg)
        vertices = np.concatenate([obj.vertices_world for obj in scene.objects])
        self._scene_points.publish(cloud_to_msg(vertices, header))

    def show(self) -> None:
        """Publish the live cloud, once per image of the slowest camera."""
        if not self._points.get_subscription_count() or any(
            not feed.since(self._shown) for feed in self._feeds
        ):
            return
        # A camera without info or image yet holds the cloud back.
        newest = [(feed, feed.images[-1][1]) for feed in self._feeds]
        if any(feed.missing(0.0, 1) for feed in self._feeds):
            return
        try:
            frames = [feed.frame(image) for feed, image in newest]
        except ValueError as error:
            self.get_logger().warning(f"points: {error}", throttle_duration_sec=5.0)
            return
        self._shown = time.monotonic()
        cloud = np.concatenate([frame.points_world[frame.depth > 0] for frame in frames])
        self._points.publish(
            cloud_to_msg(
                cloud, Header(stamp=newest[0][1].header.stamp, frame_id=self.options.frame)
            )
        )


def main() -> None:
    """Entry point."""
    spin(ScanNode)


if __name__ == "__main__":
    main()
