"""Antipodal contact pairs on a mesh, found by casting rays through it.

Two contacts are antipodal if the line through them lies in both friction cones (Nguyen 1988). Rays
cast into the surface against its normal find such pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowplan.geometry import inverse, transform
from flowplan.grasp.surface import Surface, unit_vectors
from flowplan.scene import SceneObject
from flowplan.utils.checks import FloatArray

TORQUE_LENGTH = 0.04
"""Length that makes torques comparable with forces, meters; also the distance from the center of
mass at which a pair is drawn 1/e times as often."""

_HITS = 4
"""Surfaces that a ray passes, at most."""
_RAY_OFFSET = 1e-5
"""Distance of a ray's origin below the surface, meters."""
_MIN_WIDTH = 5e-4
"""Smallest distance between the contacts of a pair, meters."""
_SAME_SIDE = 0.3
"""Cosine between two normals from which they belong to the same side of a sheet."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """P antipodal contact pairs, world frame.

    Attributes:
        first, second: (P, 3) contact points, meters.
        first_normal, second_normal: (P, 3) unit, out of the object.
    """

    first: FloatArray
    second: FloatArray
    first_normal: FloatArray
    second_normal: FloatArray

    def __len__(self) -> int:
        return len(self.first)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Pairs:
        """A subset of the pairs."""
        return Pairs(
            self.first[index],
            self.second[index],
            self.first_normal[index],
            self.second_normal[index],
        )

    @property
    def width(self) -> FloatArray:
        """(P,) distance between the contacts, meters."""
        return np.linalg.norm(self.second - self.first, axis=1)


def antipodal_pairs(
    obj: SceneObject,
    cloud: Surface,
    rng: np.random.Generator,
    *,
    samples: int,
    friction: float,
    faces: NDArray[np.bool_] | None = None,
) -> Pairs:
    """Pairs of surface points whose connecting line lies in both friction cones, world frame.

    Half of the rays start straight against the normal and half anywhere in the friction cone. They
    pass through the object: each of the first four surfaces that a ray leaves through gives a pair,
    so that a mug is found by its wall as well as across its opening.

    Args:
        obj: Object whose mesh the rays are cast through.
        cloud: Points on its surface, world frame.
        rng: Random generator.
        samples: Number of rays.
        friction: Coulomb coefficient.
        faces: (F,) True for faces that may be touched. Defaults to all.
    """
    # Start points on the allowed faces; small parts start several rays at each point.
    start = np.flatnonzero(faces[cloud.face]) if faces is not None else np.arange(len(cloud))
    if not len(start):
        return Pairs(*np.zeros((4, 0, 3)))
    start = rng.permutation(start)[:samples]
    start = np.resize(start, samples)

    # Ray directions, drawn in the object frame so that they move with the object.
    normal = cloud.normals[start]
    R = obj.X_world_object[:3, :3]
    offset = _cone_offsets(normal @ R, friction, rng) @ R.T
    inward = unit_vectors(-normal + offset)

    ray, face, hit = _cast(obj, cloud.points[start] + _RAY_OFFSET * inward, inward)
    hit_normal = _normals_at(obj, cloud, face, hit)

    # Keep hits where the ray leaves the object within the friction cone.
    cos_cone = 1 / np.hypot(1, friction)
    width = np.linalg.norm(hit - cloud.points[start[ray]], axis=1)
    leaves = np.sum(hit_normal * inward[ray], axis=1) > cos_cone
    leaves &= (width > _MIN_WIDTH) & (faces[face] if faces is not None else True)
    ray, hit, hit_normal = ray[leaves], hit[leaves], hit_normal[leaves]
    return Pairs(cloud.points[start[ray]], hit, normal[ray], hit_normal)


def likely_pairs(
    pairs: Pairs,
    center: FloatArray | None,
    rng: np.random.Generator,
    *,
    count: int,
    friction: float,
) -> Pairs:
    """Up to `count` pairs, drawn with a preference for aligned ones near the center of mass (3,).

    With `center` None, all places are equally likely.
    """
    if len(pairs) <= count:
        return pairs
    # Sine of the larger angle between the connecting line and a normal.
    axis = (pairs.second - pairs.first) / pairs.width[:, None]
    sine = np.linalg.norm(np.cross(axis, pairs.first_normal), axis=1)
    sine = np.maximum(sine, np.linalg.norm(np.cross(axis, pairs.second_normal), axis=1))
    log_weight = -2 * sine / friction
    if center is not None:
        distance = np.linalg.norm(0.5 * (pairs.first + pairs.second) - center, axis=1)
        log_weight -= distance / TORQUE_LENGTH
    # Gumbel top-k: the largest of these are a weighted draw without replacement.
    gumbel = -np.log(-np.log(rng.random(len(pairs))))
    return pairs.select(np.argsort(-(log_weight + gumbel))[:count])


def tangents(n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors (..., 3) that complete n (..., 3) to a right-handed frame (t1, t2, n)."""
    helper = np.eye(3)[np.argmin(np.abs(n), axis=-1)]
    t1 = unit_vectors(np.cross(helper, n))
    return t1, np.cross(n, t1)


def _cone_offsets(normal: FloatArray, friction: float, rng: np.random.Generator) -> FloatArray:
    """Tangential offsets (S, 3) that keep -normal + offset inside the friction cone.

    Every other offset is zero.
    """
    radius = friction * np.sqrt(rng.random(len(normal)))
    radius[::2] = 0.0
    angle = 2 * np.pi * rng.random(len(normal))
    t1, t2 = tangents(normal)
    radius, angle = radius[:, None], angle[:, None]
    return radius * (np.cos(angle) * t1 + np.sin(angle) * t2)


def _cast(
    obj: SceneObject, origins: FloatArray, directions: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Ray index, face and point (world frame) of the first surfaces that each ray meets."""
    # In the object frame, so that the mesh keeps its search tree between calls.
    X_object_world = inverse(obj.X_world_object)
    face, ray, hit = obj.mesh.ray.intersects_id(
        transform(X_object_world, origins),
        directions @ X_object_world[:3, :3].T,
        multiple_hits=True,
        max_hits=_HITS,
        return_locations=True,
    )
    return ray, face, transform(obj.X_world_object, hit)


def _normals_at(
    obj: SceneObject, cloud: Surface, face: NDArray[np.int64], hit: FloatArray
) -> FloatArray:
    """Smoothed normals at ray hits: those of the nearest cloud point on the same side."""
    from scipy.spatial import cKDTree

    if not len(hit):
        return np.zeros((0, 3))
    raw = obj.mesh.face_normals[face] @ obj.X_world_object[:3, :3].T
    _, near = cKDTree(cloud.points).query(hit, k=min(3, len(cloud)))
    smooth = cloud.normals[near.reshape(len(hit), -1)]  # (n, 3, 3)
    # The first neighbor on the same side, else the face's own normal.
    alike = np.einsum("nkc,nc->nk", smooth, raw) > _SAME_SIDE
    first = smooth[np.arange(len(hit)), np.argmax(alike, axis=1)]
    return np.where(alike.any(1)[:, None], first, raw)
