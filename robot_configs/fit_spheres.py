"""Prints the `[spheres]` table of a robot file: balls that cover each link's collision hull and hardly stick out of it.

A ball around a point at depth d inside a convex hull, of radius d + s, reaches at most s beyond the hull. So candidates
are such balls around a grid of inner points, and few that together contain the hull's surface are chosen greedily (set
cover). Where the wanted s takes more balls than allowed, the smallest s for which they suffice is found by bisection.

    python robot_configs/fit_spheres.py panda --most 8
    python robot_configs/fit_spheres.py ur5e --most 11
"""

import argparse
import sys

import numpy as np
import trimesh

from flowplan.robot import load_robot


def depth(hull: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Metres (N,) from points inside a convex hull to its surface, negative outside."""
    offset = np.einsum("fc,fc->f", hull.face_normals, hull.triangles[:, 0])
    return (offset - points @ hull.face_normals.T).min(axis=1)


def cover(points: np.ndarray, centers: np.ndarray, radii: np.ndarray, most: int) -> np.ndarray | None:
    """Balls (<= most, 4), greedily chosen, that contain all points; None where that many do not suffice."""
    inside = np.linalg.norm(points[:, None] - centers, axis=-1) <= radii
    left = np.ones(len(points), bool)
    chosen = []
    while left.any() and len(chosen) < most:
        best = int(inside[left].sum(axis=0).argmax())
        chosen.append(best)
        left &= ~inside[:, best]
    return None if left.any() else np.column_stack([centers[chosen], radii[chosen]])


def fit(hull: trimesh.Trimesh, reach: float, most: int, slack: float) -> tuple[np.ndarray, float]:
    """The balls of a convex hull, and by how many metres they stick out of it: `reach`, more where `most` are too few."""
    points = np.concatenate([hull.sample(1500, seed=0), hull.vertices])
    lower, upper = hull.bounds
    step = (np.prod(upper - lower) / 4000) ** (1 / 3)
    axes = [np.arange(a, b, step) for a, b in zip(lower + step / 2, upper, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 3)
    centers = grid[depth(hull, grid) > 0]
    # A ball grown by the slack covers what the ball leaves out by no more than the slack.
    grown = depth(hull, centers) + slack
    low, high = reach, float(np.linalg.norm(upper - lower))
    balls = cover(points, centers, grown + low, most)
    if balls is not None:
        return balls - [0, 0, 0, slack], low
    while balls is None or high - low > 2e-4:
        middle = (low + high) / 2
        found = cover(points, centers, grown + middle, most)
        if found is None:
            low = middle
        else:
            high, balls = middle, found
    return balls - [0, 0, 0, slack], high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", help="name, or path of a robot file")
    parser.add_argument("--arm", type=float, default=0.02, help="metres by which balls may stick out of an arm link")
    parser.add_argument("--hand", type=float, default=0.013, help="the same for the gripper's hand links")
    parser.add_argument("--finger", type=float, default=0.005, help="the same for its finger links")
    parser.add_argument("--slack", type=float, default=0.003, help="metres of a hull that may be left out")
    parser.add_argument("--most", type=int, default=8, help="balls per link at most, whatever they stick out then")
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
