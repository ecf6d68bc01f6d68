"""Long library calls in a warm process of their own: a cancel is a kill, and the node stays
responsive.

numpy and compiled planners hold Python's lock for seconds and cannot be interrupted. A call in its
own process blocks nothing else, and killing it takes a millisecond. The process is started and
warmed up (imports, weights, robot) before it is needed. If it was killed or died, the next one
warms up in the background.

Both ends communicate through a private socket pair with pickles, which therefore nobody else can
forge. The process ends when its end of the pair closes, however its owner ended.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from flowplan_ros.turn import yield_to_executor

if TYPE_CHECKING:
    from flowplan.motion import Progress

_PERIOD = 0.05  # smallest time between two reports of progress, seconds


class Canceled(Exception):
    """Cancellation of a call."""


class Crashed(Exception):
    """Death of the process during a call, or an error that is not the caller's mistake."""


@dataclass
class _Call:
    """One call under way, shared by the executor's thread and the worker's."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    progress: bool
    reports: deque[tuple[float, str]] = field(default_factory=deque)
    result: Any = None
    error: Exception | None = None
    done: bool = False

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        if not self.done:  # the first result counts
            self.result, self.error, self.done = result, error, True


class Worker:
    """Process that runs one call at a time.

    Args:
        setup: importable function that warms the process up; it runs once in each new process.
        name: name for messages.
        wake: callback from another thread to resume a waiting `call`; a node's `wake`.
        report: callback from another thread with a line about a process that died.
    """

    def __init__(
        self,
        setup: Callable[[], object],
        name: str,
        *,
        wake: Callable[[], object] = lambda: None,
        report: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._setup, self._name, self._wake, self._report = setup, name, wake, report
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._running: _Call | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False  # process that we killed
        self._closed = False
        self._warm = threading.Event()
        self._failure = ""  # reason why the last process could not be set up
        self._settled = threading.Event()  # warm, or failed to become so
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start to warm up the process, in the background."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """True if there is a warm process."""
        return self._warm.is_set()

    def wait_ready(self, timeout: float) -> None:
        """Wait until the process is warm.

        Raises:
            ValueError: if it cannot be set up, or not in time.
        """
        if not self._settled.wait(timeout):
            raise ValueError(f"{self._name}: not warm after {timeout:g} s; allow more time")
        if self._failure:
            raise ValueError(self._failure)

    async def call(
        self, function: Callable[..., Any], *arguments: Any, on_progress: Progress | None = None
    ) -> Any:
        """Result of `function(*arguments)` in the process, as soon as it is warm.

        Args:
            function: importable function. With `on_progress` it also gets a keyword `progress`.
            arguments: arguments that can be pickled.
            on_progress: callback in this thread with the fraction done and a status word.

        Raises:
            ValueError: raised by the function.
            Canceled: after `cancel`.
            Crashed: if the process died, or the function raised anything else.
        """
        call = _Call(function, arguments, on_progress is not None)
        with self._lock:
            if self._closed:
                raise Canceled(f"{self._name}: closed")
            self._waiting.append(call)
        self._ring()
        while True:
            done = call.done  # checked before the reports are read: none comes after
            while call.reports and on_progress is not None:
                on_progress(*call.reports.popleft())
            if done:
                break
            await yield_to_executor()
        if call.error is not None:
            raise call.error
        return call.result

    def cancel(self) -> None:
        """End every call now, by killing the process of a running one."""
        with self._lock:
            for call in [*self._waiting, *([self._running] if self._running else [])]:
                call.end(error=Canceled(f"{self._name}: canceled"))
            self._waiting.clear()
            if self._running is not None:
                self._kill()
        self._wake()

    def close(self) -> None:
        """Cancel, and end the process for good."""
        self.cancel()
        with self._lock:
            self._closed = True
            self._kill()
        self._ring()
        if self._thread.is_alive():
            self._thread.join()
        self._bell.close()
        self._ear.close()

    def _kill(self) -> None:
        self._warm.clear()
        if self._process is not None:
            self._killed = True
            self._process.kill()

    def _ring(self) -> None:
        with contextlib.suppress(
            BlockingIOError, OSError
        ):  # full: a wake-up is pending; closed: nobody listens
            self._bell.send(b".")

    # Everything below runs in the worker's thread.

    def _serve(self) -> None:
        while not self._closed:
            process, connection = self._spawn()
            try:
                with connection:
                    self._attend(connection)
            except (EOFError, OSError):
                pass  # the process has ended
            finally:
                process.kill()
                process.wait()
            self._bury(process.returncode)
            while self._failure and not self._waiting and not self._closed:
                self._ear.recv(4096)  # the set-up is tried again on the next request

    def _spawn(self) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs, self._lock:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from flowplan_ros.worker import serve; serve({fd})"],
                pass_fds=[fd],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            self._killed = self._closed
            if self._closed:
                self._process.kill()
        return self._process, Connection(ours.detach())

    def _attend(self, connection: Connection) -> None:
        """Serve one process until it ends (EOFError, OSError), cannot be set up, or the worker is
        closed."""
        connection.send(self._setup)
        kind, value = connection.recv()
        if kind == "error":
            self._failure = f"{self._name}: {value}"
            return
        self._failure = ""
        self._warm.set()
        self._settled.set()
        while not self._closed:
            call = self._next()
            if call is not None:
                self._run(connection, call)
            elif connection in wait([connection, self._ear]):
                connection.recv()  # an end without a message
            else:
                self._ear.recv(4096)

    def _next(self) -> _Call | None:
        with self._lock:
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running

    def _run(self, connection: Connection, call: _Call) -> None:
        try:
            data = pickle.dumps(
                (call.function, call.arguments, call.progress), pickle.HIGHEST_PROTOCOL
            )
        except Exception as error:  # each type that cannot be pickled raises its own error
            self._end(call, error=Crashed(f"{self._name}: {call.function.__name__}: {error}"))
            return
        connection.send_bytes(data)
        while True:
            kind, value = connection.recv()
            if kind == "progress":
                call.reports.append(value)
                self._wake()
            elif kind == "result":
                return self._end(call, result=value)
            else:
                return self._end(
                    call, error=ValueError(value) if kind == "mistake" else Crashed(value)
                )

    def _end(self, call: _Call, *, result: Any = None, error: Exception | None = None) -> None:
        with self._lock:
            self._running = None
            call.end(result, error)
        self._wake()

    def _bury(self, status: int) -> None:
        """Report the end of a process that nobody asked for."""
        self._warm.clear()
        with self._lock:
            expected = self._killed
            ended = [self._running] if self._running else []
            self._running = self._process = None
            if not self._settled.is_set() and not self._failure and not expected:
                self._failure = f"{self._name}: the worker process ended while it was set up"
            if self._failure:
                ended += self._waiting
                self._waiting.clear()
        line = self._failure
        if not line and not expected:
            why = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            line = f"{self._name}: the worker process ended with {why}; another one is warming up"
        if line:
            self._report(line)
        for call in ended:
            call.end(error=Crashed(line))
        self._settled.set()
        self._wake()


def serve(fd: int) -> None:
    """The process's side: serve calls until the other side closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # interrupts are for the owner, who decides about the end
    connection = Connection(fd)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, calls), daemon=True).start()
    try:
        calls.get()()
    except BaseException as error:
        connection.send(("error", _words(error)))
        return
    connection.send(("ready", None))
    while True:
        function, arguments, progress = calls.get()
        try:
            keywords = {"progress": _reporter(connection)} if progress else {}
            answer = pickle.dumps(
                ("result", function(*arguments, **keywords)), pickle.HIGHEST_PROTOCOL
            )
        except ValueError as error:
            answer = pickle.dumps(("mistake", str(error)))
        except Exception as error:
            traceback.print_exc()
            answer = pickle.dumps(("error", _words(error)))
        connection.send_bytes(answer)


def _listen(connection: Connection, calls: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            calls.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _reporter(connection: Connection) -> Progress:
    last = [-1.0]

    def report(fraction: float, word: str) -> None:
        now = time.monotonic()
        if now - last[0] >= _PERIOD:
            last[0] = now
            connection.send(("progress", (float(fraction), word)))

    return report


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
