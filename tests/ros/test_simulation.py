"""The simulated robot without ROS: the controllers drive the physics, the cameras' own world is
that of the robot."""

import json
import os
import signal
import time

import numpy as np
import pytest
import trimesh
from flowplan_sim_hw.cameras import CameraOptions, Cameras
from flowplan_sim_hw.document import task_document
from flowplan_sim_hw.gripper import GripperOptions
from flowplan_sim_hw.pace import Pace
from flowplan_sim_hw.simulation import RIGID_TASKS, Episode, Faults, Simulation
from flowplan_sim_hw.trajectory_controller import ControllerOptions, Status
from flowplan_sim_hw.trajectory_goal import TrajectoryGoal, Waypoint

from flowplan.io.instruction import parse_instruction
from flowplan.scene import Scene, SceneObject
from sim_envs.camera import Camera, capture
from sim_envs.scan_views import viewpoints
from sim_envs.task import TaskSetup
from sim_envs.tasks import TASKS
from sim_envs.world import World

EPISODE = Episode("close_laptop", "panda", 3)
ARM = ControllerOptions(command_velocities=True, trajectory=0.2, goal=0.02)


@pytest.fixture
def simulation():
    made = Simulation(EPISODE, ARM, GripperOptions())
    yield made
    made.close()


def move(simulation, change, seconds=1.0):
    """Move every joint by `change` rad."""
    q = simulation.arm.q() + change
    goal = TrajectoryGoal(simulation.joints.joint_names, [Waypoint(seconds, q, np.zeros(7))])
    return run(simulation, simulation.joints.accept(goal)), q


def run(simulation, handle):
    end = simulation.time + 10
    while handle.status is Status.EXECUTING and simulation.time < end:
        simulation.step()
    return handle


def test_the_controller_moves_the_arm_by_its_motors(simulation):
    began = simulation.time
    handle, q = move(simulation, 0.3)
    assert handle.status is Status.SUCCEEDED
    assert simulation.time - began == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(simulation.arm.q(), q, atol=1e-3)


def test_the_fingers_go_where_they_are_told(simulation):
    handle = run(simulation, simulation.gripper.accept(0.03))
    assert handle.reached_goal
    assert simulation.arm.width() == pytest.approx(0.03, abs=0.002)


def test_fingers_that_meet_something_press_no_harder_than_asked(simulation):
    world, tool = simulation.world, simulation.arm.X_world_tool()
    world.bullet.createMultiBody(
        0,
        world.bullet.createCollisionShape(world.bullet.GEOM_BOX, halfExtents=[0.01] * 3),
        -1,
        tool[:3, 3].tolist(),
    )
    handle = run(simulation, simulation.gripper.accept(0.0, 15.0))
    assert (handle.status, handle.stalled) == (Status.SUCCEEDED, True)
    assert handle.opening == pytest.approx(0.02, abs=0.002)
    assert handle.effort == pytest.approx(15.0, rel=0.05)


def test_a_stuck_joint_stays_while_the_others_move_and_heals(simulation):
    before = simulation.arm.q()
    simulation.break_(Faults(stuck_joint="panda_joint2"))
    handle, _ = move(simulation, 0.4)
    assert handle.status is Status.ABORTED
    moved = simulation.arm.q() - before
    assert abs(moved[1]) < 2e-3
    assert np.delete(moved, 1).min() > 0.1
    simulation.break_(Faults())
    assert move(simulation, 0.1)[0].status is Status.SUCCEEDED


def test_jammed_fingers_stall(simulation):
    simulation.break_(Faults(jammed_gripper=True))
    handle = run(simulation, simulation.gripper.accept(0.0))
    assert handle.stalled
    assert simulation.arm.width() == pytest.approx(0.08, abs=0.002)


