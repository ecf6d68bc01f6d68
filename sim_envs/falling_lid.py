"""Reference for NeuROK's box experiment (E.4, E.5): a box's lid falling under gravity in PyBullet.

Shapes are left out: PyBullet replaces meshes by convex hulls, and the hull of an open box is
closed. The joint's limits stop the lid, one of them where it lies on the rim, by Newton's law of
impact: the velocity is reversed and multiplied by the restitution. Between impacts a lid is a
compound pendulum,

    I q'' = m (a x r) . g - friction sign(q')

with its moment of inertia I about the hinge's axis a, and r from the hinge to its center of mass.
"""

from __future__ import annotations

import math
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np

from flowplan.geometry import transform
from flowplan.robot.urdf_xml import read_xml
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from sim_envs.bullet import pybullet
from sim_envs.world import World, WorldOptions


@dataclass(frozen=True)
class LidOptions:
    """Physics of a falling lid."""

    step: Annotated[float, Interval(1e-9, 1)] = 2e-4
    """Largest time step, seconds. A whole number of equal steps leads to each saved time."""
    gravity: Annotated[float, Interval(0, 1000)] = 9.81
    """Gravity, m/s^2, downward."""
    restitution: Annotated[float, Interval(0, 1)] = 0.3
    """Coefficient of restitution at the joint's limits; 0 is plastic, 1 elastic."""
    friction: Annotated[float, Interval(0, 1000)] = 0.0
    """Coulomb friction of the hinge, N m."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True, eq=False)
class RigidInertia:
    """Mass, center of mass and inertia of a link.

    Attributes:
        mass: mass, kg.
        center: (3,) center of mass, link frame, meters.
        inertia: (3, 3) about the center of mass, axes of the link frame, kg m^2.
    """

    mass: float
    center: FloatArray
    inertia: FloatArray

    def __post_init__(self) -> None:
        checks.positive("RigidInertia.mass", self.mass)
        object.__setattr__(self, "center", checks.array("RigidInertia.center", self.center, (3,)))
        object.__setattr__(
            self, "inertia", checks.array("RigidInertia.inertia", self.inertia, (3, 3))
        )


@dataclass(frozen=True, eq=False)
class Push:
    """A constant force on the lid.

    Attributes:
        force: (3,) newtons, world frame.
        start, end: time interval of the force, seconds.
        point: (3,) point of application, lid frame, meters. Defaults to the center of mass.
    """

    force: FloatArray
    start: float = 0.0
    end: float = math.inf
    point: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "force", checks.array("Push.force", self.force, (3,)))
        if self.point is not None:
            object.__setattr__(self, "point", checks.array("Push.point", self.point, (3,)))
        if not self.end > self.start:
            raise ValueError(
                f"Push.end: expected a time after start {self.start:g} s, got {self.end:g} s"
            )


@dataclass(frozen=True, eq=False)
class LidMotion:
    """Motion of a falling lid.

    Attributes:
        times: (T,) seconds.
        angle: (T,) joint position, rad.
        velocity: (T,) joint velocity, rad/s.
        center: (T, 3) center of mass, frame of the box, meters.
        link_poses: X_box_link (T, 4, 4) of every link; the box is its root link.
        impacts: (I,) times of impacts at the joint's limits, without those of a lid at rest.
    """

    times: FloatArray
    angle: FloatArray
    velocity: FloatArray
    center: FloatArray
    link_poses: dict[str, FloatArray]
    impacts: FloatArray


_RESTING = 4.0
"""Speed of the slowest impact, in multiples of the speed gained per step; a slower lid comes to
rest."""


def falling_lid(
    urdf_path: str | Path,
    angle: float,
    times: FloatArray,
    *,
    inertia: RigidInertia | None = None,
    push: Push | None = None,
    options: LidOptions = LidOptions(),
) -> LidMotion:
    """Motion of a box's lid released at rest.

    Args:
        urdf_path: box with its root link on the ground and one moving joint; meshes are not needed.
        angle: joint position at the start, within its limits, rad.
        times: (T,) output times from 0, seconds.
        inertia: inertia of the lid. Defaults to that of the URDF.
        push: force on the lid besides gravity.
        options: see LidOptions.

    Raises:
        ValueError: for a URDF without exactly one revolute joint, or an angle outside its limits.
    """
    times = checks.times("times", times)
    with tempfile.TemporaryDirectory() as folder:
        bare, joint, lid = _without_shapes(Path(urdf_path), inertia, Path(folder))
        with World(WorldOptions(rate=1 / options.step, gravity=options.gravity)) as world:
            body = world.load(bare, name="box", fixed=True)
            return _Fall(world, body, joint, lid, push, options).run(angle, times)


def _without_shapes(
    path: Path, inertia: RigidInertia | None, folder: Path
) -> tuple[Path, str, str]:
    """Copy of the URDF without shapes and with the lid's inertia; its moving joint; the lid's
    link."""
    robot = read_xml(path)
    # The box needs exactly one revolute joint.
    moving = [j for j in robot.findall("joint") if j.attrib["type"] != "fixed"]
    if len(moving) != 1 or moving[0].attrib["type"] != "revolute":
        kinds = ", ".join(f"{j.attrib['name']} ({j.attrib['type']})" for j in moving) or "none"
        raise ValueError(
            f"{path}: expected one joint that moves, a revolute one with limits, got {kinds}"
        )
    joint, lid = moving[0], moving[0].find("child").attrib["link"]  # type: ignore[union-attr]
    for link in robot.findall("link"):
        # Remove shapes, and replace the inertia of the lid.
        for tag in ("visual", "collision"):
            for element in link.findall(tag):
                link.remove(element)
        if link.attrib["name"] == lid and inertia is not None:
            for element in link.findall("inertial"):
                link.remove(element)
            link.append(_inertial(inertia))
    copy = folder / "bare.urdf"
    ET.ElementTree(robot).write(copy)
    return copy, joint.attrib["name"], lid


def _inertial(inertia: RigidInertia) -> ET.Element:
    element = ET.Element("inertial")
    ET.SubElement(element, "origin", xyz=" ".join(f"{v:.9g}" for v in inertia.center), rpy="0 0 0")
    ET.SubElement(element, "mass", value=f"{inertia.mass:.9g}")
    axes = "xyz"
    values = {
        f"i{axes[i]}{axes[j]}": f"{inertia.inertia[i, j]:.9g}"
        for i in range(3)
        for j in range(i, 3)
    }
    ET.SubElement(element, "inertia", values)
    return element


class _Fall:
    """A lid in a world, on an undamped joint with hard limits."""

    def __init__(
        self, world: World, body: int, joint: str, lid: str, push: Push | None, options: LidOptions
    ) -> None:
        self.world = world
        self.body = body
        self.bullet = world.bullet
        self.name = joint
        self.index = world.joint_index(body, joint)
        self.lid = lid
        self.push = push
        self.options = options
        self.lower, self.upper = self.bullet.getJointInfo(body, self.index)[8:10]
        # No damping but the friction of the hinge.
        for link in range(-1, self.bullet.getNumJoints(body)):
            self.bullet.changeDynamics(
                body, link, linearDamping=0, angularDamping=0, jointDamping=0
            )
        self.bullet.setJointMotorControl2(
            body, self.index, pybullet.VELOCITY_CONTROL, targetVelocity=0, force=options.friction
        )
        self.impacts: list[float] = []

    def run(self, angle: float, times: FloatArray) -> LidMotion:
        """Motion from rest at `angle`, saved at `times` (T,)."""
        if not self.lower <= angle <= self.upper:
            raise ValueError(
                f"angle: expected one within [{self.lower:g}, {self.upper:g}] rad, got {angle!r}"
            )
        self.world.set_joint_positions(self.body, {self.name: angle})
        rows = [self._row()]
        for start, end in pairwise(times):
            # Equal steps, none longer than the option.
            count = max(1, math.ceil((end - start) / self.options.step - 1e-9))
            h = (end - start) / count
            self.bullet.setTimeStep(h)
            for i in range(count):
                self._step(start + i * h, h)
            rows.append(self._row())
        angles, velocities, centers, poses = zip(*rows, strict=True)
        links = {link: np.stack([p[link] for p in poses]) for link in poses[0]}
        return LidMotion(
            times,
            np.array(angles),
            np.array(velocities),
            np.array(centers),
            links,
            np.array(self.impacts),
        )

    def _step(self, time: float, h: float) -> None:
        """One step of h seconds: push, free motion, impact."""
        if self.push is not None and self.push.start <= time + h / 2 < self.push.end:
            # External force for this step only.
            point = self._center() if self.push.point is None else self._at(self.push.point)
            self.bullet.applyExternalForce(
                self.body,
                self.index,
                self.push.force.tolist(),
                point.tolist(),
                pybullet.WORLD_FRAME,
            )
        before = self.bullet.getJointState(self.body, self.index)[1]
        self.world.step()
        # State after the free step.
        angle, velocity = self.bullet.getJointState(self.body, self.index)[:2]
        # An impact is faster than a few steps of free fall.
        hits = abs(velocity) > _RESTING * abs(velocity - before)
        for limit, outward in ((self.lower, -1), (self.upper, 1)):
            if outward * (angle - limit) > 0 and outward * velocity > 0:
                rebound = -self.options.restitution * velocity if hits else 0.0
                self.bullet.resetJointState(self.body, self.index, limit, rebound)
                if hits:
                    self.impacts.append(time + h)

    def _row(self) -> tuple[float, float, FloatArray, dict[str, FloatArray]]:
        angle, velocity = self.bullet.getJointState(self.body, self.index)[:2]
        return angle, velocity, self._center(), self.world.link_poses(self.body)

    def _center(self) -> FloatArray:
        return np.array(
            self.bullet.getLinkState(self.body, self.index, computeForwardKinematics=True)[0]
        )

    def _at(self, point: FloatArray) -> FloatArray:
        return transform(self.world.link_pose(self.body, self.lid), point[None])[0]
