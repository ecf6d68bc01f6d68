"""A call in a process of its own: its result, its errors, its end."""

import os
import signal
import threading
import time

import pytest
import worker_jobs as jobs
from flowplan_ros.worker import Canceled, Crashed, Worker


class Loop:
    """What the executor does: resume a coroutine each time it is woken."""

    def __init__(self):
        self.woken = threading.Event()

    def begin(self, coroutine):
        """Run it to its first wait."""
        coroutine.send(None)
        return coroutine

    def run(self, coroutine, timeout=20.0):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.woken.clear()
            try:
                coroutine.send(None)
            except StopIteration as done:
                return done.value
            assert self.woken.wait(end - time.monotonic()), "nobody woke the executor"
        raise AssertionError("never done")


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def worker(loop):
    lines = []
    worker = Worker(jobs.nothing, "helper", wake=loop.woken.set, report=lines.append)
    worker.lines = lines
    worker.start()
    yield worker
    worker.close()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_calls_run_one_after_the_other_in_one_other_process(worker, loop):
    assert loop.run(worker.call(jobs.add, 1, 2)) == 3  # asked before the process was warm
    first = loop.run(worker.call(jobs.pid))
    assert first != os.getpid()
    assert loop.run(worker.call(jobs.pid)) == first
    assert worker.ready


def test_progress_arrives_in_order_and_before_the_result(worker, loop):
    seen = []
    assert (
        loop.run(worker.call(jobs.solve, 0.4, on_progress=lambda *report: seen.append(report)))
        == "solved"
    )
    fractions = [fraction for fraction, _ in seen]
    assert len(fractions) > 2
    assert fractions == sorted(fractions)
    assert seen[0][1] == "solving"


def test_errors_come_back_and_the_process_stays(worker, loop):
    first = loop.run(worker.call(jobs.pid))
    with pytest.raises(ValueError, match="^field: expected another$"):
        loop.run(worker.call(jobs.mistake))
    with pytest.raises(Crashed, match="KeyError: 'gone'"):
        loop.run(worker.call(jobs.defect))
    with pytest.raises(Crashed, match="pickle"):
        loop.run(worker.call(jobs.unpicklable))
    with pytest.raises(Crashed, match="helper: <lambda>"):
        loop.run(worker.call(lambda: None))
    assert loop.run(worker.call(jobs.pid)) == first


def test_cancel_ends_the_call_at_once_and_the_process(worker, loop):
    first = loop.run(worker.call(jobs.pid))
    began = []
    call = loop.begin(
        worker.call(jobs.solve, 60.0, on_progress=lambda *report: began.append(report))
    )
    while not began:
        loop.woken.wait(10)
        loop.woken.clear()
        call.send(None)
    worker.cancel()
    with pytest.raises(Canceled):
        call.send(None)  # the very next time that the executor looks
    wait_for(lambda: gone(first))
    assert loop.run(worker.call(jobs.add, 3, 4)) == 7  # by another one
    assert worker.lines == []


def test_cancel_before_the_process_is_warm_leaves_it_alone(loop):
    worker = Worker(jobs.nothing, "helper", wake=loop.woken.set)
    worker.start()
    call = loop.begin(worker.call(jobs.add, 1, 2))
    worker.cancel()
    with pytest.raises(Canceled):
        call.send(None)
    worker.wait_ready(20)
    assert loop.run(worker.call(jobs.add, 1, 2)) == 3
    worker.close()


def test_cancel_without_a_call_keeps_the_process(worker, loop):
    first = loop.run(worker.call(jobs.pid))
    worker.cancel()
    assert loop.run(worker.call(jobs.pid)) == first


def test_a_crash_is_said_in_a_line_and_the_process_replaced(worker, loop):
    with pytest.raises(
        Crashed,
        match="helper: the worker process ended with exit status 7; another one is warming up",
    ):
        loop.run(worker.call(jobs.crash))
    assert loop.run(worker.call(jobs.add, 1, 1)) == 2
    assert len(worker.lines) == 1


def test_a_process_that_was_killed_while_idle_is_replaced(worker, loop):
    first = loop.run(worker.call(jobs.pid))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: worker.lines)
    assert "SIGKILL" in worker.lines[0]
    assert loop.run(worker.call(jobs.pid)) != first


@pytest.mark.parametrize(
    ("setup", "words"),
    [(jobs.unwilling, "helper: robot: no such thing"), (jobs.dying, "ended while it was set up")],
)
def test_what_cannot_be_set_up_says_so_and_is_tried_again_when_asked(loop, setup, words):
    worker = Worker(setup, "helper", wake=loop.woken.set)
    worker.start()
    with pytest.raises(ValueError, match=words):
        worker.wait_ready(20)
    for _ in range(2):
        with pytest.raises(Crashed, match=words):
            loop.run(worker.call(jobs.add, 1, 2))
    worker.close()


def test_close_ends_calls_and_the_process(loop):
    worker = Worker(jobs.nothing, "helper", wake=loop.woken.set)
    worker.start()
    process = loop.run(worker.call(jobs.pid))
    call = loop.begin(worker.call(jobs.solve, 60.0))
    worker.close()
    assert gone(process)
    with pytest.raises(Canceled):
        call.send(None)
    with pytest.raises(Canceled, match="closed"):
        loop.run(worker.call(jobs.add, 1, 2))


def test_the_process_ends_with_its_owner(tmp_path):
    """However the owner ended: here it is killed in the middle of a call."""
    out = tmp_path / "pid"
    owner = os.fork()
    if owner == 0:
        worker = Worker(jobs.nothing, "helper")
        worker.start()
        call = worker.call(jobs.pid)
        try:
            while True:
                call.send(None)
                time.sleep(0.01)
        except StopIteration as done:
            out.with_suffix(".part").write_text(str(done.value))
            out.with_suffix(".part").rename(out)
        worker.call(jobs.solve, 60.0).send(None)
        time.sleep(60)
        os._exit(0)
    wait_for(out.exists)
    process = int(out.read_text())
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    wait_for(lambda: gone(process))
