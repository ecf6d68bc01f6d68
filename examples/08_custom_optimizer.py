"""A custom optimizer: inverse kinematics frame by frame in place of the trajectory optimizer, in
one function.

    python examples/08_custom_optimizer.py

The validator shares no code with any optimizer, so a new one can be tried without being trusted.
Prints a table: three motions, planned with `lm` (the one that ships) and with this one.
"""

from pathlib import Path

import numpy as np
import trimesh
import tyro

import flowplan as fp
from flowplan.geometry import angle_between, transform
from flowplan.optimizers import TrackOptions, TrackProblem, TrackSolution
from generators.kinematic import kinematic


def frame_by_frame(
    problem: TrackProblem, options: TrackOptions = TrackOptions(), *, seed: int = 0
) -> TrackSolution:
    """Inverse kinematics of each pose, started from the solution of the pose before."""
    robot, wanted = problem.robot, problem.attachment.X_world_tool  # (T, 4, 4)
    q = [robot.home if problem.q_start is None else problem.q_start]
    for X in wanted:
        found, reached = robot.inverse_kinematics(X[None], seed=seed, q_near=q[-1])
        q.append(found[0] if reached[0] else q[-1])
    track = np.array(q[1:])  # (T, J)

    # How good it is: errors of the tool, clearances from the distance field, joint velocities.
    X_tool = robot.tool_pose(track)
    position = np.linalg.norm((X_tool - wanted)[:, :3, 3], axis=1)  # (T,)
    rotation = angle_between(X_tool[:, :3, :3], wanted[:, :3, :3])  # (T,)
    spheres = robot.spheres(track, problem.width)  # (T, S, 3)
    clearance = (problem.field.distance(spheres) - robot.sphere_radius).min(axis=1)
    held = np.full(len(track), np.inf)
    if len(problem.held_spheres):
        centers = transform(X_tool, problem.held_spheres[:, :3])  # (T, H, 3)
        held = (problem.field.distance(centers) - problem.held_spheres[:, 3]).min(axis=1)
    rate = np.abs(np.diff(track, axis=0)) / np.diff(problem.times)[:, None] / robot.velocity
    return TrackSolution(
        q=track,
        position_error=position,
        rotation_error=rotation,
        clearance=clearance,
        held_clearance=held,
        slowdown=max(1.0, float(rate.max())),
        converged=bool(position.max() < options.converged_position_error and clearance.min() > 0),
        iterations=len(track),
        cost=float((position**2).sum()),
    )


def main(out: Path = Path("runs/examples/08_custom_optimizer")) -> Path:
    """Compare two optimizers.

    Args:
        out: Folder for table.txt.
    """
    brick = fp.SceneObject(
        "brick",
        trimesh.creation.box([0.05, 0.04, 0.08]).subdivide().subdivide(),
        fp.pose(translation=[0.45, -0.10, 0.041]),
    )
    scene = fp.Scene((brick,), support_height=0.0)
    handles = brick.vertices_world[:8]
    generate = kinematic([fp.Rigid("brick", lift=0.10)])
    robot = fp.load_robot("panda")

    rows = [
        "x, y, z in cm    optimizer       contact  attempts  clearance, mm  longest joint path, rad"
    ]
    for way in ([0.0, 0.25, 0.0], [-0.15, 0.30, 0.10], [0.20, 0.10, 0.25]):
        action = fp.Action("brick", handles, targets=handles + way, duration=3.0)
        (motion,) = generate(scene, action)
        moved = " ".join(f"{100 * v:+4.0f}" for v in way)
        for name, optimizer in (("lm", "lm"), ("frame_by_frame", frame_by_frame)):
            result = fp.plan(scene, motion, robot, optimizer=optimizer)
            row = f"{moved:16s} {name:15s}"
            if isinstance(result, fp.NoPlan):
                rows.append(f"{row} none     {len(result.attempts):8d}")
                continue
            path = np.abs(np.diff(result.trajectory.q, axis=0)).sum(axis=0).max()
            rows.append(
                f"{row} {result.contact.kind[0]:8s} {len(result.attempts):8d} "
                f"{1000 * result.certificate.clearance:14.1f} {path:24.2f}"
            )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "table.txt"
    path.write_text("\n".join(rows) + "\n")
    print(path.read_text())
    return path


if __name__ == "__main__":
    tyro.cli(main)
