"""Long calls of the nodes' workers, and the set-up before the first. No ROS in here.

Each function imports its library late, because the nodes import this module only to name functions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from flowplan.laws import Law
    from flowplan.motion import ObjectFlow, Progress, SceneMotion
    from flowplan.planner import NoPlan, Plan, PlanOptions
    from flowplan.scan import DepthFrame, ScanOptions
    from flowplan.scene import Instruction, Scene
    from flowplan.utils.checks import FloatArray

_loaded: dict[str, Any] = {}  # left by a worker's set-up for its calls


class Planned(NamedTuple):
    """A plan or the reasons for none, the robot, and the duration in seconds."""

    found: Plan | NoPlan
    robot: str
    seconds: float


class Generated(NamedTuple):
    """Motions, best first, flow sampled on the first, and the duration in seconds."""

    motions: list[SceneMotion]
    flow: ObjectFlow
    seconds: float


def warm_generator(name: str, device: str) -> None:
    """Load a generator's weights onto a device."""
    from flowplan.laws import Rigid
    from generators.registry import factory, options_type

    kind = options_type(name)
    takes_device = any(field.name == "device" for field in fields(kind))
    options = kind(device=device) if takes_device else kind()
    _loaded["generator"] = factory(name, options)
    # The weights are loaded with the first generator, whatever its law.
    _loaded["generator"]((Rigid("anything"),))


def warm_planner(robot: str, X_world_base: FloatArray) -> None:
    """Load the planner and a robot, and warm up its kinematics."""
    import flowplan.planner  # noqa: F401
    from flowplan.robot import load_robot

    # One call each of the lazily built kinematics.
    loaded = load_robot(robot, X_world_base)
    X, _ = loaded.tool_jacobian(loaded.home[None])
    loaded.inverse_kinematics(X, attempts=1)
    loaded.sphere_jacobian(loaded.home[None])
    _loaded["robot"] = loaded


def warm_scanner() -> None:
    """Load the fusion of depth frames."""
    from flowplan.scan import scan_frames  # noqa: F401


def generate_motions(
    laws: tuple[Law, ...],
    scene: Scene,
    instruction: Instruction,
    flow_points: int,
    seed: int,
    *,
    progress: Progress,
) -> Generated:
    """Motions of the loaded generator that follow an instruction, and object flow of the best."""
    from flowplan.motion import sample_flow

    begun = time.perf_counter()
    generate = _loaded["generator"](laws)
    motions = generate(scene, instruction, seed=seed, progress=progress)
    flow = sample_flow(scene, motions[0], points_per_object=flow_points, seed=seed)
    return Generated(motions, flow, time.perf_counter() - begun)


def plan_motion(
    scene: Scene,
    motion: SceneMotion,
    flow: ObjectFlow | None,
    start: Mapping[str, float],
    optimizer: str,
    options: PlanOptions,
    seed: int,
    *,
    progress: Progress,
) -> Planned:
    """Plan for the loaded robot, starting from joint positions by name. They default to its
    home."""
    from flowplan.planner import plan

    robot = _loaded["robot"]
    missing = [name for name in robot.joint_names if name not in start]
    if start and missing:
        raise ValueError(
            f"start_state.name: lacks {missing[0]!r} of {robot.name}, has {', '.join(start)}"
        )
    begun = time.perf_counter()
    q = np.array([start[name] for name in robot.joint_names]) if start else None
    found = plan(
        scene,
        motion,
        robot,
        flow=flow,
        start=q,
        optimizer=optimizer,
        options=options,
        seed=seed,
        progress=progress,
    )
    return Planned(found, robot.name, time.perf_counter() - begun)


def scan_depth(
    frames: Sequence[DepthFrame], options: ScanOptions, *, progress: Progress
) -> tuple[Scene, float]:
    """Scene fused from depth frames, and the duration in seconds."""
    from flowplan.scan import scan_frames

    begun = time.perf_counter()
    return scan_frames(frames, options, progress=progress), time.perf_counter() - begun
