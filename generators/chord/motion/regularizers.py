"""Regularizers of a distilled motion: smooth in time, and locally rigid (CHORD, 3.4).

Both are sums in the paper, of lengths in scenes of about unit size. Here lengths are in units of a
given radius (the scene's), and sums are averages that do not depend on how finely the scene was
sampled: a weight then means the same for every scene, resolution and number of points.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAPER_POINTS = 7500
"""Surface points of an object in the paper."""
HUBER_DELTA = 0.003
"""Radii of relative motion beyond which the pull between touching pieces no longer grows."""
_NEWTON_STEPS = 12
"""Each step at least halves the distance from the root, however close the second root."""
_MIN_GAPS = 0.1
"""Least product of the eigenvalue's distances from the other three. It is 12 for points all around
that move rigidly."""


def temporal(flow: Tensor, *, radius: float = 1.0) -> Tensor:
    """Mean squared motion between frames over all pixels (eq. 12).

    Args:
        flow: (V, T-1, H, W, 3) rendered mu^t - mu^{t-1}, meters; zero for the background.
        radius: of the scene, meters.

    Returns:
        A scalar, in squared radii.
    """
    return flow.square().sum(-1).mean() / radius**2


def arap(
    moved: Tensor,
    rest: Tensor,
    neighbors: Tensor,
    contacts: Tensor | None = None,
    *,
    radius: float = 1.0,
) -> Tensor:
    """As-rigid-as-possible energy (eq. 13; Sorkine and Alexa 2007).

    For every surface point X and frame t, the rotation R that best maps the edges to its neighbors
    at rest to the edges now is found in closed form, and |R (X - Y) - (X^t - Y^t)|^2 is summed over
    the neighbors Y. R needs no gradient: at the best rotation the loss is stationary in it.

    Edges of a denser cloud are shorter, and so are their changes: the sum over points, not the
    mean, is a property of the surface. So the result is the mean for a cloud of 7500 points, scaled
    by S / 7500 for one of S.

    Pieces that touch may come apart, as a lid and its box: an edge of `contacts` does not count for
    R, and a change e of it counts as 2 d^2 (sqrt(1 + e^2 / d^2) - 1) (pseudo-Huber, d =
    HUBER_DELTA). That is e^2 for a small change, and about 2 d e for a large one.

    Args:
        moved: (T, S, 3) the cloud over time, meters.
        rest: (S, 3) at rest, meters.
        neighbors: (S, n) indices of each point's nearest others.
        contacts: (E, 2) indices of points of pieces that touch. Defaults to none.
        radius: of the scene, meters.

    Returns:
        A scalar, in squared radii; zero for a rigid motion.
    """
    # Edges to the neighbors, now and at rest.
    points, count = neighbors.shape
    own = moved.transpose(0, 1).reshape(points, -1) / radius  # (S, 3 T)
    others = own.index_select(0, neighbors.flatten()).unflatten(0, (points, count))
    now = (own[:, None] - others).unflatten(-1, (-1, 3))  # (S, n, T, 3)
    edges = (rest[:, None] - rest[neighbors]) / radius  # (S, n, 3)

    # Change of the edges beyond the best rotation of each point.
    with torch.no_grad():
        R = best_rotations(torch.einsum("snta,snb->stab", now, edges))
        turned = torch.einsum("stab,snb->snta", R, edges)
    left = (now - turned).square().sum()
    if contacts is not None and len(contacts):
        # Edges between pieces that touch, less firmly.
        one, other = contacts.T
        now = (own[one] - own[other]).unflatten(-1, (-1, 3))  # (E, T, 3)
        turned = torch.einsum("etab,eb->eta", R[one], (rest[one] - rest[other]) / radius)
        squared = (now - turned).square().sum(-1)  # (E, T)
        left = left + 2 * HUBER_DELTA**2 * ((squared / HUBER_DELTA**2 + 1).sqrt() - 1).sum()
    return left / (len(moved) * count * PAPER_POINTS)


def best_rotations(S: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest tr(R^T S), for S (..., 3, 3).

    The quaternion is the eigenvector of Horn's 4x4 matrix (1987) with the largest eigenvalue. That
    is the largest root of the characteristic polynomial, by Newton's method, and a column of the
    adjugate (Theobald 2005). It is ten times as fast as singular value decompositions, which remain
    for the few ill-conditioned S: of points on a line, or turned inside out.
    """
    # Entry by entry (9, M), of norm one.
    flat = S.reshape(-1, 9).T.contiguous()
    flat = flat / torch.linalg.vector_norm(flat, dim=0).clamp_min(torch.finfo(S.dtype).tiny)
    q, gaps = _largest_eigenvector(flat)
    R = _matrix(q / torch.linalg.vector_norm(q, dim=0).clamp_min(torch.finfo(S.dtype).tiny))

    # Ill-conditioned ones by singular value decomposition.
    close = torch.nonzero(gaps < _MIN_GAPS)[:, 0]
    if len(close):
        matrices = flat[:, close].T.reshape(-1, 3, 3)
        R[:, close] = _svd_rotations(matrices).reshape(-1, 9).T
    return R.T.reshape(S.shape)


