"""Faults planted by tools/mutation, and the trials of them."""

import ast
from pathlib import Path

import pytest

from tools.mutation import trial
from tools.mutation.faults import CONSTANT, faults, planted, sample
from tools.mutation.rooms import ROOMS, ROOT, Room

SOURCE = '''
from typing import Annotated

Share = Annotated[float, "0 | 1"]

def f(a: int | None, b, c) -> int | None:
    """A text with a < b and a - b."""
    if not a and b < c:
        raise ValueError(f"got {a - b}")
    if c:
        a -= 1
    return -a * b + (c if a is None else 2)
'''


def written(folder: Path, text: str) -> Path:
    path = folder / "module.py"
    path.write_text(text)
    return path


def test_every_kind_of_fault_is_found_and_no_other(tmp_path):
    found = faults(tmp_path, written(tmp_path, SOURCE))
    shown = {(f.line, f.kind, f.before, f.after) for f in found if f.kind != CONSTANT}
    assert shown == {
        (8, "boolean", "if not a and b < c:", "if not a or b < c:"),
        (8, "boolean", "if not a and b < c:", "if not not a and b < c:"),
        (8, "comparison", "if not a and b < c:", "if not a and b >= c:"),
        (10, "branch", "if c:", "if not c:"),
        (11, "sign", "a -= 1", "a += 1"),
        (12, "sign", "return -a * b + (c if a is None else 2)", "return +a * b + (c if a is None else 2)"),
        (12, "sign", "return -a * b + (c if a is None else 2)", "return -a * b - (c if a is None else 2)"),
        (12, "factor", "return -a * b + (c if a is None else 2)", "return -a / b + (c if a is None else 2)"),
        (12, "comparison", "return -a * b + (c if a is None else 2)", "return -a * b + (c if a is not None else 2)"),
    }  # fmt: skip
    assert {(f.line, f.before) for f in found if f.kind == CONSTANT} == {
        (11, "a -= 1"),
        (12, "return -a * b + (c if a is None else 2)"),
    }


def test_one_fault_is_planted_and_the_rest_is_as_it_was(tmp_path):
    found = faults(tmp_path, written(tmp_path, SOURCE))
    intact = ast.unparse(ast.parse(SOURCE)).splitlines()
    for fault in found:
        changed = ast.unparse(planted(SOURCE, fault.number)).splitlines()
        different = [(a, b) for a, b in zip(intact, changed, strict=True) if a != b]
        assert [(a.strip(), b.strip()) for a, b in different] == [(fault.before, fault.after)]


def test_a_sample_is_drawn_by_its_seed_and_grows_without_redrawing():
    everything = [f for path in ROOMS["geometry"].files for f in faults(ROOT, path)]
    few, more = sample(everything, 10, seed=1), sample(everything, 40, seed=1)
    assert more[:10] == few
    assert sample(everything, 10, seed=2) != few
    assert len({f.key for f in sample(everything, 10**6, seed=0)}) == len(everything)


def test_rooms_have_their_files_and_tests():
    for name, room in ROOMS.items():
        assert room.files, name
        assert room.test_files, name
    path = ROOT / "ros_nodes/flowplan_ros/flowplan_ros/execution/__init__.py"
    assert ROOMS["execution"].module(path) == "flowplan_ros.execution"


TESTS = """
import time

import pytest

from subject import half, unused, until

@pytest.fixture(scope="module")
def made():
    return half(8)

def test_first(made):
    assert made > 0

def test_second(made):
    assert made == 4

def test_until():
    assert until(3) == 3
"""
SUBJECT = """
def half(x):
    return x / 2

def until(n):
    i = 0
    while i < n:
        i += 1
    return i

def unused(x):
    return -x
"""


def test_trials_tell_noticed_endless_and_unseen_faults(tmp_path, monkeypatch):
    for module in ("tools.mutation.rooms", "tools.mutation.trial"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_subject.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["slow", "gpu"]\n'
    )
    (tmp_path / "subject.py").write_text(SUBJECT)
    room = Room("subject.py", ("test_*.py",))
    coverage = trial.measure_coverage(room)

    outcome = {}
    for fault in faults(tmp_path, tmp_path / "subject.py"):
        if fault.kind == CONSTANT:
            continue
        tests = coverage.tests(fault, 10.0)
        limit = 3.0 if fault.after == "i -= 1" else 60.0
        by = trial.notices(room, fault, tests, limit)[0] if tests else "no test"
        outcome[fault.after] = by.split("::")[-1]
    # The second test sees what the fixture made, although the first one ran it.
    assert outcome["return x * 2"] == "test_second"
    assert outcome["while i >= n:"] == "test_until"
    assert outcome["i -= 1"] == "time"
    assert outcome["return +x"] == "no test"
    # Nothing on disk was changed, and nothing planted here.
    assert (tmp_path / "subject.py").read_text() == SUBJECT

    (tmp_path / "tests" / "test_subject.py").write_text("def test_broken():\n    assert False\n")
    with pytest.raises(RuntimeError, match=r"the tests of subject\.py fail without any fault"):
        trial.measure_coverage(room)
