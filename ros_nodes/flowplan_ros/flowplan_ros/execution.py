"""How a certified plan is executed: what is checked before anything moves, and what stops it. No ROS in here.

A plan is cut where its fingers move: reach, close, carry, open, retreat. Each piece begins and ends at rest and goes to
its controller alone; the next is not sent before the last one's result was checked. While a controller works it is
watched, because it may be stuck and wait for ever: a motion of d seconds may take

    factor d + slack       (1.1 d + 0.5 s)

and no longer. Whatever ends an execution early, the running goal is canceled first, upon which the arm holds still.
Clock, controllers and person are ports (`Ports`), so that every rule can be tested without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NoReturn, Protocol

import numpy as np

from flowplan.trajectory import Phase, Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_STILL = 1e-3  # rad/s or m/s: a piece that starts or ends faster than this is not at rest
_SAME_OPENING = 1e-4  # metres: fingers closer than this to where they should be are not sent there


class Code(IntEnum):
    """How an execution ends: the constants of flowplan_msgs/ErrorCode that an executor uses."""

    SUCCESS = 0
    CANCELED = 1
    BAD_GOAL = 3
    NOT_CERTIFIED = 400
    STALE = 401
    WRONG_START = 402
    NO_STATE = 403
    NO_CONTROLLER = 404
    NOT_CONFIRMED = 405
    GOAL_REJECTED = 406
    MOTION_ABORTED = 407
    GRIPPER_FAILED = 408
    FEEDBACK_LOST = 409
    WATCHDOG = 410


@dataclass(frozen=True)
class ExecutionOptions:
    """When a plan may be executed, and when to stop."""

    velocity_scaling: float = 1.0
    """Share of the planned speed, at most; a goal may ask for less, not for more."""
    dry_run: bool = False
    """Show every plan and move nothing, whatever the goal says."""
    confirm: bool = True
    """Wait for a person to confirm each plan (service `~/confirm`) before anything moves."""
    confirm_timeout: float = 60.0
    """Seconds to wait for that person."""
    max_age: float = 120.0
    """Seconds for which a plan counts as fresh after it was certified: what it was planned around may have moved."""
    start_tolerance: float = 0.01
    """Radians or metres by which any joint may be off the point where a motion starts."""
    lead_in: float = 0.2
    """Seconds in which a controller takes the arm from where it is to the first point, so that the target never jumps."""
    response_timeout: float = 1.0
    """Seconds in which a controller must answer a goal."""
    state_timeout: float = 0.5
    """Seconds without joint states, or without a controller's feedback, after which a motion is stopped."""
    watchdog_factor: float = 1.1
    """Times its planned duration that a motion may take, plus the slack."""
    watchdog_slack: float = 0.5
    """Seconds that a motion may take beyond that."""
    stop_timeout: float = 1.0
    """Seconds to wait for a controller to say that it has stopped."""
    gripper_timeout: float = 5.0
    """Seconds in which the fingers must arrive."""
    opening_tolerance: float = 0.005
    """Metres by which the fingers may miss the opening they were sent to."""
    min_grasp: float = 0.002
    """Metres between the fingers below which they closed on nothing; 0 where what is held is as thin as cloth."""

    def __post_init__(self) -> None:
        positive = (
            "velocity_scaling",
            "start_tolerance",
            "lead_in",
            "response_timeout",
            "state_timeout",
        )
        for name in (
            *positive,
            "max_age",
            "confirm_timeout",
            "stop_timeout",
            "gripper_timeout",
            "opening_tolerance",
        ):
            checks.positive(f"ExecutionOptions.{name}", getattr(self, name))
        for name in ("min_grasp", "watchdog_slack"):
            checks.positive(f"ExecutionOptions.{name}", getattr(self, name), zero=True)
        if self.velocity_scaling > 1:
            raise ValueError(
                f"ExecutionOptions.velocity_scaling: expected at most 1, got {self.velocity_scaling:g}; "
                "the plan was certified at its own speed"
            )
        if not self.watchdog_factor >= 1:
            raise ValueError(
                f"ExecutionOptions.watchdog_factor: expected at least 1, got {self.watchdog_factor:g}"
            )


