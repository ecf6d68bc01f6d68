"""What crosses the wire comes back, and what does not fit names the field."""

import array
from dataclasses import replace

import brick
import numpy as np
import pytest
import trimesh
from flowplan_msgs import msg as messages
from flowplan_ros import conversions, points
from flowplan_ros.digest import digest
from geometry_msgs.msg import Pose
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField
from std_msgs.msg import Header

from flowplan.geometry import exp_so3, pose
from flowplan.grasp import ContactCandidates
from flowplan.laws import Hinge, Rigid
from flowplan.motion import ObjectFlow, sample_flow
from flowplan.planner import Attempt
from flowplan.scene import Action, Observation, Prompt, Scene, SceneObject
from flowplan.trajectory import Trajectory

ROUND = 1e-6  # single precision at a meter, in meters


def sent(msg):
    """The message as it arrives: through the wire's own encoding."""
    return deserialize_message(serialize_message(msg), type(msg))


def test_a_scene_comes_back():
    colored = trimesh.creation.icosphere(2)
    colored.visual = trimesh.visual.ColorVisuals(
        colored, vertex_colors=np.arange(len(colored.vertices) * 3).reshape(-1, 3) % 256
    )
    ball = SceneObject("ball", colored, pose(exp_so3([0.3, -2.0, 1.0]), [1, 2, 3]))
    scene = Scene((brick.brick(), ball), 0.25, (brick.brick(0.7, name="wall"),))
    back = conversions.scene_from_msg(sent(conversions.scene_to_msg(scene, brick.WORLD)))
    assert [o.name for o in back.objects] == ["brick", "ball"]
    assert [o.name for o in back.obstacles] == ["wall"]
    assert back.support_height == 0.25
    for a, b in zip(scene.objects + scene.obstacles, back.objects + back.obstacles, strict=True):
        np.testing.assert_allclose(b.vertices_world, a.vertices_world, atol=ROUND)
        np.testing.assert_array_equal(b.mesh.faces, a.mesh.faces)
        np.testing.assert_allclose(b.X_world_object, a.X_world_object, atol=1e-12)
    np.testing.assert_array_equal(
        back.objects[1].mesh.visual.vertex_colors, colored.visual.vertex_colors
    )
    assert back.objects[0].mesh.visual.kind is None


@pytest.mark.parametrize("deformable", [None, False, True])
def test_an_object_stays_cloth_or_rigid_or_unknown(deformable):
    obj = replace(brick.brick(), deformable=deformable)
    message = sent(conversions.scene_to_msg(Scene((obj,), 0.0), brick.WORLD))
    assert conversions.scene_from_msg(message).objects[0].deformable is deformable
    message.objects[0].deformable = 3
    with pytest.raises(ValueError, match=r"objects\[0\].deformable: expected UNKNOWN \(0\)"):
        conversions.scene_from_msg(message)


def test_a_scene_without_support_comes_back():
    back = conversions.scene_from_msg(
        conversions.scene_to_msg(Scene((brick.brick(),), None), brick.WORLD)
    )
    assert back.support_height is None


def test_motion_and_flow_come_back():
    scene, motion = brick.scene(), brick.carried()
    back = conversions.motion_from_msg(
        sent(conversions.motion_to_msg(motion, scene, brick.WORLD)), scene
    )
    np.testing.assert_array_equal(back.times, motion.times)
    np.testing.assert_allclose(back.vertices[0], motion.vertices[0], atol=ROUND)
    flow = sample_flow(scene, motion, points_per_object=50)
    faint = ObjectFlow(flow.times, flow.points, 0.5 * flow.confidence, flow.object_id)
    again = conversions.flow_from_msg(sent(conversions.flow_to_msg(faint, brick.WORLD)))
    np.testing.assert_allclose(again.points, flow.points, atol=ROUND)
    np.testing.assert_array_equal(again.confidence, faint.confidence)
    np.testing.assert_array_equal(again.object_id, flow.object_id)


