"""The training loop: AdamW under a cosine schedule, adaptive gradient clipping, averaged weights, and a restart from
any instant.

A step is a function of (seed, process, step): the random numbers of step k are seeded by k, and the learning rate is a
closed form of the fraction done. So a checkpoint is weights, averages, AdamW's moments and a counter, and a run that
was killed and resumed ends where an uninterrupted one does (exactly, on a processor, where the budget is in steps; a
budget in minutes makes the schedule follow the clock). A checkpoint is one safetensors file, replaced whole.

With accelerate's launcher (`accelerate launch --num_processes 4 -m ...`) every process draws its own batch and
gradients are averaged. Averaged weights are Polyak's; clipping is Brock et al. 2021, High-Performance Large-Scale
Image Recognition Without Normalization, eq. 3.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from flowplan.motion import Progress, silent
from flowplan.utils import checks
from flowplan.utils.files import atomic_write
from generators.common.curves import draw_curves
from generators.common.interrupt import held_signals

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Measures of a model (with its averaged weights), logged beside the losses."""

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
CURVES = "curves.png"


@dataclass(frozen=True)
class LoopOptions:
    """How to train, whatever is trained."""

    steps: int = 100_000
    """Steps to take; with `minutes`, whichever ends first."""
    minutes: float | None = None
    """Wall-clock budget, summed over resumed runs; the schedule then ends with the budget."""
    learning_rate: float = 5e-4
    """At the top of each cosine."""
    learning_rate_end: float = 5e-6
    """At the bottom."""
    warmup: int = 200
    """Steps of linear warm-up."""
    cycles: int = 1
    """Cosines in the budget (warm restarts)."""
    cycle_growth: float = 2.0
    """How much longer each cosine is than the one before it."""
    weight_decay: float = 8e-6
    """AdamW's, on all weights (Table 6)."""
    clip: float = 0.05
    """Largest gradient norm of a unit relative to its weights' norm; 0 for no clipping."""
    average: float = 0.999
    """Decay of the averaged weights; it rises to this over the first steps."""
    log_every: int = 20
    """Steps between lines of the metrics."""
    evaluate_every: int = 500
    """Steps between evaluations."""
    checkpoint_steps: int = 0
    """Steps between checkpoints; 0 to go by the clock alone."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    seed: int = 0
    """Of every random choice."""
    cpu: bool = not torch.cuda.is_available()
    """Train on processors, even where there is a GPU."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "learning_rate",
            "cycles",
            "cycle_growth",
            "log_every",
            "evaluate_every",
        ):
            checks.positive(f"LoopOptions.{name}", getattr(self, name))
        if self.minutes is not None:
            checks.positive("LoopOptions.minutes", self.minutes)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: steps taken in all.
        seconds: spent training, over all resumed runs.
        finished: False when a signal stopped it; the checkpoint resumes it.
        measures: the last evaluation.
    """

    step: int
    seconds: float
    finished: bool
    measures: Mapping[str, float]


def fit(
    model: nn.Module,
    objective: Callable[[nn.Module, torch.Generator], Mapping[str, Tensor]],
    folder: Path,
    options: LoopOptions,
    *,
    samples_per_step: int,
    evaluate: Evaluate | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Train `model` in place and leave it with its averaged weights.

    Args:
        model: on the CPU; it is moved to the accelerator.
        objective: losses of one step, by name, the one to differentiate called "loss"; all randomness comes from the
            generator, which lives on the training device.
        folder: of the checkpoint, metrics and curves; it exists.
        samples_per_step: of one process, to report samples a second.
        resume: go on from the folder's checkpoint if it has one.

    Raises:
        ValueError: when `folder` holds a checkpoint and `resume` was not asked for, or one of another model.
        FloatingPointError: when a loss is no longer finite.
    """
    accelerator = Accelerator(mixed_precision="bf16", cpu=options.cpu)
    device, lead = accelerator.device, accelerator.is_main_process
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options.learning_rate,
        betas=(
            0.9,
            0.99,
        ),  # as 200 steps of warm-up: the second moment of a small batch's gradient changes fast
        weight_decay=options.weight_decay,
        fused=True,
    )
    # The wrapper makes the objective a forward pass, which is what a distributed model averages the gradients of.
    wrapped, prepared = accelerator.prepare(_Objective(model, objective), optimizer)
    averages = {k: p.detach().clone() for k, p in model.named_parameters()}
    step, seconds = _resume(folder / CHECKPOINT, resume, model, averages, optimizer)
    generator = torch.Generator(device)
    measures: Mapping[str, float] = {}
    with _Log(folder, step, lead) as log, held_signals() as stop:
        clock = _Clock(step, seconds)
        while not _done(step, clock.seconds, options):
            fraction = _fraction(step, clock.seconds, options)
            rate = learning_rate(fraction, step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            seed_step(generator, options.seed, accelerator.process_index, step)
            losses = wrapped(generator)
            accelerator.backward(losses["loss"])
            norm = clip_units(model.parameters(), options.clip)
            prepared.step()
            prepared.zero_grad()
            step += 1
            average(averages, model, min(options.average, (1 + step) / (10 + step)))

            clock.tick(accelerator)
            last = _done(step, clock.seconds, options)
            if step % options.log_every == 0 or last:
                values = {k: v.item() for k, v in losses.items()}
                if not math.isfinite(values["loss"]):
                    raise FloatingPointError(
                        f"the loss is {values['loss']} at step {step}; lower the learning rate"
                    )
                speed = clock.speed(step) * samples_per_step * accelerator.num_processes
                log.write(
                    step=step,
                    seconds=clock.seconds,
                    rate=rate,
                    gradient=norm.item(),
                    speed=speed,
                    **values,
                )
                word = f"step {step}: loss {values['loss']:.4f}, {speed:.0f} samples/s"
                progress(_fraction(step, clock.seconds, options), word)
            if evaluate is not None and lead and (step % options.evaluate_every == 0 or last):
                measures = evaluate(_with(model, averages))
                log.write(step=step, seconds=clock.seconds, **measures)
                log.draw()
            stopped = _agreed(accelerator, stop.asked)
            if lead and (stopped or last or clock.due(step, options)):
                _save(folder / CHECKPOINT, model, averages, optimizer, step, clock.seconds)
            if stopped:
                break
    finished = _done(step, clock.seconds, options)
    _load(model, averages)
    accelerator.wait_for_everyone()
    return Outcome(step, clock.seconds, finished, measures)


class _Objective(nn.Module):
    def __init__(self, model: nn.Module, objective: Callable[..., Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, generator: torch.Generator) -> dict[str, Tensor]:
        return dict(self.objective(self.model, generator))


def seed_step(generator: torch.Generator, seed: int, process: int, step: int) -> None:
    """Give a step its own random numbers, in `generator` and in torch's default one."""
    word = int(np.random.SeedSequence((seed, process, step)).generate_state(1, np.uint64)[0] >> 1)
    generator.manual_seed(word)
    torch.manual_seed(word)


def learning_rate(fraction: float, step: int, options: LoopOptions) -> float:
    """Cosine annealing with warm restarts (SGDR, Loshchilov and Hutter 2017, eq. 5) and linear warm-up.

    The cycles fill the budget: each is `cycle_growth` times the one before, and the last ends at fraction 1.
    """
    growth = options.cycle_growth
    lengths = growth ** np.arange(options.cycles)
    ends = np.cumsum(lengths) / lengths.sum()
    cycle = min(int(np.searchsorted(ends, fraction, side="right")), options.cycles - 1)
    begin = ends[cycle - 1] if cycle else 0.0
    part = min((fraction - begin) / (ends[cycle] - begin), 1.0)
    low, high = options.learning_rate_end, options.learning_rate
    rate = low + (high - low) * (1 + math.cos(math.pi * part)) / 2
    return rate * min(1.0, (step + 1) / max(options.warmup, 1))


@torch.no_grad()
def clip_units(parameters: Iterator[nn.Parameter], limit: float, *, least: float = 1e-3) -> Tensor:
    """Scale each unit's gradient to at most `limit` times the norm of its weights; the total norm before that.

    A unit is a row of a matrix (one output of a linear layer, one learned token), or a whole vector. Norms of weights
    are taken to be `least` or more, so that what starts at zero can leave it.
    """
    total = []
    for p in parameters:
        if p.grad is None:
            continue
        axes = tuple(range(1, p.ndim)) if p.ndim > 1 else None
        gradient = torch.linalg.vector_norm(p.grad, dim=axes, keepdim=True)
        total.append(torch.linalg.vector_norm(gradient))
        if limit:
            allowed = limit * torch.linalg.vector_norm(p, dim=axes, keepdim=True).clamp(min=least)
            p.grad.mul_((allowed / gradient.clamp(min=1e-12)).clamp(max=1.0))
    return torch.linalg.vector_norm(torch.stack(total))


@torch.no_grad()
def average(averages: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """averages <- decay * averages + (1 - decay) * weights, in place."""
    names = dict(model.named_parameters())
    torch._foreach_lerp_(list(averages.values()), [names[k] for k in averages], 1 - decay)


def _with(model: nn.Module, averages: dict[str, Tensor]) -> nn.Module:
    """A copy of the model with the averaged weights, in evaluation mode."""
    other = copy.deepcopy(model)
    _load(other, averages)
    return other.eval()


@torch.no_grad()
def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        p.copy_(weights[name])


def _fraction(step: int, seconds: float, options: LoopOptions) -> float:
    """Of the budget that is spent."""
    clock = seconds / (60 * options.minutes) if options.minutes else 0.0
    return min(1.0, max(step / options.steps, clock))


def _done(step: int, seconds: float, options: LoopOptions) -> bool:
    return _fraction(step, seconds, options) >= 1.0


def _agreed(accelerator: Accelerator, asked: bool) -> bool:
    """Has any process been asked to stop? All must leave at the same step."""
    if accelerator.num_processes == 1:
        return asked
    return bool(
        accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum").item()
    )


class _Clock:
    """Seconds trained, going on from an earlier run's; one clock for all processes."""

    def __init__(self, step: int, seconds: float) -> None:
        self.seconds = seconds
        self._begin = time.monotonic() - seconds
        self._saved = self._mark_time = seconds
        self._mark_step = step

    def tick(self, accelerator: Accelerator) -> None:
        seconds = time.monotonic() - self._begin
        if accelerator.num_processes > 1:
            both = torch.tensor(seconds, device=accelerator.device, dtype=torch.float32)
            seconds = accelerator.reduce(both, "mean").item()
        self.seconds = seconds

    def speed(self, step: int) -> float:
        """Steps a second since this was last asked."""
        speed = (step - self._mark_step) / max(self.seconds - self._mark_time, 1e-9)
        self._mark_step, self._mark_time = step, self.seconds
        return speed

    def due(self, step: int, options: LoopOptions) -> bool:
        """Is it time for a checkpoint?"""
        by_step = options.checkpoint_steps > 0 and step % options.checkpoint_steps == 0
        if by_step or self.seconds - self._saved > 60 * options.checkpoint_minutes:
            self._saved = self.seconds
            return True
        return False


class _Log:
    """Metrics as JSON lines; the lines of steps that are taken again after a restart are dropped."""

    def __init__(self, folder: Path, step: int, write: bool) -> None:
        self._path, self._curves, self._writes = folder / METRICS, folder / CURVES, write
        if write:
            lines = read_metrics(folder) if step else []
            text = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
            with atomic_write(self._path) as file:
                file.write(text.encode())

    def __enter__(self) -> _Log:
        self._file = open(self._path, "a") if self._writes else None
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()
            self.draw()

    def write(self, **values: float) -> None:
        if self._file:
            self._file.write(json.dumps({k: float(f"{v:.6g}") for k, v in values.items()}) + "\n")
            self._file.flush()

    def draw(self) -> None:
        if self._writes:
            draw_curves(self._curves, read_metrics(self._curves.parent))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The metrics of a run, one dictionary a line; a line cut short by a kill is left out."""
    out = []
    for line in (folder / METRICS).read_text().splitlines() if (folder / METRICS).exists() else []:
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return out


def _save(
    path: Path,
    model: nn.Module,
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    tensors = {f"model/{k}": p.detach() for k, p in model.named_parameters()}
    tensors |= {f"average/{k}": v for k, v in averages.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": v for k, v in state.items()}
    with atomic_write(path) as file:
        file.write(
            save(
                {k: v.contiguous() for k, v in tensors.items()},
                {"step": str(step), "seconds": repr(seconds)},
            )
        )


def _resume(
    path: Path,
    resume: bool,
    model: nn.Module,
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, float]:
    """Load a checkpoint in place: the steps taken and the seconds spent; (0, 0) where there is none."""
    if not path.exists():
        return 0, 0.0
    if not resume:
        raise ValueError(f"{path} exists: resume that run, or give another folder")
    try:
        with safe_open(path, "pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        weights = _part(tensors, "model/")
        if {k: v.shape for k, v in weights.items()} != {
            k: p.shape for k, p in model.named_parameters()
        }:
            raise ValueError(
                f"{path}: a checkpoint of another model; use the options it was begun with"
            )
        _load(model, weights)
        for name, value in _part(tensors, "average/").items():
            averages[name].copy_(value)
        state: dict[int, dict[str, Any]] = {}
        for name, value in _part(tensors, "optimizer/").items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
        return int(header["step"]), float(header["seconds"])
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not a checkpoint ({error}); delete it to begin again") from None


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
