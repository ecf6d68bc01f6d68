"""Antipodal grasps of a parallel gripper on a mesh.

Two contacts are antipodal when the line through them lies in both friction cones (Nguyen 1988). Rays sent into the
surface against its normal find such pairs; every pair gives a fan of tool poses about its closing line and a few
depths. A pose stays when the gripper, open, can come along its approach axis and close without hitting the object, its
neighbours or the support. What is left is ranked by the chance to hold,

    logit = - 30 d - 40 d_xz - 25 |d_x| + 85 depth - 50 width - 5 tilt + 5 margin + E_wrong[alignment * cover],

with d (m) from the tool to the centre of mass, d_xz its distance from the closing line and d_x its part across the
fingers, depth (m) by which the object fills the hand above the pads, width (m) between them, tilt (rad) between pad and
surface, margin the force at the centre of mass that a newton of grip resists (flowplan.grasp.quality), and the last how
well the pads lie on, on average, with pose and friction a little wrong. The coefficients come from a logistic
regression on some 400 simulated lifts and shakes (one intercept per object), rounded by hand: it is an order, not a
calibrated probability. Depth and nearness to the centre of mass tell the most; wrench-space quality and alignment
alone tell little. Near duplicates are thinned out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3, inverse, pose, transform
from flowplan.grasp.contact import PadContacts, close_pads, depth_in_hand, pad_middle
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.proposal import Proposal, best_first, no_candidates, spread
from flowplan.grasp.quality import force_margin
from flowplan.grasp.records import ContactCandidates
from flowplan.grasp.surface import EMPTY, Surface, neighbours, sample_surface
from flowplan.scene import Scene, SceneObject
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_PATCH_POINTS = 64
"""Surface points around each contact that pads are closed on."""
_LENGTH = 0.04
"""Metres that torques are compared with forces by, and at which a pair is drawn 1/e times as often."""
_PER_LEVER, _PER_TWIST, _PER_SIDE, _PER_DEPTH, _PER_WIDTH = -30.0, -40.0, -25.0, 85.0, -50.0
"""What a metre adds to the logit of holding: from the centre of mass to the tool, to the closing line and across the
fingers, of the object in the hand, and between the pads."""
_PER_TILT, _PER_MARGIN, _PER_ROBUST = -5.0, 5.0, 1.0
"""What a radian of tilt, a newton at the centre of mass per newton of grip, and certain contact add to it."""


@dataclass(frozen=True)
class GraspOptions:
    """How antipodal grasps are searched and judged."""

    count: int = 100
    """Grasps returned at most."""
    friction: float = 0.5
    """Coulomb coefficient that the contacts are trusted with."""
    samples: int = 3000
    """Surface points that rays start from."""
    pairs: int = 700
    """Antipodal contact pairs that are turned into poses."""
    rolls: int = 12
    """Approach directions tried about each closing line."""
    candidates: int = 2400
    """Poses whose contacts and collisions are looked at."""
    refined: int = 240
    """Best candidates that are perturbed and get their wrench-space quality."""
    perturbations: int = 10
    """Wrong poses and frictions that each refined candidate is judged under."""
    position_error: float = 0.005
    """Metres (standard deviation) by which the hand misses, along each axis."""
    rotation_error: float = 0.087
    """Radians (standard deviation) by which the hand is turned, about each axis."""
    clearance: float = 0.003
    """Metres that the open gripper keeps from everything."""
    palm_clearance: float = 0.007
    """Metres that the palm keeps from what is in front of it: a hand that stops too late presses with the whole arm."""
    opening: float = 0.01
    """Metres that each finger stays away from its contact before closing, where the hand opens so far."""
    approach: float = 0.06
    """Metres of straight approach that must be free."""
    compliance: float = 0.003
    """Metres behind the foremost point of a patch that still bear load."""
    separation: float = 0.01
    """Metres and, times 20, radians that two returned grasps differ by at least."""

    def __post_init__(self) -> None:
        for name in (
            "count",
            "samples",
            "pairs",
            "rolls",
            "candidates",
            "refined",
            "perturbations",
        ):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"GraspOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        for name in ("friction", "compliance"):
            checks.positive(f"GraspOptions.{name}", getattr(self, name))
        for name in (
            "position_error",
            "rotation_error",
            "clearance",
            "palm_clearance",
            "opening",
            "approach",
            "separation",
        ):
            checks.positive(f"GraspOptions.{name}", getattr(self, name), zero=True)


@dataclass(frozen=True, eq=False)
class Pairs:
    """P antipodal contact pairs, world frame: points (P, 3), unit normals (P, 3) out of the object."""

    first: FloatArray
    second: FloatArray
    first_normal: FloatArray
    second_normal: FloatArray

    def __len__(self) -> int:
        return len(self.first)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Pairs:
        """Some of the pairs."""
        return Pairs(
            self.first[index],
            self.second[index],
            self.first_normal[index],
            self.second_normal[index],
        )

    @property
    def width(self) -> FloatArray:
        """(P,) metres between the contacts."""
        return np.linalg.norm(self.second - self.first, axis=1)


def propose_grasps(
    obj: SceneObject,
    scene: Scene,
    gripper: Gripper,
    options: GraspOptions | None = None,
    *,
    seed: int = 0,
    faces: NDArray[np.bool_] | None = None,
) -> ContactCandidates:
    """Antipodal grasps on `obj`, best first; empty where there is none (`grasp_proposal` says why).

    Args:
        obj: an object of `scene`.
        scene: whose other objects, obstacles and support the gripper must not touch.
        gripper: of the robot that is to hold it.
        options: see GraspOptions.
        seed: of the sampling.
        faces: (F,) faces of the object's mesh that the fingers may hold, such as those of a drawer's front; all where
            not given. Part of an object is taken to be carried by the rest: its weight is not the gripper's to bear.
    """
    return grasp_proposal(obj, scene, gripper, options, seed=seed, faces=faces).grasps


def grasp_proposal(
    obj: SceneObject,
    scene: Scene,
    gripper: Gripper,
    options: GraspOptions | None = None,
    *,
    seed: int = 0,
    faces: NDArray[np.bool_] | None = None,
) -> Proposal:
    """As `propose_grasps`, with the number of candidates left after each stage."""
    options = options or GraspOptions()
    object_id = scene.index(obj.name)
    if faces is not None:
        faces = checks.array("faces", faces, (len(obj.mesh.faces),), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    cloud = object_cloud(obj, gripper, rng)
    pairs = antipodal_pairs(obj, cloud, options, rng, faces=faces)
    funnel = [("surface points", len(cloud)), ("antipodal pairs", len(pairs))]
    fits = pairs.width < gripper.max_width - 2 * options.clearance
    pairs = pairs.select(fits)
    funnel.append((f"no wider than the gripper ({gripper.max_width:.3g} m)", len(pairs)))
    centre = centre_of_mass(obj) if faces is None or faces.all() else None
    pairs = _likely(pairs, centre, options, rng)

    candidates = _fan_out(pairs, cloud, gripper, scene, options, rng)
    funnel.append(("above the support", len(candidates)))
    candidates = _settle(candidates, gripper, options)
    funnel.append(("pads lie on", len(candidates)))
    others = neighbours(obj, scene, options.approach + gripper.max_width + 0.15, rng)
    keep = _collision_free(candidates, cloud, others, gripper, options)
    candidates = candidates.select(keep)
    funnel.append(("collision-free", len(candidates)))
    if not len(candidates):
        return Proposal(no_candidates(), tuple(funnel))
    X, width, score = _judge(candidates, centre, cloud, gripper, options, rng)
    chosen = spread(
        X, score, options.count, distance=options.separation, angle=20 * options.separation
    )
    grasps = best_first(X[chosen], width[chosen], score[chosen], "grasp", object_id)
    funnel.append(("different from each other", len(grasps)))
    return Proposal(grasps, tuple(funnel))


def object_cloud(obj: SceneObject, gripper: Gripper, rng: np.random.Generator) -> Surface:
    """The object's surface in the world frame, about 20 points to a pad, normals averaged over neighbours."""
    pad = gripper.pad_size[0] * gripper.pad_size[1]
    count = (
        int(np.clip(20 * obj.mesh.area / pad, 2000, 8000)) if np.isfinite(obj.mesh.area) else 2000
    )
    local = sample_surface(obj.mesh, count, rng)
    if not len(local):
        return EMPTY
    points = transform(obj.X_world_object, local.points)
    raw = local.normals @ obj.X_world_object[:3, :3].T
    # A scan's face normals are noisy; the mean over neighbours that look the same way is what a pad would feel.
    near = cKDTree(points).query(points, k=min(8, len(points)))[1]
    alike = np.einsum("mkc,mc->mk", raw[near], raw) > 0.5
    smooth = np.einsum("mk,mkc->mc", alike, raw[near])
    return Surface(
        points, smooth / np.linalg.norm(smooth, axis=1, keepdims=True), local.face, local.area
    )


