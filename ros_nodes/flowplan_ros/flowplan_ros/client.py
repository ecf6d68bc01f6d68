"""Client of all servers: scan, generate, plan and execute as one call.

    with Client() as client:
        report = client.send(instruction_to_msg(Prompt("close the laptop")), on_progress=print)

Everything happens in the calling thread, so no thread outlives the client. An interruption (ctrl-C,
or `stop` returning True) cancels the running goal and waits for its end. The death of a server is
noticed when it leaves the graph; a restarted server is asked about the goal and does not know it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from flowplan_msgs.action import ExecutePlan, GenerateFlow, PlanFlow
from flowplan_msgs.msg import CertifiedPlan, ErrorCode, Instruction, Scene, SceneMotion
from flowplan_msgs.srv import Scan
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool

from flowplan_ros.conversions import plain
from flowplan_ros.server import LATCHED

Report = Callable[[str, float, str], object]
"""Callback with the stage, the share of it that is done, and a status."""
STAGES = ("scan", "flow", "plan", "execute")
SENDING = "sending the goal"
"""Status of a server that has not reported yet."""

_ASK_AGAIN = 2.0  # seconds between two checks whether a server still knows a goal
_STOPPING = 10.0  # seconds to wait for the end of a canceled goal
_SPIN = 0.02  # largest time between two checks of `stop`, seconds


@dataclass(frozen=True)
class ClientOptions:
    """Names that the client calls, relative to its namespace, its timeouts, and the plans' end."""

    scan: str = "scan"
    """Service of scan_node."""
    flow: str = "generate_flow"
    """Action of flow_node."""
    plan: str = "plan_flow"
    """Action of plan_node."""
    execute: str = "execute_plan"
    """Action of executor_node."""
    confirm: str = "executor_node/confirm"
    """Service of executor_node for the operator's answer."""
    tasks: str = "task/instruction"
    """Latched topic of documents that state the meaning of sentences."""
    server_timeout: float = 15.0
    """Seconds to wait for a server to appear."""
    scan_timeout: float = 120.0
    """Timeout of a scan, seconds."""
    task_timeout: float = 2.0
    """Seconds to wait for a document that may state the meaning of a sentence."""
    release: str = ""
    """Let go at the end of a plan: auto, always or never; empty for plan_node's own."""


class StageFailed(Exception):
    """Stage that ended without success.

    Args:
        stage: one of STAGES.
        code: constant of ErrorCode.
        message: the server's message.
        result: result of the action or service, if there is one.
    """

    def __init__(self, stage: str, code: int, message: str, result: Any = None) -> None:
        self.text = f"{code_name(code)}: {message}"
        super().__init__(f"{stage}: {self.text}")
        self.stage, self.code, self.result = stage, code, result


@dataclass(frozen=True)
class Done:
    """Results of all stages.

    Attributes:
        scene, motion, plan, execution: messages of the stages.
        seconds: duration of each stage, measured by the client.
    """

    scene: Scene
    motion: SceneMotion
    plan: CertifiedPlan
    execution: ExecutePlan.Result
    seconds: dict[str, float]


def code_name(code: int) -> str:
    """Name of one of ErrorCode's constants."""
    names = {getattr(ErrorCode, name): name for name in dir(ErrorCode) if name.isupper()}
    return str(names.get(code, code))


