"""scan_node in a process of its own: images in, a scene out, or what is missing."""

import time

import brick
import numpy as np
import pytest
import rclpy.time
from conftest import node_of_a_module
from flowplan_msgs.msg import ErrorCode
from flowplan_msgs.msg import Scene as SceneMsg
from flowplan_msgs.srv import Scan
from flowplan_ros import conversions, points
from flowplan_ros.server import LATCHED
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

CAMERAS = ["left", "right", "top"]


class Camera:
    """Publishes one depth frame when it is told to, or only parts of what belongs to it."""

    def __init__(self, ros, name, frame, *, info=True, pose=True, late=0.0, frame_id="world"):
        self.name, self.node, self.frame = name, ros.node, frame
        self.info, self.pose, self.late, self.frame_id = info, pose, late, frame_id
        self._depth = self.node.create_publisher(
            Image, f"{name}/depth/image", qos_profile_sensor_data
        )
        self._info = self.node.create_publisher(
            CameraInfo, f"{name}/depth/camera_info", qos_profile_sensor_data
        )
        self._pose = self.node.create_publisher(PoseStamped, f"{name}/pose", 10)

    def publish(self, now):
        stamp = rclpy.time.Time(nanoseconds=now.nanoseconds - int(1e9 * self.late)).to_msg()
        header = Header(stamp=stamp, frame_id=f"{self.name}_optical")
        if self.pose:
            pose = conversions.pose_to_msg(self.frame.X_world_camera)
            self._pose.publish(
                PoseStamped(header=Header(stamp=stamp, frame_id=self.frame_id), pose=pose)
            )
        if self.info:
            self._info.publish(
                points.intrinsics_to_info(self.frame.intrinsics, *self.frame.depth.shape, header)
            )
        self._depth.publish(points.depth_to_image(self.frame.depth, header))

    def close(self):
        for publisher in (self._depth, self._info, self._pose):
            self.node.destroy_publisher(publisher)


ros, node = node_of_a_module(
    "scan_node",
    {"cameras": CAMERAS, "image_timeout": 20.0, "scan.faces": 2000, "arm.remove": False},
)


@pytest.fixture
def cameras(ros):
    """Makes cameras that see these objects, all at the same times; keywords by camera name."""
    made = []

    def make(*objects, **more):
        frames = brick.views(objects, len(CAMERAS))
        made.extend(
            Camera(ros, name, frame, **more.get(name, {}))
            for name, frame in zip(CAMERAS, frames, strict=True)
        )

    def publish():
        now = ros.node.get_clock().now()
        for camera in made:
            camera.publish(now)

    timer = ros.node.create_timer(0.05, publish)
    yield make
    ros.node.destroy_timer(timer)
    for camera in made:
        camera.close()


def scan(ros, *names, timeout=60.0):
    return ros.call(Scan, "scan", Scan.Request(names=list(names)), timeout)


def set_timeout(ros, seconds):
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    value = Parameter(name="image_timeout", value=ParameterValue(type=3, double_value=seconds))
    assert (
        ros.call(
            SetParameters, "scan_node/set_parameters", SetParameters.Request(parameters=[value])
        )
        .results[0]
        .successful
    )


def test_a_camera_whose_pose_never_came_is_named(ros, node, cameras):
    """The first test of all: a pose that came once is kept."""
    cameras(brick.brick(), right={"pose": False})
    set_timeout(ros, 1.5)
    response = scan(ros)
    set_timeout(ros, 20.0)
    assert response.error_code == ErrorCode.NO_TRANSFORM
    assert (
        "right/pose: nothing came; publish the camera's pose, or set pose_source to tf"
        in response.error_msg
    )


def test_three_cameras_see_two_bricks_named_from_the_robot_outwards(ros, node, cameras):
    near, far = brick.brick(0.4, 0.1), brick.brick(0.65, -0.1, name="other")
    cameras(far, near)
    response = scan(ros, "near")
    assert (response.error_code, response.error_msg) == (ErrorCode.SUCCESS, "")
    scene = conversions.scene_from_msg(response.scene)
    assert [obj.name for obj in scene.objects] == ["near", "object_0"]
    assert scene.support_height == pytest.approx(0.0, abs=2e-3)
    for seen, true in zip(scene.objects, (near, far), strict=True):
        np.testing.assert_allclose(seen.mesh_world.bounds, true.mesh_world.bounds, atol=6e-3)
    assert response.scene.header.frame_id == "world"
    assert response.scene.header.stamp.sec > 0
    assert conversions.seconds(response.scan_time) > 0


def test_who_comes_late_gets_the_scene_that_there_is(ros, node, cameras):
    cameras(brick.brick())
    scanned = scan(ros).scene
    scenes = ros.subscribe(SceneMsg, "scene", LATCHED)
    clouds = ros.subscribe(PointCloud2, "scene/points", LATCHED)
    ros.wait_for(lambda: scenes and clouds)
    assert scenes[-1] == scanned
    vertices = conversions.scene_from_msg(scanned).objects[0].vertices_world
    np.testing.assert_allclose(points.cloud_from_msg(clouds[-1]), vertices, atol=1e-6)


