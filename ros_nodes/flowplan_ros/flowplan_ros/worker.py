"""Long library calls in a warm process of their own, so that a cancel is a kill and the node stays awake.

numpy and compiled planners hold Python's lock for seconds and cannot be interrupted; in a process of its own a call
disturbs nobody, and killing it takes a millisecond whatever it does. The process is started and warmed up (imports,
weights, robot) before it is needed; when it was killed or died, the next one warms up in the background.

The two ends talk through a socket pair that nobody else can reach, in pickles, which therefore nobody else can forge.
The process ends when its end of the pair closes, however its owner ended.
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

from flowplan_ros.turn import turn

if TYPE_CHECKING:
    from flowplan.motion import Progress

_PERIOD = 0.05  # seconds at least between two reports of progress


class Canceled(Exception):
    """The call was canceled."""


class Crashed(Exception):
    """The process died in the middle of the call, or the call raised something that is not the caller's mistake."""


@dataclass
class _Call:
    """One call on its way, touched by the executor's thread and by the worker's."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    progress: bool
    reports: deque[tuple[float, str]] = field(default_factory=deque)
    result: Any = None
    error: Exception | None = None
    done: bool = False

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        if not self.done:  # what came first counts
            self.result, self.error, self.done = result, error, True


class Worker:
    """One process that runs one call at a time.

    Args:
        setup: importable function that warms the process up; it runs once in each new process.
        name: for messages.
        wake: called from another thread when a waiting `call` should be resumed; a node's `wake`.
        report: called from another thread with a line about a process that died.
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
        self._killed = False  # by us, that process
        self._closed = False
        self._warm = threading.Event()
        self._failure = ""  # why the last process could not be set up
        self._settled = threading.Event()  # warm, or failed to become so
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Begin to warm up the process, in the background."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Is there a warm process?"""
        return self._warm.is_set()

    def wait_ready(self, timeout: float) -> None:
        """Block until the process is warm.

        Raises:
            ValueError: when it cannot be set up, or not in time.
        """
        if not self._settled.wait(timeout):
            raise ValueError(f"{self._name}: not warm after {timeout:g} s; allow more time")
        if self._failure:
            raise ValueError(self._failure)

    async def call(
        self, function: Callable[..., Any], *arguments: Any, on_progress: Progress | None = None
    ) -> Any:
        """`function(*arguments)` in the process, as soon as that is warm.

        Args:
            function: importable; where `on_progress` is given it also gets a keyword `progress`.
            arguments: picklable.
            on_progress: called in this thread with the fraction done and a word.

        Raises:
            ValueError: as the function raised it.
            Canceled: after `cancel`.
            Crashed: when the process died, or the function raised anything else.
        """
        call = _Call(function, arguments, on_progress is not None)
        with self._lock:
            if self._closed:
                raise Canceled(f"{self._name}: closed")
            self._waiting.append(call)
        self._ring()
        while True:
            done = call.done  # before the reports are read: none comes after
            while call.reports and on_progress is not None:
                on_progress(*call.reports.popleft())
            if done:
                break
            await turn()
        if call.error is not None:
            raise call.error
        return call.result

    def cancel(self) -> None:
        """End every call now, by killing the process where one runs."""
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
        ):  # full: it rings already; closed: nobody listens
            self._bell.send(b".")

    # What follows runs in the worker's thread.

    def _serve(self) -> None:
        while not self._closed:
            process, connection = self._spawn()
            try:
                with connection:
                    self._attend(connection)
            except (EOFError, OSError):
                pass  # the process is gone
            finally:
                process.kill()
                process.wait()
            self._bury(process.returncode)
            while self._failure and not self._waiting and not self._closed:
                self._ear.recv(4096)  # what cannot be set up is tried again when somebody asks

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
        """Talk to one process until it is gone (EOFError, OSError), cannot be set up, or the worker is closed."""
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
                connection.recv()  # it has nothing to say now: this is its end
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
        except Exception as error:  # each type that cannot be pickled has its own way to say so
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
        """A process has ended: say so where nobody wanted it to."""
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
    """The process's side: do calls until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides when this ends
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
