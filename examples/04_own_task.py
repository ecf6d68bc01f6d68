"""Your own task: a bowl is set on a plate in simulation, and the physical end state is judged.

    python examples/04_own_task.py

A depth camera scans the simulated world, the plan is executed, and the task measures what came of
it. Writes every stage's file, video.mp4 and index.html, a page that plays what was planned and what
happened.
"""

from pathlib import Path

import numpy as np
import tyro

from experiments.tasks.episode import EpisodeSpec
from experiments.tasks.record import run_and_record
from flowplan import Action, Prompt, Rigid
from generators.kinematic import kinematic
from sim_envs.task import Task, TaskSetup, body_points, draw, stand
from sim_envs.tasks import TASKS
from sim_envs.world import World


def move_bowl(world: World, rng: np.random.Generator) -> TaskSetup:
    """Move a bowl 25 cm to the left, beside a pan that stands in the way."""
    # Pose, friction, mass and scan noise are drawn at random, from the seed.
    drawn = draw(rng, x=0.5, y=-0.15, yaw=0.0)
    bowl = stand(world, "white_bowl", drawn)
    ramekin = stand(world, "ramekin", drawn | {"x": 0.5, "y": 0.30})
    world.settle()

    handles = body_points(world, bowl, "white_bowl", 12)  # (12, 3)
    goal = world.link_pose(bowl)[:3, 3] + [0.0, 0.25, 0.0]
    return TaskSetup(
        objects={"white_bowl": bowl},
        obstacles={"ramekin": ramekin},
        instruction=Action("white_bowl", handles, targets=handles + [0.0, 0.25, 0.0], duration=3.0),
        laws=(Rigid("white_bowl", lift=0.08),),
        measure=lambda w: {"distance": float(np.linalg.norm(w.link_pose(bowl)[:3, 3] - goal))},
        success=lambda measures: measures["distance"] < 0.04,
        randomized=drawn,
    )


def main(seed: int = 0, video: bool = True, out: Path = Path("runs/examples/04_own_task")) -> Path:
    """Run a task of one's own.

    Args:
        seed: Random seed of the world and the planner.
        video: Film the execution.
        out: Folder for the files.
    """
    # A line in sim_envs/tasks.py does this for good, and makes `flowplan run move_bowl` work.
    TASKS["move_bowl"] = Task("move_bowl", Prompt("move the bowl to the left"), move_bowl)

    spec = EpisodeSpec("move_bowl", "panda", "kinematic", "planner", seed)
    episode, report = run_and_record(spec, kinematic, out, video=video)
    print(report)
    print(f"{episode.outcome}: the bowl stands {1000 * episode.measures['distance']:.0f} mm off")
    page = out / "index.html"
    print(f"wrote {page}")
    return page


if __name__ == "__main__":
    tyro.cli(main)
