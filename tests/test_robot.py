"""Robots: files, kinematics against pinocchio and finite differences, grippers, bad input."""

import dataclasses
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pinocchio
import pytest

from flowplan.geometry import exp_so3, log_so3, pose, transform
from flowplan.robot import Robot, load_robot
from flowplan.robot.kinematics import Chain, joint_transform, nearest_turn, tree_poses
from flowplan.robot.urdf import Joint, read_urdf
from flowplan.robot.urdf_meshes import collision_hulls, primitive_mesh

NAMES = ("panda", "ur5e")


@pytest.fixture(scope="module", params=NAMES)
def robot(request: pytest.FixtureRequest) -> Robot:
    return load_robot(request.param)


def configurations(robot: Robot, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(
        robot.lower, robot.upper, (count, len(robot.joint_names))
    )


def elsewhere(robot: Robot) -> Robot:
    return dataclasses.replace(
        robot, X_world_base=pose(exp_so3([0.2, -0.3, 1.1]), [0.4, -0.5, 0.6])
    )


class Reference:
    """The same robot in pinocchio, its gripper joints held at an opening."""

    def __init__(self, robot: Robot, width: float) -> None:
        self.model = pinocchio.buildModelFromUrdf(str(robot.urdf_path))
        link = self.model.getFrameId(robot.tool_link)
        frame = self.model.frames[link]
        placement = frame.placement * pinocchio.SE3(robot.X_link_tool)
        tool = pinocchio.Frame(
            "tool", frame.parentJoint, link, placement, pinocchio.FrameType.OP_FRAME
        )
        self.tool = self.model.addFrame(tool)
        self.data = self.model.createData()
        self.columns = [
            self.model.joints[self.model.getJointId(n)].idx_v for n in robot.joint_names
        ]
        self.q = pinocchio.neutral(self.model)
        for name, value in robot.gripper.joint_positions(width).items():
            self.q[self.model.joints[self.model.getJointId(name)].idx_q] = value

    def at(self, q: np.ndarray) -> None:
        self.q[self.columns] = q
        pinocchio.framesForwardKinematics(self.model, self.data, self.q)

    def link(self, name: str) -> np.ndarray:
        return self.data.oMf[self.model.getFrameId(name)].homogeneous

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        self.q[self.columns] = q
        J = pinocchio.computeFrameJacobian(
            self.model, self.data, self.q, self.tool, pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )
        return J[:, self.columns]


def test_fk_and_jacobian_agree_with_pinocchio(robot: Robot) -> None:
    width = 0.4 * robot.gripper.max_width
    reference = Reference(robot, width)
    moved = elsewhere(robot)
    q = configurations(robot, 20)
    X, X_moved = robot.fk(q, width), moved.fk(q, width)
    X_tool, J = robot.tool_jacobian(q)
    X_tool_moved, J_moved = moved.tool_jacobian(q)
    R = moved.X_world_base[:3, :3]
    for i in range(len(q)):
        reference.at(q[i])
        for k, name in enumerate(robot.link_names):
            np.testing.assert_allclose(X[i, k], reference.link(name), atol=1e-10)
            np.testing.assert_allclose(
                X_moved[i, k], moved.X_world_base @ reference.link(name), atol=1e-10
            )
        np.testing.assert_allclose(
            X_tool[i], reference.data.oMf[reference.tool].homogeneous, atol=1e-10
        )
        np.testing.assert_allclose(X_tool_moved[i], moved.X_world_base @ X_tool[i], atol=1e-10)
        expected = reference.jacobian(q[i])
        np.testing.assert_allclose(J[i], expected, atol=1e-10)
        np.testing.assert_allclose(
            J_moved[i], np.vstack([R @ expected[:3], R @ expected[3:]]), atol=1e-10
        )
    np.testing.assert_array_equal(robot.tool_pose(q), X_tool)


def test_jacobians_are_the_derivatives(robot: Robot) -> None:
    moved = elsewhere(robot)
    q, h = configurations(robot, 6, seed=1), 1e-6
    state = moved.state(q, 0.02)
    for j in range(q.shape[1]):
        step = np.zeros(q.shape[1])
        step[j] = h
        up, down = moved.state(q + step, 0.02), moved.state(q - step, 0.02)
        np.testing.assert_allclose(
            state.sphere_jacobian[..., j], (up.centers - down.centers) / (2 * h), atol=1e-8
        )
        linear = (up.X_world_tool[:, :3, 3] - down.X_world_tool[:, :3, 3]) / (2 * h)
        turn = up.X_world_tool[:, :3, :3] @ np.swapaxes(down.X_world_tool[:, :3, :3], -1, -2)
        np.testing.assert_allclose(state.tool_jacobian[:, :3, j], linear, atol=1e-8)
        np.testing.assert_allclose(
            state.tool_jacobian[:, 3:, j], log_so3(turn) / (2 * h), atol=1e-8
        )


def test_one_pass_agrees_with_each_quantity_alone(robot: Robot) -> None:
    q = configurations(robot, 5)
    state = robot.state(q, 0.03)
    X, J = robot.tool_jacobian(q)
    centers, sphere_jacobian = robot.sphere_jacobian(q, 0.03)
    for got, expected in (
        (state.X_world_tool, X),
        (state.tool_jacobian, J),
        (state.centers, centers),
        (state.sphere_jacobian, sphere_jacobian),
        (robot.spheres(q, 0.03), centers),
    ):
        np.testing.assert_array_equal(got, expected)


def test_no_configurations_give_no_poses(robot: Robot) -> None:
    q = np.zeros((0, len(robot.joint_names)))
    state = robot.state(q)
    assert state.sphere_jacobian.shape == (0, len(robot.sphere_radius), 3, len(robot.joint_names))
    assert robot.fk(q).shape == (0, len(robot.link_names), 4, 4)
    assert state.tool_jacobian.shape == (0, 6, len(robot.joint_names))


def test_spheres_ride_on_their_links(robot: Robot) -> None:
    q = configurations(robot, 5)
    for width in (0.0, robot.gripper.max_width):
        X = robot.fk(q, width)[:, robot.sphere_link]
        expected = transform(X, robot.sphere_center[:, None])[..., 0, :]
        np.testing.assert_allclose(robot.spheres(q, width), expected, atol=1e-12)
    assert (
        np.abs(robot.spheres(q, 0.0) - robot.spheres(q)).max() > 0.01
    )  # wide open where no width is given


def test_spheres_cover_the_hulls(robot: Robot) -> None:
    for link, hull in robot.collision_meshes.items():
        on = robot.sphere_link == robot.link_names.index(link)
        points = np.concatenate([hull.sample(2000, seed=3), hull.vertices])
        gap = (
            np.linalg.norm(points[:, None] - robot.sphere_center[on], axis=-1)
            - robot.sphere_radius[on]
        )
        assert gap.min(axis=1).max() < 0.0045, link
        # and stick out of them little: the fingers and what is near them least
        offset = np.einsum("fc,fc->f", hull.face_normals, hull.triangles[:, 0])
        depth = (offset - robot.sphere_center[on] @ hull.face_normals.T).min(axis=1)
        reach = 0.006 if link in robot.gripper.finger_links else 0.035
        assert (robot.sphere_radius[on] - depth).max() < reach, link


def test_the_tool_jacobian_loses_rank_at_a_singularity(robot: Robot) -> None:
    stretched = np.zeros(len(robot.joint_names))
    _, J = robot.tool_jacobian([stretched, robot.home])
    manipulability = np.sqrt(np.maximum(np.linalg.det(J @ np.swapaxes(J, -1, -2)), 0.0))
    assert manipulability[0] < 1e-9 < 0.01 < manipulability[1]


def test_home_is_free_and_points_down(robot: Robot) -> None:
    X = robot.tool_pose(robot.home[None])[0]
    np.testing.assert_allclose(X[:3, 2], [0, 0, -1], atol=1e-5)
    assert X[0, 3] > 0.25
    centers = robot.spheres(robot.home[None])[0]
    a, b = robot.self_pairs.T
    gap = (
        np.linalg.norm(centers[a] - centers[b], axis=1)
        - robot.sphere_radius[a]
        - robot.sphere_radius[b]
    )
    assert gap.min() > 0.01


def test_prismatic_joints_and_a_fixed_joint_between() -> None:
    rng = np.random.default_rng(2)
    X = [pose(exp_so3(rng.normal(size=3)), rng.normal(size=3)) for _ in range(4)]
    axes = rng.normal(size=(4, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    kinds = ("revolute", "fixed", "prismatic", "revolute")
    joints = [Joint(f"j{i}", kinds[i], f"l{i}", f"l{i + 1}", X[i], axes[i]) for i in range(4)]
    chain = Chain(joints, ["j0", "j2", "j3"], np.eye(4), "l0")
    q = rng.normal(size=(3, 3))
    bodies = chain.bodies(q)
    tip = bodies[-1, :, :3, 3] + 0.3
    J = chain.tool_jacobian(chain.screws(bodies), tip)
    for i in range(3):
        positions = dict(zip(["j0", "j2", "j3"], q[i], strict=True))
        np.testing.assert_allclose(
            bodies[-1, i], tree_poses(joints, "l0", positions)["l4"], atol=1e-12
        )
        local = transform(np.linalg.inv(bodies[-1, i]), tip[i : i + 1])
        for k, name in enumerate(positions):
            up, down = (
                tree_poses(joints, "l0", {**positions, name: q[i, k] + h})["l4"]
                for h in (1e-6, -1e-6)
            )
            moved = (transform(up, local) - transform(down, local))[0] / 2e-6
            np.testing.assert_allclose(J[i, :3, k], moved, atol=1e-8)
            np.testing.assert_allclose(
                J[i, 3:, k], log_so3(up[:3, :3] @ down[:3, :3].T) / 2e-6, atol=1e-8
            )
    np.testing.assert_allclose(
        joint_transform(joints[2], 0.5)[:3, 3], X[2][:3, 3] + X[2][:3, :3] @ axes[2] * 0.5
    )


def test_inverse_kinematics_solves_reachable_poses(robot: Robot) -> None:
    goal = robot.tool_pose(configurations(robot, 500, seed=7))
    q, ok = robot.inverse_kinematics(goal)
    assert ok.mean() >= 0.98
    assert np.all((q >= robot.lower) & (q <= robot.upper))
    X = robot.tool_pose(q[ok])
    assert np.linalg.norm(X[:, :3, 3] - goal[ok, :3, 3], axis=1).max() < 1.1e-6
    assert (
        np.linalg.norm(log_so3(X[:, :3, :3] @ np.swapaxes(goal[ok, :3, :3], -1, -2)), axis=1).max()
        < 1.1e-5
    )
    again, _ = robot.inverse_kinematics(goal)
    np.testing.assert_array_equal(q, again)


def test_inverse_kinematics_keeps_near_and_says_no(robot: Robot) -> None:
    q = configurations(robot, 50, seed=8) * 0.9 + 0.1 * robot.home
    near = np.clip(q + 0.02, robot.lower, robot.upper)
    found, ok = robot.inverse_kinematics(robot.tool_pose(q), q_near=near)
    assert ok.all()
    assert np.median(np.abs(found - near).max(axis=1)) < 0.1
    far = pose(None, [[3.0, 0.0, 0.0]])
    found, ok = robot.inverse_kinematics(far, attempts=3)
    assert not ok.any()
    assert np.isfinite(found).all()
    none, ok = robot.inverse_kinematics(np.zeros((0, 4, 4)))
    assert none.shape == (0, len(robot.joint_names))
    assert ok.shape == (0,)


def test_whole_turns_bring_a_solution_near_within_limits() -> None:
    lower, upper = (
        np.array([-2 * np.pi, -2 * np.pi, -2.9, -np.pi]),
        np.array([2 * np.pi, 2 * np.pi, 2.9, np.pi]),
    )
    q = np.array([[0.5, 3.0, -2.8, np.pi]])
    near = np.array([[6.0, -3.0, 2.8, -3.0]])
    found = nearest_turn(q, near, lower, upper)
    np.testing.assert_allclose(found, [[0.5, 3.0 - 2 * np.pi, -2.8, -np.pi]])


def pad_faces(robot: Robot, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Pad corners (2, 8, 3) from the URDF's geometry, tool frame, and finger rotations (2, 3,
    3)."""
    X = robot.fk(robot.home[None], width)[0]
    X_tool_world = np.linalg.inv(robot.tool_pose(robot.home[None])[0])
    corners, rotations = [], []
    for link in robot.gripper.finger_links:
        X_tool_link = X_tool_world @ X[robot.link_names.index(link)]
        corners.append(transform(X_tool_link, robot.collision_meshes[link].vertices))
        rotations.append(X_tool_link[:3, :3])
    return np.array(corners, dtype=object), np.array(rotations)


def test_pads_are_width_apart_parallel_and_where_the_table_says(robot: Robot) -> None:
    gripper = robot.gripper
    for width in np.linspace(0, gripper.max_width, 31):
        (plus, minus), rotations = pad_faces(robot, width)
        assert plus[:, 1].min() - minus[:, 1].max() == pytest.approx(width, abs=1e-4)
        assert plus[:, 1].min() == pytest.approx(width / 2, abs=1e-4)
        for R in rotations:  # neither finger turns about the tool's x as it opens
            np.testing.assert_allclose(R[:, 0] * [0, 1, 1], 0, atol=1e-5)
            np.testing.assert_allclose(R[2, 1], 0, atol=1e-4)
        tip = max(plus[:, 2].max(), minus[:, 2].max())
        assert tip == pytest.approx(gripper.pad_z(width) + gripper.pad_size[1] / 2, abs=4e-4)
        assert tip <= gripper.finger_depth + 1e-4


def test_boxes_hold_the_gripper(robot: Robot) -> None:
    gripper = robot.gripper
    X_tool_world = np.linalg.inv(robot.tool_pose(robot.home[None])[0])
    for width in (0.0, 0.03, gripper.max_width):
        X, sizes = gripper.boxes(width)
        assert X.shape == (len(sizes), 4, 4)
        links = robot.fk(robot.home[None], width)[0]
        for link in gripper.finger_links:
            X_tool_link = X_tool_world @ links[robot.link_names.index(link)]
            points = transform(X_tool_link, robot.collision_meshes[link].vertices)
            local = transform(np.linalg.inv(X), points)  # (n, V, 3)
            outside = (np.abs(local) - sizes[:, None] / 2).max(axis=-1).min(axis=0)
            assert outside.max() < 0.004, link


def test_2f85_table_closes_the_linkage() -> None:
    """Coupler and follower, which the tree separates, meet at the follower's body origin.

    That is where Menagerie's model joins them.
    """
    robot = load_robot("ur5e")
    at_rest = tree_poses(robot.gripper.tree, "robotiq_base", {})
    for side in ("right", "left"):
        coupler, follower = f"robotiq_{side}_coupler", f"robotiq_{side}_follower"
        in_follower = [[0.0, 0.018, -0.0065]]
        in_coupler = transform(np.linalg.inv(at_rest[coupler]) @ at_rest[follower], in_follower)
        for width in np.linspace(0, 0.085, 31):
            X = tree_poses(robot.gripper.tree, "robotiq_base", robot.gripper.joint_positions(width))
            gap = transform(X[coupler], in_coupler) - transform(X[follower], in_follower)
            assert np.linalg.norm(gap) < 5e-5


def test_ur5e_matches_the_makers_dh_parameters() -> None:
    """Universal Robots, "DH parameters for calculations of kinematics and dynamics": UR5e."""
    robot = load_robot("ur5e")
    a = [0, -0.425, -0.3922, 0, 0, 0]
    d = [0.1625, 0, 0, 0.1333, 0.0997, 0.0996]
    alpha = [np.pi / 2, 0, 0, np.pi / 2, -np.pi / 2, 0]
    for q in configurations(robot, 10):
        X = np.diag(
            [-1.0, -1.0, 1.0, 1.0]
        )  # the maker's base frame is turned by half a turn from ROS's base_link
        for i in range(6):
            turn = pose(exp_so3([0, 0, q[i]]), [0, 0, d[i]])
            X = X @ turn @ pose(exp_so3([alpha[i], 0, 0]), [a[i], 0, 0])
        wrist = robot.fk(q[None])[0, robot.link_names.index("wrist_3_link")]
        np.testing.assert_allclose((wrist @ [0, 0.0996, 0, 1])[:3], X[:3, 3], atol=1e-8)
        np.testing.assert_allclose(wrist[:3, 1], X[:3, 2], atol=1e-8)


def test_ignored_pairs_and_self_pairs_agree(robot: Robot) -> None:
    pairs = {
        frozenset(robot.link_names[i] for i in robot.sphere_link[pair])
        for pair in np.unique(robot.self_pairs, axis=0)
    }
    assert pairs
    assert not pairs & robot.ignored_link_pairs
    assert frozenset(robot.gripper.finger_links) in robot.ignored_link_pairs
    assert frozenset((robot.base_link, robot.tool_link)) in pairs


def test_pybullet_loads_the_same_robot(robot: Robot, capfd: pytest.CaptureFixture[str]) -> None:
    bullet = pytest.importorskip("pybullet")
    client = bullet.connect(bullet.DIRECT)
    capfd.readouterr()
    try:
        body = bullet.loadURDF(str(robot.urdf_path), useFixedBase=True, physicsClientId=client)
        said = "".join(capfd.readouterr())
        assert not said, said
        infos = [
            bullet.getJointInfo(body, j, client) for j in range(bullet.getNumJoints(body, client))
        ]
        width = 0.03
        for q in configurations(robot, 3):
            positions = {
                **dict(zip(robot.joint_names, q, strict=True)),
                **robot.gripper.joint_positions(width),
            }
            for info in infos:
                if info[1].decode() in positions:
                    bullet.resetJointState(
                        body, info[0], positions[info[1].decode()], physicsClientId=client
                    )
            X = robot.fk(q[None], width)[0]
            for info in infos:
                state = bullet.getLinkState(
                    body, info[0], computeForwardKinematics=True, physicsClientId=client
                )
                k = robot.link_names.index(info[12].decode())
                np.testing.assert_allclose(state[4], X[k, :3, 3], atol=1e-5)
                R = np.reshape(bullet.getMatrixFromQuaternion(state[5]), (3, 3))
                np.testing.assert_allclose(R, X[k, :3, :3], atol=1e-5)
    finally:
        bullet.disconnect(client)


def test_limits_of_the_panda_are_the_makers() -> None:
    robot = load_robot("panda")
    np.testing.assert_allclose(
        robot.lower, [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
    )
    np.testing.assert_allclose(
        robot.upper, [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
    )


def test_loading_a_robot_loads_no_heavy_package() -> None:
    code = (
        "import sys; from flowplan.robot import load_robot; load_robot('panda');"
        "bad = {'torch', 'pybullet', 'pinocchio', 'coal', 'open3d'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --- bad input: every mistake is one line that names file and field


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the panda's files to break."""
    source = load_robot("panda").urdf_path.parent
    shutil.copytree(source, tmp_path / "panda")
    shutil.copy(source.parent / "panda.toml", tmp_path / "panda.toml")
    return tmp_path


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_robot(path)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'name = "panda"',
            'name = "panda"\ncolor = "red"',
            ["panda.toml: color: unknown key", "base_link"],
        ),
        ('base_link = "panda_link0"', "", ["panda.toml: base_link: missing"]),
        (
            'base_link = "panda_link0"',
            'base_link = "panda_link1"',
            ["base_link", "root", "panda_link0"],
        ),
        (
            'base_link = "panda_link0"',
            'base_link = "plinth"',
            ["base_link: got 'plinth'", "panda_link0"],
        ),
        ('name = "panda"', "name = 3", ["panda.toml: name: expected a non-empty string, got 3"]),
        ('"panda_joint3",', '"elbow",', ["arm.joints[2]: got 'elbow'", "panda_joint3"]),
        ('"panda_joint3",', '"panda_joint2",', ["arm.joints", "once"]),
        ('    "panda_joint1",\n', "", ["arm.lower: expected shape (6,), got (7,)"]),
        (
            '"panda_joint1",\n    "panda_joint2"',
            '"panda_joint2",\n    "panda_joint1"',
            ["arm.joints", "base to tip"],
        ),
        ("lower = [-2.8973", "lower = [2.9", ["arm.lower: 'panda_joint1'", "2.9 is not below"]),
        ("lower = [-2.8973", "lower = [-3.1", ["arm.lower: 'panda_joint1'", "wider than the URDF"]),
        ("lower = [-2.8973", "lower = [nan", ["arm.lower", "not finite"]),
        ("lower = [-2.8973", 'lower = ["a"', ["arm.lower: expected numbers"]),
        ("home = [0.0", "home = [3.0", ["arm.home: 'panda_joint1': 3 is outside"]),
        ("velocity = [2.1750", "velocity = [0.0", ["arm.velocity: expected positive"]),
        (
            '[tool]\nlink = "panda_hand"',
            '[tool]\nlink = "hand"',
            ["tool.link: got 'hand'", "panda_hand"],
        ),
        (
            '[tool]\nlink = "panda_hand"',
            '[tool]\nlink = "panda_link3"',
            ["tool.link: got 'panda_link3'"],
        ),
        ("max_width = 0.08", "max_width = -0.08", ["gripper.max_width", "positive"]),
        ("max_width = 0.08", "max_width = true", ["gripper.max_width", "True"]),
        ("max_width = 0.08", "max_width = 0.09", ["gripper.opening.width", "0.09"]),
        (
            '["panda_leftfinger", "panda_rightfinger"]',
            '["panda_leftfinger"]',
            ["gripper.finger_links", "two"],
        ),
        (
            '["panda_leftfinger", "panda_rightfinger"]',
            '["a", "b"]',
            ["gripper.finger_links[0]: got 'a'"],
        ),
        (
            "panda_finger_joint2 = [0.0, 0.04]",
            "",
            ["gripper.opening.joints.panda_finger_joint2: missing"],
        ),
        (
            "panda_finger_joint2 = [0.0, 0.04]",
            "panda_finger_joint2 = [0.0, 0.4]",
            ["joint2: [0, 0.4] leaves"],
        ),
        (
            "size = [0.064, 0.206, 0.094]",
            "size = [0.064]",
            ["gripper.boxes[0].size: expected shape (3,)"],
        ),
        (
            "[spheres]",
            "[spheres]\nforearm = [[0, 0, 0, 1]]",
            ["spheres.forearm: unknown key", "panda_link0"],
        ),
        ("[spheres]", "[spheres]\nx = ", ["panda.toml", "syntax"]),
        (
            '["panda_link0", "panda_link1"],',
            '["panda_link0", "moon"],',
            ["self_collision.ignore[0]: got 'moon'"],
        ),
        (
            '["panda_link0", "panda_link1"],',
            '["panda_link0"],',
            ["self_collision.ignore[0]", "two different"],
        ),
        ('urdf = "panda/panda.urdf"', 'urdf = "panda/none.urdf"', ["none.urdf", "cannot be read"]),
    ],
)
def test_a_wrong_robot_file_is_refused(folder: Path, old: str, new: str, words: list[str]) -> None:
    path = folder / "panda.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    message = refused(path)
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '<link name="panda_link4">',
            '<link name="other">',
            ["panda_joint4", "child link 'panda_link4'"],
        ),
        (
            '<child link="panda_link3" />',
            '<child link="panda_link2" />',
            ["panda.urdf", "tree", "panda_link2"],
        ),
        (
            'name="panda_joint4" type="revolute"',
            'name="panda_joint4" type="floating"',
            ["type 'floating'", "revolute"],
        ),
        ('<axis xyz="0 0 1" />', '<axis xyz="0 0 0" />', ["panda_joint1", "axis is zero"]),
        ('<axis xyz="0 0 1" />', '<axis xyz="0 0 up" />', ["panda_joint1", "xyz='0 0 up'"]),
        (
            "meshes/link3_hull.obj",
            "meshes/gone.obj",
            ["panda_link3", "'meshes/gone.obj' does not exist"],
        ),
        (
            "meshes/link3_white.obj",
            "meshes/gone.obj",
            ["panda_link3", "'meshes/gone.obj' does not exist"],
        ),
        ('<robot name="panda">', '<!DOCTYPE r><robot name="panda">', ["panda.urdf", "DOCTYPE"]),
        (
            "meshes/link3_hull.obj",
            "package://other/meshes/link3_hull.obj",
            ["panda_link3", "no folder 'other' with this file"],
        ),
        (
            '<box size="22e-3 15e-3 20e-3" />',
            "<cone />",
            ["panda_leftfinger", "<cone> is not supported"],
        ),
        ("</robot>", "", ["panda.urdf", "syntax"]),
        ('<robot name="panda">', '<sdf name="panda">', ["panda.urdf"]),
    ],
)
def test_a_wrong_urdf_is_refused(folder: Path, old: str, new: str, words: list[str]) -> None:
    path = folder / "panda" / "panda.urdf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    message = refused(folder / "panda.toml")
    for word in words:
        assert word in message, message


