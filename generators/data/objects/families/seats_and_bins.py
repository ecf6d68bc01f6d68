"""Families of seats and of containers by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families.seats import folding_chair, swivel_chair, toilet
from generators.data.objects.families.suitcases import suitcase
from generators.data.objects.families.vessels import bucket, kettle, trash_can

FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {
    "folding_chair": folding_chair,
    "swivel_chair": swivel_chair,
    "toilet": toilet,
    "bucket": bucket,
    "trash_can": trash_can,
    "kettle": kettle,
    "suitcase": suitcase,
}
