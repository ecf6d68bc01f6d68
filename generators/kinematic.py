"""Closed-form motions of objects whose law of motion is known: the truth of the tests and the upper bound of the
evaluation, not the product.

Nothing is learned or guessed here: someone has written down that this lid turns about that line (`flowplan.laws`), and
an `Action` says where some of its points should end. The amount (a pose, an angle, a distance) is the least-squares
solution of handles -> targets: Kabsch for a pose, a mean for a slide, one arctangent for a hinge, a search over one
angle for bend and fold. Time runs by minimum jerk, s(x) = 10 x^3 - 15 x^4 + 6 x^5 (Flash and Hogan 1985), so the motion
starts and ends at rest without a jump in acceleration.

Bend and fold are one map. With d the distance from the line, u the direction away from it and n the normal of the
sheet, the cross-section at d turns by phi(d) = a * clip(d / length, 0, 1) and its middle lies at the integral of
cos(phi) u + sin(phi) n: an arc, then its tangent. A bend spreads its angle over a fixed length; a fold rolls around a
cylinder, so its arc grows with the angle, length = radius * a. Either way d stays arc length: nothing stretches.
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


@dataclass(frozen=True)
class KinematicOptions:
    """How a law becomes frames."""

    frames: Annotated[int, Interval(2, 100_000)] = 41
    """Frames of the animation, evenly spaced over the action's duration."""

    def __post_init__(self) -> None:
        bounds.check(self)


def kinematic(laws: Sequence[Law], options: KinematicOptions = KinematicOptions()) -> Generator:
    """A generator that knows how each object of `laws` moves, and takes an `Action` with targets on one of them.

    Handles on a part that the law leaves at rest cannot change the least-squares amount, so they count for nothing;
    at least one handle must lie on what moves. A hinge turns by at most half a turn either way, the shorter one.
    The result is one motion, the same for every seed.

    Raises:
        ValueError: for two laws of one object; from the generator, for an instruction that it cannot follow.
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
    """Vertices (T, V, 3) at `fraction` (T,) of the time, from vertices (V, 3) at rest; world frame, meters."""
    assert (
        action.targets is not None
    )  # an Action has something to follow, and _accept refused all but targets
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
    """Up, over and down: three minimum-jerk moves whose overlap blends them; straight across where nothing lifts."""
    X_start_end = _least_rotation(handles, targets)
    center = vertices.mean(0)
    over = minimum_jerk((x - 0.2) / 0.6) if law.lift else minimum_jerk(x)
    rise = law.lift * (minimum_jerk(x / 0.4) - minimum_jerk((x - 0.6) / 0.4))
    R = exp_so3(over[:, None] * log_so3(X_start_end[:3, :3]))
    travel = transform(X_start_end, center[None])[0] - center
    # About the object's middle, so that it turns in place rather than swinging around the world's origin.
    return transform(
        pose(R, center + over[:, None] * travel + rise[:, None] * UP), vertices - center
    )


def _least_rotation(source: FloatArray, target: FloatArray) -> FloatArray:
    """The rigid fit; where one or two handles leave a rotation free, the smallest."""
    cross = np.concatenate([np.eye(3), -np.eye(3)])
    spread = ((source - source.mean(0)) ** 2).sum()
    # A faint cross around the centroids that asks not to turn: it decides what the handles do not, and moves what
    # they do decide by a part in 1e10.
    weights = np.concatenate([np.ones(len(source)), np.full(6, 1e-10 * spread + 1e-20)])
    return fit_rigid(
        np.concatenate([source, source.mean(0) + cross]),
        np.concatenate([target, target.mean(0) + cross]),
        weights,
    )


def _hinge(
    law: Hinge, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    on = _belongs(law, handles)
    r, t = (p[on] - law.axis_point for p in (handles, targets))
    r, t = (p - (p @ law.axis)[:, None] * law.axis for p in (r, t))
    if (r**2).sum() < 1e-12:
        raise ValueError(
            "Action.handles: all lie on the hinge's axis, where turning moves nothing; choose others"
        )
    # sum |R(a) r - t|^2 = const - 2 (A cos a + B sin a)
    angle = np.arctan2((np.cross(r, t) @ law.axis).sum(), (r * t).sum())
    moved = transform(rotation_about(law.axis_point, law.axis, s * angle), vertices)
    return np.where(_belongs(law, vertices)[:, None], moved, vertices)


def _slide(
    law: Slide, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    distance = ((targets - handles)[_belongs(law, handles)] @ law.axis).mean()
    return vertices + (s * distance)[:, None, None] * (_belongs(law, vertices)[:, None] * law.axis)


def _belongs(law: Hinge | Slide, points: FloatArray) -> NDArray[np.bool_]:
    """(P,): which points are on the moving link? At least one must be."""
    from scipy.spatial import cKDTree

    on = cKDTree(law.part).query(points)[0] < cKDTree(law.rest).query(points)[0]
    if not on.any():
        raise ValueError(
            f"Action.handles: none of {len(points)} points lies on the part of {law.object!r} that moves; "
            "choose handles nearer to the law's part than to its rest"
        )
    return on


def _bend(
    law: Bend, vertices: FloatArray, handles: FloatArray, targets: FloatArray, s: FloatArray
) -> FloatArray:
    normal = np.cross(law.axis, law.direction)
    if not np.any((handles - law.axis_point) @ law.direction > 0):
        raise ValueError(
            f"Action.handles: all lie on the side of {law.object!r} that is held; choose some beyond it"
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
            "Action.handles: lie on the crease or evenly about it; choose points on the side to turn over"
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
    """Points (P, 3) curled by each of `angle` (A,) rad over `length` (A,) m from the line through origin: (A, P, 3).

    `u` points away from the line, `n` is the direction that it curls toward; distances along the line stay.
    """
    d, h = (points - origin) @ u, (points - origin) @ n
    angle, length = angle[:, None], length[:, None]
    arc = np.clip(d, 0.0, length)
    beyond = np.maximum(d - length, 0.0)
    # A radius of zero leaves no arc: everything past the line turns by the whole angle.
    phi = angle * np.where(length > 0, arc / np.where(length > 0, length, 1.0), d > 0)
    # int_0^arc of (cos, sin) of the linearly growing phi: arc * sinc(phi), arc * phi / 2 * sinc(phi / 2)^2
    along = arc * np.sinc(phi / np.pi) + beyond * np.cos(angle) + np.minimum(d, 0.0)
    up = arc * phi / 2 * np.sinc(phi / (2 * np.pi)) ** 2 + beyond * np.sin(angle)
    along, up = along - h * np.sin(phi), up + h * np.cos(phi)
    return points + (along - d)[..., None] * u + (up - h)[..., None] * n


def _best(cost: Callable[[FloatArray], FloatArray], lower: float, upper: float) -> float:
    """The angle of least cost: a half-degree grid finds the valley, Brent's search its floor."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(lower, upper, 1 + int(np.ceil((upper - lower) / np.radians(0.5))))
    best = int(np.argmin(cost(grid)))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda a: cost(np.array([a]))[0], bounds=bracket, method="bounded", options={"xatol": 1e-10}
    )
    # The bounded search never tries its ends, and a full fold is one of them.
    ends = np.array([found.x, *bracket])
    return float(ends[np.argmin(cost(ends))])
