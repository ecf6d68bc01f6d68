"""Measurements of a NeuROK checkpoint: inverse kinematics beside baselines, ablations, times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.neurok.evaluate import (
    Case,
    Method,
    NeurokIkOptions,
    family_cases,
    find_state,
    neurok_method,
    object_cases,
    posed_pair,
)
from flowplan.geometry import exp_so3
from flowplan.motion import Progress, silent
from flowplan.scene import Action, Scene, SceneObject
from flowplan.utils.records import record
from generators.common.sampling import surface_points
from generators.data.objects.articulated import ArticulatedObject
from generators.data.objects.families import HELD_OUT_SEED, make
from generators.neurok.generate import from_network
from generators.neurok.kinematics.registration import registration, static
from generators.neurok.network.model import Neurok
from generators.neurok.options import NeurokOptions

METHODS = ("neurok", "static", "registration")
"""The network, and the baselines."""
ABLATIONS = ("k5", "k100", "no_reduction")
"""The network with other reductions of its latent space."""


def ik_cases(
    count: int, others: Mapping[str, ArticulatedObject], families: Sequence[str] = ()
) -> list[Case]:
    """Cases of a comparison.

    Held-out instances of trained families, half as many of never-trained ones, and two of every
    other object.

    Args:
        count: instances of trained families.
        others: further objects by name.
        families: if given, instances of these alone, for weights that learned a few families.
    """
    if families:
        return family_cases("trained", count, families)
    return [
        *family_cases("trained", count),
        *family_cases("never_trained", (count + 1) // 2),
        *object_cases("metaworld", others, 2),
    ]


def ik_methods(
    model: Neurok, names: Sequence[str] = METHODS, also: Mapping[str, Neurok] | None = None
) -> dict[str, Method]:
    """Methods by name.

    Args:
        model: the network.
        names: some of METHODS and ABLATIONS.
        also: further checkpoints by name, such as those of ablations.
    """
    usual = NeurokIkOptions()

    def reduced(dimension: int | None) -> Method:
        reduce = replace(usual.space.reduce, dimension=dimension)
        return neurok_method(model, replace(usual, space=replace(usual.space, reduce=reduce)))

    # Other dimensions of the reduced latent space.
    every: dict[str, Method] = {
        "neurok": neurok_method(model),
        "static": static,
        "registration": registration,
        "k5": reduced(5),
        "k100": reduced(100),
        "no_reduction": reduced(None),
    }
    return {name: every[name] for name in names} | {
        name: neurok_method(m) for name, m in (also or {}).items()
    }


def speed_records(
    model: Neurok, *, repeats: int = 5, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Median times over laptops, seconds.

    Encoding with inverse kinematics (`ik`), and a motion of 41 frames under a drag (`motion`).

    Args:
        model: the network.
        repeats: laptops, after one for warm-up.
        progress: called before each.
    """

    def kinematics(seed: int) -> None:
        mesh, target = posed_pair(
            Case("speed", "laptop", lambda: make("laptop", HELD_OUT_SEED + seed), seed)
        )
        goal, _ = surface_points(target, 4096, seed=seed)
        with _timed(spent["ik"]):
            find_state(mesh, goal, model, seed=seed)

    def motion(seed: int) -> None:
        scene, action = _closing(seed)
        with _timed(spent["motion"]):
            from_network(model, NeurokOptions(samples=1))(scene, action, seed=seed)

    runs: dict[str, Callable[[int], None]] = {"ik": kinematics, "motion": motion}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for i, (name, run) in enumerate(runs.items()):
        for seed in range(repeats + 1):
            progress((i + seed / (repeats + 1)) / len(runs), f"timing {name}")
            run(seed)
    return [
        # The first repeat warms up.
        record(
            f"neurok/speed/{name}_s",
            float(np.median(seconds[1:])),
            "s",
            "down",
            repeats,
            decimals=3,
        )
        for name, seconds in spent.items()
    ]


def _closing(seed: int) -> tuple[Scene, Action]:
    """A laptop, open and half a meter away, and an action that closes its lid by 60 degrees."""
    laptop = make("laptop", HELD_OUT_SEED + seed)
    lid = next(i for i, j in enumerate(laptop.free) if j.kind == "revolute")
    # All joints in the middle of their range; then the lid closed by up to 60 degrees.
    start = (laptop.lower + laptop.upper) / 2
    end = start.copy()
    end[lid] = max(start[lid] - np.pi / 3, laptop.lower[lid])
    # Twelve points on the lid, at both ends of the motion.
    child = list(laptop.links).index(laptop.free[lid].child)
    X = laptop.link_poses(np.stack([start, end]))[:, child]  # (2, 4, 4)
    vertices = np.asarray(laptop.links[laptop.free[lid].child].vertices)
    on_lid = vertices[np.linspace(0, len(vertices) - 1, 12).astype(int)]
    # Half a meter away, and turned a little.
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = exp_so3([0, 0, 0.3]), [0.5, 0.0, 0.0]
    homogeneous = np.c_[on_lid, np.ones(len(on_lid))]  # (12, 4)
    handles, targets = (homogeneous @ (turn @ X_link).T[:, :3] for X_link in X)
    scene = Scene((SceneObject("laptop", laptop.posed(start), turn),))
    return scene, Action("laptop", handles, targets=targets, duration=2.0)


class _timed:
    """Context that appends its wall time to a list."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds.append(time.perf_counter() - self._start)
