"""Prints the `[spheres]` table of a robot file: balls that cover each link's collision hull and hardly stick out of it.

A ball around a point at depth d inside a convex hull, of radius d + s, reaches at most s beyond the hull. So candidates
are such balls around a grid of inner points, and the fewest that together contain the hull's surface are chosen greedily
(set cover). The smallest s for which a link's allowance of balls suffices is found by bisection.

    python robot_configs/fit_spheres.py panda
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


def fit(hull: trimesh.Trimesh, most: int, slack: float) -> tuple[np.ndarray, float]:
    """At most that many balls for a convex hull that leave out at most `slack` metres of it, and how far they stick out."""
    points = np.concatenate([hull.sample(1500, seed=0), hull.vertices])
    lower, upper = hull.bounds
    step = (np.prod(upper - lower) / 4000) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(a, b, step) for a, b in zip(lower, upper, strict=True)]), -1).reshape(-1, 3)
    centers = grid[depth(hull, grid) > 0]
    inner = depth(hull, centers)
    low, high = 0.0, float(np.linalg.norm(upper - lower))
    balls = np.zeros((0, 4))
    while high - low > 2e-4:
        middle = (low + high) / 2
        found = cover(points, centers, inner + middle + slack, most)
        if found is None:
            low = middle
        else:
            high, balls = middle, found - [0, 0, 0, slack]
    return balls, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot", help="name, or path of a robot file")
    parser.add_argument("--slack", type=float, default=0.003, help="metres of a hull that may be left out")
    parser.add_argument("--count", type=int, default=7, help="balls per link at most")
    parser.add_argument("--hand", type=int, default=10, help="the same for the gripper's hand")
    parser.add_argument("--finger", type=int, default=8, help="the same for each finger link")
    args = parser.parse_args()
    robot = load_robot(args.robot)
    for link, hull in robot.collision_meshes.items():
        gripper = robot.gripper
        most = args.finger if link in gripper.finger_links else args.hand if link in gripper.hand_links else args.count
        balls, out = fit(hull, most, args.slack)
        rows = "\n".join("    [" + ", ".join(f"{v:.4f}" for v in ball) + "]," for ball in balls)
        sys.stdout.write(f"# at most {1000 * out:.1f} mm beyond the hull\n{link} = [\n{rows}\n]\n")


if __name__ == "__main__":
    main()
