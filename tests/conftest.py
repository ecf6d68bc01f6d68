"""Checks on a GPU, and the record of how far they deviate from the CPU."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowplan.utils.records import record

GpuCheck = Callable[[str, float, float], None]

_records = pytest.StashKey[list[dict]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gpu-record",
        type=Path,
        metavar="FILE",
        help="write every GPU check's deviation and tolerance to FILE; needs a GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_records] = []
    if config.getoption("--gpu-record") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.exit("gpu-check: torch finds no GPU; run it on a machine that has one", 1)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path, records = session.config.getoption("--gpu-record"), session.config.stash[_records]
    if path is not None and records:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sorted(records, key=lambda r: r["key"]), indent=1) + "\n")


@pytest.fixture
def gpu_check(request: pytest.FixtureRequest) -> GpuCheck:
    """Compare a result of the GPU with one of the CPU: `gpu_check(name, deviation, tolerance)`.

    The deviation and its tolerance are kept for `--gpu-record`. Skips without a GPU.
    """
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")

    def check(name: str, deviation: float, tolerance: float) -> None:
        passed = math.isfinite(deviation) and deviation <= tolerance
        request.config.stash[_records].append(
            record(
                f"gpu/{name}/deviation",
                deviation if math.isfinite(deviation) else sys.float_info.max,
                "1",
                "down",
                tolerance=tolerance,
                passed=passed,
                device=torch.cuda.get_device_name(),
            )
        )
        assert passed, f"{name}: off by {deviation:.3g}, tolerance {tolerance:.3g}"

    return check
