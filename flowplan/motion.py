"""How things move: the 4D animation a generator makes, and the dense object flow sampled from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import trimesh
from numpy.typing import NDArray

from flowplan.scene import Instruction, Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

Progress = Callable[[float, str], None]
"""Called with the fraction done in [0, 1] and a word on what is being done."""


MOTION_THRESHOLD = 2e-3
"""Meters: a point that never leaves its first position by more counts as static."""


def silent(fraction: float, message: str) -> None:
    """The progress callback of those who do not want one."""


@dataclass(frozen=True, eq=False)
class SceneMotion:
    """A 4D animation of a scene's objects.

    Attributes:
        times: (T,) seconds, times[0] = 0.
        vertices: one (T, V, 3) array per object of the scene, in its order, world frame, metres, over the scene's
            own faces.
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
        """Per object (V,): does this vertex ever leave its first position by more than `threshold` metres?"""
        return tuple(np.linalg.norm(v - v[0], axis=-1).max(0) > threshold for v in self.vertices)


class Generator(Protocol):
    """Turns a scene and an instruction into motions, several where it is stochastic, best first."""

    def __call__(
        self, scene: Scene, instruction: Instruction, *, seed: int = 0, progress: Progress = silent
    ) -> list[SceneMotion]: ...


@dataclass(frozen=True, eq=False)
class ObjectFlow:
    """Dense object flow: where every sampled material point goes.

    Attributes:
        times: (T,) seconds, times[0] = 0.
        points: (T, N, 3) world frame, metres; column n is one material point.
        confidence: (T, N) in [0, 1]: visibility times trust; 0 means "ignore".
        object_id: (N,) index of the object in the scene.
    """

    times: FloatArray
    points: FloatArray
    confidence: FloatArray
    object_id: NDArray[np.int64]

    def __post_init__(self) -> None:
        times = checks.times("ObjectFlow.times", self.times)
        points = checks.array("ObjectFlow.points", self.points, (len(times), "N", 3))
        confidence = checks.array("ObjectFlow.confidence", self.confidence, points.shape[:2])
        if confidence.min() < 0 or confidence.max() > 1:
            raise ValueError(
                f"ObjectFlow.confidence: expected values in [0, 1], got [{confidence.min():g}, {confidence.max():g}]; "
                "scale them"
            )
        object_id = checks.array(
            "ObjectFlow.object_id", self.object_id, (points.shape[1],), dtype=np.int64
        )
        for name, value in (
            ("times", times),
            ("points", points),
            ("confidence", confidence),
            ("object_id", object_id),
        ):
            object.__setattr__(self, name, value)

    def of_object(self, index: int) -> ObjectFlow:
        """The flow of one object alone."""
        keep = self.object_id == index
        if not keep.any():
            raise ValueError(
                f"object_id: no flow point belongs to object {index}; it has {np.unique(self.object_id)}"
            )
        return ObjectFlow(
            self.times, self.points[:, keep], self.confidence[:, keep], self.object_id[keep]
        )


def sample_flow(
    scene: Scene, motion: SceneMotion, *, points_per_object: int = 2000, seed: int = 0
) -> ObjectFlow:
    """Material points spread evenly over every object's surface, carried along by its animation.

    Points are fixed barycentric coordinates on faces drawn by area at t = 0, so a point keeps to its material whatever
    the deformation. Confidence is one: the animation is all there is to trust.

    Returns:
        ObjectFlow with N = points_per_object * len(scene.objects).

    Raises:
        ValueError: when `motion` does not fit the scene.
    """
    if len(motion.vertices) != len(scene.objects):
        raise ValueError(
            f"motion.vertices: expected {len(scene.objects)} arrays, one per scene object, got {len(motion.vertices)}"
        )
    rng = np.random.default_rng(seed)
    tracks, ids = [], []
    for index, (obj, vertices) in enumerate(zip(scene.objects, motion.vertices, strict=True)):
        if vertices.shape[1] != len(obj.mesh.vertices):
            raise ValueError(
                f"motion.vertices[{index}]: expected the {len(obj.mesh.vertices)} vertices of {obj.name!r}, "
                f"got {vertices.shape[1]}"
            )
        face, barycentric = _sample_surface(obj.mesh, points_per_object, rng)
        corners = obj.mesh.faces[face]  # (P, 3)
        tracks.append(np.einsum("pk,tpkc->tpc", barycentric, vertices[:, corners]))
        ids.append(np.full(points_per_object, index))
    points = np.concatenate(tracks, axis=1)
    return ObjectFlow(motion.times, points, np.ones(points.shape[:2]), np.concatenate(ids))


def _sample_surface(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], FloatArray]:
    area = mesh.area_faces
    face = rng.choice(len(area), size=count, p=area / area.sum())
    u, v = rng.random((2, count))
    root = np.sqrt(u)  # uniform on a triangle: Turk, Graphics Gems 1990
    return face, np.stack([1 - root, root * (1 - v), root * v], axis=-1)
