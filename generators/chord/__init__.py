"""CHORD: from a scene and a sentence to motions, distilled from a video model.

Lyu et al. 2026, Choreographing a World of Dynamic Objects (arXiv 2601.04194).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from generators.chord.options import Options

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.motion import Generator

INSTRUCTION: Literal["action", "prompt"] = "prompt"


def make(laws: Sequence[Law] = (), options: Options = Options()) -> Generator:
    """The generator; `laws` are ignored, since the prior stands in for them.

    Raises:
        ValueError: for a prior that does not exist.
    """
    from generators.chord.generate import from_options

    return from_options(options)
