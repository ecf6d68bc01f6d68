"""Object motion: the 4D animation that a generator makes, and the dense flow sampled from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from flowplan.scene import Instruction, Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    import trimesh

Progress = Callable[[float, str], None]
"""Callback with the completed fraction in [0, 1] and a word on the current step."""
MOTION_THRESHOLD = 2e-3
"""Meters; a point that never leaves its first position by more counts as static."""


def silent(fraction: float, message: str) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True, eq=False)
class SceneMotion:
    """4D animation of a scene's objects.

    Attributes:
        times: (T,) seconds, times[0] = 0.
        vertices: One (T, V, 3) array per object of the scene, in its order, for the scene's own
            faces; world frame, meters.
    """

    times: FloatArray
    vertices: tuple[FloatArray, ...]

    def __post_init__(self) -> None:
        times = checks.times("SceneMotion.times", self.times)
        object.__setattr__(self, "times", times)
        vertices = tuple(
            checks.array(f"SceneMotion.vertices[{i}]", v, (len(times), "V", 3))
            for i, v in enumerate(self.vertices)
        )
        if not vertices:
            raise ValueError("SceneMotion.vertices: expected one array per object, got none")
        object.__setattr__(self, "vertices", vertices)

    def moving(self, threshold: float = MOTION_THRESHOLD) -> tuple[NDArray[np.bool_], ...]:
        """Mask (V,) per object of the vertices that ever leave their first position.

        Args:
            threshold: Meters by which they leave it at least.
        """
        distances = (np.linalg.norm(v - v[0], axis=-1) for v in self.vertices)  # (T, V)
        return tuple(distance.max(0) > threshold for distance in distances)


class Generator(Protocol):
    """Maps a scene and an instruction to motions: several if it is stochastic, the best first."""

    def __call__(
        self, scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]: ...


@dataclass(frozen=True, eq=False)
class ObjectFlow:
    """Dense object flow: tracks of sampled material points.

    Attributes:
        times: (T,) seconds, times[0] = 0.
        points: (T, N, 3) world frame, meters; column n is one material point. Trackers write NaN
            for a hidden point: if its confidence is 0, the record holds its last known position.
        confidence: (T, N) in [0, 1], visibility times trust; 0 excludes the point.
        object_id: (N,) index of the object in the scene.
    """

    times: FloatArray
    points: FloatArray
    confidence: FloatArray
    object_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        times = checks.times("ObjectFlow.times", self.times)
        points = checks.array("ObjectFlow.points", self.points, (len(times), "N", 3), finite=False)
        T, N, _ = points.shape
        confidence = checks.array("ObjectFlow.confidence", self.confidence, (T, N))
        points = _known_points(points, confidence)
        low, high = confidence.min(), confidence.max()
        if low < 0 or high > 1:
            raise ValueError(
                f"ObjectFlow.confidence: expected values in [0, 1], got [{low:g}, {high:g}]; "
                "scale them"
            )
        object_id = checks.array("ObjectFlow.object_id", self.object_id, (N,), dtype=np.int64)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "confidence", confidence)
        object.__setattr__(self, "object_id", object_id)

    def of_object(self, index: int) -> ObjectFlow:
        """Flow of one object alone.

        Raises:
            ValueError: If the object has no points.
        """
        keep = self.object_id == index
        if not keep.any():
            raise ValueError(
                f"object_id: no flow point belongs to object {index}; "
                f"it has {np.unique(self.object_id)}"
            )
        return ObjectFlow(
            self.times, self.points[:, keep], self.confidence[:, keep], self.object_id[keep]
        )


def _known_points(points: FloatArray, confidence: FloatArray) -> FloatArray:
    """Points (T, N, 3) with those of no confidence (T, N) that are not finite replaced.

    Each takes its last known position, or the first one if it is not yet known; points that are
    never known lie at the center of the others.

    Raises:
        ValueError: if a point of some confidence is not finite.
    """
    unknown = ~np.isfinite(points).all(-1)
    if not unknown.any():
        return points
    seen = unknown & (confidence > 0)
    if seen.any():
        bad = np.argwhere(~np.isfinite(points) & seen[..., None])  # rows of frame, point, axis
        first = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"ObjectFlow.points: {len(bad)} of {points.size} values are not finite although the "
            f"confidence of their points is above 0 (first at {first}); "
            "remove these points or set their confidence to 0"
        )
    if unknown.all():
        raise ValueError("ObjectFlow.points: none is finite; give at least one known point")
    T, N = unknown.shape
    # Frame of the last known position, -1 before the first; then the first known one.
    last = np.maximum.accumulate(np.where(unknown, -1, np.arange(T)[:, None]))
    frame = np.where(last < 0, np.argmax(~unknown, axis=0), last)  # (T, N)
    out = points[frame, np.arange(N)]
    out[:, unknown.all(0)] = points[~unknown].mean(0)
    out.setflags(write=False)
    return out


def check_fits(scene: Scene, motion: SceneMotion) -> None:
    """Refuse a motion of other objects or meshes than a scene's.

    Raises:
        ValueError: In one line with the field, the number that came and the expected one.
    """
    if len(motion.vertices) != len(scene.objects):
        raise ValueError(
            f"motion.vertices: expected {len(scene.objects)} arrays, one per scene object, "
            f"got {len(motion.vertices)}"
        )
    for index, (obj, vertices) in enumerate(zip(scene.objects, motion.vertices, strict=True)):
        if vertices.shape[1] != len(obj.mesh.vertices):
            raise ValueError(
                f"motion.vertices[{index}]: expected the {len(obj.mesh.vertices)} vertices of "
                f"{obj.name!r}, got {vertices.shape[1]}"
            )


def sample_flow(
    scene: Scene, motion: SceneMotion, *, points_per_object: int = 2000, seed: int = 0
) -> ObjectFlow:
    """Material points sampled evenly over every object's surface, carried by its animation.

    Points have fixed barycentric coordinates on faces drawn by area at t = 0, so a point follows
    its material through any deformation. Their confidence is one.

    Args:
        scene: Objects with their meshes.
        motion: Animation of the scene.
        points_per_object: Number of points on each object.
        seed: Random seed.

    Returns:
        ObjectFlow with N = points_per_object * len(scene.objects).

    Raises:
        ValueError: If `motion` does not fit the scene.
    """
    check_fits(scene, motion)
    rng = np.random.default_rng(seed)
    tracks, ids = [], []
    for index, (obj, vertices) in enumerate(zip(scene.objects, motion.vertices, strict=True)):
        face, barycentric = _sample_surface(obj.mesh, points_per_object, rng)
        corners = vertices[:, obj.mesh.faces[face]]  # (T, P, 3 corners, 3)
        tracks.append(np.einsum("pk,tpkc->tpc", barycentric, corners))
        ids.append(np.full(points_per_object, index))
    points = np.concatenate(tracks, axis=1)
    return ObjectFlow(motion.times, points, np.ones(points.shape[:2]), np.concatenate(ids))


def _sample_surface(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], FloatArray]:
    """Faces (count,) drawn by area, and barycentric coordinates (count, 3) uniform on them."""
    area = mesh.area_faces
    face = rng.choice(len(area), size=count, p=area / area.sum())
    u, v = rng.random((2, count))
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    return face, np.stack([1 - root, root * (1 - v), root * v], axis=-1)
