"""Processes that are killed, full disks, closed pipes: no half-written file, no process left."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.utils.files import atomic_write, locked
from flowplan.utils.json_lines import JsonLines

WAIT = 60.0
"""Longest time that a test waits for a process, seconds."""


def until(condition, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


WRITE = """
import sys, time
from pathlib import Path
from flowplan.utils.files import atomic_write
path = Path(sys.argv[1])
with atomic_write(path) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_writer_leaves_the_old_file_alone(tmp_path, number):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    process = python(WRITE, path)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    process.wait(WAIT)
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    dead = python("pass")
    dead.wait(WAIT)
    (tmp_path / f".a.bin.{dead.pid}-00.tmp").write_bytes(b"cut")
    own = tmp_path / f".a.bin.{os.getpid()}-00.tmp"
    own.write_bytes(b"being written")
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([own.name, "a.bin"])


def test_without_unnamed_files_the_result_is_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(b"whole")
        assert len(list(tmp_path.iterdir())) == 1
    assert (tmp_path / "a.bin").read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
import numpy as np
from pathlib import Path
from flowplan.io import npz
from flowplan.motion import SceneMotion
from flowplan.utils.json_lines import JsonLines
folder = Path(sys.argv[1])
try:
    vertices = np.random.default_rng(0).normal(size=(2, 1000, 3))
    npz.save(folder / "motion.npz", SceneMotion([0, 1.0], (vertices,)))
except OSError as error:
    print(error)
with JsonLines(folder / "log.jsonl") as log:
    try:
        for i in range(1000):
            log.append({"i": i, "text": "x" * 50})
    except OSError as error:
        print(error)
"""


def test_a_full_disk_names_the_file_and_leaves_whole_lines(tmp_path):
    (tmp_path / "motion.npz").write_bytes(b"old")
    output, error = python(FULL, tmp_path).communicate(timeout=WAIT)
    lines = output.splitlines()
    assert len(lines) == 2, error
    assert "motion.npz" in lines[0]
    assert "log.jsonl" in lines[1]
    assert (tmp_path / "motion.npz").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "motion.npz"]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["i"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"a\.npz"):
        npz.save(tmp_path / "a.npz", SceneMotion([0, 1.0], (np.zeros((2, 3, 3)),)))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_errors_of_writing_name_the_file(tmp_path, monkeypatch, number):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"a\.npz") as caught:
        npz.save(tmp_path / "a.npz", SceneMotion([0, 1.0], (np.zeros((2, 3, 3)),)))
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 24, 3))
def test_a_last_line_that_was_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    with JsonLines(path) as log:
        log.append({"i": 1})
        log.append({"i": 2, "name": "second"})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with JsonLines(path) as log:
        rows = [row["i"] for row in log.read(dict, "a row")]
        # The line break alone may be missing.
        assert rows == ([1, 2] if cut == 1 else [1])
        log.append({"i": 3})
    with JsonLines(path) as log:
        assert [row["i"] for row in log.read(dict, "a row")] == [*rows, 3]


def test_other_broken_lines_are_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"i": 1}\n{"i": \n{"i": 3}\n')
    with JsonLines(path) as log, pytest.raises(ValueError, match="line 2 is not a row; delete"):
        log.read(dict, "a row")


def test_two_runs_do_not_share_a_folder_or_a_log(tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(ValueError, match="another run writes to this"),
        locked(tmp_path / "run"),
    ):
        pass
    with locked(tmp_path / "run"):
        pass
    with JsonLines(tmp_path / "a.jsonl"), pytest.raises(ValueError, match="another run appends"):
        JsonLines(tmp_path / "a.jsonl")


POOL = """
import os, sys, time
from experiments.worker_processes import worker_processes
from pathlib import Path

def work(folder, i):
    import tempfile
    with tempfile.TemporaryDirectory(dir=folder):
        Path(folder, f"worker-{i}-{os.getpid()}").touch()
        time.sleep(100)

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    from flowplan.cli.dispatch import _terminated
    import signal
    signal.signal(signal.SIGTERM, _terminated)
    with worker_processes(2) as pool:
        for future in [pool.submit(work, sys.argv[1], i) for i in range(9)]:
            future.result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, number):
    script = tmp_path / "pool_script.py"
    script.write_text(POOL)
    folder = tmp_path / "work"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: len(list(folder.glob("worker-*"))) == 2, "workers did not begin")
    workers = [int(p.name.split("-")[2]) for p in folder.glob("worker-*")]
    process.send_signal(number)  # to the main process alone
    process.wait(WAIT)
    until(lambda: not any(map(alive, workers)), "workers are left")
    # Nothing else began, and temporary folders are gone.
    assert len(list(folder.iterdir())) == 2


def test_a_reader_that_leaves_is_not_told(tmp_path):
    code = "from flowplan.cli.dispatch import main; main()"
    shell = f'"{sys.executable}" -c "{code}" plan --help | head -c1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout[1:].strip() in ("0", "141")


def test_a_run_replaces_all_files_of_an_earlier_one(tmp_path, monkeypatch):
    """A run without a plan, over one with a plan, a rollout and a video."""
    from experiments.tasks import record
    from experiments.tasks.episode import Episode, EpisodeSpec

    spec = EpisodeSpec("pick_place", "panda", "kinematic", "planner", 0, "action", "lm")
    episode = Episode(spec, "no_plan", "out of reach", {}, {})
    seen = []

    def run_episode(*_: object, **__: object) -> Episode:
        seen.append(sorted(p.name for p in tmp_path.iterdir()))
        with pytest.raises(ValueError, match="another run writes"), locked(tmp_path):
            pass
        return episode

    monkeypatch.setattr(record, "run_episode", run_episode)
    monkeypatch.setattr(record, "_write_stages", lambda *_: None)
    for name in (*record.FILES, "notes.txt"):
        (tmp_path / name).write_text("earlier")
    record.run_and_record(spec, None, tmp_path, video=False)
    assert seen == [sorted([*record.FILES, "notes.txt"])]  # all there until the run is over
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "notes.txt"]
    assert json.loads((tmp_path / "metrics.json").read_text())["outcome"] == "no_plan"


def test_fewer_motions_replace_more(tmp_path):
    import trimesh

    from flowplan.scene import Scene, SceneObject
    from generators.chord.scene_file import write_motions

    scene = Scene((SceneObject("box", trimesh.creation.box([0.1] * 3)),), 0.0)
    motion = SceneMotion([0, 1.0], (np.zeros((2, 8, 3)),))
    write_motions(tmp_path, scene, [motion] * 3)
    write_motions(tmp_path, scene, [motion])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["motion-0.npz", "scene.npz"]
