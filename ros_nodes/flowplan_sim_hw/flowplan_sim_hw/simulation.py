"""World of a task with a robot whose joints and fingers are driven by two controllers, step by
step.

The physics is that of `sim_envs`: motors under the URDF's torque limits, contacts and friction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowplan.robot import load_robot
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan_sim_hw.gripper import GripperController, GripperOptions
from flowplan_sim_hw.trajectory_controller import ControllerOptions, TrajectoryController
from sim_envs.arm import Arm
from sim_envs.task import TaskSetup
from sim_envs.tasks import TASKS
from sim_envs.world import World

RIGID_TASKS = tuple(name for name, task in TASKS.items() if not task.deformable)
"""Tasks that can be simulated here: a cloth would have to be anchored to the fingers, which no
gripper controller does."""

ROBOT = "robot"
"""Name of the robot's body in the world."""


@dataclass(frozen=True)
class Episode:
    """Contents of the world. An episode is built alike everywhere."""

    task: str
    robot: str
    seed: int

    def __post_init__(self) -> None:
        checks.choice("task", self.task, RIGID_TASKS)

    def build(self, world: World) -> tuple[Arm, TaskSetup]:
        """Place everything in a new world and let it settle."""
        arm = Arm.add(world, load_robot(self.robot), ROBOT)
        return arm, TASKS[self.task].setup(world, np.random.default_rng(self.seed))


@dataclass(frozen=True)
class Faults:
    """Faults of the robot, for tests of its users."""

    stuck_joint: str = ""
    """Name of an arm joint that does not move; empty for none."""
    jammed_gripper: bool = False
    """The fingers do not move."""
    mute: bool = False
    """Joint states and the controllers' feedback stop; the robot goes on."""
    inactive: bool = False
    """The controllers are deactivated: they abort their goals and reject new ones."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Poses of everything that moves, at one time.

    Attributes:
        episode: episode of the world.
        time: simulated seconds.
        joints: position of every movable joint by body and name, rad or m.
        bases: (4, 4) base pose of each body that is not fixed.
    """

    episode: Episode
    time: float
    joints: dict[str, dict[str, float]]
    bases: dict[str, FloatArray]


@dataclass(frozen=True, eq=False)
class JointReading:
    """Joint state.

    Attributes:
        time: simulated seconds.
        names: arm joints, then the gripper's.
        positions: rad or m.
        velocities: per second.
    """

    time: float
    names: tuple[str, ...]
    positions: FloatArray
    velocities: FloatArray


class _Joints:
    """Arm as a trajectory controller sees it; one joint may be stuck."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self.stuck: int | None = None
        self.q, self.qd = arm.q(), np.zeros(len(arm.robot.joint_names))

    def state(self) -> tuple[FloatArray, FloatArray]:
        return self._arm.q(), self._arm.qd()

    def command(self, positions: FloatArray, velocities: FloatArray) -> None:
        # A stuck joint keeps its position, at rest.
        q, qd = positions.copy(), velocities.copy()
        if self.stuck is not None:
            q[self.stuck], qd[self.stuck] = self.q[self.stuck], 0.0
        self.q, self.qd = q, qd

    def jam(self, joint: int | None) -> None:
        """Block a joint; None frees all."""
        if joint is not None and joint != self.stuck:
            self.q[joint] = self._arm.q()[joint]
        self.stuck = joint


class _Fingers:
    """Hand as a gripper controller sees it; it may be jammed."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self.jammed = False
        self.width, self.force = arm.width(), arm.robot.gripper.force

    def opening(self) -> float:
        return self._arm.width()

    def effort(self) -> float:
        return self._arm.grip_force()

    def command(self, opening: float, effort: float) -> None:
        gripper = self._arm.robot.gripper
        if not self.jammed:
            self.width = float(np.clip(opening, 0.0, gripper.max_width))
            self.force = min(effort, gripper.force)


