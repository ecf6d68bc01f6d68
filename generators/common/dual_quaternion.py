"""Dual quaternions of rigid motions (NeuROK, appendix C.1): eight numbers that encode x -> R x + t.

The real part is the unit quaternion q_r = (w, x, y, z) of R, the dual part q_d = (0, t) q_r / 2
(eq. 55). Eight numbers predicted by a network are not yet a rigid motion: the real part must have
length 1 and the dual part must be orthogonal to it. `normalized` ensures both, and `apply` calls it
first. Batch axes broadcast.

The library for quaternions in torch is roma. Its products are these to the last bit, but its
quaternions end with w, while those of weights and stores begin with it, and its rotation of vectors
takes two quaternion products instead of two cross products: four times as long, and with other
rounding. It happens at every point in the decoder and its Jacobians, so it is written out here.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST = 1e-4  # length of a real part below which it is divided by this instead


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton products (..., 4) of quaternions (w, x, y, z)."""
    a_w, a_v = a[..., :1], a[..., 1:]
    b_w, b_v = b[..., :1], b[..., 1:]
    w = a_w * b_w - (a_v * b_v).sum(-1, keepdim=True)
    v = a_w * b_v + b_w * a_v + _cross(a_v, b_v)
    return torch.cat([w, v], dim=-1)


def conjugate(quat_wxyz: Tensor) -> Tensor:
    """Inverse rotations (..., 4) of unit quaternions (w, x, y, z)."""
    return torch.cat([quat_wxyz[..., :1], -quat_wxyz[..., 1:]], dim=-1)


def rotate(quat_wxyz: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) rotated by unit quaternions (..., 4)."""
    w, v = quat_wxyz[..., :1], quat_wxyz[..., 1:]
    turn = 2 * _cross(v, points)
    return points + w * turn + _cross(v, turn)


def from_motion(quat_wxyz: Tensor, translation: Tensor) -> Tensor:
    """Dual quaternions (..., 8) with w >= 0 of rigid motions x -> R x + t.

    Args:
        quat_wxyz: (..., 4) unit quaternions of R.
        translation: (..., 3) t.
    """
    real = torch.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)
    zero = torch.zeros_like(translation[..., :1])
    pure = torch.cat([zero, translation], dim=-1)  # (0, t)
    return torch.cat([real, 0.5 * multiply(pure, real)], dim=-1)


def from_points(points: Tensor, moved: Tensor, quat_wxyz: Tensor) -> Tensor:
    """Dual quaternions (..., 8) of the motions that rotate by a quaternion and move a point.

    Args:
        points: (..., 3) before.
        moved: (..., 3) after.
        quat_wxyz: (..., 4) unit quaternions of the rotations.
    """
    return from_motion(quat_wxyz, moved - rotate(quat_wxyz, points))


def normalized(dual: Tensor) -> Tensor:
    """Unit dual quaternions (..., 8) of any eight numbers: d / |d|.

    A real part shorter than 1e-4 is divided by 1e-4 instead, so that values and derivatives stay
    finite even at zero.
    """
    squared = dual[..., :4].square().sum(-1, keepdim=True)
    inverse = squared.clamp_min(_SHORTEST**2).rsqrt()
    real, other = dual[..., :4] * inverse, dual[..., 4:] * inverse
    # The component of the dual part along the real one belongs to no rigid motion.
    along = (real * other).sum(-1, keepdim=True)
    return torch.cat([real, other - real * along], dim=-1)


def to_motion(dual: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions (..., 4) and translations (..., 3) of dual quaternions (..., 8).

    They are normalized first.
    """
    dual = normalized(dual)
    real, other = dual[..., :4], dual[..., 4:]
    w, v = real[..., :1], real[..., 1:]
    dual_w, dual_v = other[..., :1], other[..., 1:]
    # t is the vector part of 2 q_d q_r*.
    return real, 2 * (w * dual_v - dual_w * v + _cross(v, dual_v))


def apply(dual: Tensor, points: Tensor) -> Tensor:
    """Points (..., 3) moved by dual quaternions (..., 8), which are normalized first."""
    quat, translation = to_motion(dual)
    return rotate(quat, points) + translation


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(*torch.broadcast_tensors(a, b))
