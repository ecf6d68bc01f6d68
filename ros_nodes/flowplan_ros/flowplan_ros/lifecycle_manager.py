"""Manager that brings lifecycle nodes up in order, keeps them up, and takes them down in reverse.

There is no script of transitions. A few times per second the manager reads the state of every node
and requests the next transition of those that lag behind, so a node that was killed and started
again comes back like any other. All nodes are configured at once, because they load and warm up
then. Each is activated once those before it are active. On the way down all are deactivated, last
first, and then all cleaned up, last first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan_ros.parameters import Parameters
from flowplan_ros.server import LATCHED, spin
from flowplan_ros.turn import yield_to_executor

_UP = {State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE}
_DOWN = {
    State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_DEACTIVATE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_CLEANUP,
}
_WORDS = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_CLEANUP: "clean up",
}
_ANSWER = 2.0  # seconds in which a running node answers the request for its state


@dataclass(frozen=True)
class ManagerOptions:
    """Parameters of lifecycle_manager."""

    nodes: tuple[str, ...] = ("scan_node", "flow_node", "plan_node", "executor_node")
    """Nodes in their order of activation."""
    autostart: bool = True
    """Start at once; otherwise service ~/startup starts."""
    period: Annotated[float, Interval(0.02, 60.0)] = 0.25
    """Seconds between two checks of the nodes."""
    retry: Annotated[float, Interval(0.1, 600.0)] = 5.0
    """Seconds until a refused transition is requested again."""
    timeout: Annotated[float, Interval(1.0, 3600.0)] = 180.0
    """Timeout of a transition, of ~/startup and of ~/shutdown, seconds."""

    def __post_init__(self) -> None:
        bounds.check(self)


class Managed:
    """A managed node as the manager knows it."""

    def __init__(self, manager: LifecycleManager, name: str) -> None:
        group = manager.group
        self.name = name
        self.state = State.PRIMARY_STATE_UNKNOWN
        self._manager = manager
        self._get: Client = manager.create_client(
            GetState, f"{name}/get_state", callback_group=group
        )
        self._change: Client = manager.create_client(
            ChangeState, f"{name}/change_state", callback_group=group
        )
        self._asked: tuple[Any, Any, float] | None = None  # client, future, deadline
        self._changing = 0  # requested transition
        self._not_before = 0.0

    @property
    def here(self) -> bool:
        """True if the node exists."""
        return self._get.service_is_ready()

    def look(self) -> None:
        """Take in the answers, and request the node's state again."""
        now = time.monotonic()
        if not self.here:
            self._give_up()
            self.state = State.PRIMARY_STATE_UNKNOWN
        elif self._asked is not None:
            client, future, end = self._asked
            if future.done():
                self._asked = None
                self._hear(future.result())
            elif now > end:
                self._manager.get_logger().warning(f"{self.name}: no answer; asking again")
                self._give_up()
        if self._asked is None and self.here:
            self._ask(self._get, GetState.Request(), _ANSWER)

    def step(self, transition: int) -> None:
        """Request a transition, unless the node is busy or has just refused one."""
        if (
            self._changing
            or time.monotonic() < self._not_before
            or not self._change.service_is_ready()
        ):
            return
        self._give_up()
        self._changing = transition
        request = ChangeState.Request(transition=Transition(id=transition))
        self._ask(self._change, request, self._manager.options.timeout)

    def _ask(self, client: Any, request: Any, timeout: float) -> None:
        self._asked = (client, client.call_async(request), time.monotonic() + timeout)

    def _hear(self, answer: Any) -> None:
        if isinstance(answer, GetState.Response):
            self.state = answer.current_state.id
            return
        word = _WORDS[self._changing]
        if not answer.success:
            options = self._manager.options
            self._not_before = time.monotonic() + options.retry
            self._manager.get_logger().error(
                f"{self.name}: did not {word}; its log says why; again in {options.retry:g} s"
            )
        else:
            self._manager.get_logger().info(f"{self.name}: {word} done")
        self._changing = 0
        self.state = State.PRIMARY_STATE_UNKNOWN  # until it is requested

    def _give_up(self) -> None:
        if self._asked is not None:
            client, future, _ = self._asked
            client.remove_pending_request(future)
        self._asked, self._changing = None, 0


class LifecycleManager(Node):
    """Node that manages lifecycle nodes."""

    def __init__(self) -> None:
        super().__init__("lifecycle_manager")
        self.group = ReentrantCallbackGroup()
        self._parameters_of = Parameters(self, ManagerOptions(), (), self._may_change)
        self._up = self.options.autostart
        self._managed = [Managed(self, name) for name in self.options.nodes]
        self._active = self.create_publisher(Bool, "~/active", LATCHED)
        self._said: bool | None = None
        for name, serve in (
            ("startup", self._startup),
            ("shutdown", self._shutdown),
            ("is_active", self._is_active),
        ):
            self.create_service(Trigger, f"~/{name}", serve, callback_group=self.group)
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(self.options.period, self._look, callback_group=self.group, clock=clock)

    @property
    def options(self) -> ManagerOptions:
        """Options with the current values of the parameters."""
        return self._parameters_of.options

    @staticmethod
    def _may_change(name: str) -> str:
        return "read when the manager starts" if name in ("nodes", "autostart", "period") else ""

    def _look(self) -> None:
        for node in self._managed:
            node.look()
        if self._up:
            for node in self._managed:
                if node.state in _UP:
                    node.step(_UP[node.state])
            lagging = next(
                (n for n in self._managed if n.state != State.PRIMARY_STATE_ACTIVE), None
            )
            if lagging is not None and lagging.state == State.PRIMARY_STATE_INACTIVE:
                lagging.step(Transition.TRANSITION_ACTIVATE)
        elif not any(n.here and n.state == State.PRIMARY_STATE_UNKNOWN for n in self._managed):
            for state, transition in _DOWN.items():
                last = next((n for n in reversed(self._managed) if n.state == state), None)
                if last is not None:
                    last.step(transition)
                    break
        if self._said != (active := not self._not_active()):
            self._said = active
            self._active.publish(Bool(data=active))

    def _not_active(self) -> list[str]:
        return [node.name for node in self._managed if node.state != State.PRIMARY_STATE_ACTIVE]

    def _not_down(self) -> list[str]:
        return [
            n.name for n in self._managed if n.here and n.state != State.PRIMARY_STATE_UNCONFIGURED
        ]

    async def _startup(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._up = True
        return await self._answer(self._not_active, "active", response)

    async def _shutdown(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._up = False
        return await self._answer(self._not_down, "unconfigured", response)

    async def _answer(
        self, lagging: Callable[[], list[str]], word: str, response: Trigger.Response
    ) -> Trigger.Response:
        end = time.monotonic() + self.options.timeout
        while lagging() and time.monotonic() < end:
            await yield_to_executor()  # the timer wakes the executor
        return self._say(lagging(), word, response)

    def _is_active(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._say(self._not_active(), "active", response)

    @staticmethod
    def _say(lagging: list[str], word: str, response: Trigger.Response) -> Trigger.Response:
        response.success = not lagging
        response.message = f"all {word}" if not lagging else f"not {word}: {', '.join(lagging)}"
        return response


def main() -> None:
    """Entry point."""
    spin(LifecycleManager)


if __name__ == "__main__":
    main()
