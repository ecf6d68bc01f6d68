"""An approximate gradient of the VAE encoder, by a linear map.

CHORD spends much of its time on the backward pass of the encoder E, and suggests avoiding it
(Limitations). Only J^T g is needed, with J the Jacobian of z = E(x) at the rendered video x. Here J
is replaced by the linear map S that best explains the encoder around x: for a small perturbation n
of white noise,

    S = argmin_A  sum over latent pixels |E(x + n) - E(x) - A n|^2 + ridge |A|^2  ~  mean of J over
    x + n

(for Gaussian noise, least squares gives the mean Jacobian: Stein's lemma). It is cheap because the
encoder is, up to its attention, the same function everywhere: S has one small kernel for the first
frame and one for every later chunk of frames, over bins of a quarter latent pixel, so that one
perturbed video gives tens of equations for each unknown. The encoder runs forward once more for
each batch, and never backward. S^T g ignores what differs from place to place (the encoder's
gates), what is finer than a bin, and what is beyond the kernel. `encode_linear` returns the true
latent with this gradient: E(x) + S x - stop(S x).

It is exact for an encoder that is one linear kernel everywhere. For the tests' small encoders with
random weights it is useless: a cosine of 0.00 with the exact gradient (0.02 at most for means of
16 x 16 pixels), because they differ from place to place. With Wan's own weights it has not been
measured: compare both on a frame of your own before you trust it. So "exact" is the default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generators.chord.priors.wan.encoder import Encoder

_BINS = 4
"""Bins along a side of a latent pixel."""
_MARGIN = 2
"""Bins that a kernel reaches beyond its latent pixel."""
_NOISE = 0.1
"""Standard deviation of the perturbation; pixels are in [0, 1]."""
_RIDGE = 1e-3
"""Relative to the mean square of what is perturbed."""


@dataclass(frozen=True, eq=False)
class LinearEncoder:
    """S: the linear, translation-invariant part of the encoder.

    Attributes:
        first: (C, 3, K, K) over bins of the first frame.
        later: (C, 4 * 3, K, K) over bins of a chunk of four frames.
        bin: pixels of a side of a bin.
    """

    first: Tensor
    later: Tensor
    bin: int

    def __call__(self, video: Tensor) -> Tensor:
        """(B, C, 1 + (T - 1) / 4, h, w) of videos (B, T, H, W, 3), up to a constant."""
        out = []
        for frames, kernel in zip(_bins(video, self.bin), (self.first, self.later), strict=True):
            latent = F.conv2d(frames.flatten(0, 1), kernel, stride=_BINS, padding=_MARGIN)
            out.append(latent.unflatten(0, frames.shape[:2]).transpose(1, 2))
        return torch.cat(out, 2)


def encode_linear(encoder: Encoder, video: Tensor) -> Tensor:
    """The encoder's latents of videos (B, T, H, W, 3), with the gradient of the linear map."""
    with torch.no_grad():
        z = encoder(video)
        linear = fit(encoder, video[:1], z[:1])
    around = linear(video)
    return z + (around - around.detach())


@torch.no_grad()
def fit(encoder: Encoder, video: Tensor, z: Tensor) -> LinearEncoder:
    """S around a video (1, T, H, W, 3) whose latent is z."""
    size = video.shape[2] // z.shape[3] // _BINS
    _, T, H, W, _ = video.shape

    # The same noise every time, drawn on the CPU: a resumed run repeats an uninterrupted one.
    generator = torch.Generator().manual_seed(0)
    noise = _NOISE * torch.randn(1, T, H // size, W // size, 3, generator=generator)
    noise = noise.to(video)
    change = encoder(video + noise.repeat_interleave(size, 2).repeat_interleave(size, 3)) - z
    kernels = [
        _least_squares(frames[0], latent)
        for frames, latent in zip(
            _bins(noise, 1), (change[0, :, :1], change[0, :, 1:]), strict=True
        )
    ]
    return LinearEncoder(kernels[0], kernels[1], size)


def _least_squares(frames: Tensor, latent: Tensor) -> Tensor:
    """The kernel (C, F, K, K) that best maps bins (n, F, rows, columns) to latents (C, n, h, w)."""
    side = _BINS + 2 * _MARGIN
    u = F.unfold(frames, side, padding=_MARGIN, stride=_BINS)
    u = u.transpose(0, 1).flatten(1)  # (F K K, equations)
    gram = u @ u.mT
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    kernel = torch.linalg.solve(gram, u @ latent.flatten(1).mT).mT
    return kernel.unflatten(1, (frames.shape[1], side, side))


def _bins(video: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Bin means: first frame (B, 1, 3, rows, columns), later chunks (B, n, 4 * 3, ., .)."""
    frames = F.avg_pool2d(video.movedim(-1, 2).flatten(0, 1), size).unflatten(0, video.shape[:2])
    return frames[:, :1], frames[:, 1:].unflatten(1, (-1, 4)).flatten(2, 3)