def test_instructions_come_back():
    scene = brick.scene()

    def back(instruction):
        return conversions.instruction_from_msg(
            sent(conversions.instruction_to_msg(instruction)), scene
        )

    assert back(Prompt("lift it")) == ((), Prompt("lift it"))
    _, action = back(brick.carry())
    np.testing.assert_array_equal(action.targets, brick.carry().targets)
    assert (action.object, action.duration, action.forces, action.velocities) == (
        "brick",
        3.0,
        None,
        None,
    )
    pushed = Action("brick", brick.handles(), forces=np.ones((6, 3)))
    _, action = back(pushed)
    np.testing.assert_array_equal(action.forces, pushed.forces)
    assert action.targets is None
    clouds = (np.zeros((5, 3)), np.full((7, 3), 0.5))
    _, seen = back(Observation("brick", np.array([0, 0.5]), clouds))
    assert isinstance(seen, Observation)
    np.testing.assert_array_equal(seen.clouds[1], clouds[1])
    laws, action = conversions.instruction_from_msg(
        conversions.document_to_msg(brick.document(prompt="aside")), scene
    )
    assert isinstance(laws[0], Rigid)
    assert isinstance(action, Action)


def test_a_document_with_a_sentence_can_be_taken_at_its_word():
    sentence = conversions.as_prompt(
        conversions.document_to_msg(brick.document(prompt="move the brick aside"))
    )
    assert conversions.instruction_from_msg(sentence, brick.scene()) == (
        (),
        Prompt("move the brick aside"),
    )
    for other in (
        conversions.document_to_msg(brick.document()),
        conversions.instruction_to_msg(Prompt("go")),
    ):
        assert conversions.as_prompt(other) == other


def test_a_document_may_list_the_points_of_the_moving_link():
    scene = brick.scene()
    law = {
        "kind": "hinge",
        "axis_point": [0, 0, 0],
        "axis": [0, 0, 1],
        "part": [[0, 0, 1]],
        "rest": [[0, 0, 0]],
    }
    laws, _ = conversions.instruction_from_msg(
        conversions.document_to_msg(brick.document(law=law)), scene
    )
    assert isinstance(laws[0], Hinge)
    np.testing.assert_array_equal(laws[0].part, [[0, 0, 1]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m, "kind", 9), r"instruction: kind: got 9"),
        (lambda m: setattr(m, "object", "cup"), r"instruction: object: got 'cup'"),
        (lambda m: setattr(m, "handles", []), r"instruction: handles: expected at least one point"),
        (
            lambda m: setattr(m, "targets", m.targets[:2]),
            r"instruction: Action.targets: expected shape \(6, 3\)",
        ),
        (lambda m: setattr(m, "duration", -1.0), r"instruction: Action.duration"),
    ],
)
def test_a_wrong_action_is_named(change, words):
    msg = conversions.instruction_to_msg(brick.carry())
    change(msg)
    with pytest.raises(ValueError, match=words):
        conversions.instruction_from_msg(msg, brick.scene())


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"object": "cup"}', '{"object": "brick"}', '{"object": "brick", "x": 1}']
)
def test_a_wrong_document_is_named(text):
    with pytest.raises(ValueError, match="instruction.text: "):
        conversions.instruction_from_msg(conversions.document_to_msg(text), brick.scene())


def test_wrong_scenes_are_named():
    def scene(**changes):
        msg = conversions.scene_to_msg(brick.scene(), brick.WORLD)
        for name, value in changes.items():
            setattr(msg.objects[0], name, value)
        return msg

    for changes, words in [
        (
            {"vertices": array.array("f", [0, 0])},
            r"scene.objects\[0\].vertices: expected a multiple of 3",
        ),
        (
            {"triangles": array.array("I", [0, 1, 9999])},
            r"objects\[0\].triangles: expected indices below 98.*got 9999",
        ),
        (
            {"triangles": array.array("I")},
            "triangles: expected indices below 98, the number of vertices, got none",
        ),
        ({"colors": array.array("B", [0, 0, 0])}, r"colors: expected 98, one a vertex"),
        (
            {"vertices": array.array("f", [float("nan")] * 98 * 3)},
            r"mesh: vertices are not all finite",
        ),
    ]:
        with pytest.raises(ValueError, match=words):
            conversions.scene_from_msg(scene(**changes))
    flat = scene()
    flat.objects[0].pose.orientation.w = 0.0
    with pytest.raises(
        ValueError,
        match=r"scene.objects\[0\].pose.orientation: expected a unit quaternion, got length 0",
    ):
        conversions.scene_from_msg(flat)
    with pytest.raises(ValueError, match="scene.objects: expected at least one object"):
        conversions.scene_from_msg(messages.Scene())
    with pytest.raises(ValueError, match=r"scene.header.frame_id: got 'world', expected 'map'"):
        conversions.frame_of(scene().header, "map", "scene")


