"""Simulated depth camera.

PyBullet's software renderer samples pixel (row v, column u) of an H x W image at (v + 1, u) from
the upper left corner, not at its center (v + 1/2, u + 1/2). A depth frame measures image
coordinates from the sample of its first pixel, so the principal point is

    c_x = W / 2,    c_y = H / 2 - 1

and back-projected points lie on the surfaces to a few micrometers. Centers would be wrong by
millimeters at arm's length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import inverse, look_at
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.depth.noise import NoiseOptions, noisy_depth
from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.utils.files import naming
from sim_envs.bullet import pybullet
from sim_envs.world import World

OnStep = Callable[[World], None]
"""Callback after each step of an execution."""

_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion."""

    width: Annotated[int, Interval(2, 16_384)] = 320
    """Columns."""
    height: Annotated[int, Interval(2, 16_384)] = 240
    """Rows."""
    vertical_fov: Annotated[float, Interval(1e-3, 3.14)] = 0.9
    """Full vertical angle of view, radians."""
    near: Annotated[float, Interval(1e-6, 1e6)] = 0.05
    """Near clipping distance, meters."""
    far: Annotated[float, Interval(1e-6, 1e6)] = 4.0
    """Far clipping distance, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if not self.near < self.far:
            raise ValueError(
                f"Camera.near, far: expected 0 < near < far, got {self.near:g}, {self.far:g}"
            )

    @property
    def intrinsics(self) -> FloatArray:
        """Camera matrix K (3, 3) in pixels for the renderer's sampling positions (see above)."""
        # Pinhole: the half height is seen under half the field of view.
        focal = 0.5 * self.height / np.tan(0.5 * self.vertical_fov)
        return np.array(
            [[focal, 0, 0.5 * self.width], [0, focal, 0.5 * self.height - 1], [0, 0, 1]]
        )


def capture(
    world: World,
    X_world_camera: ArrayLike,
    camera: Camera = Camera(),
    *,
    noise: NoiseOptions | None = None,
    seed: int = 0,
    unseen: Collection[str] = (),
) -> DepthFrame:
    """Current depth image of a world.

    Args:
        world: the world.
        X_world_camera: (4, 4) pose of the camera, OpenCV convention.
        camera: camera parameters.
        noise: depth noise. Defaults to none.
        seed: random seed of the noise.
        unseen: bodies without depth, such as a robot that filters itself out of its images. They
            still hide the bodies behind them.

    Returns:
        Depth, color and a mask of body ids (`world.bodies`); the table is background (0).
    """
    X = checks.poses("X_world_camera", X_world_camera)
    # Render, and drop pixels without a body or of unseen ones.
    color, buffer, body = _render(world, X, camera, shadow=False)
    empty = (body < 0) | np.isin(body, [world.bodies[name] for name in unseen])
    # Depth from the non-linear depth buffer.
    meters = (
        camera.far * camera.near / (camera.far - (camera.far - camera.near) * buffer.astype(float))
    )
    depth = np.where(empty, 0.0, meters).astype(np.float32)
    if noise is not None:
        depth = noisy_depth(depth, np.random.default_rng(seed), noise)
    return DepthFrame(depth, camera.intrinsics, X, color=color, mask=np.where(empty, 0, body))


def photograph(
    world: World, X_world_camera: ArrayLike, camera: Camera = Camera(480, 360)
) -> NDArray[np.uint8]:
    """RGB image (H, W, 3) of the world with shadows."""
    return _render(world, checks.poses("X_world_camera", X_world_camera), camera, shadow=True)[0]


def _render(
    world: World, X_world_camera: FloatArray, camera: Camera, *, shadow: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]:
    """Color (H, W, 3), depth buffer (H, W) and body ids (H, W), -1 for no body."""
    # OpenGL cameras look along -z with y up.
    view = _OPENGL_FROM_OPENCV @ inverse(X_world_camera)
    projection = pybullet.computeProjectionMatrixFOV(
        np.rad2deg(camera.vertical_fov), camera.width / camera.height, camera.near, camera.far
    )
    _, _, color, buffer, body = world.bullet.getCameraImage(
        camera.width,
        camera.height,
        viewMatrix=view.T.ravel().tolist(),  # OpenGL stores matrices by columns
        projectionMatrix=projection,
        lightDirection=[0.4, -0.6, 1.2],
        shadow=int(shadow),
        renderer=pybullet.ER_TINY_RENDERER,
    )
    shape = (camera.height, camera.width)
    return color.reshape(*shape, 4)[..., :3].copy(), buffer.reshape(shape), body.reshape(shape)


def views_around(
    target: ArrayLike,
    count: int,
    radius: float,
    *,
    elevations: Sequence[float] = (0.5, 0.95),
    start: float = 0.0,
) -> FloatArray:
    """Camera poses (count, 4, 4) around a target, at alternating heights.

    Args:
        target: (3,) meters, world frame.
        count: number of cameras.
        radius: distance from the target, meters.
        elevations: angles above the horizontal, radians, taken in turn.
        start: azimuth of the first camera, radians from +x.
    """
    target = checks.array("target", target, (3,))
    checks.positive("radius", radius)
    if count < 1:
        raise ValueError(f"count: expected at least 1 view, got {count}")
    # Spherical coordinates around the target.
    azimuth = start + 2 * np.pi * np.arange(count) / count
    elevation = np.resize(np.asarray(elevations, float), count)
    direction = [
        np.cos(elevation) * np.cos(azimuth),
        np.cos(elevation) * np.sin(azimuth),
        np.sin(elevation),
    ]
    return np.stack(
        [look_at(eye, target) for eye in target + radius * np.stack(direction, axis=-1)]
    )


class Recorder:
    """Callback of `execute` that takes a picture of the world every `every` steps.

    Attributes:
        frames: pictures taken so far, (H, W, 3) each.
    """

    def __init__(
        self, X_world_camera: ArrayLike, camera: Camera = Camera(480, 360), *, every: int = 16
    ) -> None:
        self.X_world_camera = checks.poses("X_world_camera", X_world_camera)
        self.camera = camera
        self.every = every
        self.frames: list[NDArray[np.uint8]] = []
        self._steps = 0

    def __call__(self, world: World) -> None:
        if self._steps % self.every == 0:
            self.frames.append(photograph(world, self.X_world_camera, self.camera))
        self._steps += 1


def write_video(
    frames: Sequence[NDArray[np.uint8]], path: str | Path, *, fps: float = 15.0
) -> None:
    """Write frames (H, W, 3) to .mp4 or .gif. The file appears once it is complete.

    Raises:
        ValueError: without frames, or for another suffix.
    """
    path = Path(path)
    if not len(frames):
        raise ValueError("frames: expected at least one, got none")
    for i, frame in enumerate(frames):
        if frame.shape != frames[0].shape:
            raise ValueError(
                f"frames[{i}]: expected shape {frames[0].shape} like the first, got {frame.shape}"
            )
    checks.positive("fps", fps)
    checks.choice("path", path.suffix, (".mp4", ".gif"))
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        with naming(path):
            if path.suffix == ".mp4":
                _write_mp4(frames, partial, fps)
            else:
                _write_gif(frames, partial, fps)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_mp4(frames: Sequence[NDArray[np.uint8]], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=fps, quality=7, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)  # starts the generator
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def _write_gif(frames: Sequence[NDArray[np.uint8]], path: Path, fps: float) -> None:
    from PIL import Image

    images = [Image.fromarray(f).quantize(128, dither=Image.Dither.NONE) for f in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        optimize=True,
    )
