"""Solid cells of a grid that no camera saw, by a winding number from the surface that was seen.

Between neighboring cells that were both seen, one inside and one outside, the indicator chi (1
inside, 0 outside) jumps by one; these jumps are the surface. Everywhere else chi should not change,
so it is the least-squares solution of grad chi = g, that is, of Poisson's equation (Kazhdan et al.,
SGP 2006)

    laplace(chi) = div g

On a grid this is the generalized winding number of Jacobson et al. (SIGGRAPH 2013): exactly 0 and 1
for a closed surface, and a smooth membrane at 1/2 across a hole. Sine and cosine transforms
diagonalize the Laplacian. chi is 0 on the boundary of the box; below an object on a support it is
mirrored at the support instead, so that an unseen bottom closes flat.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Jumps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def observed_jumps(inside: NDArray[np.bool_], known: NDArray[np.bool_]) -> Jumps:
    """Jumps g between neighbors along each axis if both are known, else zero.

    Args:
        inside, known: (nx, ny, nz).
    """
    chi = inside.astype(np.float32)
    jumps = []
    for axis in range(3):
        both = np.minimum(_head(known, axis), _tail(known, axis))
        jumps.append(np.diff(chi, axis=axis) * both)
    return jumps[0], jumps[1], jumps[2]


def winding_field(jumps: Jumps, *, mirror_bottom: bool) -> NDArray[np.float32]:
    """The indicator chi (nx, ny, nz) with the given jumps; above one half is inside.

    Args:
        jumps: chi[i + 1] - chi[i] along each axis; one shorter than the grid along that axis.
        mirror_bottom: the lower face of the third axis is a mirror; chi vanishes on all others.
    """
    # div g, the right-hand side: inflow from above minus outflow below.
    shape = (jumps[1].shape[0], jumps[0].shape[1], jumps[0].shape[2])
    chi = np.zeros(shape, np.float32)
    for axis, g in enumerate(jumps):
        _head(chi, axis)[...] += g
        _tail(chi, axis)[...] -= g
    # Forward transform. Sine transform 2 is odd about both ends, cosine transform 4 even about the
    # lower and odd about the upper end.
    chi = fft.dstn(chi, type=2, axes=(0, 1), overwrite_x=True)
    if mirror_bottom:
        chi = fft.dct(chi, type=4, axis=2)
    else:
        chi = fft.dst(chi, type=2, axis=2)
    # Poisson's equation is one division per frequency.
    chi /= -_eigenvalues(shape, mirror_bottom)
    # Inverse transform.
    if mirror_bottom:
        chi = fft.idct(chi, type=4, axis=2)
    else:
        chi = fft.idst(chi, type=2, axis=2)
    return fft.idstn(chi, type=2, axes=(0, 1), overwrite_x=True)


def _eigenvalues(shape: tuple[int, int, int], mirror_bottom: bool) -> NDArray[np.float32]:
    """Eigenvalues (nx, ny, nz) of the negative Laplacian: 2 - 2 cos(pi k / n), summed over axes."""
    total = np.zeros((1, 1, 1), np.float32)
    for axis, size in enumerate(shape):
        k = np.arange(1, size + 1)
        # The frequencies of cosine transform 4 lie half a step lower.
        wave = k - (0.5 if mirror_bottom and axis == 2 else 0.0)
        line = (2 - 2 * np.cos(np.pi * wave / size)).astype(np.float32)
        along = [1, 1, 1]
        along[axis] = size
        total = total + line.reshape(along)
    return total


def _head(field: NDArray, axis: int) -> NDArray:
    """All but the last cell along an axis."""
    cells = [slice(None)] * 3
    cells[axis] = slice(None, -1)
    return field[tuple(cells)]


def _tail(field: NDArray, axis: int) -> NDArray:
    """All but the first cell along an axis."""
    cells = [slice(None)] * 3
    cells[axis] = slice(1, None)
    return field[tuple(cells)]
