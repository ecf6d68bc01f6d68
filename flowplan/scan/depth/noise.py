"""What a structured-light depth camera does to a perfect depth image.

The sensor measures disparity, d = f b / z, with near-constant error, so the depth error grows with z squared. Following
Barron and Malik (CVPR 2013) and Handa et al. (ICRA 2014), a pixel looks a little beside itself, its disparity gets
Gaussian noise and is rounded to the sensor's step, and it may be lost, most often at a depth edge:

    z' = f b / round_step(f b / z(u + n_u, v + n_v) + n_d)

With the defaults (Kinect v1: f = 585 px, b = 75 mm, steps of 1/8 px) the noise at 0.9 m has a standard deviation of
1.7 mm, as Nguyen et al. (3DIMPVT 2012) measured, before rounding to steps of 2.3 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.utils import checks


@dataclass(frozen=True)
class NoiseOptions:
    """Depth noise; every field at zero gives the image back (steps and ranges permitting)."""

    focal_baseline: float = 43.9
    """Focal length times baseline of the sensor's stereo pair, pixels times metres."""
    disparity_sigma: float = 0.09
    """Standard deviation of the disparity, pixels."""
    disparity_step: float = 0.125
    """Disparities are multiples of this many pixels; 0 for none."""
    lateral_sigma: float = 0.5
    """Standard deviation of where in the image a pixel looks, pixels."""
    dropout: float = 0.002
    """Share of pixels lost anywhere."""
    edge_dropout: float = 0.5
    """Share of pixels lost where the depth jumps."""
    edge_jump: float = 0.03
    """Depth difference between neighbouring pixels that counts as a jump, metres."""
    near: float = 0.2
    """Closer than this nothing returns, metres."""
    far: float = 5.0
    """Farther than this nothing returns, metres."""

    def __post_init__(self) -> None:
        checks.positive("NoiseOptions.focal_baseline", self.focal_baseline)
        checks.positive("NoiseOptions.far", self.far)
        shares = ("dropout", "edge_dropout")
        for name in (
            "disparity_sigma",
            "disparity_step",
            "lateral_sigma",
            "edge_jump",
            "near",
            *shares,
        ):
            checks.positive(f"NoiseOptions.{name}", getattr(self, name), zero=True)
        for name in shares:
            if getattr(self, name) > 1:
                raise ValueError(
                    f"NoiseOptions.{name}: expected a share in [0, 1], got {getattr(self, name):g}"
                )


def noisy_depth(
    depth: ArrayLike, rng: np.random.Generator, options: NoiseOptions = NoiseOptions()
) -> NDArray[np.float32]:
    """What the sensor returns for a perfect depth image.

    Args:
        depth: (H, W) metres along the optical axis, 0 where nothing returns.

    Returns:
        (H, W) metres, 0 where nothing returns.
    """
    true = checks.array("depth", depth, ("H", "W"))
    seen = _look_beside(true, options.lateral_sigma, rng)
    disparity = options.focal_baseline / np.where(seen > 0, seen, 1.0)
    disparity += options.disparity_sigma * rng.standard_normal(seen.shape)
    if options.disparity_step > 0:
        disparity = np.round(disparity / options.disparity_step) * options.disparity_step
    out = options.focal_baseline / np.maximum(disparity, 1e-6)

    lost = rng.random(seen.shape) < options.dropout
    lost |= depth_edges(true, options.edge_jump) & (rng.random(seen.shape) < options.edge_dropout)
    lost |= (seen <= 0) | (out < options.near) | (out > options.far)
    return np.where(lost, 0.0, out).astype(np.float32)


def depth_edges(depth: ArrayLike, jump: float) -> NDArray[np.bool_]:
    """(H, W): does the depth differ from one of the four neighbours' by more than `jump` metres?"""
    z = np.asarray(depth)
    edge = np.zeros(z.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(z, axis=axis)) > jump
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edge[tuple(first)] |= step
        edge[tuple(second)] |= step
    return edge


def _look_beside(
    depth: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    height, width = depth.shape
    rows, columns = np.indices(depth.shape)
    shift = np.round(sigma * rng.standard_normal((2, height, width))).astype(int)
    return depth[np.clip(rows + shift[0], 0, height - 1), np.clip(columns + shift[1], 0, width - 1)]
