"""Dual quaternions of rigid motions (appendix C.1): eight numbers that write x -> R x + t.

The real part is the unit quaternion q_r = (w, x, y, z) of R, the dual part q_d = (0, t) q_r / 2 (eq. 55). A network's
eight numbers are no rigid motion until the real part is a unit and the dual part orthogonal to it: `normalized` does
that, and `apply` does it first. Batch axes broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton products (..., 4) of quaternions (w, x, y, z)."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + _cross(av, bv)], dim=-1)


def conjugate(quat_wxyz: Tensor) -> Tensor:
    """The turns back (..., 4) of unit quaternions (w, x, y, z)."""
    return torch.cat([quat_wxyz[..., :1], -quat_wxyz[..., 1:]], dim=-1)


def rotate(quat_wxyz: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) turned by unit quaternions (..., 4)."""
    w, v = quat_wxyz[..., :1], quat_wxyz[..., 1:]
    turn = 2 * _cross(v, points)
    return points + w * turn + _cross(v, turn)


def from_motion(quat_wxyz: Tensor, translation: Tensor) -> Tensor:
    """Dual quaternions (..., 8), w >= 0, of x -> R x + t: R as unit quaternions (..., 4), t (..., 3)."""
    real = torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)
    pure = torch.cat([torch.zeros_like(translation[..., :1]), translation], dim=-1)
    return torch.cat([real, 0.5 * multiply(pure, real)], dim=-1)


def from_points(points: Tensor, moved: Tensor, quat_wxyz: Tensor) -> Tensor:
    """Dual quaternions (..., 8) of the motions that turn by `quat_wxyz` (..., 4) and take `points` (..., 3) to `moved`."""
    return from_motion(quat_wxyz, moved - rotate(quat_wxyz, points))


def normalized(dual: Tensor) -> Tensor:
    """The unit dual quaternions (..., 8) of any eight numbers: d / |d|, whose dual part is orthogonal to its real part.

    A real part shorter than 1e-4 is divided by 1e-4 instead, so values and derivatives stay finite even at zero.
    """
    inverse = dual[..., :4].square().sum(-1, keepdim=True).clamp_min(1e-8).rsqrt()
    real, other = dual[..., :4] * inverse, dual[..., 4:] * inverse
    return torch.cat([real, other - real * (real * other).sum(-1, keepdim=True)], dim=-1)


def to_motion(dual: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions (..., 4) and translations (..., 3) of dual quaternions (..., 8), normalised first."""
    dual = normalized(dual)
    real, other = dual[..., :4], dual[..., 4:]
    w, v, dw, dv = real[..., :1], real[..., 1:], other[..., :1], other[..., 1:]
    return real, 2 * (w * dv - dw * v + _cross(v, dv))  # vector part of 2 q_d q_r*


def apply(dual: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) moved by dual quaternions (..., 8), normalised first."""
    quat, translation = to_motion(dual)
    return rotate(quat, points) + translation


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(*torch.broadcast_tensors(a, b))
