"""Checks that records run once on what a caller gives them.

Every failure is one line: the field, what came, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def array(
    field: str,
    value: Any,
    shape: Sequence[int | str],
    *,
    dtype: type = np.float64,
    finite: bool = True,
    hint: str = "",
) -> NDArray[Any]:
    """`value` as a read-only array of `dtype` whose shape matches `shape`.

    Args:
        field: name used in the error, such as "ObjectFlow.points".
        shape: one entry per axis: a number (that size), or a letter (any size of at least one, equal wherever
            the letter repeats).
        finite: refuse NaN and infinities.
        hint: what the caller can do about it, appended to the error.

    Raises:
        ValueError: naming the field, what came and what was expected.
    """
    tail = f"; {hint}" if hint else ""
    try:
        out: NDArray[Any] = np.array(value, dtype=dtype)
    except (TypeError, ValueError):
        raise ValueError(
            f"{field}: expected numbers of shape {_show(shape)}, got {type(value).__name__}{tail}"
        ) from None
    sizes: dict[str, int] = {}
    ok = out.ndim == len(shape)
    if ok:
        for have, want in zip(out.shape, shape, strict=True):
            if isinstance(want, str):
                ok &= have >= 1 and sizes.setdefault(want, have) == have
            else:
                ok &= have == want
    if not ok:
        raise ValueError(f"{field}: expected shape {_show(shape)}, got {out.shape}{tail}")
    if finite and out.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(out))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"{field}: {len(bad)} of {out.size} values are not finite (first at {where}); "
                f"remove or repair them{tail}"
            )
    out.setflags(write=False)
    return out


def times(field: str, value: Any, *, start_at_zero: bool = True) -> FloatArray:
    """Strictly increasing times (T,) in seconds, T >= 2, the first 0 unless told otherwise."""
    out = array(field, value, ("T",))
    if len(out) < 2:
        raise ValueError(
            f"{field}: expected at least 2 frames, got {len(out)}; a motion needs a start and an end"
        )
    if start_at_zero and abs(out[0]) > 1e-9:
        raise ValueError(f"{field}: expected times[0] = 0, got {out[0]:g}; subtract the first time")
    if not np.all(np.diff(out) > 0):
        i = int(np.argmin(np.diff(out)))
        raise ValueError(
            f"{field}: expected strictly increasing seconds, got {out[i]:g} then {out[i + 1]:g} at index {i}; sort them"
        )
    return out


def poses(field: str, value: Any, shape: Sequence[int | str] = (4, 4)) -> FloatArray:
    """Homogeneous transforms whose rotation is orthonormal to 1e-6 with determinant +1."""
    out = array(field, value, shape)
    R = out[..., :3, :3]
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # huge numbers overflow to an error of inf or NaN, refused below
        error = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max()
        right = np.linalg.det(R).min() > 0 and np.abs(out[..., 3, :] - [0, 0, 0, 1]).max() <= 1e-9
    if not (error <= 1e-6 and right):
        raise ValueError(
            f"{field}: expected rigid transforms (R^T R = I, det R = 1, last row 0 0 0 1), "
            f"got |R^T R - I| = {error:.2g}; re-orthonormalise, and keep scale out of poses"
        )
    return out


def choice(field: str, value: Any, valid: Sequence[str]) -> str:
    """`value` if it is one of `valid`."""
    if value not in valid:
        raise ValueError(f"{field}: got {value!r}, expected one of {', '.join(valid)}")
    return str(value)


def positive(field: str, value: float, *, zero: bool = False) -> float:
    """`value` as a finite float above zero (or at zero where `zero`)."""
    out = float(value)
    if not np.isfinite(out) or out < 0 or (out == 0 and not zero):
        raise ValueError(
            f"{field}: expected a {'non-negative' if zero else 'positive'} number, got {value!r}"
        )
    return out


def _show(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
