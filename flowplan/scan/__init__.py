"""From what a camera saw, or a mesh file, to a `Scene`."""

from flowplan.scan.frames import DepthFrame, intrinsics_from_fov, read_frames, write_frames
from flowplan.scan.fuse import ScanOptions, scan_frames
from flowplan.scan.noise import NoiseOptions, noisy_depth

__all__ = [
    "DepthFrame",
    "NoiseOptions",
    "ScanOptions",
    "intrinsics_from_fov",
    "noisy_depth",
    "read_frames",
    "scan_frames",
    "write_frames",
]
