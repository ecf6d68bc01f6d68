"""Templates of sentences that ask for a motion, and names of things: data only.

Each pool of templates has a second one that is never trained on, to test whether a sentence is
understood or only recognized. Gaps: {thing} the object, {part} the part of it that moves, {other}
where it goes, {amount} how far (empty: all the way).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """Templates that are trained on, and templates that never are."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """Names of a thing that are trained on, and names that never are.

    Sentences that are never trained on use names of both, but none of `more`, which is for training
    only.
    """

    trained: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


UNNAMED = Names(("",))
"""The name of nothing."""

AMOUNTS: dict[str, Names] = {
    "": Names(("",), ("",)),
    "half": Names(
        (" halfway", " half way"),
        (" about halfway",),
        (" half of the way", " roughly halfway", " to the halfway point"),
    ),
    "little": Names(
        (" a little", " slightly", " a bit"), (" just a little",), (" a tiny bit", " a touch")
    ),
}
"""Amounts of a motion, as they are appended to a sentence."""

WHOLE: dict[str, Pool] = {
    "open": Pool(
        (
            "open the {thing}{amount}",
            "please open the {thing}{amount}",
            "a hand opens the {thing}{amount}",
            "someone opens the {thing}{amount}",
            "the {thing} opens{amount}",
            "the {thing} is being opened{amount}",
            "opening the {thing}{amount}",
        ),
        (
            "could you open up the {thing}{amount}?",
            "get the {thing} open{amount}",
            "a robot is opening the {thing}{amount}",
        ),
    ),
    "close": Pool(
        (
            "close the {thing}{amount}",
            "please close the {thing}{amount}",
            "shut the {thing}{amount}",
            "a hand closes the {thing}{amount}",
            "someone closes the {thing}{amount}",
            "the {thing} closes{amount}",
            "the {thing} is being closed{amount}",
            "closing the {thing}{amount}",
        ),
        (
            "could you shut the {thing}{amount}?",
            "get the {thing} closed{amount}",
            "a robot is closing the {thing}{amount}",
        ),
    ),
}
PART: dict[str, Pool] = {
    "open": Pool(
        (
            "open the {part} of the {thing}{amount}",
            "open the {thing}'s {part}{amount}",
            "a hand opens the {part} of the {thing}{amount}",
            "someone opens the {part} of the {thing}{amount}",
            "the {part} of the {thing} is opening{amount}",
            "the {part} of the {thing} opens{amount}",
            "the {part} is being opened{amount}",
            "open the {part}{amount}",
        ),
        (
            "the {thing}'s {part} comes open{amount}",
            "let the {part} of the {thing} go open{amount}",
            "can you get the {part} open{amount}?",
        ),
    ),
    "close": Pool(
        (
            "close the {part} of the {thing}{amount}",
            "close the {thing}'s {part}{amount}",
            "shut the {part} of the {thing}{amount}",
            "a hand closes the {part} of the {thing}{amount}",
            "the {part} of the {thing} is closing{amount}",
            "the {part} of the {thing} closes{amount}",
            "the {part} is being closed{amount}",
            "close the {part}{amount}",
        ),
        (
            "the {thing}'s {part} goes shut{amount}",
            "let the {part} of the {thing} fall shut{amount}",
            "can you get the {part} shut{amount}?",
        ),
    ),
}
# What is said of some parts alone: by verb and by the last word of the part.
OF_PART: dict[tuple[str, str], Pool] = {
    ("open", "lid"): Pool(
        (
            "lift the {part} of the {thing}{amount}",
            "raise the {part}{amount}",
            "the {part} of the {thing} swings up{amount}",
        ),
        ("tilt the {part} of the {thing} up{amount}", "the {part} rises from the {thing}{amount}"),
    ),
    ("close", "lid"): Pool(
        (
            "lower the {part} of the {thing}{amount}",
            "fold down the {part}{amount}",
            "the {part} of the {thing} swings down{amount}",
        ),
        (
            "bring the {part} of the {thing} down{amount}",
            "the {part} sinks onto the {thing}{amount}",
        ),
    ),
    ("open", "drawer"): Pool(
        (
            "pull the {part} open{amount}",
            "pull out the {part}{amount}",
            "the {part} slides out{amount}",
            "a hand pulls out the {part} of the {thing}{amount}",
        ),
        (
            "draw the {part} out of the {thing}{amount}",
            "the {part} comes out of the {thing}{amount}",
        ),
    ),
    ("close", "drawer"): Pool(
        (
            "push the {part} shut{amount}",
            "push in the {part}{amount}",
            "the {part} slides in{amount}",
            "a hand pushes in the {part} of the {thing}{amount}",
        ),
        (
            "slide the {part} back into the {thing}{amount}",
            "the {part} goes back into the {thing}{amount}",
        ),
    ),
    ("open", "door"): Pool(
        (
            "pull the {part} open{amount}",
            "a hand pulls the {part} of the {thing} open{amount}",
            "swing the {part} open{amount}",
            "the {part} of the {thing} swings open{amount}",
        ),
        (
            "swing out the {part} of the {thing}{amount}",
            "the {part} turns away from the {thing}{amount}",
        ),
    ),
    ("close", "door"): Pool(
        (
            "push the {part} shut{amount}",
            "a hand pushes the {part} of the {thing} shut{amount}",
            "swing the {part} shut{amount}",
            "the {part} of the {thing} swings shut{amount}",
        ),
        (
            "swing the {part} of the {thing} back{amount}",
            "the {part} turns back to the {thing}{amount}",
        ),
    ),
}
OF_PART["open", "doors"], OF_PART["close", "doors"] = (
    OF_PART["open", "door"],
    OF_PART["close", "door"],
)
OF_PART["open", "lids"], OF_PART["close", "lids"] = (
    OF_PART["open", "lid"],
    OF_PART["close", "lid"],
)

POOLS: dict[str, Pool] = {
    "open": Pool((), ()),
    "close": Pool((), ()),
    "spread": Pool(
        (
            "open the {thing}{amount}",
            "open up the {thing}{amount}",
            "please open the {thing}{amount}",
            "spread the {thing}{amount}",
            "a hand opens the {thing}{amount}",
            "someone opens the {thing}{amount}",
            "the {thing} open{amount}",
            "the {thing} are opening{amount}",
            "the {thing} are being opened{amount}",
            "the {part} of the {thing} move apart{amount}",
            "spread the {part} of the {thing}{amount}",
            "opening the {thing}{amount}",
        ),
        (
            "could you open these {thing}{amount}?",
            "pull the {part} of the {thing} apart{amount}",
            "get the {thing} open{amount}",
            "a robot is opening the {thing}{amount}",
            "make the {thing} gape{amount}",
        ),
    ),
    "shut": Pool(
        (
            "close the {thing}{amount}",
            "please close the {thing}{amount}",
            "shut the {thing}{amount}",
            "a hand closes the {thing}{amount}",
            "someone closes the {thing}{amount}",
            "the {thing} close{amount}",
            "the {thing} are closing{amount}",
            "the {thing} are being closed{amount}",
            "the {part} of the {thing} come together{amount}",
            "bring the {part} of the {thing} together{amount}",
            "press the {thing} shut{amount}",
            "closing the {thing}{amount}",
        ),
        (
            "could you close these {thing}{amount}?",
            "squeeze the {part} of the {thing} together{amount}",
            "get the {thing} closed{amount}",
            "a robot is closing the {thing}{amount}",
            "make the {thing} snap shut{amount}",
        ),
    ),
    "unfold": Pool(
        (
            "unfold the {thing}{amount}",
            "open the {thing}{amount}",
            "please unfold the {thing}{amount}",
            "open out the {thing}{amount}",
            "a hand unfolds the {thing}{amount}",
            "someone unfolds the {thing}{amount}",
            "the {thing} unfold{s}{amount}",
            "the {thing} {is} being unfolded{amount}",
            "the {thing} {is} unfolding{amount}",
            "fold out the {part} of the {thing}{amount}",
            "the {part} of the {thing} {part_swings} out{amount}",
            "unfolding the {thing}{amount}",
        ),
        (
            "could you unfold the {thing}{amount}?",
            "make the {thing} ready for use{amount}",
            "flip open the {thing}{amount}",
            "a robot is unfolding the {thing}{amount}",
            "the {thing} {is} set up{amount}",
        ),
    ),
    "fold": Pool(
        (
            "fold the {thing}{amount}",
            "fold up the {thing}{amount}",
            "close the {thing}{amount}",
            "please fold the {thing}{amount}",
            "a hand folds the {thing}{amount}",
            "someone folds the {thing} up{amount}",
            "the {thing} fold{s} up{amount}",
            "the {thing} {is} being folded{amount}",
            "the {thing} {is} folding up{amount}",
            "fold in the {part} of the {thing}{amount}",
            "the {part} of the {thing} {part_swings} in{amount}",
            "folding the {thing}{amount}",
        ),
        (
            "could you fold the {thing} together{amount}?",
            "collapse the {thing}{amount}",
            "put the {thing} away flat{amount}",
            "a robot is folding the {thing}{amount}",
            "the {thing} {is} tucked together{amount}",
        ),
    ),
    "lower": Pool(
        (
            "lower the {thing}{amount}",
            "lower the head of the {thing}{amount}",
            "please lower the {thing}{amount}",
            "bring the {thing} down{amount}",
            "bend the {thing} down{amount}",
            "a hand lowers the {thing}{amount}",
            "a hand pulls the head of the {thing} down{amount}",
            "someone lowers the {thing}{amount}",
            "the {thing} is being lowered{amount}",
            "the head of the {thing} comes down{amount}",
            "the arm of the {thing} bends down{amount}",
            "move the {thing} down{amount}",
            "lowering the {thing}{amount}",
        ),
        (
            "could you pull the {thing} lower{amount}?",
            "the {thing} sinks towards the table{amount}",
            "a robot is lowering the {thing}{amount}",
            "make the {thing} hang lower{amount}",
            "dip the head of the {thing}{amount}",
        ),
    ),
    "raise": Pool(
        (
            "raise the {thing}{amount}",
            "raise the head of the {thing}{amount}",
            "please raise the {thing}{amount}",
            "bring the {thing} up{amount}",
            "bend the {thing} up{amount}",
            "a hand raises the {thing}{amount}",
            "a hand lifts the head of the {thing}{amount}",
            "someone raises the {thing}{amount}",
            "the {thing} is being raised{amount}",
            "the head of the {thing} goes up{amount}",
            "the arm of the {thing} bends up{amount}",
            "move the {thing} up{amount}",
            "raising the {thing}{amount}",
        ),
        (
            "could you push the {thing} higher{amount}?",
            "the {thing} rises from the table{amount}",
            "a robot is raising the {thing}{amount}",
            "make the {thing} stand taller{amount}",
            "heave the head of the {thing}{amount}",
        ),
    ),
    "turn on": Pool(
        (
            "turn the {thing}{amount}",
            "turn on the {thing}{amount}",
            "open the {thing}{amount}",
            "turn the {thing} to the left{amount}",
            "turn the {part} of the {thing}{amount}",
            "turn the {thing} counterclockwise{amount}",
            "please turn on the {thing}{amount}",
            "a hand turns the {thing} on{amount}",
            "a hand opens the {thing}{amount}",
            "someone turns the {part} of the {thing} to the left{amount}",
            "the {part} of the {thing} turns{amount}",
            "the {thing} is being turned on{amount}",
            "the {thing} is being opened{amount}",
            "turning on the {thing}{amount}",
        ),
        (
            "could you get the {thing} running{amount}?",
            "rotate the {part} of the {thing} anticlockwise{amount}",
            "a robot is turning the {thing} on{amount}",
            "give the {thing} a turn{amount}",
            "twist the {thing} open{amount}",
        ),
    ),
    "turn off": Pool(
        (
            "turn off the {thing}{amount}",
            "close the {thing}{amount}",
            "shut the {thing}{amount}",
            "turn the {thing} to the right{amount}",
            "turn the {part} of the {thing} to the right{amount}",
            "turn the {thing} clockwise{amount}",
            "please turn off the {thing}{amount}",
            "a hand turns the {thing} off{amount}",
            "a hand closes the {thing}{amount}",
            "someone turns the {part} of the {thing} to the right{amount}",
            "the {part} of the {thing} turns clockwise{amount}",
            "the {thing} is being turned off{amount}",
            "the {thing} is being closed{amount}",
            "turning off the {thing}{amount}",
        ),
        (
            "could you stop the {thing}{amount}?",
            "rotate the {part} of the {thing} to the right{amount}",
            "a robot is turning the {thing} off{amount}",
            "tighten the {thing}{amount}",
            "twist the {thing} shut{amount}",
        ),
    ),
    "put on": Pool(
        (
            "put the {thing} on the {other}",
            "put the {thing} onto the {other}",
            "place the {thing} on the {other}",
            "set the {thing} on the {other}",
            "move the {thing} onto the {other}",
            "please put the {thing} on the {other}",
            "a hand puts the {thing} on the {other}",
            "a hand picks up the {thing} and puts it on the {other}",
            "pick up the {thing} and place it on the {other}",
            "someone places the {thing} on the {other}",
            "the {thing} is put on the {other}",
            "the {thing} is lifted onto the {other}",
        ),
        (
            "could you set the {thing} down on the {other}?",
            "the {thing} belongs on the {other}, carry it there",
            "a robot takes the {thing} and drops it off on the {other}",
            "transfer the {thing} to the top of the {other}",
            "lay the {thing} upon the {other}",
        ),
    ),
    "put in": Pool(
        (
            "put the {thing} in the {other}",
            "put the {thing} into the {other}",
            "place the {thing} in the {other}",
            "set the {thing} inside the {other}",
            "move the {thing} into the {other}",
            "please put the {thing} in the {other}",
            "a hand puts the {thing} in the {other}",
            "a hand picks up the {thing} and puts it in the {other}",
            "pick up the {thing} and place it in the {other}",
            "someone places the {thing} in the {other}",
            "the {thing} is put into the {other}",
            "the {thing} is lifted into the {other}",
        ),
        (
            "could you drop the {thing} in the {other}?",
            "the {thing} belongs in the {other}, carry it there",
            "a robot takes the {thing} and lets it down into the {other}",
            "transfer the {thing} to the inside of the {other}",
            "store the {thing} within the {other}",
        ),
    ),
    "stack": Pool(
        (
            "stack the {thing} on the {other}",
            "stack the {thing} on top of the {other}",
            "put the {thing} on top of the {other}",
            "place the {thing} on top of the {other}",
            "set the {thing} on top of the {other}",
            "please stack the {thing} on the {other}",
            "a hand stacks the {thing} on the {other}",
            "a hand picks up the {thing} and stacks it on the {other}",
            "pick up the {thing} and stack it on the {other}",
            "someone stacks the {thing} on the {other}",
            "the {thing} is stacked on the {other}",
            "build a tower with the {thing} on the {other}",
        ),
        (
            "could you pile the {thing} onto the {other}?",
            "the {thing} goes on top, the {other} stays below",
            "a robot is stacking the {thing} over the {other}",
            "make a pile of the {other} with the {thing} above",
            "balance the {thing} upon the {other}",
        ),
    ),
    "push": Pool(
        (
            "push the {thing} against the {other}",
            "push the {thing} to the {other}",
            "push the {thing} towards the {other}",
            "slide the {thing} to the {other}",
            "slide the {thing} against the {other}",
            "please push the {thing} against the {other}",
            "a hand pushes the {thing} against the {other}",
            "a hand slides the {thing} to the {other}",
            "someone pushes the {thing} towards the {other}",
            "the {thing} is pushed against the {other}",
            "the {thing} slides up to the {other}",
            "move the {thing} along the table to the {other}",
        ),
        (
            "could you shove the {thing} up to the {other}?",
            "nudge the {thing} until it touches the {other}",
            "a robot is sliding the {thing} next to the {other}",
            "the {thing} moves over the table and meets the {other}",
            "bring the {thing} up against the {other} without lifting it",
        ),
    ),
    "fold in half": Pool(
        (
            "fold the {thing} in half",
            "fold the {thing}",
            "please fold the {thing} in half",
            "fold one side of the {thing} over the other",
            "fold the {thing} edge to edge",
            "a hand folds the {thing} in half",
            "someone folds the {thing} down the middle",
            "the {thing} is folded in half",
            "the {thing} is being folded in half",
            "the {thing} folds in half",
            "one half of the {thing} is laid over the other",
            "folding the {thing} in half",
        ),
        (
            "could you halve the {thing} by folding it?",
            "double the {thing} over along its middle",
            "a robot is folding the {thing} once across",
            "bring one edge of the {thing} onto the edge across from it",
            "make the {thing} half as big by a fold",
        ),
    ),
    "fold diagonally": Pool(
        (
            "fold the {thing} diagonally",
            "please fold the {thing} diagonally",
            "fold the {thing} along its diagonal",
            "fold the {thing} into a triangle",
            "fold the {thing} corner to corner",
            "fold one corner of the {thing} onto the opposite corner",
            "a hand folds the {thing} diagonally",
            "someone folds the {thing} into a triangle",
            "the {thing} is folded diagonally",
            "the {thing} is being folded along its diagonal",
            "a corner of the {thing} is laid on the one across from it",
            "folding the {thing} diagonally",
        ),
        (
            "could you make a triangle of the {thing}?",
            "bring two opposite corners of the {thing} together",
            "a robot is folding the {thing} on the diagonal",
            "crease the {thing} from corner to corner",
            "turn the {thing} into a triangle with one fold",
        ),
    ),
}
"""Templates by verb; for opening and closing see WHOLE, PART and OF_PART."""
