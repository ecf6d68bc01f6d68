"""Scenes of few boxes whose motion is known: a hinge, a drawer, and a cup that is put on a
coaster."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from flowplan.geometry import rotation_about, transform
from flowplan.motion import SceneMotion
from flowplan.scene import Scene, SceneObject
from flowplan.utils.checks import FloatArray
from generators.kinematic import minimum_jerk

Example = tuple[Scene, SceneMotion, tuple[NDArray[np.bool_], ...]]
"""A scene, its true motion, and per object which vertices it moves."""


def hinge(degrees: float = 80.0, frames: int = 16) -> Example:
    """A laptop of two slabs, whose screen closes."""
    base, screen = _box((0.3, 0.22, 0.02), (0.5, 0, 0.01)), _box((0.02, 0.22, 0.2), (0.64, 0, 0.12))
    mesh = trimesh.util.concatenate([base, screen])
    moves = np.arange(len(mesh.vertices)) >= len(base.vertices)
    X = rotation_about([0.64, 0, 0.02], [0, -1, 0], np.radians(degrees) * _ease(frames))
    vertices = np.where(moves[:, None], transform(X, mesh.vertices), mesh.vertices)
    return Scene((SceneObject("laptop", mesh),)), _motion(vertices), (moves,)


def slide(way: float = 0.18, frames: int = 16) -> Example:
    """A cabinet of five boards, whose drawer opens."""
    walls = [((0.3, 0.25, 0.01), (0.5, 0, z)) for z in (0.005, 0.145)]
    walls += [((0.3, 0.01, 0.15), (0.5, y, 0.075)) for y in (-0.12, 0.12)] + [
        ((0.01, 0.25, 0.15), (0.645, 0, 0.075))
    ]
    shell = trimesh.util.concatenate([_box(*wall) for wall in walls])
    mesh = trimesh.util.concatenate([shell, _box((0.28, 0.21, 0.1), (0.48, 0, 0.07))])
    moves = np.arange(len(mesh.vertices)) >= len(shell.vertices)
    shift = _ease(frames)[:, None, None] * [-way, 0.0, 0.0]
    return (
        Scene((SceneObject("drawer", mesh),)),
        _motion(mesh.vertices + moves[:, None] * shift),
        (moves,),
    )


def pick_and_place(frames: int = 16) -> Example:
    """A cup that is lifted, turned by a third of a half turn, and put on a coaster, which stays."""
    cup = trimesh.creation.cylinder(0.035, 0.09, sections=24).subdivide()
    cup.apply_translation([0.4, -0.15, 0.045])
    coaster = _box((0.14, 0.14, 0.03), (0.55, 0.15, 0.015))
    s = np.linspace(0, 1, frames)
    over, up = minimum_jerk((s - 0.2) / 0.6), minimum_jerk(s / 0.4) - minimum_jerk((s - 0.6) / 0.4)
    goal = np.array([0.55, 0.15, 0.075]) - cup.vertices.mean(0)
    turned = transform(
        rotation_about(cup.vertices.mean(0), [0, 0, 1], np.radians(60) * over), cup.vertices
    )
    vertices = turned + over[:, None, None] * goal + up[:, None, None] * [0, 0, 0.15]
    stays = np.broadcast_to(coaster.vertices, (frames, *coaster.vertices.shape))
    scene = Scene((SceneObject("cup", cup), SceneObject("coaster", coaster)))
    return (
        scene,
        _motion(vertices, stays),
        (np.ones(len(cup.vertices), bool), np.zeros(len(coaster.vertices), bool)),
    )


def end_point_error(found: SceneMotion, example: Example) -> float:
    """Of the vertices that should move, over how far they should; of the mean."""
    _, true, moves = example
    errors, ways = [], []
    for f, t, of in zip(found.vertices, true.vertices, moves, strict=True):
        errors.append(np.linalg.norm(f[-1] - t[-1], axis=-1)[of])
        ways.append(np.linalg.norm(t[-1] - t[0], axis=-1)[of])
    return float(np.concatenate(errors).mean() / np.concatenate(ways).mean())


def strays(found: SceneMotion, example: Example) -> float:
    """How far at the end those have gone that should not, over how far the others should; of the
    mean."""
    _, true, moves = example
    errors = [
        np.linalg.norm(f[-1] - f[0], axis=-1)[~of]
        for f, of in zip(found.vertices, moves, strict=True)
    ]
    ways = [
        np.linalg.norm(t[-1] - t[0], axis=-1)[of]
        for t, of in zip(true.vertices, moves, strict=True)
    ]
    return float(np.concatenate(errors).mean() / np.concatenate(ways).mean())


def _box(extents: ArrayLike, center: ArrayLike) -> trimesh.Trimesh:
    mesh = trimesh.creation.box(extents=extents)
    mesh.apply_translation(center)
    return mesh.subdivide().subdivide()


def _ease(frames: int) -> FloatArray:
    return minimum_jerk(np.linspace(0, 1, frames))


def _motion(*vertices: FloatArray) -> SceneMotion:
    return SceneMotion(np.linspace(0.0, 2.0, len(vertices[0])), vertices)
