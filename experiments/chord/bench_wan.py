"""Benchmark of CHORD's iterations with each video model: time and memory with real shapes.

Neither depends on the values of weights, so none are needed. With Wan an iteration consists of the
prior's part of a distillation: condition on the first frames, encode, velocity with guidance,
gradient to pixels; rendering is not included. With the choreographer, which is cheap in comparison,
rendering and the optimizer's step are included.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
import trimesh

from flowplan.geometry import pose
from flowplan.motion import Progress, silent
from flowplan.scene import Scene, SceneObject
from flowplan.utils.records import record
from generators.chord.distill.loop import distill
from generators.chord.options import SMALL, ChordOptions
from generators.chord.priors.choreographer.config import ChoreographerConfig
from generators.chord.priors.choreographer.model import VideoTransformer
from generators.chord.priors.choreographer.prior import Choreographer
from generators.chord.priors.wan.config import A14B, TI2V_5B, WanConfig
from generators.chord.priors.wan.encoder import Forget
from generators.chord.priors.wan.memory import GIB, free_memory, plan, settle
from generators.chord.priors.wan.options import WanOptions
from generators.chord.priors.wan.parts import BlankParts
from generators.chord.priors.wan.prior import WanPrior, release
from generators.common import rectified_flow

MODELS = {"a14b": A14B, "ti2v_5b": TI2V_5B}
"""The real shapes, by their names in the records."""


def bench_wan(*, device: str = "cuda", progress: Progress = silent) -> list[dict[str, Any]]:
    """Records of Wan's models with the paper's options, and of the choreographer, on a GPU.

    Args:
        device: cuda or cuda:N.
        progress: called before each model.

    Raises:
        ValueError: if there is no GPU, or one with too little memory.
    """
    options = WanOptions(device=device)
    free_memory(options.device)
    progress(0.0, "choreographer")
    return bench_choreographer(options.device) + benchmark(MODELS, options, progress=progress)


def bench_choreographer(
    device: str,
    config: ChoreographerConfig | None = None,
    options: ChordOptions = SMALL,
    *,
    iterations: int = 20,
) -> list[dict[str, Any]]:
    """JSON records of the distillation of a box, after two iterations that are not counted."""
    # Random weights: their values do not matter.
    torch.manual_seed(0)
    config = config or ChoreographerConfig()
    prior = Choreographer(
        VideoTransformer(config).to(device),
        embed=lambda texts: torch.ones(len(texts), config.text_width),
    )
    scene = Scene((SceneObject("box", trimesh.creation.box((0.1, 0.1, 0.1)), pose()),), None)
    options = replace(options, iterations=iterations + 2)
    # End of every iteration, of which the first two warm up.
    ends: list[float] = []

    def note(_: float, message: str) -> None:
        if message.startswith("iteration"):
            ends.append(time.perf_counter())

    with _Peak(device) as peak:
        distill(scene, "a box moves", prior, options, progress=note)
    seconds = (ends[-1] - ends[1]) / iterations
    key = "chord/choreographer"
    return [
        record(f"{key}/iteration_s", seconds, "s", "down", iterations, decimals=4),
        *peak.records(key, iterations),
    ]


def benchmark(
    models: dict[str, WanConfig],
    options: WanOptions,
    *,
    iterations: int = 3,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """JSON records for each model, with the exact and the linear gradient.

    Times are means of `iterations` after one that is not counted. Memory is that of the whole
    iteration: planned (without `WanOptions.spare`), and on CUDA measured.

    Args:
        models: by name.
        options: see WanOptions.
        iterations: number of measured iterations.
        progress: called before each run.

    Raises:
        ValueError: for a missing device, or too little memory on it.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    records = []
    ways = {
        "exact": replace(options, gradient="exact"),
        "linear": replace(options, gradient="linear"),
    }
    free = free_memory(options.device)
    # Report what does not fit before anything runs.
    runs = [
        (name, way, settle(config, ways[way], free))
        for name, config in models.items()
        for way in ways
    ]
    for i, (name, way, forget) in enumerate(runs):
        progress(i / len(runs), f"{name}, {way} gradient")
        records += _run(f"chord/wan/{name}/{way}", models[name], ways[way], forget, iterations)
        release()
    return records


def _run(
    key: str, config: WanConfig, options: WanOptions, forget: Forget, iterations: int
) -> list[dict[str, Any]]:
    # A random video of the model's shape, and one iteration that is not counted.
    prior = WanPrior(config, BlankParts(config, options), options, forget=forget)
    generator = torch.Generator().manual_seed(0)
    shape = options.cameras, options.frames, prior.height, prior.width, 3
    video = torch.rand(shape, generator=generator).to(options.device).requires_grad_()
    _iterate(prior, video, defaultdict(float))
    seconds: dict[str, float] = defaultdict(float)
    with _Peak(options.device) as peak:
        for _ in range(iterations):
            _iterate(prior, video, seconds)
    seconds["iteration"] = sum(seconds.values())
    records = [
        record(f"{key}/{stage}_s", s / iterations, "s", "down", iterations, decimals=4)
        for stage, s in seconds.items()
    ]
    # Memory as planned, beside the measured peak.
    planned = plan(config, options, forget).iterating
    return [
        *records,
        record(f"{key}/planned_gib", planned, "GiB", "down", 1, decimals=4),
        *peak.records(key, iterations),
    ]


class _Peak:
    """Peak memory of torch inside this context, on CUDA; unknown on other devices."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._gib: float | None = None

    def __enter__(self) -> _Peak:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *error: object) -> None:
        if self._device.type == "cuda":
            self._gib = torch.cuda.max_memory_allocated(self._device) / GIB

    def records(self, key: str, n: int) -> list[dict[str, Any]]:
        return (
            []
            if self._gib is None
            else [record(f"{key}/peak_gib", self._gib, "GiB", "down", n, decimals=4)]
        )


def _iterate(prior: WanPrior, video: torch.Tensor, seconds: dict[str, float]) -> None:
    device = torch.device(prior.options.device)

    def lap(stage: str, since: float) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        seconds[stage] += now - since
        return now

    start = time.perf_counter()
    # Stages of an iteration, each timed to its end on the device.
    condition = prior.condition("a hand closes a laptop", video[:, 0].detach())
    start = lap("condition", start)
    z = prior.encode(video)
    start = lap("encode", start)
    tau = 0.95
    eps = torch.randn_like(z)
    # Score distillation at one noise level.
    z_tau = rectified_flow.noisy(z.detach(), eps, tau)
    v = prior.velocity(z_tau, tau, condition, guidance=prior.guidance[0])
    start = lap("velocity", start)
    torch.autograd.grad((z * (v - eps + z).detach()).sum(), video)
    lap("gradient", start)
