"""Scenes of one articulated object: open it, close it, fold it, turn it, lower it.

A plain sentence means the whole range of a joint (or at least nine tenths of it), from a start that
leaves at least two fifths of the range. Parts that are not asked to move stand still anywhere in
their ranges. Of tools made of two halves on a pivot neither half is the fixed one, so each turns
half of the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import exp_so3, inverse, pose, transform
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray
from generators.chord.priors.choreographer.scenes.articulated_kinds import Kind, Part, Style
from generators.chord.priors.choreographer.scenes.prompted import (
    FRAMES,
    Ask,
    Body,
    PromptedScene,
    still,
)
from generators.chord.priors.choreographer.scenes.sentences import Phrase, say
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.kinematic import minimum_jerk

INSTANCES = 20_000
"""Objects of a family that are trained on; as many are held out."""
MIN_TRAVEL = 0.4
"""Least share of a joint's range that a plain sentence asks for."""


def articulated_scene(
    name: str,
    kind: Kind,
    rng: np.random.Generator,
    words: np.random.Generator,
    *,
    held_out: bool,
    paraphrased: bool,
) -> PromptedScene:
    """A random scene of this kind.

    Args:
        name: of the kind.
        kind: its description.
        rng: draws the objects and the motion.
        words: draws the sentence.
        held_out: use an object that is never trained on.
        paraphrased: use a sentence that is never trained on.
    """
    obj, part = _instance(kind, rng, held_out=held_out)
    joints = [next(j for j in obj.free if j.name == n) for n in part.joints]

    # The joints' paths.
    q = _others(obj, rng, shut=kind.shut)
    forward, amount, start, end = _TRAVEL[kind.style](obj, joints, q, rng)
    place = pose(exp_so3([0.0, 0.0, rng.uniform(-np.pi, np.pi)]), [*rng.uniform(-0.5, 0.5, 2), 0.0])
    index = [obj.free.index(j) for j in joints]
    path = np.repeat(q[None], FRAMES, axis=0)
    path[:, index] = start + minimum_jerk(np.linspace(0, 1, FRAMES))[:, None] * (end - start)
    placed = _turned_back(obj, joints[0], path, place) if kind.halves else place
    asks = [_ask(obj, j, path, place, e - s) for j, s, e in zip(joints, start, end, strict=True)]
    if kind.halves:
        asks = _of_halves(asks[0])
    phrase = Phrase(
        kind.verbs[0 if forward else 1], kind.names, part.name, part.whole, amount=amount
    )
    opposite = Phrase(kind.verbs[1 if forward else 0], kind.names, part.name, part.whole)
    return PromptedScene(
        kind=name,
        phrase=phrase,
        text=say(phrase, words, trained=not paraphrased),
        bodies=articulated_bodies(obj, path, placed),
        obstacles=frozenset(),
        placed={obj.name: place},
        asks=tuple(asks),
        others=(say(opposite, words),),
    )


def articulated_bodies(
    obj: ArticulatedObject, path: FloatArray, place: FloatArray
) -> tuple[Body, ...]:
    """The object's links along a path.

    Args:
        obj: the object.
        path: (T, D) joint positions.
        place: (4, 4) or (T, 4, 4) pose of the object, world frame.
    """
    X = np.broadcast_to(place, (len(path), 4, 4))[:, None] @ obj.link_poses(path)  # (T, L, 4, 4)
    bodies = []
    for i, mesh in enumerate(obj.links.values()):
        if len(mesh.faces) == 0:
            continue
        moves = not np.allclose(X[-1, i], X[0, i], atol=1e-12)
        motion = X[:, i] @ inverse(X[0, i]) if moves else still()
        bodies.append(Body(obj.name, transform(X[0, i], mesh.vertices)[None], mesh.faces, motion))
    return tuple(bodies)


def _instance(
    kind: Kind, rng: np.random.Generator, *, held_out: bool
) -> tuple[ArticulatedObject, Part]:
    """A random object of the kind, and one of its parts."""
    while True:  # some instances of a family have no suitable part: draw others
        obj = _made(kind.family, int(rng.integers(INSTANCES)) + (HELD_OUT_SEED if held_out else 0))
        parts = kind.find(obj)
        if parts:
            return obj, parts[int(rng.integers(len(parts)))]


@lru_cache(maxsize=256)
def _made(family: str, seed: int) -> ArticulatedObject:
    return make(family, seed)


def _others(obj: ArticulatedObject, rng: np.random.Generator, *, shut: bool) -> FloatArray:
    """Random positions (D,) of all joints: most often at 0, always if `shut`."""
    q = obj.sample(rng, 1)[0]
    at_zero = rng.random(len(q)) < (1.0 if shut else 0.6)
    return np.where(at_zero, np.clip(0.0, obj.lower, obj.upper), q)


Travel = tuple[bool, str, FloatArray, FloatArray]
"""True for the first verb; amount in words; the joints' positions at start and end."""


