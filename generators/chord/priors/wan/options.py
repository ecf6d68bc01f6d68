"""How Wan is distilled from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flowplan.utils import checks

Gradient = Literal["exact", "linear"]
"""How a gradient passes the VAE encoder: back through it, or through a linear map fitted to it (`wan.linear`)."""
Precision = Literal["bfloat16", "float32"]

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，"
    "静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""What a video should not look like: the sentence that Wan's authors use, in the language that they trained it in
(overexposed, static, blurred, subtitles, ..., motionless, cluttered background, three legs, walking backwards)."""


@dataclass(frozen=True)
class WanOptions:
    """How Wan is distilled from."""

    frames: int = 41
    """T of a video; 4 n + 1."""
    height: int | None = None
    """Pixels; None for 464, or for the multiple below that the model can make."""
    width: int = 832
    """Pixels."""
    guidance: tuple[float, float] = (25.0, 12.0)
    """Scale of classifier-free guidance at the first and the last iteration (CHORD, A.1)."""
    negative: str = NEGATIVE
    """What guidance leads away from."""
    gradient: Gradient = "exact"
    """How a gradient passes the VAE encoder: "exact" goes back through it, "linear" goes around it: the encoder runs less
    than half as often and stores nothing, but the gradient is an experiment; `wan.linear` says what is known of it."""
    forget: Literal["auto", "nothing", "chunks", "videos"] = "auto"
    """What an exact gradient computes again instead of storing it; "auto" for the least that fits into memory."""
    cameras: int = 4
    """Videos of an iteration, for which memory is planned."""
    dtype: Precision = "bfloat16"
    """Of the transformers and the text encoder."""
    vae_dtype: Precision = "bfloat16"
    """Of the VAE encoder; float32 doubles what it needs."""
    device: str = "cuda"
    """Where it runs, as torch names it."""
    spare: float = 8.0
    """GiB left free for what the plan does not see: the renderer, CUDA itself, workspaces, fragmentation."""

    def __post_init__(self) -> None:
        if len(self.guidance) != 2:
            raise ValueError(
                f"WanOptions.guidance: expected a first and a last scale, got {self.guidance!r}"
            )
        for scale in self.guidance:
            checks.positive("WanOptions.guidance", scale)
        checks.choice("WanOptions.gradient", self.gradient, get_args(Gradient))
        checks.choice("WanOptions.forget", self.forget, ("auto", "nothing", "chunks", "videos"))
        for name in ("dtype", "vae_dtype"):
            checks.choice(f"WanOptions.{name}", getattr(self, name), get_args(Precision))
        checks.positive("WanOptions.spare", self.spare, zero=True)
        if self.cameras < 1:
            raise ValueError(f"WanOptions.cameras: expected at least 1, got {self.cameras}")
