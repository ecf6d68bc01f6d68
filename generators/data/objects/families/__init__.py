"""All families of objects by name.

A family is a function from a random generator to an object; one seed gives one object.
"""

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
"""Families left out of training, to measure generalization to unseen kinds of objects."""
HELD_OUT_SEED = 1_000_000
"""First seed of the objects of any family that are left out of training, for evaluation."""


def trained_families() -> tuple[str, ...]:
    """Names of the families used for training."""
    return tuple(f for f in FAMILIES if f not in HELD_OUT)


def make(family: str, seed: int) -> ArticulatedObject:
    """Object of a family for a seed; the same on every machine.

    Raises:
        ValueError: Unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(sorted(FAMILIES))}, got {family!r}")
    return FAMILIES[family](np.random.default_rng((zlib.crc32(family.encode()), seed)))
