"""The benchmark's bookkeeping; what it measures is run by test_end_to_end, step by step."""

import json
import os
import time

import pytest
from flowplan_sim_hw import bench
from flowplan_sim_hw.bring_up import NODES, PARAMETERS, BringUp, isolate
from launch_reader import read_launch, share

RUNS = [
    bench.Run(
        0,
        "success",
        left=0,
        feedback={"plan": 0.01},
        stop={"plan": 0.02, "arm": 0.05},
        load=1.0,
        pace=0.9,
    ),
    bench.Run(
        1,
        "success",
        left=2,
        feedback={"plan": 0.03},
        asked={"flow": 1, "plan": 3.2},
        computed={"flow": 1, "plan": 3},
    ),
    bench.Run(
        2,
        "crash",
        "plan_node ended",
        feedback={"plan": 0.02},
        asked={"flow": 9.0},
        computed={"flow": 1.0},
    ),
    bench.Run(3, "hang"),
]


def by_key(records):
    assert all(set(r) == {"key", "value", "unit", "direction", "n"} for r in records)
    return {r["key"].removeprefix("ros/"): (r["value"], r["n"]) for r in records}


def test_runs_are_counted_and_timed():
    got = by_key(bench.records(RUNS, 1, [0.02, 0.04, 0.03]))
    assert got["success"] == (0.5, 4)
    assert 0 < got["success_low95"][0] < 0.5 < got["success_high95"][0] < 1
    assert (got["failure"], got["hang"], got["crash"]) == ((0, 4), (1, 4), (1, 4))
    assert got["left_processes"] == (2, 4)
    assert got["first_feedback/plan/median"] == (0.02, 3)
    assert got["first_feedback/plan/max"] == (0.03, 3)
    assert "first_feedback/execute/max" not in got, "no figure of what was not measured"
    assert got["cancel_to_stop/arm/max"] == (0.05, 1)
    # Of runs that were planned to the end alone: 4.2 s for what the library does in 4.
    assert got["overhead"] == (pytest.approx(0.05), 1)
    assert got["real_time_factor"] == (0.9, 1)
    assert got["cloud/lost"] == (1, 4)
    assert got["cloud/latency/median"] == (0.03, 3)


def test_an_interrupted_benchmark_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked, log = [], tmp_path / "runs.jsonl"

    def run(seeds):
        for seed in seeds:
            if seed == 14 and 14 not in asked:
                asked.append(seed)
                raise KeyboardInterrupt
            asked.append(seed)
            yield bench.Run(seed, "success", load=1.0)

    monkeypatch.setattr(bench, "_bring_up_and_run", run)
    monkeypatch.setattr(bench, "cloud_rate", lambda: (0, [0.01]))
    monkeypatch.setattr(bench, "isolate", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        bench.bench_ros(runs=13, seed=3, log=log)
    assert [json.loads(line)["seed"] for line in log.read_text().splitlines()] == list(range(3, 14))
    words = []
    got = by_key(
        bench.bench_ros(
            runs=13, seed=3, log=log, progress=lambda fraction, word: words.append(word)
        )
    )
    assert asked == [*range(3, 15), 14, 15]
    assert got["success"] == (1.0, 13)
    assert words == ["12/13 seed 14 success", "13/13 seed 15 success", "clouds"]


def test_a_benchmark_of_nothing_is_refused():
    with pytest.raises(ValueError, match="runs: expected at least 1, got 0"):
        bench.bench_ros(runs=0)


DEAF = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("my last words", flush=True)
pathlib.Path(__file__).with_suffix(".ready").touch()
time.sleep(600)
"""


def test_processes_that_die_or_do_not_end_are_noticed(monkeypatch, tmp_path):
    (tmp_path / "deaf.py").write_text(DEAF)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(NODES, "deaf", "deaf")
    monkeypatch.setattr("flowplan_sim_hw.bring_up._STOPPING", 0.3)
    with BringUp(("deaf",), {}) as nodes:
        end = time.monotonic() + 60
        while not (tmp_path / "deaf.ready").exists():
            assert not nodes.dead()
            assert time.monotonic() < end
            time.sleep(0.02)
        assert nodes.processes() == 2
        (process,) = nodes._processes.values()
        process.kill()
        process.wait()
        assert nodes.dead() == "deaf ended with status -9: my last words"
        assert nodes.processes() == 1, "its child is still there"
        assert nodes.stop() == 1
    assert nodes.processes() == 0


def test_a_benchmark_is_by_itself(monkeypatch):
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, "")
    isolate()
    assert 1 <= int(os.environ["ROS_DOMAIN_ID"]) <= 101
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"


def test_it_is_the_demo_that_is_measured():
    launch = share("flowplan_bringup") / "launch" / "demo.launch.xml"
    demo = {n.name: n for n in read_launch(launch, {"use_sim_time": "true"})}
    assert set(NODES) == set(demo)
    assert all(NODES[name] == f"{node.package}.{node.executable}" for name, node in demo.items())
    values = [
        value for node in demo.values() for value in node.values().items() if value[0] in PARAMETERS
    ]
    assert {name for name, _ in values} == set(PARAMETERS)
    assert all(value == PARAMETERS[name] for name, value in values)
