"""Options of training the choreographer. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from generators.chord.priors.choreographer.config import SMALL, ChoreographerConfig
from generators.common import train_options


@dataclass(frozen=True)
class LossOptions:
    """Training loss of the network."""

    shift: Annotated[float, Interval(1e-6, 1e6)] = 80.0
    """Shift of the drawn noise levels (`generators.common.rectified_flow.shifted`). With 80, half
    of them are above 0.98, as in distillation: with less noise the motion is easy to see."""
    text_dropout: Annotated[float, Interval(0, 0.999)] = 0.1
    """Share of the videos whose sentence is ignored, for classifier-free guidance."""
    weight_max: Annotated[float, Interval(1e-6, 1e9)] = 4.0
    """Upper bound of the velocity's weight 1 / tau^2."""
    moving_weight: Annotated[float, Interval(0, 1e9)] = 1.0
    """Additional weight of pixels that move."""
    floor: Annotated[float, Interval(1e-9, 1e9)] = 0.05
    """A video's error is divided by its mean squared motion plus this, in squared units of a
    latent, so that small motions count too."""

    def __post_init__(self) -> None:
        bounds.check(self)


@dataclass(frozen=True)
class TrainOptions(train_options.TrainOptions):
    """Network, data and duration of a training run."""

    out: Path = Path("runs/choreographer")
    """Folder of the checkpoint, metrics, curves, scenes and final weights."""
    steps: Annotated[int, Interval(1, 10**9)] = 200_000
    """Largest number of steps."""
    batch: Annotated[int, Interval(1, 10**6)] = 8
    """Videos per step and process."""
    learning_rate: Annotated[float, Interval(1e-15, 1)] = 8e-4
    """Highest learning rate."""
    config: ChoreographerConfig = field(default_factory=lambda: SMALL)
    """Sizes of the network."""
    loss: LossOptions = field(default_factory=LossOptions)
    """See LossOptions."""
    kinds: tuple[str, ...] = ()
    """Kinds of scenes to train on. Defaults to all."""
    scenes: Annotated[int, Interval(1, 10**6)] = 400
    """Scenes of each kind, times the kind's frequency."""
    points: Annotated[int, Interval(1, 16_383)] = 8000
    """Surface points of a scene."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kinds:
            from generators.chord.priors.choreographer.scenes.scenes import KINDS

            for kind in self.kinds:
                checks.choice("TrainOptions.kinds", kind, tuple(KINDS))
