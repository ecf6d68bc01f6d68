"""Structure of a Wan 2.2 pipeline, from the configuration files of its parts.

Two models take a first frame and a sentence. A14B (image-to-video) has 36 input channels: the noisy
latent, four channels that mask the given frames, and the latent of the first frame followed by
empty ones. Two experts share the noise levels, the first from `boundary` on, the second below.
TI2V-5B gets the noisy latent with its first frame replaced by the given one, and the noise level of
every token. (Wan team 2025, Wan: Open and Advanced Large-Scale Video Generative Models, arXiv
2503.20314, and the model cards of Wan 2.2.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = 1000
"""Noise levels of training: the input of the network is LEVELS * tau."""
WORDS = 512
"""Tokens of a sentence; those after its end are zero."""
_MASKS = 4
"""Channels that mask the given frames: one for each frame of a latent frame."""


@dataclass(frozen=True, eq=False)
class WanConfig:
    """Configurations of the parts of a pipeline, as diffusers and transformers write them.

    Attributes:
        transformer: of an expert (WanTransformer3DModel); both have the same.
        vae: of the autoencoder (AutoencoderKLWan).
        text: of the text encoder (UMT5EncoderModel).
        boundary: noise level tau from which the first of two experts is used; None for one network.
        token_levels: true if the network takes the noise level of every token (TI2V-5B).
    """

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    boundary: float | None
    token_levels: bool

    def __post_init__(self) -> None:
        have, latent = self.transformer.get("in_channels"), self.latent_channels
        want = latent if self.token_levels else 2 * latent + _MASKS
        if self.transformer.get("image_dim") is not None:
            raise ValueError(
                "weights: this is Wan 2.1 (it wants CLIP's image features); expected Wan 2.2"
            )
        if have != want:
            kind = (
                "a text-to-video model, which takes no first frame"
                if have == latent
                else f"{have} input channels"
            )
            raise ValueError(
                f"weights: {kind}; expected Wan 2.2 I2V-A14B or TI2V-5B "
                f"({want} input channels for latents of {latent})"
            )
        if (self.boundary is None) != self.token_levels:
            raise ValueError(
                "weights: expected two experts and a boundary_ratio (I2V-A14B) or one network and "
                f"expand_timesteps (TI2V-5B), got boundary_ratio = {self.boundary} and "
                f"expand_timesteps = {self.token_levels}"
            )

    @property
    def name(self) -> str:
        """Name of the model, for messages."""
        return "Wan 2.2 TI2V" if self.token_levels else "Wan 2.2 image-to-video"

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.vae.get("z_dim", 16))

    @property
    def stride(self) -> tuple[int, int]:
        """Frames, and pixels of a side, of a latent pixel."""
        frames = int(self.vae.get("scale_factor_temporal", 4))
        return frames, int(self.vae.get("scale_factor_spatial", 8))

    @property
    def multiple(self) -> int:
        """Divisor of the sides of a video, pixels: a patch of latent pixels."""
        return self.stride[1] * int(self.patch[1])

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a token."""
        return tuple(self.transformer.get("patch_size", (1, 2, 2)))

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(channels, frames, rows, columns) of the latent of a video."""
        time, space = self.stride
        return self.latent_channels, 1 + (frames - 1) // time, height // space, width // space

    def check_size(self, frames: int, height: int, width: int) -> None:
        """Refuse a size that the model cannot make.

        Raises:
            ValueError: naming the field, and the nearest possible value.
        """
        time = self.stride[0]
        if frames < 1 + time or (frames - 1) % time:
            near = max(1, round((frames - 1) / time)) * time + 1
            raise ValueError(
                f"WanOptions.frames: expected {time} n + 1, n from 1, got {frames}; take {near}"
            )
        for field, value in (("height", height), ("width", width)):
            if value < self.multiple or value % self.multiple:
                below = max(value // self.multiple, 1) * self.multiple
                raise ValueError(
                    f"WanOptions.{field}: expected a multiple of {self.multiple} pixels for "
                    f"{self.name}, got {value}; take {below} or {below + self.multiple}"
                )


_TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
_TEXT = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
A14B = WanConfig(
    transformer=_TRANSFORMER
    | {
        "num_attention_heads": 40,
        "in_channels": 36,
        "out_channels": 16,
        "ffn_dim": 13824,
        "num_layers": 40,
    },
    vae={"base_dim": 96, "z_dim": 16, "scale_factor_temporal": 4, "scale_factor_spatial": 8},
    text=_TEXT,
    boundary=0.9,
    token_levels=False,
)
"""Shapes of Wan2.2-I2V-A14B."""
TI2V_5B = WanConfig(
    transformer=_TRANSFORMER
    | {
        "num_attention_heads": 24,
        "in_channels": 48,
        "out_channels": 48,
        "ffn_dim": 14336,
        "num_layers": 30,
    },
    vae={
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_temporal": 4,
        "scale_factor_spatial": 16,
        "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    },
    text=_TEXT,
    boundary=None,
    token_levels=True,
)
"""Shapes of Wan2.2-TI2V-5B (the statistics of its latents come with the weights)."""
