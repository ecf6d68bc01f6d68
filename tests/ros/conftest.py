"""Real ROS 2 in tests: one DDS domain per test, real processes, everything killed at the end.

A test takes the fixture `ros`. It holds an rclpy client node in this process (spun by the waiting
calls only, so that no thread outlives the test), starts executables in process groups of their own,
and waits for conditions, never for time. Domains are 1 to 101, whose ports lie below the kernel's
range of temporary ones; one is taken when no process of the machine has any of its ports, so that
an orphan of an older run answers nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("rclpy", "flowplan_msgs", "control_msgs")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING and os.environ.get("FLOWPLAN_REQUIRE_ROS"):
    raise ImportError(f"no {', '.join(MISSING)}: run `make ros`, then `. build/ros/environment.sh`")

DOMAINS = range(1, 102)
NEXT_DOMAIN = itertools.count(os.getpid())  # neighbors begin at different places


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without ROS the test modules cannot be imported; test_available.py alone stays, to be skipped
    with the reason."""
    module = (
        collection_path.name.startswith("test_") and collection_path.name != "test_available.py"
    )
    return True if MISSING and module else None


def _ports_in_use() -> set[int]:
    lines = [
        line
        for name in ("udp", "udp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return {int(line.split()[1].rsplit(":", 1)[1], 16) for line in lines}


@contextlib.contextmanager
def fresh_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that nobody on this machine uses or takes while the context lasts."""
    for _ in range(2 * len(DOMAINS)):
        domain = DOMAINS[next(NEXT_DOMAIN) % len(DOMAINS)]
        with open(Path(tempfile.gettempdir(), f"flowplan-ros-domain-{domain}.lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            first = 7400 + 250 * domain  # of the 250 ports that DDS gives to a domain
            if not _ports_in_use() & set(range(first, first + 250)):
                yield domain
                return
    raise RuntimeError(
        "every ROS_DOMAIN_ID from 1 to 101 is in use on this machine: end the ROS processes left "
        "behind"
    )


def command(package: str, executable: str) -> list[str]:
    """How to start an executable: the installed one, or the module of that name where the package
    runs from source."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if (folder := Path(prefix, "lib", package)).is_dir():
            assert (folder / executable).exists(), (
                f"package {package} installs no executable {executable}"
            )
            return [str(folder / executable)]
    return [sys.executable, "-m", f"{package}.{executable}"]


class Process:
    """A started executable: one process group, its output in a file."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path):
        self.name, self.log = log.stem, log
        self.ended_by_test = False
        with log.open("wb") as out:
            self.popen = subprocess.Popen(
                argv,
                env=dict(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.ended_by_test = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)

    def stop(self, timeout: float = 15.0) -> int:
        """As ctrl-C does. The exit status; fails when the process, or any of its group, is still
        there after that."""
        self.signal(signal.SIGINT)
        return self.wait_end(timeout)

    def wait_end(self, timeout: float = 15.0) -> int:
        """The exit status of a process that ends by itself, once its whole group has."""
        self.ended_by_test = True
        end = time.monotonic() + timeout
        while self.alive or self.group_alive():
            if time.monotonic() > end:
                raise AssertionError(
                    f"{self.name} or a child of it did not end within {timeout} s\n{self.output()}"
                )
            time.sleep(0.01)
        return self.popen.returncode

    def group_alive(self) -> bool:
        """Whether anything of the process group runs; the dead that nobody has asked after do not
        count."""
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, _, group = status.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.popen.pid and state not in "ZX":
                    return True
        return False

    def kill(self) -> None:
        """As a crash does: nothing of the group gets to say goodbye."""
        self.signal(signal.SIGKILL)
        self.wait_end()


class Ros:
    """One domain with a client node in this process and executables in processes of their own."""

    def __init__(self, domain: int, folder: Path):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        self.domain, self.folder = domain, folder
        self.environment = dict(os.environ)  # for a subprocess that a test starts itself
        self.processes: list[Process] = []
        rclpy.init(args=[], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("test_client")
        self.executor = SingleThreadedExecutor()  # further nodes may be added to it
        self.executor.add_node(self.node)
        self._clients: dict[tuple[type, str], Any] = {}

    def start(
        self,
        executable: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        package: str = "flowplan_ros",
        name: str | None = None,
        remap: Mapping[str, str] | None = None,
        parameter_file: Path | None = None,
    ) -> Process:
        """Start a node's executable; parameters are YAML values of the node, remap is {from:
        to}."""
        import yaml

        arguments = ["-r", f"__node:={name}"] if name else []
        arguments += [word for pair in (remap or {}).items() for word in ("-r", ":=".join(pair))]
        arguments += ["--params-file", str(parameter_file)] if parameter_file else []
        if parameters:
            path = self.folder / f"{len(self.processes)}-{name or executable}.yaml"
            path.write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(parameters)}}))
            arguments += ["--params-file", str(path)]
        argv = command(package, executable) + (["--ros-args", *arguments] if arguments else [])
        return self.spawn(argv, name or executable)

    def spawn(self, argv: Sequence[str], name: str) -> Process:
        """Start any command in this domain; it is killed with the rest."""
        process = Process(argv, self.environment, self.folder / f"{len(self.processes)}-{name}.log")
        self.processes.append(process)
        return process

    def wait_for(
        self, condition: Callable[[], Any], timeout: float = 20.0, what: str = "the condition"
    ) -> Any:
        """Spin until the condition holds and return its value; fails after `timeout` s or when a
        process has died."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            for process in self.processes:
                if not process.alive and not process.ended_by_test:
                    self.fail(
                        f"{process.name} ended with status {process.popen.returncode} while "
                        f"waiting for {what}"
                    )
            if time.monotonic() > end:
                self.fail(f"{what}: not within {timeout} s")
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def fail(self, reason: str) -> None:
        tails = "".join(f"\n--- {p.name}\n{p.output()[-3000:]}" for p in self.processes)
        raise AssertionError(reason + tails)

    def wait(self, future: Any, timeout: float = 20.0, what: str = "the future") -> Any:
        """The result of an rclpy future; its exception is raised here."""
        self.wait_for(future.done, timeout, what)
        return future.result()

    def subscribe(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        """A list that the topic's messages are appended to while a waiting call spins."""
        messages: list[Any] = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def service(self, kind: type, name: str, timeout: float = 20.0) -> Any:
        """A client of a service, which is there."""
        client = self._clients.get((kind, name)) or self.node.create_client(kind, name)
        self._clients[kind, name] = client
        self.wait_for(client.service_is_ready, timeout, f"service {name}")
        return client

    def call(self, kind: Any, name: str, request: Any = None, timeout: float = 20.0) -> Any:
        """The response of a service."""
        client = self.service(kind, name, timeout)
        return self.wait(client.call_async(request or kind.Request()), timeout, f"service {name}")

    def action(self, kind: type, name: str, timeout: float = 20.0) -> Any:
        """A client of an action whose server is there."""
        from rclpy.action import ActionClient

        client = self._clients.get((kind, name)) or ActionClient(self.node, kind, name)
        self._clients[kind, name] = client
        self.wait_for(client.server_is_ready, timeout, f"action {name}")
        return client

    def send_goal(
        self,
        kind: type,
        name: str,
        goal: Any,
        on_feedback: Callable[[Any], None] | None = None,
        timeout: float = 20.0,
    ) -> Any:
        """The goal's handle, accepted or not; on_feedback gets the Feedback messages themselves."""
        client = self.action(kind, name, timeout)
        callback = None if on_feedback is None else lambda message: on_feedback(message.feedback)
        return self.wait(
            client.send_goal_async(goal, feedback_callback=callback), timeout, f"answer of {name}"
        )

    def result(self, handle: Any, timeout: float = 60.0) -> tuple[int, Any]:
        """The end of an accepted goal: its GoalStatus number and its Result message."""
        assert handle.accepted, "the goal was rejected: it has no result"
        response = self.wait(handle.get_result_async(), timeout, "result of the goal")
        return response.status, response.result

    def transition(self, node: str, number: int, timeout: float = 120.0) -> bool:
        """Ask a lifecycle node for a transition (lifecycle_msgs/Transition.TRANSITION_*); whether
        it made it."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, f"{node}/change_state", request, timeout).success

    def activate(self, node: str, timeout: float = 120.0) -> None:
        """Configure a lifecycle node and activate it."""
        from lifecycle_msgs.msg import State, Transition
        from lifecycle_msgs.srv import GetState

        for number, state in (
            (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
            (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        ):
            # DDS may lose the response of a busy node; its state decides.
            with contextlib.suppress(AssertionError):
                self.transition(node, number, timeout)
            if self.call(GetState, f"{node}/get_state").current_state.id != state:
                self.fail(f"{node} refused lifecycle transition {number}")

    def close(self) -> None:
        """Everything of this domain ends, in the order that rclpy needs."""
        import rclpy

        for process in self.processes:
            process.signal(
                signal.SIGINT
            )  # DDS leaves a megabyte of shared memory behind for each process that is killed
        patience = time.monotonic() + 5.0
        for process in self.processes:
            with contextlib.suppress(AssertionError):
                process.wait_end(max(0.0, patience - time.monotonic()))
            process.kill()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


@contextlib.contextmanager
def ros_domain(folder: Path) -> Iterator[Ros]:
    """A ROS 2 domain whose processes write below `folder`."""
    with fresh_domain() as domain, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_PYTHON_CHECK_FIELDS": "1",
            "ROS_LOG_DIR": str(folder / "ros_log"),
            "PYTHONUNBUFFERED": "1",
        }.items():
            monkeypatch.setenv(name, value)
        here = Ros(domain, folder)
        try:
            yield here
        finally:
            here.close()


@pytest.fixture
def ros(tmp_path: Path) -> Iterator[Ros]:
    """A ROS 2 domain of the test's own."""
    with ros_domain(tmp_path) as here:
        yield here


@pytest.fixture(scope="module")
def shared_ros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ros]:
    """A ROS 2 domain that the tests of a module share, where starting its nodes for each would take
    too long."""
    with ros_domain(tmp_path_factory.mktemp("shared")) as here:
        yield here


def node_of_a_module(name: str, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    """Fixtures for a module whose tests share one active lifecycle node: its `ros`, and the node's
    process."""

    @pytest.fixture
    def ros(shared_ros: Ros) -> Ros:
        return shared_ros

    @pytest.fixture(scope="module")
    def node(shared_ros: Ros) -> Process:
        process = shared_ros.start(name, parameters)
        try:
            shared_ros.activate(name)
        except AssertionError:
            process.kill()  # a second try must not meet the first node
            raise
        return process

    return ros, node