def test_shapes_of_a_link_have_sizes_poses_and_colors(tmp_path: Path) -> None:
    path = tmp_path / "thing.urdf"
    path.write_text(
        """<robot name="thing"><material name="red"><color rgba="1 0 0 0.5"/></material>
        <link name="a"><visual><origin xyz="0 0 0.1"/><geometry><box size="1 2 3"/></geometry>
        <material name="red"/></visual>
        <visual><geometry><mesh filename="absent.obj" scale="1 1 2"/></geometry>
        <material name="own"><color rgba="0 0 1 1"/></material></visual>
        <collision><geometry><cylinder radius="0.1" length="0.5"/></geometry></collision></link>
        </robot>"""
    )
    urdf = read_urdf(path)  # opens no mesh: there is none
    box, mesh = urdf.shapes("a", "visual")
    (cylinder,) = urdf.shapes("a", "collision")
    assert [s.kind for s in (box, mesh, cylinder)] == ["box", "mesh", "cylinder"]
    np.testing.assert_array_equal(box.X_link_shape, pose(None, [0, 0, 0.1]))
    np.testing.assert_array_equal(box.rgba, [1, 0, 0, 0.5])
    np.testing.assert_array_equal(mesh.rgba, [0, 0, 1, 1])
    np.testing.assert_array_equal(mesh.size, [1, 1, 2])
    assert urdf.mesh_file(mesh) == tmp_path / "absent.obj"
    assert cylinder.rgba is None
    assert primitive_mesh(cylinder).extents[2] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="mesh 'absent.obj' does not exist"):
        collision_hulls(urdf)


