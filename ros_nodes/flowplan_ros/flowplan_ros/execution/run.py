"""One execution: its steps in order, each watched until its controller has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from flowplan.trajectory import Phase
from flowplan_ros.execution.checks import (
    check_age,
    check_ending,
    check_fingers,
    check_known,
    check_start,
    state_fault,
)
from flowplan_ros.execution.options import ExecutionOptions
from flowplan_ros.execution.records import (
    ArmStep,
    Code,
    ExecutionEnded,
    ExecutionRequest,
    ExecutionResult,
    Goal,
    GoalState,
    GripperStep,
    Ports,
)
from flowplan_ros.execution.steps import effective_scaling, steps


async def execute(
    request: ExecutionRequest, ports: Ports, options: ExecutionOptions
) -> ExecutionResult:
    """Check a plan and make the robot follow it, or show it. Failures of a robot are results."""
    execution = _Execution(request, ports, options)
    try:
        message = await execution.run()
        code = Code.SUCCESS
    except ExecutionEnded as end:
        code, message = end.code, str(end)
    duration = 0.0 if execution.began is None else ports.now() - execution.began
    return ExecutionResult(code, message, duration, execution.max_error, execution.holding)


class _Execution:
    """One execution under way: its progress, and its largest error."""

    def __init__(self, request: ExecutionRequest, ports: Ports, options: ExecutionOptions) -> None:
        self.request = request
        self.ports = ports
        self.options = options
        self.began: float | None = None
        self.max_error = 0.0
        self.holding = False
        self.done = 0.0
        self.total = 1.0

    async def run(self) -> str:
        """Everything from the first check to the last step; returns the message for the client."""
        # Checks before anything moves: speed, age, motion.
        request, ports, options = self.request, self.ports, self.options
        scaling = effective_scaling(request.velocity_scaling, options.velocity_scaling)
        check_age(request.stamp, ports.date(), options)
        check_ending(request)
        todo = steps(request, scaling, options.lead_in)
        arm_steps = [step for step in todo if isinstance(step, ArmStep)]
        if not arm_steps:
            raise ExecutionEnded(Code.BAD_GOAL, "plan.trajectory: no motion in it")
        self.total = sum(float(step.times[-1]) for step in arm_steps)
        # The arm stands at the start, and its controllers answer.
        ports.show(request.trajectory)
        check_start(arm_steps[0], ports.measured(), options)
        missing = ports.missing()
        if missing:
            line = f"{' and '.join(missing)}: nobody answers; is the controller running?"
            raise ExecutionEnded(Code.NO_CONTROLLER, line)
        # Preview only, or the operator's consent; a plan may get too old meanwhile.
        if request.dry_run or options.dry_run:
            await self._play(scaling)
            return "dry run: every check passed, nothing moved"
        if options.confirm:
            await self._confirm()
            check_age(request.stamp, ports.date(), options)
        # One controller works at a time.
        self.began = ports.now()
        for step in todo:
            if ports.stopped():
                line = f"canceled before the {Phase(step.phase).label} phase; the arm rests"
                raise ExecutionEnded(Code.CANCELED, line)
            await (self._gripper(step) if isinstance(step, GripperStep) else self._arm(step))
        # Success is claimed of a robot whose state is known.
        fault = state_fault(ports.measured(), options.state_timeout)
        if fault:
            raise ExecutionEnded(Code.FEEDBACK_LOST, f"every step is done, but {fault}")
        end = "" if request.released else "; the plan ends holding, the fingers stay as they are"
        return f"done in {ports.now() - self.began:.1f} s{end}"

    async def _play(self, scaling: float) -> None:
        """Preview of the robot along the trajectory, at the speed of the execution."""
        trajectory, began = self.request.trajectory, self.ports.now()
        duration = trajectory.times[-1] / scaling
        elapsed = 0.0
        while elapsed < duration:
            await self._rest()
            elapsed = min(self.ports.now() - began, duration)
            # Elapsed time on the plan's own clock, and the phase that it falls in.
            t = elapsed * scaling
            sample = np.searchsorted(trajectory.times, t, side="right") - 1
            phase = int(trajectory.phase[sample])
            opening = float(np.interp(t, trajectory.times, trajectory.grip))
            self.ports.pose(trajectory.at(t), opening)
            self.ports.report(elapsed / duration, f"dry run: {Phase(phase).label}", phase, 0.0)

    async def _confirm(self) -> None:
        """Wait for the operator's yes."""
        duration, timeout = self.request.trajectory.times[-1], self.options.confirm_timeout
        self.ports.ask(f"Execute a plan of {duration:.1f} s? Is the workspace clear?")
        asked = self.ports.now()
        while (answer := self.ports.answer()) is None:
            if not _within(self.ports.now() - asked, timeout):
                line = f"nobody confirmed within {timeout:g} s; nothing moved"
                raise ExecutionEnded(Code.NOT_CONFIRMED, line)
            self.ports.report(0.0, "waiting for confirmation", 0, 0.0)
            await self._rest()
        if not answer:
            raise ExecutionEnded(Code.NOT_CONFIRMED, "declined; nothing moved")

    async def _rest(self) -> None:
        """A pause while no controller works."""
        await self.ports.tick()
        if self.ports.stopped():
            raise ExecutionEnded(Code.CANCELED, "canceled before anything moved")

    async def _gripper(self, step: GripperStep) -> None:
        """Move the fingers, and check what they hold."""
        check_known(self.ports.measured(), self.request.trajectory.joint_names, self.options)
        status = f"{Phase(step.phase).label}: fingers to {1e3 * step.opening:.0f} mm"
        # Grippers may send no feedback: they answer soon, and fail if they do not arrive in time.
        limit = self.options.gripper_timeout
        watch = _Watch("the gripper", status, step.phase, 0.0, limit, Code.GRIPPER_FAILED, False)
        # Fingers that are stopped while they close may hold something; shut or open ones do not.
        self.holding = self.holding or step.holding
        goal = self.ports.close(step)
        await self._finish(goal, watch)
        if step.holding and goal.opening < self.options.min_grasp:
            self.holding = False
        check_fingers(step, goal, self.options)
        self.holding = step.holding

    async def _arm(self, step: ArmStep) -> None:
        """Move the arm through one phase."""
        check_start(step, self.ports.measured(), self.options)
        duration, phase = float(step.times[-1]), Phase(step.phase).label
        limit = self.options.watchdog_factor * duration + self.options.watchdog_slack
        watch = _Watch("the arm", phase, step.phase, duration, limit, Code.WATCHDOG, True)
        goal = self.ports.move(step)
        await self._finish(goal, watch)
        _refuse_failed(goal, phase)
        if not np.isfinite(goal.error):
            raise ExecutionEnded(Code.FEEDBACK_LOST, f"{phase}: the tracking error is not finite")
        self.done += duration

    async def _finish(self, goal: Goal, watch: _Watch) -> None:
        """Wait until a goal has ended by itself, or stop it."""
        sent, accepted = self.ports.now(), None
        while not goal.state.ended:
            await self.ports.tick()
            # The controller's clock starts when it accepts, not when the goal is sent.
            now = self.ports.now()
            if accepted is None and goal.state is GoalState.RUNNING:
                accepted = now
            self.max_error = max(self.max_error, goal.error)
            if goal.state.ended:
                return
            elapsed = 0.0 if accepted is None else now - accepted
            # Progress counts planned seconds, and stays within the step.
            share = (self.done + min(elapsed, watch.duration)) / self.total
            self.ports.report(share, watch.status, watch.phase, goal.error)
            end = self._reason_to_stop(goal, watch, sent, accepted, now)
            if end is not None:
                await self._stop(goal, watch, end)

    def _reason_to_stop(
        self, goal: Goal, watch: _Watch, sent: float, accepted: float | None, now: float
    ) -> ExecutionEnded | None:
        """The first rule that a running goal breaks, if any."""
        # A cancellation counts before any fault.
        options, where = self.options, watch.status
        if self.ports.stopped():
            return ExecutionEnded(Code.CANCELED, f"{where}: canceled")
        # Joint states that are late or not finite, and feedback that is not finite.
        fault = state_fault(self.ports.measured(), options.state_timeout)
        if fault:
            return ExecutionEnded(Code.FEEDBACK_LOST, f"{where}: {fault}")
        if not np.isfinite(goal.error):
            return ExecutionEnded(Code.FEEDBACK_LOST, f"{where}: the tracking error is not finite")
        if accepted is None:
            if _within(now - sent, options.response_timeout):
                return None
            timeout = f"{options.response_timeout:g} s"
            line = f"{where}: {watch.who}'s controller did not answer within {timeout}"
            return ExecutionEnded(Code.NO_CONTROLLER, line)
        # Silence counts from the last feedback, or from the acceptance.
        heard = accepted if goal.heard is None else max(goal.heard, accepted)
        if watch.streams and not _within(now - heard, options.state_timeout):
            line = f"{where}: no feedback of the controller for {options.state_timeout:g} s"
            return ExecutionEnded(Code.FEEDBACK_LOST, line)
        if not _within(now - accepted, watch.limit):
            return ExecutionEnded(watch.late, f"{where}: not done after {now - accepted:.1f} s")
        return None

    async def _stop(self, goal: Goal, watch: _Watch, end: ExecutionEnded) -> NoReturn:
        """Cancel a goal, wait until its controller reports that it stopped, and end."""
        self.ports.cancel(goal)
        asked = self.ports.now()
        while not goal.state.ended:
            if not _within(self.ports.now() - asked, self.options.stop_timeout):
                silent = f"{watch.who}'s controller does not say that it stopped"
                line = f"{end}; {silent}: it may still move"
                raise ExecutionEnded(end.code, line)
            await self.ports.tick()
        raise ExecutionEnded(end.code, f"{end}; {watch.who} stopped")