def antipodal_pairs(
    obj: SceneObject,
    cloud: Surface,
    options: GraspOptions,
    rng: np.random.Generator,
    *,
    faces: NDArray[np.bool_] | None = None,
) -> Pairs:
    """Pairs of surface points whose connecting line lies in both friction cones, world frame.

    Rays start at `options.samples` points of `cloud` on the allowed `faces`, half of them straight against the normal
    and half anywhere in the friction cone, and pass through the object: each of the first four surfaces that a ray
    leaves through gives a pair, so that a mug is found by its wall and across its opening alike.
    """
    start = np.flatnonzero(faces[cloud.face]) if faces is not None else np.arange(len(cloud))
    if not len(start):
        return Pairs(*np.zeros((4, 0, 3)))
    start = rng.permutation(start)[: options.samples]
    start = np.resize(start, options.samples)  # small parts start several rays at each point
    normal = cloud.normals[start]
    R = obj.X_world_object[
        :3, :3
    ]  # drawn in the object's frame, so that moving the object moves the rays
    inward = -normal + _cone_offsets(normal @ R, options.friction, rng) @ R.T
    inward /= np.linalg.norm(inward, axis=1, keepdims=True)
    ray, face, hit = _cast(obj, cloud.points[start] + 1e-5 * inward, inward)
    hit_normal = _normals_at(obj, cloud, face, hit)
    cos_cone = 1 / np.hypot(1, options.friction)
    width = np.linalg.norm(hit - cloud.points[start[ray]], axis=1)
    leaves = np.sum(hit_normal * inward[ray], axis=1) > cos_cone
    leaves &= (width > 5e-4) & (faces[face] if faces is not None else True)
    ray, hit, hit_normal = ray[leaves], hit[leaves], hit_normal[leaves]
    return Pairs(cloud.points[start[ray]], hit, normal[ray], hit_normal)


