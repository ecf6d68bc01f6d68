"""Clips of plants that sway, animated by bending their stems (NeuROK, appendix D.3).

No simulation: as the paper bends stems with keyframed parameters, a stem here is a chain of
cross-sections whose curvature is given. Over a segment of length h with curvature k (rad/m, about
the section's own x and y) the section frame moves along an exact arc,

    X_{i+1} = X_i exp(h (e_z, k_i)),

so nothing stretches. A bend adds the same curvature everywhere on a stem, as a Simple Deform
modifier does; its two components run through random keyframes that swing to and fro and die away.
Branches sway on top of what carries them. Leaves, flower heads and fruit follow their section
rigidly; the pot stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from flowplan.geometry import exp_se3, exp_so3, pose
from flowplan.utils.checks import FloatArray
from generators.data.clips.clip import Clip
from generators.data.objects.primitives import cup, cylinder, lathe, sphere

SEGMENTS = 14
"""Segments of a stem."""


@dataclass
class _Plant:
    """A plant while it grows: section frames of all stems in a row, and pieces that are each bound
    to sections.

    Section 0 is the ground and never moves.
    """

    frames: FloatArray  # (F, N, 4, 4) X_world_section
    vertices: list[FloatArray] = field(default_factory=list)  # (v, 3) in their sections' frames
    sections: list[NDArray[np.int64]] = field(default_factory=list)  # (v,)
    faces: list[NDArray[np.int64]] = field(default_factory=list)

    def add(
        self, vertices: FloatArray, faces: NDArray[np.int64], sections: NDArray[np.int64] | int
    ) -> None:
        self.faces.append(faces + sum(map(len, self.vertices)))
        self.vertices.append(vertices)
        self.sections.append(np.broadcast_to(sections, len(vertices)))

    def animated(self) -> FloatArray:
        """(F, V, 3)."""
        X = self.frames[:, np.concatenate(self.sections)]
        return (
            np.einsum("fvij,vj->fvi", X[..., :3, :3], np.concatenate(self.vertices)) + X[..., :3, 3]
        )


def plant_clip(seed: int, *, frames: int = 40) -> Clip:
    """A plant of random form that sways, z up, meters, the same for the same seed.

    Raises:
        ValueError: for less than two frames.
    """
    if frames < 2:
        raise ValueError(f"frames: expected at least 2, got {frames}")
    rng = np.random.default_rng([2, seed])
    plant = _Plant(np.broadcast_to(np.eye(4), (frames, 1, 4, 4)))
    height = rng.uniform(0.15, 0.9)
    soil = _pot(plant, rng, height) if rng.random() < 0.5 else 0.0
    stems = int(rng.integers(1, 5))
    wind = rng.uniform(0, 2 * np.pi)
    for _ in range(stems):
        lean = exp_so3(rng.normal(size=3) * [0.2, 0.2, 0]) @ exp_so3(
            [0, 0, rng.uniform(0, 2 * np.pi)]
        )
        spread = rng.normal(size=2) * 0.02 * height * (stems > 1)
        X_root = pose(lean, [*spread, soil - 0.01 * height])
        _grow(
            plant,
            rng,
            0,
            X_root,
            height * rng.uniform(0.7, 1.0),
            wind,
            branches=int(rng.integers(0, 3)),
        )
    return Clip(f"plant/{seed}", plant.animated(), np.concatenate(plant.faces))


def sections(X_world_root: FloatArray, curvature: FloatArray, length: float) -> FloatArray:
    """X_world_section (F, S + 1, 4, 4) along a stem of `length` (m), its first X_world_root (F, 4,
    4).

    Args:
        curvature: (F, S, 3) rad/m in each section's own frame, whose z runs along the stem; z
            components twist.
    """
    step = length / curvature.shape[1]
    along = np.broadcast_to([0.0, 0.0, 1.0], curvature.shape)
    X_section_next = exp_se3(step * np.concatenate([along, curvature], axis=-1))
    chain = [X_world_root]
    for i in range(curvature.shape[1]):
        chain.append(chain[-1] @ X_section_next[:, i])
    return np.stack(chain, 1)


def _grow(
    plant: _Plant,
    rng: np.random.Generator,
    parent: int,
    X_parent_root: FloatArray,
    length: float,
    wind: float,
    *,
    branches: int,
) -> None:
    """One stem with what hangs on it, from section `parent`."""
    frames = len(plant.frames)
    bend = _sway(rng, frames, wind - _heading(plant.frames[0, parent] @ X_parent_root))
    shape = rng.normal(size=(SEGMENTS, 3)) * [0.8, 0.8, 0.0] * 0.15 + rng.normal(size=3) * [
        0.25,
        0.25,
        0.0,
    ]
    curvature = (shape + bend[:, None]) / length
    first = plant.frames.shape[1]
    stem = sections(plant.frames[:, parent] @ X_parent_root, curvature, length)
    plant.frames = np.concatenate([plant.frames, stem], axis=1)
    _stalk(plant, rng, first, length)
    for at in rng.integers(SEGMENTS // 4, SEGMENTS, branches):
        X_section_root = pose(_aside(rng, rng.uniform(0.4, 1.0)))
        size = length * rng.uniform(0.3, 0.6)
        _grow(plant, rng, first + int(at), X_section_root, size, wind, branches=0)
    size = length * rng.uniform(0.15, 0.4)
    for at in np.sort(rng.integers(1, SEGMENTS + 1, rng.integers(2, 8))):
        vertices, faces = _leaf(rng, size * rng.uniform(0.7, 1.2))
        plant.add(vertices @ _aside(rng, rng.uniform(0.5, 1.4)).T, faces, first + int(at))
    if rng.random() < 0.6:
        _flower(plant, rng, first + SEGMENTS, length * rng.uniform(0.06, 0.15))


def _sway(rng: np.random.Generator, frames: int, wind: float) -> FloatArray:
    """(F, 3) bend of a whole stem (rad) about its first section's x, y: mostly toward `wind`,
    to and fro."""
    keys = int(rng.integers(4, 8))
    fade = np.exp(-rng.uniform(0, 2) * np.linspace(0, 1, keys))
    swing = (
        rng.choice([-1, 1])
        * rng.uniform(0.25, 1.1)
        * (-1.0) ** np.arange(keys)
        * fade
        * rng.uniform(0.6, 1, keys)
    )
    aside = 0.25 * swing * rng.normal(size=keys)
    swing[0] = aside[0] = 0.0
    spline = CubicSpline(np.linspace(0, 1, keys), np.stack([swing, aside], 1), bc_type="clamped")
    forward, across = spline(np.linspace(0, 1, frames)).T
    # To bend toward the heading a is to turn about the horizontal axis at a + 90 degrees.
    c, s = np.cos(wind), np.sin(wind)
    return np.stack([-s * forward + c * across, c * forward + s * across, np.zeros(frames)], 1)


def _heading(X_world_section: FloatArray) -> float:
    """Heading (rad) of a section's x axis, seen from above."""
    return float(np.arctan2(X_world_section[1, 0], X_world_section[0, 0]))


