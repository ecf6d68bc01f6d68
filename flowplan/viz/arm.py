"""The robot of a run, with the visual meshes of its URDF."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trimesh
import viser

from flowplan.robot import Robot
from flowplan.robot.urdf import read_urdf
from flowplan.robot.urdf_meshes import primitive_mesh, z_up
from flowplan.viz.nodes import Color, Show, add_mesh, evenly, place, value_at
from flowplan.viz.run import Run

LINK_COLOR = (225, 228, 232)
"""Color of links without one of their own."""
PATH_COLOR = (90, 90, 90)

_PATH_POINTS = 300
"""Points of the tool's path that are drawn, at most."""


def add_robot(scene: viser.SceneApi, run: Run, robot: Robot) -> Show:
    """Add the robot, and the path of its tool."""
    # A frame a link, with its meshes below.
    links = [scene.add_frame(f"/robot/{link}", show_axes=False) for link in robot.link_names]
    for i, (link, mesh, color) in enumerate(_link_meshes(robot)):
        add_mesh(scene, f"/robot/{link}/{i}", mesh, color)
    trajectory = run.trajectory
    if trajectory is not None:
        # The tool's path as line segments.
        origins = robot.tool_pose(trajectory.q)[:, :3, 3]  # (S, 3)
        origins = origins[evenly(len(origins), _PATH_POINTS)]
        segments = np.stack([origins[:-1], origins[1:]], axis=1)
        scene.add_line_segments(
            "/robot path", segments, PATH_COLOR, thickness=1.5, thickness_units="screen"
        )

    def show(t: float) -> None:
        # Planned motion, else measured motion, else the robot at home.
        q, width = robot.home, robot.gripper.max_width
        if trajectory is not None:
            q = trajectory.at(t)
            width = float(np.round(np.interp(t, trajectory.times, trajectory.grip), 4))
        elif run.rollout is not None:
            q = value_at(run.rollout.times, run.rollout.q, t)
        for node, X in zip(links, robot.fk(q[None], width)[0], strict=True):
            place(node, X)

    return show


def _link_meshes(robot: Robot) -> Iterator[tuple[str, trimesh.Trimesh, Color]]:
    """Link, visual mesh in the link frame, and color; the collision hull if there is no visual."""
    urdf = read_urdf(robot.urdf_path, allow_outside=True)  # the robot was loaded from it
    for link in urdf.links:
        shapes = urdf.shapes(link, "visual")
        for shape in shapes:
            if shape.kind == "mesh":
                file = urdf.mesh_file(shape)
                mesh = trimesh.load_mesh(file)
                if file.suffix.lower() in (".glb", ".gltf"):
                    mesh.vertices = z_up(file, mesh.vertices)
                mesh.apply_scale(shape.size)
            else:
                mesh = primitive_mesh(shape)
            mesh.apply_transform(shape.X_link_shape)
            color = LINK_COLOR
            if shape.rgba is not None:
                r, g, b, _ = (int(255 * level) for level in shape.rgba)
                color = (r, g, b)
            yield link, mesh, color
        if not shapes and link in robot.collision_meshes:
            yield link, robot.collision_meshes[link], LINK_COLOR