def test_images_are_received_only_while_somebody_needs_them(ros, node, cameras):
    cameras(brick.brick())
    scan(ros)
    ros.wait_for(lambda: ros.node.count_subscribers("left/depth/image") == 0)
    clouds = ros.subscribe(PointCloud2, "points", 10)
    ros.wait_for(lambda: len(clouds) > 3)
    seen = points.cloud_from_msg(clouds[-1])
    assert seen[:, 2].min() > -0.03
    assert seen[:, 2].max() == pytest.approx(brick.SIZE[2], abs=2e-3)
    assert len(seen) > 100_000
    ros.node.destroy_subscription(
        next(s for s in ros.node.subscriptions if s.topic_name == "/points")
    )
    ros.wait_for(lambda: ros.node.count_subscribers("left/depth/image") == 0)


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ({"top": {"info": False}}, ErrorCode.NO_IMAGES, "top/depth/camera_info"),
        ({"left": {"late": 5.0}}, ErrorCode.NO_IMAGES, "images of one time: they lie "),
        (
            {"left": {"frame_id": "map"}},
            ErrorCode.NO_TRANSFORM,
            "left/pose.header.frame_id: got 'map', expected 'world'",
        ),
    ],
)
def test_what_is_missing_is_said(ros, node, cameras, faults, code, words):
    cameras(brick.brick(), **faults)
    set_timeout(ros, 1.5)
    responses = []

    def refused():
        # A pose that came before is known until the camera's own arrives.
        responses.append(scan(ros))
        return responses[-1].error_code == code

    ros.wait_for(refused)
    set_timeout(ros, 20.0)
    response = responses[-1]
    assert response.error_msg.startswith("not within 1.5 s: ")
    assert words in response.error_msg
    assert not response.scene.objects


def test_silent_cameras_are_named(ros, node):
    # What the cameras of another test sent is forgotten when nobody listens.
    topics = [f"{camera}/depth/{topic}" for camera in CAMERAS for topic in ("image", "camera_info")]
    ros.wait_for(lambda: not any(ros.node.count_subscribers(topic) for topic in topics))
    set_timeout(ros, 0.3)
    response = scan(ros)
    set_timeout(ros, 20.0)
    assert response.error_code == ErrorCode.NO_IMAGES
    for camera in CAMERAS:
        assert f"{camera}/depth/image (0 of 1) and {camera}/depth/camera_info" in response.error_msg


def test_images_that_cannot_be_used_are_named(ros, node, cameras):
    cameras(brick.brick())
    wrong = ros.node.create_publisher(CameraInfo, "left/depth/camera_info", qos_profile_sensor_data)
    info = points.intrinsics_to_info(
        brick.views((brick.brick(),), 1)[0].intrinsics, 480, 640, Header()
    )
    timer = ros.node.create_timer(0.002, lambda: wrong.publish(info))
    ros.wait_for(
        lambda: (
            "left/depth/camera_info: is of 640 x 480 pixels, the image of 320 x 240"
            in scan(ros).error_msg
        )
    )
    ros.node.destroy_timer(timer)
    ros.node.destroy_publisher(wrong)


def test_an_empty_table_and_too_many_names_are_said(ros, node, cameras):
    assert scan(ros, "a", "a").error_code == ErrorCode.BAD_GOAL
    cameras(brick.brick())
    response = scan(ros, "a", "b")
    assert response.error_code == ErrorCode.NOTHING_SEEN
    assert response.error_msg.startswith("names: 2 objects were asked for, 1 seen")


def test_nothing_on_the_table_is_nothing_seen(ros, node, cameras):
    cameras()
    response = scan(ros)
    assert response.error_code == ErrorCode.NOTHING_SEEN
    assert "no object above the support" in response.error_msg


def test_an_inactive_node_says_so_even_in_the_middle_of_a_scan(ros, node):
    waiting = ros.service(Scan, "scan").call_async(Scan.Request())
    ros.wait_for(lambda: ros.node.count_subscribers("left/depth/image") == 1)  # it waits for images
    assert ros.transition("scan_node", 4)
    assert ros.wait(waiting).error_code == ErrorCode.NOT_READY
    begun = time.monotonic()
    response = scan(ros)
    assert response.error_msg == "scan_node is not active; configure and activate it"
    assert time.monotonic() - begun < 10
    assert node.stop() == 0


def test_without_tf2_its_poses_cannot_be_had(ros):
    process = ros.start("scan_node", {"pose_source": "tf"}, name="other", remap={"__ns": "/other"})
    assert not ros.transition("/other/other", 1)
    assert (
        "pose_source: no tf2_ros; install ros-DISTRO-tf2-ros-py, or set it to topic"
        in process.output()
    )
    assert process.stop() == 0
