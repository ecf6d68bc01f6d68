"""Random scenes with an object to move, as arrays that any version of the planner can read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from experiments.certify.oracle.recording import Floats, Part

FRAMES = 41
"""Frames of each motion."""
KINDS = ("grasp", "push", "carry")
"""Lift, turn or pull; slide along the support; pick and place over or around what is there."""
TIMINGS = ("flow", "fast")
ROBOTS = ("panda", "ur5e")
_CLEAR = 0.015
"""Meters between obstacles and an object that they must not obstruct."""
_HAZARD = 0.3
"""Share of obstacles that may stand in the object's way."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One scene and motion.

    Attributes:
        seed, index: They determine the problem.
        robot: Name of the robot.
        kind: One of KINDS.
        contact: "grasp" or "push", the kind of contact to look for.
        timing: One of TIMINGS.
        X_world_base: (4, 4).
        start: (J,) offsets of the first configuration from the robot's home, radians.
        parts: Bodies with their motions; the target's parts make one object.
        times: (FRAMES,) seconds.
    """

    seed: int
    index: int
    robot: str
    kind: str
    contact: str
    timing: str
    X_world_base: Floats
    start: Floats
    parts: tuple[Part, ...]
    times: Floats


def random_problem(seed: int, index: int, robot: str) -> Problem:
    """Problem `index` of a seed; kinds and timings take turns."""
    rng = np.random.default_rng([seed, index])
    kind, timing = KINDS[index % 3], TIMINGS[(index // 3) % 2]
    base = np.eye(4)
    base[:3, :3] = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)).as_matrix()
    base[:2, 3] = rng.uniform(-0.3, 0.3, 2)
    pulled = kind == "grasp" and rng.random() < 0.35
    target = _drawer(rng) if pulled else _free_target(kind, rng)
    others = [_mover(rng)] if rng.random() < 0.25 else []
    parts = [*target, *others]
    parts += _obstacles(parts, rng, hazard=rng.random() < _HAZARD)
    placed = tuple(_placed(part, base) for part in parts)
    joints = 7 if robot == "panda" else 6
    away = 0.5 if rng.random() < 0.3 else 0.0
    return Problem(
        seed,
        index,
        robot,
        kind,
        "push" if kind == "push" else "grasp",
        timing,
        base,
        rng.uniform(-away, away, joints),
        placed,
        np.linspace(0, rng.uniform(1.5, 4.0), FRAMES),
    )


# What is moved. Everything below is in the frame of the robot's base, which stands on the support.


def _free_target(kind: str, rng: np.random.Generator) -> list[Part]:
    """An object that is lifted, pushed, or carried to another place."""
    mesh = _shape(kind, rng)
    mesh.apply_transform(_turned(rng.uniform(-np.pi, np.pi)))
    # Where it stands, a little above or in the support, as a scan has it.
    place = _place(rng)
    mesh.apply_translation([*place, rng.uniform(-1e-3, 1.5e-3) - mesh.bounds[0, 2]])
    s = _ease(np.linspace(0, 1, FRAMES))
    center = mesh.bounds.mean(axis=0)
    turn, way = np.zeros((FRAMES, 3)), np.zeros((FRAMES, 3))
    if kind == "grasp":
        axis = rng.normal(size=3)
        turn = s[:, None] * axis / np.linalg.norm(axis) * rng.uniform(0, 1.0)
        side = rng.uniform(-0.08, 0.08, 2)
        up = _ease(np.linspace(0, 2, FRAMES)) * rng.uniform(0.06, 0.25)
        way = np.column_stack([s[:, None] * side, up])
        turn *= np.linspace(0, 1, FRAMES)[:, None]
    elif kind == "push":
        angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(0.05, 0.22)
        way[:, :2] = s[:, None] * length * np.array([np.cos(angle), np.sin(angle)])
    else:
        goal = _place(rng)
        while np.linalg.norm(goal - place) < 0.12:
            goal = _place(rng)
        way[:, :2] = s[:, None] * (goal - place)
        share = np.linspace(0, 1, FRAMES)
        arch = _ease(share / 0.4) - _ease((share - 0.6) / 0.4)
        way[:, 2] = arch * rng.uniform(0.04, 0.22)
        turn[:, 2] = s * rng.uniform(-1.0, 1.0)
    X = _about(center, turn, way)
    return [_part("target", mesh, X, "target")]


def _shape(kind: str, rng: np.random.Generator) -> trimesh.Trimesh:
    """A tall, flat, round, long, thin or concave thing about its origin."""
    u = rng.uniform
    shapes = ["tall", "flat", "can", "puck", "ball", "rod", "card", "angle", "cup"]
    if kind == "push":
        shapes = ["tall", "flat", "can", "angle", "cube"]
    name = shapes[rng.integers(len(shapes))]
    if name == "tall":
        mesh = trimesh.creation.box([u(0.03, 0.06), u(0.03, 0.06), u(0.1, 0.2)])
    elif name == "flat":
        mesh = trimesh.creation.box([u(0.04, 0.07), u(0.06, 0.14), u(0.02, 0.04)])
    elif name == "cube":
        mesh = trimesh.creation.box(u(0.06, 0.12, 3))
    elif name == "can":
        mesh = trimesh.creation.cylinder(u(0.02, 0.035), u(0.08, 0.16), sections=48)
    elif name == "puck":
        mesh = trimesh.creation.cylinder(u(0.02, 0.034), u(0.02, 0.035), sections=48)
    elif name == "ball":
        mesh = trimesh.creation.icosphere(3, u(0.02, 0.034))
    elif name == "rod":
        mesh = trimesh.creation.cylinder(u(0.008, 0.018), u(0.12, 0.3), sections=32)
        mesh.apply_transform(_turned(np.pi / 2, "x"))
    elif name == "card":
        mesh = trimesh.creation.box([u(0.06, 0.12), u(0.004, 0.012), u(0.08, 0.14)])
    elif name == "angle":
        a, b, t = u(0.06, 0.12), u(0.06, 0.12), u(0.02, 0.035)
        outline = np.array([[0, 0], [a, 0], [a, t], [t, t], [t, b], [0, b]])
        mesh = _prism(outline, u(0.04, 0.09))
    else:
        radius = u(0.03, 0.038)
        mesh = trimesh.creation.annulus(radius - u(0.003, 0.006), radius, u(0.06, 0.1), sections=48)
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    return _rough(mesh, rng) if rng.random() < 0.3 else mesh


def _prism(outline: Floats, height: float) -> trimesh.Trimesh:
    """An upright prism over an outline (n, 2) whose first corner sees all others."""
    n = len(outline)
    low = np.column_stack([outline, np.zeros(n)])
    high = np.column_stack([outline, np.full(n, height)])
    fan = np.array([[0, i, i + 1] for i in range(1, n - 1)])
    side = np.arange(n)
    after = np.roll(side, -1)
    walls = [
        np.column_stack([side, after, after + n]),
        np.column_stack([side, after + n, side + n]),
    ]
    faces = np.concatenate([fan[:, ::-1], fan + n, *walls])
    return trimesh.Trimesh(np.concatenate([low, high]), faces)


def _rough(mesh: trimesh.Trimesh, rng: np.random.Generator) -> trimesh.Trimesh:
    """A fine one-piece surface with the noise of a scan."""
    fine: Any = mesh.subdivide_to_size(0.012)
    fine = trimesh.Trimesh(fine.vertices, fine.faces, process=True)
    noise = rng.normal(size=fine.vertices.shape) * rng.uniform(2e-4, 8e-4)
    return trimesh.Trimesh(fine.vertices + noise, fine.faces, process=False)


def _drawer(rng: np.random.Generator) -> list[Part]:
    """A cabinet with a drawer that the robot pulls by its bar."""
    u = rng.uniform
    depth, width, height, wall = u(0.15, 0.25), u(0.16, 0.26), u(0.12, 0.2), 0.012
    boards = [
        ([depth, width, wall], [0, 0, wall / 2]),
        ([depth, width, wall], [0, 0, height - wall / 2]),
        ([depth, wall, height], [0, (width - wall) / 2, height / 2]),
        ([depth, wall, height], [0, (wall - width) / 2, height / 2]),
        ([wall, width, height], [(depth - wall) / 2, 0, height / 2]),
    ]
    shell = _boxes(boards)
    inner = [width - 2 * wall - 0.012, height - 2 * wall - 0.012]
    front = -depth / 2 - wall / 2 - 0.003
    bar = u(0.05, 0.09)
    moving = _boxes(
        [
            ([depth - wall - 0.02, *inner], [-0.012, 0, height / 2]),
            ([wall, width, height - 0.01], [front, 0, height / 2]),
            ([0.035, 0.012, 0.02], [front - 0.022, bar / 2, height / 2]),
            ([0.035, 0.012, 0.02], [front - 0.022, -bar / 2, height / 2]),
            ([0.014, bar + 0.012, 0.02], [front - 0.044, 0, height / 2]),
        ]
    )
    place = _place(rng) * 1.15
    X = _turned(np.arctan2(place[1], place[0]) + u(-0.4, 0.4))
    X[:2, 3] = place
    X[2, 3] = 1e-3
    shell.apply_transform(X)
    moving.apply_transform(X)
    way = _ease(np.linspace(0, 1, FRAMES))[:, None] * -u(0.06, 0.14) * X[:3, 0]
    motion = _about(np.zeros(3), np.zeros((FRAMES, 3)), way)
    return [
        _part("drawer", moving, motion, "target"),
        _part("cabinet", shell, np.eye(4)[None], "fixed"),
    ]


def _mover(rng: np.random.Generator) -> Part:
    """Another object that slides across the table."""
    u = rng.uniform
    mesh = trimesh.creation.box([u(0.03, 0.08), u(0.03, 0.08), u(0.05, 0.25)])
    if rng.random() < 0.4:
        mesh = trimesh.creation.cylinder(u(0.015, 0.04), u(0.05, 0.25), sections=32)
    mesh.apply_translation([*_place(rng), 5e-4 - mesh.bounds[0, 2]])
    angle, length = u(-np.pi, np.pi), u(0.05, 0.25)
    delay = u(0, 0.5)
    s = _ease((np.linspace(0, 1, FRAMES) - delay) / (1 - delay))
    # Never farther than the target goes, which is the object to touch.
    way = s[:, None] * min(length, 0.05) * np.array([np.cos(angle), np.sin(angle), 0])
    X = _about(mesh.bounds.mean(axis=0), s[:, None] * [0, 0, u(-0.5, 0.5)], way)
    return _part("mover", mesh, X, "other")


# What stands around.


def _obstacles(parts: list[Part], rng: np.random.Generator, *, hazard: bool) -> list[Part]:
    """Plates, rods, shelves and boxes; clear of the way of everything, or of its ends only."""
    blocked = [_along(part, hazard and part.role == "target") for part in parts]
    out: list[Part] = []
    wanted = int(rng.integers(0, 7))
    for _ in range(40):
        if len(out) == wanted:
            break
        mesh = _obstacle(parts, rng)
        if not _near_robot(mesh) and all(_apart(mesh, points) for points in blocked):
            out.append(_part(f"obstacle {len(out)}", mesh, np.eye(4)[None], "obstacle"))
    return out


def _obstacle(parts: list[Part], rng: np.random.Generator) -> trimesh.Trimesh:
    u = rng.uniform
    place = _place(rng) if rng.random() < 0.3 else _beside(parts[0], rng)
    name = ("plate", "rod", "bar", "shelf", "box", "can", "sheet")[rng.integers(7)]
    turn = _turned(u(-np.pi, np.pi))
    if name == "plate":
        mesh = trimesh.creation.box([u(0.1, 0.5), u(0.0015, 0.006), u(0.05, 0.3)])
    elif name == "rod":
        mesh = trimesh.creation.cylinder(u(0.003, 0.012), u(0.1, 0.4), sections=24)
    elif name == "bar":
        mesh = trimesh.creation.cylinder(u(0.004, 0.012), u(0.2, 0.5), sections=24)
        mesh.apply_transform(_turned(np.pi / 2, "x"))
        mesh.apply_translation([0, 0, u(0.12, 0.4)])
        mesh.apply_transform(turn)
        mesh.apply_translation([*place, 0])
        return mesh
    elif name == "shelf":
        return _shelf(place, turn, rng)
    elif name == "sheet":
        mesh = trimesh.creation.box([u(0.1, 0.3), 0.002, u(0.08, 0.25)])
        mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[np.abs(mesh.face_normals[:, 1]) > 0.5][:2])
    elif name == "box":
        mesh = trimesh.creation.box(u(0.04, 0.16, 3))
    else:
        mesh = trimesh.creation.cylinder(u(0.02, 0.06), u(0.05, 0.25), sections=32)
    if rng.random() < 0.2:
        mesh = mesh.subdivide().subdivide()
    mesh.apply_transform(turn)
    mesh.apply_translation([*place, 1e-3 - mesh.bounds[0, 2]])
    return mesh


def _shelf(place: Floats, turn: Floats, rng: np.random.Generator) -> trimesh.Trimesh:
    """A board on two sides, as one concave body."""
    u = rng.uniform
    depth, width, height, wall = u(0.12, 0.3), u(0.25, 0.5), u(0.25, 0.45), u(0.004, 0.02)
    boards = [
        ([depth, width, wall], [0, 0, height]),
        ([depth, wall, height - wall], [0, width / 2 - wall, (height - wall) / 2]),
        ([depth, wall, height - wall], [0, wall - width / 2, (height - wall) / 2]),
    ]
    mesh = _boxes(boards)
    mesh.apply_transform(turn)
    mesh.apply_translation([*place, 1e-3])
    return mesh


def _boxes(boards: Iterable[tuple[list[float], list[float]]]) -> trimesh.Trimesh:
    """Boxes (size, center) as one mesh."""
    meshes = []
    for size, center in boards:
        mesh = trimesh.creation.box(size)
        mesh.apply_translation(center)
        meshes.append(mesh)
    whole: Any = trimesh.util.concatenate(meshes)
    return whole


def _along(part: Part, ends_only: bool) -> Floats:
    """Points (n, 3) of a part's surface along its way, or at its ends."""
    mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
    points, _ = trimesh.sample.sample_surface(mesh, 400, seed=0)
    points = np.concatenate([points, part.vertices])
    X = part.X_since_start[[0, -1]] if ends_only else part.X_since_start
    return (points @ np.swapaxes(X[:, :3, :3], 1, 2) + X[:, None, :3, 3]).reshape(-1, 3)


