"""Fit of the `[spheres]` table of a robot file: balls that cover each link's collision hull and
barely exceed it.

A ball of radius d + s around a point at depth d inside a convex hull exceeds it by at most s.
Candidates are such balls around a grid of inner points. A few that together contain the hull's
surface are chosen greedily (set cover). If the wanted s needs more balls than allowed, s grows by
half a millimeter until they suffice.

    python tools/fit_spheres.py panda --most 8
    python tools/fit_spheres.py ur5e --most 11
"""

import argparse
import sys

import numpy as np
import trimesh
from scipy.spatial.distance import cdist

from flowplan.robot import load_robot


def depth(hull: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Distances (N,) from points inside a convex hull to its surface, meters, negative outside."""
    offset = np.einsum("fc,fc->f", hull.face_normals, hull.triangles[:, 0])
    return (offset - points @ hull.face_normals.T).min(axis=1)


def cover(inside: np.ndarray) -> list[int]:
    """Small subset of the C candidates whose columns of `inside` (P, C) together cover every point:
    greedy, then pruned."""
    left = np.ones(len(inside), bool)
    chosen: list[int] = []
    while left.any():
        # The candidate that covers most of what is left.
        best = int(inside[left].sum(axis=0).argmax())
        chosen.append(best)
        left &= ~inside[:, best]
    for candidate in list(chosen):
        others = [c for c in chosen if c != candidate]
        if inside[:, others].any(axis=1).all():
            chosen = others
    return chosen


def fit(hull: trimesh.Trimesh, reach: float, most: int, slack: float) -> tuple[np.ndarray, float]:
    """Balls (K, 4) for a convex hull and their excess: `reach` m, more if `most` balls are too
    few."""
    # Points to be covered, and a grid of candidate centers inside.
    points = np.concatenate([hull.sample(5000, seed=0), hull.vertices])
    lower, upper = hull.bounds
    step = (np.prod(upper - lower) / 8000) ** (1 / 3)
    axes = [np.arange(a, b, step) for a, b in zip(lower + step / 2, upper, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 3)
    centers = grid[depth(hull, grid) > 0]
    inner, distance = depth(hull, centers), cdist(points, centers)
    while True:
        # A ball grown by the slack covers points that the ball misses by no more than the slack.
        inside = distance <= inner + reach + slack
        if inside.any(axis=1).all() and len(chosen := cover(inside)) <= most:
            return np.column_stack([centers[chosen], inner[chosen] + reach]), reach
        reach += 0.0005


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("robot", help="name, or path of a robot file")
    parser.add_argument(
        "--arm", type=float, default=0.02, help="meters by which balls may stick out of an arm link"
    )
    parser.add_argument(
        "--hand", type=float, default=0.013, help="the same for the gripper's hand links"
    )
    parser.add_argument("--finger", type=float, default=0.005, help="the same for its finger links")
    parser.add_argument(
        "--slack", type=float, default=0.003, help="meters of a hull that may be left out"
    )
    parser.add_argument(
        "--most", type=int, default=8, help="balls per link at most, whatever they stick out then"
    )
    args = parser.parse_args()
    robot = load_robot(args.robot)
    for link, hull in robot.collision_meshes.items():
        finger, hand = link in robot.gripper.finger_links, link in robot.gripper.hand_links
        reach = args.finger if finger else args.hand if hand else args.arm
        balls, out = fit(hull, reach, args.most, args.slack)
        rows = "\n".join("    [" + ", ".join(f"{v:.4f}" for v in ball) + "]," for ball in balls)
        sys.stdout.write(f"# at most {1000 * out:.1f} mm beyond the hull\n{link} = [\n{rows}\n]\n")


if __name__ == "__main__":
    main()
