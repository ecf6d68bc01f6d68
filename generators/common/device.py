"""Torch devices by name."""

from __future__ import annotations

import re

import torch

EXPECTED = "auto, cpu, cuda or cuda:N"


def resolve(device: str) -> torch.device:
    """The torch device of an option's value.

    Args:
        device: "auto" (the first GPU, or the CPU if there is none), "cpu", "cuda" (the current
            GPU) or "cuda:N" (GPU number N).

    Raises:
        ValueError: if the name is none of these, or if this GPU is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    if re.fullmatch(r"cuda(:\d+)?", device) is None:
        raise ValueError(f"device: expected {EXPECTED}, got {device!r}")
    if not torch.cuda.is_available():
        raise ValueError(f"device: got {device!r}, but torch finds no GPU; use cpu or auto")
    number = torch.device(device).index or 0
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"device: got {device!r}, but torch finds {torch.cuda.device_count()} GPU(s), "
            "numbered from 0; use one of these, cpu or auto"
        )
    return torch.device(device)
