"""Options of training, apart from the code so that reading them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class LoopOptions:
    """Options of the training loop, whatever is trained."""

    steps: Annotated[int, Interval(1, 10**9)] = 100_000
    """Largest number of steps; with `minutes`, whichever ends first."""
    minutes: Annotated[float, Interval(1e-6, 10**6)] | None = None
    """Wall-clock budget, summed over resumed runs; the schedule then ends with the budget."""
    learning_rate: Annotated[float, Interval(1e-15, 1)] = 5e-4
    """Learning rate at the top of each cosine."""
    learning_rate_end: Annotated[float, Interval(0, 1)] = 5e-6
    """Learning rate at the bottom."""
    warmup: Annotated[int, Interval(0, 10**9)] = 200
    """Steps of linear warm-up."""
    cycles: Annotated[int, Interval(1, 1000)] = 1
    """Number of cosines in the budget (warm restarts)."""
    cycle_growth: Annotated[float, Interval(1e-3, 1000)] = 2.0
    """Length of each cosine over that of the one before it."""
    weight_decay: Annotated[float, Interval(0, 1)] = 8e-6
    """AdamW's weight decay, on all weights (Table 6)."""
    clip: Annotated[float, Interval(0, 10**6)] = 0.05
    """Largest gradient norm of a unit relative to its weights' norm; 0 for no clipping."""
    average: Annotated[float, Interval(0, 1)] = 0.999
    """Decay of the averaged weights; it rises to this over the first steps."""
    log_every: Annotated[int, Interval(1, 10**9)] = 20
    """Steps between lines of the metrics."""
    evaluate_every: Annotated[int, Interval(1, 10**9)] = 500
    """Steps between evaluations."""
    checkpoint_steps: Annotated[int, Interval(0, 10**9)] = 0
    """Steps between checkpoints; 0 for `checkpoint_minutes` alone."""
    checkpoint_minutes: Annotated[float, Interval(0, 10**6)] = 5.0
    """Minutes between checkpoints."""
    seed: int = 0
    """Random seed."""
    device: str = "auto"
    """Device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class TrainOptions:
    """Options that the training of every network shares; a network's own options extend it."""

    out: Path = Path("runs/train")
    """Folder of the checkpoint, metrics, curves, training data and final weights."""
    steps: Annotated[int, Interval(1, 10**9)] = 100_000
    """Largest number of steps."""
    minutes: Annotated[float, Interval(1e-6, 10**6)] | None = None
    """Wall-clock budget; the learning rate falls to its end over it. None for no limit."""
    batch: Annotated[int, Interval(1, 10**6)] = 32
    """Samples per step and process."""
    learning_rate: Annotated[float, Interval(1e-15, 1)] = 2e-4
    """Highest learning rate."""
    seed: int = 0
    """Random seed."""
    threads: Annotated[int, Interval(0, 4096)] = 0
    """CPU threads; 0 for torch's default."""
    start: str | None = None
    """Weights to start from, of the same sizes: a name among those that ship, or a file. Defaults
    to random initialization."""
    resume: bool = False
    """Continue from the folder's checkpoint."""
    compile: bool = False
    """Compile the loss first: takes minutes, then steps take about two thirds of the time (needs a
    C++ compiler)."""
    device: str = "auto"
    """Device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"."""

    def __post_init__(self) -> None:
        bounds.check(self)
