"""Folders of depth frames in the layouts of other programs.

- Open3D: `camera_trajectory.json` with world-to-camera poses (4 x 4) and intrinsics, by columns.
- Redwood: `*.log` with camera-to-world poses, five lines per frame; `intrinsic.json`, by columns.
- BundleFusion and 7-Scenes: `frame-000000.pose.txt` with camera-to-world poses; `info.txt` or
  `camera-intrinsics.txt`.
- nerfstudio and instant-ngp: `transforms.json` with camera-to-world poses in OpenGL's convention
  (y up, looking along -z) and intrinsics.

Camera frames are converted to OpenCV's. instant-ngp and nerfstudio place the corner of the first
pixel at (0, 0), this project its center, so their principal point moves by half a pixel. Their
world frame is kept: it need not have z up, and then the support is not found.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowplan.scan.depth.frame_files import FrameFiles, objects_in, read_json, require
from flowplan.utils import checks

DEPTH_FOLDERS = ("depth", "depths", "depth_raw")
COLOR_FOLDERS = ("color", "rgb", "image", "images", "colour")  # codespell:ignore colour
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
INTRINSIC_FILES = ("intrinsic.json", "camera_intrinsic.json", "intrinsics.json")
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def find(folder: Path) -> list[FrameFiles]:
    """The frames of a folder, in order, by the first of these layouts that it matches.

    Raises:
        ValueError: if it matches none of them, or a part is missing.
    """
    if (folder / "transforms.json").exists():
        return _nerfstudio(folder)
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


def _nerfstudio(folder: Path) -> list[FrameFiles]:
    path = folder / "transforms.json"
    document = read_json(path)
    # Meters per depth unit: instant-ngp's key, then nerfstudio's.
    key = "integer_depth_scale" if "integer_depth_scale" in document else "depth_unit_scale_factor"
    meters = require(path, {"depth_unit_scale_factor": 1e-3, **document}, key, (int, float))
    depth_scale = 1 / checks.positive(f"{path}: {key}", meters)
    entries = []
    for where, item in objects_in(path, document, "frames"):
        depth_key = "depth_path" if "depth_path" in item else "depth_file_path"
        depth = require(where, item, depth_key, str)
        color = require(where, item, "file_path", str) if "file_path" in item else ""
        rows = require(where, item, "transform_matrix", list)
        X_opengl = checks.array(f"{where}.transform_matrix", rows, (4, 4))
        entries.append(
            FrameFiles(
                depth=_with_suffix(folder / depth),
                color=_with_suffix(folder / color) if color else None,
                X_world_camera=X_opengl @ OPENCV_FROM_OPENGL,
                pose_source=f"{where}.transform_matrix",
                intrinsics=_nerfstudio_intrinsics(where, {**document, **item}),
                depth_scale=depth_scale,
            )
        )
    return entries


def _nerfstudio_intrinsics(where: str, camera: dict[str, Any]) -> NDArray[np.float64]:
    """Camera matrix (3, 3) from focal lengths, or from the image width and its angle of view."""
    distortion = ("k1", "k2", "k3", "k4", "p1", "p2")
    names = (*distortion, "w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x")
    value = {n: float(checks.array(f"{where}.{n}", camera[n], ())) for n in names if n in camera}
    distorted = [n for n in distortion if abs(value.get(n, 0.0)) > 1e-6]
    if distorted:
        warnings.warn(
            f"{where}: lens distortion ({', '.join(distorted)}) is ignored; "
            "undistort the images first",
            stacklevel=2,
        )
    if "fl_x" not in value and {"w", "camera_angle_x"} <= value.keys():
        value["fl_x"] = 0.5 * value["w"] / np.tan(0.5 * value["camera_angle_x"])
    # The principal point defaults to the center of the image.
    for center, size in (("cx", "w"), ("cy", "h")):
        if center not in value and size in value:
            value[center] = 0.5 * value[size]
    missing = [n for n in ("fl_x", "cx", "cy") if n not in value]
    if missing:
        raise ValueError(
            f"{where}.{missing[0]}: missing; expected fl_x, cx, cy, or w, h and camera_angle_x"
        )
    fx, fy = value["fl_x"], value.get("fl_y", value["fl_x"])
    return np.array([[fx, 0, value["cx"] - 0.5], [0, fy, value["cy"] - 0.5], [0, 0, 1]])


def _pose_files(folder: Path) -> list[FrameFiles]:
    intrinsics, depth_scale = _intrinsics_beside(folder)
    entries = []
    for path in sorted(folder.glob("*.pose.txt")):
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
                depth_scale=depth_scale,
            )
        )
    return entries


def _intrinsics_beside(folder: Path) -> tuple[NDArray[np.float64] | None, float]:
    """Camera matrix (None if no file gives it) and depth units per meter."""
    info = folder / "info.txt"
    if info.exists():
        # BundleFusion: "m_calibrationDepthIntrinsic = 582.87 0 320 0 ..." (4 x 4 by rows).
        text = info.read_text(errors="replace")
        lines = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*)$", text, re.MULTILINE))
        if "m_calibrationDepthIntrinsic" in lines:
            try:
                K = np.array(lines["m_calibrationDepthIntrinsic"].split(), float).reshape(4, 4)
                return K[:3, :3], float(lines.get("m_depthShift", 1000.0))
            except ValueError:
                raise ValueError(
                    f"{info}: m_calibrationDepthIntrinsic: expected 16 numbers"
                ) from None
    for name in ("camera-intrinsics.txt", "intrinsic.txt"):
        if (folder / name).exists():
            return _matrix(folder / name)[:3, :3], 1000.0
    for name in INTRINSIC_FILES:
        if (folder / name).exists():
            return _by_columns(folder / name, read_json(folder / name)), 1000.0
    return None, 1000.0


def _trajectory_json(folder: Path) -> list[FrameFiles]:
    path = folder / "camera_trajectory.json"
    extrinsics, intrinsics = [], []
    for where, item in objects_in(path, read_json(path), "parameters"):
        numbers = require(where, item, "extrinsic", list)
        extrinsics.append(checks.array(f"{where}.extrinsic", numbers, (16,)).reshape(4, 4).T)
        intrinsics.append(_by_columns(where, require(where, item, "intrinsic", dict)))
    # Open3D stores world-to-camera; a singular matrix is refused as not rigid by load_frame.
    poses = [np.linalg.pinv(X) for X in extrinsics]
    return _numbered(folder, path, poses, intrinsics)


def _trajectory_log(folder: Path) -> list[FrameFiles]:
    path = sorted(folder.glob("*.log"))[0]
    rows = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if len(rows) % 5:
        raise ValueError(
            f"{path}: expected five lines per frame (ids, then 4 x 4), got {len(rows)} lines"
        )
    try:
        poses = [np.array(rows[i + 1 : i + 5], float) for i in range(0, len(rows), 5)]
    except ValueError:
        raise ValueError(f"{path}: expected four numbers per row after each line of ids") from None
    K, _ = _intrinsics_beside(folder)
    return _numbered(folder, path, poses, [K] * len(poses))


def _numbered(
    folder: Path, source: Path, poses: list[Any], intrinsics: list[Any]
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
        )
        for i in range(len(poses))
    ]


def _images(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The images in the first of these subfolders that has any, by name."""
    for name in names:
        files = (folder / name).glob("*")
        found = sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES)
        if found:
            return found
    return []


def _by_columns(where: object, camera: dict[str, Any]) -> NDArray[np.float64]:
    """Open3D's camera matrix (3, 3), stored by columns."""
    K = require(where, camera, "intrinsic_matrix", list)
    return checks.array(f"{where}: intrinsic_matrix", K, (9,)).reshape(3, 3).T


def _matrix(path: Path) -> NDArray[np.float64]:
    """The matrix in a text file, one row per line."""
    try:
        lines = path.read_text(errors="replace").splitlines()
        rows = [line.split() for line in lines if line.strip()]
        return np.array(rows, float).reshape(len(rows), -1)
    except (OSError, ValueError):
        raise ValueError(f"{path}: expected a matrix of numbers, one row per line") from None


def _with_suffix(path: Path) -> Path:
    """The path, with instant-ngp's omitted .png added."""
    return path if path.suffix or not path.name else path.with_suffix(".png")
