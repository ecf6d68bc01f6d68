"""Parts and joints of an object from one motion of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from flowplan.articulation.grouping import RigidBodies, rigid_bodies
from flowplan.articulation.joints import Track, as_seen_by, fit_joint, with_uncertainty
from flowplan.articulation.options import ArticulationOptions
from flowplan.geometry import inverse, transform
from flowplan.motion import MOTION_THRESHOLD, SceneMotion
from flowplan.parts import Articulation, PartJoint
from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

_TOUCH = 0.03
"""Share of the object's size within which two parts touch."""
_INDIRECT, _APART = 0.25, 0.5
"""Cost of a joint whose parent is not the root, and of one between parts that do not touch."""
_KINDS = {"prismatic": 1.0, "revolute": 1.0, "screw": 2.0, "free": 4.0, "fixed": 0.0}
"""Cost of a kind of joint."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Parts and joints that explain a motion of one object.

    Attributes:
        articulation: parts and joints, object frame; the root is part 0.
        X_object: (P, T, 4, 4) rigid motion of every part from its place at t = 0, object frame.
        amount: by joint name, (T,) amounts from t = 0, rad or m; zeros for a free joint.
        residual: (V,) RMS over time of the distance of a vertex from its part's motion, meters.
        way: meters RMS that the moving parts move at most.
        share: residual of the moving parts over their way.
        deformable: True if rigid parts do not explain the motion.
    """

    articulation: Articulation
    X_object: FloatArray
    amount: dict[str, FloatArray]
    residual: FloatArray
    way: float
    share: float
    deformable: bool


def estimate(
    mesh: trimesh.Trimesh, vertices: FloatArray, options: ArticulationOptions | None = None
) -> Estimate:
    """Parts and joints of an object from a motion of its mesh.

    The motion may be noisy, bend rigid parts and drag along what stands still.

    Args:
        mesh: the mesh at t = 0, any frame.
        vertices: (T, V, 3) of its vertices in that frame, meters.
        options: see ArticulationOptions.

    Raises:
        ValueError: if the motion is not one of this mesh.
    """
    options = options or ArticulationOptions()
    vertices = checks.array("vertices", vertices, ("T", len(mesh.vertices), 3))
    faces = np.asarray(mesh.faces)
    bodies = _root_first(rigid_bodies(vertices, faces, options), mesh.area_faces)
    count = len(bodies.X_world)
    weight = _weights(bodies, vertices, faces)
    joints, amount = _tree(bodies, vertices, weight, mesh)
    names = ("base", *(f"part_{i}" for i in range(1, count)))
    way, share = _left_over(bodies, vertices, weight)
    return Estimate(
        Articulation(names, bodies.body, joints),
        bodies.X_world,
        amount,
        bodies.residual,
        way,
        share,
        bool(share > options.bend),
    )


def estimate_object(
    scene: Scene, motion: SceneMotion, index: int, options: ArticulationOptions | None = None
) -> Estimate:
    """Parts and joints of one object of a scene, object frame, from the scene's motion."""
    obj = scene.objects[index]
    vertices = transform(inverse(obj.X_world_object), motion.vertices[index])
    return estimate(obj.mesh, vertices, options)


def moving_objects(motion: SceneMotion) -> list[int]:
    """Numbers of the objects that move, the one that moves furthest first."""
    way = [float(np.linalg.norm(v - v[0], axis=-1).max()) for v in motion.vertices]
    order = np.argsort(way)[::-1]
    return [int(i) for i in order if way[i] > MOTION_THRESHOLD]


def _root_first(bodies: RigidBodies, area: FloatArray) -> RigidBodies:
    """The bodies with the root as number 0: the one that stands still, else the largest."""
    size = np.bincount(bodies.body, area, len(bodies.X_world))
    order = np.argsort(-size, kind="stable")
    if bodies.still:
        order = np.concatenate([[0], order[order != 0]])
    number = np.argsort(order)
    return RigidBodies(
        number[bodies.body],
        bodies.X_world[order],
        bodies.residual,
        bodies.still,
        bodies.tolerance[order],
    )