def test_a_broken_mesh_is_refused(folder: Path) -> None:
    (folder / "panda" / "meshes" / "link3_hull.obj").write_text("v nan nan nan\nv 0 0 0\nf 1 2 1\n")
    assert "link3_hull.obj" in refused(folder / "panda.toml")
    (folder / "panda" / "meshes" / "link3_hull.obj").write_bytes(b"\x00\xff not a mesh")
    assert "link3_hull.obj" in refused(folder / "panda.toml")


def test_unknown_robots_and_wrong_shapes_are_refused(robot: Robot, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="robot: got 'r2d2', expected one of panda, ur5e"):
        load_robot("r2d2")
    assert "cannot be read" in refused(tmp_path / "none.toml")
    with pytest.raises(ValueError, match=r"q: expected shape \(B, \d\)"):
        robot.fk(robot.home)
    with pytest.raises(ValueError, match="X_world_base"):
        load_robot("panda", np.eye(3))
    with pytest.raises(ValueError, match="q_near"):
        robot.inverse_kinematics(np.eye(4)[None], q_near=np.zeros(3))
    with pytest.raises(ValueError, match="X_world_tool"):
        robot.inverse_kinematics(np.full((1, 4, 4), np.nan))


def test_vendored_files_are_small_and_licensed() -> None:
    folder = load_robot("panda").urdf_path.parents[1]
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 4_000_000
    for name in NAMES:
        assert list((folder / name).glob("LICENSE*"))
        assert tomllib.loads((folder / f"{name}.toml").read_text())["name"] == name
        urdf = read_urdf(folder / name / f"{name}.urdf")
        used = {
            urdf.path.parent / line.split('"')[1]
            for line in urdf.path.read_text().splitlines()
            if "<mesh" in line
        }
        assert used == set(
            (folder / name / "meshes").iterdir()
        )  # nothing is vendored that no link shows
