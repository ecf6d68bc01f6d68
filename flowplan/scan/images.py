"""Image files, refused by their headers before they are decoded.

A file of a few kilobytes can hold an image of a hundred megapixels, and an index can name one image
any number of times.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flowplan.utils.files import require_file

FORMATS = ("PNG", "JPEG", "TIFF", "PPM", "BMP", "WEBP")
"""Formats that are read, by content. Pillow's others are rare, and some run other programs."""
LARGEST_IMAGE = 16_777_216
"""Pixels of one image."""
MOST_PIXELS = 100_000_000
"""Pixels of all images of a folder together: 160 frames of 640 x 480 with color."""


def read_image(
    path: Path, kind: str, modes: Iterable[str] | None, remedy: str, convert: str | None = None
) -> NDArray[Any]:
    """The pixels of an image file, refused unless its mode is one of `modes` (None: any).

    Args:
        path: of the file.
        kind: "depth", "color", ... for errors.
        modes: Pillow's names of pixel formats.
        remedy: for an image of another mode.
        convert: mode to convert it to.

    Raises:
        ValueError: one line that names the file.
    """
    with _opened(path, kind) as image:
        if modes is not None and image.mode not in modes:
            raise ValueError(
                f"{path}: expected {kind} of mode {'/'.join(modes)}, got {image.mode}; {remedy}"
            )
        try:
            return np.array(image.convert(convert) if convert else image)
        except Exception as error:  # the decoders raise a dozen types on damaged files
            raise _unreadable(path, error) from None


def pixels(path: Path, kind: str) -> int:
    """The number of pixels of an image file, by its header.

    Raises:
        ValueError: one line that names the file.
    """
    with _opened(path, kind) as image:
        return int(image.width * image.height)


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Image.Image]:
    """An image file whose header is read, and whose pixels are not."""
    if not path.exists():
        raise ValueError(f"{path}: the {kind} image is missing")
    require_file(path)
    try:
        with warnings.catch_warnings():
            # Larger images than ours are a warning of Pillow.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except Exception as error:  # the readers of headers raise a dozen types, too
        raise _unreadable(path, error) from None
    with image:
        width, height = image.size
        if width * height > LARGEST_IMAGE:
            raise ValueError(
                f"{path}: has {width} x {height} pixels, expected at most "
                f"{LARGEST_IMAGE / 1e6:.0f} million; make it smaller"
            )
        yield image


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    return ValueError(f"{path}: not readable as an image ({reason})")
