"""Pinches: the edge of a cloth that lies on its support, between two fingers that come from above.

Nothing fits under a cloth, so a pinch straddles its edge: one fingertip outside, one over the cloth, the hand leaning
outward by an inclination that keeps it off the table, the tips just above it. Where the cloth ends is seen from its
points alone: around an interior point they lie on all sides, around an edge point on one side (the mean of the
directions to them is 0.64 of their mean length), around a corner in a quarter (0.9). The best place to hold is the
one that the motion takes the farthest: the rest of the cloth follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from flowplan.geometry import exp_so3, pose
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.proposal import Proposal, best_first, no_candidates, spread
from flowplan.grasp.records import ContactCandidates
from flowplan.grasp.surface import neighbours, track_surface
from flowplan.motion import SceneMotion
from flowplan.scene import Scene
from flowplan.utils import checks
from flowplan.utils.checks import FloatArray

if TYPE_CHECKING:
    from flowplan.robot.gripper import Gripper

_ONE_SIDED = 0.52
"""Mean over length of the directions to a point's neighbours above which it lies at an edge."""


@dataclass(frozen=True)
class PinchOptions:
    """How pinches are searched and judged."""

    count: int = 60
    """Pinches returned at most."""
    opening: float = 0.02
    """Metres between the fingers before they close."""
    inset: float = 0.006
    """Metres from the edge inward that the fingers close on."""
    clearance: float = 0.002
    """Metres between the fingertips and the support."""
    inclinations: tuple[float, ...] = (0.0, 0.3)
    """Radians that the hand leans outward."""
    turns: tuple[float, ...] = (-0.6, 0.0, 0.6)
    """Radians that the closing line is turned from square to the edge, about the vertical."""
    approach: float = 0.06
    """Metres of straight approach that must be free of other objects."""
    samples: int = 3000
    """Surface points looked at."""
    radius: float = 0.025
    """Metres around a point in which its neighbours are counted."""

    def __post_init__(self) -> None:
        for name in ("count", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"PinchOptions.{name}: expected at least 1, got {getattr(self, name)}"
                )
        checks.positive("PinchOptions.opening", self.opening)
        checks.positive("PinchOptions.radius", self.radius)
        for name in ("inset", "clearance", "approach"):
            checks.positive(f"PinchOptions.{name}", getattr(self, name), zero=True)


def propose_pinches(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PinchOptions | None = None,
    *,
    seed: int = 0,
) -> ContactCandidates:
    """Pinches of the moving edge of sheet `target`, best first; empty where there is none.

    Args:
        scene: what there is; without a support the sheet's lowest point stands for it.
        motion: how the sheet should move.
        target: index of the sheet.
        gripper: of the robot.
        options: see PinchOptions.
        seed: of the sampling.
    """
    return pinch_proposal(scene, motion, target, gripper, options, seed=seed).grasps


def pinch_proposal(
    scene: Scene,
    motion: SceneMotion,
    target: int,
    gripper: Gripper,
    options: PinchOptions | None = None,
    *,
    seed: int = 0,
) -> Proposal:
    """As `propose_pinches`, with the number of candidates left after each stage."""
    options = options or PinchOptions()
    rng = np.random.default_rng(seed)
    obj = scene.objects[target]
    frames = np.unique(np.linspace(0, len(motion.times) - 1, 9).round().astype(int))
    tracks = track_surface(obj, motion, target, frames, options.samples, rng)
    funnel = [("moving surface points", len(tracks))]
    support = (
        scene.support_height
        if scene.support_height is not None
        else float(obj.vertices_world[:, 2].min())
    )
    # All of the sheet tells where it ends; only what moves is worth holding.
    point, outward, sidedness = _edge(obj.vertices_world, tracks.points[0], options)
    funnel.append(("at an edge", len(point)))
    if not len(point):
        return Proposal(no_candidates(), tuple(funnel))
    far = np.linalg.norm(tracks.points - tracks.points[0], axis=-1).max(0)
    way = far[cKDTree(tracks.points[0]).query(point)[1]] / far.max()
    X, source, lean = _tool_poses(point, outward, support, gripper, options)
    funnel.append(("tool poses", len(X)))
    boxes = gripper_boxes(gripper, np.full(len(X), min(options.opening, gripper.max_width)))
    others = neighbours(obj, scene, options.approach + 0.3, rng)
    free = clear_of_points(X, boxes.grown(options.clearance).approached(options.approach), others)
    X, source, lean = X[free], source[free], lean[free]
    funnel.append(("clear of other objects", len(X)))
    # A corner is free on two sides; an upright hand brings both fingertips down to the sheet.
    score = way[source] ** 2 * (0.5 + 0.5 * sidedness[source]) * (1 - 0.5 * lean)
    chosen = spread(X, score, options.count, distance=0.015, angle=0.3)
    width = np.full(len(chosen), min(options.opening, gripper.max_width))
    grasps = best_first(X[chosen], width, score[chosen], "pinch", target)
    funnel.append(("different from each other", len(grasps)))
    return Proposal(grasps, tuple(funnel))


def _edge(
    vertices: FloatArray, moving: FloatArray, options: PinchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Moving points (P, 3) at the edge, horizontal outward directions (P, 3), and how one-sided each lies (P,)."""
    if not len(moving):
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    points = np.concatenate([moving, vertices])
    tree = cKDTree(points[:, :2])
    near = tree.query_ball_point(moving[:, :2], options.radius)
    away = np.zeros((len(moving), 2))
    ratio = np.zeros(len(moving))
    for i, rows in enumerate(near):
        offset = points[rows, :2] - moving[i, :2]
        mean, length = offset.mean(0), np.linalg.norm(offset, axis=1).mean()
        if length > 1e-9:
            ratio[i] = np.linalg.norm(mean) / length
            away[i] = -mean / max(float(np.linalg.norm(mean)), 1e-12)
    edge = np.flatnonzero(ratio > _ONE_SIDED)
    edge = edge[
        spread(pose(translation=moving[edge]), ratio[edge], 80, distance=0.015, angle=np.inf)
    ]
    return moving[edge], np.pad(away[edge], ((0, 0), (0, 1))), np.clip(ratio[edge], 0, 1)


def _tool_poses(
    point: FloatArray, outward: FloatArray, support: float, gripper: Gripper, options: PinchOptions
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X_world_tool (G, 4, 4) with the tips just above the support, the point (G,) and the inclination (G,) of each."""
    up = np.array([0.0, 0.0, 1.0])
    X, source, lean = [], [], []
    for turn in options.turns:
        side = outward @ exp_so3(turn * up).T
        for inclination in options.inclinations:
            z = -np.cos(inclination) * up - np.sin(inclination) * side
            y = np.cos(inclination) * side - np.sin(inclination) * up
            R = np.stack([np.cross(y, z), y, z], axis=-1)
            origin = point - options.inset * outward - gripper.finger_depth * z
            X.append(pose(R, origin))
            source.append(np.arange(len(point)))
            lean.append(np.full(len(point), inclination))
    poses = np.concatenate(X)
    boxes = gripper_boxes(gripper, np.full(len(poses), min(options.opening, gripper.max_width)))
    poses[:, 2, 3] += support + options.clearance - lowest_point(poses, boxes)
    return poses, np.concatenate(source), np.concatenate(lean)