def _cone_offsets(normal: FloatArray, friction: float, rng: np.random.Generator) -> FloatArray:
    """Tangential offsets (S, 3), zero for every other point, that keep -normal + offset inside the friction cone."""
    radius = friction * np.sqrt(rng.random(len(normal)))
    radius[::2] = 0.0
    angle = 2 * np.pi * rng.random(len(normal))
    t1, t2 = _tangents(normal)
    return radius[:, None] * (np.cos(angle)[:, None] * t1 + np.sin(angle)[:, None] * t2)


def _tangents(n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors (..., 3) that complete n (..., 3) to a right-handed frame (t1, t2, n)."""
    helper = np.eye(3)[np.argmin(np.abs(n), axis=-1)]
    t1 = np.cross(helper, n)
    t1 /= np.linalg.norm(t1, axis=-1, keepdims=True)
    return t1, np.cross(n, t1)


def _cast(
    obj: SceneObject, origins: FloatArray, directions: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Ray index, face and point (world) of the first four surfaces that each ray meets."""
    X = inverse(
        obj.X_world_object
    )  # rays go to the object frame: its mesh keeps its search tree between calls
    face, ray, hit = obj.mesh.ray.intersects_id(
        transform(X, origins),
        directions @ X[:3, :3].T,
        multiple_hits=True,
        max_hits=4,
        return_locations=True,
    )
    return ray, face, transform(obj.X_world_object, hit)


def _normals_at(
    obj: SceneObject, cloud: Surface, face: NDArray[np.int64], hit: FloatArray
) -> FloatArray:
    """Averaged normals at ray hits: that of the nearest cloud point on the same side of the sheet."""
    if not len(hit):
        return np.zeros((0, 3))
    raw = obj.mesh.face_normals[face] @ obj.X_world_object[:3, :3].T
    near = cKDTree(cloud.points).query(hit, k=min(3, len(cloud)))[1].reshape(len(hit), -1)
    smooth = cloud.normals[near]  # (n, 3, 3)
    alike = np.einsum("nkc,nc->nk", smooth, raw) > 0.3
    first = np.argmax(alike, axis=1)
    return np.where(alike.any(1)[:, None], smooth[np.arange(len(hit)), first], raw)


def centre_of_mass(obj: SceneObject) -> FloatArray:
    """(3,) world frame: of the volume where the mesh is closed, else of the surface."""
    mesh = obj.mesh
    closed = mesh.is_watertight and abs(mesh.volume) > 1e-12
    return transform(obj.X_world_object, [mesh.center_mass if closed else mesh.centroid])[0]


@dataclass(frozen=True, eq=False)
class Candidates:
    """G tool poses before and after their pads have been closed.

    Attributes:
        X: (G, 4, 4) X_world_tool.
        pair: (G,) the pair that each came from.
        near, near_normals: (P, 2, K, 3) surface around both contacts of every pair, world frame.
        area: square metres that one of those points stands for.
        pads: the contacts of the closed pads; None before `_settle`.
    """

    X: FloatArray
    pair: NDArray[np.int64]
    near: FloatArray
    near_normals: FloatArray
    area: float
    pads: PadContacts | None = None

    def __len__(self) -> int:
        return len(self.X)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        """Some of the poses."""
        pads = None if self.pads is None else self.pads.select(index)
        return replace(self, X=self.X[index], pair=self.pair[index], pads=pads)

    @property
    def closed(self) -> PadContacts:
        """The contacts; only after `_settle`."""
        if self.pads is None:
            raise ValueError("Candidates.pads: the pads have not been closed yet")
        return self.pads

    def close(
        self, X: FloatArray, pair: NDArray[np.int64], gripper: Gripper, compliance: float
    ) -> PadContacts:
        """Close the pads at tool poses X (n, 4, 4) on the surface around the contacts of `pair` (n,)."""
        R = X[:, None, :3, :3]
        points = (self.near[pair] - X[:, None, None, :3, 3]) @ R
        return close_pads(points, self.near_normals[pair] @ R, self.area, gripper, compliance)


def _likely(
    pairs: Pairs, centre: FloatArray | None, options: GraspOptions, rng: np.random.Generator
) -> Pairs:
    """Up to `options.pairs` pairs, drawn with a preference for well aligned ones near the centre of mass."""
    if len(pairs) <= options.pairs:
        return pairs
    axis = (pairs.second - pairs.first) / pairs.width[:, None]
    sine = np.linalg.norm(np.cross(axis, pairs.first_normal), axis=1)
    sine = np.maximum(sine, np.linalg.norm(np.cross(axis, pairs.second_normal), axis=1))
    log_weight = -2 * sine / options.friction
    if centre is not None:
        away = np.linalg.norm(0.5 * (pairs.first + pairs.second) - centre, axis=1)
        log_weight -= away / _LENGTH
    gumbel = -np.log(
        -np.log(rng.random(len(pairs)))
    )  # the largest of these are a weighted draw without replacement
    return pairs.select(np.argsort(-(log_weight + gumbel))[: options.pairs])


def _fan_out(
    pairs: Pairs,
    cloud: Surface,
    gripper: Gripper,
    scene: Scene,
    options: GraspOptions,
    rng: np.random.Generator,
) -> Candidates:
    """Tool poses about every pair's closing line that keep the open gripper above the support."""
    count = len(pairs)
    if not count:
        none = np.zeros((0, 2, 1, 3))
        return Candidates(np.zeros((0, 4, 4)), np.zeros(0, np.int64), none, none, 0.0)
    y = (pairs.second - pairs.first) / pairs.width[:, None]
    down = np.array([0.0, 0.0, -1.0]) - y * -y[:, 2:]
    steep = np.linalg.norm(down, axis=1) < 0.1
    down[steep] = _tangents(y[steep])[0]
    down /= np.linalg.norm(down, axis=1, keepdims=True)
    roll = 2 * np.pi * np.arange(options.rolls) / options.rolls
    z = exp_so3(roll[None, :, None] * y[:, None]) @ down[:, None, :, None]  # (P, rolls, 3, 1)
    z = z[..., 0]
    y = np.broadcast_to(y[:, None], z.shape)
    R = np.stack([np.cross(y, z), y, z], axis=-1)
    middle = np.broadcast_to(0.5 * (pairs.first + pairs.second)[:, None], z.shape)
    pad = np.broadcast_to(pad_middle(gripper, pairs.width)[:, None, None], z[..., :1].shape)
    # The pads' middle on the contact, or the contact at their tips' or their roots' third.
    shifts = np.array([0.0, 1 / 3, -1 / 3]) * gripper.pad_size[1]
    X = np.stack([pose(R, middle + (shift - pad) * z) for shift in shifts], axis=2).reshape(
        -1, 4, 4
    )
    pair = np.repeat(np.arange(count), options.rolls * len(shifts))
    if scene.support_height is not None:
        boxes = gripper_boxes(gripper, _opening(pairs.width, gripper, options)[pair])
        high = lowest_point(X, boxes) > scene.support_height + options.clearance
        X, pair = X[high], pair[high]
    chosen = np.sort(rng.permutation(len(X))[: options.candidates])
    tree = cKDTree(cloud.points)
    k = min(_PATCH_POINTS, len(cloud))
    near = tree.query(np.stack([pairs.first, pairs.second], axis=1), k=k)[1].reshape(count, 2, k)
    return Candidates(X[chosen], pair[chosen], cloud.points[near], cloud.normals[near], cloud.area)


def _opening(width: FloatArray, gripper: Gripper, options: GraspOptions) -> FloatArray:
    """Opening (...,) metres before closing on something of `width`."""
    return np.minimum(width + 2 * options.opening, gripper.max_width)


def _settle(candidates: Candidates, gripper: Gripper, options: GraspOptions) -> Candidates:
    """Close the pads, centre the hand between them, and keep the poses where both lie on within the friction cone."""
    if not len(candidates):
        return candidates
    pads = candidates.close(candidates.X, candidates.pair, gripper, options.compliance)
    X = candidates.X.copy()
    X[:, :3, 3] += pads.offset[:, None] * X[:, :3, 1]
    keep = pads.touch & (pads.width > 0) & (pads.width < gripper.max_width - 2 * options.clearance)
    keep &= pads.tilt.max(-1) < np.arctan(options.friction)
    return replace(candidates, X=X, pads=pads.centred()).select(keep)


def _collision_free(
    candidates: Candidates,
    cloud: Surface,
    others: FloatArray,
    gripper: Gripper,
    options: GraspOptions,
) -> NDArray[np.bool_]:
    """(G,) can the hand come along z, open, and close without touching anything but with its pads?"""
    if not len(candidates):
        return np.zeros(0, bool)
    width = candidates.closed.width
    still_open = gripper_boxes(gripper, _opening(width, gripper, options))
    closed = gripper_boxes(gripper, width + 2 * options.compliance)
    sweep = still_open.hull(closed)
    palm = np.array([link == gripper.tool_link for link in gripper.box_link])
    coming = still_open.grown(options.clearance).approached(options.approach)
    coming = coming.advanced(
        np.where(palm, max(options.palm_clearance - options.clearance, 0.0), 0.0)
    )
    free = clear_of_points(candidates.X, coming, cloud.points)
    rows = np.flatnonzero(free)
    # Closed on the pads, no other part of the fingers may have met the object first.
    free[rows] = clear_of_points(
        candidates.X[rows], closed.select(rows).grown(-options.compliance), cloud.points
    )
    rows = np.flatnonzero(free)
    swept = sweep.select(rows).grown(options.clearance).approached(options.approach)
    free[rows] = clear_of_points(candidates.X[rows], swept, others)
    return free


def _judge(
    candidates: Candidates,
    centre: FloatArray | None,
    cloud: Surface,
    gripper: Gripper,
    options: GraspOptions,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X (R, 4, 4), opening (R,) and score (R,) in [0, 1] of the best candidates."""
    pads = candidates.closed
    about = np.zeros((len(candidates), 3))
    if centre is not None:
        about = np.einsum("gji,gj->gi", candidates.X[:, :3, :3], centre - candidates.X[:, :3, 3])
    depth = depth_in_hand(candidates.X, pads.width, cloud.points, gripper)
    logit = _PER_LEVER * np.linalg.norm(about, axis=1) + _PER_TWIST * np.hypot(
        about[:, 0], about[:, 2]
    )
    logit += _PER_SIDE * np.abs(about[:, 0])
    logit += _PER_DEPTH * depth + _PER_WIDTH * pads.width + _PER_TILT * pads.tilt.max(-1)
    # What is cheap to know sorts out the few that are worth the wrench space and the perturbations.
    best = np.argsort(-logit, kind="stable")[: options.refined]
    candidates, pads, logit = candidates.select(best), pads.select(best), logit[best]
    points, normals = pads.as_points()
    margin = force_margin(
        points,
        -normals,
        friction=options.friction,
        centre=about[best],
        length=_LENGTH,
        starts=8,
        iterations=12,
    )
    logit += _PER_MARGIN * margin + _PER_ROBUST * _robustness(candidates, gripper, options, rng)
    slack = 0.5 * (gripper.max_width - pads.width)
    room = np.clip(slack / max(options.position_error, 1e-9), 0, 1)
    return candidates.X, _opening(pads.width, gripper, options), room / (1 + np.exp(-logit))


def _robustness(
    candidates: Candidates, gripper: Gripper, options: GraspOptions, rng: np.random.Generator
) -> FloatArray:
    """(G,) mean over wrong poses and frictions of how well the pads lie on; the same errors for all candidates."""
    total = np.zeros(len(candidates))
    for _ in range(options.perturbations):
        turn = exp_so3(options.rotation_error * rng.normal(size=3))
        error = pose(turn, options.position_error * rng.normal(size=3))
        friction = options.friction * rng.uniform(0.6, 1.2)
        pads = candidates.close(candidates.X @ error, candidates.pair, gripper, options.compliance)
        total += pads.lies_on(gripper, friction)
    return total / options.perturbations
