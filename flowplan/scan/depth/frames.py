"""Depth frames: one depth image with its camera's intrinsics and pose.

A camera looks along its z axis, with x to the right and y down (OpenCV). The center of the pixel
in row v and column u has the image coordinates (u, v):

    [u, v, 1]^T = K [x, y, z]^T / z,      p_world = X_world_camera p_camera
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """One depth image and the pose that it was taken from.

    Attributes:
        depth: (H, W) float32, meters along the optical axis; 0 where the sensor returned nothing.
        intrinsics: (3, 3) pinhole matrix K in pixels, without skew or distortion.
        X_world_camera: (4, 4) camera pose, OpenCV convention (z forward, x right, y down).
        color: (H, W, 3) uint8 RGB registered to the depth, or None.
        mask: (H, W) int32 positive object ids; 0 or less is background. Or None.
        confidence: (H, W) float32 in [0, 1], or None if every return is equally reliable.
    """

    depth: NDArray[np.float32]
    intrinsics: FloatArray
    X_world_camera: FloatArray
    color: NDArray[np.uint8] | None = None
    mask: NDArray[np.int32] | None = None
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        depth = _checked_depth(self.depth)
        K = _checked_intrinsics(self.intrinsics)
        X = checks.poses("DepthFrame.X_world_camera", self.X_world_camera)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "intrinsics", K)
        object.__setattr__(self, "X_world_camera", X)
        self._check_image("color", (*depth.shape, 3), np.uint8)
        self._check_image("mask", depth.shape, np.int32)
        self._check_image("confidence", depth.shape, np.float32)
        if self.confidence is not None and (self.confidence.min() < 0 or self.confidence.max() > 1):
            raise ValueError("DepthFrame.confidence: expected values in [0, 1]; scale them")

    def _check_image(self, name: str, shape: tuple[int, ...], dtype: type) -> None:
        """Replace an optional image by a read-only array of this shape and type."""
        value = getattr(self, name)
        if value is None:
            return
        hint = "register it to the depth image, or leave it out"
        value = checks.array(f"DepthFrame.{name}", value, shape, dtype=dtype, hint=hint)
        object.__setattr__(self, name, value)

    @property
    def rays(self) -> FloatArray:
        """Rays K^-1 [u, v, 1] (H, W, 3), camera frame; depth times ray is the point seen."""
        height, width = self.depth.shape
        K = self.intrinsics
        x = (np.arange(width) - K[0, 2]) / K[0, 0]  # (W,)
        y = (np.arange(height) - K[1, 2]) / K[1, 1]  # (H,)
        return np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)

    @property
    def points_world(self) -> FloatArray:
        """Points (H, W, 3) seen by the pixels, world frame, meters.

        A pixel without a return gives the camera's own position.
        """
        return transform(self.X_world_camera, self.depth[..., None] * self.rays)


def _checked_depth(value: NDArray[np.float32]) -> NDArray[np.float32]:
    hint = "set pixels without a return to 0"
    depth = checks.array("DepthFrame.depth", value, ("H", "W"), dtype=np.float32, hint=hint)
    if depth.min() < 0:
        raise ValueError(f"DepthFrame.depth: expected meters >= 0, got {depth.min():g}; {hint}")
    return depth


def _checked_intrinsics(value: FloatArray) -> FloatArray:
    """The camera matrix (3, 3), scaled so that its last entry is 1."""
    K = checks.array("DepthFrame.intrinsics", value, (3, 3))
    focal = min(K[0, 0], K[1, 1])
    skew = abs(K[0, 1])
    below = np.abs(K[[1, 2, 2], [0, 0, 1]]).max()
    if focal <= 0 or skew > 1e-6 or below > 1e-9:
        raise ValueError(
            "DepthFrame.intrinsics: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "
            f"got {K.tolist()}; check that it is not transposed"
        )
    return K / K[2, 2]


def intrinsics_from_fov(width: int, height: int, vertical_fov: float) -> FloatArray:
    """Camera matrix K (3, 3) with square pixels and a centered optical axis.

    Args:
        width, height: image size, pixels.
        vertical_fov: full vertical angle of view, radians.
    """
    focal = 0.5 * height / np.tan(0.5 * vertical_fov)
    return np.array([[focal, 0, 0.5 * (width - 1)], [0, focal, 0.5 * (height - 1)], [0, 0, 1]])
