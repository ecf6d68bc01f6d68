"""Evaluation of prompted motions over many scenes with known answers.

A scene states the required motion (`PromptedScene.asks`) and contains its animation. A method sees
the scene and the sentence. Measures of its last frame, against the scene's:

- epe_ratio: end-point error of the part that is asked to move, over its required displacement; 1
  for standing still;
- right_direction: the right part moves the right way, by at least a tenth of the required amount,
  and farther than the rest;
- within_30: it also ends within 30 % of the required angle or travel.

A static answer scores well with judges of plausibility (CHORD, 4.1), so it is part of every table.
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
"""Measures, with unit and direction."""
MIN_SHARE = 0.1
"""Share of the required motion below which an object counts as standing still."""
TOLERANCE = 0.3
"""Allowed error at the end, as a share of the required motion."""


class Method(Protocol):
    """A method that moves a scene according to its sentence."""

    def __call__(self, prompted: PromptedScene, *, seed: int) -> SceneMotion:
        """The motion of the scene's objects. Only scene and sentence of `prompted` may be used."""
        ...


@dataclass(frozen=True, eq=False)
class Case:
    """A scene of the evaluation.

    Attributes:
        split: group of scenes that it belongs to.
        name: unique within the split.
        build: function that makes it.
        seed: Random seed of the method.
    """

    split: str
    name: str
    build: Callable[[], PromptedScene]
    seed: int


@dataclass(frozen=True)
class Result:
    """Measures of a method in one case; see the module.

    Attributes:
        split, name: of the case.
        method: name of the method.
        epe_ratio, pose_error, right_direction, within_30: see the module.
        share: achieved share of the required amount.
        rest_ratio: mean displacement of everything else, over that of the required motion.
        seconds: the method's time.
    """

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
    """`count` scenes with objects and sentences that were never trained on, kinds in turn."""
    names = list(kinds) or list(KINDS)
    cases = []
    for i in range(count):
        # A new seed once all kinds have had their turn.
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
        # Displacements and end-point errors of the vertices.
        way = np.linalg.norm(found[-1] - found[0], axis=1)
        errors.append(np.linalg.norm(found[-1] - true[-1], axis=1)[moves])
        goals.append(np.linalg.norm(true[-1] - true[0], axis=1)[moves])
        ways.append(way[moves])
        rests.append(way[~moves])
    # Means over the vertices that are asked to move, and over all others.
    goal, way = (float(np.concatenate(x).mean()) for x in (goals, ways))
    rest = np.concatenate(rests)
    still = float(rest.mean()) if len(rest) else 0.0
    # The right way, by enough, and farther than the rest.
    share = achieved(prompted, motion)
    right = share > MIN_SHARE and way > still
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
    """Error of the final angle or position of the asked part, over the required amount."""
    ask = prompted.ask
    if ask.manner != "carry":
        return abs(share - 1)
    # A carried part has a direction as well as an amount.
    moved = motion.vertices[prompted.scene.index(ask.object)][:, ask.vertices].mean(1)  # (T, 3)
    return float(np.linalg.norm(moved[-1] - moved[0] - ask.amount * ask.axis) / ask.amount)


def evaluate(
    cases: Sequence[Case],
    methods: Mapping[str, Method],
    *,
    log: Path | None = None,
    progress: Progress = silent,
) -> list[Result]:
    """Run every method in every case, except those already in the log.

    Args:
        cases: from `held_out_cases`.
        methods: by their names in the log and the records.
        log: JSON-lines file of results, read first and appended to.
        progress: called after each result with an estimate of the time left.
    """

    def run(case: Case, name: str) -> Result:
        prompted = case.build()
        start = time.monotonic()
        motion = methods[name](prompted, seed=case.seed)
        seconds = time.monotonic() - start
        measures: dict[str, Any] = measure(prompted, motion)
        return Result(case.split, case.name, name, **measures, seconds=seconds)

    def word(result: Result) -> str:
        return f"{result.share:.0%} achieved"

    return compare(cases, methods, run, Result, log=log, word=word, progress=progress)


def beside(results: Sequence[Result], methods: Sequence[str], to: str = "chord") -> list[Result]:
    """The results, followed by differences of `methods` from the method `to`, case by case."""
    return [*results, *differences(results, methods, to, MEASURES)]


def records(results: Iterable[Result]) -> list[dict[str, Any]]:
    """JSON records: for each split and method the mean of each measure, with its 95 % interval."""
    return mean_records(results, "chord", MEASURES)


def table(results: Iterable[Result]) -> str:
    """The same as a Markdown table, with one row for each split and method."""
    return mean_table(results, MEASURES, digits=2)
