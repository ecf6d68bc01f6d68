"""Simulated robot arm: position control under the URDF's torque limits, force-limited gripper.

The arm's joints follow position and velocity targets through PyBullet's constraint motors, which
compute the torques (gravity included) in each step and clamp them to the URDF's effort limits.

Gears couple the gripper's joints, as in the real mechanism: the knuckles (the first joint of each
finger) to each other, and every other joint to the knuckle of its side. One knuckle is driven. Its
torque is limited so that the pads press with at most the gripper's force F. By virtual work, with
opening w and knuckle position s:

    tau ds = F dw    =>    tau = F |dw/ds|

Friction alone holds an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike

from flowplan.geometry import inverse, transform
from flowplan.robot import Robot
from flowplan.robot.kinematics import tree_poses
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from sim_envs.bullet import pybullet
from sim_envs.world import Contact, World


@dataclass(frozen=True)
class ArmOptions:
    """Motors and finger pads."""

    position_gain: Annotated[float, Interval(1e-6, 1)] = 0.3
    """Share of a joint's position error removed per step."""
    velocity_gain: Annotated[float, Interval(1e-6, 1)] = 1.0
    """Share of a joint's velocity error removed per step."""
    finger_speed: Annotated[float, Interval(1e-4, 10)] = 0.15
    """Largest rate of the commanded opening, m/s."""
    finger_friction: Annotated[float, Interval(0, 10)] = 1.0
    """Friction coefficient of the pads, multiplied by the object's."""
    finger_spin: Annotated[float, Interval(0, 0.1)] = 0.003
    """Radius of a pad's contact patch, meters: soft pads resist spinning about the normal."""
    finger_mass: Annotated[float, Interval(1e-3, 100)] = 0.2
    """Smallest mass of a sliding finger, kg: reflected inertia of motor and gears, which URDFs
    leave out. Without it the contacts of 15 g fingers do not converge under the gripper's force."""
    finger_inertia: Annotated[float, Interval(1e-9, 10)] = 1e-3
    """Smallest inertia of a rotating gripper link, kg m^2, for the same reason."""
    gear_force: Annotated[float, Interval(1, 1e6)] = 2000.0
    """Largest force (N) or torque (N m) of the gears between the gripper's joints."""

    def __post_init__(self) -> None:
        bounds.check(self)


