"""Scenes for the scan tests: a table, objects on it, and an ideal camera around them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import trimesh

from flowplan.geometry import look_at
from flowplan.scan import DepthFrame, NoiseOptions, intrinsics_from_fov, noisy_depth, render_frame
from flowplan.scan.meshes.surface import raycasting_scene

K = intrinsics_from_fov(320, 240, np.radians(43))


def table() -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=[[-0.2, -0.7, -0.02], [1.2, 0.7, 0]])


def standing(
    mesh: trimesh.Trimesh, x: float = 0.5, y: float = 0.0, z: float = 0.0
) -> trimesh.Trimesh:
    """The mesh moved so that its lowest point is at height z above (x, y)."""
    out = mesh.copy()
    out.apply_translation([x, y, z - mesh.bounds[0, 2]])
    return out


def box() -> trimesh.Trimesh:
    return trimesh.creation.box([0.06, 0.08, 0.1])


def bowl() -> trimesh.Trimesh:
    angle = np.linspace(0, np.pi / 2, 30)
    outer = np.stack([0.07 * np.sin(angle), 0.07 - 0.07 * np.cos(angle)], axis=-1)
    inner = np.stack([0.066 * np.sin(angle), 0.07 - 0.066 * np.cos(angle)], axis=-1)
    return trimesh.creation.revolve(np.concatenate([outer, inner[::-1]]), sections=64)


def plate() -> trimesh.Trimesh:
    profile = [[0, 0], [0.06, 0], [0.1, 0.02], [0.1, 0.023], [0.058, 0.004], [0, 0.004]]
    return trimesh.creation.revolve(np.array(profile), sections=96)


def laptop() -> trimesh.Trimesh:
    base = trimesh.creation.box(bounds=[[-0.15, -0.1, 0], [0.15, 0.1, 0.015]])
    lid = trimesh.creation.box(bounds=[[-0.15, 0.096, 0], [0.15, 0.104, 0.2]])
    return trimesh.util.concatenate([base, lid])


def cloth() -> trimesh.Trimesh:
    return trimesh.creation.box([0.2, 0.2, 0.002])


def cameras(count: int = 6, distance: float = 0.85) -> list[np.ndarray]:
    """Poses on two circles, 35 and 60 degrees up."""
    out = []
    for i in range(count):
        turn, up = 2 * np.pi * i / count, np.radians((35, 60)[i % 2])
        eye = [
            distance * np.cos(turn) * np.cos(up) + 0.5,
            distance * np.sin(turn) * np.cos(up),
            distance * np.sin(up),
        ]
        out.append(look_at(eye, [0.5, 0, 0.04]))
    return out


def frames(
    objects: list[trimesh.Trimesh], *, noise: bool, masks: bool, count: int = 6, seed: int = 0
) -> list[DepthFrame]:
    """Depth frames of the objects on the table from all cameras."""
    rng = np.random.default_rng(seed)
    out = []
    for X_world_camera in cameras(count):
        frame = render_frame([*objects, table()], K, X_world_camera)
        depth = noisy_depth(frame.depth, rng, NoiseOptions()) if noise else frame.depth
        mask = np.where(frame.mask > len(objects), 0, frame.mask) if masks else None
        out.append(DepthFrame(depth, K, X_world_camera, mask=mask))
    return out


def distances(points: np.ndarray, mesh: trimesh.Trimesh) -> np.ndarray:
    """Distance (P,) of points to a mesh's surface."""
    return raycasting_scene(mesh).compute_distance(np.asarray(points, np.float32)).numpy()


def chamfer(a: trimesh.Trimesh, b: trimesh.Trimesh, count: int = 5000) -> float:
    """Mean distance between two surfaces, averaged over both directions, meters."""
    there = distances(trimesh.sample.sample_surface(a, count, seed=0)[0], b).mean()
    back = distances(trimesh.sample.sample_surface(b, count, seed=1)[0], a).mean()
    return float(0.5 * (there + back))


@contextlib.contextmanager
def refusals_in_one_line() -> Iterator[None]:
    """A block that may raise only ValueErrors of one line."""
    try:
        yield
    except ValueError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
