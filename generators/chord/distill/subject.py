"""A check that a sentence mentions something that is in the scene.

A video model shows whatever it is asked for: told to open a drawer in a scene with a lamp, it bends
the lamp. So the things that a sentence mentions are compared with the names of the scene's objects,
using the vocabulary of the choreographer's sentences. If a scene contains a name outside of this
vocabulary, any sentence is accepted, because it may refer to that object.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache

from flowplan.scene import Scene
from generators.chord.priors.choreographer.scenes.articulated_kinds import ARTICULATED
from generators.chord.priors.choreographer.scenes.cloth_scenes import CLOTH
from generators.chord.priors.choreographer.scenes.table_things import THINGS

_ARTICLES = frozenset({"the", "a", "an", "this", "that", "these", "those", "its", "my", "our"})


def require_subjects(scene: Scene, text: str) -> None:
    """Refuse a sentence about things that the scene does not contain.

    Raises:
        ValueError: if a mentioned thing is missing, or only parts of missing things are mentioned.
    """
    names = [o.name for o in scene.objects + scene.obstacles]

    # Kinds of things in the scene; an unknown name may be anything.
    present: set[str] = set()
    for name in names:
        kinds = set().union(*(_things()[noun] for noun in _nouns(_words(name), _things())))
        if not kinds:
            return
        present |= kinds

    # Things count before parts: "the glass of the cabinet" is about a cabinet.
    mentioned = _mentioned(text)
    things = [noun for noun in mentioned if noun in _things() and noun not in _parts()]
    vocabulary = _things() if things else _parts()
    for noun in things or mentioned:
        if not vocabulary[noun] & present:
            raise ValueError(
                f"prompt: {text!r} speaks of a {noun}, and the scene has {', '.join(names)}; "
                "say what one of these should do, or name the scene's objects after what they are"
            )


def _mentioned(text: str) -> list[str]:
    """Things and parts mentioned after an article; "the glass door" is a door and not a glass."""
    words = _words(text)
    known = {*_things(), *_parts()}
    found = []
    for at in (i + 1 for i, word in enumerate(words) if word in _ARTICLES):
        noun = _noun(words[at:], known)
        while noun is not None:
            at += len(noun.split())
            last, noun = noun, _noun(words[at:], known)
            if noun is None:
                found.append(last)
    return found


def _nouns(words: list[str], known: Collection[str]) -> list[str]:
    """Nouns among the words, the longest at every position."""
    found = (_noun(words[at:], known) for at in range(len(words)))
    return [noun for noun in found if noun is not None]


def _noun(words: list[str], known: Collection[str]) -> str | None:
    """The longest noun at the beginning of the words."""
    return next((n for n in (" ".join(words[:length]) for length in (3, 2, 1)) if n in known), None)


def _words(text: str) -> list[str]:
    # A possessive such as "the oven's door" becomes "the oven s door".
    return re.findall(r"[a-z]+", text.lower())


@cache
def _things() -> dict[str, frozenset[str]]:
    """For each noun, the kinds of things that it may mean."""
    named = [(f"{name} alone", names) for name, (_, names) in THINGS.items()]
    named += [(name, kind.names) for name, kind in ARTICULATED.items()] + [("cloth", CLOTH)]
    return _index(
        (
            kind,
            [
                *names.trained,
                *names.held_out,
                *names.more,
                kind.removesuffix(" alone").replace("_", " "),
            ],
        )
        for kind, names in named
    )


@cache
def _parts() -> dict[str, frozenset[str]]:
    """For each name of a part, the kinds of things that have one."""
    return _index((name, [part for part, _ in kind.parts]) for name, kind in ARTICULATED.items())


def _index(entries: Iterable[tuple[str, Iterable[str]]]) -> dict[str, frozenset[str]]:
    out: dict[str, frozenset[str]] = {}
    for kind, nouns in entries:
        for noun in nouns:
            key = " ".join(_words(noun))
            out[key] = out.get(key, frozenset()) | {kind}
    return out
