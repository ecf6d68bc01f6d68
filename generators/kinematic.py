"""Closed-form motions of objects with known laws of motion: ground truth of tests, and the upper
bound of the evaluation.

Nothing is learned or estimated: a law (`flowplan.laws`) states, for example, that a lid turns about
a line, and an `Action` gives targets of some of its points. The amount (a pose, an angle, a
distance) is the least-squares solution of handles -> targets: Kabsch for a pose, a mean for a
slide, one arctangent for a hinge, a search over one angle for bend and fold. Time follows minimum
jerk, s(x) = 10 x^3 - 15 x^4 + 6 x^5 (Flash and Hogan 1985): the motion starts and ends at rest
without a jump in acceleration.

Bend and fold are one map. With d the distance from the line, u the direction away from it and n the
normal of the sheet, the cross-section at d turns by phi(d) = a * clip(d / length, 0, 1), and its
center lies at the integral of cos(phi) u + sin(phi) n: an arc, then its tangent. A bend distributes
its angle over a fixed length. A fold rolls around a cylinder, so its arc grows with the angle,
length = radius * a. Either way d remains arc length: nothing stretches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import exp_so3, fit_rigid, log_so3, pose, rotation_about, transform
from flowplan.laws import Bend, Fold, Hinge, Law, Rigid, Slide
from flowplan.motion import Generator, Progress, SceneMotion, silent
from flowplan.scene import Action, Instruction, Scene
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

UP = np.array([0.0, 0.0, 1.0])
_TARGET_ERROR, _TARGET_ERROR_SHARE = 0.02, 0.3
"""Meters, and share of the way, by which the best rigid motion may miss targets: those that people
write down are rough, those in another unit or for other handles miss by more."""


@dataclass(frozen=True)
class KinematicOptions:
    """Options of closed-form motions."""

    frames: Annotated[int, Interval(2, 100_000)] = 41
    """Frames of the animation, evenly spaced over the action's duration."""

    def __post_init__(self) -> None:
        bounds.check(self)


def kinematic(laws: Sequence[Law], options: KinematicOptions = KinematicOptions()) -> Generator:
    """A generator of motions by laws, which takes an `Action` with targets on one of the objects.

    Handles on a part that the law leaves at rest do not affect the least-squares amount and are
    ignored; at least one handle must lie on a part that moves. A hinge turns by at most half a
    turn, the shorter way. The result is one motion, the same for every seed.

    Args:
        laws: one law for each object that can move.
        options: see KinematicOptions.

    Raises:
        ValueError: for two laws of one object; from the generator, for an instruction that it
            cannot follow.
    """
    names = [law.object for law in laws]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"laws: expected one law per object and at least one, got laws for {names}"
        )

    def generate(
        scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]:
        action = _accept(instruction, names)
        moving = scene.index(action.object)
        action.require_handles_on(scene.objects[moving])
        fraction = np.linspace(0.0, 1.0, options.frames)
        still = [o.vertices_world for o in scene.objects]
        vertices = [np.broadcast_to(v, (options.frames, *v.shape)) for v in still]
        vertices[moving] = _animate(
            laws[names.index(action.object)], still[moving], action, fraction
        )
        progress(1.0, f"moved {action.object}")
        return [SceneMotion(fraction * action.duration, tuple(vertices))]

    return generate


Options = KinematicOptions
INSTRUCTION: Literal["action", "prompt"] = "action"
make = kinematic


