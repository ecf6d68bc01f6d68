"""How much of what a sentence asks for a motion brings about, over many scenes.

A scene states what must come about (`PromptedScene.asks`) and holds the motion itself. A method sees the scene and the
sentence. Measured of its last frame, against the scene's:

- epe_ratio: end-point error of the part that is asked to move, over how far it should go; 1 for standing still;
- right_direction: does the right part go the right way? At least a tenth of what was asked, and farther than the rest;
- within_30: does it also end within 30 % of the asked angle or travel?

A static answer scores well with judges of plausibility (CHORD, 4.1): it stands in every table here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments.comparison import Measure, compare, differences, mean_records, mean_table
from flowplan.motion import Progress, SceneMotion, silent
from generators.chord.priors.choreographer.scenes.prompted import PromptedScene, achieved
from generators.chord.priors.choreographer.scenes.scenes import KINDS, draw

MEASURES = {
    "epe_ratio": Measure("end-point error", "of the asked motion", "down"),
    "pose_error": Measure("pose error", "of the asked motion", "down"),
    "right_direction": Measure("right direction", "share", "up"),
    "within_30": Measure("within 30 %", "share", "up"),
}
"""What is measured, and which way is better."""
LEAST_SHARE = 0.1
"""Of the asked motion: less is standing still."""
TOLERANCE = 0.3
"""Of the asked motion, that it may end off by."""


class Method(Protocol):
    """Moves a scene as its sentence says."""

    def __call__(self, prompted: PromptedScene, *, seed: int) -> SceneMotion:
        """The motion of the scene's objects; of what `prompted` holds only the scene and a sentence may be read."""


@dataclass(frozen=True, eq=False)
class Case:
    """A scene to be evaluated on.

    Attributes:
        split: what it is an example of.
        name: unique within the split.
        build: makes it.
        seed: of the method.
    """

    split: str
    name: str
    build: Callable[[], PromptedScene]
    seed: int


@dataclass(frozen=True)
class Result:
    """How well a method did in one case; see the module. `share` is what was achieved of the asked amount, `rest_ratio`
    how far the rest of the objects went at the mean, over how far the asked part should; `seconds` the method's time."""

    split: str
    name: str
    method: str
    epe_ratio: float
    pose_error: float
    right_direction: bool
    within_30: bool
    share: float
    rest_ratio: float
    seconds: float


def held_out_cases(count: int, kinds: Sequence[str] = ()) -> list[Case]:
    """`count` scenes of objects that were never trained on, spoken of in sentences that never were, kinds in turn."""
    names = list(kinds) or list(KINDS)
    cases = []
    for i in range(count):
        kind, seed = names[i % len(names)], i // len(names)
        build = partial(draw, kind, seed, split="held_out", paraphrased=True)
        cases.append(Case("held_out", f"{kind}/{seed}", build, seed))
    return cases


def measure(prompted: PromptedScene, motion: SceneMotion) -> dict[str, float | bool]:
    """All measures of a motion, by the names of `Result`."""
    errors, goals, ways, rests = [], [], [], []
    for moves, found, true in zip(
        prompted.moving, motion.vertices, prompted.motion.vertices, strict=True
    ):
        way = np.linalg.norm(found[-1] - found[0], axis=1)
        errors.append(np.linalg.norm(found[-1] - true[-1], axis=1)[moves])
        goals.append(np.linalg.norm(true[-1] - true[0], axis=1)[moves])
        ways.append(way[moves])
        rests.append(way[~moves])
    goal, way = (float(np.concatenate(x).mean()) for x in (goals, ways))
    rest = np.concatenate(rests)
    still = float(rest.mean()) if len(rest) else 0.0
    share = achieved(prompted, motion)
    right = share > LEAST_SHARE and way > still
    off = _pose_error(prompted, motion, share)
    return {
        "epe_ratio": float(np.concatenate(errors).mean()) / goal,
        "pose_error": off,
        "right_direction": bool(right),
        "within_30": bool(right and off <= TOLERANCE),
        "share": share,
        "rest_ratio": still / goal,
    }


def _pose_error(prompted: PromptedScene, motion: SceneMotion, share: float) -> float:
    """How far the asked part ends from where it should, over the asked amount: an angle's error, or a place's."""
    ask = prompted.ask
    if ask.manner != "carry":
        return abs(share - 1)
    moved = motion.vertices[prompted.scene.index(ask.object)][:, ask.vertices].mean(1)
    return float(np.linalg.norm(moved[-1] - moved[0] - ask.amount * ask.axis) / ask.amount)


def evaluate(
    cases: Sequence[Case],
    methods: Mapping[str, Method],
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Run every method in every case, or what of it the log does not hold yet.

    Args:
        cases: from `held_out_cases`.
        methods: by the name that they have in the log and the records.
        log: JSON-lines file of results, read first and appended to.
        progress: called after each result with an estimate of the time left.
    """

    def run(case: Case, name: str) -> Result:
        prompted = case.build()
        start = time.monotonic()
        motion = methods[name](prompted, seed=case.seed)
        seconds = time.monotonic() - start
        return Result(case.split, case.name, name, **measure(prompted, motion), seconds=seconds)  # type: ignore[arg-type]

    def word(result: Result) -> str:
        return f"{result.share:.0%} of it"

    return compare(cases, methods, run, Result, log=log, word=word, progress=progress)


def beside(results: Sequence[Result], methods: Sequence[str], to: str = "chord") -> list[Result]:
    """The results, and how much more or less each of `methods` has than the method `to`, case by case."""
    return [*results, *differences(results, methods, to, MEASURES)]


def records(results: Iterable[Result]) -> list[dict[str, Any]]:
    """JSON records: per split and method the mean of each measure, and its 95 % interval over scenes."""
    return mean_records(results, "chord", MEASURES)


def table(results: Iterable[Result]) -> str:
    """The same as a Markdown table, one row per split and method."""
    return mean_table(results, MEASURES, digits=2)
