"""A preview of a motion: an animated GIF of two sides of the scene, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from flowplan.utils.files import atomic_write
from generators.chord.distill.stage import UNIT, Moved, Stage
from generators.chord.render.cameras import around

SIZE = 160
"""Pixels of a side of each view."""
_AZIMUTH, _ELEVATION = np.radians([-60.0, 30.0]), np.radians([30.0, 30.0])
_FRAME_MS, _PAUSE_MS = 100, 800


def write_preview(path: Path, stage: Stage, moved: Moved) -> None:
    """Write every frame as a GIF, with a pause on the last."""
    films = stage.show(moved, around(UNIT, _AZIMUTH, _ELEVATION, SIZE, SIZE))  # (2, T, H, W, 3)
    frames = [
        Image.fromarray(np.concatenate(list(sides), axis=1)) for sides in films.swapaxes(0, 1)
    ]
    duration = [_FRAME_MS] * (len(frames) - 1) + [_PAUSE_MS]
    with atomic_write(path) as file:
        frames[0].save(
            file, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0
        )
