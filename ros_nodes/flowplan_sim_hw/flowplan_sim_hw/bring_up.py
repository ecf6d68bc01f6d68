"""Nodes of the demo as child processes of a benchmark, in a ROS domain of their own.

They are isolated because a benchmark sends motions: no robot in reach must receive them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import rclpy
import yaml

NODES = {
    "sim_node": "flowplan_sim_hw.sim_node",
    "scan_node": "flowplan_ros.scan_node",
    "flow_node": "flowplan_ros.flow_node",
    "plan_node": "flowplan_ros.plan_node",
    "executor_node": "flowplan_ros.executor_node",
    "lifecycle_manager": "flowplan_ros.lifecycle_manager",
}
_CAMERAS = 8
PARAMETERS = {
    "use_sim_time": True,
    "camera.count": _CAMERAS,
    "cameras": [f"camera_{i}" for i in range(_CAMERAS)],
    "image_timeout": 30.0,
    "scan.support_height": 0.0,
    "gripper_effort": 70.0,
    "response_timeout": 5.0,
    "state_timeout": 2.0,
    "watchdog_slack": 5.0,
    "confirm": False,
}
"""Parameters of the demo with use_sim_time that differ from the nodes' own; a node ignores those
that it does not have. With simulated time a busy machine makes a run slower instead of failing it.
"""
_STOPPING = 15.0  # seconds in which interrupted nodes have to end


def isolate() -> None:
    """Move this process and its future children into an unused ROS domain of this machine."""
    ports = {int(line.split()[1].rsplit(":", 1)[1], 16) for line in _sockets()}
    free = [d for d in range(1, 102) if not ports & set(range(7400 + 250 * d, 7650 + 250 * d))]
    if not free:
        raise ValueError(
            "every ROS_DOMAIN_ID from 1 to 101 is in use on this machine; end some ROS processes"
        )
    os.environ["ROS_DOMAIN_ID"] = str(
        random.choice(free)
    )  # independent of the seed: other processes start with the same one
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def _sockets() -> list[str]:
    tables = [Path("/proc/net", name) for name in ("udp", "udp6")]
    return [
        line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]
    ]


class BringUp:
    """Processes of the demo. Use it as a context.

    Args:
        nodes: subset of NODES.
        parameters: parameters of all of them.
    """

    def __init__(
        self, nodes: tuple[str, ...] = tuple(NODES), parameters: dict[str, object] = PARAMETERS
    ) -> None:
        self._folder = TemporaryDirectory()
        folder = Path(self._folder.name)
        path = folder / "parameters.yaml"
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        environment = os.environ | {
            "ROS_LOG_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self._logs = {name: folder / f"{name}.txt" for name in nodes}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in nodes:
            words = [sys.executable, "-m", NODES[name], "--ros-args", "--params-file", str(path)]
            with self._logs[name].open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    words,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def __enter__(self) -> BringUp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def dead(self) -> str:
        """Name and last output of a node that has ended; empty if none has."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                lines = self._logs[name].read_text(errors="replace").strip().splitlines()
                last = lines[-1] if lines else "no word"
                return f"{name} ended with status {process.returncode}: {last}"
        return ""

    def processes(self) -> int:
        """Number of processes: the nodes and their children."""
        groups = {process.pid for process in self._processes.values()}
        count = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, _, group = status.read_text().rpartition(")")[2].split()[:3]
                count += int(group) in groups and state not in "ZX"
        return count

    def stop(self) -> int:
        """Interrupt everything like ctrl-C, and kill what remains; the number of killed
        processes."""
        self._signal(signal.SIGINT)
        end = time.monotonic() + _STOPPING
        while (left := self.processes()) and time.monotonic() < end:
            self._reap()
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        self._processes = {}
        self._folder.cleanup()
        return left

    def _reap(self) -> None:
        for process in self._processes.values():
            process.poll()

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def node_context(name: str) -> tuple[rclpy.Context, rclpy.node.Node]:
    """Node in a context of its own."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    return context, rclpy.create_node(name, context=context, enable_rosout=False)
