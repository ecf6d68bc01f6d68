"""Torch devices by name; unknown names and missing GPUs are refused in one line."""

from __future__ import annotations

import pytest
import torch

from generators.common.device import resolve


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 1, "cuda"),
        ("cpu", 1, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_name_resolves_to_its_device(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, device: str
) -> None:
    _gpus(monkeypatch, count)
    assert resolve(name) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("gpu", 1, "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("cuda:x", 1, "device: expected auto, cpu, cuda or cuda:N, got 'cuda:x'"),
        ("", 1, "device: expected auto, cpu, cuda or cuda:N, got ''"),
        ("cuda", 0, "device: got 'cuda', but torch finds no GPU; use cpu or auto"),
        ("cuda:0", 0, "device: got 'cuda:0', but torch finds no GPU; use cpu or auto"),
        (
            "cuda:2",
            2,
            "device: got 'cuda:2', but torch finds 2 GPU(s), numbered from 0; "
            "use one of these, cpu or auto",
        ),
    ],
)
def test_a_missing_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int, message: str
) -> None:
    _gpus(monkeypatch, count)
    with pytest.raises(ValueError) as error:
        resolve(name)
    assert str(error.value) == message
