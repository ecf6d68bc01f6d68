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
GIVE = 0.003
"""Radii, from which on what only touches is held no more firmly."""
_NEWTON_STEPS = 12  # each at least halves the distance, however close the second root
_SURE = 0.1  # product of the eigenvalue's distances to the other three; 12 for points all around that move rigidly


def temporal(flow: Tensor, *, radius: float = 1.0) -> Tensor:
    """Rendered motion between frames (eq. 12): the mean over pixels of its squared length.

    Args:
        flow: (V, T-1, H, W, 3) rendered mu^t - mu^{t-1}, meters; nothing where nothing moves.
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
    """As rigid as possible (eq. 13; Sorkine & Alexa 2007): what the best local rotations leave of edges' changes.

    For every surface point X and frame t, the rotation R that best takes the edges to its rest neighbors to where
    they are now is found in closed form, and |R (X - Y) - (X^t - Y^t)|^2 is summed over neighbors Y. R gets no
    gradient, and needs none: at the best rotation the loss does not change with it to first order.

    Edges of a denser cloud are shorter, and so are their changes: it is the sum over points, not the mean, that
    belongs to the surface. So the result is that sum over S / 7500 clouds' worth of points: the mean for 7500.

    What only touches may come apart, as a lid and its box: an edge of `contacts` has no say in R, and a change e of it
    counts as 2 GIVE^2 (sqrt(1 + e^2 / GIVE^2) - 1) (pseudo-Huber). That is e^2 of a small one, and of a large one hardly
    more than 2 GIVE e: it pulls as if it were GIVE.

    Args:
        moved: (T, S, 3) the cloud over time, meters.
        rest: (S, 3) at rest, meters.
        neighbors: (S, n) indices of each point's nearest others.
        contacts: (E, 2) indices of points, and of others that they touch; none where not given.
        radius: of the scene, meters.

    Returns:
        A scalar, in squared radii; zero when the cloud moves rigidly.
    """
    points, count = neighbors.shape
    own = moved.transpose(0, 1).reshape(points, -1) / radius
    others = own.index_select(0, neighbors.flatten()).unflatten(0, (points, count))
    now = (own[:, None] - others).unflatten(-1, (-1, 3))  # (S, n, T, 3)
    edges = (rest[:, None] - rest[neighbors]) / radius
    with torch.no_grad():
        R = best_rotations(torch.einsum("snta,snb->stab", now, edges))
        turned = torch.einsum("stab,snb->snta", R, edges)
    left = (now - turned).square().sum()
    if contacts is not None and len(contacts):
        one, other = contacts.T
        now = (own[one] - own[other]).unflatten(-1, (-1, 3))  # (E, T, 3)
        turned = torch.einsum("etab,eb->eta", R[one], (rest[one] - rest[other]) / radius)
        left = (
            left + 2 * GIVE**2 * (((now - turned).square().sum(-1) / GIVE**2 + 1).sqrt() - 1).sum()
        )
    return left / (len(moved) * count * PAPER_POINTS)


def best_rotations(S: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest tr(R^T S), for S (..., 3, 3).

    The quaternion is the eigenvector of Horn's 4x4 matrix (1987) with the largest eigenvalue: the largest root of its
    characteristic polynomial by Newton's method, and a column of the adjugate (Theobald 2005). That is an order faster
    than singular value decompositions, which are left to the few S that hardly say how to turn: of points on a line,
    or turned inside out.
    """
    flat = S.reshape(-1, 9).T.contiguous()  # entry by entry
    flat = flat / torch.linalg.vector_norm(flat, dim=0).clamp_min(torch.finfo(S.dtype).tiny)
    q, gaps = _largest_eigenvector(flat)
    R = _matrix(q / torch.linalg.vector_norm(q, dim=0).clamp_min(torch.finfo(S.dtype).tiny))
    unsure = torch.nonzero(gaps < _SURE)[:, 0]
    if len(unsure):
        R[:, unsure] = _svd_rotations(flat[:, unsure].T.reshape(-1, 3, 3)).reshape(-1, 9).T
    return R.T.reshape(S.shape)


def _largest_eigenvector(S: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvector (4, M), to a factor, of the N with q^T N q = tr(R(q)^T S), and the product (M,) of its gaps.

    `S` is (9, M), of norm one.
    """
    xx, yx, zx, xy, yy, zy, xz, yz, zz = (
        S  # Horn's S_ab correlates a before with b after: the transpose
    )
    w, x, y, z = xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy
    a, b, c, d, e, f = yz - zy, zx - xz, xy - yx, xy + yx, zx + xz, yz + zy
    # det(N - v) = v^4 - 2 |S|^2 v^2 - 8 det(S) v + det(N). From above, Newton's steps never pass the largest root.
    slope = -8 * (xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx))
    level = _determinant([[w, a, b, c], [a, x, d, e], [b, d, y, f], [c, e, f, z]])
    v = torch.full_like(w, 3**0.5)
    for _ in range(_NEWTON_STEPS):
        square = v * v
        v = v - ((square - 2) * square + slope * v + level) / (
            4 * v * (square - 1) + slope
        ).clamp_min(1e-12)
    adjugate = _adjugate([[w - v, a, b, c], [a, x - v, d, e], [b, d, y - v, f], [c, e, f, z - v]])
    # Every column is a multiple of the eigenvector, by the root of its diagonal entry: the longest one is taken.
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
