"""A run as a viser scene, and a function that moves all of it to a time.

The clock is the robot's. The flow's own clock stands at 0 until the robot holds the object, and
runs from the flow's first frame to its last while the robot manipulates it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import viser

from flowplan.geometry import look_at
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray
from flowplan.viz.arm import add_robot
from flowplan.viz.clearance import add_clearance
from flowplan.viz.nodes import Show, color_ramp
from flowplan.viz.objects import add_contacts, add_measured, add_objects, add_tracks
from flowplan.viz.run import Run

CHOSEN_COLOR = (30, 100, 255)
SCORE_COLORS = ((215, 60, 50), (245, 200, 60), (40, 170, 80))
"""From the worst contact drawn to the best."""
CAMERA_DIRECTION = np.array([0.75, -0.85, 0.55])
"""Direction from the scene's center to the camera: in front of a robot that faces +x, on its
right."""
FIELD_OF_VIEW = 0.7
"""Vertical field of view, radians."""
ASPECT = 1.5
"""Width over height of the narrowest window in which everything is visible."""

_POSES = 50
"""Robot configurations, about, that the camera has in view."""


@dataclass(frozen=True)
class ViewOptions:
    """Amount and resolution of what is drawn."""

    tracks: Annotated[int, Interval(1, 10_000)] = 150
    """Number of flow tracks, spread evenly over the moving points."""
    candidates: Annotated[int, Interval(1, 10_000)] = 25
    """Number of candidate contacts, best first."""
    rate: Annotated[float, Interval(0.1, 240)] = 20.0
    """Frames per second of the page's timeline; lowered if the page would get too large."""
    max_bytes: Annotated[int, Interval(1, 10**9)] = 15_000_000
    """Largest size of the page, bytes."""

    def __post_init__(self) -> None:
        bounds.check(self)


def draw(server: viser.ViserServer, run: Run, options: ViewOptions) -> Show:
    """Add everything in `run` to the server; the returned function moves it to a time."""
    scene = server.scene
    _set_camera(server, run)
    shows: list[Show] = [*add_objects(scene, run)]
    if run.flow is not None:
        shows += add_tracks(scene, run, run.flow, options.tracks)
    if run.candidates is not None and len(run.candidates):
        # The best candidates, colored by rank.
        count = min(len(run.candidates), options.candidates)
        best = run.candidates.select(np.arange(count))
        colors = color_ramp(SCORE_COLORS, np.linspace(1, 0, count))
        shows.append(add_contacts(scene, run, best, "/contacts", colors))
    if run.chosen is not None:
        colors = np.tile(np.array(CHOSEN_COLOR, np.uint8), (len(run.chosen), 1))
        shows.append(add_contacts(scene, run, run.chosen, "/contact chosen", colors))
    if run.robot is not None:
        shows.append(add_robot(scene, run, run.robot))
    add_clearance(scene, run)
    if run.rollout is not None:
        shows.append(add_measured(scene, run.rollout, options.tracks))

    def show(t: float) -> None:
        for part in shows:
            part(t)

    return show


def _set_camera(server: viser.ViserServer, run: Run) -> None:
    """Place the camera so that everything is in view, and add the support."""
    points = _points_in_view(run)
    lower, upper = points.min(0), points.max(0)
    center = (lower + upper) / 2
    # A point is in view if |down| <= slope * (distance + ahead), likewise across.
    # Offsets from the center along the image's axes.
    axes = look_at(CAMERA_DIRECTION, np.zeros(3))[:3, :3]
    across, down, ahead = ((points - center) @ axes).T  # (P,) each
    slope = np.tan(FIELD_OF_VIEW / 2)
    off_axis = np.maximum(np.abs(down), np.abs(across) / ASPECT)  # (P,)
    needed = off_axis / slope - ahead
    distance = 1.1 * needed.max()
    server.initial_camera.fov = FIELD_OF_VIEW
    server.initial_camera.position = center - distance * axes[:, 2]
    server.initial_camera.look_at = center
    if run.scene.support_height is not None:
        size = float(np.ceil(2 * np.linalg.norm(upper - lower)))
        _add_support(server.scene, center, size, run.scene.support_height)


def _points_in_view(run: Run) -> FloatArray:
    """(P, 3) points of everything that is drawn, over the whole run, world frame."""
    # Objects at rest, and wherever they move.
    points = [o.vertices_world for o in run.scene.objects + run.scene.obstacles]
    if run.motion is not None:
        points += [vertices.reshape(-1, 3) for vertices in run.motion.vertices]
    if run.rollout is not None:
        points.append(run.rollout.points.reshape(-1, 3))
    if run.robot is not None:
        # The robot along its path, at some configurations.
        q = run.robot.home[None]
        if run.trajectory is not None:
            q = run.trajectory.q[:: max(1, len(run.trajectory.q) // _POSES)]
        points.append(run.robot.spheres(q).reshape(-1, 3))
    if not points:
        points = [np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.5]])]
    return np.concatenate(points)


def _add_support(scene: viser.SceneApi, center: FloatArray, size: float, height: float) -> None:
    """Add the support as a square grid, slightly below its height so that objects hide it."""
    x, y = (float(np.round(c)) for c in center[:2])
    scene.add_grid(
        "/support",
        size,
        size,
        position=(x, y, height - 0.002),
        cell_size=0.1,
        section_size=0.5,
        cell_color=(225, 225, 225),
        section_color=(200, 200, 200),
        plane_color=(247, 247, 247),
        plane_opacity=1.0,
        shadow_opacity=0.25,
    )
