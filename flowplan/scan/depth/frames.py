"""Depth frames, and the folder of PNG and JSON that keeps them.

A camera looks along its z axis with x right and y down (OpenCV); pixel (row v, column u) has its centre at (u, v):

    [u, v, 1]^T = K [x, y, z]^T / z,      p_world = X_world_camera p_camera

The folder that `write_frames` makes, and that anyone can make by hand:

    frames.json            {"format": "flowplan-frames", "version": 1, "depth_scale": 10000, "frames": [...]}
    depth/000000.png       16-bit grey, depth_scale units to a metre, 0 = nothing returned
    color/000000.png       8-bit RGB, same size (optional)
    mask/000000.png        8- or 16-bit grey, object ids, 0 = background (optional)
    confidence/000000.png  8-bit grey, 255 = certain (optional)

where each entry of "frames" holds "depth" and optionally "color", "mask", "confidence" (paths inside the folder),
"intrinsics" (3 x 3, by rows) and "X_world_camera" (4 x 4, by rows, metres). `read_frames` reads that and the common
layouts of `flowplan.scan.depth.layouts`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from flowplan.geometry import transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

FORMAT, VERSION = "flowplan-frames", 1


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """One depth image and where it was taken from.

    Attributes:
        depth: (H, W) float32, metres along the optical axis, 0 where nothing returned.
        intrinsics: (3, 3) pinhole matrix K in pixels, without skew or distortion.
        X_world_camera: (4, 4) camera pose, OpenCV convention (z forward, x right, y down).
        color: (H, W, 3) uint8 RGB registered to the depth, or None.
        mask: (H, W) int32 object ids, positive; 0 or less is background. Or None.
        confidence: (H, W) float32 in [0, 1], or None where every return is trusted alike.
    """

    depth: NDArray[np.float32]
    intrinsics: FloatArray
    X_world_camera: FloatArray
    color: NDArray[np.uint8] | None = None
    mask: NDArray[np.int32] | None = None
    confidence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        hint = "set pixels without a return to 0"
        depth = checks.array(
            "DepthFrame.depth", self.depth, ("H", "W"), dtype=np.float32, hint=hint
        )
        if depth.min() < 0:
            raise ValueError(f"DepthFrame.depth: expected metres >= 0, got {depth.min():g}; {hint}")
        K = checks.array("DepthFrame.intrinsics", self.intrinsics, (3, 3))
        if (
            K[0, 0] <= 0
            or K[1, 1] <= 0
            or abs(K[0, 1]) > 1e-6
            or np.abs(K[[1, 2, 2], [0, 0, 1]]).max() > 1e-9
        ):
            raise ValueError(
                f"DepthFrame.intrinsics: expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got {K.tolist()}; "
                "check that it is not transposed"
            )
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "intrinsics", K / K[2, 2])
        object.__setattr__(
            self, "X_world_camera", checks.poses("DepthFrame.X_world_camera", self.X_world_camera)
        )
        optional: tuple[tuple[str, tuple[int, ...], type], ...] = (
            ("color", (*depth.shape, 3), np.uint8),
            ("mask", depth.shape, np.int32),
            ("confidence", depth.shape, np.float32),
        )
        for name, shape, dtype in optional:
            value = getattr(self, name)
            if value is not None:
                hint = "register it to the depth image, or leave it out"
                value = checks.array(f"DepthFrame.{name}", value, shape, dtype=dtype, hint=hint)
                object.__setattr__(self, name, value)
        if self.confidence is not None and (self.confidence.min() < 0 or self.confidence.max() > 1):
            raise ValueError("DepthFrame.confidence: expected values in [0, 1]; scale them")

    @property
    def rays(self) -> FloatArray:
        """(H, W, 3): K^-1 [u, v, 1], so that a point is its depth times its ray, in the camera frame."""
        height, width = self.depth.shape
        K = self.intrinsics
        x = (np.arange(width) - K[0, 2]) / K[0, 0]
        y = (np.arange(height) - K[1, 2]) / K[1, 1]
        return np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)

    @property
    def points_world(self) -> FloatArray:
        """(H, W, 3) what each pixel sees, world frame, metres; the camera's own position where nothing returned."""
        return transform(self.X_world_camera, self.depth[..., None] * self.rays)


def intrinsics_from_fov(width: int, height: int, vertical_fov: float) -> FloatArray:
    """K (3, 3) of square pixels and a centred optical axis; `vertical_fov` is the full angle in radians."""
    focal = 0.5 * height / np.tan(0.5 * vertical_fov)
    return np.array([[focal, 0, 0.5 * (width - 1)], [0, focal, 0.5 * (height - 1)], [0, 0, 1]])


