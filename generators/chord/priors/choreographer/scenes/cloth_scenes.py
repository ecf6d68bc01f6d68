"""Scenes of one flat cloth that is folded in half or diagonally, by `flowplan.laws.Fold`.

The sentence does not tell which side is folded over, so the other sides are the scene's
alternatives.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.geometry import exp_so3, pose, transform
from flowplan.laws import Fold
from flowplan.scene import Action, Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators.chord.priors.choreographer.scenes.prompted import (
    DURATION,
    FRAMES,
    Ask,
    Body,
    PromptedScene,
    still,
)
from generators.chord.priors.choreographer.scenes.sentence_templates import Names
from generators.chord.priors.choreographer.scenes.sentences import Phrase, say
from generators.kinematic import KinematicOptions, kinematic

CLOTH = Names(
    ("cloth", "towel", "napkin", "piece of cloth"),
    ("dishcloth",),
    ("rag", "washcloth", "piece of fabric"),
)
VERBS = ("fold in half", "fold diagonally")
PHRASES = tuple(Phrase(verb, CLOTH) for verb in VERBS)
HEIGHT = 0.004
"""Height of the sheet above the table, meters."""


def cloth_scene(
    name: str, rng: np.random.Generator, words: np.random.Generator, *, paraphrased: bool
) -> PromptedScene:
    """A random scene of this kind.

    Args:
        name: of the kind.
        rng: draws the cloth and the motion.
        words: draws the sentence.
        paraphrased: use a sentence that is never trained on.
    """
    verb = VERBS[int(rng.integers(2))]
    width = rng.uniform(0.18, 0.5)
    # The corners of a square alone meet across its diagonal.
    size = np.array([width, width * (1.0 if verb == "fold diagonally" else rng.uniform(0.6, 1.0))])
    vertices, faces = sheet(size, int(rng.integers(16, 33)))
    place = pose(
        exp_so3([0.0, 0.0, rng.uniform(-np.pi, np.pi)]), [*rng.uniform(-0.5, 0.5, 2), HEIGHT]
    )

    # Directions of the sides or corners, one of which is folded over.
    x, y = place[:3, 0], place[:3, 1]
    ways = (
        (x, -x, y, -y)
        if verb == "fold in half"
        else tuple((a * x + b * y) / np.sqrt(2) for a, b in _CORNERS)
    )
    chosen = int(rng.integers(4))
    rest, middle = transform(place, vertices), place[:3, 3]
    radius = rng.uniform(0.003, 0.006)
    positions = _folded(
        SceneObject("cloth", trimesh.Trimesh(vertices, faces, process=False), place),
        ways[chosen],
        radius,
    )
    asks = [_ask(rest, middle, away) for away in ways]
    phrase = Phrase(verb, CLOTH)
    others = (Phrase(VERBS[1 - VERBS.index(verb)], CLOTH),)
    return PromptedScene(
        kind=name,
        phrase=phrase,
        text=say(phrase, words, trained=not paraphrased),
        bodies=(Body("cloth", positions, faces, still()),),
        obstacles=frozenset(),
        placed={"cloth": place},
        asks=(asks.pop(chosen),),
        alternatives=tuple(asks),
        others=tuple(say(p, words) for p in others),
    )


_CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


def sheet(size: FloatArray, cells: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Vertices (V, 3) and triangles (F, 3) of a flat rectangle of `size` (2,) meters, facing up."""
    nx, ny = (max(2, round(cells * s / size.max())) + 1 for s in size)
    x, y = np.meshgrid(
        *(np.linspace(-s / 2, s / 2, n) for s, n in zip(size, (nx, ny), strict=True)), indexing="ij"
    )
    grid = np.arange(nx * ny).reshape(nx, ny)
    a, b, c, d = (k.ravel() for k in (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1), faces


def _folded(cloth: SceneObject, away: FloatArray, radius: float) -> FloatArray:
    """Vertices (T, V, 3) while the side in direction `away` (3,) of the center is folded over."""
    rest, middle = cloth.vertices_world, cloth.X_world_object[:3, 3]
    reach = (rest - middle) @ away
    handles = rest[reach > 0.9 * reach.max()]
    reach = (handles - middle) @ away
    # Half a turn about the crease uses up an arc of pi * radius, and raises the edge by a diameter.
    targets = handles + (np.pi * radius - 2 * reach)[:, None] * away + [0, 0, 2 * radius]
    law = Fold("cloth", middle, np.cross(away, [0, 0, 1]), radius=radius)
    action = Action("cloth", handles, targets=targets, duration=DURATION)
    (motion,) = kinematic((law,), KinematicOptions(frames=FRAMES))(Scene((cloth,)), action)
    return motion.vertices[0]


def _ask(rest: FloatArray, middle: FloatArray, away: FloatArray) -> Ask:
    """Half a turn of the side in direction `away` of the center, up and over."""
    axis = np.cross(away, [0.0, 0.0, 1.0])
    side = (rest - middle) @ away > 1e-6
    return Ask("cloth", "", "fold", middle, axis, np.pi, side)
