"""Trajectory optimizers by name: one line each, imported when asked for.

A module listed here defines `optimize`, a function of the type `flowplan.optimizers.Optimizer`.
"""

from __future__ import annotations

import importlib

from flowplan.optimizers.protocol import Optimizer
from flowplan.utils import checks

_MODULES = {
    "lm": "flowplan.optimizers.levenberg_marquardt",
}
NAMES = tuple(_MODULES)
"""Names of all optimizers."""
DEFAULT = "lm"
"""Name of the optimizer that runs on every machine."""


def get(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by name; a callable is returned as it is.

    Args:
        optimizer: one of NAMES, or a function of the type `Optimizer`.

    Raises:
        ValueError: for an unknown name, or anything that is neither a name nor callable.
    """
    if not isinstance(optimizer, str):
        if not callable(optimizer):
            raise ValueError(
                f"optimizer: expected a name or a function, got {type(optimizer).__name__}"
            )
        return optimizer
    checks.choice("optimizer", optimizer, NAMES)
    found: Optimizer = importlib.import_module(_MODULES[optimizer]).optimize
    return found