def _weights(bodies: RigidBodies, vertices: FloatArray, faces: np.ndarray) -> FloatArray:
    """Weight (P, V) of each vertex in each part: its area there, less if it leaves the motion."""
    a, b, c = np.moveaxis(vertices[0][faces], 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 6
    weight = np.zeros((len(bodies.X_world), vertices.shape[1]))
    for corner in faces.T:
        np.add.at(weight, (bodies.body, corner), area)
    for k, X in enumerate(bodies.X_world):
        left = ((transform(X, vertices[0]) - vertices) ** 2).sum(axis=-1).mean(axis=0)
        weight[k] /= 1 + left / (2 * bodies.tolerance[k] ** 2)
    return weight


def _track(vertices: FloatArray, weight: FloatArray, X_parent: FloatArray) -> Track:
    """Points of a part by their weight (V,), as its parent sees them."""
    some = np.flatnonzero(weight > 1e-6 * weight.max())
    return Track(vertices[0, some], as_seen_by(X_parent, vertices[:, some]), weight[some])


def _tree(
    bodies: RigidBodies, vertices: FloatArray, weight: FloatArray, mesh: trimesh.Trimesh
) -> tuple[tuple[PartJoint, ...], dict[str, FloatArray]]:
    """Joints that connect all parts at least cost, from the root outward, and their amounts.

    Prim's algorithm. Simple joints between parts that touch are cheap, and so are those of the
    root.
    """
    count = len(bodies.X_world)
    touching = _touching(bodies, mesh)
    options: dict[tuple[int, int], tuple[float, PartJoint, FloatArray]] = {}
    placed = [0]
    joints: list[PartJoint] = []
    amount = {}
    while len(placed) < count:
        parent = placed[-1]
        for child in set(range(count)) - set(placed):
            track = _track(vertices, weight[child], bodies.X_world[parent])
            joint, moves = fit_joint(track, f"joint_{child}", parent, child)
            cost = _KINDS[joint.kind] + _INDIRECT * (parent != 0)
            cost += _APART * (not touching[parent, child])
            options[parent, child] = cost, joint, moves
        pair = min((p for p in options if p[1] not in placed), key=lambda p: (options[p][0], p))
        _, joint, moves = options[pair]
        track = _track(vertices, weight[joint.child], bodies.X_world[joint.parent])
        joints.append(with_uncertainty(joint, track))
        amount[joint.name] = moves
        placed.append(joint.child)
    return tuple(joints), amount


def _touching(bodies: RigidBodies, mesh: trimesh.Trimesh) -> np.ndarray:
    """(P, P) True for parts of which some faces are near each other."""
    from scipy.spatial import cKDTree

    count = len(bodies.X_world)
    centers = mesh.triangles_center
    near = _TOUCH * float(np.ptp(mesh.vertices, axis=0).max())
    trees = [cKDTree(centers[bodies.body == k]) for k in range(count)]
    out = np.eye(count, dtype=bool)
    for i in range(count):
        for j in range(i):
            if count > 2 and trees[i].n and trees[j].n:
                distance = trees[i].query(trees[j].data, distance_upper_bound=near)[0]
                out[i, j] = out[j, i] = bool(np.isfinite(distance).any())
            else:
                out[i, j] = out[j, i] = True
    return out


def _left_over(
    bodies: RigidBodies, vertices: FloatArray, weight: FloatArray
) -> tuple[float, float]:
    """Way of the moving parts, meters RMS, and the share of it that their motions leave over."""
    moving = range(1 if bodies.still and len(bodies.X_world) > 1 else 0, len(bodies.X_world))
    gone = np.sqrt(((vertices - vertices[0]) ** 2).sum(axis=-1).max(axis=0))  # (V,)
    area = np.stack([weight[k] > 0 for k in moving]).any(axis=0)
    way = float(np.sqrt(np.square(gone[area]).mean())) if area.any() else 0.0
    left = float(np.sqrt(np.square(bodies.residual[area]).mean())) if area.any() else 0.0
    return way, left / way if way > MOTION_THRESHOLD else 0.0
