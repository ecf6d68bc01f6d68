"""A brick on a table, a motion that carries it aside, and cameras that see it: what the node tests
share."""

from __future__ import annotations

import json

import numpy as np
import trimesh
from std_msgs.msg import Header

from flowplan.geometry import look_at, pose, transform
from flowplan.laws import Rigid
from flowplan.motion import SceneMotion
from flowplan.scan import DepthFrame, intrinsics_from_fov, render_frame
from flowplan.scene import Action, Scene, SceneObject
from generators.kinematic import kinematic

SIZE = np.array([0.05, 0.04, 0.08])
WORLD = Header(frame_id="world")
SHIFT = np.array([0.0, 0.25, 0.0])


def brick(x: float = 0.45, y: float = -0.1, name: str = "brick") -> SceneObject:
    """The brick, its lowest point a millimeter above the table."""
    mesh = trimesh.creation.box(SIZE).subdivide().subdivide()
    return SceneObject(name, mesh, pose(translation=[x, y, SIZE[2] / 2 + 1e-3]))


def scene() -> Scene:
    """The brick alone."""
    return Scene((brick(),), 0.0)


def handles() -> np.ndarray:
    """Points on the brick (6, 3)."""
    return transform(brick().X_world_object, brick().mesh.vertices[:6])


def carry() -> Action:
    """Take it aside."""
    return Action("brick", handles(), targets=handles() + SHIFT, duration=3.0)


def carried() -> SceneMotion:
    """How that looks."""
    return kinematic((Rigid("brick", lift=0.1),))(scene(), carry())[0]


def document(**more: object) -> str:
    """The same in JSON."""
    return json.dumps(
        {
            "object": "brick",
            "law": {"kind": "rigid", "lift": 0.1},
            "handles": handles().tolist(),
            "targets": (handles() + SHIFT).tolist(),
            "duration": 3.0,
            **more,
        }
    )


def views(
    objects: tuple[SceneObject, ...], count: int = 3, width: int = 320, height: int = 240
) -> list[DepthFrame]:
    """What `count` cameras around the table see."""
    table = trimesh.creation.box(bounds=[[-0.2, -0.7, -0.02], [1.2, 0.7, 0]])
    meshes = [*(obj.mesh_world for obj in objects), table]
    K = intrinsics_from_fov(width, height, np.radians(43))
    angles = 2 * np.pi * np.arange(count) / count
    eyes = [[0.5 + 0.6 * np.cos(a), 0.6 * np.sin(a), 0.6] for a in angles]
    return [
        render_frame(meshes, K, look_at(eye, [0.5, 0, 0.04]), width=width, height=height)
        for eye in eyes
    ]