class Simulation:
    """Running episode. One thread at a time.

    Attributes:
        episode: contents of the world.
        world, arm, setup: parts of the episode.
        joints: controller of the arm.
        gripper: controller of the fingers.
    """

    def __init__(
        self,
        episode: Episode,
        joints: ControllerOptions,
        gripper: GripperOptions,
        *,
        start: float = 0.0,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Build a world whose controllers hold the robot.

        Args:
            episode: contents of the world.
            joints: parameters of the arm's controller.
            gripper: parameters of the fingers' controller.
            start: initial `time`, seconds.
            warn: callback with a line that clients of the controllers should know.
        """
        self.episode = episode
        self.world = World()
        try:
            self.arm, self.setup = episode.build(self.world)
        except BaseException:
            self.world.close()
            raise
        # The controllers' clock goes on over a reset.
        self._start = start - self.world.time
        self._joints, self._fingers = _Joints(self.arm), _Fingers(self.arm)
        self.joints = TrajectoryController(
            self.arm.robot.joint_names, self._joints, lambda: self.time, joints, warn=warn
        )
        self.gripper = GripperController(self._fingers, lambda: self.time, gripper)
        self.joints.activate()
        self.gripper.activate()

    @property
    def time(self) -> float:
        """Simulated seconds."""
        return self.world.time + self._start

    @property
    def period(self) -> float:
        """Duration of a step, seconds."""
        return 1 / self.world.options.rate

    def step(self) -> None:
        """One cycle of the controllers and of the physics."""
        self.joints.update(self.period)
        self.gripper.update()
        plant, fingers = self._joints, self._fingers
        # A controller commands the state after the step, the arm needs the state before it.
        self.arm.command(
            plant.q - plant.qd * self.period, plant.qd, fingers.width, grip_force=fingers.force
        )
        plant.qd = np.zeros_like(plant.qd)  # the last command stays
        self.world.step()

    def break_(self, faults: Faults) -> None:
        """Apply these faults, and repair all others.

        Raises:
            ValueError: if there is no such joint.
        """
        # A joint that gets stuck stops where it is.
        names = self.arm.robot.joint_names
        if faults.stuck_joint:
            checks.choice("stuck_joint", faults.stuck_joint, names)
        self._joints.jam(names.index(faults.stuck_joint) if faults.stuck_joint else None)
        if faults.jammed_gripper and not self._fingers.jammed:
            self._fingers.width = self.arm.width()
        self._fingers.jammed = faults.jammed_gripper
        # Deactivated controllers take over again once they are repaired.
        for controller in (self.joints, self.gripper):
            if faults.inactive and controller.active:
                controller.deactivate()
            elif not faults.inactive and not controller.active:
                controller.activate()

    def reading(self) -> JointReading:
        """Measured joints."""
        names = (*self.arm.robot.joint_names, *self.arm.robot.gripper.joints)
        body, bullet = self.arm.body, self.world.bullet
        # Each state: position, velocity, reaction forces, motor torque.
        states = bullet.getJointStates(body, [self.world.joint_index(body, name) for name in names])
        positions = np.array([s[0] for s in states])
        velocities = np.array([s[1] for s in states])
        return JointReading(self.time, names, positions, velocities)

    def snapshot(self) -> Snapshot:
        """Current poses of everything that moves."""
        # Joints of every body, bases of those that are free.
        joints = {
            name: self.world.joint_positions(body) for name, body in self.world.bodies.items()
        }
        bases = {
            name: self.world.link_pose(self.world.bodies[name]) for name in self.setup.scan_ids
        }
        movable = {name: q for name, q in joints.items() if q}
        return Snapshot(self.episode, self.time, movable, bases)

    def verdict(self) -> tuple[bool, dict[str, float]]:
        """Current success of the task, and its measures."""
        measures = {name: float(value) for name, value in self.setup.measure(self.world).items()}
        return self.setup.verdict(measures) == "success", measures

    def close(self) -> None:
        """End the controllers' goals and the world."""
        self.joints.deactivate()
        self.gripper.deactivate()
        self.world.close()
