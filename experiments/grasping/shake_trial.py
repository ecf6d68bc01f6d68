"""The shake test of a grasp: a floating hand closes on an object, lifts it, and shakes it.

The hand is the robot's own, moved by six joints exactly as commanded, whatever it carries. The
object stands on the table; friction alone holds it. The idea is that of Eppner et al. (ISRR 2019),
with harder shakes: 5 cm at 4 Hz (3.2 g) along each axis of the tool, then 45 degrees at 1 Hz about
each. Masses are drawn anew for every trial, since 30 N hold only light objects at 3 g.

| verdict | meaning |
|---|---|
| held | never lost, moved in the hand by less than `slip_distance` and `slip_angle` |
| slip | never lost, but moved by more |
| drop | lost between closing and the end |
| miss | the fingers closed on nothing |
| collide | the hand hit the object or the table before it closed |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from experiments.grasping.shake_objects import ShakeObject
from flowplan.geometry import angle_between, inverse
from flowplan.robot import Robot
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from sim_envs.arm import Arm
from sim_envs.camera import OnStep
from sim_envs.world import TABLE, World

VERDICTS = ("held", "slip", "drop", "miss", "collide")

_APPROACH_TIME, _CLOSE_TIME, _LIFT_TIME, _HOLD_TIME = 0.5, 0.6, 0.8, 0.3
"""Duration of each motion, seconds."""
_SLIDE_TIME, _TURN_TIME = 1.25, 2.0
"""Duration of shaking along and about one axis, seconds."""
_SWELL_TIME = 0.25
"""Time in which a shake swells at its start and fades at its end, seconds."""
_LOST_TIME = 0.1
"""Time without contact after which an object counts as lost, seconds."""
_TOUCH_FORCE = 0.05
"""Force from which a finger touches the object, newtons."""


@dataclass(frozen=True)
class ShakeOptions:
    """Difficulty of the shake test, and limits of its verdicts."""

    force: Annotated[float, Interval(0.1, 1000)] = 30.0
    """Force between the pads, newtons."""
    friction: Annotated[tuple[float, float], Interval(0, 10)] = (0.5, 0.9)
    """Range of the friction coefficient between pads and object, from that assumed by the proposer
    upwards."""
    mass: Annotated[tuple[float, float], Interval(0, 100)] = (0.05, 0.25)
    """Range of the object's mass, kilograms."""
    distance: Annotated[float, Interval(0, 1)] = 0.05
    """Amplitude along each axis of the tool, meters."""
    distance_rate: Annotated[float, Interval(0.01, 50)] = 4.0
    """Frequency along each axis, hertz."""
    angle: Annotated[float, Interval(0, 3.2)] = np.pi / 4
    """Amplitude about each axis of the tool, radians."""
    angle_rate: Annotated[float, Interval(0.01, 50)] = 1.0
    """Frequency about each axis, hertz."""
    lift: Annotated[float, Interval(0.001, 2)] = 0.35
    """Vertical lift before shaking, meters."""
    approach: Annotated[float, Interval(0, 1)] = 0.06
    """Length of the approach along the tool's z with open fingers, meters."""
    slip_distance: Annotated[float, Interval(1e-4, 1)] = 0.02
    """Largest translation of a held object in the hand, meters."""
    slip_angle: Annotated[float, Interval(1e-3, 3.2)] = 0.5
    """Largest rotation of a held object in the hand, radians."""
    bump_distance: Annotated[float, Interval(0, 1)] = 0.01
    """Largest motion of the object before the fingers close, meters."""
    bump_force: Annotated[float, Interval(0, 1000)] = 10.0
    """Largest force of the hand on the table, newtons."""

    def __post_init__(self) -> None:
        bounds.check(self)
        for name in ("friction", "mass"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"ShakeOptions.{name}: expected low <= high, got {low:g}, {high:g}"
                )


@dataclass(frozen=True)
class Shake:
    """Result of one trial.

    Attributes:
        verdict: One of VERDICTS.
        distance: Translation of the object in the hand since the fingers closed, meters; -1 if it
            was not held to the end.
        angle: Rotation of the object in the hand, radians; -1 likewise.
        friction: Friction coefficient of the trial.
        mass: Mass of the object in the trial, kilograms.
    """

    verdict: str
    distance: float
    angle: float
    friction: float
    mass: float


def shake_trial(
    hand: Robot,
    shaken: ShakeObject,
    X_world_object: FloatArray,
    X_world_tool: FloatArray,
    width: float,
    *,
    seed: int = 0,
    on_step: OnStep | None = None,
    options: ShakeOptions | None = None,
) -> Shake:
    """Grasp, lift and shake once.

    Args:
        hand: From `floating_hand`.
        shaken: Object to hold.
        X_world_object: (4, 4) its pose at rest on the table.
        X_world_tool: (4, 4) the grasp.
        width: Finger opening before closing, meters.
        seed: Random seed of friction and mass.
        on_step: Called after every step, such as a `sim_envs.camera.Recorder`.
        options: See ShakeOptions.
    """
    options = options or ShakeOptions()
    # The trial's friction and mass.
    rng = np.random.default_rng(seed)
    friction, mass = float(rng.uniform(*options.friction)), float(rng.uniform(*options.mass))
    # The hand's base is the grasp, so that six zeros are the grasp itself.
    gripper = replace(hand.gripper, force=options.force)
    hand = replace(hand, X_world_base=X_world_tool, gripper=gripper)
    with World() as world:
        arm = Arm.add(world, hand)
        body = world.load(
            shaken.urdf_path, X_world_object, name="object", friction=friction, mass_scale=mass
        )
        trial = _Trial(world, arm, body, width, on_step, options)
        verdict, distance, angle = trial.run()
    return Shake(verdict, distance, angle, friction, mass)


