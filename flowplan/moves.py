"""Common moves of one object, said without computing handles and targets.

Each function returns a law of motion and an action that asks for its amount:

>>> law, action = move_by(scene, "can", [0.0, 0.2, 0.0], lift=0.1)  # doctest: +SKIP
>>> (motion,) = kinematic([law])(scene, action)  # doctest: +SKIP

Generators that learned their motions take the action alone.
"""

from __future__ import annotations

import numpy as np
import trimesh

from flowplan.geometry import rotation_about, transform
from flowplan.laws import Hinge, Rigid
from flowplan.scene import Action, Scene, SceneObject
from flowplan.statics.solid import cast, surface_points
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray
from flowplan.utils.open3d_loader import surface_scene

SUPPORT = "support"
"""Name of the support plane as a place to put things on."""
HANDLES = 6
"""Handles of an action, spread over what moves."""
_LARGEST_TURN = np.deg2rad(179.0)
"""Handles and targets tell the direction of a turn up to half a turn."""
_UP = np.array([0.0, 0.0, 1.0])
_GAP = 1e-3
"""Meters between an object and what it is placed on."""


def move_by(
    scene: Scene, name: str, by: FloatArray, *, lift: float = 0.0, duration: float = 2.0
) -> tuple[Rigid, Action]:
    """Translation of a whole object.

    Args:
        scene: Its objects.
        name: The object's name.
        by: (3,) translation in the world frame, meters.
        lift: Meters by which the middle of the path rises above the straight line.
        duration: Seconds.
    """
    by = checks.array("by", by, (3,))
    handles = spread(_named(scene, name).vertices_world)
    return Rigid(name, lift), Action(name, handles, handles + by, duration=duration)


def turn(
    scene: Scene,
    name: str,
    axis: FloatArray,
    through: FloatArray,
    angle: float,
    *,
    duration: float = 2.0,
) -> tuple[Hinge, Action]:
    """Rotation of a whole object about a line.

    Args:
        scene: Its objects.
        name: The object's name.
        axis: (3,) direction of the line in the world frame; the turn is right-handed about it.
        through: (3,) point of the line in the world frame, meters.
        angle: rad, less than half a turn either way.
        duration: Seconds.
    """
    if not 0 < abs(angle) <= _LARGEST_TURN:
        raise ValueError(
            f"angle: expected up to 179 degrees either way, got {np.rad2deg(angle):.4g}; "
            "turn in two steps"
        )
    vertices = _named(scene, name).vertices_world
    law = Hinge(name, through, axis, vertices, np.zeros((0, 3)))
    handles = spread(_off_axis(vertices, law))
    X_start_end = rotation_about(law.axis_point, law.axis, np.array([angle]))[0]
    return law, Action(name, handles, transform(X_start_end, handles), duration=duration)


def place_on(
    scene: Scene,
    name: str,
    on: str,
    *,
    at: tuple[float, float] | None = None,
    lift: float = 0.1,
    duration: float = 3.0,
) -> tuple[Rigid, Action]:
    """Placement of a whole object on top of another one, an obstacle or the support, unturned.

    Args:
        scene: Objects, obstacles and support.
        name: The object's name.
        on: Name of what it is placed on; "support" is the support plane.
        at: x, y in the world frame of the center of the object's box, meters. Defaults to the
            center of what it is placed on, or to its own x, y on the support.
        lift: Meters by which the middle of the path rises above the straight line.
        duration: Seconds.
    """
    obj = _named(scene, name)
    lower, upper = obj.mesh_world.bounds
    under = _place(scene, name, on)
    if at is not None:
        goal = checks.array("at", at, (2,))
    else:
        goal = (lower + upper)[:2] / 2 if under is None else under.bounds.mean(axis=0)[:2]
    by = np.append(goal - (lower + upper)[:2] / 2, 0.0)
    if under is None:
        assert scene.support_height is not None  # _place refuses scenes without a support
        by[2] = scene.support_height + _GAP - lower[2]
    else:
        by[2] = _fall(obj.mesh_world, under, by, on)
    return move_by(scene, name, by, lift=lift, duration=duration)


def spread(points: FloatArray, count: int = HANDLES) -> FloatArray:
    """At most `count` of points (N, 3), far from each other: farthest point sampling."""
    center = points.mean(axis=0)
    chosen = [int(np.argmax(np.linalg.norm(points - center, axis=-1)))]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=-1)  # (N,)
    while len(chosen) < count and nearest.max() > 0:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=-1))
    return np.asarray(points[chosen], float)


def _named(scene: Scene, name: str) -> SceneObject:
    return scene.objects[scene.index(name)]


def _off_axis(vertices: FloatArray, law: Hinge) -> FloatArray:
    """The farther half of vertices (V, 3) from a hinge's line, whose motion tells the angle."""
    r = vertices - law.axis_point
    distance = np.linalg.norm(r - (r @ law.axis)[:, None] * law.axis, axis=-1)  # (V,)
    if not distance.max() > 1e-6:
        raise ValueError(f"axis: all of {law.object!r} lies on the line; give another one")
    return vertices[distance >= 0.5 * distance.max()]


def _place(scene: Scene, name: str, on: str) -> trimesh.Trimesh | None:
    """Mesh in the world frame to place an object on; None for the support plane."""
    places = {o.name: o for o in (*scene.objects, *scene.obstacles) if o.name != name}
    if on in places:
        return places[on].mesh_world
    known = [*places, *([SUPPORT] if scene.support_height is not None else [])]
    checks.choice("on", on, known)
    return None


def _fall(own: trimesh.Trimesh, under: trimesh.Trimesh, by: FloatArray, on: str) -> float:
    """Change of height in meters that puts a mesh, moved by `by`, just above another mesh.

    Vertical rays in both directions: from points of its surface down, and from points of the other
    surface up.
    """
    height = float(under.bounds[1, 2] - own.bounds[0, 2]) + 1.0
    raised = own.vertices + np.array([by[0], by[1], height]), np.asarray(own.faces)
    below = np.asarray(under.vertices, float), np.asarray(under.faces)
    down = cast(surface_scene(below), surface_points(*raised), -_UP)
    up = cast(surface_scene(raised), surface_points(*below), _UP)
    gap = float(min(down.min(), up.min()))
    if not np.isfinite(gap):
        x, y = 0.5 * (raised[0].min(axis=0) + raised[0].max(axis=0))[:2]
        raise ValueError(
            f"at: nothing of {on!r} lies below the object at {x:.3f}, {y:.3f}; "
            f"it reaches from {under.bounds[0, :2].round(3).tolist()} "
            f"to {under.bounds[1, :2].round(3).tolist()}"
        )
    return height - gap + _GAP
