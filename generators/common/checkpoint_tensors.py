"""Tensors of checkpoints, checked before anything is loaded: names, shapes, finite values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""State of Adam for each parameter."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        ValueError: one line that names the file.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{path}: not a checkpoint ({reason}); delete it to begin again") from None


def require(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Refuse tensors that are missing, unknown, of a wrong shape or type, or not finite.

    Raises:
        ValueError: one line that names the file and a tensor.
    """
    for kind, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has unknown", found.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(
                f"{path}: a checkpoint of another model: it {kind} tensor {min(names)} "
                f"({len(names)} in all); use the options it was begun with"
            )
    for name, tensor in found.items():
        if tensor.shape != expected[name]:
            raise ValueError(
                f"{path}: a checkpoint of another model: tensor {name} has shape "
                f"{tuple(tensor.shape)}, expected {tuple(expected[name])}; "
                "use the options it was begun with"
            )
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{path}: tensor {name} has values that are not finite numbers; "
                "go back to an earlier checkpoint, or delete it to begin again"
            )


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def moments(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The state of Adam as tensors named `prefix` + "INDEX/KEY"."""
    return {
        f"{prefix}{index}/{key}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_moments(
    path: Path,
    optimizer: torch.optim.Optimizer,
    found: Mapping[str, Tensor],
    *,
    idle: bool = False,
) -> None:
    """Load the state of Adam, named "INDEX/KEY", into an optimizer.

    Args:
        path: The file, for errors.
        optimizer: An Adam.
        found: Its state.
        idle: Parameters may have no state at all, as they have before their first gradient.

    Raises:
        ValueError: one line that names the file and a tensor.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    begun = {name.partition("/")[0] for name in found}
    expected = {
        f"{i}/{key}": (torch.Size() if key == "step" else p.shape)
        for i, p in enumerate(parameters)
        for key in MOMENTS
        if (str(i) in begun if idle else p.requires_grad)
    }
    require(path, found, expected)
    state: dict[int, dict[str, Any]] = {}
    for name, value in found.items():
        index, key = name.split("/")
        if key != "exp_avg" and bool((value < 0).any()):
            raise ValueError(
                f"{path}: tensor {name} is negative; go back to an earlier checkpoint, or delete "
                "it to begin again"
            )
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
