"""How fast grasps are found: antipodal pairs, collision-checked poses, and the hundred best of an object.

Objects are procedural, half of them roughened and evenly triangulated as a scan would be, and any meshes the caller
adds (the simulator's scanned objects). Every figure is the median over repeats of the slowest object, warm, in one
process. Half of the poses that are checked are grasps, whose every point has to be looked at; half are anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import trimesh

from flowplan.geometry import pose
from flowplan.grasp.antipodal import antipodal_pairs
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes
from flowplan.grasp.propose import propose_grasps
from flowplan.grasp.surface import object_cloud
from flowplan.motion import Progress, silent
from flowplan.robot import load_robot
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from flowplan.utils.records import record

Record = dict[str, Any]
Result = TypeVar("Result")


def bench_grasp(
    meshes: Sequence[tuple[str, trimesh.Trimesh]] = (),
    *,
    robot: str = "panda",
    repeats: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Record]:
    """Throughput of the grasp proposer.

    Args:
        meshes: (name, mesh) of further objects, metres, z up.
        robot: whose gripper is used.
        repeats: timed runs per object, after one that is not timed.
        seed: of the shapes' roughness and of the sampling.
        progress: called with the fraction done and a word.

    Returns:
        Records {key, value, unit, direction, n}, n the number of objects times repeats.
    """
    gripper = load_robot(robot).gripper
    pairs, checked, top = [], [], []
    objects = [*_shapes(seed), *meshes]
    for i, (name, mesh) in enumerate(objects):
        progress(i / len(objects), name)
        obj = SceneObject(name, mesh, pose(translation=[0.5, 0.0, -mesh.bounds[0, 2]]))
        scene = Scene((obj,))
        rng = np.random.default_rng(seed)
        cloud = object_cloud(obj, gripper, rng)
        found, seconds = _timed(
            partial(antipodal_pairs, obj, cloud, rng, samples=20_000, friction=0.5), repeats
        )
        pairs.append(len(found) / seconds)
        grasps, seconds = _timed(partial(propose_grasps, obj, scene, gripper, seed=seed), repeats)
        top.append(seconds)
        X = np.concatenate(
            [np.resize(grasps.X_world_tool, (1000, 4, 4)), _poses_around(obj, 1000, rng)]
        )
        boxes = gripper_boxes(gripper, np.full(len(X), 0.9 * gripper.max_width)).approached(0.06)
        _, seconds = _timed(partial(clear_of_points, X, boxes, cloud.points), repeats)
        checked.append(len(X) / seconds)
    n = len(objects) * repeats
    return [
        record("grasp/pairs_per_s", min(pairs), "1/s", "up", n),
        record("grasp/checked_per_s", min(checked), "1/s", "up", n),
        record("grasp/top100_s", max(top), "s", "down", n),
    ]


def _timed(run: Callable[[], Result], repeats: int) -> tuple[Result, float]:
    """What `run` returned last, and the median seconds it took after a first run."""
    result = run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def _poses_around(obj: SceneObject, count: int, rng: np.random.Generator) -> FloatArray:
    """Tool poses (G, 4, 4) with the tool's origin within the object's bounds and any orientation."""
    low, high = obj.vertices_world.min(0), obj.vertices_world.max(0)
    R = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    R[:, :, 0] *= np.linalg.det(R)[:, None]
    return pose(R, rng.uniform(low, high, (count, 3)))


def _shapes(seed: int) -> list[tuple[str, trimesh.Trimesh]]:
    """Box, can, ball, cup and hammer; box, cup and hammer as a scanner would return them."""
    cup = np.array([[0, 0], [0.035, 0], [0.035, 0.09], [0.031, 0.09], [0.031, 0.004], [0, 0.004]])
    handle = trimesh.creation.box([0.2, 0.025, 0.025])
    head = trimesh.creation.box([0.04, 0.09, 0.04])
    head.apply_transform(pose(translation=[0.1, 0, 0]))
    hammer = trimesh.boolean.union([handle, head], engine="manifold")
    return [
        ("box", _scanned(trimesh.creation.box([0.05, 0.08, 0.12]), seed)),
        ("can", trimesh.creation.cylinder(0.03, 0.12)),
        ("ball", trimesh.creation.icosphere(4, 0.03)),
        ("cup", _scanned(trimesh.creation.revolve(cup, sections=48), seed)),
        ("hammer", _scanned(hammer, seed)),
    ]


def _scanned(mesh: trimesh.Trimesh, seed: int) -> trimesh.Trimesh:
    """Small even triangles with 0.7 mm of noise along the normals."""
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, max_edge=0.006)
    fine = trimesh.Trimesh(vertices, faces)
    noise = 0.0007 * np.random.default_rng(seed).normal(size=(len(fine.vertices), 1))
    return trimesh.Trimesh(fine.vertices + noise * fine.vertex_normals, fine.faces, process=False)
