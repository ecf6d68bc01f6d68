"""Repeated runs of the whole demo over ROS, counted and timed.

A run rebuilds the task with the next seed, goes from a sentence to a laptop that the simulator
reports closed, and then cancels one planning and one motion. The nodes live for ten runs, so each
run meets what the last one left behind, and then have to end by themselves. Runs are appended to a
JSON-lines log as they end, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flowplan_msgs.msg import ErrorCode
from flowplan_ros.client import SENDING, Client, ClientOptions, StageFailed, objects_of
from flowplan_ros.conversions import instruction_to_msg, seconds
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from flowplan.motion import Progress, silent
from flowplan.utils.records import record
from flowplan.utils.stats import wilson
from flowplan_sim_hw.bring_up import BringUp, isolate, node_context
from flowplan_sim_hw.cloud_rate import cloud_rate
from sim_envs.tasks import TASKS

TASK = "close_laptop"
OUTCOMES = ("success", "failure", "hang", "crash")
"""Outcomes of a run: success; failure or a stage with a reason; a stage that did not end; a dead
node or a defect."""

_TIMED = ("flow", "plan")
"""Stages whose library call is timed separately."""
_RUNS_OF_A_BRING_UP = 10
_HANG = 600.0  # seconds after which a stage counts as hung
_BRING_UP = 300.0  # seconds in which the nodes have to be active
_STILL = 0.02  # rad/s: largest speed of an arm at rest
_PATIENT = ClientOptions(server_timeout=30.0, scan_timeout=_HANG, task_timeout=30.0)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seed: random seed of the task and of planning.
        outcome: one of OUTCOMES.
        detail: measures of the simulator, or the failure.
        left: processes too many after it, or killed after the last run of a bring-up.
        feedback: seconds from sending a goal to its first feedback, by stage.
        stop: seconds from a cancel to the end of the goal, by stage, and to the rest of the arm
            (`arm`).
        asked: seconds from a goal to its result, by stage.
        computed: part of it used by the library call, seconds.
        load: load average of the machine.
        pace: simulated seconds per second during the execution; 0 if not measured.
    """

    seed: int
    outcome: str
    detail: str = ""
    left: int = 0
    feedback: dict[str, float] = field(default_factory=dict)
    stop: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    computed: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    pace: float = 0.0


