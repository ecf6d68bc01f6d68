"""What a proposer found, and at which stage the others fell: an empty answer that says why it is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import angle_between
from flowplan.grasp.records import ContactCandidates, ContactKind
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Proposal:
    """ContactCandidates, and how many candidates were left after each stage.

    Attributes:
        grasps: best first; empty where nothing was found.
        funnel: (stage, candidates left after it), in order.
    """

    grasps: ContactCandidates
    funnel: tuple[tuple[str, int], ...]

    @property
    def reason(self) -> str:
        """Why there is no grasp, in one line; empty where there is one."""
        if len(self.grasps):
            return ""
        stage = next((name for name, left in self.funnel if left == 0), "no stage ran")
        counts = ", ".join(f"{name}: {left}" for name, left in self.funnel)
        return f"no candidate left after '{stage}' ({counts})"


def no_candidates() -> ContactCandidates:
    """Grasps of length 0."""
    return ContactCandidates(np.zeros((0, 4, 4)), np.zeros(0), np.zeros(0), ())


def best_first(
    X: FloatArray, width: FloatArray, score: FloatArray, kind: ContactKind, object_id: int
) -> ContactCandidates:
    """Candidates of one kind on one object as ContactCandidates, sorted by descending score."""
    if not len(X):
        return no_candidates()
    order = np.argsort(-score, kind="stable")
    return ContactCandidates(
        X[order], width[order], score[order], (kind,) * len(X), np.full(len(X), object_id)
    )


def merge(found: Sequence[ContactCandidates]) -> ContactCandidates:
    """Several records as one, best first by the scores they came with."""
    found = [g for g in found if len(g)]
    if not found:
        return no_candidates()
    score = np.concatenate([g.score for g in found])
    order = np.argsort(-score, kind="stable")
    kinds = [kind for g in found for kind in g.kind]
    return ContactCandidates(
        np.concatenate([g.X_world_tool for g in found])[order],
        np.concatenate([g.width for g in found])[order],
        score[order],
        tuple(kinds[i] for i in order),
        np.concatenate([g.object_id for g in found])[order],
    )


def spread(
    X_world_tool: FloatArray, score: FloatArray, count: int, *, distance: float, angle: float
) -> NDArray[np.int64]:
    """Indices of up to `count` poses, best first, no two of them nearly the same.

    Non-maximum suppression in pose space: going down in score, a pose within both `distance` metres and `angle` radians
    of one already taken is passed over. A parallel gripper turned half about its approach axis is the same grasp. When
    fewer than `count` are left so, the best of those passed over fill up.
    """
    order = np.argsort(-score, kind="stable")
    X = X_world_tool[order]
    half_turn = np.diag([-1.0, -1.0, 1.0])
    alive = np.ones(len(X), bool)
    taken: list[int] = []
    for i in range(len(X)):
        if not alive[i]:
            continue
        taken.append(i)
        if len(taken) == count:
            break
        near = alive & (np.linalg.norm(X[:, :3, 3] - X[i, :3, 3], axis=1) < distance)
        rows = np.flatnonzero(near)
        R = X[rows, :3, :3]
        if np.isfinite(angle):
            turn = np.minimum(
                angle_between(X[i, :3, :3], R), angle_between(X[i, :3, :3] @ half_turn, R)
            )
            rows = rows[turn < angle]
        alive[rows] = False
    if len(taken) < count:
        passed = np.setdiff1d(np.arange(len(X)), taken)
        taken = sorted(taken + passed[: count - len(taken)].tolist())
    return order[taken]
