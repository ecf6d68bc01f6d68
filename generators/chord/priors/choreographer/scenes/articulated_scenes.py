"""Scenes of one articulated object: open it, close it, fold it, turn it, lower it.

A kind is a family of `generators.data.objects` and what can be asked of its instances. The plain sentence means all the way
(or nine tenths of it), from a start that leaves at least two fifths of the range to go; what is not asked to move stands
still wherever it is. Of tools that are two halves on a pivot neither is the one that stands, so that each turns half of
the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import exp_so3, inverse, pose, transform
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray
from generators.chord.priors.choreographer.scenes.prompted import (
    FRAMES,
    Ask,
    Body,
    PromptedScene,
    still,
)
from generators.chord.priors.choreographer.scenes.sentences import AMOUNTS, Names, Phrase, say
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.kinematic import minimum_jerk

INSTANCES = 20_000
"""Objects of a family that are trained on; as many are held out."""
LEAST_TRAVEL = 0.4
"""Of a joint's range, that a plain sentence asks for."""
Style = Literal["limits", "lamp", "valve"]


@dataclass(frozen=True)
class Part:
    """Something of one object that can be asked to move.

    Attributes:
        joints: names of the joints that move together.
        name: what it is called.
        whole: does naming the object alone mean this part?
    """

    joints: tuple[str, ...]
    name: str
    whole: bool = True


@dataclass(frozen=True)
class Kind:
    """What is asked of a family's objects.

    Attributes:
        family: of `generators.data.objects.families`.
        names: what the object is called.
        verbs: what takes its joints to their upper and to their lower limits.
        parts: names that `find` can give to parts, for the list of all sentences: name, and does the object's name do?
        find: the parts of one object; none where it has nothing that suits.
        style: "limits" moves between the joint's limits, "lamp" and "valve" by amounts of their own.
        shut: joints other than the asked one that would be in its way are at 0.
        halves: are they two alike on one joint, of which each goes half of the way?
    """

    family: str
    names: Names
    verbs: tuple[str, str]
    parts: tuple[tuple[str, bool], ...]
    find: Callable[[ArticulatedObject], list[Part]]
    style: Style = "limits"
    shut: bool = False
    halves: bool = False

    def phrases(self) -> tuple[Phrase, ...]:
        """Everything that can be said of this kind."""
        amounts = tuple(AMOUNTS) if self.style == "limits" else ("",)
        return tuple(
            Phrase(verb, self.names, part, whole, amount=amount)
            for part, whole in self.parts
            for verb in self.verbs
            for amount in amounts
        )


def articulated_scene(
    name: str,
    kind: Kind,
    rng: np.random.Generator,
    words: np.random.Generator,
    *,
    held_out: bool,
    paraphrased: bool,
) -> PromptedScene:
    """A scene of this kind; `rng` draws what there is and happens, `words` how that is said."""
    obj, part = _instance(kind, rng, held_out=held_out)
    joints = [next(j for j in obj.free if j.name == n) for n in part.joints]
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
    """The object's links at configurations path (T, D), the object standing at `place` (4, 4) or (T, 4, 4), world."""
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
    while True:  # some instances of a family have nothing that suits: draw others
        obj = _made(kind.family, int(rng.integers(INSTANCES)) + (HELD_OUT_SEED if held_out else 0))
        parts = kind.find(obj)
        if parts:
            return obj, parts[int(rng.integers(len(parts)))]


@lru_cache(maxsize=256)
def _made(family: str, seed: int) -> ArticulatedObject:
    return make(family, seed)


def _others(obj: ArticulatedObject, rng: np.random.Generator, *, shut: bool) -> FloatArray:
    """(D,) where joints that nothing is asked of stand: more often at 0 than anywhere."""
    q = obj.sample(rng, 1)[0]
    at_zero = rng.random(len(q)) < (1.0 if shut else 0.6)
    return np.where(at_zero, np.clip(0.0, obj.lower, obj.upper), q)


Travel = tuple[bool, str, FloatArray, FloatArray]
"""Forward (the first verb)? how far in words, and the joints' positions at the start and at the end."""


