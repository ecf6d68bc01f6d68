"""Scenes of several things on a table: one is put on or into another, stacked on it, or pushed to
it.

Things that are put somewhere are lifted, carried and lowered without turning, in three minimum-jerk
moves that overlap. Things that are pushed slide straight until they touch. Up to two more things
stand out of the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

from flowplan.geometry import exp_so3, pose, transform
from flowplan.utils.checks import FloatArray
from generators.chord.priors.choreographer.scenes.prompted import (
    FRAMES,
    Ask,
    Body,
    PromptedScene,
    still,
)
from generators.chord.priors.choreographer.scenes.sentences import Phrase, say
from generators.chord.priors.choreographer.scenes.table_things import THINGS, Thing
from generators.kinematic import minimum_jerk

GAP = 0.002
"""Distance left between a thing and what it ends up on or against, meters."""
MIN_PUSH = 0.08
"""Least distance of a push, meters."""


@dataclass(frozen=True)
class Errand:
    """An action, and the things that it is done with.

    Attributes:
        verb: a key of `sentence_templates.POOLS`.
        movers: kinds of things that are moved.
        goals: kinds of things that they are moved to, never to one of the same kind.
    """

    verb: str
    movers: tuple[str, ...]
    goals: tuple[str, ...]

    def phrases(self) -> tuple[Phrase, ...]:
        """All phrases of this errand."""
        return tuple(self.phrase(m, g) for m in self.movers for g in self.goals if m != g)

    def phrase(self, mover: str, goal: str) -> Phrase:
        """The phrase for moving one thing to the other."""
        return Phrase(self.verb, THINGS[mover][1], other=THINGS[goal][1])


_CARRIED = ("cube", "can", "bottle", "bowl", "ramekin", "mug", "glass", "ball")
_SLID = ("cube", "can", "bottle", "bowl", "ramekin", "mug", "glass", "book", "box", "plate")
PUT_ON = Errand("put on", _CARRIED, ("plate", "tray", "book"))
PUT_IN = Errand(
    "put in",
    ("cube", "can", "ramekin", "mug", "glass", "ball"),
    ("box", "basket", "pot", "pan", "bowl"),
)
STACK = Errand("stack", ("cube", "can", "book", "ramekin", "mug"), ("cube", "can", "book"))
PUSH = Errand("push", _SLID, (*_SLID, "tray", "basket", "pot"))
ERRANDS = (PUT_ON, PUT_IN, STACK, PUSH)
TABLE: dict[str, tuple[Errand, ...]] = {"put": (PUT_ON, PUT_IN), "stack": (STACK,), "push": (PUSH,)}
"""Errands of each kind of scene."""


def table_scene(
    name: str,
    errands: tuple[Errand, ...],
    rng: np.random.Generator,
    words: np.random.Generator,
    *,
    paraphrased: bool,
) -> PromptedScene:
    """A random scene of this kind.

    Args:
        name: of the kind.
        errands: one of them is drawn.
        rng: draws the objects and the motion.
        words: draws the sentence.
        paraphrased: use a sentence that is never trained on.
    """
    errand = errands[int(rng.integers(len(errands)))]
    mover, goal = _pair(errand, rng)
    heading = rng.uniform(-np.pi, np.pi)
    toward = np.array([np.cos(heading), np.sin(heading), 0.0])
    X_goal = _standing(rng, np.array([*rng.uniform(-0.3, 0.3, 2), 0.0]))

    # The mover starts away from the goal, at least so far that they do not touch.
    X_mover = _standing(rng, X_goal[:3, 3])
    touching = _meeting(mover, X_mover, goal, X_goal, toward)
    if errand.verb == "push":
        travel = rng.uniform(MIN_PUSH, 0.3)
        distance = touching + GAP + travel
        motion = pose(None, minimum_jerk(np.linspace(0, 1, FRAMES))[:, None] * travel * toward)
        end = travel * toward
    else:
        distance = touching + rng.uniform(0.03, 0.22)
        end = distance * toward + np.array([0.0, 0.0, goal.floor + GAP])
        lift = rng.uniform(0.08, 0.12) + 1.1 * (goal.rim - goal.floor)
        motion = _carried(end, lift)
    X_mover[:3, 3] -= distance * toward

    standing = [
        (mover, X_mover),
        (goal, X_goal),
        *_bystanders(rng, (mover, X_mover), (goal, X_goal)),
    ]
    bodies = [_body(thing, X, motion if thing is mover else still()) for thing, X in standing]
    phrase = errand.phrase(mover.kind, goal.kind)
    length = float(np.linalg.norm(end))
    middle = bodies[0].vertices[0].mean(0)
    ask = Ask(
        mover.kind,
        "",
        "carry",
        middle,
        end / length,
        length,
        np.ones(len(mover.mesh.vertices), bool),
    )
    return PromptedScene(
        kind=name,
        phrase=phrase,
        text=say(phrase, words, trained=not paraphrased),
        bodies=tuple(bodies),
        obstacles=frozenset(thing.kind for thing, _ in standing[1:] if rng.random() < 0.5),
        placed={thing.kind: X for thing, X in standing},
        asks=(ask,),
        others=tuple(say(p, words) for p in _otherwise(errand, mover.kind, goal.kind)),
    )


def _pair(errand: Errand, rng: np.random.Generator) -> tuple[Thing, Thing]:
    """Two things of different kinds, the first of which fits on or in the second."""
    while True:
        m, g = rng.choice(errand.movers), rng.choice(errand.goals)
        if m == g:
            continue
        goal = THINGS[g][0](rng)
        for _ in range(4):
            mover = THINGS[m][0](rng)
            # The upper thing of a stack may overhang a little.
            over = 1.4 if errand.verb == "stack" else 1.0
            if errand.verb == "push" or mover.base <= over * goal.room:
                return mover, goal


def _standing(rng: np.random.Generator, at: FloatArray) -> FloatArray:
    return pose(exp_so3([0.0, 0.0, rng.uniform(-np.pi, np.pi)]), at)


def _meeting(
    mover: Thing, X_mover: FloatArray, goal: Thing, X_goal: FloatArray, toward: FloatArray
) -> float:
    """Distance of the two centers along `toward` at which the things touch, meters.

    From above, the convex outlines touch when the offset reaches the boundary of their Minkowski
    difference (goal minus mover): one ray against the hull of all differences of their points.
    """
    a = _outline(mover, X_mover) - X_mover[:2, 3]
    b = _outline(goal, X_goal) - X_goal[:2, 3]
    hull = ConvexHull((b[:, None] - a[None]).reshape(-1, 2))
    # A mover at -s toward touches where the ray -toward leaves the hull: n . (-toward) s + offset =
    # 0.
    slope = hull.equations[:, :2] @ -toward[:2]
    leaving = slope > 1e-9
    return float((-hull.equations[leaving, 2] / slope[leaving]).min())


def _outline(thing: Thing, X: FloatArray) -> FloatArray:
    """Corners (n, 2) of the convex outline from above, world frame."""
    points = transform(X, thing.mesh.vertices)[:, :2]
    return points[ConvexHull(points).vertices]


def _bystanders(
    rng: np.random.Generator, mover: tuple[Thing, FloatArray], goal: tuple[Thing, FloatArray]
) -> list[tuple[Thing, FloatArray]]:
    """Up to two more things of other kinds, clear of both and of the path between them."""
    out: list[tuple[Thing, FloatArray]] = []
    start, end = mover[1][:2, 3], goal[1][:2, 3]
    for _ in range(int(rng.choice(3, p=[0.5, 0.3, 0.2]))):
        there = [mover, goal, *out]
        present = {t.kind for t, _ in there}
        kind = str(rng.choice([k for k in THINGS if k not in present]))
        thing = THINGS[kind][0](rng)
        for _ in range(10):
            at = (start + end) / 2 + rng.uniform(-0.35, 0.35, 2)
            apart = min(np.linalg.norm(at - X[:2, 3]) - t.radius for t, X in there)
            s = np.clip((at - start) @ (end - start) / ((end - start) @ (end - start)), 0.0, 1.0)
            aside = np.linalg.norm(at - start - s * (end - start)) - mover[0].radius
            if min(apart, aside) > thing.radius + 0.02:
                out.append((thing, _standing(rng, np.array([*at, 0.0]))))
                break
    return out


def _otherwise(errand: Errand, mover: str, goal: str) -> list[Phrase]:
    """Wrong phrases about the two; if there are none, phrases with another goal."""
    pushed = errand is PUSH
    both = [
        e.phrase(m, g)
        for e in ERRANDS
        for m, g in ((mover, goal), (goal, mover))
        if m in e.movers and g in e.goals and (m == goal or (e is PUSH) != pushed)
    ]
    return both or [errand.phrase(mover, g) for g in errand.goals if g not in (mover, goal)]


def _carried(end: FloatArray, lift: float) -> FloatArray:
    """Poses (T, 4, 4): lift by `lift`, carry, and lower to `end` (3,), without turning."""
    x = np.linspace(0, 1, FRAMES)
    over = minimum_jerk((x - 0.2) / 0.6)
    rise = lift * (minimum_jerk(x / 0.4) - minimum_jerk((x - 0.6) / 0.4))
    return pose(None, over[:, None] * end + rise[:, None] * [0.0, 0.0, 1.0])


def _body(thing: Thing, X: FloatArray, motion: FloatArray) -> Body:
    return Body(thing.kind, transform(X, thing.mesh.vertices)[None], thing.mesh.faces, motion)
