"""Sizes of the choreographer, and the scale of what it sees."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from flowplan import checks


@dataclass(frozen=True)
class ChoreographerConfig:
    """Sizes; the defaults are those of the weights that ship."""

    frames: int = 16
    """T of its videos."""
    size: int = 48
    """Pixels of a side of its videos."""
    patch: int = 6
    """Pixels of a side of a token's patch; divides `size`."""
    patch_frames: int = 4
    """Frames of a token's patch; divides `frames`."""
    width: int = 256
    """Width of a token."""
    blocks: int = 6
    """Blocks of attention and MLP; they attend in turn to the same frames and, every third one, to all tokens."""
    heads: int = 8
    """Attention heads; divides `width`."""
    mlp_ratio: float = 3.0
    """Hidden width of the MLPs over `width`."""
    text_width: int = 384
    """Numbers of a sentence's embedding."""
    centre: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    """(C,) what a channel of a video is lessened by before it is scaled: three of rest positions, and alpha."""
    scale: tuple[float, ...] = (0.07, 0.07, 0.07, 0.3)
    """(C,) about the standard deviation of a channel, which a latent is in units of."""

    def __post_init__(self) -> None:
        for name in ("centre", "scale"):  # JSON has lists alone
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"ChoreographerConfig.{field.name}: expected a whole number from 1, got {value!r}")
        checks.positive("ChoreographerConfig.mlp_ratio", self.mlp_ratio)
        if len(self.centre) != len(self.scale) or not all(math.isfinite(v) for v in self.centre):
            raise ValueError(f"ChoreographerConfig.centre: expected {len(self.scale)} numbers, got {self.centre}")
        for value in self.scale:
            checks.positive("ChoreographerConfig.scale", value)
        for whole, part in (("size", "patch"), ("frames", "patch_frames"), ("width", "heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"ChoreographerConfig.{whole}: expected a multiple of {part} = {getattr(self, part)}, "
                    f"got {getattr(self, whole)}"
                )

    @property
    def channels(self) -> int:
        """Channels C of its videos."""
        return len(self.scale)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens along the time, and along a side of a frame."""
        return self.frames // self.patch_frames, self.size // self.patch


SMALL = ChoreographerConfig()
"""The one whose weights ship."""
