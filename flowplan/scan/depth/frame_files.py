"""The files of a depth frame: their record, the checks of the JSON around them, and their images.

The readers of folders (`flowplan.scan.depth.frame_folder` for the project's own layout,
`flowplan.scan.depth.layouts` for those of other programs) list a `FrameFiles` for each frame;
`load_frame` then reads the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.images import read_image
from flowplan.utils import checks, text_files
from flowplan.utils.checks import FloatArray

# Pillow's names of pixel formats.
DEPTH_MODES = ("I;16", "I;16B", "I;16L")
MASK_MODES = ("L", "P", "1", "I;16", "I;16B", "I;16L", "I")


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """The parts of one frame, before its images are read.

    Attributes:
        depth: image file.
        X_world_camera: (4, 4) OpenCV convention, rigid to the precision of the file's digits.
        pose_source: place of the pose, for error messages.
        intrinsics: (3, 3), or None if the folder does not give them.
        calibrated_size: width and height in pixels of the images that `intrinsics` is for, or None
            if the folder does not give them; images of another size scale the matrix.
        depth_scale: depth units per meter.
        color, mask, confidence: image files, or None.
        invalid: raw depth value that, like 0, marks a pixel without a return.
    """

    depth: Path
    X_world_camera: Any
    pose_source: str
    intrinsics: Any = None
    calibrated_size: tuple[float, float] | None = None
    depth_scale: float = 1000.0
    color: Path | None = None
    mask: Path | None = None
    confidence: Path | None = None
    invalid: int = 65_535


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: one line that names the file.
    """
    text = text_files.read_text(path)
    try:
        document = text_files.parse_json(text, "text")
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(document).__name__}")
    return document


def require(where: object, document: dict[str, Any], key: str, kind: Any) -> Any:
    """The value of `document[key]`, which must be present and an instance of `kind`.

    Raises:
        ValueError: one line that names the place `where` and the key.
    """
    if key not in document:
        raise ValueError(f"{where}: {key}: missing")
    if not isinstance(document[key], kind):
        raise ValueError(f"{where}: {key}: got a {type(document[key]).__name__}")
    return document[key]


def objects_in(
    where: object, document: dict[str, Any], key: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of the list `document[key]`, each with its place for error messages."""
    for i, item in enumerate(require(where, document, key, list)):
        place = f"{where}: {key}[{i}]"
        if not isinstance(item, dict):
            raise ValueError(f"{place}: expected an object, got a {type(item).__name__}")
        yield place, item


def load_frame(
    files: FrameFiles, depth_scale: float | None, intrinsics: ArrayLike | None, color: bool
) -> DepthFrame:
    """Read the images of one frame.

    Args:
        files: the frame's parts.
        depth_scale: depth units per meter, instead of the folder's if given.
        intrinsics: (3, 3), instead of the folder's if given.
        color: read the color image if there is one.

    Raises:
        ValueError: one line that names the file.
    """
    raw = read_image(files.depth, "depth", DEPTH_MODES, "save it as a 16-bit gray PNG")
    try:
        scale = _scale(files, depth_scale)
    except ValueError as error:
        raise ValueError(f"{files.depth}: {error}") from None
    K = files.intrinsics if intrinsics is None else intrinsics
    if K is None:
        raise ValueError(
            f"{files.depth.parent}: no intrinsics beside the depth images; pass intrinsics="
        )
    images: dict[str, Any] = {}
    if color and files.color is not None:
        images["color"] = read_image(files.color, "color", None, "", convert="RGB")
    if files.mask is not None:
        ids = read_image(files.mask, "mask", MASK_MODES, "save object ids as a gray PNG")
        images["mask"] = ids.astype(np.int32)
    if files.confidence is not None:
        gray = read_image(files.confidence, "confidence", ("L",), "save it as an 8-bit gray PNG")
        images["confidence"] = gray.astype(np.float32) / 255
    for kind, pixels in images.items():
        if pixels.shape[:2] != raw.shape:
            raise ValueError(
                f"{getattr(files, kind)}: is {pixels.shape[1]} x {pixels.shape[0]}, its depth "
                f"image {raw.shape[1]} x {raw.shape[0]}; register the two"
                + (", or pass color=False" if kind == "color" else "")
            )
    meters = np.where(raw == files.invalid, 0, raw).astype(np.float32) / np.float32(scale)
    K = checks.array(f"{files.depth}: intrinsics", K, (3, 3))
    if intrinsics is None and files.calibrated_size is not None:
        K = _resized(files, K, raw.shape[1], raw.shape[0])
    X_world_camera = nearly_rigid(files.pose_source, files.X_world_camera)
    try:
        return DepthFrame(meters, K, X_world_camera, **images)
    except ValueError as error:
        raise ValueError(f"{files.depth}: {error}") from None


def _resized(files: FrameFiles, K: FloatArray, width: int, height: int) -> FloatArray:
    """The camera matrix (3, 3) for images of another size than those that it was measured for.

    Pixel centers have integer coordinates, so the corner at -0.5 stays where it is.
    """
    assert files.calibrated_size is not None
    full_width, full_height = files.calibrated_size
    if (full_width, full_height) == (width, height):
        return K
    x, y = width / full_width, height / full_height
    # Up to one pixel of rounding, the images have the same shape.
    if abs(height - full_height * x) > 1 and abs(width - full_width * y) > 1:
        raise ValueError(
            f"{files.depth}: is {width} x {height} pixels, its calibration for "
            f"{full_width:g} x {full_height:g}, a size of another shape; "
            "pass intrinsics= of the depth images"
        )
    scaled = K.copy()
    scaled[0, 0] *= x
    scaled[1, 1] *= y
    scaled[0, 2] = (K[0, 2] + 0.5) * x - 0.5
    scaled[1, 2] = (K[1, 2] + 0.5) * y - 0.5
    return scaled


def _scale(files: FrameFiles, depth_scale: float | None) -> float:
    """Depth units per meter: the caller's, else the folder's."""
    scale = depth_scale
    if scale is None:
        scale = checks.positive("depth_scale", files.depth_scale)
    if not 1 <= scale <= 1e6:
        raise ValueError(
            f"depth_scale: expected units per meter between 1 and 1e6, got {scale:g}; "
            "pass depth_scale="
        )
    return scale


def nearly_rigid(source: str, X: ArrayLike) -> FloatArray:
    """A pose (4, 4) read from text, its rotation replaced by the nearest orthonormal one.

    A file's digits are rounded, so that the rotation is orthonormal only up to 1e-3.

    Raises:
        ValueError: naming `source`, if the matrix is further from rigid than that.
    """
    X = checks.array(source, X, (4, 4)).copy()
    # The nearest orthonormal matrix in the Frobenius norm is U V^T.
    U, _, Vt = np.linalg.svd(X[:3, :3])
    error = np.abs(U @ Vt - X[:3, :3]).max()
    mirrored = np.linalg.det(U @ Vt) < 0
    last_row = np.abs(X[3] - [0, 0, 0, 1]).max()
    if error > 1e-3 or mirrored or last_row > 1e-6:
        raise ValueError(
            f"{source}: not a rigid transform (rotation off by {error:.2g}); "
            "expected R^T R = I, det R = 1, last row 0 0 0 1, without scale"
        )
    if np.abs(X[:3, 3]).max() > checks.FARTHEST:
        raise ValueError(
            f"{source}: a camera {np.abs(X[:3, 3]).max():.3g} m away, expected them within "
            f"{checks.FARTHEST:g} m reach; is it another unit?"
        )
    if error > 1e-9:
        X[:3, :3] = U @ Vt
    return X
