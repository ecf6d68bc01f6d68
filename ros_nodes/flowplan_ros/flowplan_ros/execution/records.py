"""Records of an execution: the request, its steps, the goals of controllers, and the ports to the
robot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

from flowplan.trajectory import Trajectory
from flowplan.utils.checks import FloatArray


class Code(IntEnum):
    """Result of an execution: the constants of flowplan_msgs/ErrorCode that an executor uses."""

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
    HAND_FULL = 411


@dataclass(frozen=True, eq=False)
class ExecutionRequest:
    """A plan to execute.

    Attributes:
        trajectory: the plan's trajectory.
        holds: the contact is a grasp, so that closed fingers must have something between them.
        stamp: seconds of the clock of Ports.date, when the plan was certified.
        frame: frame of the plan, for its preview.
        dry_run: show the plan, move nothing.
        velocity_scaling: share of the planned speed; 0 for the executor's own.
        released: the hand lets go and retreats; otherwise the plan ends with the manipulation.
    """

    trajectory: Trajectory
    holds: bool
    stamp: float
    frame: str = "world"
    dry_run: bool = False
    velocity_scaling: float = 0.0
    released: bool = True


@dataclass(frozen=True)
class GripperStep:
    """A motion of the fingers while the arm rests.

    Attributes:
        phase: phase of the plan.
        opening: commanded opening, meters.
        holding: the fingers must close on something.
        before: commanded opening before this step, meters; infinity if the plan does not say. What
            the fingers hold is not wider.
    """

    phase: int
    opening: float
    holding: bool
    before: float = float("inf")


@dataclass(frozen=True, eq=False)
class ArmStep:
    """A motion of the arm, from rest to rest, while the fingers rest.

    Attributes:
        phase: phase of the plan.
        joint_names: J joints.
        times: (n,) seconds from the start; the first is the lead-in.
        q, qd, qdd: (n, J) positions, velocities, accelerations; rad or m.
    """

    phase: int
    joint_names: tuple[str, ...]
    times: FloatArray
    q: FloatArray
    qd: FloatArray
    qdd: FloatArray


class GoalState(Enum):
    """State of a controller's goal."""

    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def ended(self) -> bool:
        """True once the controller no longer works on the goal."""
        return self not in (GoalState.SENT, GoalState.RUNNING)


@dataclass
class Goal:
    """A goal sent to a controller, kept up to date by its sender.

    Attributes:
        state: state of the goal.
        message: the controller's last message.
        heard: time of the last feedback, seconds of Ports.now; None before the first.
        error: largest joint error in the last feedback, radians or meters.
        opening: opening of the fingers in a gripper's result, meters.
        gripped: a gripper's result says that the fingers arrived or were stopped by an object.
    """

    state: GoalState = GoalState.SENT
    message: str = ""
    heard: float | None = None
    error: float = 0.0
    opening: float = 0.0
    gripped: bool = False


class Ports(Protocol):
    """The robot, its controllers, its operator and the clocks, as an execution needs them."""

    def now(self) -> float:
        """Seconds of a clock that never jumps."""

    def date(self) -> float:
        """Seconds of the clock that stamps plans."""

    async def tick(self) -> None:
        """A pause between two looks at everything below, at most 20 ms."""

    def stopped(self) -> bool:
        """True once somebody asked to end this execution."""

    def measured(self) -> tuple[float, FloatArray] | None:
        """Age of the oldest joint's reading (seconds; negative for a stamp in the future) and
        positions (J,) in the trajectory's order; None before every joint was heard."""

    def missing(self) -> tuple[str, ...]:
        """Names of the controllers that cannot be reached."""

    def ask(self, question: str) -> None:
        """Put a question to the operator."""

    def answer(self) -> bool | None:
        """The operator's answer; None before there is one."""

    def move(self, step: ArmStep) -> Goal:
        """Send a motion to the arm's controller."""

    def close(self, step: GripperStep) -> Goal:
        """Send the fingers to an opening."""

    def cancel(self, goal: Goal) -> None:
        """Stop a goal; one that was not answered yet is stopped as soon as it is."""

    def show(self, trajectory: Trajectory) -> None:
        """Preview a whole trajectory."""

    def pose(self, q: FloatArray, opening: float) -> None:
        """Preview the robot at one moment of it."""

    def report(self, progress: float, status: str, phase: int, error: float) -> None:
        """Send feedback to the client: share done, status, phase of the plan, tracking error."""


@dataclass(frozen=True)
class ExecutionResult:
    """The end of an execution.

    Attributes:
        code: success, or the kind of failure.
        message: the same for people, in one line.
        duration: seconds from the first command to the end.
        max_error: largest tracking error of any joint, radians or meters.
        holding: the fingers closed on something, or were about to, and did not open since.
    """

    code: Code
    message: str
    duration: float
    max_error: float
    holding: bool = False


class ExecutionEnded(Exception):
    """End of an execution before its last step."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
