"""Laws of motion that someone knows beforehand: what a kinematic generator turns into a closed-form animation.

A law says how an object can move (about which line, along which direction), never how far: the amount is solved from
an instruction's handles and targets. A mesh that was scanned has no links, so a law for an articulated object carries
surface points of the link that moves and of all that stays; a vertex belongs to whichever is nearer at t = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowplan.utils import checks
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class Rigid:
    """The whole object moves as one body to the pose that best takes the handles to the targets.

    Attributes:
        object: name of the scene object.
        lift: metres that the middle of the way rises above the straight line between the two poses.
    """

    object: str
    lift: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lift", checks.positive("Rigid.lift", self.lift, zero=True))


@dataclass(frozen=True, eq=False)
class Hinge:
    """One link turns about a fixed line; positive angles follow the right-hand rule about `axis`.

    Attributes:
        object: name of the scene object.
        axis_point: (3,) a point of the line, world frame, metres.
        axis: (3,) direction of the line, world frame; made a unit vector.
        part: (P, 3) surface points of the link that turns at t = 0, world frame, metres.
        rest: (R, 3) surface points of the links that stay, world frame, metres.
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
        object.__setattr__(self, "rest", checks.array("Hinge.rest", self.rest, ("R", 3)))


@dataclass(frozen=True, eq=False)
class Slide:
    """One link moves along a fixed direction without turning.

    Attributes:
        object: name of the scene object.
        axis: (3,) direction of positive travel, world frame; made a unit vector.
        part: (P, 3) surface points of the link that slides at t = 0, world frame, metres.
        rest: (R, 3) surface points of the links that stay, world frame, metres.
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
    """A beam or sheet, held on one side of a line, that curls at constant curvature on the other.

    With s the distance of a point from the line along `direction` and a the angle bent so far, a cross-section at s
    turns as a whole by a * min(s / length, 1) (Euler-Bernoulli): the surface through the line that `axis` and
    `direction` span keeps its lengths, and what lies beyond `length` follows straight on.

    Attributes:
        object: name of the scene object.
        axis_point: (3,) a point of the line where the bend begins, on the surface that keeps its lengths, world frame,
            metres.
        axis: (3,) direction of the line, world frame; positive angles follow the right-hand rule about it.
        direction: (3,) from the line towards the free end, world frame; made a unit vector, perpendicular to `axis`.
        length: metres along `direction` over which the bend is spread.
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
                f"Bend.direction: expected a direction perpendicular to axis, got cosine {cosine:.3g}; "
                "subtract its part along the axis"
            )
        object.__setattr__(self, "length", checks.positive("Bend.length", self.length))


@dataclass(frozen=True, eq=False)
class Fold:
    """A flat sheet that turns over along a straight crease, rolling around a thin cylinder on top of it.

    The side that moves is the one the handles are on. With d the distance of a point from the crease line and a the
    angle turned so far, points with d < radius * a lie on the cylinder's arc and the others continue its tangent, so
    every length within the sheet is kept.

    Attributes:
        object: name of the scene object.
        line_point: (3,) a point of the crease on the sheet, world frame, metres.
        line_direction: (3,) direction of the crease, world frame, horizontal; made a unit vector.
        radius: metres, of the cylinder; the layer turned over comes to lie 2 * radius above the other.
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
                f"Fold.line_direction: expected a horizontal direction, got z = {self.line_direction[2]:.3g}; "
                "give the crease of a sheet that lies flat"
            )
        object.__setattr__(self, "radius", checks.positive("Fold.radius", self.radius, zero=True))


Law = Rigid | Hinge | Slide | Bend | Fold


def _unit(field: str, value: FloatArray) -> FloatArray:
    v = checks.array(field, value, (3,))
    norm = float(np.linalg.norm(v))
    if norm < 1e-9:
        raise ValueError(
            f"{field}: expected a direction, got a vector of length {norm:.2g}; give a non-zero one"
        )
    return checks.array(field, v / norm, (3,))
