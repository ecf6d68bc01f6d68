"""Noise of a structured-light depth camera, added to an ideal depth image.

The sensor measures the disparity d = f b / z with a nearly constant error, so the depth error grows
with z squared. Following Barron and Malik (CVPR 2013) and Handa et al. (ICRA 2014), a pixel sees a
point a little beside its own, its disparity gets Gaussian noise and is rounded to the sensor's
step, and it may be lost, most often at a depth edge:

    z' = f b / round_step(f b / z(u + n_u, v + n_v) + n_d)

With the defaults (Kinect v1: f = 585 px, b = 75 mm, steps of 1/8 px), the noise at 0.9 m has a
standard deviation of 1.7 mm, as Nguyen et al. (3DIMPVT 2012) measured, before rounding to steps of
2.3 mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval


@dataclass(frozen=True)
class NoiseOptions:
    """Depth noise. All fields at zero leave the image as it is, up to steps and range."""

    focal_baseline: Annotated[float, Interval(1e-3, 1e4)] = 43.9
    """Focal length times baseline of the sensor's stereo pair, pixels times meters."""
    disparity_sigma: Annotated[float, Interval(0, 100)] = 0.09
    """Standard deviation of the disparity, pixels."""
    disparity_step: Annotated[float, Interval(0, 100)] = 0.125
    """Disparities are multiples of this many pixels; 0 turns rounding off."""
    lateral_sigma: Annotated[float, Interval(0, 100)] = 0.5
    """Standard deviation of the image position that a pixel sees, pixels."""
    dropout: Annotated[float, Interval(0, 1)] = 0.002
    """Share of pixels lost anywhere."""
    edge_dropout: Annotated[float, Interval(0, 1)] = 0.5
    """Share of pixels lost at depth edges."""
    edge_jump: Annotated[float, Interval(0, 100)] = 0.03
    """Depth difference between neighboring pixels that counts as an edge, meters."""
    near: Annotated[float, Interval(0, 1000)] = 0.2
    """Smallest depth that returns, meters."""
    far: Annotated[float, Interval(1e-3, 1000)] = 5.0
    """Largest depth that returns, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)


def noisy_depth(
    depth: ArrayLike, rng: np.random.Generator, options: NoiseOptions = NoiseOptions()
) -> NDArray[np.float32]:
    """The sensor's image of an ideal depth image.

    Args:
        depth: (H, W) meters along the optical axis; 0 for pixels without a return.
        rng: source of the noise.
        options: see there.

    Returns:
        (H, W) meters; 0 for pixels without a return.
    """
    true = checks.array("depth", depth, ("H", "W"))
    seen = _look_beside(true, options.lateral_sigma, rng)
    # Disparity with noise, rounded to the sensor's steps, and back to depth.
    disparity = options.focal_baseline / np.where(seen > 0, seen, 1.0)
    disparity += options.disparity_sigma * rng.standard_normal(seen.shape)
    if options.disparity_step > 0:
        disparity = np.round(disparity / options.disparity_step) * options.disparity_step
    out = options.focal_baseline / np.maximum(disparity, 1e-6)

    # Pixels that return nothing.
    lost = rng.random(seen.shape) < options.dropout
    at_edge = depth_edges(true, options.edge_jump)
    lost |= at_edge & (rng.random(seen.shape) < options.edge_dropout)
    lost |= (seen <= 0) | (out < options.near) | (out > options.far)
    return np.where(lost, 0.0, out).astype(np.float32)


def depth_edges(depth: ArrayLike, jump: float) -> NDArray[np.bool_]:
    """Pixels (H, W) whose depth differs from one of four neighbors' by more than `jump` meters."""
    z = np.asarray(depth)
    edge = np.zeros(z.shape, bool)
    for axis in (0, 1):
        # Both pixels beside a jump are edges.
        step = np.abs(np.diff(z, axis=axis)) > jump
        lines = np.moveaxis(edge, axis, 0)  # a view: the axis comes first
        lines[:-1] |= np.moveaxis(step, axis, 0)
        lines[1:] |= np.moveaxis(step, axis, 0)
    return edge


def _look_beside(
    depth: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The depth (H, W) at pixels a few beside each, by a standard deviation in pixels."""
    height, width = depth.shape
    rows, columns = np.indices(depth.shape)
    shift = np.round(sigma * rng.standard_normal((2, height, width))).astype(int)
    row = np.clip(rows + shift[0], 0, height - 1)
    column = np.clip(columns + shift[1], 0, width - 1)
    return depth[row, column]
