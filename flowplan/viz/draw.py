"""Draws a run on a viser scene: everything there is, and a function that puts it where it is at a time.

The clock is the robot's. Before the robot holds the object the flow's own clock stands at 0; while the robot
manipulates it runs from the flow's first frame to its last. Colours are RGB in 0..255.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import trimesh
import viser
from numpy.typing import NDArray

from flowplan.geometry import (
    fit_rigid,
    interpolate,
    look_at,
    matrix_from_rpy,
    pose,
    quat_wxyz_from_matrix,
    transform,
)
from flowplan.grasp import ContactCandidates
from flowplan.io.gltf import OBSTACLE, PALETTE, fits_scene
from flowplan.io.npz import vertex_colors
from flowplan.motion import ObjectFlow, SceneMotion
from flowplan.robot import Robot
from flowplan.rollout import Rollout
from flowplan.scene import Scene
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

Color = tuple[int, int, int]
Show = Callable[[float], None]
"""Puts something where it is at a time of the robot's clock, seconds."""

LINK_COLOR = (225, 228, 232)
CHOSEN_COLOR = (30, 100, 255)
MEASURED_COLOR = (0, 190, 170)
TRACK_COLORS = ((255, 190, 60), (200, 30, 90))
"""The flow at its first and at its last frame."""
SCORE_COLORS = ((215, 60, 50), (245, 200, 60), (40, 170, 80))
"""From the worst contact drawn to the best."""
CAMERA_DIRECTION = np.array([0.75, -0.85, 0.55])
"""From the middle of the scene to the camera: in front of a robot that looks along +x, on its right."""
FIELD_OF_VIEW = 0.7
"""Radians, vertical."""
ASPECT = 1.5
"""Width over height of the narrowest window that shows everything."""


@dataclass(frozen=True)
class ViewOptions:
    """How much is drawn, and how finely."""

    tracks: int = 150
    """Flow tracks drawn, spread evenly over the points that move."""
    grasps: int = 25
    """Contacts drawn, best first."""
    rate: float = 20.0
    """Frames of the page's timeline per second; lowered where the page would grow too large."""
    max_bytes: int = 15_000_000
    """Size of the page at most."""

    def __post_init__(self) -> None:
        for name in ("tracks", "grasps", "rate", "max_bytes"):
            checks.positive(f"ViewOptions.{name}", getattr(self, name))


@dataclass(frozen=True, eq=False)
class Run:
    """What there is to see; a stage that did not happen is None.

    Attributes:
        scene: objects and obstacles.
        motion: how the objects should move.
        flow: points on them.
        grasps: candidate contacts, best first.
        chosen: the contact that the robot makes (one).
        robot: as it was planned with.
        trajectory: of the robot; needs `robot`.
        rollout: what was measured, on the trajectory's clock; its points are drawn.
        title: shown on the page.
    """

    scene: Scene
    motion: SceneMotion | None = None
    flow: ObjectFlow | None = None
    grasps: ContactCandidates | None = None
    chosen: ContactCandidates | None = None
    robot: Robot | None = None
    trajectory: Trajectory | None = None
    rollout: Rollout | None = None
    title: str = "flowplan"

    def __post_init__(self) -> None:
        if self.motion is not None:
            fits_scene(self.scene, self.motion)
        if self.trajectory is not None and self.robot is None:
            raise ValueError("Run.robot: expected the robot of the trajectory, got None")
        for field in ("trajectory", "rollout"):
            record = getattr(self, field)
            if (
                record is not None
                and self.robot is not None
                and record.joint_names != self.robot.joint_names
            ):
                raise ValueError(
                    f"Run.{field}: expected joints {', '.join(self.robot.joint_names)} of {self.robot.name}, "
                    f"got {', '.join(record.joint_names)}; give the robot that moved"
                )

    @property
    def duration(self) -> float:
        """Seconds on the robot's clock, or on the motion's where no robot moves."""
        clocks = [r.times[-1] for r in (self.trajectory, self.rollout) if r is not None]
        flows = [r.times[-1] for r in (self.motion, self.flow) if r is not None]
        return float(max(clocks or flows or [0.0]))

    def flow_time(self, t: float) -> float:
        """The flow's clock at time t of the robot's."""
        end = max((r.times[-1] for r in (self.motion, self.flow) if r is not None), default=0.0)
        if self.trajectory is None:
            return min(t, float(end))
        held = self.trajectory.times[self.trajectory.phase == Phase.MANIPULATE]
        return float(np.interp(t, [held[0], held[-1]], [0.0, end])) if len(held) > 1 else 0.0


