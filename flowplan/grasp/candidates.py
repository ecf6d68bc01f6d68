"""Candidate contacts between gripper and object; sorting, merging and removal of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import angle_between
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

ContactKind = Literal["grasp", "push", "pinch"]

_HALF_TURN = np.diag([-1.0, -1.0, 1.0])
"""Rotation by 180 degrees about the approach axis; a parallel gripper looks the same after it."""


@dataclass(frozen=True, eq=False)
class ContactCandidates:
    """G candidate contacts at t = 0, best first.

    Attributes:
        X_world_tool: (G, 4, 4); the tool frame's origin lies between the fingertips, z approaches,
            y closes.
        width: (G,) finger opening before closing, meters (0 for a push with closed fingers).
        score: (G,) descending, comparable within one record only.
        kind: (G,) "grasp" (object between the pads), "push" (closed fingertips against a surface)
            or "pinch" (edge of a cloth between the fingertips).
        object_id: (G,) index of the touched object in the scene.
    """

    X_world_tool: FloatArray
    width: FloatArray
    score: FloatArray
    kind: tuple[ContactKind, ...]
    object_id: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        name = type(self).__name__
        X = np.asarray(self.X_world_tool, float)
        X = checks.poses(f"{name}.X_world_tool", X, ("G", 4, 4)) if X.size else X.reshape(0, 4, 4)
        count = len(X)
        width = checks.array(f"{name}.width", self.width, (count,))
        score = checks.array(f"{name}.score", self.score, (count,))
        object_id = np.asarray(self.object_id, np.int64)
        if not object_id.size:
            object_id = np.zeros(count, np.int64)
        object_id = checks.array(f"{name}.object_id", object_id, (count,), dtype=np.int64)
        kind = tuple(self.kind)
        if len(kind) != count:
            raise ValueError(f"{name}.kind: expected {count} entries, got {len(kind)}")
        for entry in kind:
            checks.choice(f"{name}.kind", entry, get_args(ContactKind))
        if np.any(np.diff(score) > 0):
            raise ValueError(f"{name}.score: expected descending scores; sort them, best first")
        checked = {
            "X_world_tool": X,
            "width": width,
            "score": score,
            "kind": kind,
            "object_id": object_id,
        }
        for attribute, value in checked.items():
            object.__setattr__(self, attribute, value)

    def __len__(self) -> int:
        return len(self.width)

    def select(self, index: NDArray[np.int64] | list[int]) -> ContactCandidates:
        """The candidates at `index`, which must keep the scores descending."""
        index = np.asarray(index, np.int64)
        return ContactCandidates(
            self.X_world_tool[index],
            self.width[index],
            self.score[index],
            tuple(self.kind[i] for i in index),
            self.object_id[index],
        )


@dataclass(frozen=True, eq=False)
class Proposal:
    """Proposed contacts, and the number of candidates left after each stage of the search.

    Attributes:
        candidates: Best first; empty if nothing was found.
        funnel: (stage, candidates left after it), in order.
    """

    candidates: ContactCandidates
    funnel: tuple[tuple[str, int], ...]

    @property
    def reason(self) -> str:
        """One-line reason for an empty proposal; empty if there are candidates."""
        if len(self.candidates):
            return ""
        stage = next((name for name, left in self.funnel if left == 0), "no stage ran")
        counts = ", ".join(f"{name}: {left}" for name, left in self.funnel)
        return f"no candidate left after '{stage}' ({counts})"


def no_candidates() -> ContactCandidates:
    """An empty set of candidates."""
    return ContactCandidates(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0), ())


def best_first(
    X_world_tool: FloatArray,
    width: FloatArray,
    score: FloatArray,
    kind: ContactKind,
    object_id: int,
) -> ContactCandidates:
    """Candidates of one kind on one object, sorted by descending score."""
    count = len(X_world_tool)
    if not count:
        return no_candidates()
    order = np.argsort(-score, kind="stable")
    return ContactCandidates(
        X_world_tool[order],
        width[order],
        score[order],
        (kind,) * count,
        np.full(count, object_id),
    )


def merge(found: Sequence[ContactCandidates]) -> ContactCandidates:
    """Several sets of candidates as one, sorted by the scores that they came with."""
    found = [candidates for candidates in found if len(candidates)]
    if not found:
        return no_candidates()
    score = np.concatenate([candidates.score for candidates in found])
    order = np.argsort(-score, kind="stable")
    # Stable: equal scores keep the order of the sets.
    kinds = [kind for candidates in found for kind in candidates.kind]
    return ContactCandidates(
        np.concatenate([candidates.X_world_tool for candidates in found])[order],
        np.concatenate([candidates.width for candidates in found])[order],
        score[order],
        tuple(kinds[i] for i in order),
        np.concatenate([candidates.object_id for candidates in found])[order],
    )


def spread(
    X_world_tool: FloatArray, score: FloatArray, count: int, *, distance: float, angle: float
) -> NDArray[np.int64]:
    """Indices of up to `count` poses, best first, without near duplicates.

    Non-maximum suppression in pose space: in order of descending score, a pose within both
    `distance` meters and `angle` radians of a selected one is skipped. Rotations by 180 degrees
    about the approach axis count as equal. If fewer than `count` poses remain, the best skipped
    ones fill up.
    """
    order = np.argsort(-score, kind="stable")
    X = X_world_tool[order]
    alive = np.ones(len(X), bool)
    taken: list[int] = []
    for i in range(len(X)):
        if not alive[i]:
            continue
        taken.append(i)
        if len(taken) == count:
            break
        # Suppress every pose close to this one, in position and then in orientation.
        near = alive & (np.linalg.norm(X[:, :3, 3] - X[i, :3, 3], axis=1) < distance)
        rows = np.flatnonzero(near)
        if np.isfinite(angle):
            R_i, R = X[i, :3, :3], X[rows, :3, :3]
            turn = np.minimum(angle_between(R_i, R), angle_between(R_i @ _HALF_TURN, R))
            rows = rows[turn < angle]
        alive[rows] = False
    # Too few distinct poses: fill up with the best suppressed ones.
    if len(taken) < count:
        skipped = np.setdiff1d(np.arange(len(X)), taken)
        taken = sorted(taken + skipped[: count - len(taken)].tolist())
    return order[taken]
