"""NeuROK runs on the device of its options, and a GPU gives the CPU's motions within a tolerance.

Random numbers are drawn on the CPU for either device, so results differ by rounding alone: of
float32 for a drag of one body, and of bfloat16 Jacobians for all others. Tolerances are relative to
the object's size.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowplan.motion import SceneMotion
from flowplan.scene import Action, Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators import neurok
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.neurok.generate import _load

ENCODER_DRAG = 1e-3
"""Largest distance of a vertex, if three handles or more move as one body."""
GAUSS_NEWTON = 2e-2
"""Mean distance of the vertices in the last frame, if two handles are dragged."""


def _lid(family: str, seed: int) -> tuple[Scene, FloatArray, FloatArray]:
    """An object with a hinge, twelve points of its lid, and their targets with the lid lower."""
    obj = make(family, HELD_OUT_SEED + seed)
    hinge = next(i for i, joint in enumerate(obj.free) if joint.kind == "revolute")
    start = (obj.lower + obj.upper) / 2
    end = start.copy()
    end[hinge] = 0.8 * obj.lower[hinge] + 0.2 * obj.upper[hinge]
    lid = obj.free[hinge].child
    poses = obj.link_poses(np.stack([start, end]))[:, list(obj.links).index(lid)]
    vertices = np.asarray(obj.links[lid].vertices)
    chosen = vertices[np.linspace(0, len(vertices) - 1, 12).astype(int)]
    handles, targets = (chosen @ X[:3, :3].T + X[:3, 3] for X in poses)
    return Scene((SceneObject(family, obj.posed(start)),)), handles, targets


def _drag(device: str, count: int, family: str, seed: int) -> SceneMotion:
    """The motion under a drag of `count` points of the lid."""
    scene, handles, targets = _lid(family, seed)
    options = neurok.Options(device=device, samples=1, frames=9)
    action = Action(family, handles[:count], targets=targets[:count], duration=2.0)
    return neurok.make((), options)(scene, action, seed=seed)[0]


def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device: got 'cuda', but torch finds no GPU"):
        neurok.make((), neurok.Options(device="cuda"))


def test_weights_are_loaded_to_the_device() -> None:
    # The meta device stands for one that is not the CPU.
    model = _load("neurok-small", torch.device("meta"))
    assert {p.device.type for p in (*model.parameters(), *model.buffers())} == {"meta"}
    assert _load("neurok-small", torch.device("cpu")).rest.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize(("family", "seed"), [("laptop", 1), ("hinged_box", 23)])
def test_a_gpu_drags_as_the_cpu_does(family: str, seed: int) -> None:
    cpu, gpu = (_drag(device, 12, family, seed).vertices[0] for device in ("cpu", "cuda"))
    size = float(np.ptp(cpu[0], axis=0).max())
    assert np.linalg.norm(cpu[-1] - cpu[0], axis=-1).max() > 0.1 * size  # something moves
    assert np.linalg.norm(gpu - cpu, axis=-1).max() < ENCODER_DRAG * size


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize(("family", "seed"), [("laptop", 1), ("hinged_box", 23)])
def test_a_gpu_searches_as_the_cpu_does(family: str, seed: int) -> None:
    cpu, gpu = (_drag(device, 2, family, seed).vertices[0] for device in ("cpu", "cuda"))
    size = float(np.ptp(cpu[0], axis=0).max())
    assert np.linalg.norm(cpu[-1] - cpu[0], axis=-1).max() > 0.1 * size
    assert np.linalg.norm(gpu[-1] - cpu[-1], axis=-1).mean() < GAUSS_NEWTON * size
