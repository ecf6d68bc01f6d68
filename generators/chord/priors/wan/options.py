"""Options of Wan as a video prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from flowplan.utils import bounds
from flowplan.utils.bounds import Interval

Gradient = Literal["exact", "linear"]
"""Gradient of the VAE encoder: backward through it, or through a linear map fitted to it
(`generators.chord.priors.wan.linear`)."""
Precision = Literal["bfloat16", "float32"]

Scale = Annotated[float, Interval(1e-6, 1e6)]

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，"
    "静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Negative prompt of Wan's authors, in the language of its training (overexposed, static, blurred,
subtitles, ..., motionless, cluttered background, three legs, walking backwards)."""


@dataclass(frozen=True)
class WanOptions:
    """Options of Wan as a video prior."""

    frames: Annotated[int, Interval(1, 10_000)] = 41
    """T of a video; 4 n + 1."""
    height: Annotated[int, Interval(1, 8192)] | None = None
    """Pixels. Defaults to 464, or the next multiple below that the model can make."""
    width: Annotated[int, Interval(1, 8192)] = 832
    """Pixels."""
    guidance: tuple[Scale, Scale] = (25.0, 12.0)
    """Scale of classifier-free guidance at the first and the last iteration (CHORD, A.1)."""
    negative: str = NEGATIVE
    """Negative prompt, which guidance leads away from."""
    gradient: Gradient = "exact"
    """Gradient of the VAE encoder. "exact" passes backward through it. "linear" passes around it:
    the encoder runs less than half as often and stores nothing, but the gradient is experimental;
    see `generators.chord.priors.wan.linear`."""
    forget: Literal["auto", "nothing", "chunks", "videos"] = "auto"
    """Activations that an exact gradient recomputes instead of storing them; "auto" for the fewest
    that fit into memory."""
    cameras: Annotated[int, Interval(1, 1000)] = 4
    """Videos of an iteration, for which memory is planned."""
    dtype: Precision = "bfloat16"
    """Precision of the transformers and the text encoder."""
    vae_dtype: Precision = "bfloat16"
    """Precision of the VAE encoder; float32 doubles its memory."""
    device: str = "cuda"
    """Device: cuda, cuda:N or cpu."""
    spare: Annotated[float, Interval(0, 1e9)] = 8.0
    """GiB left free for what the plan does not see: the renderer, CUDA itself, workspaces and
    fragmentation."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if len(self.guidance) != 2:
            raise ValueError(
                f"WanOptions.guidance: expected a first and a last scale, got {self.guidance!r}"
            )