def bench_ros(
    *, runs: int = 50, seed: int = 0, log: Path | None = None, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Records {key, value, unit, direction, n} of repeated runs.

    Args:
        runs: number of runs.
        seed: random seed of the first run; the others count up.
        log: JSON-lines file of finished runs, read first and appended to.
        progress: callback after each run with the fraction done and a status.
    """
    if runs < 1:
        raise ValueError(f"runs: expected at least 1, got {runs}")
    isolate()
    done = {run.seed: run for run in _read(log)}
    wanted = range(seed, seed + runs)
    todo = [s for s in wanted if s not in done]
    for start in range(0, len(todo), _RUNS_OF_A_BRING_UP):
        for run in _bring_up_and_run(todo[start : start + _RUNS_OF_A_BRING_UP]):
            done[run.seed] = run
            if log is not None:
                with log.open("a") as f:
                    f.write(json.dumps(asdict(run)) + "\n")
            count = sum(s in done for s in wanted)
            progress(count / (runs + 1), f"{count}/{runs} seed {run.seed} {run.outcome}")
    progress(runs / (runs + 1), "clouds")
    return records([done[s] for s in wanted], *cloud_rate())


def _read(log: Path | None) -> list[Run]:
    if log is None or not log.exists():
        return []
    return [Run(**json.loads(line)) for line in log.read_text().splitlines()]


def _bring_up_and_run(seeds: Sequence[int]) -> Iterable[Run]:
    """Runs with one bring-up, or with several if a run breaks it."""
    todo = list(seeds)
    while todo:
        with BringUp() as nodes:
            with Watcher() as watcher, Client(options=_PATIENT) as client:
                cell = _Cell(nodes, watcher, client)
                while todo:
                    run = cell.run(todo.pop(0))
                    if run.outcome in ("hang", "crash") or not todo:
                        break
                    yield run
            left = nodes.stop()
            yield replace(run, left=run.left + left)


class Hung(Exception):
    """Timeout of something that has to end."""


class Watcher:
    """Node that calls services and watches the arm, spinning in its own thread. Use it as a
    context.

    Attributes:
        heard: arrival of the last joint states (time.monotonic) and their stamp (simulated
            seconds).
    """

    def __init__(self) -> None:
        self._context, self._node = node_context("bench")
        self._speeds: deque[tuple[float, float]] = deque(
            maxlen=3000
        )  # arrival, speed of the fastest joint
        self.heard = (0.0, 0.0)
        self._clients: dict[str, Any] = {}
        self._node.create_subscription(JointState, "joint_states", self._hear, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin)
        self._ending = False

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending = True
        self._executor.wake()
        self._thread.join()
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def call(self, kind: Any, name: str, request: Any = None, timeout: float = 60.0) -> Any:
        """Response of a service.

        Raises:
            Hung: if there is none.
        """
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        if not client.wait_for_service(timeout):
            raise Hung(f"{name} is not there")
        answered = threading.Event()
        future = client.call_async(request or kind.Request())
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout):
            raise Hung(f"{name} does not answer")
        return future.result()

    def stands_since(self, begun: float, timeout: float = 10.0) -> float:
        """Seconds from `begun` (time.monotonic) to the first of the joint states of an arm at rest.

        Raises:
            Hung: if it does not come to rest.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            heard = [(when, speed) for when, speed in list(self._speeds) if when >= begun]
            moving = [when for when, speed in heard if speed > _STILL]
            still = [when for when, _ in heard if not moving or when > moving[-1]]
            if len(still) >= 20:  # not only a reversal of direction
                return still[0] - begun
            time.sleep(0.02)
        raise Hung("the arm does not stand after a cancel")

    def _hear(self, msg: JointState) -> None:
        self.heard = time.monotonic(), seconds(msg.header.stamp)
        self._speeds.append((self.heard[0], max(map(abs, msg.velocity[:7]), default=0.0)))

    def _spin(self) -> None:
        while not self._ending:
            self._executor.spin_once(timeout_sec=0.5)


class _Cell:
    """Nodes of the demo, and their client."""

    def __init__(self, nodes: BringUp, watcher: Watcher, client: Client) -> None:
        self._nodes, self._watcher, self._client = nodes, watcher, client
        self._processes = 0  # number of processes of a healthy demo

    def run(self, seed: int) -> Run:
        """One run, whatever its outcome."""
        run = Run(seed, "failure")
        try:
            self._ready(seed)
            run = self._work(run)
            run = replace(run, left=self._left())
        except Hung as hung:
            run = replace(run, outcome="hang", detail=str(hung))
        except StageFailed as failed:
            outcome = "crash" if failed.code == ErrorCode.INTERNAL else "failure"
            run = replace(run, outcome=outcome, detail=str(failed))
        if dead := self._nodes.dead():
            run = replace(run, outcome="crash", detail=dead)
        return replace(run, load=os.getloadavg()[0])

    def _ready(self, seed: int) -> None:
        """Activate all nodes, and rebuild the task."""
        end = time.monotonic() + _BRING_UP
        while not self._watcher.call(
            Trigger, "lifecycle_manager/is_active", timeout=_BRING_UP
        ).success:
            if self._nodes.dead() or time.monotonic() > end:
                raise Hung("the nodes did not become active")
            time.sleep(0.1)
        self._processes = self._processes or self._nodes.processes()
        parameter = Parameter("seed", value=seed).to_parameter_msg()
        self._watcher.call(
            SetParameters, "sim_node/set_parameters", SetParameters.Request(parameters=[parameter])
        )
        self._reset()

    def _reset(self) -> None:
        """Everything back in its place, nothing in the hand."""
        self._watcher.call(Trigger, "task/reset")
        self._watcher.call(Trigger, "executor_node/hand_is_empty")

    def _work(self, run: Run) -> Run:
        """One success from a sentence to a closed laptop, then the cancels."""
        client, feedback, seed = self._client, run.feedback, run.seed
        asked = client.resolve(instruction_to_msg(TASKS[TASK].prompt))
        scene = client.scan(objects_of(asked), stop=_deadline())
        begun = time.monotonic()
        generated = client.generate(
            scene, asked, seed=seed, on_progress=_first(feedback), stop=_deadline()
        )
        run.asked["flow"], run.computed["flow"] = (
            time.monotonic() - begun,
            seconds(generated.generation_time),
        )
        motion = generated.motions[0]
        begun = time.monotonic()
        planned = client.plan(
            scene, motion, seed=seed, on_progress=_first(feedback), stop=_deadline()
        )
        run.asked["plan"], run.computed["plan"] = (
            time.monotonic() - begun,
            seconds(planned.planning_time),
        )
        wall, simulated = self._watcher.heard
        client.execute(planned.plan, on_progress=_first(feedback), stop=_deadline())
        pace = (self._watcher.heard[1] - simulated) / (self._watcher.heard[0] - wall)
        verdict = self._watcher.call(Trigger, "task/success")
        run = replace(
            run,
            outcome="success" if verdict.success else "failure",
            detail=verdict.message,
            pace=pace,
        )
        self._reset()
        begun = self._cancel(
            "execute", run.stop, lambda **how: client.execute(planned.plan, **how), 0.3
        )
        run.stop["arm"] = self._watcher.stands_since(begun)
        self._cancel(
            "plan", run.stop, lambda **how: client.plan(scene, motion, seed=seed, **how), 0.01
        )
        return run

    def _cancel(
        self, stage: str, times: dict[str, float], do: Callable[..., object], at: float
    ) -> float:
        """Time at which a goal was canceled, once this much of it was done."""
        asked: list[float] = []
        far: list[float] = []

        def stop() -> bool:
            if far and not asked:
                asked.append(time.monotonic())
            return bool(asked)

        def listen(_: str, fraction: float, __: str) -> None:
            if fraction >= at:
                far.append(fraction)

        try:
            do(on_progress=listen, stop=stop)
        except StageFailed as failed:
            if failed.code != ErrorCode.CANCELED or not asked:
                raise
            if failed.result is not None:
                times[stage] = time.monotonic() - asked[0]
                return asked[0]
        raise Hung(f"{stage} went on although it was canceled")

    def _left(self) -> int:
        """Number of processes too many, after those that are to end had time to do so."""
        end = time.monotonic() + 10.0
        while (left := self._nodes.processes() - self._processes) > 0 and time.monotonic() < end:
            time.sleep(0.1)
        return max(0, left)


def _deadline() -> Callable[[], bool]:
    """Callback that raises Hung in a stage that takes too long."""
    end = time.monotonic() + _HANG

    def stop() -> bool:
        if time.monotonic() > end:
            raise Hung(f"a stage took more than {_HANG:g} s")
        return False

    return stop


def _first(times: dict[str, float]) -> Callable[[str, float, str], None]:
    """Time from a goal to its first feedback, by a stage's progress."""
    begun: list[float] = []

    def listen(stage: str, fraction: float, status: str) -> None:
        if status == SENDING:
            begun.append(time.monotonic())
        elif begun:
            times.setdefault(stage, time.monotonic() - begun[0])

    return listen


def records(runs: Sequence[Run], lost: int, cloud_seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Records of the runs and the clouds."""
    n = len(runs)
    counts = {outcome: sum(run.outcome == outcome for run in runs) for outcome in OUTCOMES}
    low, high = wilson(counts["success"], n)
    shares = {"success": counts["success"] / n, "success_low95": low, "success_high95": high}
    out = [record(f"ros/{key}", value, "share", "up", n) for key, value in shares.items()]
    out += [
        record(f"ros/{outcome}", counts[outcome], "runs", "down", n) for outcome in OUTCOMES[1:]
    ]
    out.append(record("ros/left_processes", sum(run.left for run in runs), "processes", "down", n))
    for stage in ("flow", "plan", "execute"):
        out += _times(
            f"ros/first_feedback/{stage}", [r.feedback[stage] for r in runs if stage in r.feedback]
        )
    for stage in ("plan", "execute", "arm"):
        out += _times(
            f"ros/cancel_to_stop/{stage}", [run.stop[stage] for run in runs if stage in run.stop]
        )
    whole = [run for run in runs if len(run.computed) == len(_TIMED)]
    overheads = [sum(run.asked.values()) / sum(run.computed.values()) - 1 for run in whole]
    if overheads:
        out.append(
            record("ros/overhead", statistics.median(overheads), "share", "down", len(overheads))
        )
    out.append(
        record(
            "ros/load_average", statistics.median(run.load for run in runs), "processes", "down", n
        )
    )
    if paces := [run.pace for run in runs if run.pace]:
        out.append(
            record("ros/real_time_factor", statistics.median(paces), "share", "up", len(paces))
        )
    out.append(record("ros/cloud/lost", lost, "clouds", "down", lost + len(cloud_seconds)))
    return out + _times("ros/cloud/latency", cloud_seconds)


def _times(key: str, values: Sequence[float]) -> list[dict[str, Any]]:
    if not values:
        return []
    n = len(values)
    return [
        record(f"{key}/median", statistics.median(values), "s", "down", n),
        record(f"{key}/max", max(values), "s", "down", n),
    ]
