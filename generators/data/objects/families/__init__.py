"""All families by name. A family is a function from a random generator to an object; one seed
gives one object."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import (
    appliances,
    boxes,
    computers,
    fixtures,
    furniture,
    lamps,
    openings,
    seats_and_bins,
    tools,
    toys,
)

FILES = (
    appliances,
    boxes,
    computers,
    fixtures,
    furniture,
    lamps,
    openings,
    seats_and_bins,
    tools,
    toys,
)
FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    name: family for file in FILES for name, family in file.FAMILIES.items()
}
HELD_OUT = ("microwave", "stapler", "toilet", "globe", "trash_can", "bucket")
"""Families that are never trained on, so that they can tell whether an unseen kind of object is
understood."""
HELD_OUT_SEED = 1_000_000
"""Instances from here on, of any family, are for evaluation and never trained on."""


def trained_families() -> tuple[str, ...]:
    """Every family that may be learned."""
    return tuple(f for f in FAMILIES if f not in HELD_OUT)


def make(family: str, seed: int) -> ArticulatedObject:
    """The object number `seed` of a family; the same on every machine.

    Raises:
        ValueError: for a name that is no family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(sorted(FAMILIES))}, got {family!r}")
    return FAMILIES[family](np.random.default_rng((zlib.crc32(family.encode()), seed)))
