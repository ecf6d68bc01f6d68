"""Episodes are told apart by all that determines them, and counted without mixing optimizers."""

import json

import pytest

from experiments.tasks.episode import METHODS, Episode, EpisodeSpec
from experiments.tasks.evaluate import EvaluationOptions, evaluate, success_records, success_table


def episode(outcome="success", method="planner", seed=0, **more):
    spec = EpisodeSpec("pick_place", "panda", "kinematic", method, seed, **more)
    return Episode(spec, outcome, "", {}, {})


def test_the_method_is_part_of_the_key_and_the_optimizer_a_field():
    episodes = [episode(), episode("collision", seed=1), episode(method="kabsch_ik")]
    records = {r["key"]: r for r in success_records(episodes)}
    planner = records["eval/pick_place/kinematic/panda/planner/success"]
    assert (planner["value"], planner["n"], planner["optimizer"]) == (0.5, 2, "lm")
    assert records["eval/pick_place/kinematic/panda/planner/collision"]["value"] == 0.5
    assert "optimizer" not in records["eval/pick_place/kinematic/panda/kabsch_ik/success"]
    assert "| pick_place | panda | 1/2 " in success_table(episodes)


def test_leaks_and_overshoots_are_recorded():
    spec = EpisodeSpec("turn_faucet", "panda", "kinematic", "planner", 0)
    episodes = [
        Episode(spec, outcome, "", {"share": 1.0, "leak": leak}, {})
        for outcome, leak in (("success", 0.0), ("leak", 0.07), ("overshoot", 0.01))
    ]
    episodes.append(Episode(spec, "no_plan", "out of reach", {}, {}))
    records = {r["key"]: r for r in success_records(episodes)}
    key = "eval/turn_faucet/kinematic/panda/planner"
    for name, value, n in (
        ("leak", 0.25, 4),
        ("overshoot", 0.25, 4),
        ("leak_median", 0.01, 3),
        ("leak_largest", 0.07, 3),
    ):
        assert (records[f"{key}/{name}"]["value"], records[f"{key}/{name}"]["n"]) == (value, n)
    assert records[f"{key}/leak_largest"]["unit"] == "m"
    assert "1 overshoot, 1 leak" in success_table(episodes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "lm"}, "method: got 'lm', expected one of planner, random_grasp, kabsch_ik"),
        ({"optimizer": "adam"}, "optimizer: got 'adam', expected one of lm"),
        ({"instruction": "song"}, "instruction: got 'song'"),
        ({"release": "later"}, "release: got 'later'"),
    ],
)
def test_a_specification_names_what_is_wrong(changed, message):
    with pytest.raises(ValueError, match=message):
        episode(**changed)


def test_options_refuse_what_no_evaluation_can_run():
    assert EvaluationOptions().methods == METHODS
    for bad in ({"seeds": 0}, {"workers": 0}, {"methods": ("lm",)}, {"optimizer": "adam"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            EvaluationOptions(**bad)


def test_finished_episodes_come_from_the_log(tmp_path):
    log = tmp_path / "episodes.jsonl"
    options = EvaluationOptions(("pick_place",), ("panda",), ("planner",), 1)
    line = {
        "spec": {
            "task": "pick_place",
            "robot": "panda",
            "generator": "kinematic",
            "method": "planner",
            "seed": 0,
            "instruction": "action",
            "optimizer": "lm",
        },
        "outcome": "dropped",
        "reason": "slipped",
        "measures": {"x": 1.0},
        "seconds": {},
    }
    log.write_text(json.dumps(line) + "\n")
    (found,) = evaluate(None, "kinematic", options, log=log)
    assert (found.outcome, found.spec.optimizer) == ("dropped", "lm")
    # Written before the release was part of a specification: the task's.
    assert found.spec.release == "task"
    log.write_text("not json\n")
    with pytest.raises(ValueError, match="line 1 is not an episode"):
        evaluate(None, "kinematic", options, log=log)