def _between_limits(
    obj: ArticulatedObject, joints: Sequence[Joint], q: FloatArray, rng: np.random.Generator
) -> Travel:
    forward = bool(rng.random() < 0.5)
    amount = ("", "half", "little")[int(rng.choice(3, p=[0.76, 0.12, 0.12]))]
    # Shares of the range from where it is shut; going back is the same seen from the other end.
    if amount == "":
        start = 0.0 if rng.random() < 0.4 else rng.uniform(0.0, 0.9 - LEAST_TRAVEL - 0.05)
        end = 1.0 if not forward or rng.random() < 0.5 else rng.uniform(0.9, 1.0)
    elif amount == "half":
        start, end = rng.uniform(0.0, 0.08), 0.5
    else:
        start = rng.uniform(0.0, 0.6)
        end = start + 0.2
    share = np.array([start, end] if forward else [1 - start, 1 - end])
    shut = np.array([_nearest_zero(j) for j in joints])
    wide = np.array([j.lower + j.upper for j in joints]) - shut
    return forward, amount, *(shut + share[:, None] * (wide - shut))


def _nearest_zero(joint: Joint) -> float:
    return joint.lower if abs(joint.lower) <= abs(joint.upper) else joint.upper


def _lamp(
    obj: ArticulatedObject, joints: Sequence[Joint], q: FloatArray, rng: np.random.Generator
) -> Travel:
    """By 0.45 to 0.75 rad, to the side on which what the joint carries sinks or rises all the way."""
    (joint,) = joints
    forward = bool(rng.random() < 0.5)
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
    # The widest run of the range in which the head only sinks or only rises.
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
    """By 1 to 1.3 rad where there is as much; turned on it goes round to the left, seen by whoever faces it."""
    (joint,) = joints
    forward = bool(rng.random() < 0.5)
    asked = min(rng.uniform(1.0, 1.3), joint.upper - joint.lower)
    first = rng.uniform(
        joint.lower, max(joint.upper - asked, joint.lower)
    )  # rounding may leave less
    ends = np.array([[first], [first + asked]])
    return forward, "", *(ends if forward else ends[::-1])


_TRAVEL: dict[Style, Callable[..., Travel]] = {
    "limits": _between_limits,
    "lamp": _lamp,
    "valve": _valve,
}


def _beyond(obj: ArticulatedObject, joint: Joint) -> NDArray[np.bool_]:
    """(L,) which links a joint carries along."""
    carried = {joint.child}
    for j in obj.joints:  # parents come before children
        if j.parent in carried:
            carried.add(j.child)
    return np.array([name in carried for name in obj.links])


def _ask(
    obj: ArticulatedObject, joint: Joint, path: FloatArray, place: FloatArray, travel: float
) -> Ask:
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
    """Poses (T, 4, 4) of an object that turns about a joint, half as far as that and the other way."""
    turned = path[:, obj.free.index(joint)] - path[0, obj.free.index(joint)]
    pivot = joint.X_parent_joint
    back = np.stack([pose(exp_so3(-0.5 * angle * joint.axis)) for angle in turned])
    return place @ pivot @ back @ inverse(pivot)


def _of_halves(ask: Ask) -> list[Ask]:
    """Half as much, asked of each of two halves, in opposite directions."""
    half = replace(ask, amount=ask.amount / 2)
    return [half, replace(half, axis=-ask.axis, vertices=~ask.vertices)]


# What can move, family by family


def _only(*names: str, called: str) -> Callable[[ArticulatedObject], list[Part]]:
    """The first of the joints that an object has."""

    def find(obj: ArticulatedObject) -> list[Part]:
        have = [n for n in names if any(j.name == n for j in obj.free)]
        return [Part((have[0],), called)] if have else []

    return find


def _together(*names: str, called: str) -> Callable[[ArticulatedObject], list[Part]]:
    """All the joints, as one."""

    def find(obj: ArticulatedObject) -> list[Part]:
        have = {j.name for j in obj.free}
        return [Part(names, called)] if have.issuperset(names) else []

    return find


def _drawers(obj: ArticulatedObject) -> list[Part]:
    """Drawers above one another, by their height."""
    drawers = sorted(
        (j for j in obj.free if j.name.startswith("drawer")), key=lambda j: j.X_parent_joint[2, 3]
    )
    names = [j.name for j in drawers]
    across = np.ptp([j.X_parent_joint[0, 3] for j in drawers])
    if across > 0.01 or len(drawers) > 3:
        return []
    if len(drawers) == 1:
        return [Part((names[0],), "drawer")]
    places = ("bottom", "top") if len(drawers) == 2 else ("bottom", "middle", "top")
    return [Part((n,), f"{p} drawer", whole=False) for n, p in zip(names, places, strict=True)]


