"""Pinches: the edge of a cloth lying on its support, held between two fingers from above.

Nothing fits under a cloth, so a pinch straddles its edge: one fingertip outside, one above the
cloth, the hand leaning outward by an inclination that keeps it off the table, the tips just above
it. The cloth's edge is detected from its points alone: an interior point has neighbors on all
sides, an edge point on one side (the mean of the directions to them is 0.64 of their mean length),
a corner in one quarter (0.9). The best place to hold is the one that the motion moves the
farthest, since the rest of the cloth follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from flowplan.geometry import exp_so3, pose
from flowplan.grasp.candidates import (
    ContactCandidates,
    Proposal,
    best_first,
    no_candidates,
    spread,
)
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.surface import (
    Tracks,
    even_frames,
    neighbor_points,
    track_surface,
)
from flowplan.motion import SceneMotion
from flowplan.scene import Scene
from flowplan.utils import bounds
from flowplan.utils.bounds import Interval
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_ONE_SIDED = 0.52
"""Mean over mean length of the directions to a point's neighbors, from which it is an edge."""
_EDGE_POINTS = 80
"""Largest number of edge points."""
_EDGE_SPACING = 0.015
"""Distance between edge points, and between pinches, meters."""
_FRAMES = 9
"""Times of the motion at which the displacement is measured."""
_HAND_REACH = 0.3
"""Distance beyond the approach at which other objects can touch the hand, meters."""


@dataclass(frozen=True)
class PinchOptions:
    """Search and ranking of pinches."""

    count: Annotated[int, Interval(1, 10_000)] = 60
    """Largest number of pinches returned."""
    opening: Annotated[float, Interval(0.001, 0.5)] = 0.02
    """Finger opening before closing, meters."""
    inset: Annotated[float, Interval(0, 0.1)] = 0.006
    """Distance from the edge inward at which the fingers close, meters."""
    clearance: Annotated[float, Interval(0, 0.1)] = 0.002
    """Clearance between the fingertips and the support, meters."""
    inclinations: Annotated[tuple[float, ...], Interval(0, 1.5)] = (0.0, 0.3)
    """Angles by which the hand leans outward, radians."""
    turns: Annotated[tuple[float, ...], Interval(-3.2, 3.2)] = (-0.6, 0.0, 0.6)
    """Angles about the vertical between the closing line and the outward direction, radians."""
    approach: Annotated[float, Interval(0, 1)] = 0.06
    """Length of the straight approach that must be free, meters."""
    samples: Annotated[int, Interval(1, 1_000_000)] = 3000
    """Number of points sampled on the cloth."""
    radius: Annotated[float, Interval(0.001, 0.5)] = 0.025
    """Radius of the neighborhood that tells an edge from the interior, meters."""

    def __post_init__(self) -> None:
        bounds.check(self)


def propose_pinches(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PinchOptions | None = None,
    *,
    seed: int = 0,
) -> ContactCandidates:
    """Pinches of the moving edge of cloth `target`, best first; empty if there are none.

    Args:
        scene: The scene. Without a support, the cloth's lowest point takes its place.
        motion: Motion of the scene.
        target: Index of the cloth among the scene's objects.
        gripper: Gripper of the robot.
        options: See PinchOptions.
        seed: Random seed.
    """
    return pinch_proposal(scene, motion, target, gripper, options, seed=seed).candidates


