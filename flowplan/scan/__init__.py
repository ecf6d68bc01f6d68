"""Scenes from depth frames, meshes, point clouds and URDFs."""

from flowplan.scan.depth.frame_folder import read_frames, write_frames
from flowplan.scan.depth.frames import DepthFrame, intrinsics_from_fov
from flowplan.scan.depth.fuse import ScanOptions, scan_frames
from flowplan.scan.depth.known_bodies import without_obstacles, without_robot
from flowplan.scan.depth.noise import NoiseOptions, noisy_depth
from flowplan.scan.depth.render import render_frame
from flowplan.scan.meshes.convex import ConvexOptions, convex_parts
from flowplan.scan.meshes.mesh_file import MeshOptions, load_mesh
from flowplan.scan.meshes.repair import MeshReport, inspect_mesh
from flowplan.scan.obstacles import load_obstacles
from flowplan.scan.point_cloud import PointOptions, load_points, surface_of_points
from flowplan.scan.source import load_scene
from flowplan.scan.urdf import load_urdf

__all__ = [
    "ConvexOptions",
    "DepthFrame",
    "MeshOptions",
    "MeshReport",
    "NoiseOptions",
    "PointOptions",
    "ScanOptions",
    "convex_parts",
    "inspect_mesh",
    "intrinsics_from_fov",
    "load_mesh",
    "load_obstacles",
    "load_points",
    "load_scene",
    "load_urdf",
    "noisy_depth",
    "read_frames",
    "render_frame",
    "scan_frames",
    "surface_of_points",
    "without_obstacles",
    "without_robot",
    "write_frames",
]