def test_wrong_motions_and_flows_are_named():
    scene, motion = brick.scene(), brick.carried()
    msg = conversions.motion_to_msg(motion, scene, brick.WORLD)
    msg.objects[0].vertices = msg.objects[0].vertices[:-3]
    with pytest.raises(ValueError, match=r"motion.objects\[0\].vertices: expected 12054 numbers"):
        conversions.motion_from_msg(msg, scene)
    msg.objects[0].name = "cup"
    with pytest.raises(
        ValueError, match="motion.objects: expected brick, as the scene has them, got"
    ):
        conversions.motion_from_msg(msg, scene)
    flow = conversions.flow_to_msg(sample_flow(scene, motion, points_per_object=5), brick.WORLD)
    flow.points = 6
    with pytest.raises(
        ValueError, match="flow.positions: expected 738 numbers for 41 times and 6 points, got 615"
    ):
        conversions.flow_from_msg(flow)


def plan_msg() -> messages.CertifiedPlan:
    """A plan as the wire has it, of made-up numbers."""
    rng = np.random.default_rng(0)
    S, J = 20, 7
    names = tuple(f"joint{i}" for i in range(J))
    t = Trajectory(
        names,
        np.linspace(0, 2, S),
        *rng.normal(size=(3, S, J)),
        grip=rng.random(S),
        phase=np.sort(rng.integers(0, 5, S)),
        position_error=rng.random(S),
        rotation_error=rng.random(S),
        clearance=rng.random(S),
    )
    grasp = ContactCandidates(pose()[None], np.array([0.04]), np.array([1.0]), ("push",))
    msg = messages.CertifiedPlan(
        header=Header(frame_id="world"),
        robot="panda",
        trajectory=conversions.trajectory_to_msg(t),
        phase=points.buffer("B", t.phase),
        certified_clearance=0.01,
        grasp=conversions.grasps_to_msg(grasp, brick.WORLD),
    )
    for name in ("grip", "position_error", "rotation_error", "clearance"):
        setattr(msg, name, points.buffer("d", getattr(t, name)))
    msg.digest = digest(msg)
    return msg


def test_a_trajectory_comes_back():
    msg = plan_msg()
    t = conversions.trajectory_from_msg(sent(msg))
    assert t.joint_names == tuple(msg.trajectory.joint_names)
    np.testing.assert_allclose(t.times, np.linspace(0, 2, 20), atol=1e-9)
    np.testing.assert_array_equal(t.q[3], msg.trajectory.points[3].positions)
    np.testing.assert_array_equal(t.phase, np.asarray(msg.phase))
    grasp = conversions.grasps_from_msg(sent(msg).grasp)
    assert grasp.kind == ("push",)
    np.testing.assert_array_equal(grasp.width, [0.04])


def test_the_digest_survives_the_wire_and_nothing_else_does():
    msg = plan_msg()
    assert digest(sent(msg)) == msg.digest
    for change in (
        lambda m: setattr(m.header.stamp, "nanosec", 1),
        lambda m: setattr(m, "robot", "ur5e"),
        lambda m: m.trajectory.points[7].positions.__setitem__(
            2, np.nextafter(m.trajectory.points[7].positions[2], 9)
        ),
        lambda m: setattr(m.trajectory.points[7].time_from_start, "nanosec", 1),
        lambda m: m.trajectory.points.pop(),
        lambda m: m.trajectory.joint_names.reverse(),
        lambda m: m.phase.__setitem__(0, 4),
        lambda m: m.grip.append(0.0),
        lambda m: setattr(m, "certified_clearance", 0.02),
        lambda m: setattr(m.grasp.tool_poses[0].position, "x", 1e-9),
        lambda m: m.grasp.kinds.__setitem__(0, 0),
    ):
        altered = sent(msg)
        change(altered)
        assert digest(altered) != msg.digest
    # What moves from the end of one field to the beginning of the next is another plan.
    altered = sent(msg)
    altered.rotation_error.insert(0, altered.position_error.pop())
    assert digest(altered) != msg.digest