def minimum_jerk(x: FloatArray) -> FloatArray:
    """Progress in [0, 1] at fractions x of the time; 0 before and 1 after."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10 + x * (6 * x - 15))


def _accept(instruction: Instruction, names: Sequence[str]) -> Action:
    """The instruction, if it is an Action with targets alone on one of the objects."""
    takes = (
        f"a kinematic generator takes an Action with targets alone, on one of {', '.join(names)}"
    )
    if not isinstance(instruction, Action):
        raise ValueError(f"instruction: got a {type(instruction).__name__}; {takes}")
    for field in ("forces", "velocities"):
        if getattr(instruction, field) is not None:
            raise ValueError(f"Action.{field}: a law of motion has no mass to act on; {takes}")
    if instruction.object not in names:
        raise ValueError(f"Action.object: no law for {instruction.object!r}; {takes}")
    return instruction


def _animate(law: Law, vertices: FloatArray, action: Action, fraction: FloatArray) -> FloatArray:
    """Vertices (T, V, 3) at fractions (T,) of the time, from vertices (V, 3), world frame."""
    assert action.targets is not None  # _accept refuses everything else
    handles, targets = action.handles, action.targets
    match law:
        case Rigid():
            return _rigid(law, vertices, handles, targets, fraction)
        case Hinge():
            return _hinge(law, vertices, handles, targets, minimum_jerk(fraction))
        case Slide():
            return _slide(law, vertices, handles, targets, minimum_jerk(fraction))
        case Bend():
            return _bend(law, vertices, handles, targets, minimum_jerk(fraction))
        case Fold():
            return _fold(law, vertices, handles, targets, minimum_jerk(fraction))


def _rigid(
    law: Rigid, vertices: FloatArray, handles: FloatArray, targets: FloatArray, x: FloatArray
) -> FloatArray:
    """Lift, travel and lower, in overlapping minimum-jerk moves; without lift travel alone."""
    X_start_end = _least_rotation(handles, targets)
    _require_rigid(handles, targets)
    center = vertices.mean(0)

    # Progress of the travel, and height.
    over = minimum_jerk((x - 0.2) / 0.6) if law.lift else minimum_jerk(x)
    rise = law.lift * (minimum_jerk(x / 0.4) - minimum_jerk((x - 0.6) / 0.4))

    # Rotate about the object's center, so that it turns in place instead of around the origin.
    R = exp_so3(over[:, None] * log_so3(X_start_end[:3, :3]))  # (T, 3, 3)
    travel = transform(X_start_end, center[None])[0] - center
    X = pose(R, center + over[:, None] * travel + rise[:, None] * UP)  # (T, 4, 4)
    return transform(X, vertices - center)


def _least_rotation(source: FloatArray, target: FloatArray) -> FloatArray:
    """The rigid fit; the smallest rotation if one or two handles leave it free."""
    # Six faint points around the centroids that ask for no rotation: they determine what the
    # handles leave free, and change the rest by 1e-10.
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    spread = ((source - source.mean(0)) ** 2).sum()
    weights = np.concatenate([np.ones(len(source)), np.full(6, 1e-10 * spread + 1e-20)])
    return fit_rigid(
        np.concatenate([source, source.mean(0) + cross]),
        np.concatenate([target, target.mean(0) + cross]),
        weights,
    )


def _hinge(
    law: Hinge, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    # Handles r and targets t on the moving link, perpendicular to the axis.
    on = _on_moving_link(law, handles)
    _require_rigid(handles[on], targets[on])
    r, t = (p[on] - law.axis_point for p in (handles, targets))
    r, t = (p - (p @ law.axis)[:, None] * law.axis for p in (r, t))
    if (r**2).sum() < 1e-12:
        raise ValueError(
            "Action.handles: all lie on the hinge's axis, which does not move; choose others"
        )
    # sum |R(a) r - t|^2 = const - 2 (A cos a + B sin a) is least at a = atan2(B, A).
    angle = np.arctan2((np.cross(r, t) @ law.axis).sum(), (r * t).sum())
    moved = transform(rotation_about(law.axis_point, law.axis, s * angle), vertices)
    return np.where(_on_moving_link(law, vertices)[:, None], moved, vertices)


def _slide(
    law: Slide, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    on = _on_moving_link(law, handles)
    _require_rigid(handles[on], targets[on])
    distance = ((targets - handles)[on] @ law.axis).mean()
    return vertices + (s * distance)[:, None, None] * (
        _on_moving_link(law, vertices)[:, None] * law.axis
    )


def _require_rigid(handles: FloatArray, targets: FloatArray) -> None:
    """Refuse handles and targets (H, 3) that no rigid motion takes from one to the other."""
    ends = transform(_least_rotation(handles, targets), handles)
    left = np.linalg.norm(ends - targets, axis=-1)  # (H,)
    way = float(np.linalg.norm(targets - handles, axis=-1).max())
    worst = int(np.argmax(left))
    if not left[worst] <= _TARGET_ERROR + _TARGET_ERROR_SHARE * way:
        raise ValueError(
            f"Action.targets[{worst}]: the best rigid motion of the handles ends "
            f"{left[worst]:.3g} m from it, on a way of {way:.3g} m; give targets as far from each "
            "other as their handles are, in meters in the world frame"
        )


def _on_moving_link(law: Hinge | Slide, points: FloatArray) -> NDArray[np.bool_]:
    """(P,) true for points on the moving link; at least one must be."""
    from scipy.spatial import cKDTree

    if not len(law.rest):
        return np.ones(len(points), bool)
    on = cKDTree(law.part).query(points)[0] < cKDTree(law.rest).query(points)[0]
    if not on.any():
        raise ValueError(
            f"Action.handles: none of {len(points)} points lies on the part of {law.object!r} that "
            "moves; choose handles nearer to the law's part than to its rest"
        )
    return on


def _bend(
    law: Bend, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    normal = np.cross(law.axis, law.direction)
    if not np.any((handles - law.axis_point) @ law.direction > 0):
        raise ValueError(
            f"Action.handles: all lie on the fixed side of {law.object!r}; choose some beyond it"
        )

    def bent(points: FloatArray, angle: FloatArray) -> FloatArray:
        return _curl(
            points, law.axis_point, law.direction, normal, angle, np.full_like(angle, law.length)
        )

    angle = _best(
        lambda a: ((bent(handles, a) - targets) ** 2).sum((-2, -1)), -2 * np.pi, 2 * np.pi
    )
    return bent(vertices, s * angle)


def _fold(
    law: Fold, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    away = np.cross(law.line_direction, UP)
    side = ((handles - law.line_point) @ away).mean()
    if abs(side) < 1e-6:
        raise ValueError(
            "Action.handles: lie on the crease or evenly about it; "
            "choose points on the side to turn over"
        )
    away = away * np.sign(side) / np.linalg.norm(away)

    def folded(points: FloatArray, angle: FloatArray) -> FloatArray:
        return _curl(points, law.line_point, away, UP, angle, law.radius * angle)

    angle = _best(lambda a: ((folded(handles, a) - targets) ** 2).sum((-2, -1)), 0.0, np.pi)
    return folded(vertices, s * angle)


def _curl(
    points: FloatArray,
    origin: FloatArray,
    u: FloatArray,
    n: FloatArray,
    angle: FloatArray,
    length: FloatArray,
) -> FloatArray:
    """Points (A, P, 3) curled away from a line; distances along the line are unchanged.

    Args:
        points: (P, 3) flat.
        origin: (3,) point of the line.
        u: (3,) unit direction away from the line.
        n: (3,) unit direction that the sheet curls toward.
        angle: (A,) rad.
        length: (A,) meters from the line over which it curls.
    """
    # Distance from the line, and height above the sheet.
    d, h = (points - origin) @ u, (points - origin) @ n
    angle, length = angle[:, None], length[:, None]
    arc = np.clip(d, 0.0, length)
    beyond = np.maximum(d - length, 0.0)

    # Angle of the cross-section. A length of zero has no arc: it turns by the whole angle.
    phi = angle * np.where(length > 0, arc / np.where(length > 0, length, 1.0), d > 0)

    # Its center: the integral of (cos phi, sin phi) over the arc, with phi growing linearly, is
    # arc sinc(phi), arc phi / 2 sinc(phi / 2)^2; then along the tangent.
    along = arc * np.sinc(phi / np.pi) + beyond * np.cos(angle) + np.minimum(d, 0.0)
    up = arc * phi / 2 * np.sinc(phi / (2 * np.pi)) ** 2 + beyond * np.sin(angle)

    # Points at height h lie along the normal of the turned cross-section.
    along, up = along - h * np.sin(phi), up + h * np.cos(phi)
    return points + (along - d)[..., None] * u + (up - h)[..., None] * n


def _best(cost: Callable[[FloatArray], FloatArray], lower: float, upper: float) -> float:
    """The angle of least cost: the best of a grid of half degrees, refined by Brent's method."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(lower, upper, 1 + int(np.ceil((upper - lower) / np.radians(0.5))))
    best = int(np.argmin(cost(grid)))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda a: cost(np.array([a]))[0], bounds=bracket, method="bounded", options={"xatol": 1e-10}
    )
    # The bounded search never evaluates its ends, and a full fold is one of them.
    ends = np.array([found.x, *bracket])
    return float(ends[np.argmin(cost(ends))])