@dataclass(frozen=True, eq=False)
class Order:
    """What an executor is asked to do.

    Attributes:
        trajectory: the plan's.
        holds: the contact is a grasp, so that closed fingers must have something between them.
        stamp: seconds, when the plan was certified, by the clock of Ports.date.
        frame: that the plan was made in, for its preview.
        dry_run: show the plan, move nothing.
        velocity_scaling: share of the planned speed, 0 for the executor's own.
    """

    trajectory: Trajectory
    holds: bool
    stamp: float
    frame: str = "world"
    dry_run: bool = False
    velocity_scaling: float = 0.0


@dataclass(frozen=True)
class Fingers:
    """A step: the fingers move and the arm rests. `opening` in metres; `holding` if they must close on something."""

    phase: int
    opening: float
    holding: bool


@dataclass(frozen=True, eq=False)
class Motion:
    """A step: the arm moves, from rest to rest, and the fingers rest.

    Attributes:
        phase: of the plan.
        joint_names: J joints.
        times: (n,) seconds from the start; the first is the lead-in.
        q, qd, qdd: (n, J).
    """

    phase: int
    joint_names: tuple[str, ...]
    times: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray


class GoalState(Enum):
    """Where a controller's goal is."""

    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def ended(self) -> bool:
        return self not in (GoalState.SENT, GoalState.RUNNING)


@dataclass
class Goal:
    """A goal that went to a controller, kept up to date by whoever sent it.

    Attributes:
        state: where it is.
        message: what the controller said at the end.
        heard: seconds of Ports.now, when feedback last came; None before the first.
        error: radians or metres, the largest difference of any joint in the last feedback.
        opening: metres between the fingers, of a gripper's result.
        gripped: a gripper's result says that the fingers arrived or were held up by something.
    """

    state: GoalState = GoalState.SENT
    message: str = ""
    heard: float | None = None
    error: float = 0.0
    opening: float = 0.0
    gripped: bool = False


class Ports(Protocol):
    """The world as an execution sees it."""

    def now(self) -> float:
        """Seconds of a clock that never jumps."""

    def date(self) -> float:
        """Seconds of the clock that plans are stamped by."""

    async def tick(self) -> None:
        """Return after a moment: the time between two looks at everything below, at most 20 ms."""

    def stopped(self) -> bool:
        """Whether somebody wants this execution to end."""

    def measured(self) -> tuple[float, FloatArray] | None:
        """Age of the oldest joint's reading, seconds, and positions (J,) in the trajectory's order; None before all."""

    def missing(self) -> tuple[str, ...]:
        """Names of the controllers that cannot be reached."""

    def ask(self, question: str) -> None:
        """Ask a person."""

    def answer(self) -> bool | None:
        """What they said; None as long as nobody said anything."""

    def move(self, motion: Motion) -> Goal:
        """Send a motion to the arm's controller."""

    def close(self, fingers: Fingers) -> Goal:
        """Send the fingers to an opening."""

    def cancel(self, goal: Goal) -> None:
        """Stop a goal; one that was not answered yet is stopped as soon as it is."""

    def show(self, trajectory: Trajectory) -> None:
        """Preview a whole trajectory."""

    def pose(self, q: FloatArray, opening: float) -> None:
        """Preview the robot at one moment of it."""

    def report(self, progress: float, status: str, phase: int, error: float) -> None:
        """Tell the client: share done, what is happening, the plan's phase, the tracking error."""


@dataclass(frozen=True)
class Outcome:
    """How an execution ended.

    Attributes:
        code: success, or why not.
        message: the same for people, in one line.
        duration: seconds from the first command to the end.
        max_error: radians or metres, the largest tracking error of any joint.
    """

    code: Code
    message: str
    duration: float
    max_error: float


