"""Shared parts of flowplan's servers: lifecycle, parameters, one goal at a time, and ends with a
reason.

One thread runs all callbacks of a node (a SingleThreadedExecutor: rclpy's multi-threaded one stalls
for hundreds of milliseconds under back-to-back traffic). A goal's body is a coroutine that the
executor resumes whenever it wakes, so cancel requests are served while the body waits. Long calls
run in the process of a `Worker`. Every goal is accepted and ended with an error code and a message,
because a rejection cannot carry a reason. A newer goal preempts the older one.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import rclpy
from flowplan_msgs.msg import ErrorCode
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from flowplan_ros.parameters import Parameters
from flowplan_ros.turn import yield_to_executor
from flowplan_ros.worker import Worker

Options = TypeVar("Options")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Quality of service for late subscribers: they get the last message."""

_TICK = 0.01  # seconds between two checks of a condition that nothing announces


class Failure(Exception):
    """End of a goal without success.

    Args:
        code: constant of ErrorCode.
        message: the reason and the remedy, in one line.
        result: the action's Result, as far as it is known; error_code and error_msg are set from
            the above.
    """

    def __init__(self, code: int, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.code, self.result = code, result


class Goal:
    """A running goal.

    Attributes:
        request: the action's Goal message.
        stopped: reason to end now (canceled, preempted, node deactivated), or None.
    """

    def __init__(self, handle: ServerGoalHandle, feedback_type: type) -> None:
        self.request = handle.request
        self.stopped: Failure | None = None
        self.ended = False
        self._handle, self._feedback = handle, feedback_type
        self._on_stop: list[Callable[[], object]] = []

    def feedback(self, progress: float, status: str, **fields: Any) -> None:
        """Publish feedback: the fraction done, a status word, and further fields of the action's
        Feedback."""
        if self._handle.is_active:
            self._handle.publish_feedback(
                self._feedback(progress=float(progress), status=status, **fields)
            )

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the executor's thread as soon as the goal has to end."""
        self._on_stop.append(callback)

    def stop(self, code: int, message: str) -> None:
        """End the goal. The first reason counts."""
        if self.stopped is None and not self.ended:
            self.stopped = Failure(code, message)
            for callback in self._on_stop:
                callback()

    def check(self) -> None:
        """Raise the reason to end, if there is one."""
        if self.stopped is not None:
            raise self.stopped


class ServerNode(LifecycleNode, Generic[Options]):
    """Lifecycle node whose options are parameters.

    Subclasses override `configure`, `activate`, `deactivate` and `cleanup`, and raise ValueError if
    one of them cannot be done.

    Args:
        name: name of the node, unless remapped.
        options: defaults of the parameters.
        leave_out: names of options that are not parameters.
        fixed: parameters that `configure` reads; they cannot be set from then on until `cleanup`.
    """

    def __init__(
        self,
        name: str,
        options: Options,
        *,
        leave_out: tuple[str, ...] = (),
        fixed: tuple[str, ...] = (),
    ) -> None:
        super().__init__(name)
        self._fixed = fixed
        self._configured = False
        self.active = False
        self._goals: list[GoalServer] = []
        self._parameters_of = Parameters(self, options, leave_out, self._may_change)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._simulated = bool(self.get_parameter("use_sim_time").value)

    @property
    def options(self) -> Options:
        """Options with the current values of the parameters."""
        return self._parameters_of.options

    def now(self) -> float:
        """Seconds of a clock that never jumps; simulated time with use_sim_time, so that a pause is
        no failure."""
        clock = self.get_clock() if self._simulated else self.steady
        return float(clock.now().nanoseconds * 1e-9)

    def date(self) -> float:
        """Seconds of the clock that stamps messages."""
        return float(self.get_clock().now().nanoseconds * 1e-9)

    def configure(self) -> None:
        """Load, warm up, connect."""

    def activate(self) -> None:
        """Start to serve."""

    def deactivate(self) -> None:
        """Stop to serve; running goals are being stopped."""

    def cleanup(self) -> None:
        """Undo `configure`."""

    def close(self) -> None:
        """Release everything before the node is destroyed."""
        self._stop_goals("the node is shutting down")
        if self._configured:
            self._configured = False
            self.cleanup()

    def ready(self) -> None:
        """Raise Failure NOT_READY unless the node is active."""
        if not self.active:
            raise Failure(
                ErrorCode.NOT_READY, f"{self.get_name()} is not active; configure and activate it"
            )

    def wake(self) -> None:
        """Resume waiting coroutines. Any thread may call it."""
        if self.executor is not None:
            self.executor.wake()

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """True once a condition holds, False after `timeout` seconds of real time."""
        end = time.monotonic() + timeout
        timer = self.create_timer(_TICK, lambda: None, clock=self.steady)
        try:
            while not (holds := condition()) and time.monotonic() < end:
                await yield_to_executor()
            return holds
        finally:
            self.destroy_timer(timer)

    async def done(self, future: Any, goal: Goal) -> Any:
        """Result of an rclpy future. Raises the reason to end if the goal has to end before."""
        while True:
            goal.check()
            if future.done():
                return future.result()
            await yield_to_executor()

    def start_worker(self, setup: Callable[[], object], timeout: float) -> Worker:
        """A warm worker.

        Raises:
            ValueError: if it cannot be set up, or not within `timeout` seconds.
        """
        worker = Worker(setup, self.get_name(), wake=self.wake, report=self.get_logger().error)
        worker.start()
        try:
            worker.wait_ready(timeout)
        except ValueError:
            worker.close()
            raise
        return worker

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self._configured = self._try("configure", self.configure)
        return self._outcome(self._configured)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self.active = self._try("activate", self.activate)
        return super().on_activate(state) if self.active else self._outcome(False)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self.active = False
        self._stop_goals("the node was deactivated")
        done = self._try("deactivate", self.deactivate)
        return super().on_deactivate(state) if done else self._outcome(False)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self._configured = False
        return self._outcome(self._try("clean up", self.cleanup))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle callback."""
        self.active = False
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _try(self, what: str, step: Callable[[], None]) -> bool:
        """A transition whose error is logged: rclpy swallows what it raises."""
        try:
            step()
        except Exception as error:
            detail = "" if isinstance(error, ValueError) else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"cannot {what}: {error}{detail}")
            return False
        return True

    @staticmethod
    def _outcome(done: bool) -> TransitionCallbackReturn:
        return TransitionCallbackReturn.SUCCESS if done else TransitionCallbackReturn.FAILURE

    def _may_change(self, name: str) -> str:
        fixed = any(name == start or name.startswith(f"{start}.") for start in self._fixed)
        return (
            "read when the node was configured; clean it up first"
            if self._configured and fixed
            else ""
        )

    def _stop_goals(self, why: str) -> None:
        for server in self._goals:
            server.stop(ErrorCode.NOT_READY, why)


class GoalServer:
    """Action of a ServerNode: one goal at a time, the newest.

    Args:
        node: node that serves the action while it is active.
        action_type: action whose Result has error_code and error_msg, and whose Feedback has
            progress and status.
        name: relative name.
        run: coroutine that works on a goal and returns its Result. It may raise Failure. ValueError
            means that a field of the goal is wrong; anything else is a defect. Once `goal.stopped`
            is set it has to return or raise soon; what it then raises is ignored.
    """

    def __init__(
        self,
        node: ServerNode[Any],
        action_type: Any,
        name: str,
        run: Callable[[Goal], Awaitable[Any]],
    ) -> None:
        self._node, self._type, self._run = node, action_type, run
        self._goals: dict[bytes, Goal] = {}
        node._goals.append(self)
        self._server = ActionServer(
            node,
            action_type,
            name,
            self._execute,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
        )

    def stop(self, code: int, message: str) -> None:
        """End all goals."""
        for goal in self._goals.values():
            goal.stop(code, message)

    def _accepted(self, handle: ServerGoalHandle) -> None:
        goal = Goal(handle, self._type.Feedback)
        self.stop(ErrorCode.PREEMPTED, "a newer goal took over")
        self._goals[bytes(handle.goal_id.uuid)] = goal
        handle.execute()
        goal.feedback(0.0, "accepted")

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        goal = self._goals.get(bytes(handle.goal_id.uuid))
        if goal is None:
            return CancelResponse.REJECT
        goal.stop(ErrorCode.CANCELED, "canceled")
        return CancelResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        key = bytes(handle.goal_id.uuid)
        goal = self._goals[key]
        try:
            # Goals are kept in their order of arrival: older ones end first.
            while next(iter(self._goals)) != key:
                await yield_to_executor()
            result = await self._outcome(goal)
        finally:
            goal.ended = True
            del self._goals[key]
            self._node.wake()
        if result.error_code == ErrorCode.SUCCESS:
            handle.succeed()
        elif result.error_code == ErrorCode.CANCELED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    async def _outcome(self, goal: Goal) -> Any:
        try:
            goal.check()
            self._node.ready()
            return await self._run(goal)
        except Exception as error:
            if goal.stopped is not None:
                failure = goal.stopped
                failure.result = getattr(error, "result", None)  # measured so far
            elif isinstance(error, Failure):
                failure = error
            elif isinstance(error, ValueError):
                failure = Failure(ErrorCode.BAD_GOAL, str(error))
            else:
                self._node.get_logger().error(traceback.format_exc())
                failure = Failure(
                    ErrorCode.INTERNAL, f"{type(error).__name__}: {error}; see the node's log"
                )
        result = failure.result or self._type.Result()
        result.error_code, result.error_msg = failure.code, str(failure)
        return result


def spin(make: Callable[[], Node]) -> None:
    """Whole life of a node: the body of its `main`. A mistake in its parameters is one line and
    exit status 1.

    `make` is called with ROS initialized. A method `close` of the node is called at the end. After
    a
    clean end the process exits at once: a stopped node was seen, once, to exit with a segmentation
    fault instead of 0. Only destructors of native libraries are left to run then, and they are not
    needed.
    """
    rclpy.init()
    try:
        node = make()
    except (ValueError, ParameterException) as error:
        rclpy.logging.get_logger("flowplan_ros").fatal(str(error))
        rclpy.try_shutdown()
        sys.exit(1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if hasattr(node, "close"):
            node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
