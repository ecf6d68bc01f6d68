"""scan_node while the robot is in the images: its points go, fixed obstacles come from a file, and
an arm that moves, or whose state is not known, is no scan."""

import time

import brick
import numpy as np
import pytest
import trimesh
from flowplan_msgs.msg import ErrorCode
from flowplan_msgs.srv import Scan
from flowplan_ros import conversions, points
from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from flowplan.geometry import look_at, pose
from flowplan.robot import load_robot
from flowplan.scan import intrinsics_from_fov, render_frame
from flowplan.scene import SceneObject

PANDA = load_robot("panda")
Q = PANDA.home + np.array([0.0, 0.4, 0.0, -0.1, 0.0, 0.3, 0.0])
WIDTH = 0.03
WALL = SceneObject(
    "wall", trimesh.creation.box([0.5, 0.02, 0.2]), pose(translation=[0.5, 0.4, 0.1])
)
CELL = """
[[obstacle]]
name = "wall"
size = [0.5, 0.02, 0.2]
xyz = [0.5, 0.4, 0.1]
"""
NAN, INF = float("nan"), float("inf")


def links():
    """The robot as a camera sees it."""
    X = PANDA.fk(Q[None], WIDTH)[0]
    return [
        SceneObject(name, PANDA.collision_meshes[name], X[i])
        for i, name in enumerate(PANDA.link_names)
        if name in PANDA.collision_meshes
    ]


def views():
    table = trimesh.creation.box(bounds=[[-0.2, -0.7, -0.02], [1.2, 0.7, 0]])
    meshes = [table, *(o.mesh_world for o in (brick.brick(0.6, -0.15), WALL, *links()))]
    K = intrinsics_from_fov(320, 240, np.radians(50))
    eyes = [[0.5 + 0.7 * np.cos(a), 0.7 * np.sin(a), 0.6] for a in (-1.3, 0.0, 1.3)]
    return [
        render_frame(meshes, K, look_at(eye, [0.5, 0, 0.04]), width=320, height=240) for eye in eyes
    ]


class Cell:
    """Three cameras at 10 Hz and joint states at 100 Hz, which a test may change."""

    def __init__(self, ros):
        self.ros, self.frames, self.joints = ros, views(), lambda t: list(Q)
        self.velocity, self.shift, self.fingers, self.mute = [0.0] * 9, 0, True, False
        self.names = ["left", "front", "right"]
        make = ros.node.create_publisher
        self.cameras = [
            (
                make(Image, f"{name}/depth/image", 10),
                make(CameraInfo, f"{name}/depth/camera_info", 10),
                make(PoseStamped, f"{name}/pose", 10),
            )
            for name in self.names
        ]
        self.states = make(JointState, "joint_states", 10)
        # Conversions once, since the publishing shares a core with everything else.
        self.messages = [
            (
                points.depth_to_image(frame.depth, Header()),
                points.intrinsics_to_info(frame.intrinsics, *frame.depth.shape, Header()),
                PoseStamped(pose=conversions.pose_to_msg(frame.X_world_camera)),
            )
            for frame in self.frames
        ]
        self.timers = [
            ros.node.create_timer(0.1, self.see),
            ros.node.create_timer(0.01, self.feel),
        ]

    def see(self):
        stamp = self.ros.node.get_clock().now().to_msg()
        for publishers, messages in zip(self.cameras, self.messages, strict=True):
            for publisher, message in zip(reversed(publishers), reversed(messages), strict=True):
                frame = "world" if isinstance(message, PoseStamped) else "optical"
                message.header = Header(stamp=stamp, frame_id=frame)
                publisher.publish(message)

    def feel(self):
        if self.mute:
            return
        names = [*PANDA.joint_names, *PANDA.gripper.joints]
        width = list(PANDA.gripper.joint_positions(WIDTH).values())
        message = JointState(name=names, position=[*self.joints(time.monotonic()), *width])
        message.velocity = self.velocity
        if not self.fingers:
            message.name, message.position = names[:7], message.position[:7]
            message.velocity = self.velocity[:7]
        message.header.stamp = self.ros.node.get_clock().now().to_msg()
        message.header.stamp.sec += self.shift
        self.states.publish(message)

    def close(self):
        for timer in self.timers:
            self.ros.node.destroy_timer(timer)


@pytest.fixture(scope="module")
def ros(shared_ros):
    return shared_ros


@pytest.fixture(scope="module")
def node(shared_ros):
    folder = shared_ros.folder
    (folder / "cell.toml").write_text(CELL)
    parameters = {
        "cameras": ["left", "front", "right"],
        "image_timeout": 30.0,
        "scan.faces": 2000,
        "slop": 0.3,
        "arm.state_gap": 0.4,  # this process shares its core with the node
        "obstacles": str(folder / "cell.toml"),
    }
    process = shared_ros.start("scan_node", parameters)
    shared_ros.activate("scan_node")
    return process


@pytest.fixture
def cell(ros, node):
    made = Cell(ros)
    yield made
    made.close()


def put(ros, name, value):
    kind = {"bool_value": 1} if isinstance(value, bool) else {"double_value": 3}
    ((field, number),) = kind.items()
    parameter = Parameter(name=name, value=ParameterValue(type=number, **{field: value}))
    request = SetParameters.Request(parameters=[parameter])
    assert ros.call(SetParameters, "scan_node/set_parameters", request).results[0].successful


def scan(ros, *names):
    return ros.call(Scan, "scan", Scan.Request(names=list(names)), 90.0)


def spin(ros, seconds):
    """Publish for a while."""
    end = time.monotonic() + seconds
    ros.wait_for(lambda: time.monotonic() > end, seconds + 5, "time")


