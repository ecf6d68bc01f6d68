"""What flowplan's servers share: lifecycle, parameters, goals one at a time, and ends that say why.

One thread runs all of a node's callbacks (a SingleThreadedExecutor: the multi-threaded one of rclpy stalls for hundreds
of milliseconds under back-to-back traffic). A goal's body is a coroutine that the executor resumes whenever it wakes, so
cancel requests are served while the body waits; what takes long runs in a `Worker`'s process. A goal is always accepted
and ended with an error code and a message, because a rejection could not say why. A newer goal ends the older one.
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
from flowplan_ros.turn import turn
from flowplan_ros.worker import Worker

Options = TypeVar("Options")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""A late subscriber gets the last message."""

_TICK = 0.01  # seconds between looks at a condition that nothing announces


class Failure(Exception):
    """A goal's end that is not a success.

    Args:
        code: of ErrorCode.
        message: what happened and what to do, in a line.
        result: the action's Result as far as it was filled in; its error_code and error_msg are set from the above.
    """

    def __init__(self, code: int, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.code, self.result = code, result


class Goal:
    """One goal while it runs.

    Attributes:
        request: the action's Goal message.
        stopped: why it has to end now (canceled, preempted, node deactivated), or None.
    """

    def __init__(self, handle: ServerGoalHandle, feedback_type: type) -> None:
        self.request = handle.request
        self.stopped: Failure | None = None
        self.ended = False
        self._handle, self._feedback = handle, feedback_type
        self._on_stop: list[Callable[[], object]] = []

    def feedback(self, progress: float, status: str, **fields: Any) -> None:
        """Publish feedback: the fraction done, a word, and whatever else the action's Feedback has."""
        if self._handle.is_active:
            self._handle.publish_feedback(
                self._feedback(progress=float(progress), status=status, **fields)
            )

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call `callback` in the executor's thread as soon as the goal has to end."""
        self._on_stop.append(callback)

    def stop(self, code: int, message: str) -> None:
        """Make it end; the first reason stands."""
        if self.stopped is None and not self.ended:
            self.stopped = Failure(code, message)
            for callback in self._on_stop:
                callback()

    def check(self) -> None:
        """Raise the reason where the goal has to end."""
        if self.stopped is not None:
            raise self.stopped


class ServerNode(LifecycleNode, Generic[Options]):
    """A lifecycle node whose options are parameters.

    Subclasses override `configure`, `activate`, `deactivate`, `cleanup` and raise ValueError where one cannot be done.

    Args:
        name: of the node, unless remapped.
        options: defaults of the parameters.
        leave_out: names of options that are no parameters.
        fixed: parameters that `configure` reads, and that cannot be set from then on until `cleanup`.
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

    @property
    def options(self) -> Options:
        """As the parameters are now."""
        return self._parameters_of.options

    def configure(self) -> None:
        """Get ready: load, warm up, connect."""

    def activate(self) -> None:
        """Begin to serve."""

    def deactivate(self) -> None:
        """Cease to serve; running goals are being stopped."""

    def cleanup(self) -> None:
        """Undo `configure`."""

    def close(self) -> None:
        """Let go of everything before the node is destroyed."""
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
        """Make the executor resume waiting coroutines; any thread may call it."""
        if self.executor is not None:
            self.executor.wake()

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for a condition at most `timeout` seconds of real time; does it hold?"""
        end = time.monotonic() + timeout
        timer = self.create_timer(
            _TICK, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        try:
            while not (holds := condition()) and time.monotonic() < end:
                await turn()
            return holds
        finally:
            self.destroy_timer(timer)

    async def done(self, future: Any, goal: Goal) -> Any:
        """The result of an rclpy future, unless the goal has to end before; then its reason is raised."""
        while True:
            goal.check()
            if future.done():
                return future.result()
            await turn()

    def start_worker(self, setup: Callable[[], object], timeout: float) -> Worker:
        """A worker that is warm.

        Raises:
            ValueError: when it cannot be set up, or not within `timeout` seconds.
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
        """Lifecycle."""
        self._configured = self._try("configure", self.configure)
        return self._outcome(self._configured)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle."""
        self.active = self._try("activate", self.activate)
        return super().on_activate(state) if self.active else self._outcome(False)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle."""
        self.active = False
        self._stop_goals("the node was deactivated")
        done = self._try("deactivate", self.deactivate)
        return super().on_deactivate(state) if done else self._outcome(False)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle."""
        self._configured = False
        return self._outcome(self._try("clean up", self.cleanup))

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle."""
        self.active = False
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _try(self, what: str, step: Callable[[], None]) -> bool:
        """rclpy swallows what a transition raises; say it instead."""
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
    """An action of a ServerNode: one goal at a time, the newest.

    Args:
        node: serves it while active.
        action_type: whose Result has error_code and error_msg, and whose Feedback has progress and status.
        name: relative.
        run: does a goal and returns its Result. It may raise Failure; ValueError means that a field of the goal is
            wrong, anything else is a defect. When `goal.stopped` is set it has to return or raise soon: what it then
            raises does not matter.
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
        """End whatever runs."""
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
            # Goals are kept in the order in which they came: the older ones end first.
            while next(iter(self._goals)) != key:
                await turn()
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
                failure.result = getattr(error, "result", None)  # what was measured until then
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
    """A node's whole life: the body of its `main`. A mistake in its parameters is one line and exit status 1.

    `make` is called with ROS initialised. Where the node has a method `close`, it is called at the end. After a clean end
    the process is over at once. A node that was stopped was seen, once, to exit with a segmentation fault instead of 0; what
    is left to run by then are the destructors of native libraries, which are not needed.
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