def test_wrong_trajectories_are_named():
    msg = plan_msg()
    msg.trajectory.points[4].velocities = array.array("d", [0.0])
    with pytest.raises(
        ValueError, match=r"plan.trajectory.points\[4\].velocities: expected 7 numbers"
    ):
        conversions.trajectory_from_msg(msg)
    msg = plan_msg()
    msg.grip = msg.grip[:3]
    with pytest.raises(ValueError, match="plan.grip: expected 20 numbers, one a point, got 3"):
        conversions.trajectory_from_msg(msg)


def test_an_attempt_is_said_in_full():
    attempt = Attempt(3, "push", "track", "why", "what to do", slip=0.01, time=0.5)
    msg = sent(conversions.attempt_to_msg(attempt))
    assert (msg.contact, msg.kind, msg.stage, msg.reason, msg.remedy) == (
        3,
        "push",
        "track",
        "why",
        "what to do",
    )
    assert (msg.slip, msg.reachable, msg.time) == (0.01, -1.0, 0.5)


def test_joint_states_go_by_name():
    msg = JointState(name=["finger", "b", "a"], position=[0.04, 2.0, 1.0])
    np.testing.assert_array_equal(conversions.positions_from_joint_state(msg, ["a", "b"]), [1, 2])
    with pytest.raises(ValueError, match="joint_states.name: lacks 'c'"):
        conversions.positions_from_joint_state(msg, ["a", "c"])
    with pytest.raises(
        ValueError, match="joint_states.position: expected 3 numbers, one a name, got 0"
    ):
        conversions.positions_from_joint_state(JointState(name=["a", "b", "c"]), ["a"])
    with pytest.raises(ValueError, match="joint_states.position: 1 of 1 values are not finite"):
        conversions.positions_from_joint_state(
            JointState(name=["a"], position=[float("nan")]), ["a"]
        )


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.1, 59.999999999, 1e6])
def test_durations_keep_their_nanoseconds(seconds):
    assert conversions.seconds(conversions.duration_to_msg(seconds)) == pytest.approx(
        seconds, abs=1e-9
    )


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, np.pi - 1e-9, np.pi])
def test_poses_come_back_near_half_turns_too(angle):
    X = pose(exp_so3(angle * np.array([0.6, 0.0, 0.8])), [1, -2, 3])
    np.testing.assert_allclose(conversions.pose_from_msg(conversions.pose_to_msg(X)), X, atol=1e-12)
    bad = Pose()
    bad.position.x = float("inf")
    with pytest.raises(ValueError, match="pose: 1 of 16 values"):
        conversions.pose_from_msg(bad)


# -- Points and images


def test_a_cloud_comes_back_and_others_are_read():
    xyz = np.random.default_rng(0).normal(size=(100, 3))
    msg = points.cloud_to_msg(xyz, brick.WORLD, colors=np.full((100, 3), 200))
    np.testing.assert_allclose(points.cloud_from_msg(sent(msg)), xyz, atol=ROUND)
    # Organized, padded rows, doubles in another order, big-endian, with holes.
    row = np.dtype(
        {
            "names": ["z", "i", "x", "y"],
            "formats": [">f8", ">u2", ">f8", ">f8"],
            "offsets": [0, 8, 16, 24],
            "itemsize": 40,
        }
    )
    table = np.zeros((2, 3), row)
    for name, column in zip("xyz", xyz[:6].T, strict=True):
        table[name] = column.reshape(2, 3)
    table["x"][1, 2] = np.nan
    padded = np.zeros((2, 130), np.uint8)
    padded[:, :120] = table.view(np.uint8).reshape(2, 120)
    other = PointCloud2(height=2, width=3, is_bigendian=True, point_step=40, row_step=130)
    offsets = {"x": 16, "y": 24, "z": 0}
    other.fields = [
        PointField(name=n, offset=o, datatype=PointField.FLOAT64, count=1)
        for n, o in offsets.items()
    ]
    other.data = points.buffer("B", padded)
    np.testing.assert_array_equal(points.cloud_from_msg(other), xyz[:5])
    other.data = other.data[:-1]
    with pytest.raises(ValueError, match=r"clouds\[1\].data: expected 260 bytes"):
        points.cloud_from_msg(other, "clouds[1]")
    other.fields = other.fields[:2]
    with pytest.raises(ValueError, match="cloud.fields: expected x, y and z"):
        points.cloud_from_msg(other)


