"""Training loop: AdamW, cosine schedule, adaptive gradient clipping, weight averaging, restarts.

A step is a function of (seed, process, step): the random numbers of step k are seeded by k, and the
learning rate is a closed form of the fraction of the budget that is spent. So a checkpoint is
weights, averages, AdamW's moments and a counter, and a run that was killed and resumed ends where
an uninterrupted one does (exactly, on a CPU, with a budget in steps; with a budget in minutes the
schedule follows the clock). A checkpoint is one safetensors file, replaced as a whole.

With accelerate's launcher (`accelerate launch --num_processes 4 -m ...`) every process draws its
own batch and gradients are averaged. The weights are averaged exponentially by torch's
`optim.swa_utils`; clipping is Brock et al. 2021, High-Performance Large-Scale Image Recognition
Without Normalization, eq. 3.

torch's `CosineAnnealingWarmRestarts` counts whole epochs, needs an integral growth of its cycles
and cannot follow a budget in minutes, which is why the schedule is written out (`learning_rate`).
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from flowplan.motion import Progress, silent
from flowplan.utils.files import atomic_write, locked, naming
from generators.common import checkpoint_tensors
from generators.common.curves import draw_curves
from generators.common.device import resolve
from generators.common.interrupt import held_signals
from generators.common.train_options import LoopOptions

Objective = Callable[[nn.Module, torch.Generator], Mapping[str, Tensor]]
"""Losses of one step by name, with the one to differentiate called "loss"."""
Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""Measures of a model (with its averaged weights), logged beside the losses."""

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
CURVES = "curves.png"

_BETAS = (0.9, 0.99)  # as 200 steps of warm-up: a small batch's second moment changes fast


@dataclass(frozen=True)
class Outcome:
    """Result of a run.

    Attributes:
        step: steps taken in all.
        seconds: spent training, over all resumed runs.
        finished: False if a signal stopped it; the checkpoint resumes it.
        measures: the last evaluation.
    """

    step: int
    seconds: float
    finished: bool
    measures: Mapping[str, float]


