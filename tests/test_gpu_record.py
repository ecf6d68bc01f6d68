"""`make gpu-check`: deviations are written with their tolerances, and nothing without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHECKS = """
def test_within(gpu_check):
    gpu_check("within", 0.25, 0.5)

def test_beyond(gpu_check):
    gpu_check("beyond", float("nan"), 0.5)
"""


def run(folder: Path, *, gpu: bool) -> subprocess.CompletedProcess[str]:
    """Pytest on a folder of checks, with a torch that pretends to have a GPU, or none."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "test_checks.py").write_text(CHECKS)
    cuda = f"is_available = lambda: {gpu}\nget_device_name = lambda: 'pretended'\n"
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").write_text("from torch import cuda\n")
    (folder / "torch/cuda.py").write_text(cuda)
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--gpu-record",
            "gpu.json",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )


def test_deviations_are_written_with_their_tolerances(tmp_path):
    done = run(tmp_path, gpu=True)
    assert done.returncode == 1
    assert "beyond: off by nan, tolerance 0.5" in done.stdout
    beyond, within = json.loads((tmp_path / "gpu.json").read_text())
    assert (beyond["key"], beyond["passed"]) == ("gpu/beyond/deviation", False)
    assert within == {
        "key": "gpu/within/deviation",
        "value": 0.25,
        "unit": "1",
        "direction": "down",
        "n": 1,
        "tolerance": 0.5,
        "passed": True,
        "device": "pretended",
    }


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run(tmp_path, gpu=False)
    assert done.returncode == 1
    assert (done.stdout + done.stderr).strip().splitlines() == [
        "Exit: gpu-check: torch finds no GPU; run it on a machine that has one"
    ]
    assert not (tmp_path / "gpu.json").exists()
