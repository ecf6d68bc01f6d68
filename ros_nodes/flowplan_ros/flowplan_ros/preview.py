"""Preview of a plan as RViz markers: path of the tool, fingers closed and open, and the robot.

The robot is drawn as thinned convex hulls of its links, so a preview needs neither mesh files nor
transforms: every marker is in the plan's frame. Shapes are converted once and only poses change,
which keeps ten previews per second cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from geometry_msgs.msg import Point, Vector3
from rclpy.duration import Duration
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from flowplan.motion import ObjectFlow
from flowplan.robot import Robot
from flowplan.trajectory import Phase, Trajectory
from flowplan.utils.checks import FloatArray
from flowplan_ros.conversions import pose_to_msg

_PHASE_COLORS = (
    (0.25, 0.55, 0.95),
    (0.95, 0.65, 0.1),
    (0.2, 0.75, 0.35),
    (0.95, 0.65, 0.1),
    (0.6, 0.6, 0.6),
)
_FACES = 80  # faces of a link's hull in a preview
_SPACING = 0.005  # meters between points of the tool's path
_TRACKS = 150  # tracks of an object's flow


def plan_markers(robot: Robot, trajectory: Trajectory, header: Header) -> MarkerArray:
    """Path of the tool, colored by phase, and the gripper where its fingers close and open.

    Args:
        robot: robot, placed in the header's frame.
        trajectory: trajectory of that robot.
        header: frame and time of the preview.
    """
    tool = robot.tool_pose(trajectory.q)  # (S, 4, 4)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for phase in Phase:
        chosen = np.flatnonzero(trajectory.phase == phase)
        if not len(chosen):
            continue
        if phase in (Phase.GRIP, Phase.RELEASE):
            last = int(chosen[-1])
            markers += _gripper(robot, tool[last], float(trajectory.grip[last]), phase, header)
            continue
        # Each piece begins where the last one ended, so that the line has no gaps.
        points = _thinned(tool[max(chosen[0] - 1, 0) : chosen[-1] + 1, :3, 3])
        if len(points) > 1:
            line = _marker(header, f"tool path: {phase.label}", 0, Marker.LINE_STRIP, phase, 1.0)
            line.scale = Vector3(x=0.004)
            line.points = _points(points)
            markers.append(line)
    return MarkerArray(markers=markers)


def flow_markers(flow: ObjectFlow, header: Header) -> MarkerArray:
    """Tracks of some of an object's points as lines, from dark to bright."""
    # Some points, at some frames.
    N = flow.points.shape[1]
    chosen = np.unique(np.linspace(0, N - 1, min(N, _TRACKS)).astype(int))
    lines = _marker(header, "object flow", 0, Marker.LINE_LIST, 2, 0.6)
    lines.scale = Vector3(x=0.0015)
    frames = np.unique(np.linspace(0, len(flow.times) - 1, min(len(flow.times), 12)).astype(int))
    tracks = flow.points[frames][:, chosen]  # (frames, tracks, 3)
    segments = np.stack([tracks[:-1], tracks[1:]], axis=2)  # (frames - 1, tracks, 2, 3)
    # One color for both ends of a segment, brighter with time.
    shade = np.linspace(0.25, 1.0, len(segments))
    lines.points = _points(segments.reshape(-1, 3))
    colors = [ColorRGBA(r=0.9 * float(s), g=0.3 * float(s), b=0.7 * float(s), a=0.8) for s in shade]
    lines.colors = [color for color in colors for _ in range(2 * len(chosen))]
    return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL), lines])


class Ghost:
    """Markers of a robot, one per link, that can be posed repeatedly.

    Args:
        robot: the robot.
    """

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._links = [
            i for i, name in enumerate(robot.link_names) if name in robot.collision_meshes
        ]
        self._shapes = [
            _points(_triangles(robot.collision_meshes[robot.link_names[i]])) for i in self._links
        ]

    def markers(self, q: FloatArray, opening: float, header: Header) -> MarkerArray:
        """Robot at q (J,) with its fingers `opening` meters apart; it fades unless it is
        updated."""
        X_world_link = self._robot.fk(q[None], opening)[0]
        out = []
        for n, (i, points) in enumerate(zip(self._links, self._shapes, strict=True)):
            marker = _marker(header, "ghost", n, Marker.TRIANGLE_LIST, 0, 0.35)
            marker.pose = pose_to_msg(X_world_link[i])
            marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
            marker.lifetime = Duration(seconds=2.0).to_msg()
            marker.points = points
            out.append(marker)
        return MarkerArray(markers=out)


def _triangles(mesh: trimesh.Trimesh) -> FloatArray:
    """Corners (3 F, 3) of a convex mesh, thinned to a hull of few vertices if it has many faces."""
    if len(mesh.faces) > _FACES:
        # Hull of the extreme vertices in evenly spread directions: the outline of a convex body.
        directions = trimesh.creation.icosphere(subdivisions=1).vertices
        extreme = np.unique(np.argmax(directions @ mesh.vertices.T, axis=1))
        mesh = trimesh.convex.convex_hull(mesh.vertices[extreme])
    return np.asarray(mesh.triangles, float).reshape(-1, 3)


def _gripper(
    robot: Robot, X_world_tool: FloatArray, width: float, phase: int, header: Header
) -> list[Marker]:
    out = []
    for n, (X_tool_box, size) in enumerate(zip(*robot.gripper.boxes(width), strict=True)):
        box = _marker(header, f"fingers: {Phase(phase).label}", n, Marker.CUBE, phase, 0.45)
        box.pose = pose_to_msg(X_world_tool @ X_tool_box)
        box.scale = Vector3(**dict(zip("xyz", map(float, size), strict=True)))
        out.append(box)
    return out


def _marker(
    header: Header, namespace: str, number: int, kind: int, phase: int, alpha: float
) -> Marker:
    r, g, b = _PHASE_COLORS[phase]
    marker = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD)
    marker.color = ColorRGBA(r=r, g=g, b=b, a=alpha)
    marker.pose.orientation.w = 1.0
    return marker


def _thinned(points: FloatArray) -> FloatArray:
    """Path with points at least _SPACING apart, both ends kept."""
    keep = [0]
    for i, point in enumerate(points):
        if np.linalg.norm(point - points[keep[-1]]) >= _SPACING:
            keep.append(i)
    return points[np.unique([*keep, len(points) - 1])]


def _points(rows: FloatArray | Sequence[FloatArray]) -> list[Point]:
    return [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in rows]
