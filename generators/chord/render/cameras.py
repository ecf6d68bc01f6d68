"""Cameras around a scene, and the frame of reference that they share.

Every camera looks at the middle of what may move, from a distance at which a ball of `margin` times the scene's radius
fills its view. What a camera sees depends on nothing else, so a model of videos rendered this way (`generators.chord.
choreographer`) sees at distillation what it saw at training. A camera's heading frame is the world turned about z until x
points to the camera's right and y along its view; "to the left" means the same in it from wherever the camera looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from generators.chord.options import CameraOptions

_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True, eq=False)
class Framing:
    """What cameras look at: a ball around what may move.

    Attributes:
        center: (3,) world frame, meters.
        radius: meters.
    """

    center: FloatArray
    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "center", checks.array("Framing.center", self.center, (3,)))
        checks.positive("Framing.radius", self.radius)


@dataclass(frozen=True, eq=False)
class Cameras:
    """V pinhole cameras in OpenCV's convention: x right, y down, z forward.

    Attributes:
        viewmats: (V, 4, 4) X_camera_world.
        Ks: (V, 3, 3) pixels; the center of the first pixel is at (0.5, 0.5).
        width, height: pixels.
        heading: (V,) angle of the horizontal part of the view from the world's x axis about z, radians.
    """

    viewmats: FloatArray
    Ks: FloatArray
    width: int
    height: int
    heading: FloatArray

    @property
    def X_world_heading(self) -> FloatArray:
        """Rotations (V, 3, 3) of the heading frames: their columns are right, forward and up in the world."""
        c, s, one, zero = (
            np.cos(self.heading),
            np.sin(self.heading),
            np.ones(len(self.heading)),
            0 * self.heading,
        )
        right, forward, up = (
            np.stack([s, -c, zero], -1),
            np.stack([c, s, zero], -1),
            np.stack([zero, zero, one], -1),
        )
        return np.stack([right, forward, up], axis=-1)

    def finer(self, times: int) -> Cameras:
        """The same cameras with so many times the pixels along a side."""
        Ks = self.Ks * np.array([times, times, 1.0])[:, None]
        return replace(self, Ks=Ks, width=times * self.width, height=times * self.height)


def framing(scene: Scene, options: CameraOptions = CameraOptions()) -> Framing:
    """The ball around the bounding box of all objects, and of obstacles as far as they come within `options.reach`.

    Raises:
        ValueError: for a scene without objects.
    """
    if not scene.objects:
        raise ValueError(
            "Scene.objects: expected at least one object to look at, got none; scan or load one first"
        )
    points = np.concatenate([o.vertices_world for o in scene.objects])
    low, high = points.min(0), points.max(0)
    near_low, near_high = low - options.reach, high + options.reach
    for obstacle in scene.obstacles:
        # A long table is framed as far as the objects might get, not to its ends.
        box_low, box_high = obstacle.vertices_world.min(0), obstacle.vertices_world.max(0)
        box_low, box_high = np.maximum(box_low, near_low), np.minimum(box_high, near_high)
        if np.all(box_low <= box_high):
            low, high = np.minimum(low, box_low), np.maximum(high, box_high)
    return Framing((low + high) / 2, float(np.linalg.norm(high - low) / 2))


def sample(
    framed: Framing,
    count: int,
    width: int,
    height: int,
    options: CameraOptions = CameraOptions(),
    *,
    generator: np.random.Generator,
) -> Cameras:
    """Random cameras: elevation and azimuth uniform, and the azimuths of one sample a golden angle apart.

    Each azimuth is uniform by itself; together they leave no direction out, and no two look along one line, whose
    depth neither would see.
    """
    azimuth = generator.uniform(0, 2 * np.pi) + _GOLDEN_ANGLE * np.arange(count)
    elevation = np.radians(generator.uniform(*options.elevation, size=count))
    return around(framed, azimuth, elevation, width, height, options)


def around(
    framed: Framing,
    azimuth: FloatArray,
    elevation: FloatArray,
    width: int,
    height: int,
    options: CameraOptions = CameraOptions(),
) -> Cameras:
    """Cameras that look at the framed ball's center from azimuths and elevations (V,), radians, in the world frame."""
    azimuth, elevation = (
        np.atleast_1d(np.asarray(azimuth, float)),
        np.atleast_1d(np.asarray(elevation, float)),
    )
    half = np.radians(options.field_of_view) / 2
    distance = options.margin * framed.radius / np.sin(half)
    heading = np.mod(azimuth + 2 * np.pi, 2 * np.pi) - np.pi  # a camera in the east looks west
    ce, se, ch, sh = np.cos(elevation), np.sin(elevation), np.cos(heading), np.sin(heading)
    forward = np.stack([ce * ch, ce * sh, -se], -1)
    right = np.stack([sh, -ch, 0 * sh], -1)
    down = np.cross(forward, right)
    R_camera_world = np.stack([right, down, forward], axis=-2)
    viewmats = np.tile(np.eye(4), (len(azimuth), 1, 1))
    viewmats[:, :3, :3] = R_camera_world
    viewmats[:, :3, 3] = -(R_camera_world @ framed.center) + [0.0, 0.0, distance]
    focal = min(width, height) / 2 / np.tan(half)
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(viewmats, np.tile(K, (len(azimuth), 1, 1)), width, height, heading)
