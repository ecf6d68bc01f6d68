"""The simulated world: frames, friction, gripping, execution, cloth. The truth is Coulomb's law and the command."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

from flowplan.geometry import exp_so3, pose
from flowplan.robot import Robot, load_robot
from flowplan.trajectory import Phase, Trajectory
from sim_envs.arm import Arm
from sim_envs.execute import ExecuteOptions, Execution, execute, link_points
from sim_envs.world import World, WorldOptions

DOWN = np.diag([1.0, -1.0, -1.0])
SIZE = 0.05
PLACE = (0.5, 0.0, SIZE / 2)
REACH = 0.04  # height of the tool when it closes


@pytest.fixture(scope="module")
def panda() -> Robot:
    return load_robot("panda")


@pytest.fixture(scope="module", params=["panda", "ur5e"])
def robot(request: pytest.FixtureRequest) -> Robot:
    return load_robot(request.param)


def box_urdf(
    folder: Path, size: tuple[float, float, float], mass: float, com: tuple[float, ...] = (0, 0, 0)
) -> Path:
    """A box whose link frame is at its center, and whose center of mass may be elsewhere."""
    path = folder / f"box_{'_'.join(map(str, (*size, mass, *com)))}.urdf"
    shape = f'<geometry><box size="{size[0]} {size[1]} {size[2]}"/></geometry>'
    i = mass * max(size) ** 2 / 6
    path.write_text(
        f'<robot name="box"><link name="box"><inertial><origin xyz="{com[0]} {com[1]} {com[2]}"/><mass value="{mass}"/>'
        f'<inertia ixx="{i}" iyy="{i}" izz="{i}" ixy="0" ixz="0" iyz="0"/></inertial>'
        f"<visual>{shape}</visual><collision>{shape}</collision></link></robot>"
    )
    return path


def trajectory(robot: Robot, waypoints: list[tuple[list[float], float, int]]) -> Trajectory:
    """Straight in joint space and smooth in time, one second between (tool position, opening, phase)."""
    rate = 100
    X = np.stack([pose(DOWN, p) for p, _, _ in waypoints])
    q = [robot.inverse_kinematics(X[:1])[0][0]]
    for goal in X[1:]:
        solution, ok = robot.inverse_kinematics(goal[None], q_near=q[-1])
        assert ok.all()
        q.append(solution[0])
    s = (np.arange(rate) + 1) / rate
    a, da = (
        (10 * s**3 - 15 * s**4 + 6 * s**5)[:, None],
        (30 * s**2 - 60 * s**3 + 30 * s**4)[:, None],
    )
    positions, velocities = [q[0][None]], [np.zeros((1, len(q[0])))]
    for q0, q1 in pairwise(q):
        positions.append(q0 + a * (q1 - q0))
        velocities.append(da * (q1 - q0))
    count = rate * (len(q) - 1) + 1
    later = np.repeat(np.arange(1, len(q)), rate)
    zeros = np.zeros(count)
    return Trajectory(
        robot.joint_names,
        np.arange(count) / rate,
        np.concatenate(positions),
        np.concatenate(velocities),
        np.zeros((count, len(q[0]))),
        np.array([waypoints[0][1], *(waypoints[i][1] for i in later)]),
        np.array([waypoints[0][2], *(waypoints[i][2] for i in later)]),
        zeros,
        zeros,
        zeros,
    )


def lift(robot: Robot, *, offset: float = 0.0) -> Trajectory:
    """Reach down, close, lift by 15 cm, hold a second, all with the tool beside the box by `offset`."""
    x, y, z = PLACE[0], PLACE[1] + offset, REACH
    low, high = [x, y, z], [x, y, z + 0.15]
    return trajectory(
        robot,
        [([x, y, z + 0.1], 0.08, 0), (low, 0.08, 0), (low, 0.0, 1), (high, 0.0, 2), (high, 0.0, 2)],
    )


def run_lift(
    robot: Robot,
    folder: Path,
    *,
    friction: float,
    mass: float = 0.2,
    offset: float = 0.0,
    box_offset: float = 0.0,
) -> tuple[Execution, float]:
    """Execute `lift` on the box; returns the log and by how much the box rose."""
    with World() as world:
        arm = Arm.add(world, robot)
        X = pose(translation=[PLACE[0], PLACE[1] + box_offset, PLACE[2]])
        box = world.load(box_urdf(folder, (SIZE,) * 3, mass), X, name="box", friction=friction)
        motion = lift(robot, offset=offset)
        arm.reset(motion.q[0], 0.08)
        track = link_points(world, box, {"box": np.eye(3) * SIZE / 2})
        done = execute(
            world, arm, motion, targets=["box"], track=track, options=ExecuteOptions(settle=0.0)
        )
        return done, float(world.link_pose(box)[2, 3] - PLACE[2])


def test_pose_is_that_of_the_link_frame_not_of_the_centre_of_mass(tmp_path: Path) -> None:
    X = pose(exp_so3([0.3, -0.5, 0.2]), [0.4, -0.2, 0.7])
    path = box_urdf(tmp_path, (0.1, 0.2, 0.3), 1.0, com=(0.03, -0.02, 0.05))
    with World() as world:
        box = world.load(path, X, name="box")
        np.testing.assert_allclose(world.link_pose(box), X, atol=1e-6)
        X = X @ pose(exp_so3([0.1, 0.2, 0.3]), [0.1, 0, 0])
        world.set_base_pose(box, X)
        np.testing.assert_allclose(world.link_pose(box, "box"), X, atol=1e-6)
        np.testing.assert_allclose(world.link_poses(box)["box"], X, atol=1e-6)


def test_simulator_and_kinematics_agree_on_every_link(robot: Robot) -> None:
    robot = replace(robot, X_world_base=pose(exp_so3([0, 0, 0.4]), [0.1, -0.2, 0.3]))
    q = robot.home + np.linspace(-0.3, 0.4, len(robot.home))
    with World() as world:
        arm = Arm.add(world, robot)
        arm.reset(q, 0.05)
        poses = world.link_poses(arm.body)
        for link, X in zip(robot.link_names, robot.fk(q[None], 0.05)[0], strict=True):
            np.testing.assert_allclose(poses[link], X, atol=2e-6, err_msg=link)
        np.testing.assert_allclose(arm.X_world_tool(), robot.tool_pose(q[None])[0], atol=2e-6)
        assert arm.width() == pytest.approx(0.05, abs=1e-6)


def test_joint_friction_of_the_urdf_is_coulomb_friction(tmp_path: Path) -> None:
    """A bar of 1 kg hinged 0.1 m from its center of mass weighs 0.981 N m on the hinge."""
    path = tmp_path / "bar.urdf"
    for friction, falls in ((0.9, True), (1.05, False)):
        path.write_text(
            '<robot name="bar"><link name="base"/><link name="bar"><inertial><origin xyz="0.1 0 0"/><mass value="1"/>'
            '<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial></link>'
            '<joint name="hinge" type="revolute"><parent link="base"/><child link="bar"/><axis xyz="0 1 0"/>'
            f'<limit lower="-3" upper="3" effort="1" velocity="1"/><dynamics friction="{friction}" damping="0"/>'
            "</joint></robot>"
        )
        with World() as world:
            bar = world.load(path, pose(translation=[0, 0, 1]), name="bar", fixed=True)
            for _ in range(240):
                world.step()
            assert (world.joint_positions(bar)["hinge"] > 0.05) == falls


def test_arm_tracks_a_fast_motion_under_gravity(robot: Robot) -> None:
    motion = trajectory(robot, [([0.5, -0.2, 0.4], 0.08, 0), ([0.45, 0.25, 0.15], 0.08, 0)])
    with World() as world:
        arm = Arm.add(world, robot)
        arm.reset(motion.q[0], 0.08)
        done = execute(world, arm, motion, targets=[], track=lambda: np.zeros((1, 3)), kind="push")
        assert done.tracking_error < 2e-3
        assert np.linalg.norm(arm.X_world_tool()[:3, 3] - [0.45, 0.25, 0.15]) < 5e-4


def test_friction_lifts_the_box_and_without_friction_it_stays(panda: Robot, tmp_path: Path) -> None:
    done, risen = run_lift(panda, tmp_path, friction=0.6)
    assert risen == pytest.approx(0.15, abs=2e-3)
    assert done.events == ()
    assert done.outcome("success") == "success"
    done, risen = run_lift(panda, tmp_path, friction=0.0)
    assert risen < 1e-3
    assert done.outcome("wrong_end_state") == "dropped"


@pytest.mark.parametrize("lost", [False, True])
def test_a_robot_that_ends_holding_holds_on_while_all_comes_to_rest(
    panda: Robot, tmp_path: Path, lost: bool
) -> None:
    """Its trajectory ends with the manipulation; what is lost after that is dropped."""
    with World() as world:
        arm = Arm.add(world, panda)
        box = world.load(
            box_urdf(tmp_path, (SIZE,) * 3, 0.2), pose(translation=PLACE), name="box", friction=0.6
        )
        motion = lift(panda, offset=0.0)
        assert int(motion.phase[-1]) == Phase.MANIPULATE
        arm.reset(motion.q[0], 0.08)
        settle = world.settle

        def settled(limit: float) -> float:
            if lost:
                world.set_base_pose(box, pose(translation=[0.3, 0.4, SIZE / 2]))
            return settle(limit)

        world.settle = settled  # type: ignore[method-assign, assignment]
        track = link_points(world, box, {"box": np.zeros((1, 3))})
        done = execute(world, arm, motion, targets=["box"], track=track)
        risen = world.link_pose(box)[2, 3] - PLACE[2]
    assert (risen > 0.14) == (not lost)
    assert [event.kind for event in done.events] == (["dropped"] if lost else [])


@pytest.mark.parametrize(("friction", "held"), [(0.14, False), (0.19, True)])
def test_slip_begins_where_coulomb_says(
    robot: Robot, tmp_path: Path, friction: float, held: bool
) -> None:
    """Two pads of 30 N hold 1 kg from mu = m g / 2 F = 0.164 on."""
    weak = replace(robot, gripper=replace(robot.gripper, force=30.0))
    done, risen = run_lift(weak, tmp_path, friction=friction, mass=1.0)
    assert (risen > 0.1) == held
    gripped = done.forces[np.flatnonzero(done.phase == 1)[-1]]
    fingers = [done.pairs.index((link, "box")) for link in robot.gripper.finger_links]
    np.testing.assert_allclose(gripped[fingers], 30.0, rtol=0.1)


def test_held_object_does_not_creep(panda: Robot, tmp_path: Path) -> None:
    done, _ = run_lift(panda, tmp_path, friction=0.6)
    last_second = done.points[done.times > done.times[-1] - 0.9]
    assert np.linalg.norm(last_second - last_second[-1], axis=-1).max() < 1e-4


def test_fingers_centre_what_they_hold(robot: Robot, tmp_path: Path) -> None:
    """The geared fingers push a box that is 1 cm off to the middle, as a real hand does."""
    done, risen = run_lift(robot, tmp_path, friction=0.6, box_offset=0.01)
    assert risen > 0.14
    assert abs(done.points[-1, :, 1].mean() - SIZE / 6) < 1.5e-3


def test_grasp_beside_the_box_is_missed(panda: Robot, tmp_path: Path) -> None:
    done, risen = run_lift(panda, tmp_path, friction=0.6, box_offset=0.12)
    assert risen < 1e-3
    assert [event.kind for event in done.events] == ["missed_grasp"]
    assert done.outcome("wrong_end_state") == "missed_grasp"


def test_one_finger_alone_holds_nothing(panda: Robot, tmp_path: Path) -> None:
    """A bar that is bolted down 2 cm beside the middle stops one finger, and with it the other."""
    motion = lift(panda)
    with World() as world:
        arm = Arm.add(world, panda)
        arm.reset(motion.q[0], 0.08)
        bar = box_urdf(tmp_path, (0.02, 0.02, 0.05), 0.2)
        world.load(bar, pose(translation=[0.5, 0.02, 0.025]), name="bar", fixed=True)
        done = execute(world, arm, motion, targets=["bar"], track=lambda: np.zeros((1, 3)))
        gripped = np.flatnonzero(done.phase == 1)[-1]
        assert done.width[gripped] > 0.05
        assert done.outcome("wrong_end_state") == "missed_grasp"
        assert "1 of 2" in done.events[0].detail


def test_wall_in_the_way_is_a_collision_and_stops_the_robot(panda: Robot, tmp_path: Path) -> None:
    motion = trajectory(panda, [([0.5, -0.2, 0.2], 0.08, 0), ([0.5, 0.25, 0.2], 0.08, 0)])
    with World() as world:
        arm = Arm.add(world, panda)
        arm.reset(motion.q[0], 0.08)
        wall = box_urdf(tmp_path, (0.4, 0.02, 0.6), 1.0)
        world.load(wall, pose(translation=[0.5, 0.12, 0.3]), name="wall", fixed=True)
        done = execute(world, arm, motion, targets=[], track=lambda: np.zeros((1, 3)), kind="push")
        assert done.outcome("wrong_end_state") == "collision"
        assert "wall" in done.events[0].detail
        assert arm.X_world_tool()[1, 3] < 0.12
        assert len(done.times) < 0.9 * 60 * motion.times[-1]


def test_push_that_never_touches_is_missed(panda: Robot, tmp_path: Path) -> None:
    motion = trajectory(
        panda,
        [
            ([0.5, -0.2, 0.2], 0, 0),
            ([0.5, -0.2, 0.2], 0, 2),
            ([0.5, -0.1, 0.2], 0, 2),
            ([0.5, -0.1, 0.2], 0, 3),
        ],
    )
    with World() as world:
        arm = Arm.add(world, panda)
        arm.reset(motion.q[0], 0.0)
        world.load(
            box_urdf(tmp_path, (0.05,) * 3, 0.2), pose(translation=[0.5, 0.3, 0.025]), name="box"
        )
        done = execute(
            world, arm, motion, targets=["box"], track=lambda: np.zeros((1, 3)), kind="push"
        )
        assert done.outcome("wrong_end_state") == "missed_grasp"


def test_same_world_same_result_bit_for_bit(panda: Robot, tmp_path: Path) -> None:
    a, _ = run_lift(panda, tmp_path, friction=0.6, offset=0.003)
    b, _ = run_lift(panda, tmp_path, friction=0.6, offset=0.003)
    for name in ("q", "points", "forces", "width"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    c, _ = run_lift(panda, tmp_path, friction=0.61, offset=0.003)
    assert not np.array_equal(a.points, c.points)


def test_rollout_is_the_shared_record(panda: Robot, tmp_path: Path) -> None:
    done, risen = run_lift(panda, tmp_path, friction=0.6)
    rollout = done.rollout("success", {"risen": risen})
    assert rollout.outcome == "success"
    assert rollout.points.shape == (len(rollout.times), 3, 3)


def cloth_obj(folder: Path, n: int = 7, size: float = 0.18) -> Path:
    """A square sheet, its vertices by rows."""
    grid = np.linspace(-size / 2, size / 2, n)
    lines = [f"v {x:.5f} {y:.5f} 0" for x in grid for y in grid]
    for i in range(n - 1):
        for j in range(n - 1):
            a, b, c, d = i * n + j + 1, i * n + j + 2, (i + 1) * n + j + 1, (i + 1) * n + j + 2
            lines += [f"f {a} {c} {b}", f"f {b} {c} {d}"]
    path = folder / "cloth.obj"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_anchor_carries_the_cloth_until_it_is_released(panda: Robot, tmp_path: Path) -> None:
    x, y = 0.5, 0.0
    corner, high = [x - 0.085, y - 0.085, 0.015], [x - 0.085, y - 0.085, 0.12]
    motion = trajectory(
        panda,
        [(high, 0.04, 0), (corner, 0.04, 0), (corner, 0.0, 1), (high, 0.0, 2), (high, 0.08, 3)],
    )
    with World(WorldOptions(deformable=True)) as world:
        arm = Arm.add(world, panda)
        arm.reset(motion.q[0], 0.04)
        cloth = world.add_cloth(cloth_obj(tmp_path), pose(translation=[x, y, 0.005]), name="cloth")
        rest = world.cloth_vertices(cloth)
        assert (
            np.linalg.norm(rest[0] - [x - 0.09, y - 0.09, 0.005]) < 1e-4
        )  # the order is the file's
        track = lambda: world.cloth_vertices(cloth)  # noqa: E731
        done = execute(
            world, arm, motion, targets=["cloth"], track=track, options=ExecuteOptions(settle=0.5)
        )
    assert done.events == ()
    lifted = done.points[np.flatnonzero(done.phase == 2)[-1]]
    assert lifted[0, 2] > 0.08
    assert lifted[-1, 2] < 0.02
    assert done.points[-1, 0, 2] < 0.04


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, p: w.load("nowhere.urdf", name="x"), "urdf_path: no such file"),
        (lambda w, p: w.load(p, name="table"), "name: 'table' is already"),
        (lambda w, p: w.load(p, name="x", friction=-1), "friction"),
        (lambda w, p: w.load(p, 2 * np.eye(4), name="x"), "X_world_base"),
        (lambda w, p: w.add_cloth(p, np.eye(4), name="x"), "deformable"),
        (lambda w, p: w.link_pose(w.load(p, name="x"), "lid"), "link: got 'lid'"),
        (
            lambda w, p: w.set_joint_positions(w.load(p, name="x"), {"hinge": 1}),
            "joint: got 'hinge'",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, call, words: str) -> None:
    path = box_urdf(tmp_path, (0.1, 0.1, 0.1), 1.0)
    with World() as world, pytest.raises(ValueError, match=words) as error:
        call(world, path)
    assert "\n" not in str(error.value)


def test_a_trajectory_that_starts_elsewhere_is_refused(panda: Robot) -> None:
    motion = lift(panda)
    with World() as world:
        arm = Arm.add(world, panda)
        with pytest.raises(ValueError, match=r"trajectory\.q\[0\]"):
            execute(world, arm, motion, targets=[], track=lambda: np.zeros((1, 3)))