def draw(server: viser.ViserServer, run: Run, options: ViewOptions) -> Show:
    """Add everything in `run` to the server; what is returned moves it."""
    scene = server.scene
    _frame(server, run)
    shows: list[Show] = [*_objects(scene, run)]
    if run.flow is not None:
        shows += _tracks(scene, run, run.flow, options)
    if run.grasps is not None and len(run.grasps):
        best = run.grasps.select(np.arange(min(len(run.grasps), int(options.grasps))))
        shows.append(
            _contacts(
                scene, run, best, "/contacts", _ramp(SCORE_COLORS, np.linspace(1, 0, len(best)))
            )
        )
    if run.chosen is not None:
        shows.append(
            _contacts(
                scene,
                run,
                run.chosen,
                "/contact chosen",
                np.tile(CHOSEN_COLOR, (len(run.chosen), 1)),
            )
        )
    if run.robot is not None:
        shows.append(_robot(scene, run, run.robot))
    if run.rollout is not None:
        shows.append(_measured(scene, run.rollout, options))

    def show(t: float) -> None:
        for part in shows:
            part(t)

    return show


def _frame(server: viser.ViserServer, run: Run) -> None:
    """The floor, and a camera that has everything in view."""
    points = [o.vertices_world for o in run.scene.objects + run.scene.obstacles]
    points += [v.reshape(-1, 3) for v in run.motion.vertices] if run.motion is not None else []
    points += [run.rollout.points.reshape(-1, 3)] if run.rollout is not None else []
    if run.robot is not None:
        q = (
            run.robot.home[None]
            if run.trajectory is None
            else run.trajectory.q[:: max(1, len(run.trajectory.q) // 50)]
        )
        points.append(run.robot.spheres(q).reshape(-1, 3))
    if not points:
        points = [np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.5]])]
    cloud = np.concatenate(points)
    lower, upper = cloud.min(0), cloud.max(0)
    middle, radius = (lower + upper) / 2, float(np.linalg.norm(upper - lower)) / 2
    axes = look_at(CAMERA_DIRECTION, np.zeros(3))[:3, :3]
    across, down, ahead = ((cloud - middle) @ axes).T
    slope = np.tan(FIELD_OF_VIEW / 2)  # a point is in view where |down| <= slope (distance + ahead)
    distance = 1.1 * (np.maximum(np.abs(down), np.abs(across) / ASPECT) / slope - ahead).max()
    server.initial_camera.fov = FIELD_OF_VIEW
    server.initial_camera.position = middle - distance * axes[:, 2]
    server.initial_camera.look_at = middle
    if run.scene.support_height is not None:
        size = float(np.ceil(4 * radius))
        server.scene.add_grid(
            "/support",
            size,
            size,
            position=(
                float(np.round(middle[0])),
                float(np.round(middle[1])),
                run.scene.support_height - 0.002,
            ),
            cell_size=0.1,
            section_size=0.5,
            cell_color=(225, 225, 225),
            section_color=(200, 200, 200),
            plane_color=(247, 247, 247),
            plane_opacity=1.0,
            shadow_opacity=0.25,
        )


def _objects(scene: viser.SceneApi, run: Run) -> Iterator[Show]:
    """Every object, and how it moves; the obstacles, which do not."""
    for obj in run.scene.obstacles:
        _mesh(scene, f"/obstacles/{obj.name}", obj.mesh_world, OBSTACLE, vertex_colors(obj.mesh))
    for index, obj in enumerate(run.scene.objects):
        name, color, own = (
            f"/objects/{obj.name}",
            PALETTE[index % len(PALETTE)],
            vertex_colors(obj.mesh),
        )
        if run.motion is None or np.ptp(run.motion.vertices[index], axis=0).max() < 1e-4:
            _mesh(scene, name, obj.mesh_world, color, own)
            continue
        vertices = run.motion.vertices[index]
        mesh = trimesh.Trimesh(vertices[0], obj.mesh.faces, process=False)
        X = fit_rigid(np.broadcast_to(vertices[0], vertices.shape), vertices)
        if np.abs(transform(X, vertices[0]) - vertices).max() < 2e-4:
            yield _carried(_mesh(scene, name, mesh, color, own), run, run.motion.times, X)
        else:  # viser cannot change the vertices of a mesh that has colours of its own
            color = color if own is None else _mean_color(own, color)
            yield _deformed(_mesh(scene, name, mesh, color), run, run.motion.times, vertices)


def _carried(node: Any, run: Run, times: FloatArray, X: FloatArray) -> Show:
    def show(t: float) -> None:
        k, fraction = _between(times, run.flow_time(t))
        _place(node, interpolate(X[k], X[k + 1], np.array(fraction)))

    return show


