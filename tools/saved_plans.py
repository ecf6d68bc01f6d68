"""Plans of fixed seeds, saved before a change and compared after it.

    python tools/saved_plans.py save before.npz
    python tools/saved_plans.py compare before.npz after.npz

All tasks with both arms are scanned, animated by the kinematic generator and planned for, seeds 900
to 904. A plan is the same if its trajectory, contact and motion agree bit for bit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.tasks.episode import scan
from flowplan.planner import NoPlan, plan
from flowplan.robot import load_robot
from generators.registry import factory
from sim_envs.arm import Arm
from sim_envs.scan_views import capture_views
from sim_envs.tasks import TASKS
from sim_envs.world import World, WorldOptions

ROBOTS = ("panda", "ur5e")
SEEDS = range(900, 905)


def saved(task: str, robot_name: str, seed: int) -> dict[str, NDArray[Any]]:
    """Arrays of the plan for one episode."""
    robot = load_robot(robot_name)
    with World(WorldOptions(deformable=TASKS[task].deformable)) as world:
        Arm.add(world, robot)
        setup = TASKS[task].setup(world, np.random.default_rng(seed))
        frames = capture_views(world, setup, seed=seed)
    scene = scan(frames, setup)
    (motion, *_) = factory("kinematic")(setup.laws)(scene, setup.instruction, seed=seed)
    found = plan(scene, motion, robot, seed=seed)
    if isinstance(found, NoPlan):
        return {"reason": np.array(found.reason)}
    return {
        "q": found.trajectory.q,
        "times": found.trajectory.times,
        "X": found.contact.X_world_tool,
        "flow": np.concatenate([vertices[-1] for vertices in motion.vertices]),
    }


def save(path: Path) -> None:
    """Write the plans of all episodes."""
    arrays: dict[str, NDArray[Any]] = {}
    for seed in SEEDS:
        for task in TASKS:
            for robot in ROBOTS:
                key = f"{task}/{robot}/{seed}"
                arrays |= {f"{key}/{name}": a for name, a in saved(task, robot, seed).items()}
                print(key, file=sys.stderr)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def compare(before: Path, after: Path) -> int:
    """Print the plans that differ; returns their number."""
    old, new = np.load(before), np.load(after)
    episodes = sorted({key.rpartition("/")[0] for key in old.files})
    differ = []
    for episode in episodes:
        keys = [key for key in old.files if key.startswith(episode + "/")]
        if not all(key in new.files and np.array_equal(old[key], new[key]) for key in keys):
            differ.append(episode)
    print(f"{len(episodes) - len(differ)} of {len(episodes)} plans are the same", *differ, sep="\n")
    return len(differ)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["save", path]:
            save(Path(path))
        case ["compare", before, after]:
            sys.exit(min(1, compare(Path(before), Path(after))))
        case _:
            sys.exit(__doc__)
