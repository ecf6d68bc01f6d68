"""Throughput of grasp proposal: antipodal pairs, collision checks, best grasps of an object.

The objects are procedural, half of them roughened and evenly triangulated like a scan, and any
meshes that the caller adds. Every figure is that of the slowest object: the median over repeats,
warm, in one process. Half of the checked poses are grasps, for which every point must be checked;
the other half are random.
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
        meshes: (name, mesh) of further objects, meters, z up.
        robot: Robot whose gripper is used.
        repeats: Timed runs per object, after one untimed run.
        seed: Random seed of the shapes' roughness and the sampling.
        progress: Called with the fraction done and the object's name.

    Returns:
        JSON records, with n the number of objects times repeats.
    """
    gripper = load_robot(robot).gripper
    pairs_per_s, checked_per_s, top100_s = [], [], []
    objects = [*_shapes(seed), *meshes]
    for i, (name, mesh) in enumerate(objects):
        progress(i / len(objects), name)
        obj = SceneObject(name, mesh, pose(translation=[0.5, 0.0, -mesh.bounds[0, 2]]))
        scene = Scene((obj,))
        rng = np.random.default_rng(seed)
        # Antipodal pairs of a cloud.
        cloud = object_cloud(obj, gripper, rng)
        found, seconds = _timed(
            partial(antipodal_pairs, obj, cloud, rng, samples=20_000, friction=0.5), repeats
        )
        pairs_per_s.append(len(found) / seconds)

        # The whole proposal, from surface to ranked grasps.
        grasps, seconds = _timed(partial(propose_grasps, obj, scene, gripper, seed=seed), repeats)
        top100_s.append(seconds)

        # Half grasps, half random poses, with an almost open gripper.
        kept = np.resize(grasps.X_world_tool, (1000, 4, 4))
        X = np.concatenate([kept, _poses_around(obj, 1000, rng)])  # (2000, 4, 4)
        width = np.full(len(X), 0.9 * gripper.max_width)
        boxes = gripper_boxes(gripper, width).approached(0.06)
        _, seconds = _timed(partial(clear_of_points, X, boxes, cloud.points), repeats)
        checked_per_s.append(len(X) / seconds)
    n = len(objects) * repeats
    return [
        record("grasp/pairs_per_s", min(pairs_per_s), "1/s", "up", n),
        record("grasp/checked_per_s", min(checked_per_s), "1/s", "up", n),
        record("grasp/top100_s", max(top100_s), "s", "down", n),
    ]


def _timed(run: Callable[[], Result], repeats: int) -> tuple[Result, float]:
    """The last result of `run`, and its median duration in seconds after a first run."""
    result = run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def _poses_around(obj: SceneObject, count: int, rng: np.random.Generator) -> FloatArray:
    """Random tool poses (G, 4, 4) with origins within the object's bounds."""
    low, high = obj.vertices_world.min(0), obj.vertices_world.max(0)
    # Rotations from random orthogonal matrices, reflections flipped.
    R = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]  # (G, 3, 3)
    R[:, :, 0] *= np.linalg.det(R)[:, None]
    return pose(R, rng.uniform(low, high, (count, 3)))


def _shapes(seed: int) -> list[tuple[str, trimesh.Trimesh]]:
    """Box, can, ball, cup and hammer; box, cup and hammer roughened like a scan."""
    # Profile of the cup's wall, revolved about z; a hammer as one body.
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
    """The mesh with small even triangles and 0.7 mm of noise along the normals."""
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, max_edge=0.006)
    fine = trimesh.Trimesh(vertices, faces)
    noise = 0.0007 * np.random.default_rng(seed).normal(size=(len(fine.vertices), 1))  # (V, 1)
    return trimesh.Trimesh(fine.vertices + noise * fine.vertex_normals, fine.faces, process=False)