def _between_limits(
    obj: ArticulatedObject, joints: Sequence[Joint], q: FloatArray, rng: np.random.Generator
) -> Travel:
    """By all, half or a little of the range between the joints' limits."""
    forward = bool(rng.random() < 0.5)
    amount = ("", "half", "little")[int(rng.choice(3, p=[0.76, 0.12, 0.12]))]

    # Shares of the range from the shut end; going back is the same from the other end.
    if amount == "":
        start = 0.0 if rng.random() < 0.4 else rng.uniform(0.0, 0.9 - MIN_TRAVEL - 0.05)
        end = 1.0 if not forward or rng.random() < 0.5 else rng.uniform(0.9, 1.0)
    elif amount == "half":
        start, end = rng.uniform(0.0, 0.08), 0.5
    else:
        start = rng.uniform(0.0, 0.6)
        end = start + 0.2

    # Positions: the shut end is the limit nearer to zero.
    share = np.array([start, end] if forward else [1 - start, 1 - end])
    shut = np.array([_nearest_zero(j) for j in joints])
    wide = np.array([j.lower + j.upper for j in joints]) - shut
    return forward, amount, *(shut + share[:, None] * (wide - shut))


def _nearest_zero(joint: Joint) -> float:
    return joint.lower if abs(joint.lower) <= abs(joint.upper) else joint.upper


def _lamp(
    obj: ArticulatedObject, joints: Sequence[Joint], q: FloatArray, rng: np.random.Generator
) -> Travel:
    """By 0.45 to 0.75 rad, where the lamp's head only sinks or only rises."""
    (joint,) = joints
    forward = bool(rng.random() < 0.5)

    # Height of the head over the whole range.
    angles = np.linspace(joint.lower, joint.upper, 41)
    path = np.repeat(q[None], len(angles), axis=0)
    path[:, obj.free.index(joint)] = angles
    beyond = _beyond(obj, joint)
    X = obj.link_poses(path)
    meshes = list(obj.links.values())
    last = next(i for i in reversed(range(len(meshes))) if beyond[i] and len(meshes[i].faces))
    middle = meshes[last].bounds.mean(0)
    height = X[:, last, 2, :3] @ middle + X[:, last, 2, 3]
    step = np.diff(height)

    # The widest part of the range in which the head only sinks or only rises.
    low, high, sign = _longest_run(step)
    span = angles[high] - angles[low]
    asked = min(rng.uniform(0.45, 0.75), span)
    first = angles[low] + rng.uniform(0.0, span - asked)
    a, b = first, first + asked
    if (sign < 0) != forward:
        a, b = b, a
    return forward, "", np.array([a]), np.array([b])


def _longest_run(step: FloatArray) -> tuple[int, int, int]:
    """First and last index and sign of the longest run of steps of one sign."""
    sign = np.sign(step).astype(int)
    edges = np.flatnonzero(np.diff(sign)) + 1
    bounds = np.concatenate([[0], edges, [len(sign)]])
    longest = int(np.argmax(np.diff(bounds)))
    return int(bounds[longest]), int(bounds[longest + 1]), int(sign[bounds[longest]])


def _valve(
    obj: ArticulatedObject, joints: Sequence[Joint], q: FloatArray, rng: np.random.Generator
) -> Travel:
    """By 1 to 1.3 rad at most; turning on is to the left for someone facing it."""
    (joint,) = joints
    forward = bool(rng.random() < 0.5)
    asked = min(rng.uniform(1.0, 1.3), joint.upper - joint.lower)
    # Rounding may leave less than nothing of the range.
    first = rng.uniform(joint.lower, max(joint.upper - asked, joint.lower))
    ends = np.array([[first], [first + asked]])
    return forward, "", *(ends if forward else ends[::-1])


_TRAVEL: dict[Style, Callable[..., Travel]] = {
    "limits": _between_limits,
    "lamp": _lamp,
    "valve": _valve,
}


def _beyond(obj: ArticulatedObject, joint: Joint) -> NDArray[np.bool_]:
    """(L,) true for links that a joint carries along."""
    carried = {joint.child}
    for j in obj.joints:  # parents come before children
        if j.parent in carried:
            carried.add(j.child)
    return np.array([name in carried for name in obj.links])


def _ask(
    obj: ArticulatedObject, joint: Joint, path: FloatArray, place: FloatArray, travel: float
) -> Ask:
    """The ask of one joint; `travel` is its signed change of position."""
    X = place @ obj.link_poses(path[:1])[0, list(obj.links).index(joint.child)]
    counts = [len(m.vertices) if len(m.faces) else 0 for m in obj.links.values()]
    return Ask(
        object=obj.name,
        joint=joint.name,
        manner="turn" if joint.kind == "revolute" else "slide",
        axis_point=X[:3, 3],
        axis=np.sign(travel) * X[:3, :3] @ joint.axis,
        amount=abs(float(travel)),
        vertices=np.repeat(_beyond(obj, joint), counts),
    )


def _turned_back(
    obj: ArticulatedObject, joint: Joint, path: FloatArray, place: FloatArray
) -> FloatArray:
    """Poses (T, 4, 4) of an object that turns about a joint by half its angle, the other way."""
    turned = path[:, obj.free.index(joint)] - path[0, obj.free.index(joint)]
    pivot = joint.X_parent_joint
    back = np.stack([pose(exp_so3(-0.5 * angle * joint.axis)) for angle in turned])
    return place @ pivot @ back @ inverse(pivot)


def _of_halves(ask: Ask) -> list[Ask]:
    """Asks of two halves: half the amount each, in opposite directions."""
    half = replace(ask, amount=ask.amount / 2)
    return [half, replace(half, axis=-ask.axis, vertices=~ask.vertices)]