class Client:
    """Client of flowplan's servers, one call at a time. Use it as a context, or close it.

    Args:
        namespace: namespace of the servers.
        options: names and timeouts.
        name: name of the client's node.
    """

    def __init__(
        self,
        namespace: str = "",
        options: ClientOptions = ClientOptions(),
        name: str = "flowplan_client",
    ) -> None:
        self.options = options
        self._context = rclpy.Context()
        rclpy.init(
            args=[], context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO
        )
        self._node = rclpy.create_node(
            name, namespace=namespace, context=self._context, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._actions: dict[str, ActionClient] = {}
        self._services: dict[str, Any] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def send(
        self,
        instruction: Instruction,
        *,
        names: Sequence[str] = (),
        seed: int = 0,
        dry_run: bool = False,
        velocity_scaling: float = 0.0,
        on_progress: Report = lambda stage, fraction, status: None,
        on_confirm: Callable[[], bool] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Done:
        """Scan, generate, plan and execute.

        Args:
            instruction: the instruction. A sentence that a task's document answers is replaced by
                that document.
            names: names of the objects, nearest to the robot first. Defaults to the instruction's
                own.
            seed: random seed.
            dry_run: show the plan, move nothing.
            velocity_scaling: share of the planned speed; 0 for the executor's own.
            on_progress: callback with the progress.
            on_confirm: callback for the operator's confirmation. If omitted, somebody else has to
                confirm.
            stop: callback that returns True to cancel.

        Raises:
            StageFailed: if a stage did not succeed.
        """
        on_progress("scan", 0.0, f"waiting for {self.options.scan}")
        self._scanner(stop)  # receive latched messages, such as the document of a task
        asked = self.resolve(instruction)
        seconds: dict[str, float] = {}
        begun = time.monotonic()

        def lap(stage: str) -> None:
            nonlocal begun
            seconds[stage], begun = time.monotonic() - begun, time.monotonic()
            on_progress(stage, 1.0, "done")

        waiting: dict[str, Any] = {"on_progress": on_progress, "stop": stop}
        scene = self.scan(names or objects_of(asked), **waiting)
        lap("scan")
        generated = self.generate(scene, asked, seed=seed, **waiting)
        lap("flow")
        planned = self.plan(scene, generated.motions[0], seed=seed, **waiting)
        lap("plan")
        execution = self.execute(
            planned.plan,
            dry_run=dry_run,
            velocity_scaling=velocity_scaling,
            on_confirm=on_confirm,
            **waiting,
        )
        lap("execute")
        return Done(scene, generated.motions[0], planned.plan, execution, seconds)

    def task(self) -> Instruction:
        """Document of the task that is published now, as a simulation does.

        Raises:
            ValueError: if there is none.
        """
        document = self._published(self.options.server_timeout)
        if document is None:
            raise ValueError(
                f"{self.options.tasks}: nobody publishes a task; is the simulation running?"
            )
        return document

    def resolve(self, instruction: Instruction) -> Instruction:
        """Document of a sentence, if the task has one; otherwise the instruction itself."""
        if instruction.kind != Instruction.PROMPT:
            return instruction
        document = self._published(self.options.task_timeout)
        if document is None or plain(_entries(document).get("prompt", "")) != plain(
            instruction.text
        ):
            return instruction
        return document

    def _published(self, timeout: float) -> Instruction | None:
        """Current document of the task; None if nobody publishes one.

        Each call subscribes anew, because an older subscription may hold the document of a task
        that was replaced since. A new one receives what was last published.
        """
        heard: list[Instruction] = []
        subscription = self._node.create_subscription(
            Instruction, self.options.tasks, heard.append, LATCHED
        )
        self._wait(lambda: bool(heard), timeout)
        self._node.destroy_subscription(subscription)
        return heard[-1] if heard else None

    def scan(
        self,
        names: Sequence[str] = (),
        *,
        on_progress: Report = lambda stage, fraction, status: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Scene:
        """Scene from the cameras; raises StageFailed."""
        client = self._scanner(stop)
        on_progress("scan", 0.0, "scanning")
        future = client.call_async(Scan.Request(names=list(names)))
        if not self._wait(future.done, self.options.scan_timeout, stop):
            client.remove_pending_request(future)
            if stop():
                raise StageFailed("scan", ErrorCode.CANCELED, "canceled")
            raise StageFailed(
                "scan", ErrorCode.NOT_READY, f"no answer within {self.options.scan_timeout:g} s"
            )
        answer = future.result()
        if answer.error_code != ErrorCode.SUCCESS:
            raise StageFailed("scan", answer.error_code, answer.error_msg, answer)
        return answer.scene

    def generate(
        self, scene: Scene, instruction: Instruction, *, seed: int = 0, **waiting: Any
    ) -> GenerateFlow.Result:
        """Motions of a scene that follow an instruction; raises StageFailed. `waiting` as for
        `execute`."""
        goal = GenerateFlow.Goal(scene=scene, instruction=instruction, seed=seed)
        return self._goal("flow", GenerateFlow, self.options.flow, goal, **waiting)

    def plan(
        self, scene: Scene, motion: SceneMotion, *, seed: int = 0, **waiting: Any
    ) -> PlanFlow.Result:
        """Certified plan from the robot's current state; raises StageFailed. `waiting` as for
        `execute`."""
        goal = PlanFlow.Goal(scene=scene, motion=motion, seed=seed, release=self.options.release)
        return self._goal("plan", PlanFlow, self.options.plan, goal, **waiting)

    def execute(
        self,
        plan: CertifiedPlan,
        *,
        dry_run: bool = False,
        velocity_scaling: float = 0.0,
        on_confirm: Callable[[], bool] | None = None,
        on_progress: Report = lambda stage, fraction, status: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> ExecutePlan.Result:
        """Execute a plan, or show it; raises StageFailed. Arguments as for `send`."""
        waits = False

        def watch(stage: str, fraction: float, status: str) -> None:
            nonlocal waits
            on_progress(stage, fraction, status)
            if on_confirm is not None and not waits and "confirmation" in status:
                waits = True
                confirm = self._service(SetBool, self.options.confirm)
                confirm.call_async(SetBool.Request(data=bool(on_confirm())))

        goal = ExecutePlan.Goal(
            plan=plan, dry_run=dry_run, velocity_scaling=float(velocity_scaling)
        )
        return self._goal(
            "execute", ExecutePlan, self.options.execute, goal, on_progress=watch, stop=stop
        )

    def _goal(
        self,
        stage: str,
        kind: Any,
        name: str,
        goal: Any,
        *,
        on_progress: Report = lambda stage, fraction, status: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Result of a goal that succeeds."""
        if name not in self._actions:
            self._actions[name] = ActionClient(self._node, kind, name)
        client = self._actions[name]
        on_progress(stage, 0.0, f"waiting for {name}")
        if not self._wait(client.server_is_ready, self.options.server_timeout, stop):
            raise _absent(stage, name, stop())

        def tell(message: Any) -> None:
            on_progress(stage, message.feedback.progress, message.feedback.status)

        on_progress(stage, 0.0, SENDING)
        sending = client.send_goal_async(goal, feedback_callback=tell)
        try:
            # Not interrupted by `stop`: a goal that was sent has to be canceled for certain.
            if not self._wait(sending.done, self.options.server_timeout):
                raise StageFailed(stage, ErrorCode.NOT_READY, f"{name} does not answer")
            handle: Any = sending.result()
            if not handle.accepted:
                raise StageFailed(stage, ErrorCode.NOT_READY, f"{name} rejected the goal")
            response = self._result(stage, name, client, handle, stop)
        except KeyboardInterrupt:
            self._take_back(sending)
            raise
        result = response.result
        if response.status != GoalStatus.STATUS_SUCCEEDED:
            reason = result.error_msg or f"{name} gave no reason; its node's log may"
            raise StageFailed(stage, result.error_code or ErrorCode.INTERNAL, reason, result)
        return result

    def _take_back(self, sending: Any) -> None:
        """Cancel a goal that was sent, answered or not, and wait for its end."""
        if not self._wait(sending.done, _STOPPING) or not (handle := sending.result()).accepted:
            return
        ended = handle.get_result_async()
        handle.cancel_goal_async()
        self._wait(ended.done, _STOPPING)

    def _result(
        self, stage: str, name: str, client: ActionClient, handle: Any, stop: Callable[[], bool]
    ) -> Any:
        """End of a goal; cancels it once `stop` returns True."""
        pending = [handle.get_result_async()]
        asked = time.monotonic()
        canceled: float | None = None
        while not (done := next((future for future in pending if future.done()), None)):
            self._executor.spin_once(timeout_sec=_SPIN)
            now = time.monotonic()
            if canceled is None and stop():
                canceled = now
                handle.cancel_goal_async()
            if canceled is not None and now - canceled > _STOPPING:
                raise StageFailed(
                    stage, ErrorCode.CANCELED, f"{name} did not confirm that it stopped"
                )
            if not client.server_is_ready():
                raise StageFailed(
                    stage, ErrorCode.NOT_READY, f"{name} is gone; was its node killed?"
                )
            if now - asked > _ASK_AGAIN:
                asked = now
                pending.append(handle.get_result_async())
        response = done.result()
        if response.status == GoalStatus.STATUS_UNKNOWN:
            raise StageFailed(
                stage, ErrorCode.NOT_READY, f"{name} was started anew and knows nothing of the goal"
            )
        return response

    def _scanner(self, stop: Callable[[], bool]) -> Any:
        client = self._service(Scan, self.options.scan)
        if not self._wait(client.service_is_ready, self.options.server_timeout, stop):
            raise _absent("scan", self.options.scan, stop())
        return client

    def _service(self, kind: Any, name: str) -> Any:
        if name not in self._services:
            self._services[name] = self._node.create_client(kind, name)
        return self._services[name]

    def _wait(
        self,
        condition: Callable[[], bool],
        timeout: float,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """True once the condition holds; False after the timeout or once `stop` returns True."""
        end = time.monotonic() + timeout
        while not (holds := condition()) and time.monotonic() < end and not stop():
            self._executor.spin_once(timeout_sec=_SPIN)
        return holds


def objects_of(instruction: Instruction) -> tuple[str, ...]:
    """Names of the objects in an instruction."""
    name = (
        _entries(instruction).get("object", "")
        if instruction.kind == Instruction.DOCUMENT
        else instruction.object
    )
    return (str(name),) if name else ()


def _entries(document: Instruction) -> dict[str, Any]:
    try:
        entries = json.loads(document.text)
    except ValueError:
        return {}  # the server reports the error
    return entries if isinstance(entries, dict) else {}


def _absent(stage: str, name: str, stopped: bool) -> StageFailed:
    if stopped:
        return StageFailed(stage, ErrorCode.CANCELED, "canceled")
    return StageFailed(
        stage,
        ErrorCode.NOT_READY,
        f"nobody serves {name}; are the nodes running, in this ROS domain?",
    )
