"""A gripper of plain boxes, and meshes with known answers, for the tests of flowplan.grasp."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import trimesh

from flowplan.geometry import pose


@dataclass(frozen=True)
class BoxGripper:
    """Two fingers and a palm as large as the Panda hand's; the pads are centered at the origin."""

    max_width: float = 0.08
    finger_depth: float = 0.009
    pad_size: np.ndarray = field(default_factory=lambda: np.array([0.0175, 0.018]))
    table_width: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.08]))
    table_pad_z: np.ndarray = field(default_factory=lambda: np.zeros(2))
    tool_link: str = "palm"
    box_link: tuple[str, ...] = ("left", "right", "palm")

    def boxes(self, width: float) -> tuple[np.ndarray, np.ndarray]:
        y = 0.5 * width + 0.007
        centers = np.array([[0, y, -0.018], [0, -y, -0.018], [0, 0, -0.078]])
        return pose(translation=centers), np.array(
            [[0.021, 0.014, 0.054], [0.021, 0.014, 0.054], [0.063, 0.205, 0.066]]
        )


def scanned(mesh: trimesh.Trimesh, noise: float = 0.0007, seed: int = 0) -> trimesh.Trimesh:
    """The mesh like a scan: small even triangles with noise along the normals."""
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, max_edge=0.006)
    out = trimesh.Trimesh(vertices, faces, process=True)
    shift = noise * np.random.default_rng(seed).normal(size=(len(out.vertices), 1))
    return trimesh.Trimesh(out.vertices + shift * out.vertex_normals, out.faces, process=False)


def cup(radius: float = 0.035, height: float = 0.09, wall: float = 0.004) -> trimesh.Trimesh:
    """A closed cup standing on z = 0."""
    profile = np.array(
        [
            [0, 0],
            [radius, 0],
            [radius, height],
            [radius - wall, height],
            [radius - wall, wall],
            [0, wall],
        ]
    )
    return trimesh.creation.revolve(profile, sections=48)