def fit(
    model: nn.Module,
    objective: Objective,
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
        objective: losses of one step; all randomness comes from the generator, which lives on the
            training device.
        folder: folder of the checkpoint, metrics and curves; must exist.
        options: see LoopOptions.
        samples_per_step: of one process, to report samples per second.
        evaluate: measures to log; called with a copy of the model.
        resume: continue from the folder's checkpoint if there is one.
        progress: called with every line of the metrics.

    Raises:
        ValueError: if `folder` holds a checkpoint and `resume` is False, or one of another model.
        FloatingPointError: if a loss is no longer finite.
    """
    accelerator = Accelerator(mixed_precision="bf16", cpu=cpu_only(options.device))
    main = accelerator.is_main_process
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=options.learning_rate,
        betas=_BETAS,
        weight_decay=options.weight_decay,
        fused=True,
    )
    # The wrapper makes the objective a forward pass, which is what a distributed model needs to
    # average gradients.
    wrapped, prepared = accelerator.prepare(_Objective(model, objective), optimizer)
    averages = {k: p.detach().clone() for k, p in model.named_parameters()}
    step, seconds = _resume(folder / CHECKPOINT, resume, model, averages, optimizer)
    generator = torch.Generator(accelerator.device)
    measures: Mapping[str, float] = {}

    with _Log(folder, step, main) as log, held_signals() as stop:
        clock = _Clock(step, seconds)
        while not _done(step, clock.seconds, options):
            rate = learning_rate(_fraction(step, clock.seconds, options), step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate

            # Losses and gradients.
            seed_step(generator, options.seed, accelerator.process_index, step)
            losses = wrapped(generator)
            accelerator.backward(losses["loss"])
            norm = clip_units(model.parameters(), options.clip)

            # Update of weights and averages.
            prepared.step()
            prepared.zero_grad()
            step += 1
            average(averages, model, min(options.average, (1 + step) / (10 + step)))

            # Log, evaluation, checkpoint.
            clock.tick(accelerator)
            last = _done(step, clock.seconds, options)
            if step % options.log_every == 0 or last:
                values = _finite(losses, step)
                speed = clock.speed(step) * samples_per_step * accelerator.num_processes
                head = {"step": step, "seconds": clock.seconds, "rate": rate}
                log.write(**head, gradient=norm.item(), speed=speed, **values)
                word = f"step {step}: loss {values['loss']:.4f}, {speed:.0f} samples/s"
                progress(_fraction(step, clock.seconds, options), word)
            if evaluate is not None and main and (step % options.evaluate_every == 0 or last):
                measures = evaluate(_with(model, averages))
                log.write(step=step, seconds=clock.seconds, **measures)
                log.draw()
            stopped = _agreed(accelerator, stop.asked)
            if main and (stopped or last or clock.due(step, options)):
                _save(folder / CHECKPOINT, model, averages, optimizer, step, clock.seconds)
            if stopped:
                break

    finished = _done(step, clock.seconds, options)
    _load(model, averages)
    accelerator.wait_for_everyone()
    return Outcome(step, clock.seconds, finished, measures)


class _Objective(nn.Module):
    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, generator: torch.Generator) -> dict[str, Tensor]:
        return dict(self.objective(self.model, generator))


def cpu_only(device: str) -> bool:
    """True if accelerate is to stay on the CPU; a numbered GPU becomes the current one."""
    chosen = resolve(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    return chosen.type == "cpu"


def hardware(device: torch.device, processes: int) -> str:
    """Description of the training hardware for a card."""
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)}"
    threads = processes * torch.get_num_threads()
    return f"{platform.machine()} processor, {threads} of {os.cpu_count()} cores"


def seed_step(generator: torch.Generator, seed: int, process: int, step: int) -> None:
    """Seed `generator` and torch's default one for a step."""
    word = int(np.random.SeedSequence((seed, process, step)).generate_state(1, np.uint64)[0] >> 1)
    generator.manual_seed(word)
    torch.manual_seed(word)


def learning_rate(fraction: float, step: int, options: LoopOptions) -> float:
    """Cosine annealing with warm restarts and linear warm-up.

    SGDR, Loshchilov and Hutter 2017, eq. 5. The cycles fill the budget: each is `cycle_growth`
    times as long as the one before, and the last ends at fraction 1.
    """
    # Cycle of this fraction of the budget.
    lengths = options.cycle_growth ** np.arange(options.cycles)
    ends = np.cumsum(lengths) / lengths.sum()
    cycle = min(int(np.searchsorted(ends, fraction, side="right")), options.cycles - 1)
    begin = ends[cycle - 1] if cycle else 0.0
    # Cosine within the cycle.
    part = min((fraction - begin) / (ends[cycle] - begin), 1.0)
    low, high = options.learning_rate_end, options.learning_rate
    rate = low + (high - low) * (1 + math.cos(math.pi * part)) / 2
    return rate * min(1.0, (step + 1) / max(options.warmup, 1))


@torch.no_grad()
def clip_units(parameters: Iterator[nn.Parameter], limit: float, *, least: float = 1e-3) -> Tensor:
    """Clip each unit's gradient to `limit` times the norm of its weights, in place.

    A unit is a row of a matrix (one output of a linear layer, one learned token), or a whole
    vector.

    Args:
        parameters: with their gradients.
        limit: largest ratio of the norms; 0 for no clipping.
        least: smallest norm assumed of weights, so that weights that start at zero can grow.

    Returns:
        Norm of the whole gradient before clipping.
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


def average(averages: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """averages <- decay * averages + (1 - decay) * weights, in place."""
    weights = dict(model.named_parameters())
    update = get_ema_multi_avg_fn(decay)
    update(list(averages.values()), [weights[name] for name in averages], 0)


def _with(model: nn.Module, averages: dict[str, Tensor]) -> nn.Module:
    """A copy of the model with the averaged weights, in evaluation mode."""
    other = copy.deepcopy(model)
    _load(other, averages)
    return other.eval()


@torch.no_grad()
def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, p in model.named_parameters():
        p.copy_(weights[name])


def _finite(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """Values of the losses; raises if the one to differentiate is not finite."""
    values = {name: loss.item() for name, loss in losses.items()}
    if not math.isfinite(values["loss"]):
        raise FloatingPointError(
            f"the loss is {values['loss']} at step {step}; lower the learning rate"
        )
    return values


def _fraction(step: int, seconds: float, options: LoopOptions) -> float:
    """Fraction of the budget that is spent."""
    clock = seconds / (60 * options.minutes) if options.minutes else 0.0
    return min(1.0, max(step / options.steps, clock))


def _done(step: int, seconds: float, options: LoopOptions) -> bool:
    return _fraction(step, seconds, options) >= 1.0


def _agreed(accelerator: Accelerator, asked: bool) -> bool:
    """True if any process was asked to stop: all must leave at the same step."""
    if accelerator.num_processes == 1:
        return asked
    flag = torch.tensor(float(asked), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item())


class _Clock:
    """Training time in seconds, continued from an earlier run; one clock for all processes."""

    def __init__(self, step: int, seconds: float) -> None:
        self.seconds = seconds
        self._begin = time.monotonic() - seconds
        self._saved = self._mark_time = seconds
        self._mark_step = step

    def tick(self, accelerator: Accelerator) -> None:
        """Read the clock; with several processes, their mean."""
        seconds = time.monotonic() - self._begin
        if accelerator.num_processes > 1:
            own = torch.tensor(seconds, device=accelerator.device, dtype=torch.float32)
            seconds = accelerator.reduce(own, "mean").item()
        self.seconds = seconds

    def speed(self, step: int) -> float:
        """Steps per second since the last call."""
        speed = (step - self._mark_step) / max(self.seconds - self._mark_time, 1e-9)
        self._mark_step, self._mark_time = step, self.seconds
        return speed

    def due(self, step: int, options: LoopOptions) -> bool:
        """True if it is time for a checkpoint."""
        by_step = options.checkpoint_steps > 0 and step % options.checkpoint_steps == 0
        if by_step or self.seconds - self._saved > 60 * options.checkpoint_minutes:
            self._saved = self.seconds
            return True
        return False


class _Log:
    """Metrics as JSON lines; lines of steps that are repeated after a restart are dropped."""

    def __init__(self, folder: Path, step: int, write: bool) -> None:
        self._path, self._curves, self._writes = folder / METRICS, folder / CURVES, write
        self._held = contextlib.ExitStack()
        if write:
            self._held.enter_context(locked(folder))
            lines = read_metrics(folder) if step else []
            text = "".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step)
            with atomic_write(self._path) as file:
                file.write(text.encode())

    def __enter__(self) -> _Log:
        self._file = open(self._path, "a") if self._writes else None
        return self

    def __exit__(self, *error: object) -> None:
        with self._held:
            if self._file:
                self._file.close()
                self.draw()

    def write(self, **values: float) -> None:
        if self._file:
            line = json.dumps({k: float(f"{v:.6g}") for k, v in values.items()}) + "\n"
            with naming(self._path):
                self._file.write(line)
                self._file.flush()

    def draw(self) -> None:
        if self._writes:
            draw_curves(self._curves, read_metrics(self._curves.parent))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Metrics of a run, one dictionary per line; a line cut short by a kill is left out."""
    path, out = folder / METRICS, []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int | float):
            out.append(values)
    return out


