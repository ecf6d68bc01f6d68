"""Instruction of a simulated task as the JSON document that `flowplan.io.instruction` reads.

It holds what the task gives to a generator, its law of motion included, and its sentence.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np

from flowplan.laws import Law
from sim_envs.task import Task, TaskSetup


def task_document(task: Task, setup: TaskSetup) -> str:
    """Document of this episode; points in the world frame, to the micrometer."""
    # The law of the instructed object, and targets if the task has any.
    action = setup.instruction
    law = next(law for law in setup.laws if law.object == action.object)
    targets = {} if action.targets is None else {"targets": _plain(action.targets)}
    return json.dumps(
        {
            "prompt": task.prompt.text,
            "object": action.object,
            "law": _law(law),
            "handles": _plain(action.handles),
        }
        | targets
        | {"duration": action.duration}
    )


def _law(law: Law) -> dict[str, Any]:
    stated = {f.name: _plain(getattr(law, f.name)) for f in fields(law) if f.name != "object"}
    return {"kind": type(law).__name__.lower()} | stated


def _plain(value: Any) -> Any:
    # Micrometers.
    return np.round(value, 6).tolist()
