"""Families of this group, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generators.objects.articulated import ArticulatedObject
from generators.objects.families.faucet import faucet

FAMILIES: dict[str, Callable[[np.random.Generator], ArticulatedObject]] = {"faucet": faucet}
