"""Argument checks that records run once, in their constructors.

Every failure is one line: the field, the value, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

FARTHEST = 1e6
"""Largest coordinate, meters: single precision cannot tell larger ones apart."""


def array(
    field: str,
    value: Any,
    shape: Sequence[int | str],
    *,
    dtype: type = np.float64,
    finite: bool = True,
    hint: str = "",
) -> NDArray[Any]:
    """Read-only array of a given type and shape.

    Args:
        field: Name used in the error, such as "ObjectFlow.points".
        value: Anything that numpy turns into an array.
        shape: One entry per axis: a number (that size), or a letter (any size of at least one,
            equal wherever the letter repeats).
        dtype: Type of the result.
        finite: Refuse NaN and infinities.
        hint: Remedy, appended to the error.

    Raises:
        ValueError: If the shape or a value is wrong; names the field.
    """
    tail = f"; {hint}" if hint else ""
    try:
        # A copy, so that the caller's array stays writable.
        out: NDArray[Any] = np.array(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{field}: expected numbers of shape {_show(shape)}, got {type(value).__name__}{tail}"
        ) from None
    if not _fits(out.shape, shape):
        raise ValueError(f"{field}: expected shape {_show(shape)}, got {out.shape}{tail}")
    if finite and out.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(out))
        if len(bad):
            first = tuple(int(i) for i in bad[0])
            raise ValueError(
                f"{field}: {len(bad)} of {out.size} values are not finite (first at {first}); "
                f"remove or repair them{tail}"
            )
    out.setflags(write=False)
    return out


def _fits(found: tuple[int, ...], shape: Sequence[int | str]) -> bool:
    """True if sizes match a shape whose letters stand for any size of at least one."""
    if len(found) != len(shape):
        return False
    # A letter takes the size of its first axis.
    sizes: dict[str, int] = {}
    for have, want in zip(found, shape, strict=True):
        if isinstance(want, str):
            if have < 1 or sizes.setdefault(want, have) != have:
                return False
        elif have != want:
            return False
    return True


def times(field: str, value: Any) -> FloatArray:
    """Strictly increasing times (T,) in seconds, T >= 2, the first 0."""
    out = array(field, value, ("T",))
    if len(out) < 2:
        raise ValueError(
            f"{field}: expected at least 2 frames, got {len(out)}; "
            "a motion needs a start and an end"
        )
    if abs(out[0]) > 1e-9:
        raise ValueError(f"{field}: expected times[0] = 0, got {out[0]:g}; subtract the first time")
    if not np.all(np.diff(out) > 0):
        i = int(np.argmin(np.diff(out)))
        raise ValueError(
            f"{field}: expected strictly increasing seconds, got {out[i]:g} then {out[i + 1]:g} "
            f"at index {i}; sort them"
        )
    return out


def poses(field: str, value: Any, shape: Sequence[int | str] = (4, 4)) -> FloatArray:
    """Homogeneous transforms (..., 4, 4): rotations orthonormal to 1e-6, determinant +1, near."""
    out = array(field, value, shape)
    R = out[..., :3, :3]  # (..., 3, 3)
    # Huge numbers overflow to an error of inf or NaN, which is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max()
        proper = np.linalg.det(R).min() > 0
    last_row_error = np.abs(out[..., 3, :] - [0, 0, 0, 1]).max()
    if not (error <= 1e-6 and proper and last_row_error <= 1e-9):
        raise ValueError(
            f"{field}: expected rigid transforms (R^T R = I, det R = 1, last row 0 0 0 1), "
            f"got |R^T R - I| = {error:.2g}; re-orthonormalize, and keep scale out of poses"
        )
    reach = float(np.abs(out[..., :3, 3]).max(initial=0.0))
    if reach > FARTHEST:
        raise ValueError(
            f"{field}: expected positions within {FARTHEST:g} m, they reach out to {reach:.3g} m; "
            "is it another unit?"
        )
    return out


def choice(field: str, value: Any, valid: Sequence[str]) -> str:
    """The value, if it is one of `valid`."""
    if value not in valid:
        raise ValueError(f"{field}: got {value!r}, expected one of {', '.join(valid)}")
    return str(value)


def positive(field: str, value: float, *, zero: bool = False) -> float:
    """Finite positive float; with `zero`, zero is allowed too."""
    try:
        out = float(value)
    except (TypeError, ValueError, OverflowError):
        out = np.nan
    if not np.isfinite(out) or out < 0 or (out == 0 and not zero):
        raise ValueError(
            f"{field}: expected a {'non-negative' if zero else 'positive'} number, got {value!r}"
        )
    return out


def _show(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
