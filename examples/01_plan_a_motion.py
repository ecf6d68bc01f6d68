"""Plan a motion: a brick is lifted over a wall and set down on the other side.

    python examples/01_plan_a_motion.py

Writes scene, motion and plan as .npz files, and index.html, a page that plays the plan in any
browser.
"""

from pathlib import Path

import trimesh
import tyro

import flowplan as fp
from flowplan.viz.page import write_page
from flowplan.viz.run import Run
from generators.kinematic import kinematic


def main(out: Path = Path("runs/examples/01_plan_a_motion")) -> Path:
    """Plan a motion.

    Args:
        out: Folder for the files.
    """
    # The scene. World frame: z up, table top at z = 0, robot at the origin facing +x; meters.
    brick = fp.SceneObject(
        "brick",
        trimesh.creation.box([0.05, 0.04, 0.08]).subdivide().subdivide(),
        fp.pose(translation=[0.45, -0.10, 0.041]),
    )
    wall = fp.SceneObject(
        "wall",
        trimesh.creation.box([0.30, 0.02, 0.10]),
        fp.pose(translation=[0.45, 0.025, 0.051]),
    )
    scene = fp.Scene((brick,), support_height=0.0, obstacles=(wall,))

    # The motion: eight points of the brick go 25 cm to the left, 15 cm above the straight line.
    handles = brick.vertices_world[:8]  # (8, 3)
    action = fp.Action("brick", handles, targets=handles + [0.0, 0.25, 0.0], duration=3.0)
    (motion,) = kinematic([fp.Rigid("brick", lift=0.15)])(scene, action)

    # The plan: contact, joint trajectory, certificate. A NoPlan says why there is none.
    robot = fp.load_robot("panda")
    result = fp.plan(scene, motion, robot)
    print(fp.feasibility(result))
    if isinstance(result, fp.NoPlan):
        raise SystemExit(1)
    trajectory = result.trajectory
    print(f"{trajectory.q.shape[0]} samples of {', '.join(trajectory.joint_names)}")

    out.mkdir(parents=True, exist_ok=True)
    fp.save(out / "scene.npz", scene)
    fp.save(out / "motion.npz", motion)
    fp.save(out / "plan.npz", result)
    page = write_page(out / "index.html", Run.of_plan(scene, motion, result, robot))
    print(f"wrote {page}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
