"""An articulated object: links with meshes, joints between them, and where everything is for given
joint positions.

The object frame is that of the root link: z up, meters. The same record comes from the procedural
families, from a PartNet-Mobility folder and from any URDF whose meshes are wanted as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import pose, skew
from flowplan.robot.urdf import KINDS, Joint, Mimic
from flowplan.utils.checks import FloatArray


@dataclass(frozen=True, eq=False)
class ArticulatedObject:
    """Links with meshes and the joints between them.

    Attributes:
        name: the family, or the model's identifier.
        links: mesh of each link, link frame, meters; the root first. A link may have no face.
        joints: parents before children; limits are finite for what moves, a whole turn being [-pi,
            pi].
        mimic: by joint name, what a joint that has no position of its own follows.
    """

    name: str
    links: dict[str, trimesh.Trimesh]
    joints: tuple[Joint, ...]
    mimic: Mapping[str, Mimic] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "joints", tuple(self.joints))
        where = f"ArticulatedObject[{self.name}]"
        placed = {next(iter(self.links), "")}
        for j in self.joints:
            if j.kind not in KINDS:
                raise ValueError(
                    f"{where}.joints: {j.name}: kind {j.kind!r}, expected one of {', '.join(KINDS)}"
                )
            if j.parent not in placed or j.child not in self.links or j.child in placed:
                raise ValueError(
                    f"{where}.joints: {j.name} from {j.parent!r} to {j.child!r}: expected a "
                    "tree over the links "
                    f"{', '.join(self.links)}, the root first and parents before children"
                )
            if j.kind != "fixed" and not -np.inf < j.lower <= j.upper < np.inf:
                raise ValueError(
                    f"{where}.joints: {j.name}: limits [{j.lower}, {j.upper}], expected "
                    "finite, in order"
                )
            placed.add(j.child)
        lost = sorted(set(self.links) - placed)
        if lost or not self.links:
            raise ValueError(
                f"{where}.links: {', '.join(lost) or 'none given'}: expected a joint to every link "
                "but one"
            )
        free = {j.name for j in self.joints if j.kind != "fixed" and j.name not in self.mimic}
        for name, m in self.mimic.items():
            if m.joint not in free:
                raise ValueError(
                    f"{where}.mimic: {name} follows {m.joint!r}, expected one of "
                    f"{', '.join(sorted(free))}"
                )

    @cached_property
    def free(self) -> tuple[Joint, ...]:
        """The D joints with a position of their own, in the order of a configuration."""
        return tuple(j for j in self.joints if j.kind != "fixed" and j.name not in self.mimic)

    @property
    def lower(self) -> FloatArray:
        """(D,) limits of the free joints, rad or m."""
        return np.array([j.lower for j in self.free])

    @property
    def upper(self) -> FloatArray:
        """(D,) limits of the free joints, rad or m."""
        return np.array([j.upper for j in self.free])

    def sample(self, rng: np.random.Generator, count: int) -> FloatArray:
        """(count, D) configurations, uniform within the limits."""
        return rng.uniform(self.lower, self.upper, (count, len(self.free)))

    def joint_positions(self, q: ArrayLike) -> FloatArray:
        """(B, J) positions of all joints, fixed ones 0, from (B, D) of the free ones."""
        q = np.asarray(q, float)
        if q.ndim != 2 or q.shape[1] != len(self.free):
            raise ValueError(
                f"q: expected (B, {len(self.free)}) positions of {self.name}'s free joints, "
                f"got {q.shape}"
            )
        own = {j.name: q[:, i] for i, j in enumerate(self.free)}
        positions = np.zeros((len(q), len(self.joints)))
        for i, j in enumerate(self.joints):
            if j.name in self.mimic:
                m = self.mimic[j.name]
                positions[:, i] = m.multiplier * own[m.joint] + m.offset
            elif j.name in own:
                positions[:, i] = own[j.name]
        return positions

    def link_poses(self, q: ArrayLike) -> FloatArray:
        """X_object_link (B, L, 4, 4), in the order of `links`, for configurations q (B, D)."""
        positions = self.joint_positions(q)
        index = {name: i for i, name in enumerate(self.links)}
        X = np.broadcast_to(np.eye(4), (len(positions), len(index), 4, 4)).copy()
        for i, j in enumerate(self.joints):
            x = positions[:, i, None, None]
            if j.kind == "revolute":
                S = skew(j.axis)
                move = pose(np.eye(3) + np.sin(x) * S + (1 - np.cos(x)) * S @ S)  # Rodrigues
            else:
                move = pose(None, positions[:, i, None] * j.axis)  # fixed: position 0
            X[:, index[j.child]] = X[:, index[j.parent]] @ j.X_parent_joint @ move
        return X

    def posed(self, q: ArrayLike) -> trimesh.Trimesh:
        """One mesh of the whole object at q (D,), object frame; vertices and faces in the order
        of `links`."""
        X = self.link_poses(np.atleast_2d(np.asarray(q, float)))[0]
        vertices, faces, count = [], [], 0
        for mesh, X_link in zip(self.links.values(), X, strict=True):
            vertices.append(mesh.vertices @ X_link[:3, :3].T + X_link[:3, 3])
            faces.append(mesh.faces + count)
            count += len(mesh.vertices)
        return trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)

    @property
    def link_of_face(self) -> NDArray[np.int64]:
        """(F,) index into `links` for every face of `posed`."""
        return np.repeat(np.arange(len(self.links)), [len(m.faces) for m in self.links.values()])
