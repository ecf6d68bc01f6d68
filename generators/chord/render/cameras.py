"""Cameras around a scene, and the frame of reference that they share.

Every camera looks at the center of the region where things may move, from a distance at which a
ball of `margin` times the scene's radius fills its view. Nothing else affects a view, so a model
trained on such videos (`generators.chord.priors.choreographer`) sees the same at distillation. A
camera's heading frame is the world turned about z until x points to the camera's right and y along
its view; "to the left" means the same in it for every camera.
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
    """The ball that cameras look at.

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
        heading: (V,) angle of the horizontal part of the view from the world's x axis about z,
            radians.
    """

    viewmats: FloatArray
    Ks: FloatArray
    width: int
    height: int
    heading: FloatArray

    @property
    def X_world_heading(self) -> FloatArray:
        """Rotations (V, 3, 3) whose columns are right, forward and up in the world."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        one, zero = np.ones(len(self.heading)), 0 * self.heading
        right = np.stack([s, -c, zero], -1)
        forward = np.stack([c, s, zero], -1)
        up = np.stack([zero, zero, one], -1)
        return np.stack([right, forward, up], axis=-1)

    def finer(self, times: int) -> Cameras:
        """The same cameras with `times` as many pixels along a side."""
        Ks = self.Ks * np.array([times, times, 1.0])[:, None]
        return replace(self, Ks=Ks, width=times * self.width, height=times * self.height)


def framing(scene: Scene, options: CameraOptions = CameraOptions()) -> Framing:
    """The ball around the bounding box of all objects and of nearby obstacles.

    Obstacles count as far as they are within `options.reach` of the objects.

    Raises:
        ValueError: for a scene without objects.
    """
    if not scene.objects:
        raise ValueError(
            "Scene.objects: expected at least one object to look at, got none; "
            "scan or load one first"
        )
    points = np.concatenate([o.vertices_world for o in scene.objects])
    low, high = points.min(0), points.max(0)
    near_low, near_high = low - options.reach, high + options.reach
    for obstacle in scene.obstacles:
        # Clip the obstacle's box, so that a long table is not framed to its ends.
        box_low = np.maximum(obstacle.vertices_world.min(0), near_low)
        box_high = np.minimum(obstacle.vertices_world.max(0), near_high)
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
    """Random cameras, elevation and azimuth uniform, with azimuths a golden angle apart.

    Each azimuth by itself is uniform. Together they cover all directions, and no two look along one
    line, whose depth neither would see.
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
    """Cameras that look at the center of a framed ball.

    Args:
        framed: the ball.
        azimuth: (V,) of the eyes about the world's z, radians.
        elevation: (V,) of the eyes above the horizon, radians.
        width: pixels.
        height: pixels.
        options: see CameraOptions.
    """
    azimuth = np.atleast_1d(np.asarray(azimuth, float))
    elevation = np.atleast_1d(np.asarray(elevation, float))
    half = np.radians(options.field_of_view) / 2
    distance = options.margin * framed.radius / np.sin(half)

    # A camera in the east looks west.
    heading = np.mod(azimuth + 2 * np.pi, 2 * np.pi) - np.pi  # (V,)

    # Axes of the cameras in the world.
    ce, se, ch, sh = np.cos(elevation), np.sin(elevation), np.cos(heading), np.sin(heading)
    forward = np.stack([ce * ch, ce * sh, -se], -1)  # (V, 3)
    right = np.stack([sh, -ch, 0 * sh], -1)
    down = np.cross(forward, right)
    R_camera_world = np.stack([right, down, forward], axis=-2)  # (V, 3, 3)

    # The center lies straight ahead, at the distance.
    viewmats = np.tile(np.eye(4), (len(azimuth), 1, 1))
    viewmats[:, :3, :3] = R_camera_world
    viewmats[:, :3, 3] = -(R_camera_world @ framed.center) + [0.0, 0.0, distance]

    focal = min(width, height) / 2 / np.tan(half)
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(viewmats, np.tile(K, (len(azimuth), 1, 1)), width, height, heading)
