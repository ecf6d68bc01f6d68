"""A batch of scenes: random boxes at random places, planned in parallel, with a table of what came
of them.

    python examples/09_batch_of_scenes.py --scenes 20 --workers 2

Every plan is a line in plans.jsonl, written as soon as it is there; a run that was interrupted goes
on where it was.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
import tyro

import flowplan as fp
from generators.kinematic import kinematic


def plan_scene(seed: int) -> dict[str, Any]:
    """One scene, made and planned from its seed."""
    rng = np.random.default_rng(seed)
    size = rng.uniform([0.03, 0.03, 0.06], [0.07, 0.10, 0.14])
    mesh = trimesh.creation.box(size).subdivide().subdivide()
    place = [rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), size[2] / 2 + 0.001]
    box = fp.SceneObject("box", mesh, fp.pose(translation=place))
    post = fp.SceneObject(
        "post",
        trimesh.creation.cylinder(radius=0.02, height=0.4),
        fp.pose(translation=[rng.uniform(0.35, 0.65), rng.uniform(-0.3, 0.3), 0.2]),
    )
    apart = np.linalg.norm(box.X_world_object[:2, 3] - post.X_world_object[:2, 3]) > 0.1
    scene = fp.Scene((box,), support_height=0.0, obstacles=(post,) if apart else ())

    handles = box.vertices_world[:8]
    way = np.append(rng.uniform(-0.2, 0.2, 2), 0.0)
    action = fp.Action("box", handles, targets=handles + way, duration=3.0)
    (motion,) = kinematic([fp.Rigid("box", lift=0.1)])(scene, action)

    start = time.perf_counter()
    result = fp.plan(scene, motion, fp.load_robot("panda"), seed=seed)
    row: dict[str, Any] = {"seed": seed, "planned": False, "contact": "", "clearance_mm": None}
    if isinstance(result, fp.Plan):
        clearance = round(1000 * result.certificate.clearance, 1)
        row |= {"planned": True, "contact": result.contact.kind[0], "clearance_mm": clearance}
    row["attempts"] = len(result.attempts)
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def main(
    scenes: int = 8, workers: int = 2, out: Path = Path("runs/examples/09_batch_of_scenes")
) -> Path:
    """Plan a batch.

    Args:
        scenes: Number of scenes; seeds count from 0.
        workers: Processes.
        out: Folder for plans.jsonl.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plans.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    todo = sorted(set(range(scenes)) - {row["seed"] for row in done})
    with ProcessPoolExecutor(workers) as pool, path.open("a") as file:
        for row in pool.map(plan_scene, todo):
            file.write(json.dumps(row) + "\n")
            file.flush()
            done.append(row)

    print("seed  planned  contact  clearance, mm  attempts  seconds")
    for row in sorted(done, key=lambda r: r["seed"]):
        print(
            f"{row['seed']:4d}  {row['planned']!s:7s}  {row['contact']:7s}  "
            f"{row['clearance_mm'] or '':>13}  {row['attempts']:8d}  {row['seconds']:7.2f}"
        )
    planned = sum(row["planned"] for row in done)
    print(f"{planned} of {len(done)} planned; wrote {path}")
    return path


if __name__ == "__main__":
    tyro.cli(main)
