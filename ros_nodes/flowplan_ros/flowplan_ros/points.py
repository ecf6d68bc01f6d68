"""Point clouds, depth images and camera matrices as sensor_msgs, by whole buffers.

Depth images are 32FC1 (meters) or 16UC1 (millimeters), REP 118. Zero, NaN and infinities mean no
return.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_DEPTH = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 1e-3)}
"""Encoding -> pixel type, and its unit in meters."""


def buffer(typecode: str, values: ArrayLike) -> array:
    """Numbers as a flat array.array, which a sequence field takes without checking each item."""
    out = array(typecode)
    out.frombytes(np.ascontiguousarray(values, np.dtype(typecode)).tobytes())
    return out


def cloud_to_msg(points: ArrayLike, header: Header, colors: ArrayLike | None = None) -> PointCloud2:
    """Unordered cloud of points (N, 3) in meters, with optional colors (N, 3) uint8 RGB."""
    # One structured row a point: x, y, z, and the color packed into 32 bits.
    xyz = np.asarray(points, np.float32).reshape(-1, 3)  # (N, 3)
    names = ["x", "y", "z"]
    columns: list[tuple] = [("xyz", "<f4", (3,))]
    if colors is not None:
        names.append("rgb")
        columns.append(("rgb", "<u4"))
    rows = np.empty(len(xyz), columns)
    rows["xyz"] = xyz
    if colors is not None:
        r, g, b = np.asarray(colors, np.uint32).reshape(-1, 3).T
        rows["rgb"] = r << 16 | g << 8 | b
    # Layout of a row, then all rows as bytes.
    msg = PointCloud2(header=header, height=1, width=len(xyz), is_dense=True)
    msg.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    msg.point_step = rows.itemsize
    msg.row_step = rows.itemsize * len(rows)
    msg.data = buffer("B", rows.view(np.uint8))
    return msg


def cloud_from_msg(msg: PointCloud2, field: str = "cloud") -> FloatArray:
    """Finite points (N, 3) of a cloud, meters; other fields are ignored.

    Raises:
        ValueError: naming `field`, for a cloud without x, y, z as floats, or a buffer of another
            size.
    """
    # Fields x, y, z: their number types and byte order.
    kinds = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
    order = ">" if msg.is_bigendian else "<"
    known = {f.name: f for f in msg.fields}
    for name in "xyz":
        if name not in known or known[name].datatype not in kinds:
            raise ValueError(
                f"{field}.fields: expected x, y and z as FLOAT32 or FLOAT64, got {sorted(known)}"
            )
    # A row as a structured type, which skips the fields between and after.
    row = np.dtype(
        {
            "names": list("xyz"),
            "formats": [order + kinds[known[name].datatype] for name in "xyz"],
            "offsets": [known[name].offset for name in "xyz"],
            "itemsize": msg.point_step,
        }
    )
    needed = msg.row_step * msg.height
    if len(msg.data) < needed or msg.row_step < msg.point_step * msg.width:
        raise ValueError(
            f"{field}.data: expected {needed} bytes (row_step times height), got {len(msg.data)}"
        )
    # Rows of the cloud, without the padding at their ends.
    data = np.frombuffer(msg.data, np.uint8)[:needed]
    data = data.reshape(msg.height, msg.row_step)
    packed = np.ascontiguousarray(data[:, : msg.point_step * msg.width])
    rows = packed.reshape(-1).view(row)  # (H W,)
    points = np.stack([rows[name].astype(np.float64) for name in "xyz"], axis=-1)  # (H W, 3)
    return points[np.isfinite(points).all(axis=-1)]


def depth_from_image(msg: Image, field: str = "image") -> NDArray[np.float32]:
    """Depth (H, W) in meters, 0 for no return.

    Raises:
        ValueError: naming `field`, for another encoding or a buffer of another size.
    """
    if msg.encoding not in _DEPTH:
        raise ValueError(
            f"{field}.encoding: got {msg.encoding!r}, expected one of {', '.join(_DEPTH)}"
        )
    # Pixels without the padding of each row, in meters.
    kind, unit = _DEPTH[msg.encoding]
    pixel = np.dtype((">" if msg.is_bigendian else "<") + kind)
    if (
        msg.step < pixel.itemsize * msg.width
        or len(msg.data) != msg.step * msg.height
        or not msg.data
    ):
        raise ValueError(
            f"{field}.data: expected {msg.height} rows of {msg.step} bytes for {msg.width} "
            f"pixels, got {len(msg.data)}"
        )
    padded = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.step)
    rows = np.ascontiguousarray(padded[:, : pixel.itemsize * msg.width])
    meters = rows.view(pixel).astype(np.float32) * np.float32(unit)  # (H, W)
    return np.where(np.isfinite(meters) & (meters > 0), meters, np.float32(0))


def depth_to_image(depth: ArrayLike, header: Header) -> Image:
    """Depth image (H, W) in meters as 32FC1."""
    meters = np.asarray(depth, "<f4")
    height, width = meters.shape
    msg = Image(header=header, height=height, width=width, encoding="32FC1", step=4 * width)
    msg.data = buffer("B", meters.view(np.uint8))
    return msg


def intrinsics_from_info(msg: CameraInfo, field: str = "camera_info") -> FloatArray:
    """Camera matrix (3, 3) of a rectified image, pixels.

    It is the left part of P: K is the matrix of the raw image, and drivers of rectified topics may
    leave it the identity. K counts only if P is not set (sensor_msgs/CameraInfo).

    Raises:
        ValueError: naming `field`, if the camera is not calibrated or its image not rectified.
    """
    # The projection matrix if it is set, else the raw image's matrix.
    projection = np.asarray(msg.p, float).reshape(3, 4)
    unset = not projection.any()  # NaN is not unset
    raw = np.asarray(msg.k, float).reshape(3, 3)
    name, matrix = ("k", raw) if unset else ("p", projection[:, :3])
    checks.array(f"{field}.p", projection, (3, 4))
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ValueError(
            f"{field}.{name}: expected a camera matrix, got {matrix.tolist()}; calibrate the camera"
        )
    # Rectified images have no distortion left.
    distortion = np.abs(np.asarray(msg.d, float))
    if len(distortion) and not distortion.max() <= 1e-6:
        raise ValueError(
            f"{field}.d: expected a rectified image, got distortion; remap to the rectified topics"
        )
    return checks.array(f"{field}.{name}", matrix, (3, 3))


def intrinsics_to_info(
    intrinsics: ArrayLike, height: int, width: int, header: Header
) -> CameraInfo:
    """Camera info of a rectified image with camera matrix K (3, 3)."""
    K = np.asarray(intrinsics, float)
    msg = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob")
    msg.d = [0.0] * 5
    msg.k = K.ravel()
    msg.r = np.eye(3).ravel()
    msg.p = np.c_[K, np.zeros(3)].ravel()
    return msg