def _apart(mesh: trimesh.Trimesh, points: Floats) -> bool:
    """True if a mesh keeps its distance from points (n, 3)."""
    o3d = _open3d()

    low, high = mesh.bounds - [[_CLEAR], [-_CLEAR]]
    near = points[((points > low) & (points < high)).all(axis=1)]
    if not len(near):
        return True
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    vertices = o3d.core.Tensor(np.asarray(mesh.vertices, np.float32))
    scene.add_triangles(vertices, o3d.core.Tensor(np.asarray(mesh.faces, np.uint32)))
    query = o3d.core.Tensor(np.asarray(near, np.float32))
    distance = scene.compute_distance(query, nthreads=1).numpy()
    if mesh.is_watertight and (scene.compute_signed_distance(query, nthreads=1).numpy() < 0).any():
        return False
    return bool(distance.min() > _CLEAR)


def _near_robot(mesh: trimesh.Trimesh) -> bool:
    """True if a mesh stands where the arm is at home."""
    low, high = mesh.bounds
    nearest = np.clip(0, low[:2], high[:2])
    if np.linalg.norm(nearest) < 0.24:
        return True
    return bool(high[2] > 0.3 and np.linalg.norm(np.clip([0.35, 0], low[:2], high[:2])) < 0.5)


def _place(rng: np.random.Generator) -> Floats:
    """A place (2,) on the table, now and then at the edge of the arm's reach."""
    radius = rng.uniform(0.32, 0.62) if rng.random() < 0.8 else rng.uniform(0.28, 0.72)
    angle = rng.uniform(-1.2, 1.2) if rng.random() < 0.8 else rng.uniform(-2.6, 2.6)
    return radius * np.array([np.cos(angle), np.sin(angle)])


