"""Known laws of motion, which the kinematic generator turns into closed-form animations.

A law states the kind of motion (the line or direction), not the amount, which is solved from an
instruction's handles and targets. A scanned mesh has no links, so a law for an articulated object
carries surface points of the moving link and of the static ones; a vertex belongs to the nearer set
at t = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Rigid:
    """Rigid motion of the whole object to the pose that best moves the handles to the targets.

    Attributes:
        object: Name of the scene object.
        lift: Meters by which the middle of the path rises above the straight line between the two
            poses.
    """

    object: str
    lift: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lift", checks.positive("Rigid.lift", self.lift, zero=True))


@dataclass(frozen=True, eq=False)
class Hinge:
    """Rotation of one link about a fixed line, right-handed about `axis`.

    Attributes:
        object: Name of the scene object.
        axis_point: (3,) point on the line, world frame, meters.
        axis: (3,) direction of the line, world frame; normalized.
        part: (P, 3) surface points of the rotating link at t = 0, world frame, meters.
        rest: (R, 3) surface points of the static links, world frame, meters; (0, 3) if the whole
            object turns.
    """

    object: str
    axis_point: FloatArray
    axis: FloatArray
    part: FloatArray
    rest: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "axis_point", checks.array("Hinge.axis_point", self.axis_point, (3,))
        )
        object.__setattr__(self, "axis", _unit("Hinge.axis", self.axis))
        object.__setattr__(self, "part", checks.array("Hinge.part", self.part, ("P", 3)))
        shape = (0, 3) if np.shape(self.rest) == (0, 3) else ("R", 3)
        object.__setattr__(self, "rest", checks.array("Hinge.rest", self.rest, shape))


@dataclass(frozen=True, eq=False)
class Slide:
    """Translation of one link along a fixed direction.

    Attributes:
        object: Name of the scene object.
        axis: (3,) direction of positive travel, world frame; normalized.
        part: (P, 3) surface points of the sliding link at t = 0, world frame, meters.
        rest: (R, 3) surface points of the static links, world frame, meters.
    """

    object: str
    axis: FloatArray
    part: FloatArray
    rest: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _unit("Slide.axis", self.axis))
        object.__setattr__(self, "part", checks.array("Slide.part", self.part, ("P", 3)))
        object.__setattr__(self, "rest", checks.array("Slide.rest", self.rest, ("R", 3)))


@dataclass(frozen=True, eq=False)
class Bend:
    """Bending of a beam or sheet on one side of a line, at constant curvature.

    The other side of the line is clamped. With s the distance of a point from the line along
    `direction` and a the bending angle, the cross-section at s rotates rigidly by
    a * min(s / length, 1) (Euler-Bernoulli). The neutral surface, spanned by `axis` and `direction`
    through the line, keeps its lengths; beyond `length` the material continues straight.

    Attributes:
        object: Name of the scene object.
        axis_point: (3,) point on the line where the bend begins, on the neutral surface, world
            frame, meters.
        axis: (3,) direction of the line, world frame; angles are right-handed about it.
        direction: (3,) from the line toward the free end, world frame; normalized, perpendicular
            to `axis`.
        length: Meters along `direction` over which the bend is spread.
    """

    object: str
    axis_point: FloatArray
    axis: FloatArray
    direction: FloatArray
    length: float

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "axis_point", checks.array("Bend.axis_point", self.axis_point, (3,))
        )
        object.__setattr__(self, "axis", _unit("Bend.axis", self.axis))
        object.__setattr__(self, "direction", _unit("Bend.direction", self.direction))
        cosine = float(self.axis @ self.direction)
        if abs(cosine) > 1e-3:
            raise ValueError(
                "Bend.direction: expected a direction perpendicular to axis, "
                f"got cosine {cosine:.3g}; subtract its part along the axis"
            )
        object.__setattr__(self, "length", checks.positive("Bend.length", self.length))


@dataclass(frozen=True, eq=False)
class Fold:
    """Folding of a flat sheet along a straight crease, around a thin cylinder on top of it.

    The side with the handles moves. With d the distance of a point from the crease and a the fold
    angle, points with d < radius * a lie on the cylinder's arc and the others continue along its
    tangent, so all lengths within the sheet are kept.

    Attributes:
        object: Name of the scene object.
        line_point: (3,) point of the crease on the sheet, world frame, meters.
        line_direction: (3,) direction of the crease, world frame, horizontal; normalized.
        radius: Radius of the cylinder, meters; the folded layer ends up 2 * radius above the other.
    """

    object: str
    line_point: FloatArray
    line_direction: FloatArray
    radius: float = 0.005

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "line_point", checks.array("Fold.line_point", self.line_point, (3,))
        )
        object.__setattr__(
            self, "line_direction", _unit("Fold.line_direction", self.line_direction)
        )
        if abs(self.line_direction[2]) > 1e-3:
            raise ValueError(
                "Fold.line_direction: expected a horizontal direction, "
                f"got z = {self.line_direction[2]:.3g}; give the crease of a sheet that lies flat"
            )
        object.__setattr__(self, "radius", checks.positive("Fold.radius", self.radius, zero=True))


Law = Rigid | Hinge | Slide | Bend | Fold


def _unit(field: str, value: FloatArray) -> FloatArray:
    """Unit vector (3,) of a direction of any length."""
    v = checks.array(field, value, (3,))
    norm = float(np.linalg.norm(v))
    if norm < 1e-9:
        raise ValueError(
            f"{field}: expected a direction, got a vector of length {norm:.2g}; give a non-zero one"
        )
    return checks.array(field, v / norm, (3,))
