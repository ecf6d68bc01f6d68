"""`flowplan train neurok | choreographer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from flowplan.cli import console
from flowplan.cli.parser import Options


@dataclass(frozen=True)
class Neurok:
    """Train NeuROK's network on procedural objects.

    An interruption leaves a checkpoint and the weights so far.
    """

    options: Annotated[Any, Options("generators.neurok.train_options:TrainOptions")] = None

    def run(self) -> int:
        from generators.neurok.train import train

        with console.progress("training neurok") as tell:
            path = train(self.options, tell)
        console.say(f"wrote {path}")
        return 0


@dataclass(frozen=True)
class Choreographer:
    """Train CHORD's small video model on procedural scenes.

    An interruption leaves a checkpoint and the weights so far.
    """

    options: Annotated[
        Any, Options("generators.chord.priors.choreographer.train_options:TrainOptions")
    ] = None

    def run(self) -> int:
        from generators.chord.priors.choreographer.train import train

        with console.progress("training choreographer") as tell:
            path = train(self.options, tell)
        console.say(f"wrote {path}")
        return 0