class Ended(Exception):
    """An execution that ends before its last step."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


async def execute(order: Order, ports: Ports, options: ExecutionOptions) -> Outcome:
    """Check a plan and make the robot do it, or show it; never raises for what may happen on a robot."""
    run = _Execution(order, ports, options)
    try:
        message = await run.run()
        code = Code.SUCCESS
    except Ended as end:
        code, message = end.code, str(end)
    duration = 0.0 if run.began is None else ports.now() - run.began
    return Outcome(code, message, duration, run.max_error)


def effective_scaling(asked: float, allowed: float) -> float:
    """The velocity scaling to use: what a goal asks for (0: nothing special), but no more than the executor allows."""
    if not 0 <= asked <= 1:
        raise Ended(
            Code.BAD_GOAL, f"velocity_scaling: expected 0 (the node's own) to 1, got {asked:g}"
        )
    return min(asked or allowed, allowed)


def check_digest(stated: str, computed: str) -> None:
    """Refuse a plan that nothing certified, or that is not what was certified."""
    if stated != computed:
        what = "not that of the plan" if stated else "missing"
        raise Ended(
            Code.NOT_CERTIFIED, f"plan.digest: {what}; execute what a planner returned, unchanged"
        )


def check_age(stamp: float, date: float, options: ExecutionOptions) -> None:
    """Refuse a plan that is old: what it was planned around may have moved."""
    age = date - stamp
    if age > options.max_age:
        raise Ended(
            Code.STALE, f"the plan is {age:.1f} s old (max_age {options.max_age:g} s); plan again"
        )
    if age < -1.0:
        raise Ended(
            Code.STALE,
            f"the plan is stamped {-age:.1f} s in the future; synchronise the machines' clocks",
        )


def check_start(
    motion: Motion, measured: tuple[float, FloatArray] | None, options: ExecutionOptions
) -> None:
    """Refuse to start a motion from where the robot is not, or when nobody knows where it is."""
    if measured is None:
        raise Ended(
            Code.NO_STATE,
            f"no joint states of {', '.join(motion.joint_names)}; is the robot's driver running?",
        )
    age, q = measured
    if age > options.state_timeout:
        raise Ended(
            Code.NO_STATE,
            f"the last joint states are {age:.2f} s old; is the robot's driver running?",
        )
    off = np.abs(q - motion.q[0])
    j = int(np.argmax(off))
    if off[j] > options.start_tolerance:
        raise Ended(
            Code.WRONG_START,
            f"{Phase(motion.phase).label}: {motion.joint_names[j]} is at {q[j]:.4f}, the motion starts at {motion.q[0, j]:.4f} "
            f"(start_tolerance {options.start_tolerance:g}); plan again from where the robot is",
        )


def check_fingers(fingers: Fingers, goal: Goal, options: ExecutionOptions) -> None:
    """Go on only if the fingers did what the plan counts on."""
    doing = f"{Phase(fingers.phase).label}: the fingers"
    if goal.state is GoalState.REJECTED:
        raise Ended(
            Code.GOAL_REJECTED,
            f"the gripper's controller rejected an opening of {fingers.opening:.4f} m",
        )
    if goal.state is GoalState.CANCELED:
        raise Ended(Code.GRIPPER_FAILED, f"{doing} were stopped by somebody else")
    millimetres = f"{1e3 * goal.opening:.1f} mm apart{f' ({goal.message})' if goal.message else ''}"
    # A controller may call it an abort when something stops the fingers: what counts is where they are.
    if fingers.holding:
        if goal.opening < options.min_grasp:
            raise Ended(Code.GRIPPER_FAILED, f"{doing} closed on nothing: {millimetres}")
        if not goal.gripped:
            raise Ended(
                Code.GRIPPER_FAILED, f"{doing} neither arrived nor met anything: {millimetres}"
            )
    elif abs(goal.opening - fingers.opening) > options.opening_tolerance:
        raise Ended(
            Code.GRIPPER_FAILED,
            f"{doing} should be {1e3 * fingers.opening:.1f} mm apart and are {millimetres}",
        )


def steps(order: Order, scaling: float, lead_in: float) -> tuple[Fingers | Motion, ...]:
    """The steps of a plan, one controller each.

    Args:
        order: whose trajectory to cut.
        scaling: share of the planned speed, above 0 to 1.
        lead_in: seconds from where the arm is to the first point of each motion.

    Raises:
        Ended: BAD_GOAL where fingers and arm would have to move at once, or a piece does not begin and end at rest.
    """
    trajectory = order.trajectory
    out: list[Fingers | Motion] = []
    opening: float | None = None
    for phase in np.unique(trajectory.phase).tolist():
        chosen = trajectory.phase == phase
        grip = trajectory.grip[chosen]
        if phase in (Phase.GRIP, Phase.RELEASE):
            target = float(grip[-1])
        elif np.ptp(grip) <= _SAME_OPENING:
            target = float(grip[0])
        else:
            raise Ended(
                Code.BAD_GOAL,
                f"plan.grip: the fingers move in the {Phase(phase).label} phase; they may only move at rest",
            )
        if opening is None or abs(target - opening) > _SAME_OPENING:
            out.append(Fingers(phase, target, holding=order.holds and phase == Phase.GRIP))
            opening = target
        if phase not in (Phase.GRIP, Phase.RELEASE) and chosen.sum() > 1:
            out.append(_motion(trajectory, phase, scaling, lead_in))
    return tuple(out)


def _motion(trajectory: Trajectory, phase: int, scaling: float, lead_in: float) -> Motion:
    chosen = trajectory.phase == phase
    times, q, qd, qdd = (
        np.array(getattr(trajectory, name)[chosen]) for name in ("times", "q", "qd", "qdd")
    )
    fastest = np.abs(qd[[0, -1]]).max()
    if fastest > _STILL:
        raise Ended(
            Code.BAD_GOAL,
            f"plan.trajectory: the {Phase(phase).label} phase begins or ends at {fastest:.3g} rad/s; expected rest",
        )
    # Controllers refuse a last velocity that is not exactly zero.
    qd[[0, -1]] = 0.0
    return Motion(
        phase,
        trajectory.joint_names,
        lead_in + (times - times[0]) / scaling,
        q,
        qd * scaling,
        qdd * scaling**2,
    )


class _Execution:
    """One execution under way: how far it is, and what it measured."""

    def __init__(self, order: Order, ports: Ports, options: ExecutionOptions) -> None:
        self.order = order
        self.ports = ports
        self.options = options
        self.began: float | None = None
        self.max_error = 0.0
        self.done = 0.0
        self.total = 1.0

    async def run(self) -> str:
        """From the first check to the last step; what to tell the client."""
        order, ports, options = self.order, self.ports, self.options
        scaling = effective_scaling(order.velocity_scaling, options.velocity_scaling)
        check_age(order.stamp, ports.date(), options)
        todo = steps(order, scaling, options.lead_in)
        motions = [step for step in todo if isinstance(step, Motion)]
        if not motions:
            raise Ended(Code.BAD_GOAL, "plan.trajectory: no motion in it")
        self.total = sum(float(motion.times[-1]) for motion in motions)
        ports.show(order.trajectory)
        check_start(motions[0], ports.measured(), options)
        missing = ports.missing()
        if missing:
            raise Ended(
                Code.NO_CONTROLLER,
                f"{' and '.join(missing)}: nobody answers; is the controller running?",
            )
        if order.dry_run or options.dry_run:
            await self._play(scaling)
            return "dry run: every check passed, nothing moved"
        if options.confirm:
            await self._confirm()
            check_age(order.stamp, ports.date(), options)
        self.began = ports.now()
        for step in todo:
            if ports.stopped():
                raise Ended(
                    Code.CANCELED,
                    f"canceled before the {Phase(step.phase).label} phase; the arm rests",
                )
            await (self._fingers(step) if isinstance(step, Fingers) else self._arm(step))
        return f"done in {ports.now() - self.began:.1f} s"

    async def _play(self, scaling: float) -> None:
        """Show the robot along the trajectory, as fast as it would move."""
        trajectory, began = self.order.trajectory, self.ports.now()
        duration = trajectory.times[-1] / scaling
        elapsed = 0.0
        while elapsed < duration:
            await self._rest()
            elapsed = min(self.ports.now() - began, duration)
            t = elapsed * scaling
            phase = int(trajectory.phase[np.searchsorted(trajectory.times, t, side="right") - 1])
            self.ports.pose(
                trajectory.at(t), float(np.interp(t, trajectory.times, trajectory.grip))
            )
            self.ports.report(elapsed / duration, f"dry run: {Phase(phase).label}", phase, 0.0)

    async def _confirm(self) -> None:
        trajectory = self.order.trajectory
        self.ports.ask(f"Execute a plan of {trajectory.times[-1]:.1f} s? Is the workspace clear?")
        asked = self.ports.now()
        while (answer := self.ports.answer()) is None:
            if self.ports.now() - asked > self.options.confirm_timeout:
                seconds = self.options.confirm_timeout
                raise Ended(
                    Code.NOT_CONFIRMED, f"nobody confirmed within {seconds:g} s; nothing moved"
                )
            self.ports.report(0.0, "waiting for confirmation", 0, 0.0)
            await self._rest()
        if not answer:
            raise Ended(Code.NOT_CONFIRMED, "declined; nothing moved")

    async def _rest(self) -> None:
        """Wait while no controller works."""
        await self.ports.tick()
        if self.ports.stopped():
            raise Ended(Code.CANCELED, "canceled before anything moved")

    async def _fingers(self, step: Fingers) -> None:
        status = f"{Phase(step.phase).label}: fingers to {1e3 * step.opening:.0f} mm"
        goal = self.ports.close(step)
        # Grippers may say nothing on the way; they answer soon, and fail when they do not arrive.
        limit = self.options.gripper_timeout
        await self._finish(
            goal, _Watch("the gripper", status, step.phase, 0.0, limit, Code.GRIPPER_FAILED, False)
        )
        check_fingers(step, goal, self.options)

    async def _arm(self, step: Motion) -> None:
        check_start(step, self.ports.measured(), self.options)
        duration, phase = float(step.times[-1]), Phase(step.phase).label
        limit = self.options.watchdog_factor * duration + self.options.watchdog_slack
        goal = self.ports.move(step)
        await self._finish(
            goal, _Watch("the arm", phase, step.phase, duration, limit, Code.WATCHDOG, True)
        )
        said = f": {goal.message}" if goal.message else ""
        if goal.state is GoalState.REJECTED:
            raise Ended(
                Code.GOAL_REJECTED, f"{phase}: the arm's controller rejected the motion{said}"
            )
        if goal.state is GoalState.ABORTED:
            raise Ended(Code.MOTION_ABORTED, f"{phase}: the arm's controller gave up{said}")
        if goal.state is GoalState.CANCELED:
            raise Ended(
                Code.MOTION_ABORTED,
                f"{phase}: somebody else canceled the motion at its controller{said}",
            )
        self.done += duration

    async def _finish(self, goal: Goal, watch: _Watch) -> None:
        """Wait until a goal has ended by itself, or stop it."""
        sent, accepted = self.ports.now(), None
        while not goal.state.ended:
            await self.ports.tick()
            now = self.ports.now()
            if accepted is None and goal.state is GoalState.RUNNING:
                accepted = now
            self.max_error = max(self.max_error, goal.error)
            if goal.state.ended:
                return
            elapsed = 0.0 if accepted is None else now - accepted
            share = (self.done + min(elapsed, watch.duration)) / self.total
            self.ports.report(share, watch.status, watch.phase, goal.error)
            end = self._why_stop(goal, watch, sent, accepted, now)
            if end is not None:
                await self._stop(goal, watch, end)

    def _why_stop(
        self, goal: Goal, watch: _Watch, sent: float, accepted: float | None, now: float
    ) -> Ended | None:
        """What speaks against letting a goal go on, if anything does."""
        options, where = self.options, watch.status
        if self.ports.stopped():
            return Ended(Code.CANCELED, f"{where}: canceled")
        reading = self.ports.measured()
        if reading is None or reading[0] > options.state_timeout:
            return Ended(
                Code.FEEDBACK_LOST, f"{where}: no joint states for {options.state_timeout:g} s"
            )
        if accepted is None:
            if now - sent > options.response_timeout:
                late = f"{where}: {watch.who}'s controller did not answer within {options.response_timeout:g} s"
                return Ended(Code.NO_CONTROLLER, late)
            return None
        if watch.streams and now - max(accepted, goal.heard or accepted) > options.state_timeout:
            return Ended(
                Code.FEEDBACK_LOST,
                f"{where}: no feedback of the controller for {options.state_timeout:g} s",
            )
        if now - accepted > watch.limit:
            return Ended(watch.late, f"{where}: not done after {now - accepted:.1f} s")
        return None

    async def _stop(self, goal: Goal, watch: _Watch, end: Ended) -> NoReturn:
        """Cancel a goal, wait until its controller says that it stopped, and end."""
        self.ports.cancel(goal)
        asked = self.ports.now()
        while not goal.state.ended:
            if self.ports.now() - asked > self.options.stop_timeout:
                raise Ended(
                    end.code,
                    f"{end}; {watch.who}'s controller does not say that it stopped: it may still move",
                )
            await self.ports.tick()
        raise Ended(end.code, f"{end}; {watch.who} stopped")


@dataclass(frozen=True)
class _Watch:
    """What a running goal is judged by.

    Attributes:
        who: works.
        status: what the client is told.
        phase: of the plan.
        duration: seconds that it adds to the progress.
        limit: seconds that it may take.
        late: what it ends with when it takes longer.
        streams: its controller sends feedback all the time.
    """

    who: str
    status: str
    phase: int
    duration: float
    limit: float
    late: Code
    streams: bool
