"""Small shared helpers: records of measurements, files written whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowplan.utils.files import atomic_write
from flowplan.utils.records import record


def test_record_holds_the_measurement_in_plain_types() -> None:
    entry = record("plan/median_ms", np.float32(2.5), "ms", "down", 3, optimizer="lm")
    assert list(entry) == ["key", "value", "unit", "direction", "n", "optimizer"]
    assert json.loads(json.dumps(entry)) == {
        "key": "plan/median_ms",
        "value": 2.5,
        "unit": "ms",
        "direction": "down",
        "n": 3,
        "optimizer": "lm",
    }


def test_record_rounds_only_if_told_to() -> None:
    assert record("a", 1 / 3, "s", "down")["value"] == 1 / 3
    assert record("a", 1 / 3, "s", "down", decimals=4)["value"] == 0.3333
    assert isinstance(record("a", 7, "runs", "down")["value"], int)


def test_record_refuses_an_unknown_direction() -> None:
    with pytest.raises(ValueError, match="direction: got 'better', expected one of up, down"):
        record("a", 1.0, "s", "better")


def test_atomic_write_leaves_the_old_file_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write("not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_needs_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="folder does not exist; create it first"),
        atomic_write(tmp_path / "none" / "a.bin"),
    ):
        pass