def _deformed(node: Any, run: Run, times: FloatArray, vertices: FloatArray) -> Show:
    """One of the motion's own frames at a time: vertices are what makes a page large."""
    # A tenth of a millimetre is seen by nobody, and rounded numbers pack well.
    frames = np.round(vertices, 4).astype(np.float32)
    shown = 0

    def show(t: float) -> None:
        nonlocal shown
        k, fraction = _between(times, run.flow_time(t))
        if (nearest := k + round(fraction)) != shown:
            node.vertices, shown = frames[nearest], nearest

    return show


def _tracks(
    scene: viser.SceneApi, run: Run, flow: ObjectFlow, options: ViewOptions
) -> Iterator[Show]:
    """Where the flow's points go, as lines, and the points on their way."""
    moving = np.flatnonzero(np.linalg.norm(flow.points - flow.points[0], axis=-1).max(0) > 5e-3)
    if not len(moving):
        return
    drawn = moving[np.unique(np.linspace(0, len(moving) - 1, int(options.tracks)).astype(int))]
    points, seen = flow.points[:, drawn], flow.confidence[:, drawn] > 0
    segments = np.stack([points[:-1], points[1:]], axis=2)  # (T - 1, D, 2, 3)
    age = np.stack([flow.times[:-1], flow.times[1:]], axis=1) / flow.times[-1]
    colors = np.broadcast_to(_ramp(TRACK_COLORS, age)[:, None], segments.shape)
    keep = seen[:-1] & seen[1:]
    scene.add_line_segments(
        "/flow/tracks", segments[keep], colors[keep], thickness=1.0, thickness_units="screen"
    )
    cloud = _cloud(scene, "/flow/points", points[0], TRACK_COLORS[0])

    def show(t: float) -> None:
        now = run.flow_time(t)
        cloud.points = _at(flow.times, points, now)
        cloud.colors = _ramp(TRACK_COLORS, np.array([now / flow.times[-1]]))[0]

    yield show


def _contacts(
    scene: viser.SceneApi, run: Run, grasps: ContactCandidates, name: str, colors: NDArray[np.uint8]
) -> Show:
    """Grippers as forks of four lines, colours (G, 3); gone once the robot has made its contact."""
    glyphs = np.stack(
        [_fork(w, k == "push") for w, k in zip(grasps.width, grasps.kind, strict=True)]
    )  # (G, 4, 2, 3)
    lines = transform(grasps.X_world_tool[:, None], glyphs)
    shades = np.broadcast_to(colors[:, None, None].astype(np.uint8), lines.shape)
    thickness = 4.0 if len(grasps) == 1 else 2.0
    node = scene.add_line_segments(
        name,
        lines.reshape(-1, 2, 3),
        shades.reshape(-1, 2, 3),
        thickness=thickness,
        thickness_units="screen",
    )
    until = np.inf
    if run.trajectory is not None and (held := run.trajectory.phase >= Phase.MANIPULATE).any():
        until = run.trajectory.times[held][0]

    def show(t: float) -> None:
        if node.visible != (t <= until):
            node.visible = t <= until

    return show


def _fork(width: float, push: bool) -> FloatArray:
    """Lines (4, 2, 3) of a gripper in its tool frame, metres: two fingers (closed for a push), palm and stem."""
    half = 0.008 if push else max(width, 0.01) / 2
    tips, palm, wrist = 0.0, -0.045, -0.09
    return np.array(
        [
            [[0, half, palm], [0, half, tips]],
            [[0, -half, palm], [0, -half, tips]],
            [[0, half, palm], [0, -half, palm]],
            [[0, 0, palm], [0, 0, wrist]],
        ]
    )


def _robot(scene: viser.SceneApi, run: Run, robot: Robot) -> Show:
    """The arm as its URDF shows it, and the way of its tool."""
    links = [scene.add_frame(f"/robot/{link}", show_axes=False) for link in robot.link_names]
    for i, (link, mesh, color) in enumerate(_link_meshes(robot)):
        _mesh(scene, f"/robot/{link}/{i}", mesh, color)
    way = run.trajectory
    if way is not None:
        path = robot.tool_pose(way.q)[:, :3, 3]
        path = path[np.unique(np.linspace(0, len(path) - 1, 300).astype(int))]
        ends = np.stack([path[:-1], path[1:]], axis=1)
        scene.add_line_segments(
            "/robot path", ends, (90, 90, 90), thickness=1.5, thickness_units="screen"
        )

    def show(t: float) -> None:
        q, width = robot.home, robot.gripper.max_width
        if way is not None:
            q, width = way.at(t), float(np.round(np.interp(t, way.times, way.grip), 4))
        elif run.rollout is not None:
            q = _at(run.rollout.times, run.rollout.q, t)
        for node, X in zip(links, robot.fk(q[None], width)[0], strict=True):
            _place(node, X)

    return show


