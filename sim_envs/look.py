"""What the depth camera sees of a task: noisy images from all around."""

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
"""Depth images that make a scan."""
STAND_OFF = 0.75
"""Metres between the depth camera and the middle of what it scans."""


def look(world: World, setup: TaskSetup, *, seed: int) -> list[DepthFrame]:
    """Noisy depth images from all around what the task is about; the robot is filtered out of them.

    Each pixel carries which object it shows, 1, 2, ... in the order of `setup.scan_ids`: the simulator's own
    segmentation stands in for a segmenter.
    """
    ids, noise = list(setup.scan_ids.values()), scan_noise(setup)
    unseen = [name for name, body in world.bodies.items() if name == "robot"]
    frames = []
    for i, X_world_camera in enumerate(viewpoints(world, setup)):
        frame = capture(world, X_world_camera, noise=noise, seed=VIEWS * seed + i, unseen=unseen)
        mask = np.zeros_like(frame.mask)
        for number, body in enumerate(ids, 1):
            mask[frame.mask == body] = number
        frames.append(replace(frame, mask=mask))
    return frames


def viewpoints(world: World, setup: TaskSetup, count: int = VIEWS) -> FloatArray:
    """Camera poses (count, 4, 4) that look at what the task is about from all around."""
    middle = np.mean([_middle(world, body) for body in setup.scan_ids.values()], axis=0)
    return views_around(middle, count, STAND_OFF)


def scan_noise(setup: TaskSetup) -> NoiseOptions:
    """What this episode's depth camera does to depth."""
    usual, scale = NoiseOptions(), setup.randomised["scan_noise"]
    return replace(
        usual,
        disparity_sigma=scale * usual.disparity_sigma,
        lateral_sigma=scale * usual.lateral_sigma,
    )


def _middle(world: World, body: int) -> FloatArray:
    if world.is_cloth(body):
        return world.cloth_vertices(body).mean(axis=0)
    boxes = np.array(
        [world.bullet.getAABB(body, i) for i in range(-1, world.bullet.getNumJoints(body))]
    )
    return (boxes[:, 0].min(axis=0) + boxes[:, 1].max(axis=0)) / 2
