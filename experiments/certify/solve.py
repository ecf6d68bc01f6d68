"""One problem through the planner, as a recording. Older versions of the library can run it too."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from experiments.certify.oracle.recording import Floats, Part, Recording
from experiments.certify.problems import Problem


@dataclass(frozen=True, eq=False)
class Solved:
    """Result of the planner for one problem.

    Attributes:
        recording: The returned plan; None if there is none.
        reason: Reason why there is none.
        seconds: Time that planning took.
    """

    recording: Recording | None
    reason: str
    seconds: float


def solve(problem: Problem, seed: int = 0) -> Solved:
    """The plan of a problem, without a look at whether it is good."""
    from flowplan.motion import SceneMotion
    from flowplan.planner import NoPlan, PlanOptions, plan
    from flowplan.robot import load_robot
    from flowplan.scene import Scene, SceneObject

    robot = load_robot(problem.robot, problem.X_world_base)
    room = 0.01 * (robot.upper - robot.lower)
    start = np.clip(robot.home + problem.start, robot.lower + room, robot.upper - room)
    # The target's parts are one object; obstacles do not move.
    own = [part for part in problem.parts if part.role in ("target", "fixed")]
    others = [part for part in problem.parts if part.role == "other"]
    obstacles = [part for part in problem.parts if part.role == "obstacle"]
    objects = [("target", own), *((part.name, [part]) for part in others)]
    options: dict[str, Any] = {"contact": problem.contact, "timing": problem.timing}
    scene = Scene(
        tuple(SceneObject(name, _mesh(parts)) for name, parts in objects),
        0.0,
        tuple(SceneObject(part.name, _mesh([part])) for part in obstacles),
    )
    vertices = tuple(_moved(parts, len(problem.times)) for _, parts in objects)
    motion = SceneMotion(problem.times, vertices)
    begin = time.perf_counter()
    found = plan(scene, motion, robot, options=PlanOptions(**options), seed=seed, start=start)
    seconds = time.perf_counter() - begin
    if isinstance(found, NoPlan):
        return Solved(None, found.reason, seconds)
    path = found.trajectory
    contact: Any = found.contact
    file = Path(robot.urdf_path).parent.parent / f"{problem.robot}.toml"
    recording = Recording(
        robot=str(file),
        X_world_base=problem.X_world_base,
        parts=problem.parts,
        support_height=0.0,
        flow_times=problem.times,
        kind=contact.kind[0],
        start=start,
        times=np.asarray(path.times),
        q=np.asarray(path.q),
        grip=np.asarray(path.grip),
        phase=np.asarray(path.phase, np.int64),
        X_world_tool=np.asarray(found.attachment.X_world_tool),
    )
    return Solved(recording, "", seconds)


def _mesh(parts: list[Part]) -> trimesh.Trimesh:
    """The parts as one mesh, world frame."""
    meshes = [trimesh.Trimesh(part.vertices, part.faces, process=False) for part in parts]
    whole: Any = trimesh.util.concatenate(meshes) if len(meshes) > 1 else meshes[0]
    return whole


def _moved(parts: list[Part], frames: int) -> Floats:
    """Vertices (T, V, 3) of the parts along their motion."""
    out = []
    for part in parts:
        X = part.X_since_start
        vertices = part.vertices @ np.swapaxes(X[:, :3, :3], 1, 2) + X[:, None, :3, 3]
        out.append(np.broadcast_to(vertices, (frames, *vertices.shape[1:])))
    return np.concatenate(out, axis=1)
