"""Folders of depth frames in the layouts of other programs.

- Open3D: `camera_trajectory.json` with world-to-camera poses (4 x 4) and intrinsics, by columns.
- Redwood: `*.log` with camera-to-world poses, five lines per frame; `intrinsic.json`, by columns.
- BundleFusion and 7-Scenes: `frame-000000.pose.txt` with camera-to-world poses; `info.txt` or
  `camera-intrinsics.txt`.
- nerfstudio and instant-ngp: `transforms.json` with camera-to-world poses in OpenGL's convention
  (y up, looking along -z) and intrinsics; positions are divided by `applied_scale`, since depth
  images are not scaled.

Camera frames are converted to OpenCV's. instant-ngp and nerfstudio place the corner of the first
pixel at (0, 0), this project its center, so their principal point moves by half a pixel. Their
world frame is kept: it need not have z up, and then the support is not found.

Camera matrices are scaled to the depth images if the calibration is for another size, and cameras
that are no pinholes are refused. Images in folders are paired with poses by the numbers in their
names: 2.png precedes 10.png.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.scan.depth.frame_files import (
    FrameFiles,
    objects_in,
    read_json,
    require,
)
from flowplan.utils import checks, text_files
from flowplan.utils.files import inside

DEPTH_FOLDERS = ("depth", "depths", "depth_raw")
COLOR_FOLDERS = ("color", "rgb", "image", "images", "colour")  # codespell:ignore colour
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
INTRINSIC_FILES = ("intrinsic.json", "camera_intrinsic.json", "intrinsics.json")
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
PINHOLES = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "OPENCV",
    "FULL_OPENCV",
    "SIMPLE_RADIAL",
    "RADIAL",
    "PERSPECTIVE",
)
"""Camera models of COLMAP and nerfstudio that are pinholes up to lens distortion."""
FISHEYE_KEYS = ("is_fisheye", "fisheye", "ftheta_p0", "latlong", "equirectangular", "orthographic")
"""Entries of transforms.json that mark a camera that is no pinhole."""


def find(folder: Path, *, allow_outside: bool = False) -> list[FrameFiles]:
    """The frames of a folder, in order, by the first of these layouts that it matches.

    Raises:
        ValueError: if it matches none of them, or a part is missing.
    """
    if (folder / "transforms.json").exists():
        return _nerfstudio(folder, allow_outside)
    if list(folder.glob("*.pose.txt")):
        return _pose_files(folder)
    if (folder / "camera_trajectory.json").exists():
        return _trajectory_json(folder)
    if list(folder.glob("*.log")):
        return _trajectory_log(folder)
    raise ValueError(
        f"{folder}: no known layout; expected frames.json, transforms.json, "
        "camera_trajectory.json, a trajectory *.log or frame-*.pose.txt"
    )


def _nerfstudio(folder: Path, allow_outside: bool) -> list[FrameFiles]:
    path = folder / "transforms.json"
    document = read_json(path)
    # Meters per depth unit: instant-ngp's key, then nerfstudio's.
    key = "integer_depth_scale" if "integer_depth_scale" in document else "depth_unit_scale_factor"
    meters = require(path, {"depth_unit_scale_factor": 1e-3, **document}, key, (int, float))
    depth_scale = 1 / checks.positive(f"{path}: {key}", meters)
    applied = require(path, {"applied_scale": 1.0, **document}, "applied_scale", (int, float))
    position_scale = checks.positive(f"{path}: applied_scale", applied)
    entries = []
    for where, item in objects_in(path, document, "frames"):
        depth_key = "depth_path" if "depth_path" in item else "depth_file_path"
        depth = require(where, item, depth_key, str)
        color = require(where, item, "file_path", str) if "file_path" in item else ""
        rows = require(where, item, "transform_matrix", list)
        X_opengl = checks.array(f"{where}.transform_matrix", rows, (4, 4)).copy()
        X_opengl[:3, 3] /= position_scale
        intrinsics, size = _nerfstudio_camera(where, document, item)
        entries.append(
            FrameFiles(
                depth=_with_suffix(inside(folder, depth, where, allow_outside=allow_outside)),
                color=_with_suffix(inside(folder, color, where, allow_outside=allow_outside))
                if color
                else None,
                X_world_camera=X_opengl @ OPENCV_FROM_OPENGL,
                pose_source=f"{where}.transform_matrix",
                intrinsics=intrinsics,
                calibrated_size=size,
                depth_scale=depth_scale,
            )
        )
    return entries


def _nerfstudio_camera(
    where: str, document: dict[str, Any], item: dict[str, Any]
) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    """Camera matrix (3, 3) of a frame, and the size of the images that it is for, if given."""
    # A frame's own angles of view replace the focal lengths that all frames share.
    shared = dict(document)
    for focal, angle in (("fl_x", "camera_angle_x"), ("fl_y", "camera_angle_y")):
        if angle in item and focal not in item:
            shared.pop(focal, None)
        if focal in item and angle not in item:
            shared.pop(angle, None)
    camera = {**shared, **item}
    _require_pinhole(where, camera)
    distortion = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    angles = ("camera_angle_x", "camera_angle_y")
    names = (*distortion, "w", "h", "fl_x", "fl_y", "cx", "cy", *angles)
    value = {n: float(checks.array(f"{where}.{n}", camera[n], ())) for n in names if n in camera}
    distorted = [n for n in distortion if abs(value.get(n, 0.0)) > 1e-6]
    if distorted:
        warnings.warn(
            f"{where}: lens distortion ({', '.join(distorted)}) is ignored; "
            "undistort the images first",
            stacklevel=2,
        )
    for size in ("w", "h"):
        if size in value:
            checks.positive(f"{where}.{size}", value[size])
    # Focal lengths from angles of view. The two are equal if one alone is given.
    for focal, angle, size in (("fl_x", angles[0], "w"), ("fl_y", angles[1], "h")):
        if angle in value and not 0 < value[angle] < np.pi:
            raise ValueError(
                f"{where}.{angle}: got {value[angle]:g}, expected radians between 0 and pi; "
                "convert it from degrees"
            )
        if focal not in value and {size, angle} <= value.keys():
            value[focal] = 0.5 * value[size] / np.tan(0.5 * value[angle])
    # The principal point defaults to the center of the image.
    for center, size in (("cx", "w"), ("cy", "h")):
        if center not in value and size in value:
            value[center] = 0.5 * value[size]
    if "fl_x" not in value and "fl_y" in value:
        value["fl_x"] = value["fl_y"]
    missing = [n for n in ("fl_x", "cx", "cy") if n not in value]
    if missing:
        raise ValueError(
            f"{where}.{missing[0]}: missing; expected fl_x, cx, cy, or w, h and camera_angle_x"
        )
    fx, fy = value["fl_x"], value.get("fl_y", value["fl_x"])
    K = np.array([[fx, 0, value["cx"] - 0.5], [0, fy, value["cy"] - 0.5], [0, 0, 1]])
    return K, (value["w"], value["h"]) if {"w", "h"} <= value.keys() else None


def _require_pinhole(where: str, camera: dict[str, Any]) -> None:
    """Refuse cameras whose model is no pinhole."""
    model = str(camera.get("camera_model") or "OPENCV")
    marked = [key for key in FISHEYE_KEYS if camera.get(key) not in (None, False, 0)]
    if model.upper() not in PINHOLES or marked:
        found = f"camera_model: got {model}" if not marked else f"{marked[0]}: is set"
        raise ValueError(
            f"{where}.{found}, expected a pinhole camera ({', '.join(PINHOLES)}); "
            "undistort the images and give the pinhole's intrinsics"
        )


def _pose_files(folder: Path) -> list[FrameFiles]:
    intrinsics, size, depth_scale = _intrinsics_beside(folder)
    entries = []
    for path in _in_order(folder, folder.glob("*.pose.txt")):
        stem = path.name.removesuffix(".pose.txt")
        X = _matrix(path)
        # Lost tracking is written as infinities or zeros.
        lost = not np.isfinite(X).all() or not X[:3, :3].any()
        if X.shape == (4, 4) and lost:
            warnings.warn(f"{path}: tracking was lost; this frame is left out", stacklevel=2)
            continue
        colors = [folder / f"{stem}.color.{s}" for s in ("png", "jpg", "jpeg")]
        entries.append(
            FrameFiles(
                depth=folder / f"{stem}.depth.png",
                color=next((c for c in colors if c.exists()), None),
                X_world_camera=X,
                pose_source=str(path),
                intrinsics=intrinsics,
                calibrated_size=size,
                depth_scale=depth_scale,
            )
        )
    return entries


Size = tuple[float, float]


def _intrinsics_beside(
    folder: Path,
) -> tuple[NDArray[np.float64] | None, Size | None, float]:
    """Camera matrix, size of its images (None if no file gives them), depth units per meter."""
    info = folder / "info.txt"
    if info.exists():
        # BundleFusion: "m_calibrationDepthIntrinsic = 582.87 0 320 0 ..." (4 x 4 by rows).
        text = text_files.read_text(info)
        lines = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*)$", text, re.MULTILINE))
        if "m_calibrationDepthIntrinsic" in lines:
            try:
                K = np.array(lines["m_calibrationDepthIntrinsic"].split(), float).reshape(4, 4)
                size = tuple(float(lines.get(f"m_depth{n}", 0)) for n in ("Width", "Height"))
                shift = float(lines.get("m_depthShift", 1000.0))
            except ValueError:
                raise ValueError(
                    f"{info}: m_calibrationDepthIntrinsic: expected 16 numbers, "
                    "and one each for m_depthWidth, m_depthHeight and m_depthShift"
                ) from None
            return K[:3, :3], (size[0], size[1]) if min(size) > 0 else None, shift
    for name in ("camera-intrinsics.txt", "intrinsic.txt"):
        if (folder / name).exists():
            return _matrix(folder / name)[:3, :3], None, 1000.0
    for name in INTRINSIC_FILES:
        if (folder / name).exists():
            camera = read_json(folder / name)
            return _by_columns(folder / name, camera), _size(folder / name, camera), 1000.0
    return None, None, 1000.0


def _trajectory_json(folder: Path) -> list[FrameFiles]:
    path = folder / "camera_trajectory.json"
    extrinsics, intrinsics, sizes = [], [], []
    for where, item in objects_in(path, read_json(path), "parameters"):
        numbers = require(where, item, "extrinsic", list)
        extrinsics.append(checks.array(f"{where}.extrinsic", numbers, (16,)).reshape(4, 4).T)
        camera = require(where, item, "intrinsic", dict)
        intrinsics.append(_by_columns(where, camera))
        sizes.append(_size(where, camera))
    # Open3D stores world-to-camera; a singular matrix is refused as not rigid by load_frame.
    poses = [np.linalg.pinv(X) for X in extrinsics]
    return _numbered(folder, path, poses, intrinsics, sizes)


def _trajectory_log(folder: Path) -> list[FrameFiles]:
    """Frames of the one log that holds poses; programs write logs of their own beside it."""
    candidates, faults = {}, {}
    for path in sorted(folder.glob("*.log")):
        try:
            candidates[path] = _log_poses(path)
        except ValueError as error:
            faults[path] = error
    named = folder / "trajectory.log"
    if named in faults or not candidates:
        raise faults.get(named) or next(iter(faults.values()))
    if named in candidates:
        candidates = {named: candidates[named]}
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        raise ValueError(
            f"{folder}: several logs hold poses ({names}); "
            "keep one of them, or call it trajectory.log"
        )
    ((path, poses),) = candidates.items()
    K, size, _ = _intrinsics_beside(folder)
    return _numbered(folder, path, poses, [K] * len(poses), [size] * len(poses))


def _log_poses(path: Path) -> list[NDArray[np.float64]]:
    """Poses (4, 4) of a trajectory log, five lines for each frame.

    Raises:
        ValueError: if it holds anything else, or nothing.
    """
    rows = [line.split() for line in text_files.read_text(path).splitlines() if line.strip()]
    if not rows or len(rows) % 5:
        raise ValueError(
            f"{path}: expected five lines per frame (ids, then 4 x 4), got {len(rows)} lines"
        )
    try:
        poses = [np.array(rows[i + 1 : i + 5], float) for i in range(0, len(rows), 5)]
    except ValueError:
        raise ValueError(f"{path}: expected four numbers per row after each line of ids") from None
    if any(X.shape != (4, 4) for X in poses):
        raise ValueError(f"{path}: expected four numbers per row after each line of ids")
    return poses


def _numbered(
    folder: Path,
    source: Path,
    poses: list[Any],
    intrinsics: list[Any],
    sizes: list[Size | None],
) -> list[FrameFiles]:
    """Frames whose images lie in folders, in the order of their names, one per pose."""
    depths = _images(folder, DEPTH_FOLDERS)
    if len(depths) != len(poses):
        raise ValueError(
            f"{source}: has {len(poses)} poses for {len(depths)} depth images in "
            f"{'/, '.join(DEPTH_FOLDERS)}/; expected one image per pose"
        )
    colors = _images(folder, COLOR_FOLDERS)
    if colors and len(colors) != len(depths):
        warnings.warn(
            f"{folder}: {len(colors)} color images for {len(depths)} depth images; "
            "color is left out",
            stacklevel=2,
        )
        colors = []
    return [
        FrameFiles(
            depth=depths[i],
            color=colors[i] if colors else None,
            X_world_camera=poses[i],
            pose_source=f"{source}: pose {i}",
            intrinsics=intrinsics[i],
            calibrated_size=sizes[i],
        )
        for i in range(len(poses))
    ]


def _images(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The images in the first of these subfolders that has any, by name."""
    for name in names:
        files = (folder / name).glob("[!.]*")
        found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
        if found:
            return _in_order(folder / name, found)
    return []