def write_frames(
    folder: str | Path, frames: Sequence[DepthFrame], *, depth_scale: float = 10_000.0
) -> None:
    """Keep frames in the layout described above. `frames.json` is written last: without it the folder is not read.

    Args:
        depth_scale: units to a metre; 10 000 keeps tenths of millimetres up to 6.5 m.

    Raises:
        ValueError: when a depth does not fit in 16 bits, or there is nothing to write.
    """
    frames = tuple(frames)
    if not frames:
        raise ValueError("frames: expected at least one DepthFrame, got none")
    scale = checks.positive("depth_scale", depth_scale)
    largest = max(float(frame.depth.max()) for frame in frames)
    if largest * scale > 65_535:
        raise ValueError(
            f"depth_scale: {largest:.2f} m at {scale:g} units a metre does not fit in 16 bits; "
            f"pass depth_scale={10 ** np.floor(np.log10(65_535 / largest)):g}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "frames.json"
    index.unlink(missing_ok=True)
    entries = []
    for number, frame in enumerate(frames):
        images: dict[str, NDArray[Any]] = {"depth": np.round(frame.depth * scale).astype(np.uint16)}
        if frame.color is not None:
            images["color"] = frame.color
        if frame.mask is not None:
            if frame.mask.max() > 65_535:
                raise ValueError(
                    f"DepthFrame.mask: ids up to 65535 can be written, got {frame.mask.max()}; renumber"
                )
            images["mask"] = np.maximum(frame.mask, 0).astype(np.uint16)
        if frame.confidence is not None:
            images["confidence"] = np.round(255 * frame.confidence).astype(np.uint8)
        entry: dict[str, Any] = {}
        for kind, pixels in images.items():
            entry[kind] = f"{kind}/{number:06d}.png"
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / entry[kind])
        entry["intrinsics"] = frame.intrinsics.tolist()
        entry["X_world_camera"] = frame.X_world_camera.tolist()
        entries.append(entry)
    document = {"format": FORMAT, "version": VERSION, "depth_scale": scale, "frames": entries}
    partial = index.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1))
    os.replace(partial, index)


def read_frames(
    folder: str | Path,
    *,
    depth_scale: float | None = None,
    intrinsics: ArrayLike | None = None,
    color: bool = True,
    every: int = 1,
) -> tuple[DepthFrame, ...]:
    """Read the frames of a folder: our layout, or one of those in `flowplan.scan.depth.layouts`.

    Args:
        depth_scale: depth units to a metre; what the folder says, or 1000 (millimetres), if not given.
        intrinsics: (3, 3), for folders that lack them or have them wrong.
        color: read the colour images too.
        every: take every n-th frame only.

    Raises:
        ValueError: one line naming the file and what to do, when something is missing or not as it should be.
    """
    from flowplan.scan.depth import layouts

    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of depth frames")
    if every < 1:
        raise ValueError(f"every: expected at least 1, got {every}")
    if depth_scale is not None:
        checks.positive("depth_scale", depth_scale)
    entries = _own_layout(folder) if (folder / "frames.json").exists() else layouts.find(folder)
    if not entries:
        raise ValueError(f"{folder}: holds no frames")
    return tuple(_read(entry, depth_scale, intrinsics, color) for entry in entries[::every])


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """Where one frame's parts are, before they are read.

    Attributes:
        depth, color, mask, confidence: image files.
        X_world_camera: (4, 4) OpenCV convention, as rigid as the file's digits allow.
        intrinsics: (3, 3), or None where the folder does not say.
        depth_scale: depth units to a metre.
        pose_source: what to name when the pose is not rigid.
        invalid: raw depth value that, like 0, means that nothing returned.
    """

    depth: Path
    X_world_camera: Any
    pose_source: str
    intrinsics: Any = None
    depth_scale: float = 1000.0
    color: Path | None = None
    mask: Path | None = None
    confidence: Path | None = None
    invalid: int = 65_535


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or a one-line error."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not readable as JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(document).__name__}")
    return document


