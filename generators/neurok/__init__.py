"""NeuROK: from a static mesh and an action to motion, through a learned space of states.

Importing this package is light; the network and torch are imported by `make`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from generators.neurok.options import NeurokOptions as Options

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.motion import Generator

__all__ = ["INSTRUCTION", "Options", "make"]

INSTRUCTION: Literal["action", "prompt"] = "action"


def make(laws: Sequence[Law] = (), options: Options | None = None) -> Generator:
    """The generator (see `generators.neurok.generate.neurok`).

    Args:
        laws: ignored: the network has learned how objects move.
        options: see Options. Defaults to its defaults.
    """
    from generators.neurok.generate import neurok

    return neurok(laws, options or Options())