def _in_order(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Files in the order of the numbers in their names: 2.png precedes 10.png.

    Raises:
        ValueError: if numbers with a decimal point have another order than their digits, as in
            0.5.png and 0.25.png, so that the order is not known.
    """
    files = list(files)
    found = sorted(files, key=lambda p: (_name_parts(p, r"\d+"), p.name))
    decimal = sorted(files, key=lambda p: (_name_parts(p, r"\d+(?:\.\d+)?"), p.name))
    if found != decimal:
        raise ValueError(
            f"{folder}: the order of the images is not clear from names such as {found[0].name}; "
            "pad their numbers to equal length"
        )
    return found


def _name_parts(path: Path, number: str) -> list[tuple[str, float]]:
    """The stem of a name as pairs of a text and the number that follows it."""
    parts = re.split(f"({number})", path.stem)
    pairs = zip(parts[::2], [*parts[1::2], "-1"], strict=True)
    return [(text.lower(), float(value)) for text, value in pairs]


def _size(where: object, camera: dict[str, Any]) -> Size | None:
    """Width and height in pixels that a camera's entry gives, or None."""
    if not {"width", "height"} <= camera.keys():
        return None
    width, height = (
        checks.positive(f"{where}: {key}", require(where, camera, key, (int, float)))
        for key in ("width", "height")
    )
    return width, height


def _by_columns(where: object, camera: dict[str, Any]) -> NDArray[np.float64]:
    """Open3D's camera matrix (3, 3), stored by columns."""
    K = require(where, camera, "intrinsic_matrix", list)
    return checks.array(f"{where}: intrinsic_matrix", K, (9,)).reshape(3, 3).T


def _matrix(path: Path) -> NDArray[np.float64]:
    """The matrix in a text file, one row per line."""
    try:
        lines = text_files.read_text(path).splitlines()
        rows = [line.split() for line in lines if line.strip()]
        return np.array(rows, float).reshape(len(rows), -1)
    except ValueError:
        raise ValueError(f"{path}: expected a matrix of numbers, one row per line") from None


def _with_suffix(path: Path) -> Path:
    """The path, with instant-ngp's omitted .png added."""
    return path if path.suffix or not path.name else path.with_suffix(".png")
