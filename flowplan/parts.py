"""Rigid parts of an object and the joints between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import exp_se3, inverse, pose, transform
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

JointKind = Literal["revolute", "prismatic", "screw", "free", "fixed"]


@dataclass(frozen=True, eq=False)
class PartJoint:
    """One joint between two parts, in the frame of the object whose mesh shows its parts.

    Attributes:
        name: unique in its articulation.
        kind: "revolute", "prismatic", "screw" (a turn and a slide in step), "free" (six degrees of
            freedom, without a position) or "fixed".
        parent, child: numbers of the parts.
        axis: (3,) unit direction; a turn is right-handed about it.
        point: (3,) point on the axis, meters.
        pitch: meters along the axis per radian of a screw; 0 for other kinds.
        position: where the mesh shows the joint, rad or m.
        lower, upper: positions that were seen or are allowed, rad or m.
        confidence: in [0, 1]; 1 for a joint that is known.
        residual: meters RMS that the child's motion left this joint.
        axis_std: standard deviation of the axis' direction, rad.
        point_std: standard deviation of the axis' place, meters.
        follows: name of a joint that sets the position, multiplier * its position + offset; ""
            for a joint with a position of its own.
    """

    name: str
    kind: JointKind
    parent: int
    child: int
    axis: FloatArray
    point: FloatArray
    pitch: float = 0.0
    position: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    confidence: float = 1.0
    residual: float = 0.0
    axis_std: float = 0.0
    point_std: float = 0.0
    follows: str = ""
    multiplier: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        where = f"PartJoint[{self.name}]"
        checks.choice(f"{where}.kind", self.kind, get_args(JointKind))
        axis = checks.array(f"{where}.axis", self.axis, (3,))
        if not abs(np.linalg.norm(axis) - 1) <= 1e-6:
            raise ValueError(
                f"{where}.axis: expected a unit vector, got length {np.linalg.norm(axis):g}"
            )
        object.__setattr__(self, "axis", axis)
        object.__setattr__(self, "point", checks.array(f"{where}.point", self.point, (3,)))
        if not self.lower <= self.upper:
            raise ValueError(
                f"{where}.lower: {self.lower:g} is above upper={self.upper:g}; swap the two"
            )
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"{where}.confidence: expected 0 to 1, got {self.confidence!r}")

    @property
    def twist(self) -> FloatArray:
        """Twist (6,) of one unit of the position; zero for a free or fixed joint."""
        if self.kind == "prismatic":
            return np.concatenate([self.axis, np.zeros(3)])
        if self.kind in ("revolute", "screw"):
            linear = np.cross(self.point, self.axis) + self.pitch * self.axis
            return np.concatenate([linear, self.axis])
        return np.zeros(6)

    def displacement(self, position: ArrayLike) -> FloatArray:
        """Motion (..., 4, 4) of the child as the parent sees it, from where the mesh shows it."""
        amount = np.asarray(position, float) - self.position
        return exp_se3(amount[..., None] * self.twist)


@dataclass(frozen=True, eq=False)
class Articulation:
    """Parts of an object's mesh, and the joints that connect them to a tree.

    Attributes:
        parts: name of each part.
        part: (F,) part of each face.
        joints: parents before children; every part but one, the root, is the child of one joint.
    """

    parts: tuple[str, ...]
    part: NDArray[np.int64]
    joints: tuple[PartJoint, ...] = ()

    def __post_init__(self) -> None:
        part = checks.array("Articulation.part", self.part, ("F",), dtype=np.int64)
        object.__setattr__(self, "part", part)
        count = len(self.parts)
        if len(set(self.parts)) < count or not count:
            raise ValueError(
                f"Articulation.parts: expected different names, one at least, got {self.parts}"
            )
        if not 0 <= part.min() <= part.max() < count:
            raise ValueError(
                f"Articulation.part: expected numbers of {count} parts, 0 to {count - 1}, "
                f"got {part.min()} to {part.max()}"
            )
        self._check_tree()
        self._check_followers()

    def _check_tree(self) -> None:
        """Refuse joints that do not connect all parts, parents before children."""
        count = len(self.parts)
        children = [j.child for j in self.joints]
        roots = [i for i in range(count) if i not in children]
        placed = set(roots)
        for joint in self.joints:
            known = joint.parent in placed and 0 <= joint.child < count
            if not known or joint.child in placed or len(roots) != 1:
                raise ValueError(
                    f"Articulation.joints: {joint.name} from part {joint.parent} to "
                    f"{joint.child}: expected a tree over the parts 0 to {count - 1}, parents "
                    "before children"
                )
            placed.add(joint.child)
        if len(placed) < count or len(roots) != 1:
            raise ValueError(
                f"Articulation.joints: parts {roots} are no joint's child, expected only one, "
                "the root; connect them by fixed joints"
            )

    def _check_followers(self) -> None:
        """Refuse joints of one name, and followers of what has no position of its own."""
        names = [j.name for j in self.joints]
        if len(set(names)) < len(names):
            raise ValueError(f"Articulation.joints: expected different names, got {names}")
        for joint in self.joints:
            if joint.follows:
                checks.choice(
                    f"Articulation.joints: {joint.name} follows", joint.follows, self.movable
                )

    @property
    def root(self) -> int:
        """Number of the part that is no joint's child."""
        children = {j.child for j in self.joints}
        return next(i for i in range(len(self.parts)) if i not in children)

    @property
    def movable(self) -> tuple[str, ...]:
        """Names of the joints with a position of their own."""
        return tuple(
            j.name for j in self.joints if j.kind not in ("fixed", "free") and not j.follows
        )

    def joint(self, name: str) -> PartJoint:
        """The joint of this name.

        Raises:
            ValueError: if there is none.
        """
        checks.choice("joint", name, [j.name for j in self.joints])
        return next(j for j in self.joints if j.name == name)

    def positions(self, given: Mapping[str, float] | None = None) -> dict[str, float]:
        """Position of every joint: the given ones, the followers', the others as the mesh shows.

        Raises:
            ValueError: for a joint that has no position of its own.
        """
        given = given or {}
        for name in given:
            checks.choice("joints", name, self.movable)
        own = {j.name: float(given.get(j.name, j.position)) for j in self.joints}
        for j in self.joints:
            if j.follows in given:
                own[j.name] = j.multiplier * own[j.follows] + j.offset
        return own

    def displacements(self, given: Mapping[str, float] | None = None) -> FloatArray:
        """Motion (P, 4, 4) of every part in the object frame, from where the mesh shows it.

        Args:
            given: positions by joint name, rad or m; the root stays where it is.
        """
        positions = self.positions(given)
        X = np.broadcast_to(pose(), (len(self.parts), 4, 4)).copy()
        for j in self.joints:
            X[j.child] = X[j.parent] @ j.displacement(positions[j.name])
        return X

    def part_of_vertex(self, faces: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Part (V,) of each of `count` vertices: that of most of its faces (F, 3).

        A vertex without a face belongs to the root.
        """
        votes = np.zeros((count, len(self.parts)), np.int64)
        np.add.at(votes, (faces, self.part[:, None]), 1)
        return np.where(votes.any(axis=1), votes.argmax(axis=1), self.root)

    def moved(self, given: Mapping[str, float]) -> Articulation:
        """The articulation of the mesh that shows the joints at other positions."""
        positions, X = self.positions(given), self.displacements(given)
        joints = tuple(
            replace(
                j,
                axis=X[j.parent][:3, :3] @ j.axis,
                point=transform(X[j.parent], j.point[None])[0],
                position=positions[j.name],
            )
            for j in self.joints
        )
        return replace(self, joints=joints)

    def in_frame(self, X_new_old: FloatArray) -> Articulation:
        """The articulation of the mesh whose vertices are expressed in another frame."""
        joints = tuple(
            replace(
                j, axis=X_new_old[:3, :3] @ j.axis, point=transform(X_new_old, j.point[None])[0]
            )
            for j in self.joints
        )
        return replace(self, joints=joints)


def relative(X_world_parent: FloatArray, X_world_child: FloatArray) -> FloatArray:
    """Motions (T, 4, 4) of a child since t = 0 as its parent, moved back to t = 0, sees them."""
    return inverse(X_world_parent) @ X_world_child
