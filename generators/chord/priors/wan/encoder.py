"""Wan's VAE encoder, differentiable in little memory.

The encoder reads a video in chunks of 1, 4, 4, ... frames; every causal convolution keeps the last
frames of its input for the next chunk. diffusers keeps them in a list that a chunk overwrites, and
stores every activation of every chunk for the backward pass: 80 GB for one video of 41 frames at
832 x 464. Here a chunk is a function of its frames and of what the convolutions kept, (pixels,
kept) -> (latent, kept'), so that it can be discarded and run again in the backward pass (Chen et
al. 2016, Training Deep Nets with Sublinear Memory Cost). Only `kept` is stored: two frames of each
layer's input for each chunk. Discarding whole videos too leaves only pixels, for one more run of
the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, patchify
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Forget = Literal["nothing", "chunks", "videos"]
"""Activations that a backward pass recomputes instead of storing them.

Encoder runs, with a backward pass counted as two: 3, 4 and 5. Memory: the activations of all
videos; of a chunk, and what all videos kept; of a chunk, and what one video kept."""


class Encoder(nn.Module):
    """Videos to normalized latents, (latent - mean) / standard deviation, as the transformers
    expect.

    Args:
        vae: an AutoencoderKLWan; diffusers gives its parts no types.
    """

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.net, self.to_moments = vae.encoder, vae.quant_conv
        self.patch = vae.config.patch_size or 1
        self.chunk = vae.config.scale_factor_temporal
        for name, values in (("mean", vae.config.latents_mean), ("std", vae.config.latents_std)):
            self.register_buffer(
                name, torch.tensor(values, device=vae.device).view(1, -1, 1, 1, 1), persistent=False
            )
        self.convolutions = sum(isinstance(m, WanCausalConv3d) for m in self.net.modules())
        self.requires_grad_(False).eval()

    def forward(self, video: Tensor, forget: Forget = "videos") -> Tensor:
        """Latents (B, C, 1 + (T - 1) / 4, h, w), float32, of videos (B, T, H, W, 3) in [0, 1]."""
        one = self._again(self._video) if forget == "videos" else self._video
        return torch.cat([one(v, forget) for v in video.split(1)])

    def _video(self, video: Tensor, forget: Forget) -> Tensor:
        step = self._chunk if forget == "nothing" else self._again(self._chunk)
        kept: Sequence[Tensor | None] = (None,) * self.convolutions
        latents: list[Tensor] = []
        for frames in video.split([1] + [self.chunk] * ((video.shape[1] - 1) // self.chunk), 1):
            latent, *kept = step(frames, *kept)
            latents.append(latent)
        return torch.cat(latents, 2)

    def _chunk(self, frames: Tensor, *kept: Tensor | None) -> tuple[Any, ...]:
        """The latent of a chunk, and what the convolutions keep for the next."""
        pixels = (2 * frames - 1).permute(0, 4, 1, 2, 3).to(self.to_moments.weight.dtype)
        cache = list(kept)
        moments = self.to_moments(
            self.net(patchify(pixels, self.patch), feat_cache=cache, feat_idx=[0])
        )
        latent = moments.chunk(2, 1)[0].float()  # the posterior's mean, which is its mode
        return (latent - self.mean) / self.std, *cache

    @staticmethod
    def _again(function: Any) -> Any:
        # No random numbers are drawn inside, so no generator's state needs to be restored.
        return lambda *args: checkpoint(
            function, *args, use_reentrant=False, preserve_rng_state=False
        )