def test_depth_images_come_back_and_millimetres_are_read():
    depth = np.linspace(0, 3, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(
        points.depth_from_image(sent(points.depth_to_image(depth, brick.WORLD))), depth
    )
    holes = np.array([[np.nan, np.inf], [-1, 2]], np.float32)
    np.testing.assert_array_equal(
        points.depth_from_image(points.depth_to_image(holes, brick.WORLD)), [[0, 0], [0, 2]]
    )
    padded = np.zeros((2, 4), ">u2")
    padded[:, :3] = [[0, 500, 1000], [1500, 2000, 65535]]
    msg = Image(height=2, width=3, step=8, encoding="16UC1", is_bigendian=1)
    msg.data = points.buffer("B", padded.view(np.uint8))
    np.testing.assert_allclose(
        points.depth_from_image(msg), [[0, 0.5, 1], [1.5, 2, 65.535]], rtol=1e-6
    )
    msg.step = 7
    with pytest.raises(
        ValueError, match="depth.data: expected 2 rows of 7 bytes for 3 pixels, got 16"
    ):
        points.depth_from_image(msg, "depth")
    msg.encoding = "rgb8"
    with pytest.raises(
        ValueError, match="image.encoding: got 'rgb8', expected one of 32FC1, 16UC1"
    ):
        points.depth_from_image(msg)


def test_the_matrix_of_a_rectified_image_is_that_of_p():
    K = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    P = np.array([[280.0, 0, 150, -28.0], [0, 280, 118, 0], [0, 0, 1, 0]])
    info = CameraInfo(k=K.ravel(), p=P.ravel())
    np.testing.assert_array_equal(points.intrinsics_from_info(info), P[:, :3])
    info = CameraInfo(k=np.eye(3).ravel(), p=P.ravel())  # drivers of rectified topics do this
    np.testing.assert_array_equal(points.intrinsics_from_info(info), P[:, :3])
    np.testing.assert_array_equal(points.intrinsics_from_info(CameraInfo(k=K.ravel())), K)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_camera_matrix_without_numbers_is_refused(value):
    K = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    for i in range(12):
        P = np.c_[K, np.zeros(3)].ravel()
        P[i] = value
        with pytest.raises(ValueError, match=r"camera_info\.p: "):
            points.intrinsics_from_info(CameraInfo(k=K.ravel(), p=P))
    for i in range(9):
        k = K.ravel().copy()
        k[i] = value
        with pytest.raises(ValueError, match=r"camera_info\.k: "):
            points.intrinsics_from_info(CameraInfo(k=k))


def test_depth_without_numbers_is_no_return():
    depth = np.array([[np.nan, np.inf, -np.inf], [-1.0, 0.0, 0.5]], np.float32)
    back = points.depth_from_image(points.depth_to_image(depth, brick.WORLD))
    np.testing.assert_array_equal(back, [[0, 0, 0], [0, 0, 0.5]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["position.x", "position.z", "orientation.x", "orientation.w"])
def test_a_pose_without_numbers_is_refused(part, value):
    pose_msg = Pose()
    setattr(getattr(pose_msg, part.split(".")[0]), part[-1], float(value))
    with pytest.raises(ValueError, match=r"left/pose\.pose"):
        conversions.pose_from_msg(pose_msg, "left/pose.pose")


def test_camera_info_comes_back_and_has_to_be_of_a_rectified_image():
    K = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
    msg = sent(points.intrinsics_to_info(K, 240, 320, brick.WORLD))
    np.testing.assert_array_equal(points.intrinsics_from_info(msg), K)
    for distortion in (0.1, float("nan"), float("inf")):
        msg.d = [distortion, 0.0, 0.0, 0.0, 0.0]
        with pytest.raises(ValueError, match="camera_info.d: expected a rectified image"):
            points.intrinsics_from_info(msg)
    with pytest.raises(ValueError, match="camera_info.k: expected a camera matrix"):
        points.intrinsics_from_info(CameraInfo())