def _aside(rng: np.random.Generator, tilt: float) -> FloatArray:
    """(3, 3) a turn that leans z by `tilt` (rad) to a random side."""
    return exp_so3([0, 0, rng.uniform(0, 2 * np.pi)]) @ exp_so3([0, tilt, 0])


def _stalk(plant: _Plant, rng: np.random.Generator, first: int, length: float) -> None:
    """A tapering tube, one ring a section."""
    radius = (
        length * rng.uniform(0.008, 0.02) * np.linspace(1.0, rng.uniform(0.3, 0.9), SEGMENTS + 1)
    )
    height = np.arange(SEGMENTS + 1.0)
    profile = [(0.0, 0.0), *zip(radius, height, strict=True), (0.0, height[-1])]
    straight = lathe(profile, int(rng.integers(5, 9)))
    section = straight.vertices[:, 2].round().astype(int)
    plant.add(straight.vertices * [1, 1, 0], straight.faces, first + section)


def _leaf(rng: np.random.Generator, length: float) -> tuple[FloatArray, NDArray[np.int64]]:
    """A blade from the origin along z, creased at its midrib, curling over: one surface, (v, 3)
    and (f, 3)."""
    rows = int(rng.integers(5, 10))
    s = np.linspace(0, 1, rows)
    width = (
        length * rng.uniform(0.1, 0.3) * np.sin(np.pi * s ** rng.uniform(0.6, 1.2)) + 0.01 * length
    )
    curl, crease = rng.uniform(0.0, 1.2), rng.uniform(0.0, 0.4)
    turn = curl * s
    bent = np.cumsum(
        np.stack([np.sin(turn), np.zeros(rows), np.cos(turn)], 1) * length / (rows - 1), axis=0
    )
    bent -= bent[0]
    up = np.stack([-np.cos(turn), np.zeros(rows), np.sin(turn)], 1)
    across = width[:, None] * np.array([0.0, 1.0, 0.0])
    lift = crease * width[:, None] * up
    vertices = np.stack([bent - across + lift, bent, bent + across + lift], 1).reshape(-1, 3)
    k = 3 * np.repeat(np.arange(rows - 1), 2) + np.tile([0, 1], rows - 1)
    return vertices, np.concatenate(
        [np.stack([k, k + 1, k + 4], 1), np.stack([k, k + 4, k + 3], 1)]
    )


def _flower(plant: _Plant, rng: np.random.Generator, section: int, radius: float) -> None:
    """A round middle with petals about it; without them it is a bud or a fruit."""
    middle = sphere(radius * rng.uniform([0.3, 0.3, 0.2], [0.5, 0.5, 0.6]), sections=8)
    plant.add(middle.vertices, middle.faces, section)
    petals, tilt = int(rng.integers(4, 9)), rng.uniform(0.6, 1.5)
    if rng.random() < 0.75:
        vertices, faces = _leaf(rng, radius)
        for k in range(petals):
            turn = exp_so3([0, 0, 2 * np.pi * k / petals]) @ exp_so3([0, tilt, 0])
            plant.add(vertices @ turn.T, faces, section)


def _pot(plant: _Plant, rng: np.random.Generator, height: float) -> float:
    """A turned pot with soil in it; returns how high (m) the soil is."""
    foot, tall = height * rng.uniform(0.1, 0.16), height * rng.uniform(0.15, 0.35)
    rim = foot * rng.uniform(1.05, 1.5)
    soil = tall * rng.uniform(0.7, 0.9)
    wall = 0.1 * foot
    body = cup([(foot, 0.0), (rim, tall)], wall, 16)
    filling = cylinder(0.9 * foot, soil - wall, center=[0, 0, (soil + wall) / 2], sections=16)
    for mesh in (body, filling):
        plant.add(mesh.vertices, mesh.faces, 0)
    return soil
