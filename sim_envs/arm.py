"""A robot inside a world: position-controlled joints under the URDF's torque limits, and a force-limited gripper.

The arm's joints follow position and velocity targets through PyBullet's constraint motors, which find the torques
(gravity included) each step and clamp them to the URDF's effort limits. The gripper's joints are coupled by gears, as
in the real mechanism: the knuckles (the first joint of each finger) to each other, and every other joint to the knuckle
of its side. One knuckle is driven: its motor may pull no harder than what presses the pads together with the gripper's
force F. By virtual work, with opening w and knuckle s:

    tau ds = F dw    =>    tau = F |dw/ds|

Nothing else holds an object: what is carried is carried by friction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from flowplan.geometry import inverse, transform
from flowplan.robot import Robot
from flowplan.robot.kinematics import tree_poses
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from sim_envs.world import Contact, World


@dataclass(frozen=True)
class ArmOptions:
    """Motors and finger pads."""

    position_gain: float = 0.3
    """Share of a joint's position error that its motor removes in a step."""
    velocity_gain: float = 1.0
    """Share of its velocity error."""
    finger_speed: float = 0.15
    """Metres per second at which the commanded opening may change."""
    finger_friction: float = 1.0
    """Coefficient of the pads; the contact's is this times the object's."""
    finger_spin: float = 0.003
    """Radius of a pad's contact patch, metres: soft pads resist turning about the contact normal."""
    finger_mass: float = 0.2
    """Least mass of a finger that slides, kilograms: the inertia of motor and gears as the link feels it, which URDFs
    leave out. Without it the contacts of 15 g fingers do not converge under the gripper's force."""
    finger_inertia: float = 1e-3
    """Least inertia of a gripper link that turns, kg m^2: likewise."""
    gear_force: float = 2000.0
    """Newtons (N m) the gears between the gripper's joints can carry."""

    def __post_init__(self) -> None:
        for name in (
            "position_gain",
            "velocity_gain",
            "finger_speed",
            "finger_mass",
            "finger_inertia",
            "gear_force",
        ):
            checks.positive(f"ArmOptions.{name}", getattr(self, name))
        for name in ("finger_friction", "finger_spin"):
            checks.positive(f"ArmOptions.{name}", getattr(self, name), zero=True)


