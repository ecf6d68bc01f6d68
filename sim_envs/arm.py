"""A robot inside a world: position-controlled joints under the URDF's torque limits, and a force-limited gripper.

The arm's joints follow position and velocity targets through PyBullet's constraint motors, which find the torques
(gravity included) each step and clamp them to the URDF's effort limits. The gripper's joints are coupled by gears, as
in the real mechanism, and one of them is driven: its motor may pull no harder than what presses the pads together with
the gripper's force F. By virtual work, with opening w and driven joint s:

    tau ds = F dw    =>    tau = F |dw/ds|

Nothing else holds an object: what is carried is carried by friction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from flowplan import checks
from flowplan.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot import Robot
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
    """Least mass of each link that the gripper moves, kilograms: the inertia of motor and gears as the link feels it,
    which URDFs leave out. Without it the gears and contacts of 15 g fingers do not converge under their force."""
    gear_force: float = 2000.0
    """Newtons (N m) the gears between the gripper's joints can carry."""

    def __post_init__(self) -> None:
        for name in ("position_gain", "velocity_gain", "finger_speed", "finger_mass", "gear_force"):
            checks.positive(f"ArmOptions.{name}", getattr(self, name))
        for name in ("finger_friction", "finger_spin"):
            checks.positive(f"ArmOptions.{name}", getattr(self, name), zero=True)


class Arm:
    """One robot of a world (made by `World.add_robot`).

    Attributes:
        world: where it is.
        robot: what it is.
        body: its body id.
        options: motors and pads.
        finger_sides: +1 or -1 by finger link: the side of the tool's y axis it is on.
    """

    def __init__(self, world: World, robot: Robot, body: int, options: ArmOptions = ArmOptions()) -> None:
        self.world = world
        self.robot = robot
        self.body = body
        self.options = options
        self._joints = [world.joint_index(body, name) for name in robot.joint_names]
        self._efforts = [world.bullet.getJointInfo(body, j)[10] for j in self._joints]
        self._fingers = [world.joint_index(body, name) for name in robot.gripper.joints]
        self.finger_sides = dict(zip(robot.gripper.finger_links, (1, -1), strict=True))
        self._still = self._links_that_never_move()
        self._width = robot.gripper.max_width
        self._make_fingers()
        self.reset(robot.home, robot.gripper.max_width)

    def _links_that_never_move(self) -> frozenset[str]:
        still = {self.robot.base_link}
        for joint in self.robot.joints:
            if joint.parent in still and joint.name not in (*self.robot.joint_names, *self.robot.gripper.joints):
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
            mass, _, inertia = bullet.getDynamicsInfo(self.body, joint)[:3]
            more = max(1.0, options.finger_mass / mass)
            bullet.changeDynamics(self.body, joint, mass=more * mass, localInertiaDiagonal=[more * i for i in inertia])
        travel = gripper.table_joints[-1] - gripper.table_joints[0]
        for joint, ratio in zip(self._fingers, travel / travel[0], strict=True):
            bullet.setJointMotorControl2(self.body, joint, pybullet.VELOCITY_CONTROL, force=0)
            if joint != self._fingers[0]:
                gear = bullet.createConstraint(
                    self.body, self._fingers[0], self.body, joint, pybullet.JOINT_GEAR, [1, 0, 0], [0, 0, 0], [0, 0, 0]
                )
                bullet.changeConstraint(gear, gearRatio=-1 / ratio, erp=0.2, maxForce=options.gear_force)

    def reset(self, q: ArrayLike, width: float) -> None:
        """Put the arm, at rest, at q (J,) with the pads `width` metres apart."""
        q = checks.array("q", q, (len(self._joints),))
        for joint, value in zip(self._joints, q, strict=True):
            self.world.bullet.resetJointState(self.body, joint, value)
        for joint, value in zip(self._fingers, self.robot.gripper.joint_positions(width).values(), strict=True):
            self.world.bullet.resetJointState(self.body, joint, value)
        self._width = float(width)
        self.command(q, np.zeros(len(q)), width)

    def command(self, q: ArrayLike, qd: ArrayLike, width: float) -> None:
        """Set the targets of the next step.

        Args:
            q: (J,) where the joints should be before the step.
            qd: (J,) how fast they should move during it.
            width: opening, metres, which the fingers approach at their own speed.
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
        self._drive_fingers(self._width)

    def _drive_fingers(self, width: float) -> None:
        gripper = self.robot.gripper
        target, slope = self._driven(width)
        self.world.bullet.setJointMotorControl2(
            self.body,
            self._fingers[0],
            pybullet.POSITION_CONTROL,
            targetPosition=target,
            force=gripper.force * slope,
            positionGain=self.options.position_gain,
            velocityGain=self.options.velocity_gain,
        )

    def _driven(self, width: float) -> tuple[float, float]:
        """Position of the driven joint at an opening, and |dw/ds| there."""
        table_w, table_s = self.robot.gripper.table_width, self.robot.gripper.table_joints[:, 0]
        i = int(np.clip(np.searchsorted(table_w, width), 1, len(table_w) - 1))
        slope = abs((table_w[i] - table_w[i - 1]) / (table_s[i] - table_s[i - 1]))
        return float(np.interp(width, table_w, table_s)), float(slope)

    def q(self) -> FloatArray:
        """Measured positions (J,)."""
        return np.array([s[0] for s in self.world.bullet.getJointStates(self.body, self._joints)])

    def width(self) -> float:
        """Measured opening, metres."""
        s = self.world.bullet.getJointState(self.body, self._fingers[0])[0]
        table_w, table_s = self.robot.gripper.table_width, self.robot.gripper.table_joints[:, 0]
        order = np.argsort(table_s)
        return float(np.interp(s, table_s[order], table_w[order]))

    def X_world_tool(self) -> FloatArray:
        """Measured pose (4, 4) of the tool frame."""
        return self.world.link_pose(self.body, self.robot.tool_link) @ self.robot.X_link_tool

    def contacts(self) -> list[Contact]:
        """Every contact point of the robot's moving links with other bodies, as of the last step."""
        return [c for c in self.world.contacts(self.body) if c.link not in self._still]
