"""The README's moving picture, from the video of a run.

python tools/make_picture.py runs/demo/video.mp4 docs/picture.gif
"""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import tyro
from PIL import Image

MAX_BYTES = 2_000_000


def main(
    video: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    width: int = 480,
    rate: float = 8.0,
    colors: int = 96,
) -> None:
    """Convert a video to an animated GIF.

    Args:
        video: Video file.
        out: GIF to write.
        width: Width in pixels.
        rate: Frames per second.
        colors: Colors of the palette, which all frames share.
    """
    reader = imageio_ffmpeg.read_frames(str(video))
    meta = next(reader)
    size = meta["size"]
    step = max(1, round(meta["fps"] / rate))
    frames = []
    for index, data in enumerate(reader):
        if index % step == 0:
            image = Image.frombytes("RGB", size, data)
            height = round(size[1] * width / size[0])
            frames.append(image.resize((width, height), Image.Resampling.LANCZOS))

    # One palette for all frames, so that still pixels stay the same and compress to nothing.
    montage = Image.fromarray(np.concatenate([np.asarray(f) for f in frames[:: len(frames) // 8]]))
    palette = montage.quantize(colors, dither=Image.Dither.NONE)
    indexed = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]

    duration = [round(1000 * step / meta["fps"])] * (len(indexed) - 1) + [1500]
    indexed[0].save(
        out, save_all=True, append_images=indexed[1:], duration=duration, loop=0, optimize=False
    )
    written = out.stat().st_size
    if written > MAX_BYTES:
        raise SystemExit(
            f"{out}: {written / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB; lower --rate"
        )
    print(f"wrote {out}: {len(indexed)} frames, {written / 1e6:.2f} MB")


if __name__ == "__main__":
    tyro.cli(main)