def _own_layout(folder: Path) -> list[FrameFiles]:
    path = folder / "frames.json"
    document = read_json(path)
    if document.get("format") != FORMAT:
        raise ValueError(f'{path}: format: expected "{FORMAT}", got {document.get("format")!r}')
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path}: version: expected {VERSION}, got {document.get('version')!r}; a newer flowplan may read it"
        )
    entries = []
    for where, item in objects_in(path, document, "frames"):
        color, mask, confidence = (
            folder / require(where, item, k, str) if k in item else None
            for k in ("color", "mask", "confidence")
        )
        entries.append(
            FrameFiles(
                depth=folder / require(where, item, "depth", str),
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


def require(where: object, document: dict[str, Any], key: str, kind: Any) -> Any:
    """document[key] if it is of this kind, or a one-line error."""
    if key not in document:
        raise ValueError(f"{where}: {key}: missing")
    if not isinstance(document[key], kind):
        raise ValueError(f"{where}: {key}: got a {type(document[key]).__name__}")
    return document[key]


def objects_in(
    where: object, document: dict[str, Any], key: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of the list document[key], each with words on where it stands."""
    for i, item in enumerate(require(where, document, key, list)):
        if not isinstance(item, dict):
            raise ValueError(
                f"{where}: {key}[{i}]: expected an object, got a {type(item).__name__}"
            )
        yield f"{where}: {key}[{i}]", item


def _read(
    entry: FrameFiles, depth_scale: float | None, intrinsics: ArrayLike | None, color: bool
) -> DepthFrame:
    raw = _image(entry.depth, "depth", ("I;16", "I;16B", "I;16L"), "save it as a 16-bit grey PNG")
    scale = (
        depth_scale
        if depth_scale is not None
        else checks.positive("depth_scale", entry.depth_scale)
    )
    if not 1 <= scale <= 1e6:
        raise ValueError(
            f"depth_scale: expected units to a metre between 1 and 1e6, got {scale:g}; pass depth_scale="
        )
    K = entry.intrinsics if intrinsics is None else intrinsics
    if K is None:
        raise ValueError(
            f"{entry.depth.parent}: no intrinsics beside the depth images; pass intrinsics="
        )
    images: dict[str, Any] = {}
    if color and entry.color is not None:
        images["color"] = _image(entry.color, "color", None, "", convert="RGB")
    if entry.mask is not None:
        modes = ("L", "P", "1", "I;16", "I;16B", "I;16L", "I")
        images["mask"] = _image(entry.mask, "mask", modes, "save object ids as a grey PNG").astype(
            np.int32
        )
    if entry.confidence is not None:
        grey = _image(entry.confidence, "confidence", ("L",), "save it as an 8-bit grey PNG")
        images["confidence"] = grey.astype(np.float32) / 255
    for kind, pixels in images.items():
        if pixels.shape[:2] != raw.shape:
            raise ValueError(
                f"{getattr(entry, kind)}: is {pixels.shape[1]} x {pixels.shape[0]}, its depth image "
                f"{raw.shape[1]} x {raw.shape[0]}; register the two"
                + (", or pass color=False" if kind == "color" else "")
            )
    metres = np.where(raw == entry.invalid, 0, raw).astype(np.float32) / np.float32(scale)
    K = checks.array(f"{entry.depth}: intrinsics", K, (3, 3))
    return DepthFrame(metres, K, nearly_rigid(entry.pose_source, entry.X_world_camera), **images)


def nearly_rigid(source: str, X: ArrayLike) -> FloatArray:
    """A pose read from text, its rotation made exactly orthonormal if it nearly is (a file's digits are rounded)."""
    X = checks.array(source, X, (4, 4)).copy()
    U, _, Vt = np.linalg.svd(X[:3, :3])
    error = np.abs(U @ Vt - X[:3, :3]).max()
    if error > 1e-3 or np.linalg.det(U @ Vt) < 0 or np.abs(X[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError(
            f"{source}: not a rigid transform (rotation off by {error:.2g}); expected R^T R = I, det R = 1, "
            "last row 0 0 0 1, without scale"
        )
    if error > 1e-9:
        X[:3, :3] = U @ Vt
    return X


def _image(
    path: Path, kind: str, modes: Iterable[str] | None, remedy: str, convert: str | None = None
) -> NDArray[Any]:
    if not path.is_file():
        raise ValueError(f"{path}: the {kind} image is missing")
    try:
        with Image.open(path) as image:
            if modes is not None and image.mode not in modes:
                raise ValueError(
                    f"{path}: expected {kind} of mode {'/'.join(modes)}, got {image.mode}; {remedy}"
                )
            return np.array(image.convert(convert) if convert else image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: not readable as an image ({str(error).splitlines()[0]})"
        ) from None