def pinch_proposal(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PinchOptions | None = None,
    *,
    seed: int = 0,
) -> Proposal:
    """`propose_pinches` with the number of candidates left after each stage."""
    options = options or PinchOptions()
    rng = np.random.default_rng(seed)
    obj = scene.objects[target]
    frames = even_frames(len(motion.times), _FRAMES)
    tracks = track_surface(obj, motion, target, frames, options.samples, rng)
    funnel = [("moving surface points", len(tracks))]
    support = scene.support_height
    if support is None:
        support = float(obj.vertices_world[:, 2].min())

    # Edge points. All of the cloth tells where it ends, but only moving points are worth holding.
    point, outward, sidedness = _edge(obj.vertices_world, tracks.points[0], options)
    funnel.append(("at an edge", len(point)))
    if not len(point):
        return Proposal(no_candidates(), tuple(funnel))
    displacement = _displacement(tracks, point)

    # Tool poses that stay clear of other objects.
    X, source, lean = _tool_poses(point, outward, support, gripper, options)
    funnel.append(("tool poses", len(X)))
    opening = min(options.opening, gripper.max_width)
    boxes = gripper_boxes(gripper, np.full(len(X), opening))
    others = neighbor_points(obj, scene, options.approach + _HAND_REACH, rng)
    swept = boxes.grown(options.clearance).approached(options.approach)
    free = clear_of_points(X, swept, others)
    X, source, lean = X[free], source[free], lean[free]
    funnel.append(("clear of other objects", len(X)))

    # A corner is free on two sides; an upright hand brings both fingertips down to the cloth.
    score = displacement[source] ** 2 * (0.5 + 0.5 * sidedness[source]) * (1 - 0.5 * lean)
    chosen = spread(X, score, options.count, distance=_EDGE_SPACING, angle=0.3)
    width = np.full(len(chosen), opening)
    found = best_first(X[chosen], width, score[chosen], "pinch", target)
    funnel.append(("different from each other", len(found)))
    return Proposal(found, tuple(funnel))


def _displacement(tracks: Tracks, points: FloatArray) -> FloatArray:
    """(P,) largest displacement of the track nearest to each point, relative to the largest."""
    from scipy.spatial import cKDTree

    farthest = np.linalg.norm(tracks.points - tracks.points[0], axis=-1).max(0)
    nearest = cKDTree(tracks.points[0]).query(points)[1]
    return farthest[nearest] / farthest.max()


def _edge(
    vertices: FloatArray, moving: FloatArray, options: PinchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Moving points at the cloth's edge.

    Args:
        vertices: (V, 3) vertices of all of the cloth, world frame.
        moving: (M, 3) moving points on it.
        options: See PinchOptions.

    Returns:
        Points (P, 3), their horizontal outward directions (P, 3), and their sidedness (P,) in
        [0, 1]: the mean over the mean length of the directions to their neighbors.
    """
    from scipy.spatial import cKDTree

    if not len(moving):
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    points = np.concatenate([moving, vertices])
    tree = cKDTree(points[:, :2])
    neighborhoods = tree.query_ball_point(moving[:, :2], options.radius)
    away = np.zeros((len(moving), 2))
    ratio = np.zeros(len(moving))
    for i, rows in enumerate(neighborhoods):
        offset = points[rows, :2] - moving[i, :2]
        mean = offset.mean(0)
        length = np.linalg.norm(offset, axis=1).mean()
        if length > 1e-9:
            ratio[i] = np.linalg.norm(mean) / length
            away[i] = -mean / max(float(np.linalg.norm(mean)), 1e-12)
    # The most one-sided points, apart from each other.
    edge = np.flatnonzero(ratio > _ONE_SIDED)
    X = pose(translation=moving[edge])
    edge = edge[spread(X, ratio[edge], _EDGE_POINTS, distance=_EDGE_SPACING, angle=np.inf)]
    outward = np.pad(away[edge], ((0, 0), (0, 1)))
    return moving[edge], outward, np.clip(ratio[edge], 0, 1)


def _tool_poses(
    point: FloatArray, outward: FloatArray, support: float, gripper: Gripper, options: PinchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tool poses with the fingertips just above the support.

    Returns:
        X_world_tool (G, 4, 4), and the point (G,) and inclination (G,) of each.
    """
    up = np.array([0.0, 0.0, 1.0])
    X, source, lean = [], [], []
    for turn in options.turns:
        side = outward @ exp_so3(turn * up).T
        for inclination in options.inclinations:
            # The hand leans outward about the edge and closes across it.
            z = -np.cos(inclination) * up - np.sin(inclination) * side
            y = np.cos(inclination) * side - np.sin(inclination) * up
            R = np.stack([np.cross(y, z), y, z], axis=-1)
            origin = point - options.inset * outward - gripper.finger_depth * z
            X.append(pose(R, origin))
            source.append(np.arange(len(point)))
            lean.append(np.full(len(point), inclination))
    poses = np.concatenate(X)
    # Lower or raise each pose to the clearance above the support.
    opening = min(options.opening, gripper.max_width)
    boxes = gripper_boxes(gripper, np.full(len(poses), opening))
    poses[:, 2, 3] += support + options.clearance - lowest_point(poses, boxes)
    return poses, np.concatenate(source), np.concatenate(lean)