def refusal(ros, words):
    """The first answer that says these words; images may be late before."""
    answers = []

    def said():
        answers.append(scan(ros))
        return words in answers[-1].error_msg

    ros.wait_for(said, 60, words)
    return answers[-1]


def only_the_brick(response):
    assert response.error_msg == ""
    scene = conversions.scene_from_msg(response.scene)
    assert [o.name for o in scene.obstacles] == ["wall"]
    np.testing.assert_allclose(
        scene.obstacles[0].mesh_world.bounds, WALL.mesh_world.bounds, atol=1e-6
    )
    assert len(scene.objects) == 1
    np.testing.assert_allclose(
        scene.objects[0].mesh_world.bounds, brick.brick(0.6, -0.15).mesh_world.bounds, atol=8e-3
    )
    return scene


def test_the_robot_and_the_wall_in_the_images_are_no_objects(ros, cell):
    assert only_the_brick(scan(ros, "brick")).objects[0].name == "brick"
    cell.fingers = False  # an opening that is not known
    spin(ros, 0.2)
    only_the_brick(scan(ros))
    # Without the removal they are seen.
    put(ros, "arm.remove", False)
    seen = scan(ros)
    put(ros, "arm.remove", True)
    assert len(seen.scene.objects) > 1
    response = scan(ros, "wall")
    assert response.error_code == ErrorCode.BAD_GOAL
    assert response.error_msg == "names: 'wall' is a fixed obstacle; give another"


def test_an_arm_that_moves_is_no_scan(ros, cell):
    cell.joints = lambda t: [*Q[:6], Q[6] + 0.2 * np.sin(t)]
    spin(ros, 1.0)
    begun = time.monotonic()
    response = scan(ros)
    assert response.error_code == ErrorCode.ARM_MOVES
    assert response.error_msg.startswith("panda_joint7 moved by ")
    assert response.error_msg.endswith("; scan when the arm stands still")
    assert not response.scene.objects
    assert time.monotonic() - begun < 20  # at once, not after the timeout of 30 s
    # A slow motion, and one that only the driver's speed tells.
    cell.joints = lambda t: [*Q[:6], Q[6] + 0.03 * (t % 100)]
    spin(ros, 1.0)
    assert scan(ros).error_code == ErrorCode.ARM_MOVES
    cell.joints, cell.velocity = (lambda t: list(Q)), [0.0, 0.2, *[0.0] * 7]
    spin(ros, 1.5)
    response = scan(ros)
    assert response.error_code == ErrorCode.ARM_MOVES
    assert response.error_msg.startswith("panda_joint2 moves at 0.2 per second")
    cell.velocity = [0.0] * 9
    spin(ros, 1.5)
    only_the_brick(scan(ros))


def test_an_arm_whose_state_is_not_known_is_no_scan(ros, cell):
    spin(ros, 0.5)
    put(ros, "image_timeout", 2.0)
    changes = [
        ({"joints": lambda t: [*Q[:3], NAN, *Q[4:]]}, "panda_joint4 is not finite"),
        ({"joints": lambda t: [-INF, *Q[1:]]}, "panda_joint1 is not finite"),
        ({"velocity": [NAN] * 9}, "the speed of panda_joint1 is not finite"),
        ({"shift": 20}, "panda_joint1"),
        ({"shift": -20}, "panda_joint1"),
        ({"mute": True}, "panda_joint1"),
    ]
    for change, words in changes:
        before = {name: getattr(cell, name) for name in change}
        for name, value in change.items():
            setattr(cell, name, value)
        # Old states leave the window of a scan first.
        response = refusal(ros, words)
        assert response.error_code == ErrorCode.NO_STATE, (change, response.error_msg)
        assert response.error_msg.startswith("not within 2 s: joint_states: "), change
        assert "\n" not in response.error_msg
        assert not response.scene.objects
        for name, value in before.items():
            setattr(cell, name, value)
    put(ros, "image_timeout", 30.0)
    only_the_brick(scan(ros))


def test_images_without_numbers_are_no_scan(ros, cell):
    """NaN in depth, camera matrix and pose: no return, or a line that names the topic."""
    put(ros, "image_timeout", 2.0)
    image, info, stamped = cell.messages[0]
    good = image.data
    image.data = points.depth_to_image(np.full((240, 320), np.nan), Header()).data
    spin(ros, 0.3)
    put(ros, "image_timeout", 30.0)
    assert scan(ros).error_code in (ErrorCode.SUCCESS, ErrorCode.NOTHING_SEEN)  # two cameras see
    put(ros, "image_timeout", 2.0)
    image.data = good
    matrix = info.p.copy()
    for i in (0, 2, 6):
        info.p[i] = NAN
        assert refusal(ros, "left/depth/camera_info.p: ").error_code == ErrorCode.NO_IMAGES
        info.p = matrix.copy()
    for part, axis in (("position", "x"), ("orientation", "w")):
        at = getattr(stamped.pose, part)
        before = getattr(at, axis)
        setattr(at, axis, NAN)
        assert refusal(ros, "left/pose.pose").error_code == ErrorCode.NO_TRANSFORM
        setattr(at, axis, before)
    put(ros, "image_timeout", 30.0)
    spin(ros, 0.5)
    only_the_brick(scan(ros))


def test_obstacles_that_cannot_be_read_are_named(ros, tmp_path):
    process = ros.start("scan_node", {"obstacles": str(tmp_path / "none.toml")}, name="other")
    assert not ros.transition("other", 1)
    assert "none.toml: cannot be read: no such file" in process.output()
    assert process.stop() == 0
