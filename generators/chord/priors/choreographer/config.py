"""Sizes of the choreographer, and the scale of its latents."""

from __future__ import annotations

from dataclasses import dataclass, fields

from flowplan.utils import checks


@dataclass(frozen=True)
class ChoreographerConfig:
    """Sizes of the network; the defaults are those of the weights that ship."""

    frames: int = 16
    """T of its videos."""
    size: int = 48
    """Pixels of a side of its videos."""
    patch: int = 4
    """Pixels of a side of a token's patch, a divisor of `size`; a token spans all frames."""
    sharpness: int = 2
    """Pixels of its first frames along a pixel of its videos."""
    width: int = 320
    """Width of a token."""
    blocks: int = 6
    """Blocks of attention and MLP."""
    heads: int = 5
    """Attention heads; divides `width`."""
    mlp_ratio: float = 3.0
    """Hidden width of the MLPs over `width`."""
    text_width: int = 384
    """Width of a sentence's embedding."""
    scale: float = 0.12
    """Unit of a latent: about the standard deviation of displacements."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise ValueError(
                    f"ChoreographerConfig.{field.name}: expected a whole number from 1, "
                    f"got {value!r}"
                )
        checks.positive("ChoreographerConfig.mlp_ratio", self.mlp_ratio)
        checks.positive("ChoreographerConfig.scale", self.scale)
        for whole, part in (("size", "patch"), ("width", "heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"ChoreographerConfig.{whole}: expected a multiple of "
                    f"{part} = {getattr(self, part)}, got {getattr(self, whole)}"
                )

    @property
    def first_size(self) -> int:
        """Pixels of a side of its first frames."""
        return self.size * self.sharpness

    @property
    def side(self) -> int:
        """Tokens along a side of a frame."""
        return self.size // self.patch


SMALL = ChoreographerConfig()
"""The network whose weights ship."""
