"""All kinds of prompted scenes by name, their frequency in training, and the function that draws
them.

A scene is a function of its kind, its split and its seed. Held-out scenes have objects that are
never trained on, and optionally sentences that never are either.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from flowplan.utils import checks
from generators.chord.priors.choreographer.scenes import cloth_scenes
from generators.chord.priors.choreographer.scenes.articulated_kinds import ARTICULATED
from generators.chord.priors.choreographer.scenes.articulated_scenes import articulated_scene
from generators.chord.priors.choreographer.scenes.cloth_scenes import cloth_scene
from generators.chord.priors.choreographer.scenes.prompted import (
    DURATION,
    FRAMES,
    Ask,
    Body,
    PointScene,
    PromptedScene,
    achieved,
    sampled,
)
from generators.chord.priors.choreographer.scenes.sentences import Phrase, say
from generators.chord.priors.choreographer.scenes.table_scenes import TABLE, table_scene
from generators.data.objects.families import HELD_OUT

__all__ = [
    "DURATION",
    "FRAMES",
    "KINDS",
    "NEVER_TRAINED",
    "Ask",
    "Body",
    "PointScene",
    "PromptedScene",
    "Split",
    "achieved",
    "draw",
    "sampled",
    "wrong_text",
]

Split = Literal["train", "held_out"]

_OFTEN = {"laptop": 3.0, "hinged_box": 2.0, "drawer_cabinet": 2.0, "desk_lamp": 3.0, "faucet": 1.5}
_OFTEN |= {"put": 6.0, "push": 2.0, "stack": 2.0, "fold_cloth": 2.5}
NEVER_TRAINED = tuple(name for name, kind in ARTICULATED.items() if kind.family in HELD_OUT)
"""Kinds of families that are never trained on; they exist in the held-out split only."""
KINDS: Mapping[str, float] = {
    name: _OFTEN.get(name, 1.0)
    for name in (*ARTICULATED, *TABLE, "fold_cloth")
    if name not in NEVER_TRAINED
}
"""Relative frequency of each kind in training: higher for fine parts and varied shapes."""


def draw(
    kind: str, seed: int, *, split: Split = "train", paraphrased: bool = False
) -> PromptedScene:
    """Scene number `seed` of a kind, the same on every machine.

    Args:
        kind: one of KINDS, or with the split "held_out" one of NEVER_TRAINED.
        seed: number of the scene.
        split: "train" or "held_out" objects.
        paraphrased: use a sentence that is never trained on, for the same scene.

    Raises:
        ValueError: for an unknown kind, or one that is not in this split.
    """
    checks.choice("split", split, ("train", "held_out"))
    # Families that are never trained on exist in the held-out split alone.
    held_out = split == "held_out"
    checks.choice(
        f"kind of the split {split!r}", kind, (*KINDS, *(NEVER_TRAINED if held_out else ()))
    )
    # Objects and words have generators of their own, so a paraphrase shows the same scene.
    key = (zlib.crc32(kind.encode()), int(held_out), seed)
    rng, words = np.random.default_rng(key), np.random.default_rng((*key, 1))
    if kind in ARTICULATED:
        return articulated_scene(
            kind, ARTICULATED[kind], rng, words, held_out=held_out, paraphrased=paraphrased
        )
    if kind in TABLE:
        return table_scene(kind, TABLE[kind], rng, words, paraphrased=paraphrased)
    return cloth_scene(kind, rng, words, paraphrased=paraphrased)


def wrong_text(prompted: PromptedScene, seed: int) -> str:
    """A trained sentence for another motion, of the same things half of the time."""
    # Another motion of the same things, or else one of another kind of scene.
    rng = np.random.default_rng((zlib.crc32(prompted.text.encode()), seed))
    if rng.random() < 0.5:
        return prompted.others[int(rng.integers(len(prompted.others)))]
    # Kinds that share no verb with this one.
    said = {phrase.verb for phrase in _phrases(prompted.kind)}
    elsewhere = [kind for kind in KINDS if not said & {phrase.verb for phrase in _phrases(kind)}]
    phrases = _phrases(elsewhere[int(rng.integers(len(elsewhere)))])
    return say(phrases[int(rng.integers(len(phrases)))], rng)


@lru_cache(maxsize=64)
def _phrases(kind: str) -> tuple[Phrase, ...]:
    """All phrases of a kind."""
    if kind in ARTICULATED:
        return ARTICULATED[kind].phrases()
    if kind in TABLE:
        return tuple(phrase for errand in TABLE[kind] for phrase in errand.phrases())
    return cloth_scenes.PHRASES