def _link_meshes(robot: Robot) -> Iterator[tuple[str, trimesh.Trimesh, Color]]:
    """Visual meshes of every link in its frame, with their colours; the collision hull of a link that has none."""
    urdf = ET.parse(robot.urdf_path).getroot()
    named = {m.get("name"): m for m in urdf.iterfind("material")}
    for link in urdf.iterfind("link"):
        name, visuals = (
            link.get("name", ""),
            [(v, v.find("geometry/mesh")) for v in link.iterfind("visual")],
        )
        meshes = [(visual, element) for visual, element in visuals if element is not None]
        for visual, element in meshes:
            mesh = trimesh.load_mesh(robot.urdf_path.parent / element.get("filename", ""))
            mesh.apply_scale([float(s) for s in element.get("scale", "1 1 1").split()])
            mesh.apply_transform(_origin(visual))
            yield name, mesh, _material_color(visual.find("material"), named)
        if not meshes and name in robot.collision_meshes:
            yield name, robot.collision_meshes[name], LINK_COLOR


def _measured(scene: viser.SceneApi, rollout: Rollout, options: ViewOptions) -> Show:
    """The object's points as they were measured while the robot moved."""
    drawn = np.unique(np.linspace(0, rollout.points.shape[1] - 1, int(options.tracks)).astype(int))
    points = rollout.points[:, drawn]
    cloud = _cloud(scene, "/measured", points[0], MEASURED_COLOR)

    def show(t: float) -> None:
        cloud.points = _at(rollout.times, points, t)

    return show


def _origin(visual: ET.Element) -> FloatArray:
    origin = visual.find("origin")
    text = [origin.get(k, "0 0 0") if origin is not None else "0 0 0" for k in ("rpy", "xyz")]
    rpy, xyz = (np.array([float(v) for v in t.split()]) for t in text)
    return pose(matrix_from_rpy(rpy), xyz)


def _material_color(material: ET.Element | None, named: dict[str | None, ET.Element]) -> Color:
    """A visual's own colour, or that of the material it names."""
    for element in (material, None if material is None else named.get(material.get("name"))):
        color = None if element is None else element.find("color")
        if color is not None:
            r, g, b, _ = (
                int(255 * float(v)) for v in color.get("rgba", "0.88 0.89 0.91 1").split()
            )
            return r, g, b
    return LINK_COLOR


def _mesh(
    scene: viser.SceneApi,
    name: str,
    mesh: trimesh.Trimesh,
    color: Color,
    own: NDArray[np.uint8] | None = None,
) -> Any:
    """A mesh node in one colour, or in `own` (V, 4) colours of its vertices."""
    if own is not None:
        return scene.add_mesh_trimesh(
            name, trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=own, process=False)
        )
    return scene.add_mesh_simple(
        name,
        np.asarray(mesh.vertices),
        np.asarray(mesh.faces),
        color=color,
        flat_shading=True,
        side="double",
    )


def _mean_color(own: NDArray[np.uint8], otherwise: Color) -> Color:
    """One colour for a mesh with many, which must not be as white as the floor."""
    r, g, b = (int(c) for c in own[:, :3].mean(0))
    return (r, g, b) if min(r, g, b) < 180 else otherwise


def _cloud(scene: viser.SceneApi, name: str, points: FloatArray, color: Color) -> Any:
    return scene.add_point_cloud(
        name, points, color, point_size=0.004, point_shape="circle", precision="float32"
    )


def _place(node: Any, X_world_node: FloatArray) -> None:
    """Move a node, and say nothing of one that is there already."""
    position, wxyz = X_world_node[:3, 3], quat_wxyz_from_matrix(X_world_node[:3, :3])
    if np.abs(position - node.position).max() > 1e-6:
        node.position = position
    if np.abs(wxyz - node.wxyz).max() > 1e-6:
        node.wxyz = wxyz


def _between(times: FloatArray, t: float) -> tuple[int, float]:
    """The frame before t, never the last, and the fraction of the way to the next."""
    k = int(np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2))
    return k, float(np.clip((t - times[k]) / (times[k + 1] - times[k]), 0, 1))


def _at(times: FloatArray, values: FloatArray, t: float) -> FloatArray:
    """Values (T, ...) at time t, linear between."""
    k, fraction = _between(times, t)
    return values[k] + fraction * (values[k + 1] - values[k])


def _ramp(colors: tuple[Color, ...], fraction: FloatArray) -> NDArray[np.uint8]:
    """Colours (..., 3) at fractions (...) of the way through `colors`."""
    at = np.linspace(0, 1, len(colors))
    return np.stack(
        [np.interp(fraction, at, channel) for channel in np.array(colors).T], axis=-1
    ).astype(np.uint8)