def _doors(
    prefix: str, *, one: str = "door", two: str = "doors"
) -> Callable[[ArticulatedObject], list[Part]]:
    """One door; or both of two abreast, that open like a cupboard's; or the upper and the lower one."""

    def find(obj: ArticulatedObject) -> list[Part]:
        doors = [
            j for j in obj.free if j.name.removeprefix(prefix).removesuffix("_joint").isdigit()
        ]
        names = tuple(j.name for j in doors)
        if len(doors) == 1:
            return [Part(names, one)]
        if len(doors) != 2:
            return []
        if abs(doors[0].X_parent_joint[0, 3] - doors[1].X_parent_joint[0, 3]) > 0.01:
            return [Part(names, two)]
        return [
            Part((names[0],), "lower door", whole=False),
            Part((names[1],), "upper door", whole=False),
        ]

    return find


def _laundry(obj: ArticulatedObject) -> list[Part]:
    return [Part((j.name,), j.child) for j in obj.free if j.child in ("door", "lid")]


def _sashes(obj: ArticulatedObject) -> list[Part]:
    """One sash that moves, or two casements; not two that slide, of which either would do."""
    sashes = [j for j in obj.free if j.child in ("sash_0", "sash_1")]
    if len(sashes) == 2 and sashes[0].kind == "prismatic":
        return []
    return [Part(tuple(j.name for j in sashes), "sash" if len(sashes) == 1 else "sashes")]


