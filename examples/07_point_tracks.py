"""Point tracks as a flow: noisy tracks of a video tracker or a scene-flow network become a plan.

    python examples/07_point_tracks.py --tracks your.npz

The file holds times (T,) in s, points (T, N, 3) in m, world frame, and confidence (T, N) in [0, 1];
0 marks what was not seen. Without --tracks such tracks are simulated: 300 points of a box, 2 mm of
noise, a third of them hidden at a time, one in twenty wrong. Prints a table of how far the tool is
from the truth, and writes index.html.
"""

from pathlib import Path

import numpy as np
import trimesh
import tyro

import flowplan as fp
from flowplan.geometry import angle_between, fit_rigid, inverse
from flowplan.motion import sample_flow
from flowplan.viz.page import write_page
from flowplan.viz.run import Run
from generators.kinematic import kinematic


def simulate_tracks(scene: fp.Scene, motion: fp.SceneMotion, path: Path) -> Path:
    """A tracker's view of a known motion."""
    rng = np.random.default_rng(0)
    flow = sample_flow(scene, motion, points_per_object=300)
    T, N = flow.confidence.shape
    points = flow.points + rng.normal(scale=2e-3, size=flow.points.shape)
    wrong = rng.random(N) < 0.05
    points[:, wrong] = points[:1, wrong]  # tracks that stick to the background
    hidden = (np.arange(N) + np.arange(T)[:, None]) % N < N // 3  # (T, N)
    np.savez(path, times=flow.times, points=points, confidence=np.where(hidden, 0.0, 1.0))
    return path


def main(tracks: Path | None = None, out: Path = Path("runs/examples/07_point_tracks")) -> Path:
    """Plan along point tracks.

    Args:
        tracks: .npz file with times, points and confidence.
        out: Folder for the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    box = fp.SceneObject(
        "box",
        trimesh.creation.box([0.06, 0.05, 0.10]).subdivide().subdivide(),
        fp.pose(translation=[0.45, -0.10, 0.051]),
    )
    scene = fp.Scene((box,), support_height=0.0)
    handles = box.vertices_world[:8]
    action = fp.Action("box", handles, targets=handles + [0.0, 0.2, 0.0], duration=3.0)
    (truth,) = kinematic([fp.Rigid("box", lift=0.10)])(scene, action)
    data = np.load(tracks or simulate_tracks(scene, truth, out / "tracks.npz"))

    # The tracks as a flow. All belong to object 0 of the scene.
    object_id = np.zeros(data["points"].shape[1], int)
    flow = fp.ObjectFlow(data["times"], data["points"], data["confidence"], object_id)

    # The surface over time, for collisions: here the weighted rigid fit of each frame to the first.
    weights = flow.confidence * flow.confidence[0]  # (T, N)
    X = fit_rigid(flow.points[0], flow.points, weights)  # (T, 4, 4)
    vertices = box.vertices_world @ np.swapaxes(X[:, :3, :3], 1, 2) + X[:, None, :3, 3]
    motion = fp.SceneMotion(flow.times, (vertices,))

    robot = fp.load_robot("panda")
    result = fp.plan(scene, motion, robot, flow=flow)
    print(fp.feasibility(result))
    if isinstance(result, fp.NoPlan):
        raise SystemExit(1)

    # How far the tool is from where the true motion would carry it.
    X_true = fit_rigid(truth.vertices[0][0], truth.vertices[0]) @ result.contact.X_world_tool[0]
    X_tool = result.attachment.X_world_tool
    distance = np.linalg.norm((inverse(X_true) @ X_tool)[:, :3, 3], axis=1)
    angle = np.degrees(angle_between(X_true[:, :3, :3], X_tool[:, :3, :3]))
    print("time, s   tool off by, mm   turned by, deg")
    for t in range(0, len(flow.times), 8):
        print(f"{flow.times[t]:7.2f} {1000 * distance[t]:17.1f} {angle[t]:16.1f}")

    run = Run.of_plan(scene, motion, result, robot, flow=flow)
    page = write_page(out / "index.html", run)
    print(f"wrote {page}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
