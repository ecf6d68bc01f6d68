"""Depth frames without what is known: the robot that the cameras see, and fixed obstacles.

A pixel whose point lies in a known body, or nearer to it than a margin, becomes a pixel without a
return: what is behind the body stays unseen. Distances are those of the points to the bodies'
triangles; links are the convex hulls of their collision shapes. Whatever the hand holds is no part
of the robot and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import transform
from flowplan.robot.robot import Robot
from flowplan.scan.depth.frames import DepthFrame
from flowplan.scan.meshes.surface import raycasting_scene
from flowplan.scene import SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import open3d

OPENINGS = 5
"""Gripper openings, evenly spaced, that stand for one that is not known."""


def without_robot(
    frame: DepthFrame,
    robot: Robot,
    q: ArrayLike,
    *,
    width: float | None = None,
    margin: float = 0.015,
) -> DepthFrame:
    """The frame without the robot's own points.

    Args:
        frame: a depth frame.
        robot: the robot, its base where it stands in the world.
        q: (J,) its configuration when the image was taken, rad or m.
        width: distance between the pads then, meters. Defaults to unknown: the fingers are removed
            at every opening.
        margin: meters; points nearer to a link than this are the robot's.
    """
    q = checks.array("q", q, (len(robot.joint_names),))
    widest = robot.gripper.max_width
    widths = np.linspace(0.0, widest, OPENINGS) if width is None else [width]
    # The arm's links once, the gripper's at every opening.
    moved = {*robot.gripper.finger_links, *robot.gripper.hand_links}
    meshes = []
    for i, opening in enumerate(widths):
        X_world_link = robot.fk(q[None], float(opening))[0]  # (L, 4, 4)
        meshes += [
            _placed(robot.collision_meshes[name], X)
            for name, X in zip(robot.link_names, X_world_link, strict=True)
            if name in robot.collision_meshes and (i == 0 or name in moved)
        ]
    return _without(frame, meshes, margin)


def without_obstacles(
    frame: DepthFrame, obstacles: Sequence[SceneObject], *, margin: float = 0.01
) -> DepthFrame:
    """The frame without fixed obstacles.

    Args:
        frame: a depth frame.
        obstacles: obstacles where they stand in the world.
        margin: meters; points nearer to an obstacle than this are the obstacle's.
    """
    return _without(frame, [obstacle.mesh_world for obstacle in obstacles], margin)


def _placed(mesh: trimesh.Trimesh, X: FloatArray) -> trimesh.Trimesh:
    return trimesh.Trimesh(transform(X, mesh.vertices), mesh.faces, process=False)


def _without(frame: DepthFrame, meshes: Sequence[trimesh.Trimesh], margin: float) -> DepthFrame:
    """The frame with no return where its points belong to a mesh in the world."""
    margin = checks.positive("margin", margin, zero=True)
    seen = frame.depth > 0  # (H, W)
    depth = np.array(frame.depth)
    depth[seen] = np.where(near(frame.points_world[seen], meshes, margin), 0.0, depth[seen])
    return replace(frame, depth=depth)


def near(points: FloatArray, meshes: Sequence[trimesh.Trimesh], margin: float) -> NDArray[np.bool_]:
    """Points (P, 3) in a mesh, or at most `margin` meters from one: a mask (P,). Meshes that are
    not closed have no inside."""
    out = np.zeros(len(points), bool)
    for mesh in meshes:
        # Distances for points in the mesh's box only.
        lower, upper = mesh.bounds
        box = np.all((points >= lower - margin) & (points <= upper + margin), axis=-1) & ~out
        if not box.any():
            continue
        scene = raycasting_scene(mesh)
        query = open3d().core.Tensor(points[box].astype(np.float32))
        # Three rays vote for inside or outside.
        distance = (
            scene.compute_signed_distance(query, nsamples=3)
            if mesh.is_watertight
            else scene.compute_distance(query)
        )
        out[box] = distance.numpy() <= margin
    return out
