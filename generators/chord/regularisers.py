"""What keeps a distilled motion smooth in time and rigid in the small (CHORD, 3.4).

Both are sums in the paper, of lengths in scenes of about unit size. Here lengths are in units of a radius that the
caller gives (the scene's), and sums are averages that do not depend on how finely the scene was sampled: a weight then
means the same for every scene, resolution and number of points.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAPER_POINTS = 7500
"""Surface points of an object in the paper."""


def temporal(flow: Tensor, *, radius: float = 1.0) -> Tensor:
    """Rendered motion between frames (eq. 12): the mean over pixels of its squared length.

    Args:
        flow: (V, T-1, H, W, 3) rendered mu^t - mu^{t-1}, metres; nothing where nothing moves.
        radius: of the scene, metres.

    Returns:
        A scalar, in squared radii.
    """
    return flow.square().sum(-1).mean() / radius**2


def arap(moved: Tensor, rest: Tensor, neighbours: Tensor, *, radius: float = 1.0) -> Tensor:
    """As rigid as possible (eq. 13; Sorkine & Alexa 2007): what the best local rotations leave of edges' changes.

    For every surface point X and frame t, the rotation R that best takes the edges to its rest neighbours to where
    they are now is found in closed form, and |R (X - Y) - (X^t - Y^t)|^2 is summed over neighbours Y. R gets no
    gradient, and needs none: at the best rotation the loss does not change with it to first order.

    Edges of a denser cloud are shorter, and so are their changes: it is the sum over points, not the mean, that
    belongs to the surface. So the result is that sum over S / 7500 clouds' worth of points: the mean for 7500.

    Args:
        moved: (T, S, 3) the cloud over time, metres.
        rest: (S, 3) at rest, metres.
        neighbours: (S, n) indices of each point's nearest others.
        radius: of the scene, metres.

    Returns:
        A scalar, in squared radii; zero when the cloud moves rigidly.
    """
    edges = (rest[:, None] - rest[neighbours]) / radius
    now = (moved[:, :, None] - moved[:, neighbours]) / radius
    with torch.no_grad():
        R = best_rotations(torch.einsum("tsna,snb->tsab", now, edges))
        turned = torch.einsum("tsab,snb->tsna", R, edges)
    return (now - turned).square().sum() / (len(moved) * neighbours.shape[1] * PAPER_POINTS)


def best_rotations(S: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest tr(R^T S)."""
    U, _, Vt = torch.linalg.svd(S)
    sign = torch.ones_like(S[..., 0])
    sign[..., 2] = torch.linalg.det(U @ Vt).sign()
    return (U * sign[..., None, :]) @ Vt
