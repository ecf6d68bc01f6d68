"""A distillation between two iterations, as one safetensors file that is replaced whole.

The random numbers of an iteration are seeded by its number and rates are closed forms of it, so parameters, Adam's
moments and a counter are all there is to keep: a run that was killed and resumed ends, on a processor, in the same
bits as one that was not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from flowplan.scene import Scene
from flowplan.utils.files import atomic_write
from generators.chord.motion.deformation import Deformation

NAME = "checkpoint.safetensors"


def fingerprint(scene: Scene, *settings: object) -> str:
    """Of what a run is of: another scene or other settings have another."""
    digest = hashlib.sha256(repr(settings).encode())
    for obj in scene.objects + scene.obstacles:
        digest.update(repr((obj.name, obj.mesh.vertices.shape)).encode())
        for array in (obj.vertices_world, obj.mesh.faces):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(
    path: Path,
    deformation: Deformation,
    optimizer: torch.optim.Optimizer,
    residuals: list[float],
    run: str,
) -> None:
    """Keep a run that is `len(residuals)` iterations old; `run` is its fingerprint."""
    tensors = {f"motion/{k}": p.detach() for k, p in deformation.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{k}": v for k, v in state.items()}
    tensors["residuals"] = torch.tensor(residuals, dtype=torch.float64)
    with atomic_write(path) as file:
        file.write(serialize({k: v.contiguous() for k, v in tensors.items()}, {"run": run}))


def restore(
    path: Path, deformation: Deformation, optimizer: torch.optim.Optimizer, run: str
) -> list[float]:
    """Bring a run to where it was kept; its residuals, one an iteration.

    Raises:
        ValueError: when the file is not a checkpoint, or one of another run.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        if header["run"] != run:
            raise ValueError(
                f"{path}: a checkpoint of another scene, sentence or options; give another folder, or those it was "
                "begun with"
            )
        with torch.no_grad():
            for name, p in deformation.named_parameters():
                p.copy_(tensors[f"motion/{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        return tensors["residuals"].tolist()
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not a checkpoint ({error}); delete it to begin again") from None
