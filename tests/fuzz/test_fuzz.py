"""Damaged files for every reader: an error in one line that names the file, or a record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from readers import TARGETS

ATTACK = Path(__file__).parent / "attack.py"
FEW, MANY = 300, 20_000
"""Files for each reader, in every run of the tests and in the slow ones."""
MEGABYTES = 1000
SECONDS = 10


def attacked(names: str, count: int, seed: int) -> list[dict]:
    """Results for the readers with these names, separated by commas."""
    command = [sys.executable, str(ATTACK), names, str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(result: dict) -> None:
    assert result["faults"] == [], result["reader"]
    assert result["read"] + result["refused"] == result["n"]
    assert result["read"] > 0  # some edits are harmless: the reader works
    assert result["peak_mb"] < MEGABYTES
    assert result["slowest"] < SECONDS


def test_damaged_files_give_one_line_or_a_record():
    results = attacked(",".join(TARGETS), FEW, 0)
    assert len(results) == len(TARGETS)
    for result in results:
        check(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_give_one_line_or_a_record(name):
    (result,) = attacked(name, MANY, 1)
    check(result)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise TypeError('a')", "TypeError"),
        ("raise ValueError('without a name')", "without a name"),
        ("open('/etc/hostname').close()", "opened /etc/hostname"),
        ("open(path.parent / '../outside.txt').close()", "outside.txt"),
        ("bytearray(2 * 2**30)", "MemoryError"),
    ],
)
def test_faults_are_noticed(code, words):
    """The attack itself: a reader with a fault after its first file."""
    text = f"""
import sys, json
sys.path.insert(0, {str(ATTACK.parent)!r})
import attack
calls = []
def read(path):
    calls.append(path)
    if len(calls) > 1:
        {code}
attack.TARGETS["bad"] = lambda: attack.Target({{"a.txt": b"abc"}}, lambda d, r: d, read)
print(json.dumps(attack.attack("bad", 2, 0)["faults"]))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    faults = json.loads(done.stdout.splitlines()[-1])
    assert len(faults) == 2, done.stderr
    assert all(words in fault for fault in faults)
