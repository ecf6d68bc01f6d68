"""Measures of prompted motions where the answer is known: the scene's own motion, none, half of it,
and the reverse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.chord.evaluate import (
    Result,
    beside,
    evaluate,
    held_out_cases,
    measure,
    records,
    table,
)
from flowplan.motion import SceneMotion
from generators.chord.priors.choreographer.scenes.prompted import PromptedScene
from generators.chord.priors.choreographer.scenes.scenes import draw


def _scaled(prompted: PromptedScene, frame: int) -> SceneMotion:
    """The true motion up to a frame."""
    true = prompted.motion
    return SceneMotion(true.times[: frame + 1], tuple(v[: frame + 1] for v in true.vertices))


@pytest.mark.parametrize("kind", ["laptop", "drawer_cabinet", "put", "fold_cloth"])
def test_the_true_motion_is_perfect_and_standing_still_is_worth_nothing(kind: str) -> None:
    prompted = draw(kind, 0, split="held_out", paraphrased=True)
    truth = measure(prompted, prompted.motion)
    assert truth["epe_ratio"] == pytest.approx(0.0, abs=1e-9)
    assert truth["share"] == pytest.approx(1.0, abs=0.03)
    assert truth["right_direction"] is True
    assert truth["within_30"] is True
    still = measure(
        prompted,
        SceneMotion(np.array([0.0, 1.0]), tuple(v[[0, 0]] for v in prompted.motion.vertices)),
    )
    assert still["epe_ratio"] == pytest.approx(1.0)
    assert still["share"] == pytest.approx(0.0, abs=1e-9)
    assert still["right_direction"] is False
    assert still["within_30"] is False


def test_half_the_way_is_the_right_direction_and_not_the_end() -> None:
    prompted = draw("drawer_cabinet", 1, split="held_out")
    frame = len(prompted.motion.times) // 2 - 1
    measures = measure(prompted, _scaled(prompted, frame))
    assert 0.1 < measures["share"] < 0.7
    assert measures["right_direction"] is True
    assert measures["within_30"] is False
    assert measures["epe_ratio"] == pytest.approx(1 - measures["share"], abs=0.02)


def test_a_whole_that_moves_along_is_not_the_right_part() -> None:
    prompted = draw("drawer_cabinet", 1, split="held_out")
    (index,) = (i for i, moves in enumerate(prompted.moving) if moves.any())
    true = prompted.motion.vertices[index]
    along = (true - true[:1])[:, prompted.moving[index]].mean(1)
    vertices = tuple(
        v[:1] + along[:, None] if i == index else v[:1].repeat(len(along), 0)
        for i, v in enumerate(prompted.motion.vertices)
    )
    measures = measure(prompted, SceneMotion(prompted.motion.times, vertices))
    assert measures["share"] == pytest.approx(1.0, abs=0.01)
    assert measures["right_direction"] is False
    assert measures["rest_ratio"] == pytest.approx(1.0, abs=0.05)


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    calls = []

    def truth(prompted: PromptedScene, *, seed: int) -> SceneMotion:
        calls.append(prompted.kind)
        return prompted.motion

    cases = held_out_cases(3, ["laptop", "put"])
    assert [c.name for c in cases] == ["laptop/0", "put/0", "laptop/1"]
    log = tmp_path / "log.jsonl"
    evaluate(cases[:2], {"truth": truth}, log=log)
    results = evaluate(cases, {"truth": truth}, log=log)
    assert calls == ["laptop", "put", "laptop"]
    by_key = {r["key"]: r for r in records(results)}
    assert by_key["chord/held_out/truth/within_30"]["value"] == 1.0
    assert by_key["chord/held_out/truth/within_30"]["n"] == 3
    assert by_key["chord/held_out/truth/epe_ratio"]["direction"] == "down"
    assert "| held_out | truth | 0.00 [0.00, 0.00] |" in table(results)


def test_methods_stand_beside_another_case_by_case() -> None:
    def results(method: str, errors: tuple[float, ...]) -> list[Result]:
        return [
            Result("held_out", f"laptop/{i}", method, e, e, e < 0.5, e < 0.3, 1 - e, 0.0, 10.0 + e)
            for i, e in enumerate(errors)
        ]

    whole = (
        results("chord", (0.1, 0.9, 0.4))
        + results("no_arap", (0.3, 1.1, 0.6))
        + results("static", (1.0,) * 3)
    )
    both = beside(whole, ["no_arap"])
    assert both[:9] == whole
    assert [r.name for r in both[9:]] == [f"laptop/{i}" for i in range(3)]
    assert [r.epe_ratio for r in both[9:]] == pytest.approx([0.2] * 3)
    assert [r.within_30 for r in both[9:]] == [-1, 0, 0]
    said = {r["key"]: r for r in records(both)}
    key = "chord/held_out/no_arap_minus_chord/epe_ratio"
    assert said[key]["value"] == pytest.approx(0.2)
    assert said[f"{key}_low95"]["value"] == pytest.approx(
        said[f"{key}_high95"]["value"]
    )  # alike in every case
    assert said[key]["n"] == 3
