"""Candidate contacts between a gripper and an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

ContactKind = Literal["grasp", "push", "pinch"]


@dataclass(frozen=True, eq=False)
class ContactCandidates:
    """G candidate contacts at t = 0, best first.

    Attributes:
        X_world_tool: (G, 4, 4); the tool frame's origin lies between the fingertips, z approaches, y closes.
        width: (G,) metres the fingers are apart before closing (0 for a push with closed fingers).
        score: (G,) descending, comparable within one record only.
        kind: (G,) "grasp", "push", or "pinch" (the edge of a cloth between the fingertips).
        object_id: (G,) index of the touched object in the scene.
    """

    X_world_tool: FloatArray
    width: FloatArray
    score: FloatArray
    kind: tuple[ContactKind, ...]
    object_id: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        X = np.asarray(self.X_world_tool, float)
        X = (
            checks.poses("ContactCandidates.X_world_tool", X, ("G", 4, 4))
            if X.size
            else X.reshape(0, 4, 4)
        )
        count = len(X)
        object_id = np.asarray(self.object_id, np.int64)
        if not object_id.size:
            object_id = np.zeros(count, np.int64)
        values = {"X_world_tool": X, "kind": tuple(self.kind)}
        for name, raw in (("width", self.width), ("score", self.score), ("object_id", object_id)):
            dtype = np.int64 if name == "object_id" else np.float64
            values[name] = checks.array(f"ContactCandidates.{name}", raw, (count,), dtype=dtype)
        if len(values["kind"]) != count:
            raise ValueError(
                f"ContactCandidates.kind: expected {count} entries, got {len(values['kind'])}"
            )
        for kind in values["kind"]:
            checks.choice("ContactCandidates.kind", kind, get_args(ContactKind))
        if np.any(np.diff(values["score"]) > 0):
            raise ValueError(
                "ContactCandidates.score: expected descending scores; sort the grasps best first"
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.width)

    def select(self, index: NDArray[np.int64] | list[int]) -> ContactCandidates:
        """The grasps at `index` (already in descending score)."""
        index = np.asarray(index, np.int64)
        return ContactCandidates(
            self.X_world_tool[index],
            self.width[index],
            self.score[index],
            tuple(self.kind[i] for i in index),
            self.object_id[index],
        )
