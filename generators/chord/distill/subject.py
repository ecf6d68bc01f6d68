"""Does a sentence speak of something that is there?

A video model shows whatever it is asked for: told to open a drawer where there is a lamp, it bends the lamp. So the
things that a sentence names are compared with the names of the scene's things, by the words that the choreographer's
sentences have for them. Where a scene's name is none of these words, anything may be meant by it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache

from flowplan.scene import Scene
from generators.chord.priors.choreographer.scenes.articulated_scenes import ARTICULATED
from generators.chord.priors.choreographer.scenes.cloth_scenes import CLOTH
from generators.chord.priors.choreographer.scenes.table_things import THINGS

_ARTICLES = frozenset({"the", "a", "an", "this", "that", "these", "those", "its", "my", "our"})


def require_subjects(scene: Scene, text: str) -> None:
    """Raises ValueError where a sentence names a thing that the scene has not, or nothing but parts of such things."""
    named = [o.name for o in scene.objects + scene.obstacles]
    there: set[str] = set()
    for name in named:
        kinds = set().union(*(_things()[noun] for noun in _nouns(_words(name), _things())))
        if not kinds:
            return
        there |= kinds
    said = _mentioned(text)
    things = [noun for noun in said if noun in _things() and noun not in _parts()]
    vocabulary = _things() if things else _parts()
    for noun in things or said:
        if not vocabulary[noun] & there:
            raise ValueError(
                f"prompt: {text!r} speaks of a {noun}, and the scene has {', '.join(named)}; "
                "say what one of these should do, or name the scene's objects after what they are"
            )


def _mentioned(text: str) -> list[str]:
    """Things and parts that a sentence names behind an article; "the glass door" is a door and no glass."""
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
    """Nouns among words, the longest at every place."""
    found = (_noun(words[at:], known) for at in range(len(words)))
    return [noun for noun in found if noun is not None]


def _noun(words: list[str], known: Collection[str]) -> str | None:
    """The longest noun that words begin with."""
    return next((n for n in (" ".join(words[:length]) for length in (3, 2, 1)) if n in known), None)


def _words(text: str) -> list[str]:
    return re.findall(
        r"[a-z]+", text.lower()
    )  # what a thing owns, "the oven's door", is behind an s


@cache
def _things() -> dict[str, frozenset[str]]:
    """By noun, the kinds of things that it may mean."""
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
    """By what a part is called, the kinds of things that have one."""
    return _index((name, [part for part, _ in kind.parts]) for name, kind in ARTICULATED.items())


def _index(entries: Iterable[tuple[str, Iterable[str]]]) -> dict[str, frozenset[str]]:
    out: dict[str, frozenset[str]] = {}
    for kind, nouns in entries:
        for noun in nouns:
            key = " ".join(_words(noun))
            out[key] = out.get(key, frozenset()) | {kind}
    return out