def _save(
    path: Path,
    model: nn.Module,
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    seconds: float,
) -> None:
    """Write a checkpoint."""
    tensors = {f"model/{k}": p.detach() for k, p in model.named_parameters()}
    tensors |= {f"average/{k}": v for k, v in averages.items()}
    tensors |= checkpoint_tensors.moments(optimizer, "optimizer/")
    contiguous = {k: v.contiguous() for k, v in tensors.items()}
    with atomic_write(path) as file:
        file.write(save(contiguous, {"step": str(step), "seconds": repr(seconds)}))


def _resume(
    path: Path,
    resume: bool,
    model: nn.Module,
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, float]:
    """Load a checkpoint in place: steps taken and seconds spent, or (0, 0) if there is none."""
    if not path.exists():
        return 0, 0.0
    if not resume:
        raise ValueError(f"{path} exists: resume that run, or give another folder")
    tensors, header = checkpoint_tensors.read(path)
    # Everything is checked before anything is changed.
    shapes = {k: p.shape for k, p in model.named_parameters()}
    weights, averaged = (checkpoint_tensors.part(tensors, f"{k}/") for k in ("model", "average"))
    checkpoint_tensors.require(path, weights, shapes)
    checkpoint_tensors.require(path, averaged, {k: v.shape for k, v in averages.items()})
    try:
        step, seconds = int(header["step"]), float(header["seconds"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint ({error}); delete it to begin again") from None
    if not (step >= 0 and 0 <= seconds < math.inf):
        raise ValueError(
            f"{path}: not a checkpoint (step {step} after {seconds} s); delete it to begin again"
        )
    checkpoint_tensors.restore_moments(
        path, optimizer, checkpoint_tensors.part(tensors, "optimizer/")
    )
    _load(model, weights)
    for name, value in averaged.items():
        averages[name].copy_(value)
    return step, seconds
