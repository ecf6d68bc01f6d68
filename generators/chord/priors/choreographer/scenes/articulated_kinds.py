"""Kinds of articulated objects, their movable parts, and their names.

A kind is a family of `generators.data.objects` and the motions that can be asked of its instances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from generators.chord.priors.choreographer.scenes.sentence_templates import AMOUNTS, Names
from generators.chord.priors.choreographer.scenes.sentences import Phrase
from generators.data.objects.articulated import ArticulatedObject

Style = Literal["limits", "lamp", "valve"]
"""Range of a motion: between the joint's limits, or by amounts typical of lamps and valves."""


@dataclass(frozen=True)
class Part:
    """A movable part of one object.

    Attributes:
        joints: names of the joints that move together.
        name: name of the part.
        whole: true if the object's name alone means this part.
    """

    joints: tuple[str, ...]
    name: str
    whole: bool = True


@dataclass(frozen=True)
class Kind:
    """A family of objects, and the motions that are asked of them.

    Attributes:
        family: of `generators.data.objects.families`.
        names: names of the object.
        verbs: actions that take its joints to their upper and to their lower limits.
        parts: names that `find` can give to parts, each with its `Part.whole`.
        find: the parts of one object; empty if it has no suitable one.
        style: see Style.
        shut: put all other joints at 0, where they are not in the way.
        halves: true for two equal halves on one joint, each of which turns half of the way.
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
        """All phrases of this kind."""
        amounts = tuple(AMOUNTS) if self.style == "limits" else ("",)
        return tuple(
            Phrase(verb, self.names, part, whole, amount=amount)
            for part, whole in self.parts
            for verb in self.verbs
            for amount in amounts
        )


def _only(*names: str, called: str) -> Callable[[ArticulatedObject], list[Part]]:
    """A finder of the first of these joints that an object has."""

    def find(obj: ArticulatedObject) -> list[Part]:
        have = [n for n in names if any(j.name == n for j in obj.free)]
        return [Part((have[0],), called)] if have else []

    return find


def _together(*names: str, called: str) -> Callable[[ArticulatedObject], list[Part]]:
    """A finder of all these joints together, as one part."""

    def find(obj: ArticulatedObject) -> list[Part]:
        have = {j.name for j in obj.free}
        return [Part(names, called)] if have.issuperset(names) else []

    return find


def _drawers(obj: ArticulatedObject) -> list[Part]:
    """Up to three drawers above one another, named by their height."""
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
    """A finder of one door, of two side by side as one part, or of an upper and a lower one."""

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
    """The door or the lid of a washing machine."""
    return [Part((j.name,), j.child) for j in obj.free if j.child in ("door", "lid")]


def _sashes(obj: ArticulatedObject) -> list[Part]:
    """One movable sash, or two casements; not two sliding ones, which are ambiguous."""
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
