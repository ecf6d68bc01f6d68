"""Sizes of a NeuROK network: the paper's (Table 5), and one that trains and runs on a CPU.

Interpretation of Table 5 where it is ambiguous: "Fourier basis width 8" is eight frequencies of
every coordinate (eight numbers cannot hold a sine and a cosine of three coordinates); the encoders
are as wide as their codebooks; the decoder is as wide as its output head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from flowplan.utils import bounds, checks
from flowplan.utils.bounds import Interval

DEFORMATIONS = {"dual_quaternion": 8, "displacement": 3}
"""Representations of a point's motion, and the numbers that each takes."""

Ratio = Annotated[float, Interval(1e-3, 1000)]


@dataclass(frozen=True)
class NeurokConfig:
    """Sizes of the network; the defaults are Table 5."""

    tokens: int = 128
    """Latent tokens K."""
    channels: int = 1024
    """Channels C of a latent token; the latent space has K * C dimensions."""
    encoder_width: int = 1024
    """Width of the two encoders and of their learned tokens."""
    decoder_width: int = 512
    """Width of the decoder, its point features included."""
    point_width: int = 512
    """Width of the encoders' point features."""
    frequencies: int = 8
    """Sines and cosines of every coordinate."""
    encoder_blocks: int = 4
    """Blocks of each encoder: self-attention and MLP on the tokens."""
    encoder_point_blocks: int = 4
    """Encoder blocks that read the points first, counted from the first block; at most
    `encoder_blocks`."""
    decoder_blocks: int = 4
    """Decoder blocks of self-attention and MLP on the latents."""
    decoder_point_blocks: int = 4
    """Decoder blocks after which the query points read the latents, counted from the last block; at
    most `decoder_blocks`."""
    heads: int = 16
    """Attention heads; divides both widths."""
    mlp_ratio: Ratio = 4.0
    """Hidden width of the MLPs on tokens over their width."""
    query_mlp_ratio: Ratio = 4.0
    """The same for the MLPs on the decoder's query points, which take most of a training step."""
    deformation: str = "dual_quaternion"
    """Representation of a point's motion: "dual_quaternion" (8 numbers) or, as an ablation,
    "displacement" (3)."""
    condition_decoder: bool = False
    """If True the decoder also sees the prior encoder's features of the shape, and z needs to carry
    the motion alone. If False (the paper), z has to carry the shape too."""
    log_variance_max: Annotated[float, Interval(1e-6, 1000)] = 2.0
    """Upper bound that the posterior's log-variance approaches smoothly."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int":
                value = getattr(self, field.name)
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(
                        f"NeurokConfig.{field.name}: expected a whole number from 1, got {value!r}"
                    )
        bounds.check(self)
        checks.choice("NeurokConfig.deformation", self.deformation, tuple(DEFORMATIONS))
        if not isinstance(self.condition_decoder, bool):
            raise ValueError(
                "NeurokConfig.condition_decoder: expected true or false, got "
                f"{self.condition_decoder!r}"
            )
        for name in ("encoder_width", "decoder_width"):
            width = getattr(self, name)
            if width % self.heads:
                raise ValueError(
                    f"NeurokConfig.{name}: expected a multiple of heads = {self.heads}, got {width}"
                )
        for name in ("encoder", "decoder"):
            some, all_ = getattr(self, f"{name}_point_blocks"), getattr(self, f"{name}_blocks")
            if some > all_:
                raise ValueError(
                    f"NeurokConfig.{name}_point_blocks: expected at most {name}_blocks = {all_}, "
                    f"got {some}"
                )

    @property
    def deformation_width(self) -> int:
        """Numbers that represent a point's motion."""
        return DEFORMATIONS[self.deformation]


PAPER = NeurokConfig()
"""Table 5 of the paper."""

SMALL = NeurokConfig(
    tokens=32,
    channels=64,
    encoder_width=256,
    decoder_width=256,
    point_width=256,
    encoder_blocks=3,
    encoder_point_blocks=2,
    decoder_blocks=4,
    decoder_point_blocks=2,
    heads=4,
    mlp_ratio=2.0,
    query_mlp_ratio=2.0,
    condition_decoder=True,
)
"""Sizes of the weights that ship."""