class _Trial:
    """One trial in progress. Paths are those of the six joints that move the tool frame."""

    def __init__(
        self,
        world: World,
        arm: Arm,
        body: int,
        width: float,
        on_step: OnStep | None,
        options: ShakeOptions,
    ) -> None:
        self.world, self.arm, self.body, self.width = world, arm, body, width
        self.on_step, self.options = on_step, options
        self.rate = world.options.rate

    def run(self) -> tuple[str, float, float]:
        """Verdict, and translation and rotation of the object in the hand."""
        # Approach, close, and see that both fingers touch.
        if not self._approach():
            return "collide", -1.0, -1.0
        for _ in range(round(_CLOSE_TIME * self.rate)):
            self._step(np.zeros(6), np.zeros(6), 0.0)
        if len(self._touching_sides()) < 2:
            return "miss", -1.0, -1.0
        # Motion of the object in the hand from here to the end of the shaking.
        X_tool_object = self._X_tool_object()
        if not self._lift_and_shake():
            return "drop", -1.0, -1.0
        moved = self._X_tool_object()
        distance = float(np.linalg.norm(moved[:3, 3] - X_tool_object[:3, 3]))
        angle = float(angle_between(moved[:3, :3], X_tool_object[:3, :3]))
        slipped = distance > self.options.slip_distance or angle > self.options.slip_angle
        return "slip" if slipped else "held", distance, angle

    def _approach(self) -> bool:
        """Approach with open fingers; False after a collision with table or object."""
        options = self.options
        # From behind the grasp along the tool's z, fingers open.
        back = np.array([0, 0, -options.approach, 0, 0, 0])
        self.arm.reset(back, self.width)
        start = self.world.link_pose(self.body)[:3, 3]
        for q, qd in self._line(back, np.zeros(6), _APPROACH_TIME):
            self._step(q, qd, self.width)
            if self._table_force() > options.bump_force:
                return False
        # A bump moves the object before the fingers close.
        moved = np.linalg.norm(self.world.link_pose(self.body)[:3, 3] - start)
        return bool(moved <= options.bump_distance)

    def _lift_and_shake(self) -> bool:
        """Lift and shake with closed fingers; False once the object is lost."""
        # The lift is vertical; the path is in the hand's base frame.
        R_world_base = self.arm.robot.X_world_base[:3, :3]
        lift = R_world_base.T @ [0, 0, self.options.lift]
        lost = 0
        for q, qd in self._motions(np.concatenate([lift, np.zeros(3)])):
            self._step(q, qd, 0.0)
            # Contact may break for a moment, not for long.
            lost = 0 if self._touching_sides() else lost + 1
            if lost > _LOST_TIME * self.rate:
                return False
        return True

    def _motions(self, up: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Lift, shake along and about every axis, and hold still."""
        options = self.options
        yield from self._line(np.zeros(6), up, _LIFT_TIME)
        for axis in range(6):
            if axis < 3:
                size, hertz, seconds = options.distance, options.distance_rate, _SLIDE_TIME
            else:
                size, hertz, seconds = options.angle, options.angle_rate, _TURN_TIME
            yield from self._shake(up, axis, size, hertz, seconds)
        yield from self._line(up, up, _HOLD_TIME)

    def _line(
        self, a: FloatArray, b: FloatArray, seconds: float
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """A minimum-jerk motion from a to b."""
        s = np.linspace(0, 1, round(seconds * self.rate) + 1)[:, None]  # (S, 1)
        ease = 10 * s**3 - 15 * s**4 + 6 * s**5
        yield from self._play(a + ease * (b - a))

    def _shake(
        self, center: FloatArray, axis: int, size: float, hertz: float, seconds: float
    ) -> Iterator[tuple[FloatArray, FloatArray]]:
        """A sine along one joint that swells at its start and fades at its end."""
        t = np.arange(round(seconds * self.rate) + 1) / self.rate
        # A smooth step at both ends: no jump in velocity.
        swell = np.clip(np.minimum(t, seconds - t) / _SWELL_TIME, 0, 1)
        swell = swell * swell * (3 - 2 * swell)
        wave = size * swell * np.sin(2 * np.pi * hertz * t)
        yield from self._play(center + wave[:, None] * np.eye(6)[axis])

    def _play(self, path: FloatArray) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Position and velocity of every step along a path (S, 6)."""
        velocity = np.diff(path, axis=0) * self.rate  # (S - 1, 6)
        yield from zip(path[:-1], velocity, strict=True)

    def _step(self, q: FloatArray, qd: FloatArray, width: float) -> None:
        self.arm.command(q, qd, width)
        self.world.step()
        if self.on_step is not None:
            self.on_step(self.world)

    def _X_tool_object(self) -> FloatArray:
        return inverse(self.arm.X_world_tool()) @ self.world.link_pose(self.body)

    def _table_force(self) -> float:
        return sum(c.force for c in self.arm.contacts() if c.body == TABLE)

    def _touching_sides(self) -> set[int]:
        """Sides of the hand that touch the object."""
        sides = self.arm.finger_sides
        touching = (c for c in self.arm.contacts() if c.body == "object" and c.link in sides)
        return {sides[c.link] for c in touching if c.force > _TOUCH_FORCE}