def test_an_inactive_controller_aborts_and_the_arm_stays(simulation):
    goal = TrajectoryGoal(simulation.joints.joint_names, [Waypoint(1.0, simulation.arm.q() + 0.5)])
    handle = simulation.joints.accept(goal)
    for _ in range(60):
        simulation.step()
    simulation.break_(Faults(inactive=True))
    assert handle.status is Status.ABORTED
    for _ in range(24):
        simulation.step()
    at = simulation.arm.q()
    for _ in range(100):
        simulation.step()
    np.testing.assert_allclose(simulation.arm.q(), at, atol=1e-3)
    with pytest.raises(ValueError, match="not active"):
        simulation.gripper.accept(0.0)


def test_faults_of_joints_that_are_not_there_are_named(simulation):
    with pytest.raises(ValueError, match=r"stuck_joint: got 'elbow'"):
        simulation.break_(Faults(stuck_joint="elbow"))


def test_cloth_is_refused():
    assert "close_laptop" in RIGID_TASKS
    with pytest.raises(ValueError, match="fold_cloth"):
        Episode("fold_cloth", "panda", 0)


def test_the_cameras_see_the_simulated_world(simulation):
    views = viewpoints(simulation.world, simulation.setup, 2)
    move(simulation, 0.2)
    laptop = simulation.world.bodies["laptop"]
    simulation.world.set_joint_positions(laptop, {"lid_joint": 0.8})
    X = simulation.world.link_pose(laptop)
    X[:2, 3] += 0.05
    simulation.world.set_base_pose(laptop, X)
    cameras = Cameras(CameraOptions(count=2, width=80, height=60, noise=False), EPISODE)
    try:
        cameras.shoot(simulation.snapshot())
        shots = waited(cameras.arrived)
        assert not cameras.busy
        for shot, view in zip(shots, views, strict=True):
            truth = capture(simulation.world, view, Camera(80, 60), unseen=["robot"])
            np.testing.assert_array_equal(shot.X_world_camera, view)
            np.testing.assert_allclose(shot.depth, truth.depth, atol=1e-4)
            np.testing.assert_array_equal(shot.intrinsics, truth.intrinsics)
            assert np.mean(shot.color != truth.color) < 0.01
        os.kill(cameras._process.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="status -9"):
            waited(cameras.arrived)
    finally:
        cameras.close()
        cameras.close()


def waited(what, timeout=60.0):
    end = time.monotonic() + timeout
    while not (value := what()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


@pytest.mark.parametrize("task", RIGID_TASKS)
def test_the_document_says_what_the_task_says(task):
    with World() as world:
        setup: TaskSetup = TASKS[task].setup(world, np.random.default_rng(1))
        text = task_document(TASKS[task], setup)
    name = setup.instruction.object
    around = trimesh.creation.box(bounds=[*np.sort(setup.instruction.handles, axis=0)[[0, -1]]])
    scene = Scene((SceneObject(name, around),), 0.0)  # a stand-in where the handles are
    laws, action = parse_instruction(json.loads(text), scene, "document")
    assert action.duration == setup.instruction.duration
    np.testing.assert_allclose(action.handles, setup.instruction.handles, atol=1e-6)
    np.testing.assert_allclose(action.targets, setup.instruction.targets, atol=1e-6)
    assert type(laws[0]) is type(setup.laws[0])
    for field in set(vars(laws[0])) - {"object"}:
        np.testing.assert_allclose(
            getattr(laws[0], field), getattr(setup.laws[0], field), atol=2e-6
        )


def test_pace_keeps_time_and_builds_anew():
    made = []

    def make(start):
        if len(made) == 2:
            raise ValueError("no more")
        made.append(start)
        return Simulation(EPISODE, ARM, GripperOptions(), start=start)

    pace = Pace(make, 4.0)
    try:

        def now():
            with pace.held() as simulation:
                return simulation.time

        began = time.monotonic()
        waited(lambda: now() > 1.0)
        assert time.monotonic() - began > 0.2  # not faster than asked
        pace.reset()
        waited(lambda: pace.resets)
        assert made[1] >= 1.0  # time does not jump back
        pace.reset()
        assert str(waited(lambda: pace.error)) == "no more"
        at = now()
        waited(lambda: now() > at)  # the old one goes on
    finally:
        pace.close()
