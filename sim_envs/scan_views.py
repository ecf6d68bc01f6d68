"""Simulated depth images of a task from cameras all around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.depth.noise import NoiseOptions
from flowplan.utils.checks import FloatArray
from sim_envs.camera import capture, views_around
from sim_envs.task import TaskSetup
from sim_envs.world import World

VIEWS = 8
"""Number of depth images in a scan."""
STAND_OFF = 0.75
"""Distance of the cameras from the middle of the scanned objects, meters."""


def capture_views(world: World, setup: TaskSetup, *, seed: int) -> list[DepthFrame]:
    """Noisy depth images of a task from all around, the robot filtered out.

    The mask numbers the objects 1, 2, ... in the order of `setup.scan_ids`. The simulator's
    segmentation replaces a segmenter.
    """
    ids, noise = list(setup.scan_ids.values()), scan_noise(setup)
    unseen = [name for name, body in world.bodies.items() if name == "robot"]
    frames = []
    for i, X_world_camera in enumerate(viewpoints(world, setup)):
        frame = capture(world, X_world_camera, noise=noise, seed=VIEWS * seed + i, unseen=unseen)
        # Number the objects by the order of the scan ids.
        mask = np.zeros_like(frame.mask)
        for number, body in enumerate(ids, 1):
            mask[frame.mask == body] = number
        frames.append(replace(frame, mask=mask))
    return frames


def viewpoints(world: World, setup: TaskSetup, count: int = VIEWS) -> FloatArray:
    """Camera poses (count, 4, 4) all around the task's objects."""
    middle = np.mean([_middle(world, body) for body in setup.scan_ids.values()], axis=0)
    return views_around(middle, count, STAND_OFF)


def scan_noise(setup: TaskSetup) -> NoiseOptions:
    """Depth noise of this episode."""
    usual = NoiseOptions()
    scale = setup.randomized["scan_noise"]
    return replace(
        usual,
        disparity_sigma=scale * usual.disparity_sigma,
        lateral_sigma=scale * usual.lateral_sigma,
    )


def _middle(world: World, body: int) -> FloatArray:
    """Center (3,) of a body's bounding box, or of a cloth's vertices."""
    if world.is_cloth(body):
        return world.cloth_vertices(body).mean(axis=0)
    # Union of the links' boxes.
    boxes = np.array(
        [world.bullet.getAABB(body, i) for i in range(-1, world.bullet.getNumJoints(body))]
    )
    return (boxes[:, 0].min(axis=0) + boxes[:, 1].max(axis=0)) / 2
