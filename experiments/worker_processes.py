"""Worker processes that end with the process that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import ParamSpec, TypeVar

_PATIENCE = 5.0
"""Seconds that workers are given to end once they are told to."""
_CLEANING = 1.0
"""Seconds that a worker takes to remove its temporary files."""

_ended = threading.Event()
"""Set in a worker that was told to end."""

P = ParamSpec("P")
Result = TypeVar("Result")


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes, each with its share of the cores.

    After an error or an interruption, work that has not begun is dropped and the workers are ended
    at once. A worker whose parent was killed ends itself.
    """
    # Spawned interpreters: PyBullet's plugins and Open3D's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    before = set(multiprocessing.active_children())
    pool = _Pool(count, context, initializer=_begin, initargs=(threads,))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        workers = [p for p in multiprocessing.active_children() if p not in before]
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(_PATIENCE)
            if worker.is_alive():
                worker.kill()
        raise
    pool.shutdown()


class _Pool(ProcessPoolExecutor):
    """A pool whose workers begin nothing once they are told to end."""

    def submit(
        self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        return super().submit(_unless_ended, fn, *args, **kwargs)  # type: ignore[arg-type]


def _unless_ended(fn: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    if _ended.is_set():
        os._exit(143)
    return fn(*args, **kwargs)


def _begin(threads: int) -> None:
    """Prepare a worker."""
    # Oversubscribed threads stall each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    # An interruption from the keyboard reaches all processes; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _leave(*_: object) -> None:
    """End the work by an exception, which removes temporary folders, and then the process.

    The pool takes the exception for the result of the work and would go on.
    """
    _ended.set()
    end = threading.Timer(_CLEANING, os._exit, (143,))
    end.daemon = True
    end.start()
    raise SystemExit(143)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        # The signal waits for Python in the main thread, which may be in a long call.
        time.sleep(2 * _CLEANING)
        os._exit(1)
