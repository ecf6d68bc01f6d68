"""Objects, flow, contacts and measured points of a run, as nodes of a viser scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from flowplan.geometry import fit_rigid, interpolate, transform
from flowplan.grasp import ContactCandidates
from flowplan.io.mesh_colors import OBSTACLE, PALETTE, vertex_colors
from flowplan.motion import ObjectFlow
from flowplan.rollout import Rollout
from flowplan.trajectory import Phase
from flowplan.utils.checks import FloatArray
from flowplan.viz.nodes import (
    Show,
    add_grippers,
    add_mesh,
    add_points,
    color_ramp,
    evenly,
    frame_at,
    mean_color,
    place,
    value_at,
)
from flowplan.viz.run import Run

MEASURED_COLOR = (0, 190, 170)
TRACK_COLORS = ((255, 190, 60), (200, 30, 90))
"""Flow at its first and at its last frame."""

_STATIC = 1e-4
"""Displacement below which an object does not move, meters."""
_RIGID = 2e-4
"""Deviation from rigid motion below which an object is moved by its pose, meters."""
_TRACK_LENGTH = 5e-3
"""Displacement from which a flow point's track is drawn, meters."""
_DIGITS = 4
"""Decimals of vertices in meters: a tenth of a millimeter is invisible, and rounded numbers
compress well."""


def add_objects(scene: viser.SceneApi, run: Run) -> Iterator[Show]:
    """Add every object and obstacle; yields a Show for each moving object."""
    for obj in run.scene.obstacles:
        own = vertex_colors(obj.mesh)
        add_mesh(scene, f"/obstacles/{obj.name}", obj.mesh_world, OBSTACLE, own)
    for index, obj in enumerate(run.scene.objects):
        name, color = f"/objects/{obj.name}", PALETTE[index % len(PALETTE)]
        own = vertex_colors(obj.mesh)
        if run.motion is None or np.ptp(run.motion.vertices[index], axis=0).max() < _STATIC:
            add_mesh(scene, name, obj.mesh_world, color, own)
            continue
        vertices = run.motion.vertices[index]
        mesh = trimesh.Trimesh(vertices[0], obj.mesh.faces, process=False)
        # A rigid motion is sent as poses, any other as vertices.
        X = fit_rigid(np.broadcast_to(vertices[0], vertices.shape), vertices)  # (T, 4, 4)
        if np.abs(transform(X, vertices[0]) - vertices).max() < _RIGID:
            node = add_mesh(scene, name, mesh, color, own)
            yield _move_rigidly(node, run, run.motion.times, X)
        else:
            # viser cannot change the vertices of a mesh with vertex colors.
            node = add_mesh(scene, name, mesh, color if own is None else mean_color(own, color))
            yield _move_vertices(node, run, run.motion.times, vertices)


def _move_rigidly(node: Any, run: Run, times: FloatArray, X: FloatArray) -> Show:
    """Interpolate the poses X (T, 4, 4)."""

    def show(t: float) -> None:
        k, fraction = frame_at(times, run.flow_time(t))
        place(node, interpolate(X[k], X[k + 1], np.array(fraction)))

    return show


def _move_vertices(node: Any, run: Run, times: FloatArray, vertices: FloatArray) -> Show:
    """Show the nearest frame of vertices (T, V, 3): vertices take most of a page's space."""
    frames = np.round(vertices, _DIGITS).astype(np.float32)
    shown = 0

    def show(t: float) -> None:
        nonlocal shown
        k, fraction = frame_at(times, run.flow_time(t))
        if (nearest := k + round(fraction)) != shown:
            node.vertices, shown = frames[nearest], nearest

    return show


def add_tracks(scene: viser.SceneApi, run: Run, flow: ObjectFlow, most: float) -> Iterator[Show]:
    """Add up to `most` tracks of moving flow points as lines, and the moving points."""
    # Points that ever leave their place.
    displacement = np.linalg.norm(flow.points - flow.points[0], axis=-1)  # (T, N)
    moving = displacement.max(0) > _TRACK_LENGTH
    rows = np.flatnonzero(moving)
    if not len(rows):
        return
    drawn = rows[evenly(len(rows), most)]
    points, seen = flow.points[:, drawn], flow.confidence[:, drawn] > 0

    # Line segments between consecutive frames in which a point is visible, colored by time.
    segments = np.stack([points[:-1], points[1:]], axis=2)  # (T - 1, D, 2, 3)
    progress = np.stack([flow.times[:-1], flow.times[1:]], axis=1) / flow.times[-1]  # (T - 1, 2)
    colors = np.broadcast_to(color_ramp(TRACK_COLORS, progress)[:, None], segments.shape)
    keep = seen[:-1] & seen[1:]
    scene.add_line_segments(
        "/flow/tracks", segments[keep], colors[keep], thickness=1.0, thickness_units="screen"
    )
    cloud = add_points(scene, "/flow/points", points[0], TRACK_COLORS[0])

    def show(t: float) -> None:
        now = run.flow_time(t)
        cloud.points = value_at(flow.times, points, now)
        cloud.colors = color_ramp(TRACK_COLORS, np.array([now / flow.times[-1]]))[0]

    yield show


def add_contacts(
    scene: viser.SceneApi,
    run: Run,
    contacts: ContactCandidates,
    name: str,
    colors: NDArray[np.uint8],
) -> Show:
    """Add contacts in colors (G, 3); they disappear once the robot has made its contact."""
    node = add_grippers(scene, name, contacts, colors, 4.0 if len(contacts) == 1 else 2.0)
    until = np.inf
    if run.trajectory is not None:
        # The contact is made once the manipulation starts.
        held = run.trajectory.phase >= Phase.MANIPULATE
        until = run.trajectory.times[held][0] if held.any() else np.inf

    def show(t: float) -> None:
        if node.visible != (t <= until):
            node.visible = t <= until

    return show


def add_measured(scene: viser.SceneApi, rollout: Rollout, most: float) -> Show:
    """Add up to `most` of the object's points as measured while the robot moved."""
    points = rollout.points[:, evenly(rollout.points.shape[1], most)]
    cloud = add_points(scene, "/measured", points[0], MEASURED_COLOR)

    def show(t: float) -> None:
        cloud.points = value_at(rollout.times, points, t)

    return show
