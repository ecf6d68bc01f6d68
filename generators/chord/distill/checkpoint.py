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
from safetensors.torch import save as to_bytes

from flowplan.scene import Scene
from flowplan.utils.files import atomic_write
from generators.chord.motion.deformation import Deformation
from generators.common import checkpoint_tensors

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
    tensors |= checkpoint_tensors.moments(optimizer, "adam/")
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
    tensors, header = checkpoint_tensors.read(path)
    if "run" not in header:
        raise ValueError(f"{path}: not a checkpoint (no 'run'); delete it to begin again")
    if header["run"] != run:
        raise ValueError(
            f"{path}: a checkpoint of another scene, sentence or options; "
            "give another folder, or the ones that it was started with"
        )
    # Everything is checked before anything is changed.
    residuals = tensors.get("residuals", torch.zeros(0, 0))
    if residuals.ndim != 1 or not bool(residuals.isfinite().all()):
        raise ValueError(
            f"{path}: not a checkpoint (residuals: expected finite numbers); "
            "delete it to begin again"
        )
    parameters = dict(deformation.named_parameters())
    motion = checkpoint_tensors.part(tensors, "motion/")
    checkpoint_tensors.require(path, motion, {k: p.shape for k, p in parameters.items()})
    adam = checkpoint_tensors.part(tensors, "adam/")
    # Residuals of later frames have no gradient before their stage.
    checkpoint_tensors.restore_moments(path, optimizer, adam, idle=True)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(motion[name])
    return residuals.tolist()
