"""A plan that ends holding: a ramekin is lifted, carried over a plate and tilted, in simulation.

    python examples/10_pour.py

Let go in the air it would fall, so the plan ends with the manipulation: no release, no retreat, and
the report says why. The task is judged while the ramekin is held. Writes every stage's file,
video.mp4 and index.html.
"""

from pathlib import Path

import numpy as np
import tyro

from experiments.tasks.episode import EpisodeSpec
from experiments.tasks.record import run_and_record
from flowplan import Action, Prompt, Rigid
from flowplan.geometry import rotation_about, transform
from generators.kinematic import kinematic
from sim_envs.task import Task, TaskSetup, body_points, draw, leak, stand, tilt
from sim_envs.tasks import TASKS
from sim_envs.world import World

ASKED = np.radians(70)


def pour(world: World, rng: np.random.Generator) -> TaskSetup:
    """Tilt a ramekin by 70 degrees, 20 cm above a plate."""
    drawn = draw(rng, x=0.5, y=-0.15, yaw=0.0)
    ramekin = stand(world, "ramekin", drawn)
    plate = stand(world, "plate", drawn | {"x": 0.5, "y": 0.15})
    world.settle()

    # Its points tilted about the x axis through its middle, then carried over the plate.
    handles = body_points(world, ramekin, "ramekin", 12)  # (12, 3)
    X_tilt = rotation_about(handles.mean(axis=0), [-1, 0, 0], ASKED)
    targets = transform(X_tilt, handles) + [0.0, 0.2, 0.2]
    plate_moved = leak(world, [(plate, link) for link in world.link_poses(plate)])

    def measure(world: World) -> dict[str, float]:
        X = world.link_pose(ramekin)
        return {"tilt": tilt(X), "height": float(X[2, 3]), "leak": plate_moved()}

    return TaskSetup(
        objects={"ramekin": ramekin},
        obstacles={"plate": plate},
        instruction=Action("ramekin", handles, targets=targets, duration=4.0),
        laws=(Rigid("ramekin", lift=0.05),),
        measure=measure,
        success=lambda m: abs(m["tilt"] - ASKED) < np.radians(15) and m["height"] > 0.1,
        randomized=drawn,
    )


def main(seed: int = 0, video: bool = True, out: Path = Path("runs/examples/10_pour")) -> Path:
    """Run the task and print how the plan ends.

    Args:
        seed: Random seed of the world and the planner.
        video: Film the execution.
        out: Folder for the files.
    """
    TASKS["pour"] = Task("pour", Prompt("pour onto the plate"), pour)

    spec = EpisodeSpec("pour", "panda", "kinematic", "planner", seed)
    episode, report = run_and_record(spec, kinematic, out, video=video)
    print(report)
    tilted = np.degrees(episode.measures["tilt"])
    print(f"{episode.outcome}: held tilted by {tilted:.0f} degrees")
    page = out / "index.html"
    print(f"wrote {page}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