def _largest_eigenvector(S: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvector of Horn's matrix N, where q^T N q = tr(R(q)^T S), for its largest eigenvalue.

    Args:
        S: (9, M) entries, of norm one.

    Returns:
        The eigenvector (4, M), up to a factor, and the product (M,) of the gaps between its
        eigenvalue and the others.
    """
    # Entries of N. Horn's S_ab correlates a before with b after: the transpose.
    xx, yx, zx, xy, yy, zy, xz, yz, zz = S
    w, x, y, z = xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy
    a, b, c, d, e, f = yz - zy, zx - xz, xy - yx, xy + yx, zx + xz, yz + zy

    # det(N - v) = v^4 - 2 |S|^2 v^2 - 8 det(S) v + det(N). Newton's method, started above the
    # largest root, never steps below it.
    slope = -8 * (xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx))
    level = _determinant([[w, a, b, c], [a, x, d, e], [b, d, y, f], [c, e, f, z]])
    v = torch.full_like(w, 3**0.5)
    for _ in range(_NEWTON_STEPS):
        square = v * v
        value = (square - 2) * square + slope * v + level
        derivative = 4 * v * (square - 1) + slope
        v = v - value / derivative.clamp_min(1e-12)

    adjugate = _adjugate([[w - v, a, b, c], [a, x - v, d, e], [b, d, y - v, f], [c, e, f, z - v]])
    # Every column is a multiple of the eigenvector, by the root of its diagonal entry. Take the
    # longest.
    longest, q = -adjugate[0][0], torch.stack(adjugate[0])
    for k in range(1, 4):
        longer = -adjugate[k][k] > longest
        longest = torch.where(longer, -adjugate[k][k], longest)
        q = torch.where(longer, torch.stack(adjugate[k]), q)
    return q, -(adjugate[0][0] + adjugate[1][1] + adjugate[2][2] + adjugate[3][3])


def _minors(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """2x2 minors of two rows: columns 01, 02, 03, 12, 13, 23."""
    return [first[i] * second[j] - first[j] * second[i] for i in range(4) for j in range(i + 1, 4)]


def _determinant(N: list[list[Tensor]]) -> Tensor:
    """Determinants of 4x4 matrices, given entry by entry (each (M,))."""
    s, t = _minors(N[0], N[1]), _minors(N[2], N[3])
    return s[0] * t[5] - s[1] * t[4] + s[2] * t[3] + s[3] * t[2] - s[4] * t[1] + s[5] * t[0]


def _adjugate(N: list[list[Tensor]]) -> list[list[Tensor]]:
    """Adjugates of symmetric 4x4 matrices, entry by entry (each (M,))."""
    n, o, p, q = N
    s, t = _minors(n, o), _minors(p, q)
    ww = o[1] * t[5] - o[2] * t[4] + o[3] * t[3]
    wx = -n[1] * t[5] + n[2] * t[4] - n[3] * t[3]
    wy = q[1] * s[5] - q[2] * s[4] + q[3] * s[3]
    wz = -p[1] * s[5] + p[2] * s[4] - p[3] * s[3]
    xx = n[0] * t[5] - n[2] * t[2] + n[3] * t[1]
    xy = -q[0] * s[5] + q[2] * s[2] - q[3] * s[1]
    xz = p[0] * s[5] - p[2] * s[2] + p[3] * s[1]
    yy = q[0] * s[4] - q[1] * s[2] + q[3] * s[0]
    yz = -p[0] * s[4] + p[1] * s[2] - p[3] * s[0]
    zz = p[0] * s[3] - p[1] * s[1] + p[2] * s[0]
    return [[ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz]]


def _matrix(quat_wxyz: Tensor) -> Tensor:
    """Rotation matrices (9, M), row by row, of unit quaternions (4, M)."""
    w, x, y, z = quat_wxyz
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(entries)


def _svd_rotations(S: Tensor) -> Tensor:
    """As `best_rotations`, for all S (M, 3, 3)."""
    U, _, Vt = torch.linalg.svd(S)
    sign = torch.ones_like(S[..., 0])
    sign[..., 2] = torch.linalg.det(U @ Vt)
    return (U * sign[..., None, :]) @ Vt
