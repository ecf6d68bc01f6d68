"""CHORD's choreographer on a GPU against the same on a CPU."""

from __future__ import annotations

from dataclasses import replace

import moving_boxes
import numpy as np
import pytest
import torch
from conftest import GpuCheck

from flowplan.scene import Prompt
from generators.chord.distill.loop import distill
from generators.chord.generate import load_prior
from generators.chord.options import SMALL, ControlOptions, Options
from generators.registry import factory

FEW = replace(
    SMALL,
    iterations=20,
    stage=replace(SMALL.stage, gaussians=replace(SMALL.stage.gaussians, count=600)),
    control=ControlOptions(coarse=12, fine=40, surface_points=400),
)
TEXT = "Put the cup on the coaster."


@pytest.mark.gpu
def test_the_choreographer_predicts_the_same_on_a_gpu(gpu_check: GpuCheck) -> None:
    chance = torch.Generator().manual_seed(0)
    z = torch.randn(2, 16, 48, 48, 3, generator=chance)
    first = torch.rand(2, 96, 96, 4, generator=chance)
    cpu, gpu = (
        prior.velocity(
            z.to(prior.device),
            0.9,
            prior.condition(TEXT, first.to(prior.device)),
            guidance=2.5,
        ).cpu()
        for prior in (load_prior("choreographer", device) for device in ("cpu", "cuda"))
    )
    # Both run in bfloat16, with 8 bits of mantissa.
    gpu_check("chord/velocity", ((cpu - gpu).norm() / cpu.norm()).item(), 0.02)


@pytest.mark.gpu
def test_a_distillation_goes_the_same_way_on_a_gpu(gpu_check: GpuCheck) -> None:
    scene, *_ = moving_boxes.pick_and_place()
    ways = []
    for device in ("cpu", "cuda"):
        motion = distill(scene, TEXT, load_prior("choreographer", device), FEW, seed=3).motion
        ways.append(np.concatenate([v - v[0] for v in motion.vertices], axis=1))
    off = np.linalg.norm(ways[0] - ways[1]) / np.linalg.norm(ways[0])
    # On a CPU, float32 instead of bfloat16 in the network changes the motion by 0.0025.
    gpu_check("chord/motion", float(off), 0.05)


@pytest.mark.gpu
def test_the_generator_takes_a_gpu_that_is_there(gpu_check: GpuCheck) -> None:
    scene, *_ = moving_boxes.pick_and_place()
    brief = replace(FEW, iterations=2, views=1)
    chord = factory("chord", Options(device="auto", distillation=brief))(())
    (motion,) = chord(scene, Prompt(TEXT))
    assert load_prior("choreographer", "auto").device.type == "cuda"
    moved = max(float(np.abs(v - v[0]).max()) for v in motion.vertices)
    assert 0 < moved < 1
