"""Putting pieces together: everything is drawn where it is at rest, in one frame; link frames
follow from the joints."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from flowplan.geometry import pose
from flowplan.robot.urdf import Joint
from flowplan.utils.checks import FloatArray
from generators.data.objects.articulated import ArticulatedObject, Mimic
from generators.data.objects.primitives import direction, merge, moved
from generators.data.objects.remeshing import remesh


class Assembly:
    """Collects pieces and joints, all in the object frame (meters, z up) with every joint at 0, and
    builds the object.

    The front of a thing that has one looks along -y. A link's frame has the object's axes and lies
    at its joint.
    """

    def __init__(self, name: str, rng: np.random.Generator, root: str = "base") -> None:
        self._name, self._rng, self._root = name, rng, root
        self._pieces: dict[str, list[trimesh.Trimesh]] = {root: []}
        self._joints: list[
            tuple[str, str, str, str, FloatArray | None, FloatArray, float, float]
        ] = []
        self._mimic: dict[str, Mimic] = {}

    def add(self, link: str, *pieces: trimesh.Trimesh) -> None:
        """Give a link more pieces, object frame; the link need not have its joint yet."""
        self._pieces.setdefault(link, []).extend(pieces)

    def hinge(
        self,
        parent: str,
        child: str,
        at: ArrayLike,
        axis: str | ArrayLike,
        lower: float,
        upper: float,
        name: str = "",
    ) -> str:
        """A revolute joint through `at` (3,) about `axis`, limits in rad; returns its name,
        "<child>_joint" or `name`."""
        return self._join(
            "revolute", parent, child, np.asarray(at, float), axis, lower, upper, name
        )

    def slide(
        self,
        parent: str,
        child: str,
        axis: str | ArrayLike,
        lower: float,
        upper: float,
        name: str = "",
    ) -> str:
        """A prismatic joint along `axis`, limits in meters; the child's frame lies in the middle
        of its box."""
        return self._join("prismatic", parent, child, None, axis, lower, upper, name)

    def fix(self, parent: str, child: str) -> str:
        """A fixed joint, for a part that is a link of its own; its frame lies in the middle of
        its box."""
        return self._join("fixed", parent, child, None, "z", 0.0, 0.0, "")

    def follow(self, joint: str, leader: str, multiplier: float = 1.0, offset: float = 0.0) -> None:
        """Make `joint` follow `leader`: position = multiplier * leader's + offset."""
        self._mimic[joint] = Mimic(leader, multiplier, offset)

    def _join(
        self,
        kind: str,
        parent: str,
        child: str,
        at: FloatArray | None,
        axis: str | ArrayLike,
        lower: float,
        upper: float,
        name: str,
    ) -> str:
        name = name or f"{child}_joint"
        self._pieces.setdefault(child, [])
        self._joints.append(
            (name, kind, parent, child, at, direction(axis), float(lower), float(upper))
        )
        return name

    def build(self, *, standing: bool = True) -> ArticulatedObject:
        """The object, each link meshed at random; `standing` puts the middle of its underside at
        the origin.

        Joints must have been made parents first. Without `standing` the object stays where it was
        drawn.
        """
        # one mesh a link
        empty = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), process=False)
        meshes = {
            link: merge(*pieces) if pieces else empty for link, pieces in self._pieces.items()
        }
        # origin of the object
        origin = np.zeros(3)
        if standing:
            points = np.concatenate([m.vertices for m in meshes.values()])
            low, high = points.min(0), points.max(0)
            origin = np.array([*(low + high)[:2] / 2, low[2]])
        # link frames, parents first: at the joint, or in the middle of the link's box
        frames = {self._root: origin}
        joints = []
        for name, kind, parent, child, at, axis, lower, upper in self._joints:
            frames[child] = meshes[child].bounds.mean(0) if at is None else at
            X_parent_joint = pose(None, frames[child] - frames[parent])
            joints.append(Joint(name, kind, parent, child, X_parent_joint, axis, lower, upper))
        # meshes in their link frames
        order = [self._root, *(j.child for j in joints)]
        links = {link: moved(remesh(meshes[link], self._rng), -frames[link]) for link in order}
        return ArticulatedObject(self._name, links, tuple(joints), self._mimic)
