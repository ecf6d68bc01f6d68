"""Long calls of the nodes' workers, and the set-up before the first. No ROS in here.

Each function imports its library late, because the nodes import this module only to name functions.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
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


class Known(NamedTuple):
    """Bodies in depth frames that are no objects: for each frame the robot's configuration (J,) and
    opening (None: unknown), or None if the robot is out of view; and margins in meters."""

    arms: Sequence[tuple[FloatArray, float | None]] | None
    arm_margin: float
    obstacle_margin: float


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


def warm_scanner(robot: str, X_world_base: FloatArray, obstacles: str) -> None:
    """Load the fusion of depth frames, the robot that is in them, and the fixed obstacles from a
    file ("" for none)."""
    from flowplan.robot import load_robot
    from flowplan.scan import load_obstacles

    _loaded["robot"] = load_robot(robot, X_world_base)
    _loaded["obstacles"] = load_obstacles(obstacles) if obstacles else ()


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
    frames: Sequence[DepthFrame], known: Known, options: ScanOptions, *, progress: Progress
) -> tuple[Scene, float]:
    """Scene fused from depth frames, without the loaded robot and with the loaded obstacles, and
    the duration in seconds."""
    from flowplan.scan import scan_frames, without_obstacles, without_robot

    begun = time.perf_counter()
    robot, obstacles = _loaded["robot"], _loaded["obstacles"]
    if known.arms is not None:
        frames = [
            without_robot(frame, robot, q, width=width, margin=known.arm_margin)
            for frame, (q, width) in zip(frames, known.arms, strict=True)
        ]
    if obstacles:
        frames = [
            without_obstacles(frame, obstacles, margin=known.obstacle_margin) for frame in frames
        ]
    scene = scan_frames(frames, options, progress=progress)
    # An obstacle keeps its name; the node gives the objects theirs.
    fixed = [obstacle.name for obstacle in obstacles]
    free = (name for i in itertools.count() if (name := f"object_{i}") not in fixed)
    objects = tuple(replace(obj, name=next(free)) for obj in scene.objects)
    scene = replace(scene, objects=objects, obstacles=obstacles)
    return scene, time.perf_counter() - begun
