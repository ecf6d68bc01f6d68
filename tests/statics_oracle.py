"""Random bodies let go in PyBullet beside the verdict of the statics on the same bodies."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.geometry import exp_so3, matrix_from_quat_xyzw, pose, quat_xyzw_from_matrix, transform
from flowplan.statics import RestOptions, Solid, Supports, balance
from flowplan.utils.checks import FloatArray
from sim_envs.bullet import BulletClient, pybullet, quiet

SECONDS = 2.0
FRICTION = 0.3


@dataclass(frozen=True, eq=False)
class Case:
    """A body of boxes and convex pieces at a pose above a table, on which a slab may lie.

    Attributes:
        pieces: Convex pieces in the body's frame; the origin is its center of mass.
        X: (4, 4) pose at which it is let go.
        slab: Box that carries it, world frame, or None for the table at height 0.
    """

    pieces: tuple[trimesh.Trimesh, ...]
    X: FloatArray
    slab: tuple[FloatArray, FloatArray] | None  # pose and extents


def random_case(rng: np.random.Generator) -> Case:
    """A box, a cylinder, a frustum or an L of two boxes; flat, tilted or turned anyhow.

    On the table, over the edge of a board, on a narrow beam, or on a slope; up to 2 cm above.
    """
    pieces = _body(rng)
    turn = rng.choice(["flat", "flat", "flat", "tilted", "any"])
    R = exp_so3([0, 0, rng.uniform(-np.pi, np.pi)])
    if turn == "tilted":
        R = exp_so3(rng.uniform(0, 0.25) * _direction(rng)) @ R
    elif turn == "any":
        R = exp_so3(rng.uniform(0, np.pi) * _direction(rng, flat=False))
    corners = np.concatenate([transform(pose(R), piece.vertices) for piece in pieces])
    gap = 0.0 if rng.random() < 0.6 else rng.uniform(0, 0.02)
    at, slab = np.array([0.0, 0.0, gap - corners[:, 2].min()]), None
    ground = rng.choice(["table", "board", "beam", "slope"])
    if ground in ("board", "beam"):
        reach = np.ptp(corners[:, 1]) / 2
        width = 0.3 if ground == "board" else rng.uniform(0.005, 0.06)
        edge = rng.uniform(-reach, reach) if ground == "board" else width / 2
        slab = pose(translation=[0, edge - width / 2, 0.15]), np.array([0.4, width, 0.1])
        at[2] += 0.2
    elif ground == "slope":
        S = exp_so3(rng.uniform(0, 0.5) * _direction(rng))
        slab = pose(S, [0, 0, 0.3]), np.array([0.8, 0.8, 0.04])
        R = S @ R
        at = S @ (at + np.array([0, 0, 0.02])) + np.array([0, 0, 0.3])
    return Case(pieces, pose(R, at), slab)


def _direction(rng: np.random.Generator, *, flat: bool = True) -> FloatArray:
    v = rng.normal(size=3) * [1, 1, 0 if flat else 1]
    return v / np.linalg.norm(v)


def _body(rng: np.random.Generator) -> tuple[trimesh.Trimesh, ...]:
    size = rng.uniform(0.03, 0.15, 3)
    kind = rng.choice(["box", "cylinder", "frustum", "L"])
    if kind == "box":
        return (trimesh.creation.box(size),)
    if kind == "cylinder":
        return (trimesh.creation.cylinder(size[0] / 2, size[2], sections=32),)
    if kind == "frustum":
        rings = [(rng.uniform(0.01, 0.06), z) for z in (0.0, size[2])]
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        points = [np.c_[r * np.cos(angle), r * np.sin(angle), 0 * angle + z] for r, z in rings]
        hull = trimesh.PointCloud(np.concatenate(points)).convex_hull
        return (hull.apply_translation(-hull.center_mass),)
    foot = trimesh.creation.box((size[0], size[1], 0.02))
    wall = trimesh.creation.box((0.02, size[1], size[2]))
    wall.apply_translation([size[0] / 2 - 0.01, 0, size[2] / 2 + 0.01])
    volume = np.array([foot.volume, wall.volume])
    center = volume @ np.array([foot.center_mass, wall.center_mass]) / volume.sum()
    return tuple(piece.apply_translation(-center) for piece in (foot, wall))


def says_rest(case: Case) -> bool:
    """Verdict of the statics."""
    placed = [transform(case.X, piece.vertices) for piece in case.pieces]
    first = np.cumsum([0, *(len(v) for v in placed[:-1])])
    faces = [p.faces + start for p, start in zip(case.pieces, first, strict=True)]
    body = Solid(np.concatenate(placed), np.concatenate(faces))
    things = []
    if case.slab is not None:
        X, extents = case.slab
        slab = trimesh.creation.box(extents, transform=X)
        things = [(np.asarray(slab.vertices), np.asarray(slab.faces))]
    return balance(body, Supports(things, 0.0, body), RestOptions(friction=FRICTION)).rests


def stays(case: Case) -> bool:
    """True if PyBullet leaves it within 3 cm and 15 degrees of where it was let go."""
    with quiet():
        bullet = BulletClient(pybullet.DIRECT)
    try:
        bullet.setGravity(0, 0, -9.81)
        bullet.setPhysicsEngineParameter(fixedTimeStep=1 / 480, numSolverIterations=100)
        table = bullet.createCollisionShape(bullet.GEOM_PLANE)
        bullet.changeDynamics(bullet.createMultiBody(0, table), -1, lateralFriction=1.0)
        if case.slab is not None:
            X, extents = case.slab
            shape = bullet.createCollisionShape(
                bullet.GEOM_BOX, halfExtents=(0.5 * extents).tolist()
            )
            quat = quat_xyzw_from_matrix(X[:3, :3]).tolist()
            slab = bullet.createMultiBody(0, shape, -1, X[:3, 3].tolist(), quat)
            bullet.changeDynamics(slab, -1, lateralFriction=1.0)
        body = _bullet_body(bullet, case)
        for _ in range(int(SECONDS * 480)):
            bullet.stepSimulation()
        position, quat = bullet.getBasePositionAndOrientation(body)
    finally:
        bullet.disconnect()
        bullet._client = -1
    R = matrix_from_quat_xyzw(quat) @ case.X[:3, :3].T
    turned = np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1))
    return bool(
        np.linalg.norm(np.array(position) - case.X[:3, 3]) < 0.03 and turned < np.deg2rad(15)
    )


def _bullet_body(bullet: BulletClient, case: Case) -> int:
    """The body with the inertia of even density."""
    if len(case.pieces) == 1:
        vertices = np.asarray(case.pieces[0].vertices).tolist()
        shape = bullet.createCollisionShape(bullet.GEOM_MESH, vertices=vertices)
    else:  # boxes along the axes
        bounds = np.array([piece.bounds for piece in case.pieces])  # (P, 2, 3)
        shape = bullet.createCollisionShapeArray(
            shapeTypes=[bullet.GEOM_BOX] * len(bounds),
            halfExtents=(0.5 * np.ptp(bounds, axis=1)).tolist(),
            collisionFramePositions=bounds.mean(axis=1).tolist(),
        )
    quat = quat_xyzw_from_matrix(case.X[:3, :3]).tolist()
    body: int = bullet.createMultiBody(0.3, shape, -1, case.X[:3, 3].tolist(), quat)
    inertia = sum(piece.moment_inertia / piece.volume for piece in case.pieces)
    bullet.changeDynamics(
        body,
        -1,
        lateralFriction=FRICTION,
        localInertiaDiagonal=(0.3 / len(case.pieces) * np.diag(inertia)).tolist(),
    )
    return body


def compare(seeds: range) -> Counter[tuple[bool, bool]]:
    """Numbers of cases by (the statics let go, the simulator leaves it)."""
    cases = (random_case(np.random.default_rng(seed)) for seed in seeds)
    return Counter((says_rest(case), stays(case)) for case in cases)


if __name__ == "__main__":  # python -m tests.statics_oracle COUNT FIRST_SEED
    count, first = int(sys.argv[1]), int(sys.argv[2])
    sys.stdout.write(f"{compare(range(first, first + count))}\n")
