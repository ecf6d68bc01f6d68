"""Folders of depth frames: the project's own layout, written and read, and those of other programs.

`write_frames` makes this folder, which can also be made by hand:

    frames.json            {"format": "flowplan-frames", "version": 1, "depth_scale": 10000,
                            "frames": [...]}
    depth/000000.png       16-bit gray, depth_scale units per meter, 0 = no return
    color/000000.png       8-bit RGB, same size (optional)
    mask/000000.png        8- or 16-bit gray, object ids, 0 = background (optional)
    confidence/000000.png  8-bit gray, 255 = certain (optional)

Each entry of "frames" holds "depth" and optionally "color", "mask" and "confidence" (paths in the
folder), "intrinsics" (3 x 3, by rows) and "X_world_camera" (4 x 4, by rows, meters). `read_frames`
reads that and the layouts of `flowplan.scan.depth.layouts`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from flowplan.scan.depth import layouts
from flowplan.scan.depth.frame_files import (
    FrameFiles,
    load_frame,
    objects_in,
    read_json,
    require,
)
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.images import MOST_PIXELS, pixels
from flowplan.utils import checks
from flowplan.utils.files import atomic_write, inside, naming

FORMAT, VERSION = "flowplan-frames", 1
LARGEST_16_BIT = 65_535


def write_frames(
    folder: str | Path, frames: Sequence[DepthFrame], *, depth_scale: float = 10_000.0
) -> None:
    """Write frames to a folder in the layout above.

    `frames.json` is written last: a folder without it is incomplete and is not read.

    Args:
        folder: created if it does not exist.
        frames: at least one.
        depth_scale: units per meter; 10 000 keeps tenths of a millimeter up to 6.5 m.

    Raises:
        ValueError: if a depth does not fit in 16 bits, or there is nothing to write.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("frames: expected at least one DepthFrame, got none")
    scale = checks.positive("depth_scale", depth_scale)
    # The largest depth must fit in 16 bits; else suggest a power of ten that does.
    largest = max(float(frame.depth.max()) for frame in frames)
    if largest * scale > LARGEST_16_BIT:
        fitting = 10 ** np.floor(np.log10(LARGEST_16_BIT / largest))
        raise ValueError(
            f"depth_scale: {largest:.2f} m at {scale:g} units per meter does not fit in 16 bits; "
            f"pass depth_scale={fitting:g}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "frames.json"
    # An old index goes first: the folder is incomplete until the new one is there.
    index.unlink(missing_ok=True)
    for kind in ("depth", "color", "mask", "confidence"):
        for old in (folder / kind).glob("[0-9]" * 6 + ".png"):
            old.unlink()
    entries = [_write_frame(folder, i, frame, scale) for i, frame in enumerate(frames)]
    document = {"format": FORMAT, "version": VERSION, "depth_scale": scale, "frames": entries}
    with atomic_write(index) as file:
        file.write(json.dumps(document, indent=1).encode())


def _write_frame(folder: Path, number: int, frame: DepthFrame, scale: float) -> dict[str, Any]:
    """Write one frame's images and return its entry in the index."""
    # Depth, mask and confidence as integers.
    images: dict[str, NDArray[Any]] = {"depth": np.round(frame.depth * scale).astype(np.uint16)}
    if frame.color is not None:
        images["color"] = frame.color
    if frame.mask is not None:
        if frame.mask.max() > LARGEST_16_BIT:
            raise ValueError(
                f"DepthFrame.mask: ids up to {LARGEST_16_BIT} can be written, "
                f"got {frame.mask.max()}; renumber"
            )
        images["mask"] = np.maximum(frame.mask, 0).astype(np.uint16)
    if frame.confidence is not None:
        images["confidence"] = np.round(255 * frame.confidence).astype(np.uint8)
    entry: dict[str, Any] = {}
    for kind, values in images.items():
        entry[kind] = f"{kind}/{number:06d}.png"
        (folder / kind).mkdir(exist_ok=True)
        with naming(folder / entry[kind]):
            Image.fromarray(values).save(folder / entry[kind])
    entry["intrinsics"] = frame.intrinsics.tolist()
    entry["X_world_camera"] = frame.X_world_camera.tolist()
    return entry


def read_frames(
    folder: str | Path,
    *,
    depth_scale: float | None = None,
    intrinsics: ArrayLike | None = None,
    color: bool = True,
    every: int = 1,
    most_pixels: int = MOST_PIXELS,
    allow_outside: bool = False,
) -> tuple[DepthFrame, ...]:
    """Read the frames of a folder: the layout above, or one of `flowplan.scan.depth.layouts`.

    Args:
        folder: its path.
        depth_scale: depth units per meter. Defaults to the folder's, or to 1000 (millimeters).
        intrinsics: (3, 3), for folders whose intrinsics are missing or wrong.
        color: read the color images too.
        every: take every n-th frame only.
        most_pixels: of all images together; folders with more are refused before they are decoded.
        allow_outside: read images that lie outside of the folder, if its index names them.

    Raises:
        ValueError: one line that names the file and the remedy.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of depth frames")
    if every < 1:
        raise ValueError(f"every: expected at least 1, got {every}")
    if depth_scale is not None:
        checks.positive("depth_scale", depth_scale)
    own = (folder / "frames.json").exists()
    find = _own_layout if own else layouts.find
    entries = find(folder, allow_outside=allow_outside)[::every]
    if not entries:
        raise ValueError(f"{folder}: holds no frames")
    _refuse_many(folder, entries, color, every, most_pixels)
    return tuple(load_frame(entry, depth_scale, intrinsics, color) for entry in entries)


def _refuse_many(
    folder: Path, entries: Sequence[FrameFiles], color: bool, every: int, most: int
) -> None:
    """Refuse frames of more than `most` pixels together, by the headers of their images."""
    total = 0
    for entry in entries:
        for kind in ("depth", "color", "mask", "confidence"):
            path = getattr(entry, kind)
            if path is not None and (color or kind != "color"):
                total += pixels(path, kind)
    if total > most:
        fewer = every * -(-total // most)
        raise ValueError(
            f"{folder}: its {len(entries)} frames have {total / 1e6:.0f} million pixels, expected "
            f"at most {most / 1e6:.0f} million; pass every={fewer}, or raise most_pixels"
        )


def _own_layout(folder: Path, *, allow_outside: bool = False) -> list[FrameFiles]:
    path = folder / "frames.json"
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise ValueError(f'{path}: format: expected "{FORMAT}", got {document.get("format")!r}')
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: version: expected {VERSION}, got {document.get('version')!r}; "
            "a newer flowplan may read it"
        )
    entries = []
    for where, item in objects_in(path, document, "frames"):
        color, mask, confidence = (
            inside(folder, require(where, item, kind, str), where, allow_outside=allow_outside)
            if kind in item
            else None
            for kind in ("color", "mask", "confidence")
        )
        entries.append(
            FrameFiles(
                depth=inside(
                    folder, require(where, item, "depth", str), where, allow_outside=allow_outside
                ),
                color=color,
                mask=mask,
                confidence=confidence,
                X_world_camera=require(where, item, "X_world_camera", list),
                pose_source=f"{where}.X_world_camera",
                intrinsics=require(where, item, "intrinsics", list),
                depth_scale=float(require(path, document, "depth_scale", (int, float))),
            )
        )
    return entries