class Arm:
    """A robot in a world (made by `Arm.add`).

    Attributes:
        world: the world.
        robot: the robot's configuration.
        body: PyBullet body id.
        options: motors and pads.
        finger_sides: side of the tool's y axis (+1 or -1) of each link that the gripper moves.
    """

    def __init__(
        self, world: World, robot: Robot, body: int, options: ArmOptions = ArmOptions()
    ) -> None:
        self.world = world
        self.robot = robot
        self.body = body
        self.options = options
        self._joints = [world.joint_index(body, name) for name in robot.joint_names]
        # Torque limits of the URDF.
        self._efforts = [world.bullet.getJointInfo(body, j)[10] for j in self._joints]
        self._fingers = [world.joint_index(body, name) for name in robot.gripper.joints]
        self.finger_sides, knuckles = _fingers_of(robot)
        self._knuckles = [robot.gripper.joints.index(name) for name in knuckles]
        # Table of openings by position of the driven knuckle, ascending.
        position = robot.gripper.table_joints[:, self._knuckles[0]]
        order = np.argsort(position)
        self._table_s, self._table_w = position[order], robot.gripper.table_width[order]
        self._static_links = self._links_without_motion()
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

    def _links_without_motion(self) -> frozenset[str]:
        """Links fixed to the base."""
        static = {self.robot.base_link}
        for joint in self.robot.joints:
            if joint.parent in static and joint.name not in (
                *self.robot.joint_names,
                *self.robot.gripper.joints,
            ):
                static.add(joint.child)
        return frozenset(static)

    def _make_fingers(self) -> None:
        """Pads with friction, fingers with the inertia of their drive, and gears between the
        joints."""
        bullet, gripper, options = self.world.bullet, self.robot.gripper, self.options
        for link in gripper.finger_links:
            # A friction anchor pulls a contact back to where it stuck, within the friction cone.
            # Without it a held object creeps by millimeters per second.
            bullet.changeDynamics(
                self.body,
                self.world.link_index(self.body, link),
                lateralFriction=options.finger_friction,
                spinningFriction=options.finger_spin,
                frictionAnchor=1,
            )
        # PyBullet gives a link the index of the joint that moves it.
        for joint in self._fingers:
            bullet.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0)
            # Reflected inertia of the drive: a lower bound on mass or inertia.
            mass, _, inertia = bullet.getDynamicsInfo(self.body, joint)[:3]
            if bullet.getJointInfo(self.body, joint)[2] == pybullet.JOINT_PRISMATIC:
                bullet.changeDynamics(self.body, joint, mass=max(mass, options.finger_mass))
            else:
                least = [max(i, options.finger_inertia) for i in inertia]
                bullet.changeDynamics(self.body, joint, localInertiaDiagonal=least)
        # Gears: knuckle to knuckle, every other joint to the knuckle of its side.
        first, second = self._knuckles
        self._couple(first, second)
        side = [
            self.finger_sides[bullet.getJointInfo(self.body, j)[12].decode()] for j in self._fingers
        ]
        for joint in set(range(len(self._fingers))) - {first, second}:
            self._couple(first if side[joint] == side[first] else second, joint)

    def _couple(self, a: int, b: int) -> None:
        """Gear between two of the gripper's joints, in the ratio of their travels."""
        bullet, table = self.world.bullet, self.robot.gripper.table_joints
        # Ratio of the travels over the whole range of openings.
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
        """Place the arm at rest at q (J,), with the pads `width` meters apart."""
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
            q: (J,) target positions at the start of the step, rad or m.
            qd: (J,) target velocities during the step.
            width: target opening, meters, approached at the finger speed.
            grip_force: largest force of the pads, newtons. Defaults to the gripper's own.
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
        # Ramp the commanded opening at the finger speed.
        reach = options.finger_speed / self.world.options.rate
        self._width += float(np.clip(width - self._width, -reach, reach))
        self._drive_fingers(
            self._width, self.robot.gripper.force if grip_force is None else grip_force
        )

    def _drive_fingers(self, width: float, grip_force: float) -> None:
        """Target of the driven knuckle, its torque limited by the grip force."""
        # Torque limit by virtual work: tau = F |dw/ds|.
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
        """Slope |dw/ds| of the opening by the driven knuckle, at position `at`."""
        s, w = self._table_s, self._table_w
        # Slope of the table's segment around `at`.
        i = int(np.clip(np.searchsorted(s, at), 1, len(s) - 1))
        return float(abs((w[i] - w[i - 1]) / (s[i] - s[i - 1])))

    def q(self) -> FloatArray:
        """Measured positions (J,)."""
        return np.array([s[0] for s in self.world.bullet.getJointStates(self.body, self._joints)])

    def qd(self) -> FloatArray:
        """Measured velocities (J,)."""
        return np.array([s[1] for s in self.world.bullet.getJointStates(self.body, self._joints)])

    def width(self) -> float:
        """Measured opening, meters."""
        position = self.world.bullet.getJointState(self.body, self._fingers[self._knuckles[0]])[0]
        return float(np.interp(position, self._table_s, self._table_w))

    def grip_force(self) -> float:
        """Force of the motor on the pads in the last step, newtons."""
        at, _, _, torque = self.world.bullet.getJointState(
            self.body, self._fingers[self._knuckles[0]]
        )
        return abs(torque) / self._width_by_knuckle(at)

    def X_world_tool(self) -> FloatArray:
        """Measured pose (4, 4) of the tool frame."""
        return self.world.link_pose(self.body, self.robot.tool_link) @ self.robot.X_link_tool

    def contacts(self) -> list[Contact]:
        """Contact points of the moving links with other bodies in the last step."""
        return [c for c in self.world.contacts(self.body) if c.link not in self._static_links]


def _fingers_of(robot: Robot) -> tuple[dict[str, int], tuple[str, str]]:
    """Side (+1 or -1 of the tool's y axis) of each link that the gripper moves, and the names of
    the two knuckles."""
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
        # Joints of the gripper between the hand and this link, innermost last.
        moving = [joint for joint in chain if joint.name in gripper.joints]
        if moving:
            # Side of the tool's y axis on which the link's middle lies.
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
