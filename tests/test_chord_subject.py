"""Sentences about things that are not there are refused before anything is computed; all others are
not."""

from types import SimpleNamespace
from typing import Any

import pytest

from generators.chord.distill.subject import require_subjects
from generators.chord.priors.choreographer.scenes import scenes


def _scene(*objects: str, obstacles: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(
        objects=tuple(SimpleNamespace(name=n) for n in objects),
        obstacles=tuple(SimpleNamespace(name=n) for n in obstacles),
    )


@pytest.mark.parametrize(
    ("scene", "text", "missing"),
    [
        (_scene("laptop"), "fold the towel", "towel"),
        (_scene("desk_lamp"), "Close the laptop.", "laptop"),
        (_scene("mug"), "put the mug on the plate", "plate"),
        (_scene("laptop"), "open the top drawer", "top drawer"),
        (_scene("mug", "plate"), "open the washing machine's door", "washing machine"),
    ],
)
def test_a_thing_that_is_not_there_is_refused_by_its_name(
    scene: Any, text: str, missing: str
) -> None:
    with pytest.raises(
        ValueError, match=f"speaks of a {missing}, and the scene has {scene.objects[0].name}"
    ):
        require_subjects(scene, text)


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (_scene("laptop"), "close the notebook"),
        (_scene("laptop_0"), "shut the lid"),
        (_scene("mug", obstacles=("plate",)), "put the cup on the plate"),
        (_scene("door_cabinet"), "open the glass door of the cabinet"),
        (_scene("mug"), "lift the mug by the handle"),
        (_scene("object_0"), "open the oven"),
        (_scene("laptop"), "do what you like"),
    ],
)
def test_what_may_be_there_is_not_refused(scene: Any, text: str) -> None:
    require_subjects(scene, text)


def test_no_sentence_of_the_choreographers_scenes_is_refused() -> None:
    for kind in scenes.KINDS:
        for paraphrased in (False, True):
            prompted = scenes.draw(kind, 0, split="held_out", paraphrased=paraphrased)
            require_subjects(prompted.scene, prompted.text)


def test_no_prompt_of_the_tasks_is_refused() -> None:
    names = {
        "pick_place": ("ramekin", "plate"),
        "close_laptop": ("laptop",),
        "lower_lamp": ("desk_lamp",),
    }
    names |= {"fold_cloth": ("cloth",), "open_drawer": ("drawer",), "turn_faucet": ("faucet",)}
    tasks = pytest.importorskip("sim_envs.tasks").TASKS
    assert set(names) == set(tasks)
    for name, task in tasks.items():
        require_subjects(_scene(*names[name]), task.prompt.text)
