"""Sentences that ask for a motion, imperative and descriptive.

A phrase is a meaning; its sentences are all the ways to express it, from the templates of
`sentence_templates`. Many more trained templates come from the phrasings in `phrasings.json`: an
action in the imperative ("flip open the {thing}") inside of a frame ("a person is {doing}").
Without them a model learns to recognize sentences instead of their meaning.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from flowplan.utils import checks
from generators.chord.priors.choreographer.scenes.sentence_templates import (
    AMOUNTS,
    OF_PART,
    PART,
    POOLS,
    UNNAMED,
    WHOLE,
    Names,
    Pool,
)

PHRASINGS = Path(__file__).with_name("phrasings.json")
"""Phrasings for training, in the imperative by verb, and the frames they are put in."""


@dataclass(frozen=True)
class Phrase:
    """A meaning, before it is put into words.

    Attributes:
        verb: a key of POOLS.
        thing: names of the object.
        part: the part that moves, such as "top drawer"; "" if the object moves as a whole.
        whole: true if the object's name alone can mean the part.
        other: names of where the object goes; none for most verbs.
        amount: a key of AMOUNTS.
    """

    verb: str
    thing: Names
    part: str = ""
    whole: bool = True
    other: Names = UNNAMED
    amount: str = ""

    def __post_init__(self) -> None:
        checks.choice("Phrase.verb", self.verb, tuple(POOLS))
        checks.choice("Phrase.amount", self.amount, tuple(AMOUNTS))


def pool(phrase: Phrase) -> Pool:
    """The templates that can express this phrase."""
    if phrase.verb not in PART:
        return POOLS[phrase.verb]
    fitting = [PART[phrase.verb]]
    if phrase.whole:
        fitting.append(WHOLE[phrase.verb])
    of_part = OF_PART.get((phrase.verb, phrase.part.split()[-1]))
    if of_part:
        fitting.append(of_part)
    return Pool(
        tuple(t for p in fitting for t in p.trained), tuple(t for p in fitting for t in p.held_out)
    )


@lru_cache(maxsize=4096)
def paraphrases(phrase: Phrase) -> tuple[str, ...]:
    """Every sentence for this phrase that is never trained on, with known and unknown names."""
    thing, other = (n.trained + n.held_out for n in (phrase.thing, phrase.other))
    choices = product(pool(phrase).held_out, thing, other, AMOUNTS[phrase.amount].held_out)
    return tuple(
        dict.fromkeys(
            _filled(t, thing, phrase.part, other, far) for t, thing, other, far in choices
        )
    )


def say(phrase: Phrase, rng: np.random.Generator, *, trained: bool = True) -> str:
    """A random sentence for the phrase."""
    if not trained:
        return _one_of(paraphrases(phrase), rng)
    plain, framed = templates(phrase)
    template = _one_of(plain if rng.random() < 0.5 else framed, rng)
    thing, other, amount = (
        _one_of(names.trained + names.more, rng)
        for names in (phrase.thing, phrase.other, AMOUNTS[phrase.amount])
    )
    return _filled(template, thing, phrase.part, other, amount)


@lru_cache(maxsize=4096)
def ways(phrase: Phrase, count: int) -> tuple[str, ...]:
    """At most `count` different trained sentences for this phrase, always the same."""
    rng = np.random.default_rng(zlib.crc32(repr(phrase).encode()))
    return tuple(dict.fromkeys(say(phrase, rng) for _ in range(2 * count)))[:count]


@lru_cache(maxsize=4096)
def templates(phrase: Phrase) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The trained templates of this phrase: plain ones, and those made by frames."""
    keys = [phrase.verb]
    if phrase.verb in PART:
        last = phrase.part.split()[-1].removesuffix("s")
        keys = [f"{phrase.verb}_{about}" for about in ("part", *(["whole"] * phrase.whole), last)]
    keys = [key for key in keys if key in _phrasings()]
    # Templates of what happens are in the singular.
    told = ("two",) if phrase.verb in PART and _plural(phrase.part) else ("happens", "two")
    as_they_are = (
        t + "{amount}" for about in told for key in keys for t in _phrasings()[key][about]
    )
    return (*pool(phrase).trained, *as_they_are), tuple(
        t + "{amount}" for key in keys for t in _framed(key)
    )


def _one_of(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


@cache
def _framed(key: str) -> tuple[str, ...]:
    """Every action of this key, in every frame."""
    frames = _phrasings()["frames"]
    forms: dict[str, Callable[[str], str]] = {"do": str, "doing": gerund, "does": third_person}
    return tuple(
        frame.replace(f"{{{form}}}", inflect(what))
        for form, inflect in forms.items()
        for frame in frames[form]
        for what in _phrasings()[key]["do"]
    )


@cache
def _phrasings() -> dict[str, Any]:
    return json.loads(PHRASINGS.read_text())


def third_person(phrase: str) -> str:
    """A phrase in the third person: "pushes it" for "push it"."""
    verb, space, rest = phrase.partition(" ")
    if verb == "have":
        verb = "has"
    elif re.search(r"([sxz]|[cs]h|[^aeiou]o)$", verb):
        verb += "es"
    elif re.search(r"[^aeiou]y$", verb):
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return verb + space + rest


def gerund(phrase: str) -> str:
    """A phrase as a gerund: "shutting it" for "shut it"."""
    verb, space, rest = phrase.partition(" ")
    if re.search(r"[^eoy]e$", verb):
        verb = verb[:-1]
    elif re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):  # one short syllable: "put", "flip"
        verb += verb[-1]
    return f"{verb}ing{space}{rest}"


def _filled(template: str, thing: str, part: str, other: str, amount: str) -> str:
    many, many_parts = _plural(thing), _plural(part)
    text = template.format(
        thing=thing,
        part=part,
        other=other,
        amount=amount,
        s="" if many else "s",
        part_swings="swing" if many_parts else "swings",
        **{"is": "are" if many else "is"},
    )
    if many_parts:  # "the doors of the cabinet opens" and its like
        for one, several in _AGREE:
            text = text.replace(f"{part} of the {thing} {one}", f"{part} of the {thing} {several}")
            text = text.replace(f"{part} {one}", f"{part} {several}")
    return text


_AGREE = (
    ("is ", "are "),
    ("opens", "open"),
    ("closes", "close"),
    ("swings ", "swing "),
    ("slides ", "slide "),
    ("comes ", "come "),
    ("goes ", "go "),
    ("turns ", "turn "),
    ("sinks ", "sink "),
    ("rises ", "rise "),
)


def _plural(noun: str) -> bool:
    return noun.endswith("s") and not noun.endswith("ss")
