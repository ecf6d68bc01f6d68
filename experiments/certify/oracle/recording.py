"""A plan and its scene as plain arrays, whichever version of the planner made it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUPPORT = "support"
"""Name of the support plane in findings."""


@dataclass(frozen=True, eq=False)
class Part:
    """A rigid body of the scene.

    Attributes:
        name: Unique.
        vertices: (V, 3) at t = 0, world frame, meters.
        faces: (F, 3) indices.
        X_since_start: (T, 4, 4) motion since t = 0, world frame; (1, 4, 4) if it never moves.
        role: "target" for what the robot moves, "fixed" for the rest of the target's object,
            "other" for another object, "obstacle" for what cannot move.
    """

    name: str
    vertices: Floats
    faces: NDArray[np.int64]
    X_since_start: Floats
    role: str


@dataclass(frozen=True, eq=False)
class Recording:
    """One returned plan, and the problem that it solves.

    Attributes:
        robot: Path of the robot's .toml file.
        X_world_base: (4, 4).
        parts: All bodies; one of them is the target.
        support_height: z of the support plane, meters; None without one.
        flow_times: (T,) seconds of the motions of the parts.
        kind: "grasp" or "push".
        start: (J,) configuration before the plan.
        times, q, grip, phase: (S,), (S, J), (S,), (S,) samples, linear in between. The phases are
            0 approach, 1 grip, 2 manipulate, 3 release, 4 retreat; the last two may be missing.
        X_world_tool: (T, 4, 4) tool poses that follow the motion of the target.
    """

    robot: str
    X_world_base: Floats
    parts: tuple[Part, ...]
    support_height: float | None
    flow_times: Floats
    kind: str
    start: Floats
    times: Floats
    q: Floats
    grip: Floats
    phase: NDArray[np.int64]
    X_world_tool: Floats

    @property
    def target(self) -> Part:
        """The body that the robot moves."""
        (target,) = (part for part in self.parts if part.role == "target")
        return target

    def changed(self, **fields: Any) -> Recording:
        """The recording with other fields."""
        return replace(self, **fields)


_ARRAYS = ("X_world_base", "flow_times", "start", "times", "q", "grip", "phase", "X_world_tool")


def save(recording: Recording, path: Path) -> None:
    """Write a recording as .npz, without pickle."""
    arrays = {name: getattr(recording, name) for name in _ARRAYS}
    for i, part in enumerate(recording.parts):
        arrays |= {f"vertices{i}": part.vertices, f"faces{i}": part.faces}
        arrays[f"motion{i}"] = part.X_since_start
    words = {
        "robot": recording.robot,
        "kind": recording.kind,
        "support_height": recording.support_height,
        "parts": [[part.name, part.role] for part in recording.parts],
    }
    np.savez_compressed(path, words=np.array(json.dumps(words)), **arrays)


def load(path: Path) -> Recording:
    """Read a recording."""
    with np.load(path, allow_pickle=False) as data:
        words = json.loads(str(data["words"]))
        parts = tuple(
            Part(name, data[f"vertices{i}"], data[f"faces{i}"], data[f"motion{i}"], role)
            for i, (name, role) in enumerate(words["parts"])
        )
        arrays = {name: data[name] for name in _ARRAYS}
    return Recording(
        robot=words["robot"],
        kind=words["kind"],
        support_height=words["support_height"],
        parts=parts,
        **arrays,
    )