class Arm:
    """One robot of a world (made by `Arm.add`).

    Attributes:
        world: where it is.
        robot: what it is.
        body: its body id.
        options: motors and pads.
        finger_sides: +1 or -1 by link that the gripper moves: the side of the tool's y axis it is on.
    """

    def __init__(
        self, world: World, robot: Robot, body: int, options: ArmOptions = ArmOptions()
    ) -> None:
        self.world = world
        self.robot = robot
        self.body = body
        self.options = options
        self._joints = [world.joint_index(body, name) for name in robot.joint_names]
        self._efforts = [world.bullet.getJointInfo(body, j)[10] for j in self._joints]
        self._fingers = [world.joint_index(body, name) for name in robot.gripper.joints]
        self.finger_sides, knuckles = _fingers_of(robot)
        self._knuckles = [robot.gripper.joints.index(name) for name in knuckles]
        # The opening by position of the driven knuckle, in ascending order of the latter.
        position = robot.gripper.table_joints[:, self._knuckles[0]]
        order = np.argsort(position)
        self._table_s, self._table_w = position[order], robot.gripper.table_width[order]
        self._still = self._links_that_never_move()
        self._width = robot.gripper.max_width
        self._make_fingers()
        self.reset(robot.home, robot.gripper.max_width)

    @classmethod
    def add(
        cls,
        world: World,
        robot: Robot,
        name: str = "robot",
        options: ArmOptions = ArmOptions(),
    ) -> Arm:
        """The arm in a world, at its home configuration, with its hand open."""
        body = world.load_mechanism(robot.urdf_path, robot.X_world_base, name=name)
        return cls(world, robot, body, options)

    def _links_that_never_move(self) -> frozenset[str]:
        still = {self.robot.base_link}
        for joint in self.robot.joints:
            if joint.parent in still and joint.name not in (
                *self.robot.joint_names,
                *self.robot.gripper.joints,
            ):
                still.add(joint.child)
        return frozenset(still)

    def _make_fingers(self) -> None:
        bullet, gripper, options = self.world.bullet, self.robot.gripper, self.options
        for link in gripper.finger_links:
            # An anchored contact remembers where it stuck and, within the friction cone, is drawn back there: without
            # it the solver's errors let a held object creep by millimetres a second.
            bullet.changeDynamics(
                self.body,
                self.world.link_index(self.body, link),
                lateralFriction=options.finger_friction,
                spinningFriction=options.finger_spin,
                frictionAnchor=1,
            )
        for joint in self._fingers:  # PyBullet numbers a link like the joint that moves it
            bullet.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0)
            mass, _, inertia = bullet.getDynamicsInfo(self.body, joint)[:3]
            if bullet.getJointInfo(self.body, joint)[2] == pybullet.JOINT_PRISMATIC:
                bullet.changeDynamics(self.body, joint, mass=max(mass, options.finger_mass))
            else:
                least = [max(i, options.finger_inertia) for i in inertia]
                bullet.changeDynamics(self.body, joint, localInertiaDiagonal=least)
        first, second = self._knuckles
        self._couple(first, second)
        side = [
            self.finger_sides[bullet.getJointInfo(self.body, j)[12].decode()] for j in self._fingers
        ]
        for joint in set(range(len(self._fingers))) - {first, second}:
            self._couple(first if side[joint] == side[first] else second, joint)

    def _couple(self, a: int, b: int) -> None:
        """A gear between two of the gripper's joints, in the ratio of their travels."""
        bullet, table = self.world.bullet, self.robot.gripper.table_joints
        travel = table[-1] - table[0]
        gear = bullet.createConstraint(
            self.body,
            self._fingers[a],
            self.body,
            self._fingers[b],
            pybullet.JOINT_GEAR,
            [1, 0, 0],
            [0, 0, 0],
            [0, 0, 0],
        )
        bullet.changeConstraint(
            gear, gearRatio=-travel[a] / travel[b], erp=0.2, maxForce=self.options.gear_force
        )

    def reset(self, q: ArrayLike, width: float) -> None:
        """Put the arm, at rest, at q (J,) with the pads `width` metres apart."""
        q = checks.array("q", q, (len(self._joints),))
        for joint, value in zip(self._joints, q, strict=True):
            self.world.bullet.resetJointState(self.body, joint, value)
        for joint, value in zip(
            self._fingers, self.robot.gripper.joint_positions(width).values(), strict=True
        ):
            self.world.bullet.resetJointState(self.body, joint, value)
        self._width = float(width)
        self.command(q, np.zeros(len(q)), width)

    def command(
        self, q: ArrayLike, qd: ArrayLike, width: float, *, grip_force: float | None = None
    ) -> None:
        """Set the targets of the next step.

        Args:
            q: (J,) where the joints should be before the step.
            qd: (J,) how fast they should move during it.
            width: opening, metres, which the fingers approach at their own speed.
            grip_force: newtons that the pads may press with; the gripper's own force if not given.
        """
        options, count = self.options, len(self._joints)
        self.world.bullet.setJointMotorControlArray(
            self.body,
            self._joints,
            pybullet.POSITION_CONTROL,
            targetPositions=np.asarray(q, float).tolist(),
            targetVelocities=np.asarray(qd, float).tolist(),
            forces=self._efforts,
            positionGains=[options.position_gain] * count,
            velocityGains=[options.velocity_gain] * count,
        )
        reach = options.finger_speed / self.world.options.rate
        self._width += float(np.clip(width - self._width, -reach, reach))
        self._drive_fingers(
            self._width, self.robot.gripper.force if grip_force is None else grip_force
        )

    def _drive_fingers(self, width: float, grip_force: float) -> None:
        knuckle = self._fingers[self._knuckles[0]]
        at = self.world.bullet.getJointState(self.body, knuckle)[0]
        self.world.bullet.setJointMotorControl2(
            self.body,
            knuckle,
            pybullet.POSITION_CONTROL,
            targetPosition=self.robot.gripper.joint_positions(width)[
                self.robot.gripper.joints[self._knuckles[0]]
            ],
            force=grip_force * self._width_by_knuckle(at),
            positionGain=self.options.position_gain,
            velocityGain=self.options.velocity_gain,
        )

    def _width_by_knuckle(self, at: float) -> float:
        """|dw/ds| with the driven knuckle at `at`."""
        s, w = self._table_s, self._table_w
        i = int(np.clip(np.searchsorted(s, at), 1, len(s) - 1))
        return float(abs((w[i] - w[i - 1]) / (s[i] - s[i - 1])))

    def q(self) -> FloatArray:
        """Measured positions (J,)."""
        return np.array([s[0] for s in self.world.bullet.getJointStates(self.body, self._joints)])

    def qd(self) -> FloatArray:
        """Measured velocities (J,)."""
        return np.array([s[1] for s in self.world.bullet.getJointStates(self.body, self._joints)])

    def width(self) -> float:
        """Measured opening, metres."""
        position = self.world.bullet.getJointState(self.body, self._fingers[self._knuckles[0]])[0]
        return float(np.interp(position, self._table_s, self._table_w))

    def grip_force(self) -> float:
        """Newtons that the motor pressed the pads together or apart with in the last step."""
        at, _, _, torque = self.world.bullet.getJointState(
            self.body, self._fingers[self._knuckles[0]]
        )
        return abs(torque) / self._width_by_knuckle(at)

    def X_world_tool(self) -> FloatArray:
        """Measured pose (4, 4) of the tool frame."""
        return self.world.link_pose(self.body, self.robot.tool_link) @ self.robot.X_link_tool

    def contacts(self) -> list[Contact]:
        """Every contact point of the robot's moving links with other bodies, as of the last step."""
        return [c for c in self.world.contacts(self.body) if c.link not in self._still]


def _fingers_of(robot: Robot) -> tuple[dict[str, int], tuple[str, str]]:
    """The side (+1 or -1 of the tool's y axis) of every link that the gripper moves, and the two knuckles' names."""
    gripper = robot.gripper
    X_hand_link = tree_poses(
        gripper.tree, gripper.tool_link, gripper.joint_positions(gripper.max_width)
    )
    parents = {joint.child: joint for joint in gripper.tree}
    sides: dict[str, int] = {}
    knuckle = {}
    for link in parents:
        chain = [parents[link]]
        while chain[-1].parent in parents:
            chain.append(parents[chain[-1].parent])
        moving = [joint for joint in chain if joint.name in gripper.joints]
        if moving:
            middle = (
                robot.collision_meshes[link].centroid
                if link in robot.collision_meshes
                else np.zeros(3)
            )
            at = transform(inverse(gripper.X_link_tool) @ X_hand_link[link], [middle])[0]
            sides[link] = 1 if at[1] > 0 else -1
            knuckle[link] = moving[-1].name
    first, second = (knuckle[link] for link in gripper.finger_links)
    return sides, (first, second)
