"""Sizes of a NeuROK network: the paper's (Table 5), and one that trains and runs on a processor.

Where Table 5 leaves a choice: "Fourier basis width 8" is eight frequencies of every coordinate (eight numbers cannot
hold a sine and a cosine of three coordinates); the encoders are as wide as their codebooks; the decoder is as wide as
its output head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from flowplan.utils import checks

DEFORMATIONS = {"dual_quaternion": 8, "displacement": 3}
"""Representations of a point's motion and how many numbers each takes."""


@dataclass(frozen=True)
class NeurokConfig:
    """Sizes; the defaults are Table 5."""

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
    """Of those, how many read the points before, from the first on; at most `encoder_blocks`."""
    decoder_blocks: int = 4
    """Decoder blocks of self-attention and MLP on the latents."""
    decoder_point_blocks: int = 4
    """Of those, after how many the query points read the latents, up to the last; at most `decoder_blocks`."""
    heads: int = 16
    """Attention heads; divides both widths."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs on tokens over their width."""
    query_mlp_ratio: float = 4.0
    """The same of the MLPs on the decoder's query points, where most of a training step goes."""
    deformation: str = "dual_quaternion"
    """How a point's motion is written: "dual_quaternion" (8 numbers) or, as an ablation, "displacement" (3)."""
    condition_decoder: bool = False
    """Whether the decoder sees the prior encoder's features of the shape beside z. If not (the paper), z has to carry
    the shape too; if so, it needs to carry the motion alone."""
    log_variance_max: float = 2.0
    """Upper bound that the posterior's log-variance nears smoothly."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int":
                value = getattr(self, field.name)
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise ValueError(
                        f"NeurokConfig.{field.name}: expected a whole number from 1, got {value!r}"
                    )
        checks.choice("NeurokConfig.deformation", self.deformation, tuple(DEFORMATIONS))
        for name in ("mlp_ratio", "query_mlp_ratio", "log_variance_max"):
            checks.positive(f"NeurokConfig.{name}", getattr(self, name))
        if not isinstance(self.condition_decoder, bool):
            raise ValueError(
                f"NeurokConfig.condition_decoder: expected true or false, got {self.condition_decoder!r}"
            )
        for name in ("encoder_width", "decoder_width"):
            if getattr(self, name) % self.heads:
                raise ValueError(
                    f"NeurokConfig.{name}: expected a multiple of heads = {self.heads}, got {getattr(self, name)}"
                )
        for name in ("encoder", "decoder"):
            some, all_ = getattr(self, f"{name}_point_blocks"), getattr(self, f"{name}_blocks")
            if some > all_:
                raise ValueError(
                    f"NeurokConfig.{name}_point_blocks: expected at most {name}_blocks = {all_}, got {some}"
                )

    @property
    def deformation_width(self) -> int:
        """Numbers that write a point's motion."""
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
"""The one whose weights ship."""
