"""A distillation between two iterations, as one safetensors file that is replaced as a whole.

The random numbers of an iteration are seeded by its index, and all schedules are closed forms of
it. So the state consists of the parameters, Adam's moments and the residuals: on a CPU, a resumed
run ends in the same bits as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from flowplan.scene import Scene
from flowplan.utils.files import atomic_write
from generators.chord.motion.deformation import Deformation

NAME = "checkpoint.safetensors"


def fingerprint(scene: Scene, *settings: object) -> str:
    """A digest of a scene and the settings of a run, to tell runs apart."""
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
    """Write the state of a run after `len(residuals)` iterations.

    Args:
        path: file to write.
        deformation: its parameters are stored.
        optimizer: its state is stored.
        residuals: one for each iteration.
        run: the run's fingerprint.
    """
    tensors = {f"motion/{k}": p.detach() for k, p in deformation.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{k}": v for k, v in state.items()}
    tensors["residuals"] = torch.tensor(residuals, dtype=torch.float64)
    with atomic_write(path) as file:
        file.write(to_bytes({k: v.contiguous() for k, v in tensors.items()}, {"run": run}))


def restore(
    path: Path, deformation: Deformation, optimizer: torch.optim.Optimizer, run: str
) -> list[float]:
    """Load the state of a run into its deformation and optimizer.

    Returns:
        The residuals, one for each iteration.

    Raises:
        ValueError: for a file that is not a checkpoint, or one of another run.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        if header["run"] != run:
            raise ValueError(
                f"{path}: a checkpoint of another scene, sentence or options; "
                "give another folder, or the ones that it was started with"
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
        raise ValueError(f"{path}: not a checkpoint ({error}); delete it to start again") from None