def _within(seconds: float, limit: float) -> bool:
    """True from 0 to the limit; false for NaN, and for a clock that went back."""
    return 0 <= seconds <= limit


def _refuse_failed(goal: Goal, phase: str) -> None:
    """End the execution unless the arm's controller succeeded."""
    said = f": {goal.message}" if goal.message else ""
    if goal.state is GoalState.REJECTED:
        line = f"{phase}: the arm's controller rejected the motion{said}"
        raise ExecutionEnded(Code.GOAL_REJECTED, line)
    if goal.state is GoalState.ABORTED:
        line = f"{phase}: the arm's controller gave up{said}"
        raise ExecutionEnded(Code.MOTION_ABORTED, line)
    if goal.state is GoalState.CANCELED:
        line = f"{phase}: somebody else canceled the motion at its controller{said}"
        raise ExecutionEnded(Code.MOTION_ABORTED, line)


@dataclass(frozen=True)
class _Watch:
    """Limits of a running goal.

    Attributes:
        who: name of the controlled device.
        status: status for the client.
        phase: phase of the plan.
        duration: seconds that the step adds to the progress.
        limit: seconds that it may take.
        late: code of a step that takes longer.
        streams: its controller sends feedback all the time.
    """

    who: str
    status: str
    phase: int
    duration: float
    limit: float
    late: Code
    streams: bool