def _beside(part: Part, rng: np.random.Generator) -> Floats:
    """A place (2,) near a part's way."""
    X = part.X_since_start[rng.integers(len(part.X_since_start))]
    center = X[:3, :3] @ part.vertices.mean(axis=0) + X[:3, 3]
    angle = rng.uniform(-np.pi, np.pi)
    return center[:2] + rng.uniform(0.03, 0.2) * np.array([np.cos(angle), np.sin(angle)])


def _placed(part: Part, base: Floats) -> Part:
    """The part moved from the base's frame to the world."""
    R, t = base[:3, :3], base[:3, 3]
    X = base @ part.X_since_start @ np.linalg.inv(base)
    return Part(part.name, part.vertices @ R.T + t, part.faces, X, part.role)


def _part(name: str, mesh: trimesh.Trimesh, X: Floats, role: str) -> Part:
    faces: NDArray[np.int64] = np.asarray(mesh.faces, np.int64)
    return Part(name, np.asarray(mesh.vertices, float), faces, X, role)


def _about(center: Floats, turn: Floats, way: Floats) -> Floats:
    """Poses (T, 4, 4) that turn by rotation vectors (T, 3) about a point, and go a way (T, 3)."""
    X = np.tile(np.eye(4), (len(turn), 1, 1))
    X[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
    X[:, :3, 3] = center + way - X[:, :3, :3] @ center
    return X


def _ease(x: Floats) -> Floats:
    """Minimum jerk from 0 to 1."""
    x = np.clip(x, 0, 1)
    return x**3 * (10 - 15 * x + 6 * x**2)


def _turned(angle: float, axis: str = "z") -> Floats:
    X = np.eye(4)
    X[:3, :3] = Rotation.from_euler(axis, angle).as_matrix()
    return X


def _open3d() -> Any:
    """The open3d package, loaded when it is needed."""
    return import_module("open3d")