_DOOR, _LID = (("door", True),), (("lid", True),)
ARTICULATED: dict[str, Kind] = {
    "laptop": Kind(
        "laptop",
        Names(
            ("laptop", "notebook", "laptop computer"),
            ("notebook computer",),
            ("notebook pc", "portable computer", "computer"),
        ),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
    ),
    "hinged_box": Kind(
        "hinged_box",
        Names(("box", "chest", "case"), ("casket",), ("hinged box", "storage box", "lidded box")),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
    ),
    "drawer_cabinet": Kind(
        "drawer_cabinet",
        Names(
            ("cabinet", "dresser", "drawer unit"),
            ("commode",),
            ("chest of drawers", "bureau", "drawer cabinet"),
        ),
        ("open", "close"),
        (
            ("drawer", True),
            ("top drawer", False),
            ("middle drawer", False),
            ("bottom drawer", False),
        ),
        _drawers,
    ),
    "door_cabinet": Kind(
        "door_cabinet",
        Names(
            ("cabinet", "cupboard", "locker"),
            ("sideboard",),
            ("wardrobe", "closet", "armoire", "storage cabinet"),
        ),
        ("open", "close"),
        (("door", True), ("doors", True)),
        _doors("door_"),
    ),
    "double_lid_box": Kind(
        "double_lid_box",
        Names(
            ("box", "carton", "crate"),
            ("package",),
            ("cardboard box", "moving box", "shipping box", "packing box", "parcel box"),
        ),
        ("open", "close"),
        (("lids", True),),
        _together("lid_0_joint", "lid_1_joint", called="lids"),
    ),
    "suitcase": Kind(
        "suitcase",
        Names(("suitcase", "briefcase", "trunk"), ("travel case",), ("luggage case", "travel bag")),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
        shut=True,
    ),
    "oven": Kind(
        "oven",
        Names(("oven", "stove"), ("cooker",), ("kitchen oven", "baking oven", "range")),
        ("open", "close"),
        _DOOR,
        _only("door_joint", called="door"),
    ),
    "refrigerator": Kind(
        "refrigerator",
        Names(("refrigerator", "fridge"), ("icebox",), ("cooler", "kitchen fridge")),
        ("open", "close"),
        (("door", True), ("doors", True), ("lower door", False), ("upper door", False)),
        _doors("door_"),
    ),
    "washing_machine": Kind(
        "washing_machine",
        Names(
            ("washing machine", "washer"), ("laundry machine",), ("clothes washer", "front loader")
        ),
        ("open", "close"),
        (("door", True), ("lid", True)),
        _laundry,
    ),
    "dishwasher": Kind(
        "dishwasher",
        Names(("dishwasher", "dish washer"), ("dish-washing machine",), ("dish machine",)),
        ("open", "close"),
        _DOOR,
        _only("door_joint", called="door"),
        shut=True,
    ),
    "safe": Kind(
        "safe",
        Names(("safe", "strongbox"), ("vault",), ("lockbox", "security box")),
        ("open", "close"),
        _DOOR,
        _only("door_joint", called="door"),
    ),
    "window": Kind(
        "window",
        Names(("window", "house window"), ("casement",), ("window unit", "glass window", "pane")),
        ("open", "close"),
        (("sash", True), ("sashes", True)),
        _sashes,
    ),
    "door": Kind(
        "door",
        Names(("door", "room door"), ("entrance",), ("doorway door", "entry door", "house door")),
        ("open", "close"),
        (("leaf", True), ("leaves", True)),
        _doors("leaf_", one="leaf", two="leaves"),
    ),
    "kettle": Kind(
        "kettle",
        Names(
            ("kettle", "tea kettle"),
            ("teapot",),
            ("teakettle", "water kettle", "electric kettle", "water boiler"),
        ),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
        shut=True,
    ),
    "scissors": Kind(
        "scissors",
        Names(("scissors", "shears"), ("clippers",), ("craft scissors", "paper scissors", "snips")),
        ("spread", "shut"),
        (("blades", True),),
        _only("blade_1_joint", called="blades"),
        halves=True,
    ),
    "pliers": Kind(
        "pliers",
        Names(("pliers", "tongs"), ("pincers",), ("needle-nose pliers", "hand pliers", "grips")),
        ("spread", "shut"),
        (("jaws", True),),
        _only("half_1_joint", called="jaws"),
        halves=True,
    ),
    "knife": Kind(
        "knife",
        Names(
            ("pocket knife", "knife", "folding knife"),
            ("penknife",),
            ("jackknife", "pocketknife", "clasp knife"),
        ),
        ("unfold", "fold"),
        (("blade", True),),
        _only("blade_joint", called="blade"),
    ),
    "eyeglasses": Kind(
        "eyeglasses",
        Names(
            ("glasses", "eyeglasses"),
            ("spectacles",),
            ("specs", "reading glasses", "eyewear frames"),
        ),
        ("fold", "unfold"),
        (("temples", True),),
        _together("left_joint", "right_joint", called="temples"),
    ),
    "folding_chair": Kind(
        "folding_chair",
        Names(
            ("chair", "folding chair"),
            ("folding seat",),
            ("foldable chair", "fold-up chair", "collapsible chair", "camp chair"),
        ),
        ("fold", "unfold"),
        (("legs", True),),
        _only("rear_joint", called="legs"),
    ),
    "desk_lamp": Kind(
        "desk_lamp",
        Names(
            ("lamp", "desk lamp", "light"),
            ("reading lamp",),
            ("table lamp", "task lamp", "work light"),
        ),
        ("lower", "raise"),
        (("arm", True),),
        _only("elbow", "shoulder", called="arm"),
        style="lamp",
    ),
    "faucet": Kind(
        "faucet",
        Names(("faucet", "tap", "water tap"), ("spigot",), ("sink tap", "kitchen faucet")),
        ("turn on", "turn off"),
        (("handle", True),),
        _only("cartridge_joint", "handle_joint", called="handle"),
        style="valve",
    ),
    "valve_wheel": Kind(
        "valve_wheel",
        Names(
            ("valve", "pipe valve"),
            ("stopcock",),
            ("valve wheel", "handwheel", "wheel valve", "shutoff valve", "gate valve"),
        ),
        ("turn on", "turn off"),
        (("handle", True),),
        _only("wheel_joint", called="handle"),
        style="valve",
    ),
    "microwave": Kind(
        "microwave",
        Names(("microwave", "microwave oven"), ("microwave cooker",)),
        ("open", "close"),
        _DOOR,
        _only("door_joint", called="door"),
    ),
    "toilet": Kind(
        "toilet",
        Names(("toilet",), ("toilet bowl",)),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
        shut=True,
    ),
    "trash_can": Kind(
        "trash_can",
        Names(("trash can", "bin"), ("garbage can",)),
        ("open", "close"),
        _LID,
        _only("lid_joint", called="lid"),
    ),
}
"""By name."""
