"""Simulated execution of a trajectory, with a log of contacts and events.

The arm follows by position control under its torque limits, the fingers close with limited force,
and friction alone holds a rigid object. A cloth is anchored to a finger while it is pinched (see
`World.anchor_cloth`). Three kinds of events are recorded:

| event | meaning |
|---|---|
| `collision` | a link pressed on an obstacle, or a link other than a finger on the target |
| `missed_grasp` | no target between the closed fingers, or a push without contact |
| `dropped` | the fingers lost the target during the manipulation, or after it if they should hold |

A collision stops the robot, like the protective stop of a real one. Events explain a failure and do
not decide it: the caller judges success on the physical end state, after everything is at rest. A
trajectory that ends holding ends with closed fingers: the robot stands still and holds on while
everything comes to rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import inverse, transform
from flowplan.grasp.candidates import ContactKind
from flowplan.rollout import Rollout
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from sim_envs.arm import Arm
from sim_envs.camera import OnStep
from sim_envs.world import World

EVENTS = ("collision", "missed_grasp", "dropped")

Track = Callable[[], FloatArray]
"""Current positions (P, 3) of material points, world frame, meters."""


@dataclass(frozen=True)
class ExecuteOptions:
    """Thresholds of events, and the rate of the log."""

    collision_force: Annotated[float, Interval(1e-3, 1e6)] = 20.0
    """Contact force that stops the robot, newtons, averaged over `collision_time`."""
    collision_time: Annotated[float, Interval(1e-4, 10)] = 0.02
    """Time constant of that average, seconds."""
    touch_force: Annotated[float, Interval(1e-6, 1e3)] = 0.1
    """Smallest force of a finger in contact, newtons."""
    closed_width: Annotated[float, Interval(0, 0.1)] = 0.001
    """Opening below which the fingers hold nothing, meters."""
    lost_time: Annotated[float, Interval(1e-3, 10)] = 0.1
    """Time without contact after which a held object counts as dropped, seconds."""
    start_tolerance: Annotated[float, Interval(1e-6, 1)] = 0.02
    """Largest joint deviation from the trajectory's start, rad or m."""
    pinch_radius: Annotated[float, Interval(1e-4, 0.2)] = 0.03
    """Distance from the fingertips within which a pinch holds a cloth's vertices, meters: its mesh
    is coarse."""
    settle: Annotated[float, Interval(0, 60)] = 2.0
    """Largest time to come to rest at the end, seconds."""
    log_rate: Annotated[float, Interval(0.1, 1e4)] = 60.0
    """Samples per second in the log."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class Event:
    """A fault during an execution.

    Attributes:
        time: seconds since the trajectory's start.
        kind: one of EVENTS.
        detail: description.
    """

    time: float
    kind: str
    detail: str


@dataclass(frozen=True, eq=False)
class Execution:
    """Log of an execution: S samples.

    Attributes:
        joint_names: names of the J joints.
        times: (S,) seconds, times[0] = 0.
        phase: (S,) phases of the trajectory.
        q: (S, J) measured positions, rad or m.
        X_world_tool: (S, 4, 4) measured tool poses.
        width: (S,) measured openings, meters.
        points: (S, P, 3) tracked points, world frame, meters.
        pairs: C pairs (robot link, other body) that were in contact.
        forces: (S, C) normal forces summed over each pair's contact points, newtons.
        tracking_error: largest distance of the tool from its commanded position, meters.
        events: first event of each kind, in order of time.
    """

    joint_names: tuple[str, ...]
    times: FloatArray
    phase: NDArray[np.int64]
    q: FloatArray
    X_world_tool: FloatArray
    width: FloatArray
    points: FloatArray
    pairs: tuple[tuple[str, str], ...]
    forces: FloatArray
    tracking_error: float
    events: tuple[Event, ...]

    def outcome(self, verdict: str) -> str:
        """One of flowplan.rollout.OUTCOMES: success for a right end state, else the first kind of
        event, else the verdict on the end state."""
        if verdict == "success":
            return "success"
        kinds = {event.kind for event in self.events}
        return next((kind for kind in EVENTS if kind in kinds), verdict)

    def rollout(self, verdict: str, measures: Mapping[str, float]) -> Rollout:
        """Record shared by simulator and robot.

        Args:
            verdict: One of flowplan.rollout.OUTCOMES, on the end state alone.
            measures: Of the end state.
        """
        outcome = self.outcome(verdict)
        return Rollout(self.times, self.joint_names, self.q, self.points, outcome, dict(measures))


def link_points(world: World, body: int, points: Mapping[str, ArrayLike]) -> Track:
    """Track of material points of a body's links, given by link name as (P, 3) in the link's
    frame."""
    fixed = {link: checks.array(f"points[{link}]", p, ("P", 3)) for link, p in points.items()}
    return lambda: np.concatenate(
        [transform(world.link_pose(body, link), p) for link, p in fixed.items()]
    )


def execute(
    world: World,
    arm: Arm,
    trajectory: Trajectory,
    *,
    targets: Collection[str],
    track: Track,
    kind: ContactKind = "grasp",
    on_step: OnStep | None = None,
    options: ExecuteOptions = ExecuteOptions(),
) -> Execution:
    """Execution of a trajectory until everything is at rest.

    Args:
        world: the world, its robot at the trajectory's first configuration.
        arm: the robot.
        trajectory: trajectory of the robot's joints, in its order.
        targets: names of the bodies that the fingers may touch.
        track: points to log.
        kind: "grasp" and "pinch" hold the target between the fingers, "push" only touches it.
        on_step: called after every step, such as a `sim_envs.camera.Recorder`.
        options: see ExecuteOptions.

    Raises:
        ValueError: if trajectory and robot do not fit together.
    """
    _check_start(arm, trajectory, options)
    for name in targets:
        checks.choice("targets", name, list(world.bodies))
    watch = _Watch(world, arm, frozenset(targets), kind, options)
    log = _Log(arm, track)
    rate = world.options.rate
    steps = int(np.ceil(trajectory.times[-1] * rate - 1e-9))
    # Targets before each step and after the last.
    path = trajectory.at(np.arange(steps + 1) / rate)  # (steps + 1, J)
    times = np.arange(1, steps + 1) / rate
    q = path[1:]
    qd = np.diff(path, axis=0) * rate
    # Opening and phase at each step.
    grip = np.interp(times, trajectory.times, trajectory.grip)
    phase = trajectory.phase[np.searchsorted(trajectory.times, times - 1e-9, side="right") - 1]
    every = max(1, round(rate / options.log_rate))
    log.sample(0.0, int(trajectory.phase[0]), {}, trajectory.q[0])
    for i in range(steps):
        # Command, step, look for events.
        arm.command(path[i], qd[i], grip[i])
        world.step()
        if on_step is not None:
            on_step(world)
        watch.look(times[i], int(phase[i]))
        if (i + 1) % every == 0 or i == steps - 1:
            log.sample(times[i], int(phase[i]), watch.forces, q[i])
        if watch.stopped:
            # Protective stop: hold the measured configuration.
            arm.command(arm.q(), np.zeros(len(q[i])), arm.width())
            break
    # Let everything come to rest; a robot that ends holding, or that was stopped, holds on.
    settled = world.settle(options.settle) if options.settle else 0.0
    if int(trajectory.phase[-1]) < Phase.RELEASE and not watch.stopped:
        watch.look_again(times[i] + settled)
    if settled:
        log.sample(times[i] + settled, int(phase[i]), {}, None)
    return log.execution(tuple(watch.events.values()))


def _check_start(arm: Arm, trajectory: Trajectory, options: ExecuteOptions) -> None:
    if trajectory.joint_names != arm.robot.joint_names:
        raise ValueError(
            f"trajectory.joint_names: expected {', '.join(arm.robot.joint_names)}, "
            f"got {', '.join(trajectory.joint_names)}; plan for the robot that stands in this world"
        )
    off = float(np.abs(arm.q() - trajectory.q[0]).max())
    if not off <= options.start_tolerance:
        raise ValueError(
            f"trajectory.q[0]: the robot is {off:.3f} rad away from it; "
            "call arm.reset(trajectory.q[0], width) first, or plan from its configuration"
        )


class _Watch:
    """Events in the contacts of each step."""

    def __init__(
        self,
        world: World,
        arm: Arm,
        targets: frozenset[str],
        kind: ContactKind,
        options: ExecuteOptions,
    ) -> None:
        self.world = world
        self.arm = arm
        self.targets = targets
        self.kind = kind
        self.options = options
        self.cloths = [world.bodies[t] for t in targets if world.is_cloth(world.bodies[t])]
        self.events: dict[str, Event] = {}
        self.forces: dict[tuple[str, str], float] = {}
        self.stopped = False
        self._averages: dict[tuple[str, str], float] = {}
        self._phase = 0
        self._held = False
        self._touched = False
        self._lost_since: float | None = None

    def look(self, time: float, phase: int) -> None:
        """Record the events of this step."""
        # Sum the forces of each pair of link and body.
        self.forces = {}
        for contact in self.arm.contacts():
            pair = (contact.link, contact.body)
            self.forces[pair] = self.forces.get(pair, 0.0) + contact.force
        self._look_for_collision(time)
        sides = self._touching_sides()
        self._touched |= bool(sides)
        if phase >= Phase.MANIPULATE and self._phase < Phase.MANIPULATE:
            self._check_grasp(time, sides)
        if phase >= Phase.RELEASE and self._phase < Phase.RELEASE:
            if self.kind == "push" and not self._touched:
                self._note(time, "missed_grasp", "the fingers never touched it")
            self.let_go()
        if phase == Phase.MANIPULATE and self._held and not self.cloths:
            self._check_hold(time, bool(sides))
        self._phase = phase

    def look_again(self, time: float) -> None:
        """Record a drop if a robot that should hold the target has lost it while it stood still."""
        if self.cloths or not self._held:
            return
        links = {contact.link for contact in self.arm.contacts() if contact.body in self.targets}
        if not links & set(self.arm.finger_sides):
            self._note(time, "dropped", "neither finger touches it any more")

    def _note(self, time: float, kind: str, detail: str) -> None:
        self.events.setdefault(kind, Event(float(time), kind, detail))

    def _touching_sides(self) -> set[int]:
        """Sides of the fingers in contact with a target."""
        sides = self.arm.finger_sides
        return {
            sides[link]
            for (link, body), force in self.forces.items()
            if link in sides and body in self.targets and force > self.options.touch_force
        }

    def _look_for_collision(self, time: float) -> None:
        """Stop if the low-passed force of a forbidden contact exceeds its limit."""
        # First-order low pass with time constant `collision_time`.
        blend = 1 - np.exp(-1 / (self.options.collision_time * self.world.options.rate))
        for pair in self.forces.keys() | self._averages.keys():
            link, body = pair
            if body in self.targets and link in self.arm.finger_sides:
                continue
            average = self._averages.get(pair, 0.0)
            self._averages[pair] = average = average + blend * (
                self.forces.get(pair, 0.0) - average
            )
            if average > self.options.collision_force:
                self._note(time, "collision", f"{link} pressed on {body} with {average:.0f} N")
                self.stopped = True

    def _check_grasp(self, time: float, sides: set[int]) -> None:
        """Record a missed grasp unless the closed fingers hold a target."""
        if self.kind == "push":
            return
        if self.cloths:
            self._held = self._pinch_cloth()
            if not self._held:
                self._note(time, "missed_grasp", "no part of the cloth was between the fingers")
            return
        width = self.arm.width()
        self._held = len(sides) == 2 and width > self.options.closed_width
        if not self._held:
            self._note(
                time,
                "missed_grasp",
                f"{len(sides)} of 2 fingers touch it, {1e3 * width:.0f} mm apart",
            )

    def _check_hold(self, time: float, touching: bool) -> None:
        """Record a drop once contact is lost for too long."""
        if touching:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = time
        elif time - self._lost_since > self.options.lost_time:
            self._note(self._lost_since, "dropped", "neither finger touches it any more")

    def _pinch_cloth(self) -> bool:
        """Anchor the cloth vertices between the fingertips; False if there are none."""
        link = self.arm.robot.gripper.finger_links[0]
        held = False
        for cloth in self.cloths:
            # Vertices near the fingertips, tool frame.
            points = transform(inverse(self.arm.X_world_tool()), self.world.cloth_vertices(cloth))
            tips = [0.0, 0.0, self.arm.robot.gripper.finger_depth]
            near = np.flatnonzero(np.linalg.norm(points - tips, axis=1) < self.options.pinch_radius)
            self.world.anchor_cloth(cloth, near, self.arm.body, link)
            held |= len(near) > 0
        return held

    def let_go(self) -> None:
        """Remove the anchors of pinched cloths."""
        for cloth in self.cloths:
            self.world.release_cloth(cloth)


@dataclass
class _Log:
    """Samples of an execution under way."""

    arm: Arm
    track: Track
    times: list[float] = field(default_factory=list)
    phase: list[int] = field(default_factory=list)
    q: list[FloatArray] = field(default_factory=list)
    X_world_tool: list[FloatArray] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    points: list[FloatArray] = field(default_factory=list)
    forces: list[dict[tuple[str, str], float]] = field(default_factory=list)
    commanded: list[FloatArray] = field(default_factory=list)

    def sample(
        self,
        time: float,
        phase: int,
        forces: dict[tuple[str, str], float],
        commanded: FloatArray | None,
    ) -> None:
        self.times.append(float(time))
        self.phase.append(phase)
        self.q.append(self.arm.q())
        self.X_world_tool.append(self.arm.X_world_tool())
        self.width.append(self.arm.width())
        self.points.append(self.track())
        self.forces.append(forces)
        if commanded is not None:
            self.commanded.append(commanded)

    def execution(self, events: tuple[Event, ...]) -> Execution:
        # One column of forces per pair that ever touched.
        pairs = tuple(sorted({pair for forces in self.forces for pair in forces}))
        X_world_tool = np.stack(self.X_world_tool)
        # Tracking error: measured against commanded tool positions.
        wanted = self.arm.robot.tool_pose(np.stack(self.commanded))[:, :3, 3]
        return Execution(
            joint_names=self.arm.robot.joint_names,
            times=np.array(self.times),
            phase=np.array(self.phase),
            q=np.stack(self.q),
            X_world_tool=X_world_tool,
            width=np.array(self.width),
            points=np.stack(self.points),
            pairs=pairs,
            forces=np.array(
                [[forces.get(pair, 0.0) for pair in pairs] for forces in self.forces]
            ).reshape(len(self.forces), len(pairs)),
            tracking_error=float(
                np.linalg.norm(X_world_tool[: len(wanted), :3, 3] - wanted, axis=1).max()
            ),
            events=events,
        )
