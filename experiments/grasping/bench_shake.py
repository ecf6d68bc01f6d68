"""Share of proposed grasps that survive the shake test, next to random antipodal grasps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.grasping.floating_hand import floating_hand
from experiments.grasping.shake_objects import OBJECTS, ShakeObject, at_rest, shake_objects
from experiments.grasping.shake_trial import VERDICTS, ShakeOptions, shake_trial
from flowplan.geometry import pose
from flowplan.grasp import ContactCandidates, GraspOptions, propose_grasps
from flowplan.grasp.antipodal import antipodal_pairs
from flowplan.grasp.candidates import best_first
from flowplan.grasp.gripper_clearance import clear_of_points, gripper_boxes, lowest_point
from flowplan.grasp.surface import object_cloud, unit_vectors
from flowplan.motion import Progress, silent
from flowplan.robot import Robot, load_robot
from flowplan.robot.gripper import Gripper
from flowplan.scene import Scene, SceneObject
from flowplan.utils.records import record
from flowplan.utils.stats import wilson

Proposer = Callable[[SceneObject, Scene, Gripper, int], ContactCandidates]
"""A way to choose grasps: (object, scene, gripper, seed) -> grasps, of which the first is tried."""

_RANDOM_PAIRS = 2000
"""Number of pairs that a random grasp is drawn from."""


def ranked(obj: SceneObject, scene: Scene, gripper: Gripper, seed: int) -> ContactCandidates:
    """The library's own proposals, best first."""
    return propose_grasps(obj, scene, gripper, seed=seed)


def random_antipodal(
    obj: SceneObject, scene: Scene, gripper: Gripper, seed: int
) -> ContactCandidates:
    """Random antipodal pairs that fit, from random sides where the open hand hits nothing."""
    rng = np.random.default_rng(seed)
    options = GraspOptions()
    cloud = object_cloud(obj, gripper, rng)
    pairs = antipodal_pairs(obj, cloud, rng, samples=options.samples, friction=options.friction)
    pairs = pairs.select(pairs.width < gripper.max_width - 2 * options.clearance)
    pairs = pairs.select(rng.permutation(len(pairs))[:_RANDOM_PAIRS])

    # A random approach direction about each closing line.
    y = (pairs.second - pairs.first) / pairs.width[:, None]
    z = unit_vectors(np.cross(y, rng.normal(size=y.shape)))
    R = np.stack([np.cross(y, z), y, z], axis=-1)
    X = pose(R, 0.5 * (pairs.first + pairs.second))

    # Keep poses in which the open hand is free and above the support.
    width = np.minimum(pairs.width + 2 * options.opening, gripper.max_width)
    boxes = gripper_boxes(gripper, width)
    free = clear_of_points(X, boxes.approached(options.approach), cloud.points)
    if scene.support_height is not None:
        free &= lowest_point(X, boxes) > scene.support_height + options.clearance
    score = np.zeros(int(free.sum()))
    return best_first(X[free], width[free], score, "grasp", scene.index(obj.name))


PROPOSERS: dict[str, Proposer] = {"ranked": ranked, "random": random_antipodal}
"""Ways to choose grasps that `bench_shake` compares, by name."""


def bench_shake(
    objects: Sequence[str] = tuple(OBJECTS),
    proposers: Mapping[str, Proposer] = PROPOSERS,
    *,
    n: int = 10,
    robot: str = "panda",
    seed: int = 0,
    progress: Progress = silent,
    options: ShakeOptions | None = None,
) -> list[dict[str, Any]]:
    """Share of held grasps over objects, poses, friction and mass, with 95 % Wilson intervals.

    Args:
        objects: Names in OBJECTS.
        proposers: Ways to choose a grasp, by name. Trial i of an object is the same for all.
        n: Trials of each object and proposer.
        robot: Robot whose hand is used.
        seed: Random seed.
        progress: Called before each trial.
        options: See ShakeOptions.

    Returns:
        JSON records `grasp/shake/<proposer>` (share held), `.../low95`, `.../high95`, and one for
        each other verdict. A proposer without a grasp counts as a miss.
    """
    options = options or ShakeOptions()
    verdicts: dict[str, list[str]] = {name: [] for name in proposers}
    with tempfile.TemporaryDirectory() as folder:
        hand = floating_hand(load_robot(robot), Path(folder))
        shaken = shake_objects(Path(folder), objects)
        for i, trial in np.ndindex(len(shaken), n):
            progress((i * n + trial) / (len(shaken) * n), f"{shaken[i].name} {trial + 1}/{n}")
            # A seed for each object and trial, alike for all proposers.
            trial_seed = int(np.random.SeedSequence((seed, i, trial)).generate_state(1)[0])
            obj = at_rest(shaken[i], trial_seed)
            for name, propose in proposers.items():
                grasps = propose(obj, Scene((obj,)), hand.gripper, trial_seed)
                verdict = _first_verdict(hand, shaken[i], obj, grasps, trial_seed, options)
                verdicts[name].append(verdict)
    return [entry for name, seen in verdicts.items() for entry in _records(name, seen)]


def _first_verdict(
    hand: Robot,
    shaken: ShakeObject,
    obj: SceneObject,
    grasps: ContactCandidates,
    seed: int,
    options: ShakeOptions,
) -> str:
    """Verdict on the best grasp."""
    if not len(grasps):
        return "miss"
    X, width = grasps.X_world_tool[0], float(grasps.width[0])
    done = shake_trial(hand, shaken, obj.X_world_object, X, width, seed=seed, options=options)
    return done.verdict


def _records(proposer: str, verdicts: Sequence[str]) -> list[dict[str, Any]]:
    total = len(verdicts)
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    low, high = wilson(counts["held"], total)
    key = f"grasp/shake/{proposer}"
    # Shares of held grasps with their interval, then of the other verdicts.
    values = [
        (key, counts["held"] / total, "up"),
        (f"{key}/low95", low, "up"),
        (f"{key}/high95", high, "up"),
    ]
    values += [(f"{key}/{verdict}", counts[verdict] / total, "down") for verdict in VERDICTS[1:]]
    return [
        record(name, value, "share", direction, total, decimals=4)
        for name, value, direction in values
    ]
